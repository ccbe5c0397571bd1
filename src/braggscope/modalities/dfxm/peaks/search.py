"""From a pixel's curve to its peaks: where each fit starts, how many peaks there are, and what is known of them. Compiled.

**How many.** For one to `most` peaks the evidence by Laplace's approximation (MacKay 2003, ch. 28),

    ln Z = -chi2 / 2 f + ln |2 pi f C|^(1/2) - ln(volume of the prior) + ln(peaks!),

with priors that are flat: amplitudes up to twice the range of the counts, centres over the scan, ln s over what a fit may have,
c over -6 to 6. f >= 1 is the misfit of the best model: where no model explains the counts to their noise, a small improvement is
no evidence for a peak.

**Starts.** The curve, smoothed over three points along each motor, gives background, height, and centre and width of what is
above half height. A further peak is tried where the residual is largest; and all of them anew, from clusters of the counts above
the background. After a few steps the better of the two goes on.
"""

from __future__ import annotations

import math

import numpy as np

from .kernels import PSEUDO_VOIGT, _compiled, _small, cholesky, climb, model, per_peak, per_peak_compiled, weigh, workspace

STEPS, TRIES, LLOYD = 60, 4, 8
NARROWEST, CROSS = 0.2, 6.0  # least s in steps; largest |c|
ABOVE_HALF = (0.0, 0.383, 0.307, 0.26)  # <t^2> of a Gaussian over its half maximum, in so many dimensions
UNCONVERGED, EMPTY = 1, 2
LEAST = 2.0  # of chi2 that each parameter of a further peak must take away, or the fit is given up; the evidence asks for more
STANDS_OUT = 4.0  # standard deviations of the sum over three points along each motor, below which a residual is noise
KNOWN = 5.0  # standard deviations of the amplitude that a further peak must have


@_compiled
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


