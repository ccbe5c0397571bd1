"""F at places of the sample plane from the diffraction vectors of several reflections, with the errors of what follows from it.

Everything up to F^-T is linear in the diffraction vectors of the maps' pixels: interpolation in each map, regression over the
reflections, differences between neighbouring places. So the errors of the dislocation density and of a Burgers circuit are exact
for given weights, with the correlation that neighbouring places have where they draw on the same pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.physics.deformation import deformation_from_vectors, dislocation_density, distortion

from ..geometry import DfxmGeometry
from .reflections import COPLANAR, Reflection, condition
from .sample_plane import View, interpolation
from .vectors import Observed, sample_vectors

PLACES = 30_000  # of a band of rows
FEW, FLAT, SOME = 1, 2, 4  # flags: fewer than three reflections, those left coplanar, some missing
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


@dataclass(frozen=True)
class Seen:
    """One map: its data, reflection, observables and view of the plane."""

    map: xr.Dataset
    reflection: Reflection
    observed: Observed
    view: View

    @property
    def usable(self) -> np.ndarray:
        """Where all observables and their errors are finite, shape (row, column)."""
        names = [n for name in self.observed.names for n in (name, f"{name}_std")]
        good = np.logical_and.reduce([np.isfinite(self.map[n].values) for n in names])
        return good & np.logical_and.reduce([self.map[f"{n}_std"].values > 0 for n in self.observed.names])

    def vectors(self, pixels: np.ndarray, instrument: DfxmGeometry, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Diffraction vectors (pixel, 3) and their covariance (pixel, 3, 3) in a frame (rows: its axes in the sample frame).

        pixels: Flat positions; those that are not usable give 0.
        """
        wanted = {v for v in self.map.data_vars if self.map[v].dims == self.map[self.observed.strain].dims}
        flat = xr.Dataset({v: ("pixel", self.map[v].values.ravel()[pixels]) for v in wanted}, attrs=self.map.attrs)
        q, covariance = sample_vectors(flat, self.reflection, instrument, self.observed)
        turn = torch.from_numpy(frame)
        return _finite(q @ turn.T), _finite(turn @ covariance @ turn.T)


