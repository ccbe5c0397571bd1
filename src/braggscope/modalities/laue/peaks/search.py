"""From frames to spots: background, matched filters, maxima, fits.

Errors: a detector that spreads its counts over pixels (a fibre-optic camera whose distortion was corrected) has noise that is
correlated between them, which its filters show: c = standard deviation of the filtered frame over that of independent pixels.
Covariances of fits are multiplied by c^2, and by the reduced chi-square where it is above 1 (a spot that is no Gaussian).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.source import Source
from braggscope.infer.runtime import in_threads, workers

from . import filters
from .background import Background, background
from .fit import ABOUT, CHI2, CONTRAST, FAILED, FLAG, PARAMETERS, box, fit_spots

REACH = 8  # px within which maxima must be parted by a dip
LIGHT = 3.0  # standard deviations above which a filtered count is light
APART = 6  # px between filtered counts whose noise is independent
SAMPLED = 1 / 48  # of the rows that tell the correlation of the noise
EDGE = 3.0  # standard deviations of its contrast below which a maximum that no fit describes is an edge of the background
NEIGHBOURS = 32  # of a spot that are looked at


@dataclass(frozen=True)
class Search:
    """How to search a frame.

    threshold: Least significance of a spot, standard deviations.
    most: Spots that are kept, the most significant first; 0 for all.
    box: Side of the box that is fitted, px, odd; wide spots have one of twice the size.
    saturation: Smallest count that means an overflow; None: the largest value of an unsigned integer type.
    """

    threshold: float = 4.5
    most: int = 0
    box: int = 11
    saturation: float | None = None

    def __post_init__(self) -> None:
        if not self.threshold >= 2:
            raise InputError(f"threshold must be at least 2 standard deviations, got {self.threshold:g}")
        if self.most < 0:
            raise InputError(f"most must be a number of peaks, or 0 for all, got {self.most}")
        if self.box < 5 or self.box % 2 == 0 or self.box > 101:
            raise InputError(f"box must be an odd number of pixels from 5 to 101, got {self.box}")
        if self.saturation is not None and not self.saturation > 0:
            raise InputError(f"saturation must be a positive count, got {self.saturation:g}")


@dataclass(frozen=True)
class Spots:
    """The spots of a frame, the most significant first (fit.fit_spots tells the columns).

    rows, columns: Of the maxima, shape (spot,).  significance: Shape (spot,).
    values, errors, about: Parameters, their covariance, and what is known of the fits.
    background: Of the frame.  correlation: c, see above.  hot: Rows and columns of hot pixels, shape (pixel, 2).
    """

    rows: np.ndarray
    columns: np.ndarray
    significance: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    about: np.ndarray
    background: Background
    correlation: float
    hot: np.ndarray


def find_spots(frame: np.ndarray, mask: np.ndarray | None = None, *, how: Search | None = None, threads: bool = True) -> Spots:
    """The spots of a frame.

    frame: Counts, shape (row, column).
    mask: True where a count may be used, same shape; saturated counts are told by their value.
    threads: Whether to share the work among threads; False inside of one.
    """
    how = how or Search()
    pieces = in_threads if threads else _at_once
    counts, saturation = _counts(frame, mask, how.saturation)
    ground = background(counts, pieces, whole=frame.dtype.kind in "ui")
    rows, columns, significance, correlation, hot = _maxima(counts, ground, how, pieces)
    counts[tuple(hot.T)] = np.nan
    values, errors = np.empty((len(rows), PARAMETERS)), np.empty((len(rows), PARAMETERS, PARAMETERS))
    about = np.empty((len(rows), ABOUT))
    level, sigma = ground.at_pixels(rows, columns, counts.shape)
    half = how.box // 2
    by_row = np.argsort(rows, kind="stable")  # as the fits find neighbours
    place = (rows[by_row], columns[by_row], level[by_row], sigma[by_row])
    inner = np.empty_like(values), np.empty_like(errors), np.empty_like(about)

    def work(start: int, stop: int) -> None:
        rooms = box(half), box(min(2 * half, 50)), np.empty(NEIGHBOURS, np.int64)
        fit_spots(counts, saturation, ground.gain, *place, start, stop, *rooms, *inner)

    if len(rows):
        pieces(work, len(rows), smallest=8)
        for target, source in zip((values, errors, about), inner, strict=True):
            target[by_row] = source
    errors *= (max(correlation, 1.0) ** 2 * np.maximum(about[:, CHI2], 1.0))[:, None, None]
    flag = about[:, FLAG].astype(int)
    single = _once(rows + values[:, 2], columns + values[:, 3], flag)
    single &= (flag & FAILED == 0) | (about[:, CONTRAST] > EDGE * max(correlation, 1.0))
    rows, columns, significance, values, errors, about = (
        one[single] for one in (rows, columns, significance, values, errors, about)
    )
    return Spots(rows, columns, significance, values, errors, about, ground, correlation, hot)


def find_in_batches(source: Source, how: Search) -> Iterator[tuple[int, Spots]]:
    """The spots of every frame of a scan, with the frame's flat position; frames are shared among threads."""
    saturation = how.saturation if how.saturation is not None else getattr(source, "saturation", None)
    how = Search(how.threshold, how.most, how.box, saturation)
    for batch in source.batches():
        yield from zip(map(int, batch.index), of_batch(batch, how), strict=True)


