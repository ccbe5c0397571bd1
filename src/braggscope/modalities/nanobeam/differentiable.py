"""The compiled forward model as torch functions, for the training of networks on a CPU.

`rendered` gives expected counts and their gradient by the parameters, for any loss; `profiled_deviance` the Poisson deviance with
scale and background at their best for each frame, and its gradient by what is left: at the best value of a nuisance parameter
the likelihood does not change with it to first order, so that the gradient is the partial one.

Parameters are those of kernels.py: strain, omega, chi (radians), log scale, log background, log thickness.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions; torch those of a Function)

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from braggscope.infer.runtime import in_threads

from . import kernels
from .columns import IMPOSSIBLE, censored, exact, fast, fringe, spline, transmission
from .compiled import Tables, expected

NUISANCE_STEPS = 8  # Fisher steps of (scale, background) at most; two or three do
NUISANCE_TOLERANCE = 1e-3  # of the square of a step over its standard deviation
LEAST = 1e-6  # counts; scale and background stay above it


def _optics(made: Tables) -> tuple[np.ndarray, ...]:
    """The arguments that all kernels here take, in their order."""
    return made.optics, made.columns, made.spread, made.weights, made.table, made.grid


def rendered(made: Tables, frame_shape: tuple[int, int], parameters: Tensor) -> Tensor:
    """Expected counts, float32, shape (frame, row, column), differentiable in the parameters (frame, 6), float64."""
    return _Rendered.apply(made, frame_shape, parameters)


def profiled_deviance(made: Tables, counts: np.ndarray, parameters: Tensor) -> Tensor:
    """Poisson deviance of each frame, scale and background at their best, shape (frame,), float64.

    Counts below the geometry's threshold and reports at its saturation are taken for what they are, as in `likelihood`.

    counts: As `compiled.transposed` gives them.
    parameters: Shape (frame, 6), float64; scale and background in it are where their search starts.
    """
    return _Profiled.apply(made, counts, parameters)


class _Rendered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, made, frame_shape, parameters):
        ctx.made = made
        ctx.save_for_backward(parameters)
        return torch.from_numpy(expected(made, frame_shape, parameters.detach().numpy()))

    @staticmethod
    def backward(ctx, by_counts):
        (parameters,) = ctx.saved_tensors
        weights = np.ascontiguousarray(by_counts.numpy().transpose(0, 2, 1), np.float32)
        values, made, result = parameters.detach().numpy(), ctx.made, np.zeros(parameters.shape)

        def some(a, b):
            pull_back(weights[a:b], values[a:b], *_optics(made), result[a:b])

        in_threads(some, len(values), smallest=16)
        return None, None, torch.from_numpy(result)


class _Profiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, made, counts, parameters):
        deviance, _, gradient = profile(made, counts, parameters.detach().numpy())
        ctx.save_for_backward(torch.from_numpy(gradient))
        return torch.from_numpy(deviance)

    @staticmethod
    def backward(ctx, by_deviance):
        (gradient,) = ctx.saved_tensors
        return None, None, by_deviance[:, None] * gradient


def profile(made: Tables, counts: np.ndarray, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deviance (frame,), parameters with the best scale and background (frame, 6), gradient of the deviance (frame, 6)."""
    deviance, found, gradient = np.zeros(len(counts)), parameters.copy(), np.zeros(parameters.shape)

    def some(a, b):
        profile_frames(counts[a:b], found[a:b], *_optics(made), made.threshold, made.saturation, gradient[a:b], deviance[a:b])

    in_threads(some, len(counts), smallest=16)
    return deviance, found, gradient


