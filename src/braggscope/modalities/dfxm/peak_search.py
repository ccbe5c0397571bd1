"""From a pixel's curve to its peaks: where each fit starts, how many peaks there are, and what is known of them. Compiled.

**How many.** For one to `most` peaks the evidence by Laplace's approximation (MacKay 2003, ch. 28),

    ln Z = -chi2 / 2 f + ln |2 pi f C|^(1/2) - ln(volume of the prior) + ln(peaks!),

with priors that are flat: amplitudes up to twice the range of the counts, centres over the scan, ln s over what a fit may have,
c over -6 to 6. f >= 1 is the misfit of the best model: where no model explains the counts to their noise, a small improvement is
no evidence for a peak.

**Starts.** The curve, smoothed over three points along each motor, gives background, height, and centre and width of what is
above half height. A further peak is tried where the residual is largest; and all of them anew, from clusters of the counts above the
background. After a few steps the better of the two goes on.
"""

from __future__ import annotations

import math

import numpy as np

from .peak_kernels import PSEUDO_VOIGT, _compiled, climb, model, per_peak, workspace

STEPS, TRIES, LLOYD = 60, 4, 8
NARROWEST, CROSS = 0.2, 6.0  # least s in steps; largest |c|
ABOVE_HALF = (0.0, 0.383, 0.307, 0.26)  # <t^2> of a Gaussian over its half maximum, in so many dimensions
UNCONVERGED, EMPTY = 1, 2
LEAST = 2.0  # of chi2 that each parameter of a further peak must take away, or the fit is given up; the evidence asks for more
KNOWN = 5.0  # standard deviations of the amplitude that a further peak must have

count_parameters = _compiled(per_peak)


@_compiled
def smooth(values, lengths, out, room):  # type: ignore[no-untyped-def]
    """Mean over three points along each axis of the grid (the end point twice at an end), shape (point,)."""
    size = len(values)
    for i in range(size):
        out[i] = values[i]
    stride = size
    for length in lengths:
        stride //= length
        for i in range(size):
            room[i] = out[i]
        for i in range(size):
            k = i // stride % length
            before, after = room[i - stride] if k > 0 else room[i], room[i + stride] if k < length - 1 else room[i]
            out[i] = (before + room[i] + after) / 3


@_compiled
def first_peak(counts, valid, x, lengths, base, shape, theta, space):  # type: ignore[no-untyped-def]
    """Start values of one peak; the range of the smoothed counts is given back."""
    soft, room, motors, size = space[2], space[4], len(x), len(counts)
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
    for k in range(len(theta)):
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


@_compiled
def set_bounds(bounds, x, base, peaks, shape, level, spread):  # type: ignore[no-untyped-def]
    """Lowest and highest value of each parameter; a centre may leave the scan by half its length, and is flagged then."""
    motors = len(x)
    each = (bounds.shape[1] - base) // peaks
    for k in range(base):
        bounds[0, k], bounds[1, k] = -math.inf, math.inf
    bounds[0, 0], bounds[1, 0] = level - 4 * spread, level + 2 * spread
    for k in range(peaks):
        at = base + k * each
        bounds[0, at], bounds[1, at] = 0.0, 20 * spread
        for d in range(motors):
            low, high = x[d].min(), x[d].max()
            bounds[0, at + 1 + d], bounds[1, at + 1 + d] = low - 0.5 * (high - low + 1), high + 0.5 * (high - low + 1)
            bounds[0, at + 1 + motors + d] = math.log(NARROWEST)
            bounds[1, at + 1 + motors + d] = math.log(2 * (high - low + 1))
        for c in range(at + 1 + 2 * motors, at + each):
            bounds[0, c], bounds[1, c] = -CROSS, CROSS
        if motors == 1 and shape == PSEUDO_VOIGT:
            bounds[0, at + 3], bounds[1, at + 3] = 0.0, 1.0


@_compiled
def log_prior(x, shape, spread):  # type: ignore[no-untyped-def]
    """Logarithm of the volume of the prior of one peak."""
    motors = len(x)
    total = math.log(2 * spread)
    for d in range(motors):
        length = x[d].max() - x[d].min() + 1
        total += math.log(length) + math.log(math.log(2 * length / NARROWEST))
    total += motors * (motors - 1) / 2 * math.log(2 * CROSS)
    return total  # of eta, from 0 to 1, it is 0