def of_batch(batch: Batch, how: Search) -> list[Spots]:
    """The spots of each frame of a batch; the frames, or where they are few the parts of each, are shared among threads."""
    masks: Any = batch.mask if batch.mask is not None else [None] * len(batch)
    if len(batch) < workers():
        return [find_spots(frame, mask, how=how) for frame, mask in zip(batch.frames, masks, strict=True)]
    found: list[Any] = [None] * len(batch)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            found[i] = find_spots(batch.frames[i], masks[i], how=how, threads=False)

    in_threads(work, len(batch))
    return found


def _at_once(work: Any, count: int, *, smallest: int = 1) -> None:
    """All of range(count) in this thread."""
    if count:
        work(0, count)


def _counts(frame: np.ndarray, mask: np.ndarray | None, saturation: float | None) -> tuple[np.ndarray, float]:
    """Counts as float32, NaN where they may not be used but are not saturated, and the count of saturation."""
    if frame.ndim != 2 or min(frame.shape) < 8:
        raise InputError(f"a frame must have at least 8 rows and 8 columns, got {' x '.join(map(str, frame.shape))}")
    if saturation is None:
        saturation = float(np.iinfo(frame.dtype).max) if frame.dtype.kind == "u" else math.inf
    counts = frame.astype(np.float32)
    unusable = None if mask is None else ~mask & ~(frame >= saturation)
    if frame.dtype.kind == "i":  # detectors mark gaps and dead pixels by negative counts
        unusable = frame < 0 if unusable is None else unusable | (frame < 0)
    if unusable is not None:
        counts[unusable] = np.nan
    return counts, saturation


