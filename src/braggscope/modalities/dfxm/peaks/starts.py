"""Where a fit starts: one peak, one more where the residual is largest, or several from clusters of the counts. Compiled.

The curve, smoothed over three points along each motor, gives background, height, and centre and width of what is above half
height. A further peak is put where the smoothed residual is largest; or all of them anew, by k-means of the counts above the
background.
"""

from __future__ import annotations

import math

import numpy as np

from braggscope.infer.peak_kernels import PSEUDO_VOIGT, compiled, per_peak_compiled

LLOYD = 8  # rounds of k-means
NARROWEST, CROSS = 0.2, 6.0  # least s in steps; largest |c|
ABOVE_HALF = (0.0, 0.383, 0.307, 0.26)  # <t^2> of a Gaussian over its half maximum, in so many dimensions


@compiled
def smooth(values, lengths, out, room):  # type: ignore[no-untyped-def]
    """Mean over three points along each axis of the grid (the end point twice at an end), shape (point,)."""
    size = 1
    for length in lengths:
        size *= length
    for i in range(len(values)):
        out[i] = values[i]
    stride = size
    for length in lengths:
        line, stride = stride, stride // length  # of the points of one line, and between two of them
        for i in range(size):
            room[i] = out[i]
        for start in range(0, size, line):
            stop = start + line
            for i in range(start, start + stride):
                out[i] = (2 * room[i] + room[i + stride]) * (1 / 3)
            for i in range(start + stride, stop - stride):
                out[i] = (room[i - stride] + room[i] + room[i + stride]) * (1 / 3)
            for i in range(stop - stride, stop):
                out[i] = (room[i - stride] + 2 * room[i]) * (1 / 3)


@compiled
def first_peak(counts, valid, x, lengths, base, shape, theta, space):  # type: ignore[no-untyped-def]
    """Start values of one peak; the range of the smoothed counts is given back."""
    soft, room, motors, size = space.room[0], space.weight, len(x), len(counts)
    smooth(counts, lengths, soft, room)
    low, high = math.inf, -math.inf
    for i in range(size):
        if valid[i] > 0:
            low, high = min(low, soft[i]), max(high, soft[i])
    level, number = 0.0, 0.0
    for i in range(size):
        if valid[i] > 0 and soft[i] <= low + 0.25 * (high - low):
            level, number = level + counts[i], number + 1
    level /= max(number, 1.0)
    total = 0.0
    for k in range(base + per_peak_compiled(motors, shape)):
        theta[k] = 0.0
    for i in range(size):
        excess = soft[i] - level - 0.5 * (high - level)
        if valid[i] > 0 and excess >= 0:
            total += soft[i] - level
    for d in range(motors):
        first, second = 0.0, 0.0
        for i in range(size):
            excess = soft[i] - level - 0.5 * (high - level)
            if valid[i] > 0 and excess >= 0:
                first += (soft[i] - level) * x[d, i]
                second += (soft[i] - level) * x[d, i] ** 2
        first, second = first / max(total, 1e-300), second / max(total, 1e-300)
        theta[base + 1 + d] = first
        theta[base + 1 + motors + d] = 0.5 * math.log(max(second - first**2, 0.1) / ABOVE_HALF[motors])
    theta[0], theta[base] = level, max(high - level, 1e-9)
    if shape == PSEUDO_VOIGT:
        theta[base + 3] = 0.3
    return high - low


def bounds_of(x: np.ndarray, base: int, shape: int, most: int) -> np.ndarray:
    """Lowest and highest value of each parameter, shape (2, parameter); a centre may leave the scan by half its length, and is
    flagged then. Those of background and amplitudes follow the counts of each pixel (`own_bounds`)."""
    length = np.ptp(x, axis=1) + 1
    low = [0.0, *(x.min(axis=1) - 0.5 * length), *np.full(len(x), math.log(NARROWEST))]
    high = [0.0, *(x.max(axis=1) + 0.5 * length), *np.log(2 * length)]
    cross = len(x) * (len(x) - 1) // 2
    low += [-CROSS] * cross + [0.0] * (shape == PSEUDO_VOIGT)
    high += [CROSS] * cross + [1.0] * (shape == PSEUDO_VOIGT)
    slopes = [math.inf] * base
    return np.array([[-math.inf] * base + low * most, slopes + high * most])


