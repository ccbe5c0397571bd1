"""Patterns as small pictures: whole frames, and artificial patterns (Chan et al. 2025, "PIML").

Of an artificial pattern only the peaks are left that are strongest in its neighbourhood. The beam lights many grains at once.
The grain under its middle has, among equals, the strongest peaks, and they are stronger still where the beam stands on it: so
i_max is the highest peak in the patterns of the neighbourhood, and peaks below a share of it are blocked (published: radius one
step, share 0.8). How the patterns that are left are then pooled is not published; `POOLINGS` are the choices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from braggscope.core.batch import Batch
from braggscope.infer.runtime import in_threads

from .standing import Standing

POOLINGS = ("max", "mean", "none")
BLOCKING = ("pattern", "reflection")
SAME_PX = 1  # rows and columns by which the place of a reflection differs between neighbouring patterns, at most


def cells(frame_shape: tuple[int, int], side: int) -> tuple[int, tuple[int, int]]:
    """Pixels along a cell of a picture whose longer side has at most `side` cells, and the picture's rows and columns."""
    pixels = max(1, math.ceil(max(frame_shape) / side))
    return pixels, (-(-frame_shape[0] // pixels), -(-frame_shape[1] // pixels))


def brightest_in_cells(batch: Batch, still: Standing, threshold: float, side: int) -> np.ndarray:
    """Whole frames as pictures: the brightest pixel of each cell above what stands still, float32 (frame, row, column).

    threshold: Standard deviations of a pixel's noise below which it is 0.
    """
    frame_shape = batch.frames.shape[1:]
    pixels, size = cells(frame_shape, side)
    found = np.zeros((len(batch), *size), np.float32)
    edges = [np.arange(0, length, pixels) for length in frame_shape]
    least = threshold * still.noise

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            excess = still.excess(batch.take(np.array([i])))[0]
            excess[excess <= least] = 0
            found[i] = np.maximum.reduceat(np.maximum.reduceat(excess, edges[0], axis=0), edges[1], axis=1)

    in_threads(work, len(batch))
    return found


def neighbours(shape: tuple[int, int], radius: float) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs of slices of the scan, here and there: each way to a neighbour within the radius (scan points), itself first."""
    reach = int(radius)
    steps = [(r, c) for r in range(-reach, reach + 1) for c in range(-reach, reach + 1) if math.hypot(r, c) <= radius]
    for r, c in sorted(steps, key=lambda step: (math.hypot(*step), step)):
        if abs(r) < shape[0] and abs(c) < shape[1]:
            here = (slice(max(0, -r), shape[0] - max(0, r)), slice(max(0, -c), shape[1] - max(0, c)))
            there = (slice(max(0, r), shape[0] - max(0, -r)), slice(max(0, c), shape[1] - max(0, -c)))
            yield here, there


def blocked(light: np.ndarray, radius: float, share: float) -> np.ndarray:
    """The peaks' light over i_max, 0 for those below the share.

    light: Shape (row, column, peak); 0 where there is no peak.
    """
    brightest = light.max(axis=2)
    highest = brightest.copy()
    for here, there in neighbours(brightest.shape, radius):
        np.maximum(highest[here], brightest[there], out=highest[here])
    relative = light / np.maximum(highest, 1e-6)[..., None]
    return np.asarray(np.where(relative >= share, relative, 0), np.float32)


def blocked_by_reflection(place: np.ndarray, light: np.ndarray, columns: int, radius: float, share: float) -> np.ndarray:
    """The peaks' light over that of the pattern's strongest, 0 for those below a share of the same reflection beside it.

    place: Flat pixels, -1 for none.  columns: Of the detector.
    """
    highest = light.copy()
    row, column = place // columns, place % columns
    for here, there in neighbours(light.shape[:2], radius):
        for k in range(place.shape[2]):
            near = np.abs(row[here] - row[there][..., k : k + 1]) <= SAME_PX
            near &= np.abs(column[here] - column[there][..., k : k + 1]) <= SAME_PX
            near &= place[there][..., k : k + 1] >= 0
            np.maximum(highest[here], np.where(near, light[there][..., k : k + 1], 0), out=highest[here])
    kept = np.where(light >= share * np.maximum(highest, 1e-6), light, 0)
    return np.asarray(kept / np.maximum(kept.max(axis=2, keepdims=True), 1e-6), np.float32)


def pictures(place: np.ndarray, light: np.ndarray, frame_shape: tuple[int, int], side: int) -> np.ndarray:
    """Peaks as pictures of cells, the strongest peak in each cell, shape (row, column, cell row, cell column), float32.

    place, light: Shape (row, column, peak).
    """
    pixels, size = cells(frame_shape, side)
    found = np.zeros((place.shape[0] * place.shape[1], math.prod(size)), np.float32)
    where, flat = place.reshape(len(found), -1), light.reshape(len(found), -1)
    cell = where // frame_shape[1] // pixels * size[1] + where % frame_shape[1] // pixels
    point, peak = np.nonzero((where >= 0) & (flat > 0))
    np.maximum.at(found, (point, cell[point, peak]), flat[point, peak])
    return found.reshape(*place.shape[:2], *size)


def pooled(images: np.ndarray, seen: np.ndarray, radius: float, how: str) -> np.ndarray:
    """The pictures of each position's neighbourhood as one: their largest value or mean in each cell, or its own.

    images: Shape (row, column, cell row, cell column).  seen: Positions that have a pattern, shape (row, column).
    """
    if how == "none":
        return images
    total, count = images.copy(), seen.astype(np.float32)
    ways = neighbours(seen.shape, radius)
    next(ways)  # itself
    for here, there in ways:
        if how == "max":
            np.maximum(total[here], images[there], out=total[here])
        else:
            total[here] += images[there]
            count[here] += seen[there]
    return total if how == "max" else total / np.maximum(count, 1)[..., None, None]