def _maxima(
    counts: np.ndarray, ground: Background, how: Search, pieces: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, np.ndarray]:
    """Rows, columns and significance of the maxima, strongest first; correlation of the noise; hot pixels."""
    tall, wide = counts.shape
    norms, correlation = _norms(counts, ground)
    sharp, strength = np.empty((2, tall, wide), np.float32)
    strips, inverse = -(-tall // filters.STRIP), 1 / ground.sigma
    found: list[Any] = [None] * strips
    hots: list[Any] = [None] * strips

    def work(start: int, stop: int) -> None:
        room = _room(filters.STRIP, wide)
        for s in range(start, stop):
            top, bottom = s * filters.STRIP, min((s + 1) * filters.STRIP, tall)
            listed, hot = np.empty(((bottom - top) * wide // 4 + wide, 2), np.int32), np.empty((4096, 2), np.int32)
            args = (ground.level, inverse, top, bottom, filters.FIRST, filters.SECOND, hot, room)
            count = filters.filtered(counts, *args)
            hots[s] = hot[:count][(hot[:count, 0] >= top) & (hot[:count, 0] < bottom)]
            found[s] = listed[: filters.maxima(room, top, bottom, wide, norms, how.threshold, sharp, strength, listed)].copy()

    pieces(work, strips)
    rows, columns = np.concatenate(found).astype(np.int64).T
    _, sigma = ground.at_pixels(rows, columns, counts.shape)
    keep = np.empty(len(rows), np.bool_)
    filters.distinct(sharp, strength, rows, columns, ground.gain / sigma, float(filters.NORMS[0]), REACH, keep)
    rows, columns = rows[keep], columns[keep]
    significance = strength[rows, columns].astype(float)
    order = np.argsort(-significance, kind="stable")[: how.most or None]
    return rows[order], columns[order], significance[order], correlation, np.concatenate(hots)


def _room(strip: int, columns: int) -> np.ndarray:
    return np.zeros((4, strip + 2 * filters.HALO, columns + 2 * filters.HALO), np.float32)


def _norms(counts: np.ndarray, ground: Background) -> tuple[np.ndarray, float]:
    """What turns the output of each filter into significance, and the correlation of the noise in the narrow one.

    The scatter is that of f(x) - (f(x - 6 px) + f(x + 6 px)) / 2, which slow errors of the background do not change, by its
    quartiles, on rows spread over the frame, without places in the light of spots.
    """
    tall, wide = counts.shape
    height = min(8, tall)
    tops = np.unique(np.linspace(0, tall - height, max(3, round(tall * SAMPLED / height))).astype(int))
    room, hot = _room(height, wide), np.empty((64, 2), np.int32)
    rest: list[list[np.ndarray]] = [[], []]
    for top in tops:
        args = (ground.level, 1 / ground.sigma, int(top), int(top) + height, filters.FIRST, filters.SECOND, hot, room)
        filters.filtered(counts, *args)
        for k in range(2):
            inner = room[2 + k, filters.HALO : filters.HALO + height : 2, filters.HALO : filters.HALO + wide]
            three = np.stack([inner[:, : -2 * APART], inner[:, APART:-APART], inner[:, 2 * APART :]])
            low, middle = _quantiles(inner.ravel(), 0.16, 0.5)
            dark = middle + LIGHT * (middle - low)
            free = ((three != 0) & (three < dark)).all(0)
            rest[k].append((three[1] - 0.5 * (three[0] + three[2]))[free])
    factors = []
    for k, values in enumerate(map(np.concatenate, rest)):
        enough = len(values) >= 256
        scatter = float(np.diff(_quantiles(values, 0.25, 0.75))[0]) / (1.349 * math.sqrt(1.5)) if enough else 0.0
        factors.append(max(scatter * float(filters.NORMS[k]), 0.5) if enough else 1.0)
    return (filters.NORMS / np.array(factors, np.float32)).astype(np.float32), factors[0]


def _quantiles(values: np.ndarray, *parts: float) -> np.ndarray:
    """The values below which these parts of many lie, without interpolation."""
    at = [int(part * len(values)) for part in parts]
    return np.partition(values, at)[at]


def _once(row: np.ndarray, column: np.ndarray, flag: np.ndarray) -> np.ndarray:
    """Which spots to keep so that no two fits ended at the same place (within 1 px), the first of them; failed fits stay."""
    from scipy.spatial import cKDTree

    keep = np.ones(len(row), bool)
    good = np.flatnonzero((flag & FAILED == 0) & np.isfinite(row) & np.isfinite(column))
    if len(good) > 1:
        pairs = cKDTree(np.stack([row[good], column[good]], axis=1)).query_pairs(1.0, output_type="ndarray")
        keep[good[pairs.max(axis=1)]] = False
    return keep