@_compiled
def add_at_residual(old, peaks, counts, valid, x, lengths, base, shape, theta, space):  # type: ignore[no-untyped-def]
    """`old` with one more peak where the smoothed residual is largest, as wide as the narrowest so far."""
    mean, jacobian, soft, room = space[0], space[1], space[2], space[4]
    motors, size = len(x), len(counts)
    each = (len(old) - base) // peaks
    model(old, x, base, peaks, shape, mean, jacobian, space[5])
    for i in range(size):
        mean[i] = (counts[i] - mean[i]) * valid[i]
    smooth(mean, lengths, soft, room)
    best = 0
    for i in range(size):
        if valid[i] > 0 and (soft[i] > soft[best] or valid[best] == 0):
            best = i
    for k in range(len(old)):
        theta[k] = old[k]
    at = len(old)
    for k in range(each):
        theta[at + k] = old[base + k] if motors == 1 else 0.0
    theta[at] = max(1.2 * soft[best], 0.02 * old[base])
    for d in range(motors):
        theta[at + 1 + d] = x[d, best]
        narrow = old[base + 1 + motors + d]
        for k in range(1, peaks):
            narrow = min(narrow, old[base + k * each + 1 + motors + d])
        theta[at + 1 + motors + d] = max(narrow - 0.3, math.log(0.6))


@_compiled
def clusters(level, floor, peaks, counts, valid, x, lengths, base, shape, theta, space):  # type: ignore[no-untyped-def]
    """So many peaks by k-means of the smoothed counts above the background (Lloyd 1982), the first at the highest point, each
    further one where counts times squared distance to the others is largest."""
    soft, room, weight, motors, size = space[2], space[4], space[0], len(x), len(counts)
    smooth(counts, lengths, soft, room)
    high, first = 0.0, 0
    for i in range(size):
        if valid[i] > 0 and soft[i] - level > high:
            high, first = soft[i] - level, i
    for i in range(size):
        excess = soft[i] - level - floor - 0.02 * high
        weight[i] = excess if valid[i] > 0 and excess > 0 else 0.0
    centres = np.zeros((peaks, motors))
    near = np.full(size, math.inf)
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
    sums = np.zeros((peaks, 2 + 2 * motors))
    for _ in range(LLOYD):
        sums[:] = 0.0
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
    each = count_parameters(motors, shape)
    for k in range(len(theta)):
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


@_compiled
def covariance(info, free, root, out):  # type: ignore[no-untyped-def]
    """Inverse of the information of the free parameters (lower triangle given), NaN elsewhere; its log determinant, or -inf."""
    size = len(free)
    for a in range(size):
        for b in range(size):
            out[a, b] = math.nan
    for a in range(size):
        for b in range(a + 1):
            s = info[a, b] if free[a] and free[b] else 0.0
            if a == b and not free[a]:
                s = 1.0
            for k in range(b):
                s -= root[a, k] * root[b, k]
            if a == b:
                if not s > 1e-13 * (info[a, a] if free[a] else 1.0):
                    return -math.inf
                root[a, a] = math.sqrt(s)
            else:
                root[a, b] = s / root[b, b]
    determinant = 0.0
    for a in range(size):
        determinant -= 2 * math.log(root[a, a])
        for b in range(a + 1):  # the inverse of the root, in place of its upper triangle
            s = 1.0 if a == b else 0.0
            for k in range(b, a):
                s -= root[a, k] * out[k, b]
            out[a, b] = s / root[a, a]
    for a in range(size):
        for b in range(a + 1):
            s = 0.0
            for k in range(a, size):
                s += out[k, a] * out[k, b]
            out[b, a] = s
            if b == a:
                root[a, a] = s
    for a in range(size):
        out[a, a] = root[a, a]
    for a in range(size):
        for b in range(a):
            out[a, b] = out[b, a]
    for a in range(size):
        if not free[a]:
            for b in range(size):
                out[a, b] = out[b, a] = math.nan
    return determinant


