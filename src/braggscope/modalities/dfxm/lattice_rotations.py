"""Rotations of the lattice over the pixels of a map, and the misorientation between them.

Frame: the laboratory (x along the beam, z upwards) as the sample stands in it at the reference position of the goniometer. A
rotation vector w turns the reference lattice into the pixel's, v' = R(w) v.

One reflection shows where the diffraction vector points; a rotation about it is not seen. What separates two pixels is then the
angle between their diffraction vectors, the least rotation that takes one lattice to the other: a lower bound of the
misorientation, and the misorientation itself where nothing turns about the vector. It does not depend on the reference. A map
of all three components (from several reflections) has no `unseen_axis`, and misorientations are angles of rotations; crystal
symmetry is left out, as pixels of one grain are compared.

Covariances are those of the components of w; between two pixels they are taken as those of the small rotation that the error is,
which differs by half the tilt: 1 % at 1 deg, in the mixing of the components.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from braggscope.core.errors import InputError
from braggscope.physics import rotations

ROTATIONS = ("rotation_x", "rotation_y", "rotation_z")
PAIRS = ((0, 1), (0, 2), (1, 2))
DEGREE = math.pi / 180


@dataclass(frozen=True)
class LatticeRotations:
    """A field of lattice rotations.

    state: Diffraction vectors, shape (..., 3), where one reflection was seen; else rotation matrices, shape (..., 3, 3).
    covariance: Of the rotation vector, rad^2, shape (..., 3, 3); None where the map has no errors.
    unseen: Direction of the diffraction vector at the reference, shape (3,), or None.
    """

    state: Tensor
    covariance: Tensor | None
    unseen: Tensor | None

    @classmethod
    def of(cls, dataset: xr.Dataset) -> LatticeRotations:
        """From the variables rotation_x, rotation_y and rotation_z of a map, shapes (row, column)."""
        missing = [name for name in ROTATIONS if name not in dataset]
        if missing:
            raise InputError(f"an orientation map needs {', '.join(ROTATIONS)}; this map lacks {', '.join(missing)}")
        vector = torch.from_numpy(np.stack([dataset[n].values for n in ROTATIONS], -1).astype(np.float64)) * DEGREE
        unseen = None
        state = rotations.from_rotation_vector(vector)
        if "unseen_axis" in dataset.attrs:
            unseen = torch.tensor([float(w) for w in str(dataset.attrs["unseen_axis"]).split()], dtype=torch.float64)
            state = state @ unseen
        return cls(state, _covariance(dataset), unseen)

    @property
    def known(self) -> Tensor:
        """Where there is an orientation, shape (...)."""
        return torch.isfinite(self.state if self.unseen is not None else self.state.flatten(-2)).all(-1)

    def __getitem__(self, where: Any) -> LatticeRotations:
        """The pixels at an index over the leading axes."""
        covariance = None if self.covariance is None else self.covariance[where]
        return LatticeRotations(self.state[where], covariance, self.unseen)

    def __len__(self) -> int:
        return len(self.state)

    def flat(self) -> LatticeRotations:
        """All pixels in one row."""
        inner = 1 if self.unseen is not None else 2
        covariance = None if self.covariance is None else self.covariance.reshape(-1, 3, 3)
        return LatticeRotations(self.state.reshape(-1, *self.state.shape[-inner:]), covariance, self.unseen)

    def to(self, other: LatticeRotations) -> Tensor:
        """The rotation vector (rad) that turns the lattice here to the other's, shape (..., 3); leading axes broadcast."""
        if self.unseen is None:
            return rotations.rotation_vector(other.state @ self.state.transpose(-1, -2))
        return rotations.rotation_between(self.state, other.state)

    def turned(self, vector: Tensor) -> LatticeRotations:
        """The lattices turned further by rotation vectors (rad), without errors."""
        turn = rotations.from_rotation_vector(vector)
        state = turn @ self.state if self.unseen is None else (turn @ self.state[..., None])[..., 0]
        return LatticeRotations(state, None, self.unseen)

    def means(self, label: np.ndarray, count: int) -> LatticeRotations:
        """The mean lattice of each group of pixels: no rotation to its members on average (Karcher mean), errors with it.

        label: Group of each pixel from 0, negative for none, shape (pixel,); self must be flat.
        """
        member = np.flatnonzero((label >= 0) & self.known.numpy())
        group = label[member]
        size = np.maximum(np.bincount(group, minlength=count), 1)[:, None]
        first = np.zeros(count, np.int64)
        first[group[::-1]] = member[::-1]
        mean, members = self[torch.from_numpy(first)], self[torch.from_numpy(member)]
        for _ in range(3):  # converges quadratically; groups are a few degrees wide
            step = mean[torch.from_numpy(group)].to(members).numpy()
            mean = mean.turned(torch.from_numpy(_group_sums(group, step, count) / size))
        if self.covariance is None:
            return mean
        total = _group_sums(group, self.covariance[torch.from_numpy(member)].reshape(-1, 9).numpy(), count)
        covariance = torch.from_numpy((total / size**2).reshape(count, 3, 3))
        return LatticeRotations(mean.state, covariance, self.unseen)

    def vectors_from(self, reference: LatticeRotations | None = None) -> np.ndarray:
        """Rotation vectors from the reference lattice (by default that of zero rotation), deg, shape (..., 3)."""
        if reference is None:
            zero = self.unseen if self.unseen is not None else torch.eye(3, dtype=self.state.dtype)
            reference = LatticeRotations(zero, None, self.unseen)
        return reference.to(self).numpy() / DEGREE


def variance_along(axis: Tensor, covariance: Tensor) -> Tensor:
    """a^T C a for axes of any length made units; for a zero axis, the mean over two directions (trace / 2)."""
    length = axis.norm(dim=-1)
    unit = axis / torch.where(length > 0, length, 1.0)[..., None]
    along = (unit[..., None, :] @ covariance @ unit[..., :, None])[..., 0, 0]
    return torch.where(length > 0, along, covariance.diagonal(dim1=-2, dim2=-1).sum(-1) / 2)


def _covariance(dataset: xr.Dataset) -> Tensor | None:
    """The covariance matrix of the rotation vector, rad^2; None without standard deviations, 0 for pairs that are not given."""
    if any(f"{name}_std" not in dataset for name in ROTATIONS):
        return None
    shape = dataset[ROTATIONS[0]].shape
    matrix = np.zeros((*shape, 3, 3))
    for i, name in enumerate(ROTATIONS):
        matrix[..., i, i] = dataset[f"{name}_std"].values ** 2
    for i, j in PAIRS:
        name = f"{ROTATIONS[i]}_{ROTATIONS[j]}_covariance"
        if name in dataset:
            matrix[..., i, j] = matrix[..., j, i] = dataset[name].values
    return torch.from_numpy(matrix * DEGREE**2)


def _group_sums(group: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Sums of the rows of values over each group, shape (group, column)."""
    return np.stack([np.bincount(group, column, count) for column in values.T], -1)