@_compiled
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
    flagged then. Those of background and amplitudes follow the counts of each pixel (`_own_bounds`)."""
    length = np.ptp(x, axis=1) + 1
    low = [0.0, *(x.min(axis=1) - 0.5 * length), *np.full(len(x), math.log(NARROWEST))]
    high = [0.0, *(x.max(axis=1) + 0.5 * length), *np.log(2 * length)]
    cross = len(x) * (len(x) - 1) // 2
    low += [-CROSS] * cross + [0.0] * (shape == PSEUDO_VOIGT)
    high += [CROSS] * cross + [1.0] * (shape == PSEUDO_VOIGT)
    slopes = [math.inf] * base
    return np.array([[-math.inf] * base + low * most, slopes + high * most])


def padded(x: np.ndarray) -> np.ndarray:
    """Coordinates with points added that carry no weight, up to a multiple of 16, so that no loop has a remainder."""
    return np.pad(x, ((0, 0), (0, -x.shape[1] % 16)), mode="edge")


def log_prior(x: np.ndarray) -> float:
    """Logarithm of the volume of the prior of one peak, but for its amplitude; of eta, from 0 to 1, it is 0."""
    length = np.ptp(x, axis=1) + 1
    cross = len(x) * (len(x) - 1) / 2
    return float(np.log(length).sum() + np.log(np.log(2 * length / NARROWEST)).sum() + cross * math.log(2 * CROSS))


@_compiled
def _own_bounds(bounds, base, each, peaks, level, spread):  # type: ignore[no-untyped-def]
    """Set the bounds that follow the counts of a pixel: their level and their spread."""
    bounds[0, 0], bounds[1, 0] = level - 4 * spread, level + 2 * spread
    for k in range(peaks):
        bounds[0, base + k * each], bounds[1, base + k * each] = 0.0, 20 * spread


@_compiled
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


@_compiled
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


@_small
def covariance(info, free, size, root, out):  # type: ignore[no-untyped-def]
    """Inverse of the information of the free parameters (lower triangle given), NaN elsewhere; its log determinant, or -inf."""
    if not cholesky(info, free, size, 0.0, root):
        for a in range(size):
            for b in range(size):
                out[a, b] = math.nan
        return -math.inf
    product = 1.0
    for b in range(size):  # column b of the inverse root, in place of row b of the upper triangle
        product *= root[b, b]
        for a in range(b, size):
            s = 1.0 if a == b else 0.0
            for k in range(b, a):
                s -= root[a, k] * out[b, k]
            out[b, a] = s * root[a, a]
    for a in range(size):
        for b in range(a + 1):
            s = 0.0
            for k in range(a, size):
                s += out[a, k] * out[b, k]
            root[a, b] = s
    for a in range(size):
        for b in range(a + 1):
            value = root[a, b] if free[a] and free[b] else math.nan
            out[a, b] = out[b, a] = value
    return 2 * math.log(product)


@_compiled
def fit_one(curves, masks, x, lengths, base, shape, noise, values, errors, about, space, room):  # type: ignore[no-untyped-def]
    """Fit one peak to the curve of each pixel.

    curves: Counts, shape (pixel, point), in the order of the grid.  masks: Where they may be used, same shape.
    x: Coordinates in steps from the middle, shape (motor, point), `padded`.  lengths: Of each axis of the grid.
    base: Parameters of the background.  noise: Gain, variance of a count at a level, that level.
    values: Its first entries are filled with the parameters, shape (pixel, parameter).
    errors: Filled with their covariance, shape (pixel, parameter, parameter).
    about: Filled, shape (pixel, 8): peaks, their probability, chi2, degrees of freedom, UNCONVERGED or EMPTY bits, counts used,
        log determinant of the covariance, range of the smoothed counts.
    space, room: Work space, see `rooms`.
    """
    counts, valid, theta, found, bounds = room[0], room[1], room[3][0], room[5][0], room[4]
    each = per_peak_compiled(len(x), shape)
    size = base + each
    for p in range(len(curves)):
        used = _gather(curves, masks, p, counts, valid)
        about[p, 0], about[p, 1], about[p, 2], about[p, 3], about[p, 4], about[p, 5] = 0, math.nan, math.nan, 0, EMPTY, used
        for k in range(values.shape[1]):
            values[p, k] = math.nan
            for j in range(values.shape[1]):
                errors[p, k, j] = math.nan
        if used < size + 1:
            continue
        spread = first_peak(counts, valid, x, lengths, base, shape, theta, space)
        spread = max(spread, 3 * math.sqrt(noise[1]), 1e-9)
        _own_bounds(bounds, base, each, 1, theta[0], spread)
        chi2, good = climb(theta, counts, valid, x, base, 1, shape, bounds, noise, STEPS, math.inf, space)
        volume = covariance(space.info, space.free, size, space.root, found)
        for k in range(size):
            values[p, k] = theta[k]
            for j in range(size):
                errors[p, k, j] = found[k, j]
        about[p, 0], about[p, 1], about[p, 2], about[p, 3] = 1, 1.0, chi2, used - size
        about[p, 4] = 0 if good and volume > -math.inf else UNCONVERGED
        about[p, 6], about[p, 7] = volume, spread


@_compiled
def add_peaks(  # type: ignore[no-untyped-def]
    curves, masks, x, lengths, base, shape, most, noise, prior, values, errors, about, space, room
):
    """Try further peaks after `fit_one`, whose results are replaced where the evidence is for more of them.

    most: Peaks up to which their number is chosen.  prior: See `log_prior`.  The others: see `fit_one`; values and errors have
    room for the most peaks, NaN beyond those that are chosen.
    """
    counts, valid, thetas, starts, bounds, found, fits = room
    each = per_peak_compiled(len(x), shape)
    for p in range(len(curves)):
        if about[p, 4] == EMPTY:
            continue
        used, size, spread = _gather(curves, masks, p, counts, valid), base + each, about[p, 7]
        for j in range(size):
            thetas[0, j] = values[p, j]
            for i in range(size):
                found[0, j, i] = errors[p, j, i]
        fits[0, 0], fits[0, 1], fits[0, 2] = about[p, 2], 1.0 - about[p, 4], about[p, 6]
        _own_bounds(bounds, base, each, most, thetas[0, 0], spread)
        model(thetas[0], x, base, 1, shape, space.expected, space.jacobian, space.room)
        weigh(space.weight, valid, space.expected, noise, counts, False)
        tried, chosen = 1, 0
        for k in range(1, most):
            size = base + each * (k + 1)
            if used < size + 1 or (_explained(fits[k - 1, 0], used - size + each, 1.0) and _is_noise(counts, lengths, space)):
                break
            best, goal = math.inf, math.inf
            for attempt in range(3):  # the two ways to add a peak, and then the better one
                which, limit = attempt % 2, TRIES
                if attempt == 1 and _explained(best, used - size, 2.0):
                    continue
                if attempt == 0:
                    add_at_residual(thetas[k - 1], k, counts, valid, x, lengths, base, shape, starts[0], space)
                elif attempt == 1:
                    floor = 4 * math.sqrt(noise[1] / 3.0 ** len(x))
                    clusters(thetas[k - 1, 0], floor, k + 1, counts, valid, x, lengths, base, shape, starts[1], space)
                else:
                    goal, limit = fits[k - 1, 0] - LEAST * each, STEPS
                for j in range(size):
                    starts[which, j] = min(max(starts[which, j], bounds[0, j]), bounds[1, j])
                chi2, good = climb(starts[which], counts, valid, x, base, k + 1, shape, bounds, noise, limit, goal, space)
                if attempt == 1 and chi2 < best:
                    for j in range(size):
                        starts[0, j] = starts[1, j]
                best = min(best, chi2)
                fits[k, 0], fits[k, 1] = chi2, 1.0 if good else 0.0
            for j in range(size):
                thetas[k, j] = starts[0, j]
            fits[k, 2] = covariance(space.info, space.free, size, space.root, found[k])
            tried = k + 1
            chosen = _choose(tried, fits, thetas, found, used, base, each, prior + math.log(2 * spread))
            if not fits[k, 3] > fits[k - 1, 3]:
                break
        if tried == 1:
            continue
        size, total = base + each * (chosen + 1), 0.0
        for k in range(tried):
            total += math.exp(fits[k, 3] - fits[chosen, 3])
        for k in range(size):
            values[p, k] = thetas[chosen, k]
            for j in range(size):
                errors[p, k, j] = found[chosen, k, j]
        about[p, 0], about[p, 1], about[p, 2], about[p, 3] = chosen + 1, 1 / total, fits[chosen, 0], used - size
        about[p, 4] = 0 if fits[chosen, 1] > 0 and fits[chosen, 2] > -math.inf else UNCONVERGED


@_compiled
def _explained(chi2, freedom, sigmas):  # type: ignore[no-untyped-def]
    """Whether a misfit is not above what noise leaves by so many of its standard deviations."""
    return chi2 < freedom + sigmas * math.sqrt(2 * freedom)


@_compiled
def _is_noise(counts, lengths, space):  # type: ignore[no-untyped-def]
    """Whether no three points along each motor of the last fit's residual stand out: a further peak is then not tried at all."""
    residual, soft, weight, room = space.jacobian[0], space.room[0], space.room[1], space.room[2]
    for i in range(len(counts)):
        residual[i] = space.weight[i] * (counts[i] - space.expected[i])
    smooth(residual, lengths, soft, room)
    smooth(space.weight, lengths, weight, room)
    boxed = 3.0 ** len(lengths)
    for i in range(len(counts)):  # noqa: SIM110 - compiled
        if soft[i] * soft[i] * boxed > STANDS_OUT**2 * weight[i]:
            return False
    return True


