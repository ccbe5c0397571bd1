"""Blind source separation in a few dimensions: non-negative independent components, and non-negative matrix factors.

Both work on z, the coordinates of each pixel's curve in an orthonormal basis U of a few directions, shape (direction, pixel), in
units in which all counts are equally noisy. The sources are maps s (component, pixel) with curves A (point, component):
U z = A s. They never see the counts themselves; what lies outside U is noise by the choice of U.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numba import njit

from braggscope.infer.runtime import in_threads

ANGLES = 4096  # bins of the angle in a plane; the minimum is then interpolated
TILE = 256  # pixels whose maps and coordinates stay in the first-level cache
STILL = 1e-4  # rad: a sweep that turns less has found the rotation
SWEEPS = 60
INNER = 3  # times that the maps of a block are improved before the curves are: they are in the cache then (Gillis & Glineur 2012)
PIECE = 4096  # pixels summed together, so that the sums do not depend on the number of threads
FEW = (2**12, 2**15)  # pixels on which a solution is sought first

_compiled = njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp", "reassoc"}, error_model="numpy")


def non_negative_independent(basis: np.ndarray, z: np.ndarray, noise: float = 1.0) -> tuple[np.ndarray, int, bool]:
    """NICA: independent maps that are not negative (Plumbley & Oja 2004, IEEE Trans. Neural Netw. 15, 66).

    z is made white without taking off its mean, and turned until as little as possible of it is negative: the minimum over
    rotations W of J = sum min(0, W v z)^2 is the sources, if they are independent and have values near zero. The covariance is
    that of the signal: the noise's is taken off before. One plane at a time is turned, to the global minimum in it:
    J as a function of the angle is the correlation of the histogram of angles, weighted with the squared radius, with
    min(0, cos)^2 + min(0, sin)^2. Nothing is centred and every scale is kept, so that A s = U z exactly.

    basis: U, shape (point, component).  z: Shape (component, pixel).  noise: Variance of z by noise alone.
    Returns: A, shape (point, component), sweeps over the planes, and whether the rotation came to rest. s is A^+ U z.
    """
    covariance = np.atleast_2d(np.cov(z))
    values, vectors = np.linalg.eigh(covariance)
    signal = np.maximum(values - noise, 0.05 * values)
    unmix = vectors / np.sqrt(np.maximum(signal, 1e-300)) @ vectors.T
    sweeps, still = 0, False
    for few in (*FEW, z.shape[1]):
        if few == z.shape[1] or z.shape[1] >= 2 * few:
            unmix, more, still = _turned(unmix, z[:, :: z.shape[1] // few])
            sweeps += more
    curves = basis @ np.linalg.inv(unmix)
    return curves * np.where(curves.sum(axis=0) < 0, -1.0, 1.0), sweeps, still


def _turned(unmix: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, int, bool]:
    """unmix, turned in all planes in turn until unmix @ z is as little negative as possible; sweeps; whether it came to rest."""
    sources = unmix @ z
    turned, sweep = np.inf, 0
    while turned > STILL and sweep < SWEEPS:
        turned, sweep = 0.0, sweep + 1
        for pair in itertools.combinations(range(len(z)), 2):
            angle = _best_angle(*sources[list(pair)])
            c, s = np.cos(angle), np.sin(angle)
            turn, rows = np.array([[c, -s], [s, c]]), list(pair)
            sources[rows] = turn @ sources[rows]
            unmix[rows] = turn @ unmix[rows]
            turned = max(turned, abs(angle))
    return unmix, sweep, turned <= STILL


def _best_angle(x: np.ndarray, y: np.ndarray) -> float:
    """Angle by which the points (x, y) are to be turned so that the least of their square is negative; -pi to pi."""
    width = 2 * np.pi / ANGLES
    edges = np.append(np.arange(0, len(x), 4 * PIECE), len(x))
    histograms = np.zeros((len(edges) - 1, ANGLES))

    def work(a: int, b: int) -> None:
        for i in range(a, b):
            _angles(x, y, edges[i], edges[i + 1], histograms[i])

    in_threads(work, len(histograms))
    histogram = histograms.sum(axis=0)
    centre = (np.arange(ANGLES) + 0.5) * width
    penalty = np.minimum(0, np.cos(centre)) ** 2 + np.minimum(0, np.sin(centre)) ** 2
    # cost[k] = sum over bins b of histogram[b] penalty[b + k]
    cost = np.fft.irfft(np.conj(np.fft.rfft(histogram)) * np.fft.rfft(penalty), ANGLES)
    k = int(np.argmin(cost))
    before, at, after = cost[k - 1], cost[k], cost[(k + 1) % ANGLES]
    curvature = before - 2 * at + after
    shift = 0.5 * (before - after) / curvature if curvature > 1e-14 * abs(cost).max() else 0.0
    angle = (k + float(np.clip(shift, -0.5, 0.5))) * width
    return angle - 2 * np.pi if angle > np.pi else angle


@_compiled
def _angles(x, y, start, stop, sums):  # type: ignore[no-untyped-def]
    """Add to a histogram of the angle of (x, y), weighted with the squared radius, each point shared between the nearest bins."""
    bins = len(sums)
    scale = bins / (2 * np.pi)
    for p in range(start, stop):
        place = np.arctan2(y[p], x[p]) * scale - 0.5
        low = np.floor(place)
        part, square = place - low, x[p] * x[p] + y[p] * y[p]
        k = int(low) % bins
        sums[k] += (1 - part) * square
        sums[(k + 1) % bins] += part * square


def first_factors(basis: np.ndarray, values: np.ndarray, z: np.ndarray, count: int) -> np.ndarray:
    """Curves to start non-negative factors from: the heavier sign of each direction (NNDSVD, Boutsidis & Gallopoulos 2008).

    basis: U, strongest direction first, shape (point, direction).  values: Sum of z^2 of each, shape (direction,).
    """
    curves = np.empty((len(basis), count))
    for j in range(count):
        u, v = basis[:, j], z[j]
        plus, minus = (float(np.sum(np.maximum(s * u, 0) ** 2) * np.sum(np.maximum(s * v, 0) ** 2)) for s in (1, -1))
        side = np.maximum(u if plus >= minus else -u, 0)
        curves[:, j] = side / max(float(np.linalg.norm(side)), 1e-300) * values[j] ** 0.5
    mean = curves[curves > 0].mean()
    return np.where(curves > 0, curves, 1e-2 * mean)  # a zero would stay


def non_negative_factors(
    basis: np.ndarray, z: np.ndarray, start: np.ndarray, *, iterations: int, tolerance: float
) -> tuple[np.ndarray, int, bool]:
    """NMF: non-negative curves and maps nearest to basis @ z, by hierarchical alternating least squares (Cichocki & Phan 2009).

    Negative values of the data stay as they are: cut off, they would bias dark pixels upwards. Sought on some pixels first.
    Gives the curves, shape (point, component) and sum 1, the iterations, and whether the curves came to rest.

    tolerance: Largest change of a curve, relative to its own maximum, at which it is at rest.
    """
    curves, total = start / start.sum(axis=0), 0
    for few in FEW:
        if z.shape[1] >= 2 * few:
            some = np.ascontiguousarray(z[:, :: z.shape[1] // few])
            curves, steps, _ = _at_rest(basis, some, curves, iterations, tolerance)
            total += steps
    curves, steps, still = _at_rest(basis, z, curves, iterations, tolerance)
    return curves, total + steps, still


def _at_rest(
    basis: np.ndarray, z: np.ndarray, curves: np.ndarray, iterations: int, tolerance: float
) -> tuple[np.ndarray, int, bool]:
    """The last of `_improved`, how many there were, and whether they ended by themselves."""
    step, moved = 0, np.inf
    for step, found in enumerate(_improved(basis, z, curves), start=1):
        moved = float((np.abs(found - curves).max(axis=0) / np.maximum(found.max(axis=0), 1e-300)).max())
        curves = found
        if moved < tolerance or step >= iterations:
            break
    return curves, step, moved < tolerance


def _improved(basis: np.ndarray, z: np.ndarray, curves: np.ndarray) -> Iterator[np.ndarray]:
    """Curves after each round of least squares over the maps and then over the curves."""
    count, pixels = curves.shape[1], z.shape[1]
    maps = np.zeros((count, pixels))
    pieces = -(-pixels // PIECE)
    squares, products = np.zeros((pieces, count, count)), np.zeros((pieces, count, len(z)))
    sweeps = 10 * INNER  # the maps start from nothing
    while True:
        through, gram = np.ascontiguousarray(curves.T @ basis), curves.T @ curves

        def work(
            a: int, b: int, sweeps: int = sweeps, through: np.ndarray = through, gram: np.ndarray = gram, maps: np.ndarray = maps
        ) -> None:
            for i in range(a, b):
                _maps(z, through, gram, maps, i * PIECE, min(pixels, (i + 1) * PIECE), sweeps, squares[i], products[i])

        in_threads(work, pieces, smallest=2)
        curves, sweeps = _curves(curves, basis @ products.sum(axis=0).T, squares.sum(axis=0)), INNER
        scale = curves.sum(axis=0)
        scale[scale <= 0] = 1.0
        curves = curves / scale
        maps *= scale[:, None]
        yield curves


def _curves(curves: np.ndarray, targets: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Non-negative least squares for the curves at given maps, a few rounds from where they are."""
    curves = curves.copy()
    for _ in range(INNER):
        for j in range(curves.shape[1]):
            if squares[j, j] > 0:
                curves[:, j] = np.maximum(0, curves[:, j] + (targets[:, j] - curves @ squares[:, j]) / squares[j, j])
    return curves


