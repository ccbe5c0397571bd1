"""Regions of nearly the same lattice: a watershed on how fast the lattice turns, then merging across weak walls.

The watershed cuts the image along ridges of the local rotation, into too many pieces. Between two pieces that touch, the wall
is measured by the mean rotation vector from pixels on one side to pixels `reach` away on the other: noise averages out along
the wall, a real wall does not. What noise across the mean vector adds to its length is taken off. The weakest wall is taken
down first, as long as it is below the threshold; the sums of its two pieces' walls are added, so that every wall is always
measured over its whole length.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ..lattice_rotations import DEGREE, LatticeRotations

DOUBT = 2.0  # standard deviations that a wall must stand above the threshold
UPPER = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))  # rows and columns of the six different elements of a covariance
UNFOLDED = (3, 4, 5, 4, 6, 7, 5, 7, 8)  # where the nine elements lie behind a rotation of three


@dataclass
class Wall:
    """Sums over the pairs of pixels across a wall between two regions.

    rotation: Rotation vectors from the lower number, deg, shape (3,).
    covariance: Of that sum, deg^2, shape (3, 3).
    """

    rotation: np.ndarray
    covariance: np.ndarray
    pairs: float

    @cached_property
    def _parts(self) -> tuple[float, float, float]:
        """Square of the sum of the rotations, and its variances along it and across it, deg^2."""
        square, variance = float(self.rotation @ self.rotation), float(self.covariance.trace())
        along = max(0.0, float(self.rotation @ self.covariance @ self.rotation)) / square if square > 0 else variance
        return square, along, variance - along

    @property
    def angle(self) -> float:
        """Mean misorientation across the wall, deg: noise across a vector lengthens its square by its variance (Rice)."""
        square, _, across = self._parts
        return math.sqrt(max(0.0, square - across)) / self.pairs

    @property
    def std(self) -> float:
        """Its standard deviation, deg."""
        return math.sqrt(self._parts[1]) / self.pairs

    @cached_property
    def height(self) -> float:
        """What the wall is at least: its angle less `DOUBT` standard deviations."""
        return self.angle - DOUBT * self.std


def turning(field: LatticeRotations, known: np.ndarray, smooth: float) -> np.ndarray:
    """How fast the lattice turns, deg per pixel, of rotation vectors smoothed by a Gaussian (weights 1 / variance)."""
    vector = field.vectors_from()
    weight = known.astype(float)
    if field.covariance is not None:
        trace = field.covariance.diagonal(dim1=-2, dim2=-1).sum(-1).numpy()
        positive = np.isfinite(trace) & (trace > 0) & known
        if positive.any():
            floor = np.percentile(trace[positive], 5)
            weight[positive] = 1 / np.maximum(trace[positive], floor)
            weight /= weight.max()
    below = np.maximum(gaussian_filter(weight, smooth), 1e-12)
    square = np.zeros(known.shape)
    for i in range(3):
        even = gaussian_filter(np.where(known, np.nan_to_num(vector[..., i]), 0.0) * weight, smooth) / below
        for slope in np.gradient(even):
            square += slope**2
    return np.sqrt(square)


def pieces(strength: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The watershed of the strength: pieces numbered from 1, 0 where there is no orientation."""
    from skimage.segmentation import watershed

    return np.asarray(watershed(strength, mask=known, connectivity=1), np.int64)


def walls_between(label: np.ndarray, field: LatticeRotations, reach: int) -> dict[tuple[int, int], Wall]:
    """The walls between pieces that touch, measured on pairs of pixels `reach` apart that lie on its two sides.

    Where pieces are too narrow for that, on pairs at the next smaller distance that has any.
    """
    touching = np.concatenate([_pairs(label, axis, 1)[1] for axis in (0, 1)])
    lacking, walls = np.unique(touching), {}
    for distance in range(reach, 0, -1):
        codes, tables = zip(*(_across(label, field, axis, distance, lacking) for axis in (0, 1)), strict=True)
        which, group = np.unique(np.concatenate(codes), return_inverse=True)
        sums = [np.bincount(group, column, len(which)) for column in np.concatenate(tables).T]
        rotation, covariance = np.stack(sums[:3], -1), np.stack([sums[k] for k in UNFOLDED], -1).reshape(-1, 3, 3)
        for code, *of_wall, pairs in zip(which, rotation, covariance, sums[-1], strict=True):
            walls[int(code >> 32), int(code & 0xFFFFFFFF)] = Wall(of_wall[0], of_wall[1], float(pairs))
        lacking = np.setdiff1d(lacking, which)
    return walls


