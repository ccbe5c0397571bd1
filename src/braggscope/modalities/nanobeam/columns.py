"""Compiled parts of the likelihood fit that see one detector column: fringe, transmission, and sums over its pixels.

What makes them fast: the pupil's spline is stored so that all rows of a frame read neighbouring coefficients (they lie whole
pixels apart, hence share their four weights); and every derivative is a combination of (slope along u, slope along v,
transmission, 1) with factors of the column alone, so that a column needs fourteen sums whatever is free.

Pixels are float32, what leaves a column is float64. A count below zero means: do not use.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

from __future__ import annotations

import math

import numpy as np
from numba import njit

SAME = 1e-6  # difference of transmissions that is rounding (float32)
LOGARITHMS = np.concatenate([[0.0], np.log(np.arange(1, 256))])
IMPOSSIBLE = 1e-300  # in place of a probability of 0, whose logarithm is needed
CELLS_PER_ROOT = 100  # of the table of deviance moments, over the square root of the mean

exact = njit(cache=True, nogil=True, error_model="numpy")
fast = njit(cache=True, nogil=True, error_model="numpy", fastmath=True)  # sums over pixels in any order


@exact
def spline(position, weight, slope, scale):
    """Weights of four B-spline coefficients at a position (in knots) and slopes by pixels; returns the first knot."""
    first = math.floor(position)
    f = position - first
    g = 1.0 - f
    weight[0], weight[1] = g * g * g / 6, 2 / 3 - f * f + f * f * f / 2
    weight[2], weight[3] = 2 / 3 - g * g + g * g * g / 2, f * f * f / 6
    slope[0], slope[1] = -scale * g * g / 2, scale * (-2 * f + 1.5 * f * f)
    slope[2], slope[3] = scale * (2 * g - 1.5 * g * g), scale * f * f / 2
    return int(first)


@exact
def fringe(q, spread, weights, thickness):
    """Mean of sinc^2(t q / 2 pi) over a pixel, its derivative by q and by log t."""
    value, by_q, by_log = 0.0, 0.0, 0.0
    for i in range(len(weights)):
        z = thickness * (q + spread[i])
        if abs(z) < 0.1:
            s = z * z
            g = 1 - s / 12 * (1 - s / 30 * (1 - s / 56))
            slope = -z * (1 / 6 - s * (1 / 90 - s * (1 / 3360 - s / 226800)))
        else:
            half = math.sin(0.5 * z)
            g = 4 * half * half / (z * z)
            slope = 2 * (math.sin(z) - z * g) / (z * z)
        value += weights[i] * g
        by_q += weights[i] * slope * thickness
        by_log += weights[i] * slope * z
    return value, by_q, by_log


@fast
def transmission(table, weight_u, slope_u, u, weight_v, slope_v, phase, k, low, high, value, by_u, by_v):
    """Transmission of one column for rows low..high, and its derivatives by u and v (see `fit_frames` for the table)."""
    value[:] = 0
    by_u[:] = 0
    by_v[:] = 0
    phases = table.shape[1]
    a, b, c, d = np.float32(weight_u[0]), np.float32(weight_u[1]), np.float32(weight_u[2]), np.float32(weight_u[3])
    e, f, g, h = np.float32(slope_u[0]), np.float32(slope_u[1]), np.float32(slope_u[2]), np.float32(slope_u[3])
    for j in range(4):
        p = (phase + j) % phases
        first = k + (phase + j) // phases + low
        t0, t1 = table[u, p, first : first + high - low], table[u + 1, p, first : first + high - low]
        t2, t3 = table[u + 2, p, first : first + high - low], table[u + 3, p, first : first + high - low]
        w, s = np.float32(weight_v[j]), np.float32(slope_v[j])
        val, du, dv = value[low:high], by_u[low:high], by_v[low:high]
        for r in range(high - low):
            line = a * t0[r] + b * t1[r] + c * t2[r] + d * t3[r]
            val[r] += w * line
            du[r] += w * (e * t0[r] + f * t1[r] + g * t2[r] + h * t3[r])
            dv[r] += s * line


@fast
def sums(counts, amplitude, background, value, by_u, by_v):
    """Sums over one column, for plain Poisson counts.

    Of score x (Pu, Pv, P, 1), and of information x (Pu Pu, Pu Pv, Pu P, Pv Pv, Pv P, P P, Pu, Pv, P, 1).
    """
    one, zero = np.float32(1), np.float32(0)
    amp, floor = np.float32(amplitude), np.float32(background)
    su = sv = sp = s1 = zero
    uu = uv = up = vv = vp = pp = u1 = v1 = p1 = w1 = zero
    for r in range(len(counts)):
        inverse = one / (amp * value[r] + floor)
        good = one if counts[r] >= zero else zero
        s = (counts[r] * inverse - one) * good
        w = inverse * good
        p, u, v = value[r], by_u[r], by_v[r]
        wp, wu, wv = w * p, w * u, w * v
        su += s * u
        sv += s * v
        sp += s * p
        s1 += s
        uu += wu * u
        uv += wu * v
        up += wu * p
        vv += wv * v
        vp += wv * p
        pp += wp * p
        u1 += wu
        v1 += wv
        p1 += wp
        w1 += w
    return su, sv, sp, s1, uu, uv, up, vv, vp, pp, u1, v1, p1, w1


@exact
def censored(mean, threshold, saturation):
    """For N ~ Poisson(mean) that is reported as 0 below a threshold and as the saturation from there on (0: there is none).

    Returns P(N < threshold), the slope of its logarithm by the mean, the same of P(N >= saturation), and the information of a
    report. A limit that is more than twelve standard deviations off is not summed up to: its probability is then 0 or 1.
    """
    if saturation > 0 and mean > (math.sqrt(saturation) + 6) ** 2:
        return IMPOSSIBLE, -1.0, 1.0, 0.0, 0.0
    if mean > (math.sqrt(threshold) + 6) ** 2:
        threshold = 0
    if saturation > 0 and saturation > (math.sqrt(mean) + 6) ** 2 and threshold == 0:
        return IMPOSSIBLE, -1.0, IMPOSSIBLE, saturation / mean - 1, 1 / mean
    term = math.exp(-mean)
    below, edge, top, kept = 0.0, 0.0, 0.0, 0.0
    for n in range(max(threshold, saturation)):
        if n > 0:
            term *= mean / n
        inside = term * (n / mean - 1) ** 2
        if n < threshold:
            below += term
            edge = term
            kept -= inside
        if n < saturation:
            top = term
            kept += inside
    above, n = 0.0, saturation
    if saturation > 0:
        term = top * mean / saturation
        above = term
        while term > 1e-9 * above or n < mean:
            n += 1
            term *= mean / n
            above += term
    else:
        kept += 1 / mean
    low = -edge / below if threshold > 0 else -1.0
    high = top / above if above > 0 else saturation / mean
    return max(below, IMPOSSIBLE), low, above, high, max(kept - edge * low + top * high, 0.0)


@exact
def sums_censored(counts, amplitude, background, value, by_u, by_v, threshold, saturation):
    """As `sums`, for counts with a threshold or a saturation (see `censored`)."""
    su = sv = sp = s1 = 0.0
    uu = uv = up = vv = vp = pp = u1 = v1 = p1 = w1 = 0.0
    for r in range(len(counts)):
        if counts[r] < 0:
            continue
        mean = amplitude * value[r] + background
        _, low, _, high, w = censored(mean, threshold, saturation)
        s = low if counts[r] < threshold else high if 0 < saturation <= counts[r] else counts[r] / mean - 1
        p, u, v = value[r], by_u[r], by_v[r]
        wp, wu, wv = w * p, w * u, w * v
        su += s * u
        sv += s * v
        sp += s * p
        s1 += s
        uu += wu * u
        uv += wu * v
        up += wu * p
        vv += wv * v
        vp += wv * p
        pp += wp * p
        u1 += wu
        v1 += wv
        p1 += wp
        w1 += w
    return su, sv, sp, s1, uu, uv, up, vv, vp, pp, u1, v1, p1, w1


@exact
def _expected_deviance(mean, moments):
    """Mean and variance of the deviance of one count, and its covariance with the score; from the table or its limit."""
    place = math.sqrt(mean) * CELLS_PER_ROOT
    if place >= len(moments) - 2:
        if moments[len(moments) - 1, 0] < 0.5:  # beyond a saturation every report is the same, and expected
            return 0.0, 0.0, 0.0
        return 1 + 1 / (6 * mean), 2 + 2 / (3 * mean), 0.0
    cell = int(place)
    part = place - cell
    rest = 1 - part
    first = moments[cell, 0] * rest + moments[cell + 1, 0] * part
    second = moments[cell, 1] * rest + moments[cell + 1, 1] * part
    return first, second, (moments[cell, 2] * rest + moments[cell + 1, 2] * part) / mean


@exact
def deviance(counts, amplitude, background, value, by_u, by_v, threshold, saturation, moments, total, tied):
    """Add the deviance of one column, its expectation and variance to `total`, and the light on it.

    moments: See kernels.deviance_moments.
    tied: Its covariance with the score, summed like `sums` does, is put here.
    """
    found = first = second = light = 0.0
    t0 = t1 = t2 = t3 = 0.0
    last, mean, log_mean, e, v, joint = -1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for r in range(len(counts)):
        light += value[r]
        n = counts[r]
        if n < 0:
            continue
        if abs(value[r] - last) > SAME:  # dark or fully lit pixels follow one another
            last = value[r]
            mean = amplitude * last + background
            log_mean = math.log(mean)
            e, v, joint = _expected_deviance(mean, moments)
        if n < threshold:
            found -= 2 * math.log(censored(mean, threshold, saturation)[0])
        elif 0 < saturation <= n:
            found -= 2 * math.log(max(censored(mean, threshold, saturation)[2], IMPOSSIBLE))
        else:
            found += 2 * (n * (_log(n) - log_mean) - n + mean) if n > 0 else 2 * mean
        first += e
        second += v
        t0 += joint * by_u[r]
        t1 += joint * by_v[r]
        t2 += joint * value[r]
        t3 += joint
    total[0] += found
    total[1] += first
    total[2] += second
    total[3] += light
    tied[0], tied[1], tied[2], tied[3] = t0, t1, t2, t3


@exact
def _log(count):
    """Logarithm of a count above 0."""
    whole = int(count)
    return LOGARITHMS[whole] if whole < len(LOGARITHMS) and whole == count else math.log(count)
