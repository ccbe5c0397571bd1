"""Background and noise of a frame, from its own counts.

The frame is cut into tiles of about 16 x 16 pixels, of which every second row is used. Median and median deviation of a quarter
of these counts start three rounds of means clipped at 2.5 standard deviations; a plane is taken out of the variance. The fourth
lowest of 3 x 3 tiles tells what the background is, also where a spot fills a tile; those of the nine that agree with it are
averaged, and between the middles of tiles level and standard deviation are interpolated.

The variance of a count grows with the light as V = V_tile + gain (count - background). The gain is the slope of the variances of
tiles against their levels (photon transfer, Janesick 2007, ch. 5); where the level hardly varies it is variance / level, which is
right for counted photons on no pedestal.

A count of 0 where a tile's other counts are far above their noise is no count but a dead pixel, as outside a round detector. Left
out: features of the background narrower than about two tiles, such as sharp powder rings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from braggscope.infer.peak_kernels import compiled, compiled_small

TILE = 16  # px
CLIP = 2.5  # standard deviations
CLIPPED = 0.9112  # of a normal variance that is left after that
LOWER = 3  # of nine tiles, from 0: just below the median
AGREE = 0.35  # standard deviations of a count, or of its variance, by which tiles of one background differ at most
DEAD = 6.0  # standard deviations below the others at which 0 is no count
LEAST = 0.25  # of a tile's pixels that must count
SURE = 5.0  # standard deviations of the gain above zero
Pieces = Callable[..., None]  # calls work(start, stop) over range(count), as `in_threads`


@dataclass(frozen=True)
class Background:
    """Level and noise of a frame on tiles.

    level, sigma: Counts and their standard deviation without spots, shape (tile row, tile column), float32.
    gain: Variance per count of light.
    dead: Share of the tiles that do not count.
    """

    level: np.ndarray
    sigma: np.ndarray
    gain: float
    dead: float

    def at_pixels(self, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Level and standard deviation at some pixels of a frame of this shape (row, column), each like rows and columns."""
        places = [
            np.clip((np.asarray(at) + 0.5) * (count / size) - 0.5, 0, count - 1)
            for at, count, size in zip((rows, columns), self.level.shape, shape, strict=True)
        ]
        level, sigma = (
            ndimage.map_coordinates(values, places, np.float64, order=1, mode="nearest") for values in (self.level, self.sigma)
        )
        return level, sigma


