"""Spots of known grains as the kernels take them: the pixels that each reaches, and how strong it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import ndtr
from scipy.stats import norm

from ..brightness import Layer
from ..patterns import spots_of

WIDE = 4.0  # sigma from its middle up to which a spot is drawn


@dataclass(frozen=True, eq=False)
class Images:
    """The images of grains, spot by spot.

    start: Grain g has the spots start[g]:start[g + 1].
    at: Row and column, px, shape (spot, 2).
    place, share: Flat pixels of each spot and what of it falls into them, shape (spot, pixel).
    expected: Intensity that the kinematic theory gives, in units of a common scale, shape (spot,).
    strength: What is taken for it.
    slope: Change of `share` when the spot moves a pixel along the rows and along the columns, shape (2, spot, pixel).
    first, other: Spot s shares pixels with the spots other[first[s]:first[s + 1]], itself among them.
    """

    start: np.ndarray
    at: np.ndarray
    place: np.ndarray
    share: np.ndarray
    expected: np.ndarray
    strength: np.ndarray
    slope: np.ndarray
    first: np.ndarray
    other: np.ndarray

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arguments of the kernels after the weight."""
        return self.start, self.place, self.share, self.strength

    @property
    def grain(self) -> np.ndarray:
        """The grain of each spot."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def with_strength(self, strength: np.ndarray) -> Images:
        return replace(self, strength=strength.astype(np.float32))


def images_of(layer: Layer, turns: np.ndarray, strains: np.ndarray, sigma: float) -> Images:
    """The images of crystals on the detector of a layer.

    turns: U, shape (grain, 3, 3).  strains: Tensors in the crystal frame, same shape.  sigma: Of a spot, px.
    """
    lists = [spots_of(layer, turn, strain) for turn, strain in zip(turns, strains, strict=True)]
    start = np.concatenate([[0], np.cumsum([len(one.row) for one in lists])]).astype(np.int64)
    at = np.concatenate([np.empty((0, 2)), *(np.stack([one.row, one.column], 1) for one in lists)])
    expected = np.concatenate([np.empty(0), *(one.intensity for one in lists)]).astype(np.float32)
    rows, columns = (int(n) for n in layer.size)
    half = math.ceil(WIDE * sigma)
    i, across, steep_across = _pixels(at[:, 0], rows, half, sigma)
    j, along, steep_along = _pixels(at[:, 1], columns, half, sigma)
    place = _over(i * columns, j, np.add).astype(np.int32)
    slope = np.stack([_over(steep_across, along), _over(across, steep_along)]).astype(np.float32)
    share = _over(across, along).astype(np.float32)
    return Images(start, at, place, share, expected, expected, slope, *_overlaps(at, 2 * half + 1))


def _over(rows: np.ndarray, columns: np.ndarray, join: np.ufunc = np.multiply) -> np.ndarray:
    """Numbers of rows and of columns joined over the pixels of each spot, shape (spot, pixel)."""
    return np.asarray(join(rows[:, :, None], columns[:, None, :]).reshape(len(rows), rows.shape[1] * columns.shape[1]))


def _overlaps(at: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Which spots are nearer than `reach` along both axes, as `Images` has it."""
    if not len(at):
        return np.zeros(1, np.int64), np.empty(0, np.int64)
    tree = cKDTree(at)
    beside = tree.query_ball_point(at, reach, p=np.inf)
    return np.concatenate([[0], np.cumsum([len(one) for one in beside])]), np.concatenate(beside).astype(np.int64)


def _pixels(at: np.ndarray, size: int, half: int, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels about places along one axis, the part of the spot in each and its change with the place; none beyond the edge."""
    pixel = np.rint(at).astype(int)[:, None] + np.arange(-half, half + 1)
    low, high = (pixel - at[:, None] - 0.5) / sigma, (pixel - at[:, None] + 0.5) / sigma
    inside = (pixel >= 0) & (pixel < size)
    steep = (norm.pdf(low) - norm.pdf(high)) / sigma
    return np.clip(pixel, 0, size - 1), np.where(inside, ndtr(high) - ndtr(low), 0.0), np.where(inside, steep, 0.0)
