"""Compiled fits of peaks over one to three coordinates (motors of a scan, rows and columns of a frame); single-threaded, without
the interpreter lock (infer.runtime runs them).

    counts = background (+ slopes . x) + sum_k amplitude_k shape(t_k),     t = (x - centre) / s     along each motor

with coordinates x, called motors here, in steps from the middle. Over one motor the shape is a Gaussian exp(-t^2 / 2), a
Lorentzian 1 / (1 + t^2 / 2 ln 2) of the same full width at half maximum, or a pseudo-Voigt (1 - eta) G + eta L (Wertheim et al.
1974). Over several it is the Gaussian exp(-|u|^2 / 2) with u_1 = t_1, u_2 = t_2 - c_21 t_1, u_3 = t_3 - c_31 t_1 - c_32 t_2: any
s > 0 and any c give a positive covariance, so that none has to be kept positive.

Parameters in order: background, slopes (where there are any); then for each peak amplitude, centres, ln s, c, and eta.

The estimate solves J^T (y - mu) / V(mu) = 0 with V = variance + gain max(mu - level, 0), quasi-likelihood, which reaches the
Cramer-Rao bound of that noise (McCullagh & Nelder 1989, ch. 9), by Levenberg-Marquardt steps with weights from the last model.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

GAUSSIAN, LORENTZIAN, PSEUDO_VOIGT = 0, 1, 2
HALF = 1 / (2 * math.log(2))  # 1 / (half width at half maximum of exp(-t^2 / 2))^2
DONE = 1e-3  # (step / standard deviation)^2 below which a fit has converged; after that step some 0.1 % of a deviation is left
CREEP = 0.05  # of the way to the goal that a step must go
LONGEST = 1.0  # step of ln s, c and eta, and of a centre in units of s

_inlined = njit(inline="always", error_model="numpy")
compiled = njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp", "reassoc"}, error_model="numpy")
# for loops too short for vectors
compiled_small = njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")


def per_peak(motors: int, shape: int) -> int:
    """Parameters of one peak."""
    return 1 + 2 * motors + motors * (motors - 1) // 2 + (1 if shape == PSEUDO_VOIGT else 0)


per_peak_compiled = compiled(per_peak)


@compiled
def exponential(power, size):  # type: ignore[no-untyped-def]
    """exp of non-positive numbers, in place, to 3e-10 of the value; below -40 it is exp(-40).

    exp(a) = exp(a / 128)^128, by the series of ninth order and seven squarings: no branch and no bits, so that it is vectorised.
    """
    for i in range(size):
        r = max(power[i], -40.0) * (1 / 128)
        high = 1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * (1 / 40320 + r * (1 / 362880))))
        e = 1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * high))))
        e *= e
        e *= e
        e *= e
        e *= e
        e *= e
        e *= e
        power[i] = e * e


@compiled
def model(theta, x, base, peaks, shape, mean, jacobian, room):  # type: ignore[no-untyped-def]
    """Expected counts and their derivatives by all parameters.

    With v_e = u . du/dt_e and f the derivative of the shape by -u^2 / 2: d/d centre_e = f v_e / s_e, d/d ln s_e = f v_e t_e and
    d/d c_de = f u_d t_e.

    theta: Parameters of so many peaks, the first entries of a longer array.  x: Coordinates, shape (motor, point).
    base: Parameters before the first peak.  mean: Filled, shape (point,).  jacobian: Filled, shape (parameter, point).
    room: Work space, shape (2 + 2 motors or more, point).
    """
    motors, size = x.shape
    each = per_peak_compiled(motors, shape)
    for i in range(size):
        mean[i], jacobian[0, i] = theta[0], 1.0
    for d in range(base - 1):
        for i in range(size):
            jacobian[1 + d, i] = x[d, i]
            mean[i] += theta[1 + d] * x[d, i]
    for k in range(peaks):
        at = base + k * each
        cross = at + 1 + 2 * motors
        height = theta[at]
        for i in range(size):
            room[0, i] = 0.0
        for d in range(motors):
            t, u = 2 + d, 2 + motors + d
            centre, inverse = theta[at + 1 + d], math.exp(-theta[at + 1 + motors + d])
            for i in range(size):
                room[t, i] = room[u, i] = (x[d, i] - centre) * inverse
            for e in range(d):
                c = theta[cross + d * (d - 1) // 2 + e]
                for i in range(size):
                    room[u, i] -= c * room[2 + e, i]
            for i in range(size):
                room[0, i] -= 0.5 * room[u, i] * room[u, i]
        _shape(theta, at, shape, size, height, jacobian, room)
        for i in range(size):
            mean[i] += height * jacobian[at, i]
        for e in range(motors):
            inverse = math.exp(-theta[at + 1 + motors + e])
            for i in range(size):
                room[1, i] = room[2 + motors + e, i]
            for d in range(e + 1, motors):
                c = theta[cross + d * (d - 1) // 2 + e]
                for i in range(size):
                    jacobian[cross + d * (d - 1) // 2 + e, i] = room[0, i] * room[2 + motors + d, i] * room[2 + e, i]
                    room[1, i] -= c * room[2 + motors + d, i]
            for i in range(size):
                slope = room[0, i] * room[1, i]
                jacobian[at + 1 + e, i] = slope * inverse
                jacobian[at + 1 + motors + e, i] = slope * room[2 + e, i]


@compiled
def _shape(theta, at, shape, size, height, jacobian, room):  # type: ignore[no-untyped-def]
    """From -|u|^2 / 2 in room[0]: the shape, into the row of the amplitude, and amplitude times its derivative, into room[0]."""
    eta = 0.0 if shape == GAUSSIAN else 1.0 if shape == LORENTZIAN else theta[at + 3]
    if shape != GAUSSIAN:
        for i in range(size):
            room[1, i] = 1 / (1 - 2 * HALF * room[0, i])
    exponential(room[0], size)
    if shape == GAUSSIAN:
        for i in range(size):
            jacobian[at, i] = room[0, i]
            room[0, i] *= height
        return
    if shape == PSEUDO_VOIGT:
        for i in range(size):
            jacobian[at + 3, i] = height * (room[1, i] - room[0, i])
    for i in range(size):
        jacobian[at, i] = (1 - eta) * room[0, i] + eta * room[1, i]
        room[0, i] = height * ((1 - eta) * room[0, i] + 2 * HALF * eta * room[1, i] * room[1, i])


@compiled
def weigh(weight, valid, mean, noise, counts, mixed):  # type: ignore[no-untyped-def]
    """Inverse variance of each count under the model, and the misfit with it; `mixed`: under the larger of model and count, for
    the first steps."""
    gain, variance, level = noise
    total = 0.0
    for i in range(len(weight)):
        light, r = mean[i] if not mixed else max(mean[i], counts[i]), counts[i] - mean[i]
        w = valid[i] / (variance + gain * max(light - level, 0.0))
        weight[i] = w
        total += w * r * r
    return total


@compiled
def misfit(counts, mean, weight):  # type: ignore[no-untyped-def]
    """Weighted sum of squared residuals."""
    total = 0.0
    for i in range(len(counts)):
        r = counts[i] - mean[i]
        total += weight[i] * r * r
    return total


@compiled
def normal_equations(counts, mean, weight, jacobian, size, info, slope, room):  # type: ignore[no-untyped-def]
    """Information J^T W J (lower triangle) and gradient J^T W (y - mu), two by two, which loads each value half as often."""
    points = len(counts)
    for a in range(0, size, 2):
        c = min(a + 1, size - 1)
        first, second = 0.0, 0.0
        for i in range(points):
            r, w = counts[i] - mean[i], weight[i]
            x, y = jacobian[a, i] * w, jacobian[c, i] * w
            room[0, i], room[1, i] = x, y
            first += x * r
            second += y * r
        slope[a], slope[c] = first, second
        for b in range(0, c + 1, 2):
            d = min(b + 1, size - 1)
            ab, ad, cb, cd = 0.0, 0.0, 0.0, 0.0
            for i in range(points):
                x, y, u, v = room[0, i], room[1, i], jacobian[b, i], jacobian[d, i]
                ab += x * u
                ad += x * v
                cb += y * u
                cd += y * v
            info[a, b], info[a, d], info[c, b], info[c, d] = ab, ad, cb, cd


@compiled_small
def cholesky(info, free, size, damping, root):  # type: ignore[no-untyped-def]
    """Lower triangular root of the damped information, without what is not free, with the inverse of its diagonal there.

    False where the information is not positive.
    """
    for a in range(size):
        for b in range(a + 1):
            s = info[a, b] if free[a] and free[b] else 0.0
            if a == b:
                s = s * (1 + damping) if free[a] else 1.0
            least = 1e-13 * s
            for k in range(b):
                s -= root[a, k] * root[b, k]
            if a == b:
                if not s > least:
                    return False
                root[a, a] = 1 / math.sqrt(s)
            else:
                root[a, b] = s * root[b, b]
    return True


@compiled_small
def solve(root, slope, free, size, step):  # type: ignore[no-untyped-def]
    """The step (root root^T)^-1 slope."""
    for a in range(size):
        s = slope[a] if free[a] else 0.0
        for k in range(a):
            s -= root[a, k] * step[k]
        step[a] = s * root[a, a]
    for a in range(size - 1, -1, -1):
        s = step[a]
        for k in range(a + 1, size):
            s -= root[k, a] * step[k]
        step[a] = s * root[a, a]


@_inlined
def climb(theta, counts, valid, x, base, peaks, shape, bounds, noise, steps, goal, space):  # type: ignore[no-untyped-def]
    """Levenberg-Marquardt from `theta`, changed in place; (misfit, converged).

    theta: Parameters of so many peaks, the first entries of a longer array.
    bounds: Lowest and highest value of each parameter, shape (2, parameter); one that presses against its bound is held there.
    goal: A misfit that must come into reach: a fit that creeps above it is given up.
    space: Work space. At the end `expected` holds the model, `info` the information (lower triangle) and `free` what is not held
        at a bound.
    """
    expected, jacobian, weight, room = space.expected, space.jacobian, space.weight, space.room
    info, slope, root, step, trial, free = space.info, space.slope, space.root, space.step, space.trial, space.free
    motors = len(x)
    each = per_peak_compiled(motors, shape)
    size = base + each * peaks
    for a in range(size):
        trial[a] = theta[a]
    damping, converged, accepted, old, gain, here = 1e-3, False, 0, math.inf, math.inf, False
    for taken in range(steps + 1):
        model(trial, x, base, peaks, shape, expected, jacobian, room)
        new = misfit(counts, expected, weight) if taken else 0.0
        here = taken == 0 or new <= old * (1 + 1e-12) or 0 <= gain < 1e-9  # a step cut at a bound may lead upwards
        if here:
            for a in range(size):
                theta[a] = trial[a]
            last = taken == steps or (taken > 2 and old - new < CREEP * (new - goal))
            if taken:
                damping = max(damping * 0.1, 1e-9)
            accepted += 1
            old = weigh(weight, valid, expected, noise, counts, accepted == 1 and not last)
            normal_equations(counts, expected, weight, jacobian, size, info, slope, room)
            if last:
                break
            for a in range(size):
                free[a] = not ((theta[a] <= bounds[0, a] and slope[a] < 0) or (theta[a] >= bounds[1, a] and slope[a] > 0))
                free[a] &= info[a, a] > 0.0
        else:
            damping = max(damping * 10, 1e-4)
        while damping < 1e8 and not cholesky(info, free, size, damping, root):
            damping = max(10 * damping, 1e-6)
        if damping >= 1e8:
            break
        solve(root, slope, free, size, step)
        for k in range(peaks):
            at = base + k * each + 1
            for a in range(at, at + motors):
                most = 2 * LONGEST * math.exp(theta[a + motors])
                step[a] = min(max(step[a], -most), most)
            for a in range(at + motors, at + each - 1):
                step[a] = min(max(step[a], -LONGEST), LONGEST)
        gain = 0.0
        for a in range(size):
            trial[a] = min(max(theta[a] + step[a], bounds[0, a]), bounds[1, a])
            gain += (trial[a] - theta[a]) * slope[a] if free[a] else 0.0
        converged = 0 <= gain < DONE and damping <= 1e-2 and accepted > 1
        if converged:  # so short a step need not be looked at: what it gains is known
            for a in range(size):
                theta[a] = trial[a]
            old -= gain
            break
    if not here or accepted == 1:  # the last step was refused, or weights are still those of the start
        model(theta, x, base, peaks, shape, expected, jacobian, room)
        old = weigh(weight, valid, expected, noise, counts, False)
        normal_equations(counts, expected, weight, jacobian, size, info, slope, room)
    return old, converged


@compiled_small
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


class Space(NamedTuple):
    """Work space of `climb`."""

    expected: np.ndarray
    jacobian: np.ndarray
    weight: np.ndarray
    room: np.ndarray
    info: np.ndarray
    slope: np.ndarray
    root: np.ndarray
    step: np.ndarray
    trial: np.ndarray
    free: np.ndarray


def workspace(parameters: int, motors: int, points: int) -> Space:
    """Work space for so many parameters."""
    line, square = np.zeros(points), np.zeros((parameters, parameters))
    return Space(
        line, np.zeros((parameters, points)), line.copy(), np.zeros((2 + 2 * motors, points)), square, np.zeros(parameters),
        square.copy(), np.zeros(parameters), np.zeros(parameters), np.ones(parameters, np.bool_),
    )  # fmt: skip