def background(counts: np.ndarray, pieces: Pieces, *, whole: bool = True) -> Background:
    """Level and noise of a frame.

    counts: Shape (row, column), float32, NaN where a count may not be used.
    pieces: Calls work(start, stop) on pieces of range(count).
    whole: Whether counts are whole numbers: their noise is then at least half a count.
    """
    tiles = tuple(max(1, size // TILE) for size in counts.shape)
    level, variance = np.empty(tiles, np.float32), np.empty(tiles, np.float32)
    pieces(lambda a, b: tile_statistics(counts, whole, a, b, level, variance), tiles[0])
    live = np.isfinite(level)
    if not live.any():
        return Background(np.zeros(tiles, np.float32), np.ones(tiles, np.float32), 1.0, 1.0)
    if not live.all():
        nearest = ndimage.distance_transform_edt(~live, return_distances=False, return_indices=True)
        level, variance = level[tuple(nearest)], variance[tuple(nearest)]
    floor = 0.25 if whole else max(1e-12 * float(np.ptp(counts[np.isfinite(counts)])) ** 2, 1e-30)
    low, noise = (ndimage.rank_filter(values, LOWER, size=3) for values in (level, variance))
    noise = np.maximum(noise, floor)
    level = _mean_of_agreeing(level, low, AGREE * np.sqrt(noise))
    variance = np.maximum(_mean_of_agreeing(variance, noise, AGREE * noise), floor)
    return Background(level, np.sqrt(variance), photon_transfer(level[live], variance[live]), float(1 - live.mean()))


def _mean_of_agreeing(values: np.ndarray, low: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Mean of the tiles around each one, with weights (1, 2, 1) along both axes, that are `within` of the low value there."""
    padded, (rows, columns) = np.pad(values, 1, mode="edge"), values.shape
    total, weight = np.zeros_like(values), np.zeros_like(values)
    for down in range(3):
        for right in range(3):
            one = padded[down : down + rows, right : right + columns]
            part = np.where(np.abs(one - low) <= within, np.float32((2 - abs(down - 1)) * (2 - abs(right - 1))), np.float32(0))
            total += part * one
            weight += part
    return np.where(weight > 0, total / np.maximum(weight, 1), low)


def photon_transfer(level: np.ndarray, variance: np.ndarray) -> float:
    """Variance per count of light, from level and variance of tiles, shape (tile,) each.

    The slope by a weighted straight line through the medians of 16 classes of level; where it is not sure, variance / level.
    """
    order = np.argsort(level, kind="stable")
    classes = [part for part in np.array_split(order, 16) if len(part) >= 8]
    x = np.array([np.median(level[part]) for part in classes], float)
    y = np.array([np.median(variance[part]) for part in classes], float)
    simple = max(float(np.median(variance / np.maximum(level, 1e-6))), 1e-6)
    simple = min(simple, 1e6)
    if len(x) < 4 or np.ptp(x) <= 0:
        return simple
    weight = 1 / np.maximum(y, 1e-30) ** 2
    x = x - np.average(x, weights=weight)
    slope = float(np.sum(weight * x * y) / np.sum(weight * x**2))
    rest = y - np.average(y, weights=weight) - slope * x
    error = math.sqrt(np.sum(weight * rest**2) / (len(x) - 2) / np.sum(weight * x**2))
    return slope if slope > SURE * error else simple


@compiled_small
def _selected(values, size, k):  # type: ignore[no-untyped-def]
    """The k-th smallest of the first values, which are put in another order (quickselect, Hoare 1961)."""
    low, high = 0, size - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            return values[k]
    return values[k]


@compiled_small
def _robust(values, size):  # type: ignore[no-untyped-def]
    """Median and standard deviation by the median deviation; the values are changed."""
    middle = _selected(values, size, size // 2)
    for i in range(size):
        values[i] = abs(values[i] - middle)
    return middle, 1.4826 * _selected(values, size, size // 2)


@compiled
def _clipped(values, across, down, size, middle, width):  # type: ignore[no-untyped-def]
    """Mean and variance about a plane of the values within `width` of the middle."""
    n = 0.0
    total, square, by_x, by_y, x1, y1, x2, y2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(size):
        v, x, y = values[i] - middle, across[i], down[i]
        w = 1.0 if abs(v) <= width else 0.0
        n += w
        total += w * v
        square += w * v * v
        by_x += w * v * x
        by_y += w * v * y
        x1 += w * x
        y1 += w * y
        x2 += w * x * x
        y2 += w * y * y
    n = max(n, 1.0)
    mean = total / n
    variance = square / n - mean * mean
    for first, second, product in ((x1 / n, x2 / n, by_x / n), (y1 / n, y2 / n, by_y / n)):
        spread = second - first * first
        if spread > 0.0:
            variance -= (product - mean * first) ** 2 / spread
    return middle + mean, max(variance, 0.0) * n / max(n - 3.0, 1.0)


@compiled
def tile_statistics(counts, whole, start, stop, level, variance):  # type: ignore[no-untyped-def]
    """Level and variance of the tiles in rows start to stop of the grid of tiles; NaN where too few pixels count.

    counts: Shape (row, column).  level, variance: Filled, shape (tile row, tile column).
    """
    rows, columns = counts.shape
    most = (rows // level.shape[0] + 2) * (columns // level.shape[1] + 2)
    values, across, down = np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most, np.float32)
    some = np.empty(most, np.float32)
    least = 1.0 if whole else 0.0
    for i in range(start, stop):
        top, bottom = rows * i // level.shape[0], rows * (i + 1) // level.shape[0]
        for j in range(level.shape[1]):
            left, right = columns * j // level.shape[1], columns * (j + 1) // level.shape[1]
            size, zeros = 0, 0
            for r in range(top, bottom, 2):
                for c in range(left, right):
                    v = counts[r, c]
                    if v == v:
                        values[size], across[size], down[size] = v, c - left, r - top
                        size += 1
                        zeros += v == 0.0
            if zeros > 0 and zeros < size:
                few = 0
                for k in range(size):
                    if values[k] != 0.0:
                        some[few] = values[k]
                        few += 1
                counted = few
                middle, width = _robust(some, few)
                if middle > DEAD * least and counted < LEAST * size:  # too few to tell their noise
                    size = 0
                elif middle > DEAD * max(width, least):
                    few = 0
                    for k in range(size):
                        if values[k] != 0.0:
                            values[few], across[few], down[few] = values[k], across[k], down[k]
                            few += 1
                    size = few
            elif zeros == size:
                size = 0
            if size < LEAST * ((bottom - top + 1) // 2) * (right - left):
                level[i, j] = variance[i, j] = np.nan
                continue
            few = 0
            for k in range(0, size, 4 if size >= 96 else 1):
                some[few] = values[k]
                few += 1
            middle, width = _robust(some, few)
            for _ in range(3):
                middle, square = _clipped(values, across, down, size, middle, CLIP * max(width, least))
                square /= CLIPPED
                width = math.sqrt(square)
            level[i, j], variance[i, j] = middle, square