@dataclass(frozen=True)
class Plane:
    """The places: x and y of the grid (um), and the frame in which everything is given.

    frame: Its axes in the sample frame, rows.  axes: x, y and normal of the plane in that frame, rows.
    """

    x: np.ndarray
    y: np.ndarray
    frame: np.ndarray
    axes: np.ndarray

    @property
    def step(self) -> float:
        """Distance of neighbouring places, um."""
        return float(self.x[1] - self.x[0])

    def bands(self) -> Iterator[tuple[slice, slice]]:
        """Rows of the grid in bands that fit in memory: those wanted, and those needed for differences."""
        rows = max(1, PLACES // len(self.x))
        for start in range(0, len(self.y), rows):
            stop = min(start + rows, len(self.y))
            yield slice(start, stop), slice(max(0, start - 1), min(len(self.y), stop + 1))


@dataclass(frozen=True)
class Drawn:
    """What a band of places draws from one map.

    weights: Sparse (place, pixel), over `pixels`, flat positions in the map.  good: Whether a place has all its pixels.
    q, covariance: Of the pixels.
    """

    weights: Any
    pixels: np.ndarray
    good: np.ndarray
    q: np.ndarray
    covariance: np.ndarray

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Diffraction vectors (place, 3) and their covariance (place, 3, 3)."""
        square = self.weights.multiply(self.weights)
        return self.weights @ self.q, (square @ self.covariance.reshape(-1, 9)).reshape(-1, 3, 3)


def drawn(seen: Seen, usable: np.ndarray, plane: Plane, rows: slice, instrument: DfxmGeometry, cubic: bool) -> Drawn:
    """What the places of some rows of the grid draw from a map."""
    x, y = np.meshgrid(plane.x, plane.y[rows])
    weights, good = interpolation(seen.view, x.ravel(), y.ravel(), usable, cubic=cubic)
    pixels, inverse = np.unique(weights.indices, return_inverse=True)
    weights = type(weights)((weights.data, inverse, weights.indptr), shape=(weights.shape[0], len(pixels)))
    return Drawn(weights, pixels, good, *seen.vectors(pixels, instrument, plane.frame))


@dataclass(frozen=True)
class Fitted:
    """F at the places of a band: values and covariance, chi-square and its degrees of freedom, dF^-T/dq of each map, flags."""

    f: np.ndarray
    covariance: np.ndarray
    chi_square: np.ndarray
    freedom: np.ndarray
    weights: np.ndarray
    flag: np.ndarray


def fitted(parts: list[Drawn], reference: np.ndarray) -> Fitted:
    """The regression at each place over the reflections that it has.  reference: q0, shape (reflection, 3)."""
    good = np.array([p.good for p in parts]).T
    q, covariance = (np.stack(v, axis=1) for v in zip(*(p.places() for p in parts), strict=True))
    count, maps = good.shape
    f, cov = np.full((count, 3, 3), np.nan), np.full((count, 9, 9), np.nan)
    chi, freedom, weights = np.full(count, np.nan), np.zeros(count), np.zeros((count, maps, 9, 3))
    flag = np.zeros(count, np.int32)
    patterns, which = np.unique(good, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        at, has = np.flatnonzero(which.ravel() == number), np.flatnonzero(pattern)
        flag[at] |= SOME if len(has) < maps else 0
        if len(has) < 3 or condition(reference[has]) > COPLANAR:
            flag[at] |= FEW if len(has) < 3 else FLAT
            continue
        select = np.ix_(at, has)
        tensors = (torch.from_numpy(v) for v in (q[select], reference[has], covariance[select]))
        f[at], cov[at], chi[at], weights[select] = (v.numpy() for v in deformation_from_vectors(*tensors))
        freedom[at] = 3 * len(has) - 9
    return Fitted(f, cov, chi, freedom, weights, flag)


def density(fit: Fitted, parts: list[Drawn], plane: Plane, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Burgers vector per area of the plane (place, 3) and its standard deviation, 1/um, by central differences; NaN at edges.

    rows: Of the band; places count through them.
    """
    columns, h = len(plane.x), plane.step
    beta = distortion(torch.from_numpy(fit.f)).reshape(rows, columns, 3, 3)
    along = torch.full((rows, columns, 3, 3, 2), math.nan, dtype=torch.float64)
    along[:, 1:-1, ..., 0] = (beta[:, 2:] - beta[:, :-2]) / (2 * h)
    along[1:-1, ..., 1] = (beta[2:] - beta[:-2]) / (2 * h)
    gradient = along @ torch.from_numpy(plane.axes[:2])  # d/dx_k in the frame; none along the normal, whose part drops out
    alpha = dislocation_density(gradient) @ torch.from_numpy(plane.axes[2])
    variance = np.full((rows, columns, 3), np.nan)
    if rows > 2 and columns > 2:
        variance[1:-1, 1:-1] = _density_variance(fit, parts, plane, rows)
    values, std = alpha.reshape(-1, 3).numpy(), np.sqrt(variance).reshape(-1, 3)
    known = np.isfinite(values) & np.isfinite(std)
    return np.where(known, values, np.nan), np.where(known, std, np.nan)


def _density_variance(fit: Fitted, parts: list[Drawn], plane: Plane, rows: int) -> np.ndarray:
    """Variance of the density at the inner places of a band, shape (row, column, 3).

    alpha_i = d_x beta_iy - d_y beta_ix, with neighbours east, west, north, south; beta = 1 - A^T and A linear in q.
    """
    columns = len(plane.x)
    inner = np.add.outer(np.arange(1, rows - 1) * columns, np.arange(1, columns - 1)).ravel()
    neighbours = [inner + 1, inner - 1, inner + columns, inner - columns]
    directions = np.array([1.0, -1, 0, 0]), np.array([0.0, 0, -1, 1])
    total = np.zeros((len(inner), 3))
    for number, part in enumerate(parts):
        by_x, by_y = (distortion_weights(fit.weights[:, number], e) for e in plane.axes[:2])
        pull = [(a * by_y[at] + b * by_x[at]) / (2 * plane.step) for at, a, b in zip(neighbours, *directions, strict=True)]
        near = [part.weights[at] for at in neighbours]
        six = np.stack([part.covariance[:, c, d] for c, d in PAIRS], -1)
        for a, b in itertools.combinations_with_replacement(range(4), 2):
            shared = near[a].multiply(near[b]).tocsr() @ six
            full = np.empty((len(inner), 3, 3))
            for i, (c, d) in enumerate(PAIRS):
                full[:, c, d] = full[:, d, c] = shared[:, i]
            total += (1 if a == b else 2) * ((pull[a] @ full) * pull[b]).sum(axis=-1)
    return total.clip(min=0).reshape(rows - 2, columns - 2, 3)


def distortion_weights(weights: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """d(beta_ij e_j)/dq from dA/dq, A = F^-T: beta_ij = 1 - A_ji; (place, 9, 3), (3,) -> (place, 3, 3)."""
    return -np.einsum("l,plic->pic", direction, weights.reshape(-1, 3, 3, 3))


@dataclass
class Circuit:
    """The Burgers vector as the integral of the distortion along rectangles of the grid, right-handed about the normal.

    columns, rows: First and last of each, of the outermost.  count: Rectangles, one in the other; their mean is taken.
    total: Sum so far, um.  pulls: dtotal/dq of each map's pixels, (pixel, 3, 3).
    """

    columns: tuple[int, int]
    rows: tuple[int, int]
    count: int
    total: np.ndarray
    pulls: list[np.ndarray]

    @classmethod
    def around(cls, rectangle: tuple[float, ...], width: float, plane: Plane, pixels: list[int]) -> Circuit:
        """The rectangle (x start, x stop, y start, y stop), um, moved to the nearest places.

        width: Of the frame that the rectangles fill inwards, um.  pixels: Of each map.
        Raises InputError where there is no rectangle in the field, or the frame leaves no room in it.
        """
        left, right, low, high = (
            int(np.abs(axis - v).argmin()) for axis, v in zip((plane.x, plane.x, plane.y, plane.y), rectangle, strict=True)
        )
        count = round(width / plane.step) + 1
        if min(right - left, high - low) < max(2, 2 * count):
            ends = f"x {plane.x[0]:.3g} to {plane.x[-1]:.3g}, y {plane.y[0]:.3g} to {plane.y[-1]:.3g} um"
            raise InputError(
                f"circuit_um must be x start < x stop, y start < y stop in the field ({ends}), more than twice circuit_width_um "
                f"long and wide, got {', '.join(f'{v:g}' for v in rectangle)} with a width of {width:g}"
            )
        return cls((left, right), (low, high), count, np.zeros(3), [np.zeros((n, 3, 3)) for n in pixels])

    def steps(self, plane: Plane, rows: slice) -> np.ndarray:
        """Length of path along x and y that each place of some rows stands for (trapezoid rule), shape (place, 2), um."""
        lengths = np.zeros((len(plane.y), len(plane.x), 2))
        for inwards in range(self.count):
            (left, right), (low, high) = ((a + inwards, b - inwards) for a, b in (self.columns, self.rows))
            across, up = np.full(right - left + 1, plane.step / self.count), np.full(high - low + 1, plane.step / self.count)
            across[[0, -1]] /= 2
            up[[0, -1]] /= 2
            lengths[low, left : right + 1, 0] += across
            lengths[high, left : right + 1, 0] -= across
            lengths[low : high + 1, right, 1] += up
            lengths[low : high + 1, left, 1] -= up
        return lengths[rows].reshape(-1, 2)

    def add(self, fit: Fitted, parts: list[Drawn], plane: Plane, rows: slice, wanted: np.ndarray) -> None:
        """Add the places of a band.  wanted: Which of them are not another band's."""
        lengths = self.steps(plane, rows) * wanted[:, None]
        on = np.flatnonzero(lengths.any(axis=1))
        if not len(on):
            return
        along = lengths[on] @ plane.axes[:2]  # (place, 3)
        beta = distortion(torch.from_numpy(fit.f[on])).numpy()
        self.total += np.einsum("pij,pj->i", beta, along)
        for number, part in enumerate(parts):
            pull = -np.einsum("pl,plic->pic", along, fit.weights[on, number].reshape(-1, 3, 3, 3))
            spread = part.weights[on].T @ pull.reshape(len(on), 9)
            self.pulls[number][part.pixels] += spread.reshape(-1, 3, 3)

    def std(self, maps: list[Seen], instrument: DfxmGeometry, plane: Plane) -> np.ndarray:
        """Standard deviation of the total, um."""
        variance = np.zeros(3)
        for seen, pull in zip(maps, self.pulls, strict=True):
            used = np.flatnonzero(pull.any(axis=(1, 2)))
            _, covariance = seen.vectors(used, instrument, plane.frame)
            variance += np.einsum("pic,pcd,pid->i", pull[used], covariance, pull[used])
        return np.sqrt(variance)


def _finite(values: torch.Tensor) -> np.ndarray:
    return np.nan_to_num(values.numpy(), nan=0.0, posinf=0.0, neginf=0.0)
