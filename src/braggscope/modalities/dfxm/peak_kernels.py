"""Compiled fits of one to three peaks to the curve of a pixel over one to three motors; single-threaded, without the interpreter
lock (infer.runtime runs them).

    counts = background (+ slopes . x) + sum_k amplitude_k shape(t_k),     t = (x - centre) / s     along each motor

with coordinates x in steps from the middle of the scan. Over one motor the shape is a Gaussian exp(-t^2 / 2), a Lorentzian
1 / (1 + t^2 / 2 ln 2) of the same full width at half maximum, or a pseudo-Voigt (1 - eta) G + eta L (Wertheim et al. 1974). Over
several it is the Gaussian exp(-|u|^2 / 2) with u_1 = t_1, u_2 = t_2 - c_21 t_1, u_3 = t_3 - c_31 t_1 - c_32 t_2: any s > 0 and
any c give a positive covariance, so that none has to be kept positive.

Parameters in order: background, slopes (where there are any); then for each peak amplitude, centres, ln s, c, and eta.

The estimate solves J^T (y - mu) / V(mu) = 0 with V = variance + gain max(mu - level, 0), quasi-likelihood, which reaches the
Cramer-Rao bound of that noise (McCullagh & Nelder 1989, ch. 9), by Levenberg-Marquardt steps with weights from the last model.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

GAUSSIAN, LORENTZIAN, PSEUDO_VOIGT = 0, 1, 2
HALF = 1 / (2 * math.log(2))  # 1 / (half width at half maximum of exp(-t^2 / 2))^2
DONE = 3e-4  # (step / standard deviation)^2 below which a fit has converged; what is left after that step is far smaller
CREEP = 0.05  # of the way to the goal that a step must go
LONGEST = 1.0  # step of ln s, c and eta, and of a centre in units of s

_compiled = njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp", "reassoc"}, error_model="numpy")


def per_peak(motors: int, shape: int) -> int:
    """Parameters of one peak."""
    return 1 + 2 * motors + motors * (motors - 1) // 2 + (shape == PSEUDO_VOIGT)


@_compiled
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


@_compiled
def model(theta, x, base, peaks, shape, mean, jacobian, room):  # type: ignore[no-untyped-def]
    """Expected counts and their derivatives by all parameters.

    theta: Parameters, shape (parameter,).  x: Coordinates, shape (motor, point).  base: Parameters before the first peak.
    mean: Filled, shape (point,).  jacobian: Filled, shape (parameter, point).
    room: Work space, shape (2, point).
    """
    motors, size = x.shape
    for i in range(size):
        mean[i], jacobian[0, i] = theta[0], 1.0
    for d in range(base - 1):
        for i in range(size):
            jacobian[1 + d, i] = x[d, i]
            mean[i] += theta[1 + d] * x[d, i]
    each = (len(theta) - base) // peaks
    for k in range(peaks):
        at = base + k * each
        if motors == 1:
            _along_one(theta, at, x, shape, mean, jacobian, room)
        elif motors == 2:
            _along_two(theta, at, x, mean, jacobian, room)
        else:
            _along_three(theta, at, x, mean, jacobian, room)


@_compiled
def _along_one(theta, at, x, shape, mean, jacobian, room):  # type: ignore[no-untyped-def]
    size = x.shape[1]
    height, centre, inverse = theta[at], theta[at + 1], math.exp(-theta[at + 2])
    gauss, part = room[0], room[1]
    if shape != LORENTZIAN:
        for i in range(size):
            t = (x[0, i] - centre) * inverse
            gauss[i] = -0.5 * t * t
        exponential(gauss, size)
    if shape == GAUSSIAN:
        for i in range(size):
            t = (x[0, i] - centre) * inverse
            value = height * gauss[i]
            mean[i] += value
            jacobian[at, i], jacobian[at + 1, i], jacobian[at + 2, i] = gauss[i], value * t * inverse, value * t * t
        return
    for i in range(size):
        t = (x[0, i] - centre) * inverse
        part[i] = 1 / (1 + HALF * t * t)
    eta = 1.0 if shape == LORENTZIAN else theta[at + 3]
    for i in range(size):
        t = (x[0, i] - centre) * inverse
        bell = gauss[i] if shape == PSEUDO_VOIGT else 0.0
        slope = height * ((1 - eta) * bell + 2 * HALF * eta * part[i] * part[i])
        value = (1 - eta) * bell + eta * part[i]
        mean[i] += height * value
        jacobian[at, i], jacobian[at + 1, i], jacobian[at + 2, i] = value, slope * t * inverse, slope * t * t
    if shape == PSEUDO_VOIGT:
        for i in range(size):
            jacobian[at + 3, i] = height * (part[i] - gauss[i])


@_compiled
def _along_two(theta, at, x, mean, jacobian, room):  # type: ignore[no-untyped-def]
    size, height = x.shape[1], theta[at]
    m1, m2, r1, r2, c = theta[at + 1], theta[at + 2], math.exp(-theta[at + 3]), math.exp(-theta[at + 4]), theta[at + 5]
    gauss = room[0]
    for i in range(size):
        t1, t2 = (x[0, i] - m1) * r1, (x[1, i] - m2) * r2
        u2 = t2 - c * t1
        gauss[i] = -0.5 * (t1 * t1 + u2 * u2)
    exponential(gauss, size)
    for i in range(size):
        t1, t2 = (x[0, i] - m1) * r1, (x[1, i] - m2) * r2
        u2 = t2 - c * t1
        value = height * gauss[i]
        v1, v2 = value * (t1 - c * u2), value * u2
        mean[i] += value
        jacobian[at, i], jacobian[at + 1, i], jacobian[at + 2, i] = gauss[i], v1 * r1, v2 * r2
        jacobian[at + 3, i], jacobian[at + 4, i], jacobian[at + 5, i] = v1 * t1, v2 * t2, v2 * t1


@_compiled
def _along_three(theta, at, x, mean, jacobian, room):  # type: ignore[no-untyped-def]
    size, height = x.shape[1], theta[at]
    m1, m2, m3 = theta[at + 1], theta[at + 2], theta[at + 3]
    r1, r2, r3 = math.exp(-theta[at + 4]), math.exp(-theta[at + 5]), math.exp(-theta[at + 6])
    c21, c31, c32 = theta[at + 7], theta[at + 8], theta[at + 9]
    gauss = room[0]
    for i in range(size):
        t1, t2, t3 = (x[0, i] - m1) * r1, (x[1, i] - m2) * r2, (x[2, i] - m3) * r3
        u2, u3 = t2 - c21 * t1, t3 - c31 * t1 - c32 * t2
        gauss[i] = -0.5 * (t1 * t1 + u2 * u2 + u3 * u3)
    exponential(gauss, size)
    for i in range(size):
        t1, t2, t3 = (x[0, i] - m1) * r1, (x[1, i] - m2) * r2, (x[2, i] - m3) * r3
        u2, u3 = t2 - c21 * t1, t3 - c31 * t1 - c32 * t2
        value = height * gauss[i]
        v1, v2, v3 = value * (t1 - c21 * u2 - c31 * u3), value * (u2 - c32 * u3), value * u3
        mean[i] += value
        jacobian[at, i] = gauss[i]
        jacobian[at + 1, i], jacobian[at + 2, i], jacobian[at + 3, i] = v1 * r1, v2 * r2, v3 * r3
        jacobian[at + 4, i], jacobian[at + 5, i], jacobian[at + 6, i] = v1 * t1, v2 * t2, v3 * t3
        jacobian[at + 7, i], jacobian[at + 8, i], jacobian[at + 9, i] = value * u2 * t1, value * u3 * t1, value * u3 * t2


@_compiled
def weigh(weight, valid, mean, noise, counts, mixed):  # type: ignore[no-untyped-def]
    """Inverse variance of each count under the model; `mixed`: under the larger of model and count, for the first steps."""
    gain, variance, level = noise
    for i in range(len(weight)):
        light = mean[i] if not mixed else max(mean[i], counts[i])
        weight[i] = valid[i] / (variance + gain * max(light - level, 0.0))


@_compiled
def misfit(counts, mean, weight):  # type: ignore[no-untyped-def]
    """Weighted sum of squared residuals."""
    total = 0.0
    for i in range(len(counts)):
        r = counts[i] - mean[i]
        total += weight[i] * r * r
    return total


@_compiled
def normal_equations(counts, mean, weight, jacobian, info, slope, room):  # type: ignore[no-untyped-def]
    """Information J^T W J (lower triangle) and gradient J^T W (y - mu), two by two, which loads each value half as often."""
    points, size = len(counts), len(slope)
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


@_compiled
def solve(info, slope, free, damping, root, step):  # type: ignore[no-untyped-def]
    """The damped step of the free parameters by Cholesky; False where the matrix is not positive."""
    size = len(slope)
    for a in range(size):
        for b in range(a + 1):
            s = info[a, b] if free[a] and free[b] else 0.0
            if a == b:
                s = s * (1 + damping) if free[a] else 1.0
            for k in range(b):
                s -= root[a, k] * root[b, k]
            if a == b:
                if not s > 0.0:
                    return False
                root[a, a] = math.sqrt(s)
            else:
                root[a, b] = s / root[b, b]
    for a in range(size):
        s = slope[a] if free[a] else 0.0
        for k in range(a):
            s -= root[a, k] * step[k]
        step[a] = s / root[a, a]
    for a in range(size - 1, -1, -1):
        s = step[a]
        for k in range(a + 1, size):
            s -= root[k, a] * step[k]
        step[a] = s / root[a, a]
    return True


@_compiled
def climb(theta, counts, valid, x, base, peaks, shape, bounds, noise, steps, goal, space):  # type: ignore[no-untyped-def]
    """Levenberg-Marquardt from `theta`, changed in place; (misfit, converged).

    bounds: Lowest and highest value of each parameter, shape (2, parameter); one that presses against its bound is held there.
    goal: A misfit that must come into reach: a fit that creeps above it is given up.
    space: Work space, see `workspace`. Its information matrix (lower triangle), weights and free parameters are those at the end.
    """
    mean, jacobian, trial_mean, trial_jacobian, weight, room, info, slope, root, step, trial, free = space
    size, motors = len(theta), x.shape[0]
    each = (size - base) // peaks
    model(theta, x, base, peaks, shape, mean, jacobian, room)
    damping, converged, fresh = 1e-3, False, True
    old = 0.0
    for taken in range(steps):
        if fresh:
            weigh(weight, valid, mean, noise, counts, taken == 0)
            old = misfit(counts, mean, weight)
            normal_equations(counts, mean, weight, jacobian, info, slope, room)
            for a in range(size):
                free[a] = not ((theta[a] <= bounds[0, a] and slope[a] < 0) or (theta[a] >= bounds[1, a] and slope[a] > 0))
                free[a] &= info[a, a] > 0.0
        if not solve(info, slope, free, damping, root, step):
            damping = max(10 * damping, 1e-6)
            fresh = False
            if damping > 1e8:
                break
            continue
        gain = 0.0
        for a in range(size):
            wish = step[a]
            if a >= base:
                k = (a - base) % each
                if k > motors:
                    wish = min(max(wish, -LONGEST), LONGEST)
                elif k > 0:
                    most = 2 * LONGEST * math.exp(theta[a + motors])
                    wish = min(max(wish, -most), most)
            trial[a] = min(max(theta[a] + wish, bounds[0, a]), bounds[1, a])
            gain += (trial[a] - theta[a]) * slope[a] if free[a] else 0.0
        model(trial, x, base, peaks, shape, trial_mean, trial_jacobian, room)
        new = misfit(counts, trial_mean, weight)
        if new <= old * (1 + 1e-12) or gain < 1e-9:
            theta[:] = trial
            mean, trial_mean = trial_mean, mean
            jacobian, trial_jacobian = trial_jacobian, jacobian
            fresh = True
            if old - new < CREEP * (new - goal) and taken >= 2:
                break
            if gain < DONE and damping <= 1e-2 and taken >= 1:
                converged = True
                break
            damping = max(damping * 0.1, 1e-9)
        else:
            damping, fresh = max(damping * 10, 1e-4), False
            if damping > 1e8:
                break
    weigh(weight, valid, mean, noise, counts, False)
    normal_equations(counts, mean, weight, jacobian, info, slope, room)
    return misfit(counts, mean, weight), converged


@_compiled
def workspace(size, points):  # type: ignore[no-untyped-def]
    """The work space of `climb` for so many parameters and points."""
    return (
        np.empty(points), np.empty((size, points)), np.empty(points), np.empty((size, points)), np.empty(points),
        np.empty((2, points)), np.zeros((size, size)), np.zeros(size), np.zeros((size, size)), np.zeros(size), np.zeros(size),
        np.ones(size, np.bool_),
    )  # fmt: skip