@_compiled
def _maps(z, through, gram, maps, start, stop, sweeps, squares, products):  # type: ignore[no-untyped-def]
    """Non-negative least squares for the maps of some pixels from where they are; also sums of s s' and s z'.

    z: Shape (direction, pixel).  through: curves' basis, shape (component, direction).  gram: curves' curves.
    maps: Shape (component, pixel), changed.  squares, products: Set, shapes (component, component), (component, direction).
    """
    count, directions = through.shape
    squares[:] = 0
    products[:] = 0
    targets = np.empty((count, TILE))
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        for j in range(count):
            to = targets[j]
            to[:size] = 0
            for d in range(directions):
                weight, row = through[j, d], z[d, first : first + size]
                for p in range(size):
                    to[p] += weight * row[p]
        _solve(targets, gram, maps, first, size, sweeps)
        for j in range(count):
            s = maps[j, first : first + size]
            for i in range(j, count):
                other, total = maps[i, first : first + size], 0.0
                for p in range(size):
                    total += s[p] * other[p]
                squares[j, i] += total
            for d in range(directions):
                row, total = z[d, first : first + size], 0.0
                for p in range(size):
                    total += s[p] * row[p]
                products[j, d] += total
    for j in range(count):
        for i in range(j):
            squares[j, i] = squares[i, j]


