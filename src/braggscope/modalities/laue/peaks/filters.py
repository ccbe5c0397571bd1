"""Where a frame may have spots: matched filters, and the local maxima of their significance. Compiled.

Counts less the background, in standard deviations of the background, are smoothed by Gaussians of two widths. Each filter's
output over its standard deviation is the significance of a spot of that shape; local maxima of the larger of both, and of the
narrow one, are candidates. Spots of sigma 0.5 to 2.5 px lose at most 6 % of their significance so.

A bright pixel whose eight neighbours together have much less light than it is no spot (the sharpest, of sigma 0.5 px, gives them
1.1 times its light) and is replaced by their mean before the filters.
"""

from __future__ import annotations

import math

import numpy as np

from braggscope.infer.peak_kernels import compiled, compiled_small

from .background import DEAD

NARROW, WIDE = 0.8, 1.6  # px, sigma of the two filters
HOT = 6.0  # standard deviations above which a lonely pixel is hot
LONELY = 0.35, 0.7  # of its light in the eight neighbours, below which a pixel is lonely: a faint one, and a bright one
BRIGHT = 15.0  # standard deviations
CLEAR = 8.0  # standard deviations
RADIUS = 4  # px, of a filter's kernel
STRIP = 64  # rows that are worked on at a time, so that they stay in the cache


def _gaussian(sigma: float) -> np.ndarray:
    """Half of a normalised Gaussian kernel of nine points, from its middle outwards."""
    half = np.exp(-0.5 * (np.arange(RADIUS + 1) / sigma) ** 2)
    return (half / (2 * half.sum() - half[0])).astype(np.float32)


def _whole(half: np.ndarray) -> np.ndarray:
    return np.concatenate([half[:0:-1], half])


FIRST = _gaussian(NARROW)
SECOND = _gaussian(math.sqrt(WIDE**2 - NARROW**2))  # after the first one
HALO = 2 * RADIUS + 2
NORMS = np.array(
    [1 / np.square(_whole(FIRST)).sum(), 1 / np.square(np.convolve(_whole(FIRST), _whole(SECOND))).sum()], np.float32
)  # 1 / standard deviation of the filters' output for white noise of one


@compiled
def _along(values, i, j, f, place, out):  # type: ignore[no-untyped-def]
    """One row of a frame between the middles of tiles: rows i and j of tiles with weights 1 - f and f.

    place: 0, 1, 2 ... in single precision: processors cannot convert many integers at once.
    """
    wide, columns = values.shape[1], len(place)
    step = np.float32(wide / columns)
    first = 0
    for k in range(-1, wide):  # from the middle of tile k to that of the next
        a, b = max(k, 0), min(k + 1, wide - 1)
        low = values[i, a] + f * (values[j, a] - values[i, a])
        slope = (values[i, b] + f * (values[j, b] - values[i, b]) - low) * step
        last = columns if k == wide - 1 else min(columns, math.ceil((k + 1.5) / step - 0.5))
        offset = np.float32(0.5) - np.float32((k + 0.5) / step)
        for c in range(first, last):
            out[c] = low + slope * (place[c] + offset)
        first = last


@compiled
def _residual(counts, level, inverse, top, bottom, out):  # type: ignore[no-untyped-def]
    """Counts less background over noise, rows top to bottom (also outside the frame: 0) with HALO columns of 0 at both sides."""
    rows, columns = counts.shape
    tall = len(level)
    line, weight, place = np.empty(columns, np.float32), np.empty(columns, np.float32), np.arange(columns).astype(np.float32)
    for r in range(top, bottom):
        target = out[r - top]
        target[:] = 0.0
        if r < 0 or r >= rows:
            continue
        tile = min(max((r + 0.5) * tall / rows - 0.5, 0.0), tall - 1.0)
        i = min(int(tile), max(tall - 2, 0))
        f = np.float32(tile - i)
        _along(level, i, min(i + 1, tall - 1), f, place, line)
        _along(inverse, i, min(i + 1, tall - 1), f, place, weight)
        source, inner = counts[r], target[HALO : HALO + columns]
        for c in range(columns):
            v, b = source[c], line[c] * weight[c]
            usable = v == v and not (v == 0.0 and b > np.float32(DEAD))
            inner[c] = v * weight[c] - b if usable else np.float32(0)


@compiled
def _without_hot(values, top, hot, count):  # type: ignore[no-untyped-def]
    """Replace lonely bright pixels by the mean of their neighbours and list them (row, column); how many are listed then."""
    tall, wide = values.shape
    for r in range(1, tall - 1):
        for c in range(HALO, wide - HALO):
            v = values[r, c]
            if v > HOT:
                around = -v
                for i in range(r - 1, r + 2):
                    for j in range(c - 1, c + 2):
                        around += values[i, j]
                if around < (LONELY[1] if v > BRIGHT else LONELY[0]) * v:
                    values[r, c] = max(around, np.float32(0)) / 8
                    if count < len(hot):
                        hot[count, 0], hot[count, 1] = r + top, c - HALO
                        count += 1
    return count


@compiled
def _symmetric(m, a1, b1, a2, b2, a3, b3, a4, b4, half, out):  # type: ignore[no-untyped-def]
    """A line with four neighbours at both sides, weighted; in two loops, since compilers vectorise over few arrays only."""
    h0, h1, h2, h3, h4 = half[0], half[1], half[2], half[3], half[4]
    for c in range(len(out)):
        out[c] = h0 * m[c] + h1 * (a1[c] + b1[c]) + h2 * (a2[c] + b2[c])
    for c in range(len(out)):
        out[c] += h3 * (a3[c] + b3[c]) + h4 * (a4[c] + b4[c])