@compiled
def own_bounds(bounds, base, each, peaks, level, spread):  # type: ignore[no-untyped-def]
    """Set the bounds that follow the counts of a pixel: their level and their spread."""
    bounds[0, 0], bounds[1, 0] = level - 4 * spread, level + 2 * spread
    for k in range(peaks):
        bounds[0, base + k * each], bounds[1, base + k * each] = 0.0, 20 * spread


@compiled
def add_at_residual(old, peaks, counts, valid, x, lengths, base, shape, theta, space):  # type: ignore[no-untyped-def]
    """`old` with one more peak where the smoothed residual of its model is largest, as wide as the narrowest so far."""
    expected, residual, soft, room = space.expected, space.jacobian[0], space.room[0], space.weight
    motors, size = len(x), len(counts)
    each = per_peak_compiled(motors, shape)
    for i in range(size):
        residual[i] = (counts[i] - expected[i]) * valid[i]
    smooth(residual, lengths, soft, room)
    best = 0
    for i in range(size):
        if valid[i] > 0 and (soft[i] > soft[best] or valid[best] == 0):
            best = i
    at = base + each * peaks
    for k in range(at):
        theta[k] = old[k]
    for k in range(each):
        theta[at + k] = old[base + k] if motors == 1 else 0.0
    theta[at] = max(1.2 * soft[best], 0.02 * old[base])
    for d in range(motors):
        theta[at + 1 + d] = x[d, best]
        narrow = old[base + 1 + motors + d]
        for k in range(1, peaks):
            narrow = min(narrow, old[base + k * each + 1 + motors + d])
        theta[at + 1 + motors + d] = max(narrow - 0.3, math.log(0.6))


@compiled
def clusters(level, floor, peaks, counts, valid, x, lengths, base, shape, theta, space):  # type: ignore[no-untyped-def]
    """So many peaks by k-means of the smoothed counts above the background (Lloyd 1982), the first at the highest point, each
    further one where counts times squared distance to the others is largest."""
    soft, room, weight, near = space.room[0], space.weight, space.jacobian[0], space.jacobian[1]
    motors, size = len(x), len(counts)
    smooth(counts, lengths, soft, room)
    high, first = 0.0, 0
    for i in range(size):
        if valid[i] > 0 and soft[i] - level > high:
            high, first = soft[i] - level, i
    for i in range(size):
        excess = soft[i] - level - floor - 0.02 * high
        weight[i] = excess if valid[i] > 0 and excess > 0 else 0.0
    centres, sums = space.info, space.root
    for i in range(size):
        near[i] = math.inf
    at = first
    for k in range(peaks):
        best = first
        for d in range(motors):
            centres[k, d] = x[d, at]
        for i in range(size):
            far = 0.0
            for d in range(motors):
                far += (x[d, i] - centres[k, d]) ** 2
            near[i] = min(near[i], far)
            if weight[i] * near[i] > weight[best] * near[best]:
                best = i
        at = best
    for _ in range(LLOYD):
        for k in range(peaks):
            for d in range(2 + 2 * motors):
                sums[k, d] = 0.0
        for i in range(size):
            if weight[i] > 0:
                mine, least = 0, math.inf
                for k in range(peaks):
                    far = 0.0
                    for d in range(motors):
                        far += (x[d, i] - centres[k, d]) ** 2
                    if far < least:
                        mine, least = k, far
                sums[mine, 0] += weight[i]
                sums[mine, 1] = max(sums[mine, 1], soft[i] - level)
                for d in range(motors):
                    sums[mine, 2 + d] += weight[i] * x[d, i]
                    sums[mine, 2 + motors + d] += weight[i] * x[d, i] ** 2
        for k in range(peaks):
            for d in range(motors):
                if sums[k, 0] > 0:
                    centres[k, d] = sums[k, 2 + d] / sums[k, 0]
    each = per_peak_compiled(motors, shape)
    for k in range(base + each * peaks):
        theta[k] = 0.0
    theta[0] = level
    for k in range(peaks):
        at = base + k * each
        theta[at] = max(sums[k, 1], 1e-9)
        if motors == 1 and shape == PSEUDO_VOIGT:
            theta[at + 3] = 0.3
        for d in range(motors):
            theta[at + 1 + d] = centres[k, d]
            spread = sums[k, 2 + motors + d] / max(sums[k, 0], 1e-300) - centres[k, d] ** 2
            theta[at + 1 + motors + d] = 0.5 * math.log(max(1.2 * spread, 0.5))
