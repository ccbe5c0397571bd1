"""Light that stands still while the sample moves: substrate spots, fluorescence, pedestal, hot pixels.

Each pixel's level is a quantile of its counts over frames spread through the scan. The median keeps what is there in more
than half of the scan; grains much smaller than the scan are not. Its noise is the distance from the 16th percentile to
the median, one standard deviation of a Gaussian, which the light of grains above it does not widen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.source import Source

FRAMES = 201  # from which the level is taken: its error is then 0.09 of the noise of a frame
ROWS = 32  # of the detector whose quantiles are taken at a time
MOST_GONE = 0.95  # share of counts that may not be used
LEAST_NOISE = 0.5  # counts; of pixels that are dark in most frames


@dataclass(frozen=True)
class Standing:
    """What stands still.

    level: Counts of each pixel, shape (row, column).
    noise: Their standard deviation in one frame, same shape.
    """

    level: np.ndarray
    noise: np.ndarray

    def excess(self, batch: Batch) -> np.ndarray:
        """Counts above the level, float32 (frame, row, column); 0 where a count may not be used, unless it is saturated."""
        above = batch.frames - self.level
        if batch.mask is not None:
            kind = batch.frames.dtype
            full = batch.frames >= np.iinfo(kind).max if kind.kind in "ui" else np.zeros(batch.frames.shape, bool)
            above[~(batch.mask | full)] = 0
        return np.asarray(above, np.float32)


def standing(source: Source, *, quantile: float = 0.5, remove: bool = True) -> Standing:
    """The standing light of a scan.

    quantile: Of the counts of each pixel that is its level.
    remove: False leaves in it what is narrow: the level is then that of the whole frame, its median.
    Raises InputError where the scan has no frames, or next to no counts that may be used.
    """
    points = math.prod(source.shape)
    only = np.zeros(points, bool)
    only[np.unique(np.linspace(0, points - 1, min(points, FRAMES)).astype(int))] = True
    parts = [np.where(b.mask, b.frames, np.nan) if b.mask is not None else b.frames for b in source.batches(only=only)]
    if not parts:
        raise InputError("the scan has no frames yet from which to learn what stands still")
    stack = np.concatenate(parts)
    if stack.dtype.kind == "f" and (gone := float(np.isnan(stack).mean())) > MOST_GONE:
        raise InputError(f"{gone:.0%} of the counts of the scan are saturated or masked; nothing is left to tell grains by")
    if not remove:
        return _of_whole_frames(stack)
    shares = (0.16, 0.5, quantile)
    low, middle, level = np.concatenate([_quantiles(stack[:, r : r + ROWS], shares) for r in range(0, stack.shape[1], ROWS)], 1)
    return Standing(level.astype(np.float32), np.maximum(middle - low, LEAST_NOISE).astype(np.float32))


def _quantiles(values: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Quantiles over frames, 0 where no count may be used."""
    if values.dtype.kind != "f":
        return np.quantile(values, shares, axis=0)
    gone = np.isnan(values).all(axis=0)
    return np.asarray(np.where(gone, 0.0, np.nanquantile(np.where(gone, 0.0, values), shares, axis=0)))


def _of_whole_frames(stack: np.ndarray) -> Standing:
    """One level and one noise for all pixels."""
    low, middle = np.nanquantile(stack, (0.16, 0.5))
    shape = stack.shape[1:]
    return Standing(np.full(shape, middle, np.float32), np.full(shape, max(middle - low, LEAST_NOISE), np.float32))