@_compiled
def _gather(curves, masks, p, counts, valid):  # type: ignore[no-untyped-def]
    """Counts of a pixel as numbers, those that may not be used replaced by the one before; how many may be used."""
    used, last, size = 0.0, 0.0, curves.shape[1]
    for i in range(size - 1, -1, -1):
        last = float(curves[p, i]) if masks[p, i] else last
    for i in range(size):
        valid[i] = 1.0 if masks[p, i] else 0.0
        used += valid[i]
        last = float(curves[p, i]) if masks[p, i] else last
        counts[i] = last
    for i in range(size, len(counts)):
        valid[i], counts[i] = 0.0, last
    return used


def rooms(x: np.ndarray, base: int, shape: int, most: int) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Work space of `climb`, and of `fit_one` and `add_peaks`.

    The second in order: counts, valid, parameters, starts, bounds, covariances; and for each number of peaks chi2, whether it
    converged, log determinant and evidence.
    """
    motors, points = x.shape
    size = max(base + per_peak(motors, shape) * most, 2 + 2 * motors)
    own = (
        np.zeros(points), np.zeros(points), np.zeros((most, size)), np.zeros((2, size)), bounds_of(x, base, shape, most),
        np.zeros((most, size, size)), np.zeros((most, 4)),
    )  # fmt: skip
    return workspace(size, motors, points), own


@_compiled
def _choose(tried, fits, thetas, found, used, base, each, prior):  # type: ignore[no-untyped-def]
    """The number of peaks less one with the largest evidence; the last column of `fits` is filled in."""
    misfit = math.inf
    for k in range(tried):
        misfit = min(misfit, fits[k, 0] / max(used - base - each * (k + 1), 1.0))
    misfit = max(misfit, 1.0)
    chosen = 0
    for k in range(tried):
        parameters = base + each * (k + 1)
        evidence = -0.5 * fits[k, 0] / misfit + 0.5 * parameters * math.log(2 * math.pi * misfit) + 0.5 * fits[k, 2]
        evidence += math.lgamma(k + 2.0) - (k + 1) * prior
        known = fits[k, 1] > 0
        for j in range(k + 1):
            at = base + j * each
            known &= thetas[k, at] > KNOWN * math.sqrt(found[k, at, at])
        if k > 0 and not known:
            evidence = -math.inf
        fits[k, 3] = evidence
        if evidence > fits[chosen, 3]:
            chosen = k
    if not fits[chosen, 3] > -math.inf:
        fits[chosen, 3] = 0.0
    return chosen
