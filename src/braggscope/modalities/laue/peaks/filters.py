"""Where a frame may have spots: matched filters, and the local maxima of their significance. Compiled.

Counts less the background, in standard deviations of the background, are smoothed by Gaussians of two widths. Each filter's output
over its standard deviation is the significance of a spot of that shape; the larger of both is searched for local maxima. Spots of
sigma 0.5 to 2.5 px lose at most 6 % of their significance so.

A single bright pixel whose eight neighbours have together less than a third of its light is no spot (a spot of sigma 0.5 px, the
sharpest, gives them 1.1 times its light) and is left out before the filters.
"""

from __future__ import annotations

import math

import numpy as np

from braggscope.infer.peak_kernels import compiled, compiled_small

from .background import DEAD

NARROW, WIDE = 0.8, 1.6  # px, sigma of the two filters
HOT = 6.0  # standard deviations above which a lonely pixel is hot
LONELY = 0.35  # of its light in the eight neighbours, below which a pixel is lonely
STRIP = 64  # rows that are worked on at a time, so that they stay in the cache


def _gaussian(sigma: float) -> np.ndarray:
    """Half of a normalised Gaussian kernel, from its middle outwards."""
    x = np.arange(math.ceil(2.8 * sigma) + 1)
    half = np.exp(-0.5 * (x / sigma) ** 2)
    return (half / (2 * half.sum() - half[0])).astype(np.float32)


def _whole(half: np.ndarray) -> np.ndarray:
    return np.concatenate([half[:0:-1], half])


FIRST = _gaussian(NARROW)
SECOND = _gaussian(math.sqrt(WIDE**2 - NARROW**2))  # after the first one
HALO = len(FIRST) + len(SECOND)
NORMS = np.array(
    [1 / np.square(_whole(FIRST)).sum(), 1 / np.square(np.convolve(_whole(FIRST), _whole(SECOND))).sum()], np.float32
)  # 1 / standard deviation of the filters' output for white noise of one


@compiled
def _residual(counts, level, sigma, top, bottom, out):  # type: ignore[no-untyped-def]
    """Counts less background over noise, rows top to bottom (also outside the frame: 0) with HALO columns of 0 at both sides."""
    rows, columns = counts.shape
    tall, wide = level.shape
    line, noise = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for r in range(top, bottom):
        target = out[r - top]
        target[:] = 0.0
        if r < 0 or r >= rows:
            continue
        place = min(max((r + 0.5) * tall / rows - 0.5, 0.0), tall - 1.0)
        i = min(int(place), max(tall - 2, 0))
        f, k = np.float32(place - i), min(i + 1, tall - 1)
        for c in range(columns):
            x = min(max((c + np.float32(0.5)) * np.float32(wide / columns) - np.float32(0.5), np.float32(0)), np.float32(wide - 1))
            j = min(int(x), max(wide - 2, 0))
            g, m = x - np.float32(j), min(j + 1, wide - 1)
            line[c] = (1 - f) * ((1 - g) * level[i, j] + g * level[i, m]) + f * ((1 - g) * level[k, j] + g * level[k, m])
            noise[c] = (1 - f) * ((1 - g) * sigma[i, j] + g * sigma[i, m]) + f * ((1 - g) * sigma[k, j] + g * sigma[k, m])
        for c in range(columns):
            v = counts[r, c]
            usable = v == v and not (v == 0.0 and line[c] > DEAD * noise[c])
            target[HALO + c] = (v - line[c]) / noise[c] if usable else np.float32(0)


@compiled
def _without_hot(values, top, hot, count):  # type: ignore[no-untyped-def]
    """Set lonely bright pixels to 0 and list them (row, column); returns how many are listed then."""
    tall, wide = values.shape
    for r in range(1, tall - 1):
        for c in range(HALO, wide - HALO):
            v = values[r, c]
            if v > HOT:
                around = -v
                for i in range(r - 1, r + 2):
                    for j in range(c - 1, c + 2):
                        around += values[i, j]
                if around < LONELY * v:
                    values[r, c] = 0.0
                    if count < len(hot):
                        hot[count, 0], hot[count, 1] = r + top, c - HALO
                        count += 1
    return count