@compiled
def _smooth(values, half, across, out):  # type: ignore[no-untyped-def]
    """Convolve rows, then columns, with a symmetric kernel of nine points; RADIUS rows at each end are left as they were.

    across: Work space of the shape of values.
    """
    tall, wide = values.shape
    w = wide - 8
    for r in range(tall):
        s = values[r]
        _symmetric(
            s[4 : w + 4], s[3 : w + 3], s[5 : w + 5], s[2 : w + 2], s[6 : w + 6], s[1 : w + 1], s[7 : w + 7], s[:w], s[8:],
            half, across[r, 4 : w + 4],
        )  # fmt: skip
    for r in range(4, tall - 4):
        _symmetric(
            across[r], across[r - 1], across[r + 1], across[r - 2], across[r + 2], across[r - 3], across[r + 3],
            across[r - 4], across[r + 4], half, out[r],
        )  # fmt: skip


@compiled
def filtered(counts, level, inverse, top, bottom, first, second, hot, room):  # type: ignore[no-untyped-def]
    """Rows top to bottom in the two filters; how many hot pixels were listed.

    counts: Shape (row, column).  level, inverse: Background and 1 / noise on tiles.
    hot: Filled with rows and columns of hot pixels, shape (most, 2).
    room: Shape (4, bottom - top + 2 HALO or more, columns + 2 HALO). At the end room[2] and room[3] hold the filtered rows
        top - HALO to bottom + HALO, right from top - 1 to bottom + 1.
    """
    tall = bottom - top + 2 * HALO
    values, across, narrow, wide = room[0, :tall], room[1, :tall], room[2, :tall], room[3, :tall]
    _residual(counts, level, inverse, top - HALO, bottom + HALO, values)
    listed = _without_hot(values, top - HALO, hot, 0)
    _smooth(values, first, across, narrow)
    _smooth(narrow, second, across, wide)
    return listed


@compiled
def maxima(room, top, bottom, columns, norms, threshold, sharp, strength, found):  # type: ignore[no-untyped-def]
    """List the local maxima above the threshold of the narrow filter and of both; how many there are.

    room: From `filtered`.  norms: What turns each filter's output into significance.
    sharp, strength: Filled with the significance in the narrow filter and the larger of both, shape (row, column) of the frame.
    found: Filled with rows and columns, shape (most, 2).
    """
    narrow, wide, both = room[2], room[3], room[0]
    for r in range(HALO - 1, HALO + bottom - top + 1):
        a, b = narrow[r, HALO - 1 : HALO + columns + 1], wide[r, HALO - 1 : HALO + columns + 1]
        larger = both[r, HALO - 1 : HALO + columns + 1]
        for c in range(len(a)):
            a[c] *= norms[0]
            larger[c] = max(a[c], norms[1] * b[c])
    count = 0
    for r in range(HALO, HALO + bottom - top):
        sharp[top + r - HALO] = narrow[r, HALO : HALO + columns]
        strength[top + r - HALO] = both[r, HALO : HALO + columns]
        line = both[r, HALO : HALO + columns]
        for k in range(columns):
            if line[k] <= threshold or count == len(found):
                continue
            c = k + HALO
            if _highest(both, r, c) or (narrow[r, c] > threshold and _highest(narrow, r, c)):
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
def distinct(sharp, strength, rows, columns, gain_per_sigma, norm, reach, keep):  # type: ignore[no-untyped-def]
    """Keep a maximum only where it is parted from every stronger one within reach by a dip of 3 standard deviations.

    The deviation there is that of its light: sqrt(1 + gain s / sigma^2) with s = strength sigma / norm. The dip is looked for in
    the narrow filter, which parts better, where the maximum is CLEAR there.

    sharp, strength: Significance in the narrow filter and the larger of both, shape (row, column).
    rows, columns: Of the maxima, rows rising.  gain_per_sigma: Gain over the standard deviation of the background at each.
    keep: Filled.
    """
    for i in range(len(rows)):
        keep[i] = True
        v = strength[rows[i], columns[i]]
        values = sharp if sharp[rows[i], columns[i]] > CLEAR else strength
        own = values[rows[i], columns[i]]
        deep = own - 3 * math.sqrt(1 + max(own, 0.0) * gain_per_sigma[i] / norm)
        for way in (-1, 1):
            j = i + way
            while keep[i] and 0 <= j < len(rows) and abs(rows[j] - rows[i]) <= reach:
                other = strength[rows[j], columns[j]]
                if abs(columns[j] - columns[i]) <= reach and (other > v or (other == v and j < i)):
                    keep[i] = _lowest_between(values, rows[i], columns[i], rows[j], columns[j]) < deep
                j += way


@compiled_small
def _lowest_between(values, r, c, row, column):  # type: ignore[no-untyped-def]
    """The lowest value on the straight line between two pixels."""
    steps = max(abs(row - r), abs(column - c))
    lowest = values[r, c]
    for k in range(1, steps):
        lowest = min(lowest, values[r + round((row - r) * k / steps), c + round((column - c) * k / steps)])
    return lowest