def _pairs(label: np.ndarray, axis: int, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Where two pixels this far apart lie in two pieces, shape of the image less the distance, and the codes of the pieces."""
    near, far = _shifted(axis, distance)
    a, b = label[near], label[far]
    use = (a > 0) & (b > 0) & (a != b)
    return use, _code(a[use], b[use])


def _across(
    label: np.ndarray, field: LatticeRotations, axis: int, distance: int, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the pieces of pairs of pixels across the walls wanted, and per pair rotation (deg), the six covariances and 1."""
    use, codes = _pairs(label, axis, distance)
    keep = np.isin(codes, wanted)
    use[use] = keep
    near, far = _shifted(axis, distance)
    where = torch.from_numpy(use)
    one, other = field[near][where], field[far][where]
    vector = one.to(other).numpy() / DEGREE
    covariance = np.zeros((len(vector), 6))
    if one.covariance is not None and other.covariance is not None:
        covariance = (one.covariance + other.covariance)[:, UPPER[0], UPPER[1]].numpy() / DEGREE**2
    sign = np.where(label[near][use] < label[far][use], 1.0, -1.0)
    return codes[keep], np.column_stack([vector * sign[:, None], covariance, np.ones(len(vector))])


def merged(
    walls: dict[tuple[int, int], Wall], sizes: np.ndarray, means: np.ndarray, threshold: float, within: float, smallest: int
) -> tuple[np.ndarray, list[dict[int, Wall]]]:
    """Which region each piece belongs to (number of one of its pieces), after taking down all walls below the threshold.

    Regions below the smallest size are then joined to the neighbour with the lowest wall.
    sizes, means: Pixels and mean rotation vector (deg) of each piece, shapes (piece,) and (piece, 3).
    within: Regions whose mean lattices are further apart (deg) are not joined across a low wall.
    """
    beside: list[dict[int, Wall]] = [{} for _ in sizes]
    for (a, b), wall in walls.items():
        beside[a][b], beside[b][a] = wall, Wall(-wall.rotation, wall.covariance, wall.pairs)
    parent, size, mean = np.arange(len(sizes)), sizes.astype(float), means.copy()
    queue = [(wall.height, a, b, wall.pairs) for (a, b), wall in walls.items()]
    heapq.heapify(queue)
    while queue:
        height, a, b, pairs = heapq.heappop(queue)
        if height >= threshold:
            break
        found = beside[a].get(b)
        current = found is not None and found.pairs == pairs and found.height == height
        if current and np.linalg.norm(mean[a] - mean[b]) <= within:
            _join(a, b, beside, parent, size, mean, queue)
    small = [(int(size[i]), i) for i in range(1, len(size)) if parent[i] == i and size[i] < smallest]
    heapq.heapify(small)
    while small:
        count, a = heapq.heappop(small)
        if parent[a] != a or size[a] != count or not beside[a]:
            continue
        b = min(beside[a], key=lambda other: beside[a][other].height)
        kept = _join(a, b, beside, parent, size, mean, None)
        if size[kept] < smallest:
            heapq.heappush(small, (int(size[kept]), kept))
    for i in range(len(parent)):
        parent[i] = _root(parent, i)
    return parent, beside


def _join(
    a: int, b: int, beside: list[dict[int, Wall]], parent: np.ndarray, size: np.ndarray, mean: np.ndarray,
    queue: list[tuple[float, int, int, float]] | None,
) -> int:  # fmt: skip
    """Make one region of two; returns the number that stays, that with more neighbours."""
    if len(beside[a]) < len(beside[b]):
        a, b = b, a
    mean[a] = (size[a] * mean[a] + size[b] * mean[b]) / (size[a] + size[b])
    parent[b], size[a] = a, size[a] + size[b]
    del beside[a][b], beside[b][a]
    for other, wall in beside[b].items():
        del beside[other][b]
        old = beside[a].get(other)
        if old is not None:
            wall = Wall(old.rotation + wall.rotation, old.covariance + wall.covariance, old.pairs + wall.pairs)
        beside[a][other], beside[other][a] = wall, Wall(-wall.rotation, wall.covariance, wall.pairs)
        if queue is not None:
            heapq.heappush(queue, (wall.height, a, other, wall.pairs))
    beside[b] = {}
    return a


def _root(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = int(parent[i])
    return i


def _shifted(axis: int, reach: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    near, far = [slice(None), slice(None)], [slice(None), slice(None)]
    near[axis], far[axis] = slice(None, -reach), slice(reach, None)
    return (near[0], near[1]), (far[0], far[1])


def _code(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One number for an unordered pair of pieces."""
    return (np.minimum(a, b) << 32) | np.maximum(a, b)
