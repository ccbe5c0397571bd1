"""Compiled likelihood fit of whole frames: Fisher scoring with the closed form of forward.py.

The same mathematics as NanobeamForward with infer/refine.py, to which tests hold it, some hundred times faster on a CPU.
Parameters are float64: strain, omega, chi (radians), log scale, log background, log thickness.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

from __future__ import annotations

import math

import numpy as np
from scipy import special

from .columns import CELLS_PER_ROOT, IMPOSSIBLE, deviance, exact, fringe, spline, sums, sums_censored, transmission

STRAIN, OMEGA, CHI, SCALE, BACKGROUND, THICKNESS = range(6)
PARAMETERS = 6
MAX_STEPS = 60
DECREMENT = 1e-4  # (step / standard deviation)^2 at which a fit has converged: what is left then is a tenth of the step or less
ENOUGH = 5e-2  # the same, for the few steps that follow a good start: what is left adds at most 5 % to the variances, in all
CLAMP = np.array([2e-3, 3e-4, 3e-4, 1.0, 1.0, 0.3])  # longest step of each parameter
PATIENCE = 15  # full steps; then each is SHORTER: with few counts they may go to and fro across a kink of the likelihood, which
SHORTER = 0.8  # a photon just outside a sharp edge makes; the estimate is where they contract to, if
NEAR = 0.25  # (full step / standard deviation)^2 is below this
ROUNDING = 1e-13  # of the decrement per count, from float32 pixels
DAMPING = 0.01
SOFT_STEPS = 2  # first steps with a blurred pupil
CONVERGED, AT_BOUND = 1, 2  # bits of the state that `fit_frames` reports


@exact
def _cholesky_solve(matrix, count, right, solution):
    """Solve a symmetric positive system of the first `count` unknowns; False where it is not positive."""
    lower = np.zeros((count, count))
    for i in range(count):
        for j in range(i + 1):
            total = matrix[i, j]
            for m in range(j):
                total -= lower[i, m] * lower[j, m]
            if i == j:
                if not total > 0:
                    return False
                lower[i, i] = math.sqrt(total)
            else:
                lower[i, j] = total / lower[j, j]
    for i in range(count):
        total = right[i]
        for m in range(i):
            total -= lower[i, m] * solution[m]
        solution[i] = total / lower[i, i]
    for i in range(count - 1, -1, -1):
        total = solution[i]
        for m in range(i + 1, count):
            total -= lower[m, i] * solution[m]
        solution[i] = total / lower[i, i]
    return True


@exact
def _place(parameters, optics, places):
    """Where a frame's pixels lie in the pupil, and how that moves with the parameters.

    places: Filled with u shift, v of the first row, change of q_z, then the derivatives U_strain, U_omega, V_strain, V_chi.
    """
    g0, u_per_tilt, v_per_tilt, k_cos, first_row = optics[0], optics[1], optics[2], optics[3], optics[4]
    stretch = 1 / (1 + parameters[STRAIN])
    g = g0 * stretch
    places[0] = g * parameters[OMEGA] * u_per_tilt
    places[1] = first_row + g * parameters[CHI] * v_per_tilt
    places[2] = g0 * parameters[STRAIN] * stretch - places[0] * k_cos
    places[3] = -places[0] * stretch
    places[4] = g * u_per_tilt
    places[5] = -g * parameters[CHI] * v_per_tilt * stretch
    places[6] = g * v_per_tilt
    places[7] = g * stretch  # -dG / d strain


@exact
def _rows(place, grid, phases, knots, rows, weight, slope):
    """Weights across and what all columns share: phase, first knot of row 0, first and last row inside the table."""
    first = spline((place - grid[0]) * phases - 1, weight, slope, phases)
    k = first // phases
    low = min(max(0, -k), rows)
    high = max(min(rows, knots - 1 - k), low)
    return first - k * phases, k, low, high


@exact
def expected_frames(parameters, optics, columns, spread, weights, table, grid, frames):
    """Expected counts of frames, written into frames (frame, row, column); arguments as in `fit_frames`."""
    count, rows, width = frames.shape
    places = np.empty(8)
    weight_v, slope_v, weight_u, slope_u = np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    value, by_u, by_v = np.empty(rows, np.float32), np.empty(rows, np.float32), np.empty(rows, np.float32)
    for i in range(count):
        p = parameters[i]
        _place(p, optics, places)
        phase, k, low, high = _rows(places[1], grid, table.shape[1], table.shape[2], rows, weight_v, slope_v)
        for c in range(width):
            knot = spline((columns[c, 0] + places[0] - grid[1]) * grid[2] - 1, weight_u, slope_u, grid[2])
            background = math.exp(p[BACKGROUND])
            if knot < 0 or knot + 4 > table.shape[0] or high <= low:
                frames[i, :, c] = background
                continue
            transmission(table, weight_u, slope_u, knot, weight_v, slope_v, phase, k, low, high, value, by_u, by_v)
            shade = fringe(columns[c, 1] + places[2], spread[c], weights, math.exp(p[THICKNESS]))[0]
            frames[i, :, c] = math.exp(p[SCALE]) * shade * value + background


@exact
def _one_pass(
    counts, p, optics, columns, spread, weights, table, grid, threshold, saturation, moments, gradient, matrix, total, shared
):  # fmt: skip
    """Gradient and Fisher matrix of one frame (column, row).

    With `moments`, also: total, the deviance, its expectation, its variance and the light on the frame; and shared, the
    covariance of the deviance with the gradient.
    """
    rows = counts.shape[1]
    places, weight_v, slope_v, weight_u, slope_u = np.empty(8), np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    tied = np.zeros(4)
    value, by_u, by_v = np.zeros(rows, np.float32), np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    gradient[:] = 0
    matrix[:] = 0
    total[:] = 0
    shared[:] = 0
    _place(p, optics, places)
    phase, k, low, high = _rows(places[1], grid, table.shape[1], table.shape[2], rows, weight_v, slope_v)
    scale, background, thickness, k_cos = math.exp(p[SCALE]), math.exp(p[BACKGROUND]), math.exp(p[THICKNESS]), optics[3]
    for c in range(counts.shape[0]):
        knot = spline((columns[c, 0] + places[0] - grid[1]) * grid[2] - 1, weight_u, slope_u, grid[2])
        shade, by_q, by_log = 0.0, 0.0, 0.0
        if knot < 0 or knot + 4 > table.shape[0] or high <= low:  # no light, and no need to know the fringe, whose sines are slow
            value[:] = 0
            by_u[:] = 0
            by_v[:] = 0
        else:
            shade, by_q, by_log = fringe(columns[c, 1] + places[2], spread[c], weights, thickness)
            transmission(table, weight_u, slope_u, knot, weight_v, slope_v, phase, k, low, high, value, by_u, by_v)
        amplitude, steep = scale * shade, scale * by_q
        if threshold < 2 and saturation == 0:
            su, sv, sp, s1, uu, uv, up, vv, vp, pp, u1, v1, p1, w1 = sums(counts[c], amplitude, background, value, by_u, by_v)
        else:
            su, sv, sp, s1, uu, uv, up, vv, vp, pp, u1, v1, p1, w1 = sums_censored(
                counts[c], amplitude, background, value, by_u, by_v, threshold, saturation
            )
        # d mu / d parameter = (eu Pu + ev Pv + ep P) for strain, (ou Pu + op P) for omega, hv Pv for chi, amplitude P for log
        # scale, background for log background and tp P for log thickness
        eu, ev, ep = amplitude * places[3], amplitude * places[5], steep * (places[7] - places[3] * k_cos)
        ou, op = amplitude * places[4], -steep * places[4] * k_cos
        hv, tp = amplitude * places[6], scale * by_log
        mu, mv, mp, m1 = (
            uu * eu + uv * ev + up * ep,
            uv * eu + vv * ev + vp * ep,
            up * eu + vp * ev + pp * ep,
            u1 * eu + v1 * ev + p1 * ep,
        )
        nu, nv, nq, n1 = uu * ou + up * op, uv * ou + vp * op, up * ou + pp * op, u1 * ou + p1 * op
        gradient[STRAIN] += eu * su + ev * sv + ep * sp
        gradient[OMEGA] += ou * su + op * sp
        gradient[CHI] += hv * sv
        gradient[SCALE] += amplitude * sp
        gradient[BACKGROUND] += background * s1
        gradient[THICKNESS] += tp * sp
        matrix[STRAIN, STRAIN] += eu * mu + ev * mv + ep * mp
        matrix[OMEGA, STRAIN] += ou * mu + op * mp
        matrix[CHI, STRAIN] += hv * mv
        matrix[SCALE, STRAIN] += amplitude * mp
        matrix[BACKGROUND, STRAIN] += background * m1
        matrix[THICKNESS, STRAIN] += tp * mp
        matrix[OMEGA, OMEGA] += ou * nu + op * nq
        matrix[CHI, OMEGA] += hv * nv
        matrix[SCALE, OMEGA] += amplitude * nq
        matrix[BACKGROUND, OMEGA] += background * n1
        matrix[THICKNESS, OMEGA] += tp * nq
        matrix[CHI, CHI] += hv * hv * vv
        matrix[SCALE, CHI] += amplitude * hv * vp
        matrix[BACKGROUND, CHI] += background * hv * v1
        matrix[THICKNESS, CHI] += tp * hv * vp
        matrix[SCALE, SCALE] += amplitude * amplitude * pp
        matrix[BACKGROUND, SCALE] += background * amplitude * p1
        matrix[THICKNESS, SCALE] += tp * amplitude * pp
        matrix[BACKGROUND, BACKGROUND] += background * background * w1
        matrix[THICKNESS, BACKGROUND] += tp * background * p1
        matrix[THICKNESS, THICKNESS] += tp * tp * pp
        if len(moments):
            deviance(counts[c], amplitude, background, value, by_u, by_v, threshold, saturation, moments, total, tied)
            shared[STRAIN] += eu * tied[0] + ev * tied[1] + ep * tied[2]
            shared[OMEGA] += ou * tied[0] + op * tied[2]
            shared[CHI] += hv * tied[1]
            shared[SCALE] += amplitude * tied[2]
            shared[BACKGROUND] += background * tied[3]
            shared[THICKNESS] += tp * tied[2]
    for i in range(PARAMETERS):
        for j in range(i):
            matrix[j, i] = matrix[i, j]


@exact
def fit_frames(
    counts, parameters, free, bounds, optics, columns, spread, weights, table, soft, grid, threshold, saturation, moments,
    soft_steps, most_steps, covariance, goodness, state,
):  # fmt: skip
    """Fit frames by Fisher scoring, starting from `parameters`, which are overwritten with the estimates.

    counts: float32, shape (frame, column, row); below zero: not used.
    parameters: Shape (frame, 6): strain, omega, chi (radians), log scale, log background, log thickness.
    free: How many of them, from the first, are free.
    bounds: Shape (6, 2). A parameter that ends there is reported.
    optics: G0, pixels of u and of v per radian of tilt over G, change of q_z per pixel of u, v of the first row.
    columns: u and q_z of each column at zero strain and tilt, shape (column, 2).
    spread, weights: Gauss points of the pixel, as in forward.column_terms.
    table: Spline coefficients, float32, shape (u knot, phase, v knot // phases), so that rows are neighbours.
    soft: As `table`, of a blurred pupil for the first steps; from far off it leads to the edge.
    grid: Origin v, origin u (pixels) and knots per pixel of u.
    threshold: Counts below it are reported as 0; below 2 it does nothing.
    saturation: Reports of it mean that or more; 0: there is none.
    moments: See `deviance_moments`.
    soft_steps, most_steps: Steps with the blurred pupil, and at most in all. After the last one, an estimate that a further step
        would move by less than ENOUGH has converged too.
    covariance: Filled, shape (frame, 6, 6); NaN where there is none.
    goodness: Filled, shape (frame, 4): deviance, its expectation and variance under the fitted mean, and the sum of the
        transmission over the frame.
    state: Filled, shape (frame,): bits CONVERGED and AT_BOUND << parameter.
    """
    gradient, step, shared = np.zeros(PARAMETERS), np.zeros(PARAMETERS), np.zeros(PARAMETERS)
    matrix, damped = np.zeros((PARAMETERS, PARAMETERS)), np.zeros((PARAMETERS, PARAMETERS))
    none, total = np.zeros((0, 3)), np.zeros(4)
    for i in range(counts.shape[0]):
        p, frame = parameters[i], counts[i]
        state[i] = 0
        counted = frame.sum()
        for taken in range(most_steps):
            now = soft if taken < soft_steps else table
            _one_pass(
                frame,
                p,
                optics,
                columns,
                spread,
                weights,
                now,
                grid,
                threshold,
                saturation,
                none,
                gradient,
                matrix,
                total,
                shared,
            )
            damped[:] = matrix
            for j in range(free):
                damped[j, j] *= 1 + DAMPING
            if not _cholesky_solve(damped, free, gradient, step):
                break
            relaxed = SHORTER ** max(taken - PATIENCE, 0)
            decrement, clamped = 0.0, False
            for j in range(free):
                target = p[j] + min(max(relaxed * step[j], -CLAMP[j]), CLAMP[j])
                held = min(max(target, bounds[j, 0]), bounds[j, 1])
                if held == target:  # one that is held at its bound does not delay the others
                    decrement += step[j] * gradient[j]
                    clamped |= abs(step[j]) > CLAMP[j]
                p[j] = held
            small = relaxed * relaxed * decrement < DECREMENT + ROUNDING * abs(counted) and decrement < NEAR
            if small and taken >= soft_steps and not clamped:
                state[i] |= CONVERGED
                break
        _one_pass(
            frame,
            p,
            optics,
            columns,
            spread,
            weights,
            table,
            grid,
            threshold,
            saturation,
            moments,
            gradient,
            matrix,
            total,
            shared,
        )
        if not _invert(matrix, free, covariance[i]):
            state[i] &= ~CONVERGED
        elif most_steps < MAX_STEPS and state[i] & CONVERGED == 0 and _decrement(gradient, covariance[i], free) < ENOUGH:
            state[i] |= CONVERGED
        goodness[i] = total
        goodness[i, 1] -= free  # fitting takes one unit of deviance per parameter, and what varies together with the score
        for j in range(free):
            for m in range(free):
                goodness[i, 2] -= shared[j] * covariance[i, j, m] * shared[m]
            if p[j] <= bounds[j, 0] or p[j] >= bounds[j, 1]:
                state[i] |= AT_BOUND << j


@exact
def _decrement(gradient, covariance, free):
    """(Full step / standard deviation)^2 of the step that a gradient asks for."""
    total = 0.0
    for i in range(free):
        for j in range(free):
            total += gradient[i] * covariance[i, j] * gradient[j]
    return total


@exact
def _invert(matrix, count, inverse):
    """Inverse of the leading block of a positive matrix, NaN elsewhere; False where it is not positive."""
    inverse[:] = np.nan
    unit, column = np.zeros(PARAMETERS), np.zeros(PARAMETERS)
    for j in range(count):
        unit[:] = 0
        unit[j] = 1
        if not _cholesky_solve(matrix, count, unit, column):
            return False
        inverse[:count, j] = column[:count]
    return True


@exact
def start_frames(counts, light, optics, thickness, parameters):
    """First guess of each frame: chi from the centre of mass across, no strain, no tilt along.

    light: Sum of transmission times fringe over a frame at zero tilt.
    """
    columns, rows = counts.shape[1], counts.shape[2]
    edge = max(min(columns, rows) // 8, 1)
    for i in range(counts.shape[0]):
        darkest, total, moment, pixels = np.inf, 0.0, 0.0, 0
        for c0 in range(0, columns - edge + 1, edge):
            for r0 in range(0, rows - edge + 1, edge):
                block, used = 0.0, 0
                for c in range(c0, c0 + edge):
                    for r in range(r0, r0 + edge):
                        if counts[i, c, r] >= 0:
                            block += counts[i, c, r]
                            used += 1
                if used > edge:
                    darkest = min(darkest, (block + 0.5) / used)
        background = max(darkest, 1e-3) if darkest < np.inf else 1e-3
        for c in range(columns):
            for r in range(rows):
                if counts[i, c, r] >= 0:
                    total += counts[i, c, r] - background
                    moment += (counts[i, c, r] - background) * (r + optics[4])
                    pixels += 1
        share = max(pixels / (columns * rows), 1e-3)
        centre = moment / total if total > 1 else 0.0
        centre = min(max(centre, -0.25 * rows), 0.25 * rows)
        parameters[i, STRAIN], parameters[i, OMEGA] = 0.0, 0.0
        parameters[i, CHI] = -centre / (optics[0] * optics[2])
        parameters[i, SCALE] = math.log(max(total, 10.0) / (light * share))
        parameters[i, BACKGROUND] = math.log(background)
        parameters[i, THICKNESS] = math.log(thickness)


def deviance_moments(threshold: int, saturation: int = 0) -> np.ndarray:
    """Moments of the deviance D of one pixel at a mean of (index / CELLS_PER_ROOT)^2, shape (index, 3).

    They are the mean of D, its variance, and mean x covariance of D with the score. Summed over the Poisson distribution up
    to a mean of 50; above, the kernel takes 1 + 1 / (6 mean), 2 + 2 / (3 mean) and 0 (relative error below 1e-3).
    Reports below the threshold are one event, of deviance -2 log P(N < threshold); so are those from the saturation on, with
    which the table goes on to where there are no others, and the moments are 0.
    """
    highest = (math.sqrt(saturation) + 6) ** 2 if saturation > 0 else 50.0
    mean = (np.arange(1, math.ceil(math.sqrt(highest) * CELLS_PER_ROOT) + 3) / CELLS_PER_ROOT)[:, None] ** 2
    n = np.arange(float(saturation or 200))
    chance = np.exp(special.xlogy(n, mean) - mean - special.gammaln(n + 1))
    one = 2 * (special.xlogy(n, n / mean) - n + mean)
    score = n / mean - 1
    if saturation > 0:
        above = np.maximum(special.gammainc(saturation, mean), IMPOSSIBLE)
        last = chance[:, -1:]
        chance, one = np.hstack([chance, above]), np.hstack([one, -2 * np.log(above)])
        score = np.hstack([score, last / above])
    if threshold >= 2:
        below = np.maximum(chance[:, :threshold].sum(1), IMPOSSIBLE)
        one[:, :threshold] = -2 * np.log(below)[:, None]
        score[:, :threshold] = -(chance[:, threshold - 1] / below)[:, None]
    first = (chance * one).sum(1)
    second = (chance * one**2).sum(1) - first**2
    joint = mean[:, 0] * (chance * one * score).sum(1)
    return np.concatenate([np.zeros((1, 3)), np.stack([first, second, joint], axis=1)])
