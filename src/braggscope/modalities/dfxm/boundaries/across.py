"""Misorientation across boundaries, from the orientation map of one layer that they cross.

Rotations beside a wall are compared from its two sides, in segments along its trace in the layer; the scatter of the segments
gives the error. Pixels nearer than a spacing of the dislocations are left out, for there the field of the single dislocations has
not died away (as exp(-2 pi x / d); Hirth & Lothe 1982, sec. 19-5), and pixels beside other walls.

By Frank's rule for one row of dislocations the lattice turns about the lines, w = theta t. Of one reflection the part of w about
the diffraction vector is not seen; theta then follows from the parts that are: theta = t' . w' / |t'|^2, the primes without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.ndimage import distance_transform_edt

from braggscope.core.errors import InputError

from ..lattice_rotations import ROTATIONS
from .planes import Plane

SEGMENTS = 6  # along the trace of a wall
LEAST = 5  # pixels of a segment on each side, and segments with so many: half of them
WIDTH = 3.0  # spacings, of the band on each side
FALLBACK_UM = 2.0  # in the place of the spacing, where that is not known


@dataclass(frozen=True)
class Turn:
    """Misorientation across a wall, rad, its error, and the angle between its axis and the lines, rad; NaN where not known."""

    angle: float = math.nan
    std: float = math.nan
    off_lines: float = math.nan


def turns_across(
    planes: Sequence[Plane], lines: Sequence[np.ndarray], spacings: Sequence[float], label: np.ndarray, height: float,
    size: np.ndarray, dataset: xr.Dataset,
) -> list[Turn]:  # fmt: skip
    """The misorientation across each wall.

    lines: Directions, NaN where there are none.  label: Number of the wall from 1 on of each pixel of the layer, shape (row,
    column).  height: z of the layer, um.  size: Of a pixel, um.  dataset: Orientation map of the layer.
    """
    rotation = np.radians(np.stack([dataset[n].values for n in ROTATIONS], -1).astype(np.float64))
    seen = np.eye(3)
    if "unseen_axis" in dataset.attrs:
        axis = np.array([float(w) for w in str(dataset.attrs["unseen_axis"]).split()])
        seen = seen - np.outer(axis, axis)
    found = []
    for k, (plane, line, spacing) in enumerate(zip(planes, lines, spacings, strict=True)):
        step = _step(plane, spacing if math.isfinite(spacing) else FALLBACK_UM, label, k + 1, height, size, rotation)
        found.append(_about_lines(*step, line, seen) if step is not None else Turn())
    return found


def check_lattice_map(dataset: xr.Dataset, frame_shape: tuple[int, ...]) -> None:
    """Raise InputError for a map of other pixels or without rotations."""
    if lacking := [n for n in ROTATIONS if n not in dataset]:
        raise InputError(f"lattice_map must be an orientation map, made with orientation; this map lacks {', '.join(lacking)}")
    if dataset["flag"].shape != frame_shape:
        shapes = [" x ".join(map(str, s)) for s in (dataset["flag"].shape, frame_shape)]
        raise InputError(f"lattice_map must have the pixels of the layers, {shapes[1]}, got {shapes[0]}")


def _step(
    plane: Plane, spacing: float, label: np.ndarray, number: int, height: float, size: np.ndarray, rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean step of the rotation from one side of a wall to the other and its covariance; None where too few pixels see it."""
    rows, columns = np.indices(label.shape)
    at = np.stack([rows * size[0], columns * size[1], np.full(label.shape, height)], -1)
    level = math.hypot(*plane.normal[:2])
    if level < 0.2 or not (label == number).any():
        return None
    distance = plane.distance(at)  # from the wall, in which the fields die away, not along the layer
    along = at[..., :2] @ np.array([-plane.normal[1], plane.normal[0]]) / level
    gap = max(spacing, 3 * plane.scatter)
    other = (label > 0) & (label != number)
    free = distance_transform_edt(~other, sampling=size[:2]) > gap if other.any() else np.ones(label.shape, bool)
    ends = np.quantile(along[label == number], [0.0, 1.0])
    use = free & np.isfinite(rotation).all(axis=-1) & (np.abs(distance) > gap) & (np.abs(distance) < gap + WIDTH * spacing)
    use &= (along > ends[0]) & (along < ends[1])
    segment = np.floor(SEGMENTS * (along - ends[0]) / max(float(np.ptp(ends)), 1e-9)).astype(int)
    steps = []
    for n in range(SEGMENTS):
        sides = [use & (segment == n) & (np.sign(distance) == sign) for sign in (1, -1)]
        if min(s.sum() for s in sides) >= LEAST:
            steps.append(rotation[sides[0]].mean(axis=0) - rotation[sides[1]].mean(axis=0))
    if len(steps) < SEGMENTS / 2:
        return None
    return np.mean(steps, axis=0), np.cov(np.array(steps).T) / len(steps)


def _about_lines(step: np.ndarray, covariance: np.ndarray, line: np.ndarray, seen: np.ndarray) -> Turn:
    """The misorientation of a wall from what is seen of it; without lines its length, where all of it is seen."""
    w = seen @ step
    if not np.isfinite(line).all():
        whole = np.allclose(seen, np.eye(3))
        length = float(np.linalg.norm(w))
        return Turn(length, math.sqrt(float(w @ covariance @ w)) / length) if whole and length > 0 else Turn()
    t = seen @ line
    square = float(t @ t)
    if square < 0.05:  # the lattice turns about the diffraction vector: nothing of it is seen
        return Turn()
    off = math.atan2(float(np.linalg.norm(np.cross(t, w))), abs(float(t @ w)))
    return Turn(abs(float(t @ w)) / square, math.sqrt(float(t @ covariance @ t)) / square, off)