def with_nuisance(made: Tables, counts: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Parameters (frame, 6) with the scale and background that fit best at these strain, omega, chi (radians) and log t.

    counts: As `compiled.transposed` gives them.  found: Shape (frame, 4).
    """
    parameters = np.zeros((len(counts), kernels.PARAMETERS))

    def some(a, b):
        kernels.start_frames(counts[a:b], made.light, made.optics, 1.0, parameters[a:b])
        parameters[a:b, : kernels.SCALE], parameters[a:b, kernels.THICKNESS] = found[a:b, : kernels.SCALE], found[a:b, -1]
        nuisance_frames(counts[a:b], parameters[a:b], *_optics(made), made.threshold, made.saturation)

    in_threads(some, len(counts), smallest=16)
    return parameters


@exact
def _image(p, optics, columns, spread, weights, table, grid, value, by_u, by_v, shade, places):
    """Transmission of pixels and its slopes by u and v, each (column, row); fringe, its slopes by q and log t (column, 3)."""
    rows = value.shape[1]
    weight_v, slope_v, weight_u, slope_u = np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    kernels._place(p, optics, places)
    phase, k, low, high = kernels._rows(places[1], grid, table.shape[1], table.shape[2], rows, weight_v, slope_v)
    for c in range(value.shape[0]):
        knot = spline((columns[c, 0] + places[0] - grid[1]) * grid[2] - 1, weight_u, slope_u, grid[2])
        if knot < 0 or knot + 4 > table.shape[0] or high <= low:
            value[c] = 0
            by_u[c] = 0
            by_v[c] = 0
            shade[c] = 0
            continue
        shade[c] = fringe(columns[c, 1] + places[2], spread[c], weights, math.exp(p[kernels.THICKNESS]))
        transmission(table, weight_u, slope_u, knot, weight_v, slope_v, phase, k, low, high, value[c], by_u[c], by_v[c])


@exact
def _gather(gradient, s, scale, background, shade, places, k_cos):
    """Add one column's part of a gradient.

    s: Sums over its pixels of weight x (slope by u, slope by v, transmission, 1).
    shade: Fringe and its slopes by q and log t.
    """
    amplitude, steep = scale * shade[0], scale * shade[1]
    gradient[kernels.STRAIN] += amplitude * (places[3] * s[0] + places[5] * s[1]) + steep * (places[7] - places[3] * k_cos) * s[2]
    gradient[kernels.OMEGA] += amplitude * places[4] * s[0] - steep * places[4] * k_cos * s[2]
    gradient[kernels.CHI] += amplitude * places[6] * s[1]
    gradient[kernels.SCALE] += amplitude * s[2]
    gradient[kernels.BACKGROUND] += background * s[3]
    gradient[kernels.THICKNESS] += scale * shade[2] * s[2]


@fast
def _weighted(weight, by_u, by_v, value):
    """Sums over one column of weight x (slope by u, slope by v, transmission, 1)."""
    su = sv = sp = s1 = np.float32(0)
    for r in range(len(weight)):
        su += weight[r] * by_u[r]
        sv += weight[r] * by_v[r]
        sp += weight[r] * value[r]
        s1 += weight[r]
    return su, sv, sp, s1


@exact
def pull_back(by_counts, parameters, optics, columns, spread, weights, table, grid, gradient):
    """Sum over pixels of by_counts x d expected / d parameter, added to gradient (frame, 6).

    by_counts: float32, shape (frame, column, row); other arguments as in kernels.fit_frames.
    """
    shape = by_counts.shape[1:]
    value, by_u, by_v = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    shade, places = np.zeros((shape[0], 3)), np.zeros(8)
    for i in range(len(by_counts)):
        p = parameters[i]
        _image(p, optics, columns, spread, weights, table, grid, value, by_u, by_v, shade, places)
        scale, background = math.exp(p[kernels.SCALE]), math.exp(p[kernels.BACKGROUND])
        for c in range(shape[0]):
            s = _weighted(by_counts[i, c], by_u[c], by_v[c], value[c])
            _gather(gradient[i], s, scale, background, shade[c], places, optics[3])


@fast
def _nuisance(counts, shape, scale, background):
    """Gradient and Fisher matrix of Poisson counts by scale and background, over one column of the image `shape`."""
    s0 = s1 = a = b = d = np.float32(0)
    amplitude, floor, one, zero = np.float32(scale), np.float32(background), np.float32(1), np.float32(0)
    for r in range(len(counts)):
        inverse = one / (amplitude * shape[r] + floor)
        good = one if counts[r] >= zero else zero
        slope = (counts[r] * inverse - one) * good
        w = inverse * good
        s0 += slope * shape[r]
        s1 += slope
        a += w * shape[r] * shape[r]
        b += w * shape[r]
        d += w
    return s0, s1, a, b, d


@fast
def _slope(counts, shape, scale, background, slope):
    """d log p / d mean of each count of one column, into `slope`; returns the deviance of the column."""
    total = 0.0
    for r in range(len(counts)):
        n = counts[r]
        if n < 0:
            slope[r] = 0
            continue
        mean = scale * shape[r] + background
        slope[r] = n / mean - 1
        total += mean - n
        if n > 0:
            total += n * math.log(n / mean)
    return 2 * total


@exact
def _nuisance_censored(counts, shape, scale, background, threshold, saturation):
    """As `_nuisance`, for counts with a threshold or a saturation (columns.censored)."""
    s0 = s1 = a = b = d = 0.0
    for r in range(len(counts)):
        if counts[r] < 0:
            continue
        mean = scale * shape[r] + background
        _, low, _, high, w = censored(mean, threshold, saturation)
        slope = low if counts[r] < threshold else high if 0 < saturation <= counts[r] else counts[r] / mean - 1
        s0 += slope * shape[r]
        s1 += slope
        a += w * shape[r] * shape[r]
        b += w * shape[r]
        d += w
    return s0, s1, a, b, d


@exact
def _slope_censored(counts, shape, scale, background, threshold, saturation, slope):
    """As `_slope`, for counts with a threshold or a saturation."""
    total = 0.0
    for r in range(len(counts)):
        n = counts[r]
        slope[r] = 0
        if n < 0:
            continue
        mean = scale * shape[r] + background
        below, low, above, high, _ = censored(mean, threshold, saturation)
        if n < threshold:
            slope[r] = low
            total -= math.log(below)
        elif 0 < saturation <= n:
            slope[r] = high
            total -= math.log(max(above, IMPOSSIBLE))
        else:
            slope[r] = n / mean - 1
            total += mean - n + (n * math.log(n / mean) if n > 0 else 0.0)
    return 2 * total


@exact
def _fit_nuisance(counts, image, p, threshold, saturation):
    """Scale and background that fit a frame best at an image of transmission x fringe; they are put into p as well."""
    scale, background = math.exp(p[kernels.SCALE]), math.exp(p[kernels.BACKGROUND])
    for _ in range(NUISANCE_STEPS):
        s0 = s1 = a = b = d = 0.0
        for c in range(len(counts)):
            if threshold < 2 and saturation == 0:
                t0, t1, ta, tb, td = _nuisance(counts[c], image[c], scale, background)
            else:
                t0, t1, ta, tb, td = _nuisance_censored(counts[c], image[c], scale, background, threshold, saturation)
            s0 += t0
            s1 += t1
            a += ta
            b += tb
            d += td
        if not a * d - b * b > 1e-12 * a * d:  # no light on the frame: nothing can be said of the scale
            break
        up, down = (d * s0 - b * s1) / (a * d - b * b), (a * s1 - b * s0) / (a * d - b * b)
        scale, background = max(scale + up, scale / 4, LEAST), max(background + down, background / 4, LEAST)
        if up * s0 + down * s1 < NUISANCE_TOLERANCE:
            break
    p[kernels.SCALE], p[kernels.BACKGROUND] = math.log(scale), math.log(background)
    return scale, background


@exact
def nuisance_frames(counts, parameters, optics, columns, spread, weights, table, grid, threshold, saturation):
    """Put the scale and background that fit best into `parameters`; arguments as in kernels.fit_frames."""
    shape = counts.shape[1:]
    value, by_u, by_v = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    shade, places = np.zeros((shape[0], 3)), np.zeros(8)
    for i in range(len(counts)):
        _image(parameters[i], optics, columns, spread, weights, table, grid, value, by_u, by_v, shade, places)
        for c in range(shape[0]):
            value[c] *= np.float32(shade[c, 0])
        _fit_nuisance(counts[i], value, parameters[i], threshold, saturation)


@exact
def profile_frames(
    counts, parameters, optics, columns, spread, weights, table, grid, threshold, saturation, gradient, deviance
):  # fmt: skip
    """Deviance of frames at their best scale and background, which are put into `parameters`, and its gradient by the others.

    counts: float32, shape (frame, column, row); below zero: not used.
    gradient: Filled, shape (frame, 6), 0 for scale and background.  deviance: Filled, shape (frame,).
    Other arguments as in kernels.fit_frames.
    """
    shape = counts.shape[1:]
    value, by_u, by_v = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    image, slope = np.zeros(shape, np.float32), np.zeros(shape[1], np.float32)
    shade, places = np.zeros((shape[0], 3)), np.zeros(8)
    for i in range(len(counts)):
        p = parameters[i]
        _image(p, optics, columns, spread, weights, table, grid, value, by_u, by_v, shade, places)
        for c in range(shape[0]):
            image[c] = value[c] * np.float32(shade[c, 0])
        scale, background = _fit_nuisance(counts[i], image, p, threshold, saturation)
        deviance[i] = 0
        gradient[i] = 0
        for c in range(shape[0]):
            if threshold < 2 and saturation == 0:
                deviance[i] += _slope(counts[i, c], image[c], scale, background, slope)
            else:
                deviance[i] += _slope_censored(counts[i, c], image[c], scale, background, threshold, saturation, slope)
            s = _weighted(slope, by_u[c], by_v[c], value[c])
            _gather(gradient[i], s, scale, background, shade[c], places, optics[3])
        gradient[i] *= -2
        gradient[i, kernels.SCALE] = 0
        gradient[i, kernels.BACKGROUND] = 0