@_compiled
def _solve(targets, gram, maps, first, size, sweeps):  # type: ignore[no-untyped-def]
    """Non-negative s that minimises s' gram s / 2 - targets' s, one component after the other, from where it is.

    Each of the `size` pixels from `first` on has its own problem; ends early where none moves by more than 1e-9 of the largest.
    """
    count = len(gram)
    step = np.empty(TILE)
    for _ in range(sweeps):
        moved, largest = 0.0, 0.0
        for j in range(count):
            if gram[j, j] <= 0:
                continue
            s, target = maps[j, first : first + size], targets[j]
            for p in range(size):
                step[p] = target[p]
            for i in range(count):
                weight, other = gram[j, i], maps[i, first : first + size]
                for p in range(size):
                    step[p] -= weight * other[p]
            scale = 1 / gram[j, j]
            for p in range(size):
                new = max(0.0, s[p] + step[p] * scale)
                moved, largest = max(moved, abs(new - s[p])), max(largest, new)
                s[p] = new
        if moved <= 1e-9 * largest:
            break


@_compiled
def _solve_some(targets, gram, maps, start, stop):  # type: ignore[no-untyped-def]
    """`_solve` to the end for pixels from start to stop."""
    some = np.empty((len(gram), TILE))
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        for j in range(len(gram)):
            some[j, :size] = targets[j, first : first + size]
        _solve(some, gram, maps, first, size, 5000)


def non_negative_maps(targets: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Non-negative least squares for all pixels: the maps s >= 0 that minimise s' gram s / 2 - targets' s.

    targets: A' y, shape (component, pixel).  gram: A' A.
    """
    maps = np.zeros_like(targets)
    in_threads(lambda a, b: _solve_some(targets, gram, maps, a, b), targets.shape[1], smallest=4096)
    return maps