@_compiled
def fit_pixels(curves, masks, x, lengths, slopes, shape, most, noise, values, errors, about):  # type: ignore[no-untyped-def]
    """Fit the curve of each pixel.

    curves: Counts, shape (pixel, point), in the order of the grid.  masks: Where they may be used, same shape.
    x: Coordinates in steps from the middle, shape (motor, point).  lengths: Of each axis of the grid.
    slopes: Whether the background has a slope along each motor.  most: Peaks up to which their number is chosen.
    noise: Gain, variance of a count at a level, that level.
    values: Filled with the parameters, shape (pixel, those of the most peaks); NaN beyond the peaks that were chosen.
    errors: Filled with their covariance, shape (pixel, parameter, parameter).
    about: Filled, shape (pixel, 6): peaks, their probability, chi2, degrees of freedom, UNCONVERGED or EMPTY bits, counts used.
    """
    motors, size = x.shape
    base, each = 1 + (motors if slopes else 0), count_parameters(motors, shape)
    counts, valid = np.empty(size), np.empty(size)
    spaces = [workspace(base + each * k, size) for k in range(1, most + 1)]
    thetas = [np.empty(base + each * k) for k in range(1, most + 1)]
    others = [np.empty(base + each * k) for k in range(1, most + 1)]
    bounds = [np.empty((2, base + each * k)) for k in range(1, most + 1)]
    found = [np.empty((base + each * k, base + each * k)) for k in range(1, most + 1)]
    evidence, chi2s, oks = np.empty(most), np.empty(most), np.zeros(most, np.bool_)
    volumes = np.empty(most)
    for p in range(len(curves)):
        values[p], errors[p] = math.nan, math.nan
        used, last = 0.0, 0.0
        for i in range(size):
            if masks[p, i]:
                last = float(curves[p, i])
                used += 1
        for i in range(size):
            valid[i] = 1.0 if masks[p, i] else 0.0
            last = float(curves[p, i]) if masks[p, i] else last
            counts[i] = last
        about[p, 0], about[p, 1], about[p, 2], about[p, 3], about[p, 4], about[p, 5] = 0, math.nan, math.nan, 0, EMPTY, used
        if used < base + each + 1:
            continue
        spread = first_peak(counts, valid, x, lengths, base, shape, thetas[0], spaces[0])
        spread = max(spread, 3 * math.sqrt(noise[1]), 1e-9)
        tried = 0
        for k in range(most):
            parameters = base + each * (k + 1)
            if k > 0 and used < parameters + 1:
                break
            theta = thetas[k]
            set_bounds(bounds[k], x, base, k + 1, shape, thetas[0][0] if k else theta[0], spread)
            if k > 0:
                _best_start(
                    thetas[k - 1], theta, others[k], counts, valid, x, lengths, base, k, shape, bounds[k], noise, spaces[k]
                )
            goal = chi2s[k - 1] - LEAST * each if k else math.inf
            chi2s[k], oks[k] = climb(theta, counts, valid, x, base, k + 1, shape, bounds[k], noise, STEPS, goal, spaces[k])
            space = spaces[k]
            volumes[k] = covariance(space[6], space[11], space[8], found[k])
            tried = k + 1
            if k > 0:
                _choose(tried, evidence, chi2s, oks, volumes, thetas, found, used, base, each, x, shape, spread)
                if not evidence[k] > evidence[k - 1]:
                    break
        chosen = _choose(tried, evidence, chi2s, oks, volumes, thetas, found, used, base, each, x, shape, spread)
        peak_count = chosen + 1
        parameters = base + each * peak_count
        values[p, :parameters] = thetas[chosen]
        errors[p, :parameters, :parameters] = found[chosen]
        total = 0.0
        for k in range(tried):
            total += math.exp(evidence[k] - evidence[chosen])
        about[p, 0], about[p, 1], about[p, 2], about[p, 3] = peak_count, 1 / total, chi2s[chosen], used - parameters
        about[p, 4] = 0 if oks[chosen] and volumes[chosen] > -math.inf else UNCONVERGED


@_compiled
def _best_start(old, theta, other, counts, valid, x, lengths, base, peaks, shape, bounds, noise, space):  # type: ignore[no-untyped-def]
    """Put the better of the two ways to add a peak into `theta`, a few steps on."""
    add_at_residual(old, peaks, counts, valid, x, lengths, base, shape, theta, space)
    floor = 4 * math.sqrt(noise[1] / 3.0 ** len(x))
    clusters(old[0], floor, peaks + 1, counts, valid, x, lengths, base, shape, other, space)
    for k in range(len(theta)):
        theta[k] = min(max(theta[k], bounds[0, k]), bounds[1, k])
        other[k] = min(max(other[k], bounds[0, k]), bounds[1, k])
    a, _ = climb(theta, counts, valid, x, base, peaks + 1, shape, bounds, noise, TRIES, math.inf, space)
    b, _ = climb(other, counts, valid, x, base, peaks + 1, shape, bounds, noise, TRIES, math.inf, space)
    if b < a:
        theta[:] = other


@_compiled
def _choose(tried, evidence, chi2s, oks, volumes, thetas, found, used, base, each, x, shape, spread):  # type: ignore[no-untyped-def]
    """The number of peaks less one with the largest evidence, which is filled in."""
    if tried == 1:
        evidence[0] = 0.0
        return 0
    misfit = math.inf
    for k in range(tried):
        misfit = min(misfit, chi2s[k] / max(used - base - each * (k + 1), 1.0))
    misfit = max(misfit, 1.0)
    prior = log_prior(x, shape, spread)
    chosen = 0
    for k in range(tried):
        parameters = base + each * (k + 1)
        evidence[k] = -0.5 * chi2s[k] / misfit + 0.5 * parameters * math.log(2 * math.pi * misfit) + 0.5 * volumes[k]
        evidence[k] += math.lgamma(k + 2.0) - (k + 1) * prior
        if k > 0 and not (oks[k] and _every_peak_is_known(thetas[k], found[k], base, each, k + 1)):
            evidence[k] = -math.inf
        if evidence[k] > evidence[chosen]:
            chosen = k
    if not evidence[chosen] > -math.inf:
        evidence[chosen] = 0.0
    return chosen


@_compiled
def _every_peak_is_known(theta, errors, base, each, peaks):  # type: ignore[no-untyped-def]
    for k in range(peaks):
        at = base + k * each
        if not theta[at] > KNOWN * math.sqrt(errors[at, at]):
            return False
    return True
