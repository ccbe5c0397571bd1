"""Bright points of weak-beam layers: what stands out of the background of each layer, as places in um with weights.

Background and noise of a layer are the median and the median absolute deviation of its blocks, interpolated between their middles
(the mesh of Bertin & Arnouts 1996, Astron. Astrophys. Suppl. 117, 393), so that diffuse light and its changes from layer to layer
cancel. Single bright pixels are not points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label, map_coordinates
from scipy.ndimage import sum as sums

from braggscope.core.errors import InputError

BLOCK = 48  # pixels, at most, along a side of the blocks of the background
LEAST = 3  # pixels that hang together: fewer are noise or a hot pixel
FLOOR = 0.01  # of the brightest light of a layer: less is no noise, as in a simulation without any
SIGMA = 1.4826  # median absolute deviations of a Gaussian in one standard deviation
CROWDED = 0.5  # of the pixels of a layer: if more are bright, the crystal is in its strong beam


@dataclass(frozen=True)
class Cloud:
    """Bright points of a volume.

    place: um, shape (point, 3).  weight: Light above the background, shape (point,).
    voxel: Layer, row and column of each, shape (point, 3).  spot: Number of the spot of its layer that each belongs to.
    size: Of a voxel along x, y and z, um.  shape: Layers, rows and columns.
    blur: Standard deviation of a spot across its narrow side, um.
    """

    place: np.ndarray
    weight: np.ndarray
    voxel: np.ndarray
    spot: np.ndarray
    size: np.ndarray
    shape: tuple[int, int, int]
    blur: float

    def whole(self) -> np.ndarray:
        """Whether the spot of a point is not cut by the edge of the frame, which moves its middle; shape (point,)."""
        at = self.voxel[:, 1:]
        edge = ((at == 0) | (at == np.array(self.shape[1:]) - 1)).any(axis=1)
        return ~np.isin(self.spot, self.spot[edge])


def background(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level and noise (standard deviation) of a layer at each of its pixels; NaN in the image is left out."""
    counts = [max(1, round(n / BLOCK)) for n in image.shape]
    blocks = [np.array_split(rows, counts[1], axis=1) for rows in np.array_split(image, counts[0], axis=0)]
    with np.errstate(invalid="ignore"):
        level = np.array([[_median(b) for b in row] for row in blocks])
        spread = np.array([[SIGMA * _median(np.abs(b - _median(b))) for b in row] for row in blocks])
    known = np.isfinite(level)
    if not known.any():
        return np.full(image.shape, np.nan), np.full(image.shape, np.nan)
    level, spread = (np.where(known, v, np.median(v[known])) for v in (level, spread))
    at = np.meshgrid(*((np.arange(n) + 0.5) * c / n - 0.5 for n, c in zip(image.shape, counts, strict=True)), indexing="ij")
    smooth = map_coordinates(level, at, order=1, mode="nearest")
    noise = map_coordinates(spread, at, order=1, mode="nearest")
    high = float(np.nanpercentile(image, 99.9) - np.median(level))
    return smooth, np.maximum(noise, max(FLOOR * high, 1e-12))


def bright_points(
    layers: Iterable[tuple[int, np.ndarray]], heights: np.ndarray, pixel_um: tuple[float, float], rows_columns: tuple[int, int],
    threshold: float,
) -> Cloud:  # fmt: skip
    """The points of all layers that lie more than `threshold` standard deviations of the noise above the background.

    layers: Number of a layer and its image, NaN where it is not known.  heights: z of each layer, um.
    Raises InputError where nothing is bright, or so much that the crystal is in its strong beam.
    """
    voxels, weights, spots, count, shares = [], [], [], 0, []
    for number, image in layers:
        level, noise = background(image)
        with np.errstate(invalid="ignore"):
            bright = image > level + threshold * noise
        name, found = label(bright, np.ones((3, 3)))
        kept = np.flatnonzero(sums(bright, name, np.arange(1, found + 1)) >= LEAST) + 1
        rows, columns = np.nonzero(np.isin(name, kept))
        voxels.append(np.stack([np.full(len(rows), number), rows, columns], 1))
        weights.append((image - level)[rows, columns])
        spots.append(np.searchsorted(kept, name[rows, columns]) + count)
        count += len(kept)
        shares.append(len(rows) / image.size)
    if not count:
        raise InputError(
            f"the weak-beam volume is empty: in none of its {len(heights)} layers do {LEAST} neighbouring pixels stand "
            f"{threshold:g} standard deviations above the background; lower threshold, or choose another weak-beam position"
        )
    if np.median(shares) > CROWDED:
        raise InputError(f"{np.median(shares):.0%} of the pixels are bright: these are no weak-beam images")
    voxel = np.concatenate(voxels)
    step = float(np.median(np.abs(np.diff(heights))))
    place = np.column_stack([voxel[:, 1] * pixel_um[0], voxel[:, 2] * pixel_um[1], heights[voxel[:, 0]]])
    weight, spot = np.concatenate(weights), np.concatenate(spots)
    size, shape = np.array([*pixel_um, step]), (len(heights), *rows_columns)
    return Cloud(place, weight, voxel, spot, size, shape, narrow_side(place, weight, spot, size))


def narrow_side(place: np.ndarray, weight: np.ndarray, spot: np.ndarray, size: np.ndarray) -> float:
    """Median over the spots of the standard deviation across the narrow side of each, a pixel's own width included, um."""
    total = np.bincount(spot, weight)
    centre = np.stack([np.bincount(spot, weight * place[:, i]) / total for i in (0, 1)], 1)
    away = place[:, :2] - centre[spot]
    xx, yy, xy = (np.bincount(spot, weight * away[:, i] * away[:, j]) / total for i, j in ((0, 0), (1, 1), (0, 1)))
    pixel = size[:2] ** 2 / 12
    mean, half = (xx + yy + pixel.sum()) / 2, np.hypot((xx - yy + pixel[0] - pixel[1]) / 2, xy)
    return float(np.sqrt(np.median(np.maximum(mean - half, pixel.min()))))


def thinned(cloud: Cloud, edge: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean places and weights of the points in cells of one layer with this edge, um: nearly independent of each other."""
    cells = np.column_stack([cloud.voxel[:, 0], np.floor(cloud.place[:, :2] / edge).astype(np.int64)])
    _, which = np.unique(cells, axis=0, return_inverse=True)
    which = np.ravel(which)
    total = np.bincount(which, cloud.weight)
    return np.stack([np.bincount(which, cloud.weight * cloud.place[:, i]) / total for i in range(3)], 1), total


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else np.nan
