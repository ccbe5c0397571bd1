"""From a pixel's curve to its peaks: how many there are, and what is known of them. Compiled.

**How many.** For one to `most` peaks the evidence by Laplace's approximation (MacKay 2003, ch. 28),

    ln Z = -chi2 / 2 f + ln |2 pi f C|^(1/2) - ln(volume of the prior) + ln(peaks!),

with priors that are flat: amplitudes up to twice the range of the counts, centres, ln s and c over what a fit may have. A
parameter that presses against its bound counts as known to one unit. f >= 1 is the misfit of the best model: where no model
explains the counts to their noise, a small improvement is no evidence for a peak.

A further peak starts where the residual of the last fit is largest, or all of them from clusters (starts.py); after a few steps
the better of the two goes on.
"""

from __future__ import annotations

import math

import numpy as np

from braggscope.infer.peak_kernels import (
    climb,
    compiled,
    covariance,
    model,
    per_peak,
    per_peak_compiled,
    weigh,
    workspace,
)  # fmt: skip

from .starts import CROSS, NARROWEST, add_at_residual, bounds_of, clusters, first_peak, own_bounds, smooth

STEPS, TRIES = 60, 4  # of a fit, and of each way to add a peak
UNCONVERGED, EMPTY = 1, 2
LEAST = 2.0  # of chi2 that each parameter of a further peak must take away, or the fit is given up; the evidence asks for more
STANDS_OUT = 4.0  # standard deviations of the sum over three points along each motor, below which a residual is noise
KNOWN = 5.0  # standard deviations of the amplitude that a further peak must have


def padded(x: np.ndarray) -> np.ndarray:
    """Coordinates with points added that carry no weight, up to a multiple of 16, so that no loop has a remainder."""
    return np.pad(x, ((0, 0), (0, -x.shape[1] % 16)), mode="edge")


def log_prior(x: np.ndarray) -> float:
    """Logarithm of the volume of the prior of one peak, but for its amplitude; of eta, from 0 to 1, it is 0."""
    length = np.ptp(x, axis=1) + 1
    cross = len(x) * (len(x) - 1) / 2
    return float(np.log(2 * length).sum() + np.log(np.log(2 * length / NARROWEST)).sum() + cross * math.log(2 * CROSS))


@compiled
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


@compiled
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
        own_bounds(bounds, base, each, 1, theta[0], spread)
        chi2, good = climb(theta, counts, valid, x, base, 1, shape, bounds, noise, STEPS, math.inf, space)
        volume = covariance(space.info, space.free, size, space.root, found)
        for k in range(size):
            values[p, k] = theta[k]
            for j in range(size):
                errors[p, k, j] = found[k, j]
        about[p, 0], about[p, 1], about[p, 2], about[p, 3] = 1, 1.0, chi2, used - size
        about[p, 4] = 0 if good and volume > -math.inf else UNCONVERGED
        about[p, 6], about[p, 7] = volume, spread


@compiled
def _explained(chi2, freedom, sigmas):  # type: ignore[no-untyped-def]
    """Whether a misfit is not above what noise leaves by so many of its standard deviations."""
    return chi2 < freedom + sigmas * math.sqrt(2 * freedom)


@compiled
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


@compiled
def _choose(tried, fits, thetas, found, used, base, each, prior, spread):  # type: ignore[no-untyped-def]
    """The number of peaks less one with the largest evidence; the last column of `fits` is filled in."""
    misfit = math.inf
    for k in range(tried):
        misfit = min(misfit, fits[k, 0] / max(used - base - each * (k + 1), 1.0))
    misfit = max(misfit, 1.0)
    chosen = 0
    for k in range(tried):
        free, known = 0, fits[k, 1] > 0
        for a in range(base + each * (k + 1)):
            free += not math.isnan(found[k, a, a])
        evidence = -0.5 * fits[k, 0] / misfit + 0.5 * free * math.log(2 * math.pi * misfit) + 0.5 * fits[k, 2]
        evidence += math.lgamma(k + 2.0) - (k + 1) * (prior + math.log(2 * spread))
        for j in range(k + 1):
            at = base + j * each
            known &= thetas[k, at] > KNOWN * math.sqrt(found[k, at, at]) and thetas[k, at] <= 2 * spread
        if k > 0 and not known:
            evidence = -math.inf
        fits[k, 3] = evidence
        if evidence > fits[chosen, 3]:
            chosen = k
    if not fits[chosen, 3] > -math.inf:
        fits[chosen, 3] = 0.0
    return chosen


@compiled
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
        own_bounds(bounds, base, each, most, thetas[0, 0], spread)
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
            chosen = _choose(tried, fits, thetas, found, used, base, each, prior, spread)
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