@compiled
def _smooth(values, half, across, out):  # type: ignore[no-untyped-def]
    """Convolve rows, then columns, with a symmetric kernel; what lies outside counts as 0.

    across: Work space of the shape of values.
    """
    tall, wide = values.shape
    radius = len(half) - 1
    for r in range(tall):
        source, target = values[r], across[r]
        target[:] = 0.0
        for c in range(radius, wide - radius):
            target[c] = half[0] * source[c]
        for k in range(1, radius + 1):
            weight = half[k]
            for c in range(radius, wide - radius):
                target[c] += weight * (source[c - k] + source[c + k])
    for r in range(tall):
        target, middle = out[r], across[r]
        for c in range(wide):
            target[c] = half[0] * middle[c]
        for k in range(1, radius + 1):
            weight = half[k]
            if r - k >= 0 and r + k < tall:
                above, below = across[r - k], across[r + k]
                for c in range(wide):
                    target[c] += weight * (above[c] + below[c])


@compiled
def significances(counts, level, sigma, top, bottom, first, second, norms, hot, room):  # type: ignore[no-untyped-def]
    """Significance in the two filters of rows top to bottom; how many hot pixels were listed.

    counts: Shape (row, column).  level, sigma: On tiles.  hot: Filled with rows and columns of hot pixels, shape (most, 2).
    room: Shape (4, bottom - top + 2 HALO or more, columns + 2 HALO). At the end room[2] and room[3] hold the significances of rows
        top - HALO to bottom + HALO, right from top - 1 to bottom + 1.
    """
    tall = bottom - top + 2 * HALO
    values, across, narrow, wide = room[0, :tall], room[1, :tall], room[2, :tall], room[3, :tall]
    _residual(counts, level, sigma, top - HALO, bottom + HALO, values)
    listed = _without_hot(values, top - HALO, hot, 0)
    _smooth(values, first, across, narrow)
    _smooth(narrow, second, across, wide)
    for r in range(tall):
        for c in range(narrow.shape[1]):
            narrow[r, c] *= norms[0]
            wide[r, c] *= norms[1]
    return listed


@compiled
def maxima(room, top, bottom, columns, threshold, strength, found):  # type: ignore[no-untyped-def]
    """List the local maxima above the threshold; how many there are.

    room: From `significances`.  strength: Filled with the larger significance, shape (row, column) of the frame.
    found: Filled with rows and columns, shape (most, 2).
    """
    narrow, wide = room[2], room[3]
    both = room[0]
    for r in range(HALO - 1, HALO + bottom - top + 1):
        for c in range(HALO - 1, HALO + columns + 1):
            both[r, c] = max(narrow[r, c], wide[r, c])
    count = 0
    for r in range(HALO, HALO + bottom - top):
        line = strength[top + r - HALO]
        for c in range(columns):
            line[c] = both[r, HALO + c]
        for c in range(HALO, HALO + columns):
            v = both[r, c]
            if v > threshold and _highest(both, r, c) and count < len(found):
                found[count, 0], found[count, 1] = top + r - HALO, c - HALO
                count += 1
    return count


@compiled_small
def _highest(values, r, c):  # type: ignore[no-untyped-def]
    """Whether a value is the highest of 3 x 3, the first one of equals."""
    v = values[r, c]
    for j in range(c - 1, c + 2):
        if values[r - 1, j] >= v or values[r + 1, j] > v:
            return False
    return values[r, c - 1] < v and values[r, c + 1] <= v


@compiled
def distinct(strength, rows, columns, gain_per_sigma, norm, reach, keep):  # type: ignore[no-untyped-def]
    """Keep a maximum only where it is parted from every stronger one within reach by a dip of 3 standard deviations.

    The deviation there is that of its light: sqrt(1 + gain s / sigma^2) with s = strength sigma / norm.

    strength: Significance, shape (row, column).  rows, columns: Of the maxima, rows rising.
    gain_per_sigma: Gain over the standard deviation of the background at each of them.  keep: Filled.
    """
    for i in range(len(rows)):
        keep[i] = True
        v = strength[rows[i], columns[i]]
        deep = v - 3 * math.sqrt(1 + max(v, 0.0) * gain_per_sigma[i] / norm)
        for way in (-1, 1):
            j = i + way
            while keep[i] and 0 <= j < len(rows) and abs(rows[j] - rows[i]) <= reach:
                other = strength[rows[j], columns[j]]
                if abs(columns[j] - columns[i]) <= reach and (other > v or (other == v and j < i)):
                    keep[i] = _lowest_between(strength, rows[i], columns[i], rows[j], columns[j]) < deep
                j += way


@compiled_small
def _lowest_between(values, r, c, row, column):  # type: ignore[no-untyped-def]
    """The lowest value on the straight line between two pixels."""
    steps = max(abs(row - r), abs(column - c))
    lowest = values[r, c]
    for k in range(1, steps):
        lowest = min(lowest, values[r + round((row - r) * k / steps), c + round((column - c) * k / steps)])
    return lowest
