"""The likelihood of one place around a fit, quickly at many points: for the climb to the highest maximum and the posterior.

Where a ray passes a line within some nanometres, the image changes within a nanometre, so that the likelihood is rugged on a
scale finer than its width. Rays that pass near the line are computed anew at every point; the others, being smooth, are taken to
first order, and pixels that hold none of the near ones to second order of their likelihood.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from . import kernels
from .fit import Fit, deviation, terms
from .model import REFLECTION, ImageModel

Array = np.ndarray
RADIUS_NM = 150.0  # rays that pass nearer are not smooth over some nanometres
STEP_NM = 2.0  # for the slope of what is smooth
POINTS = 900
# Evenly spread over a square, in no rows: none of them falls on the maximum, whose ripple may be the narrowest of all
SPREAD = 2 * ((np.arange(1, POINTS + 1)[:, None] * np.array([0.7548776662466927, 0.5698402909980532])) % 1) - 1


@dataclass(frozen=True)
class _Near:
    """Pixels that hold rays near the line of one place, and these rays with their weights."""

    rows: Array
    columns: Array
    pixel_of_ray: Array
    rays: Array
    weight: Array


@dataclass(frozen=True)
class Nearby:
    """Minus the log-likelihood of the place of dislocation k."""

    model: ImageModel
    found: Fit
    k: int
    near: _Near
    counts: Array
    usable: Array
    rest: Array
    rest_slope: Array
    gradient: Array
    information: Array

    @classmethod
    def of(cls, model: ImageModel, counts: Array, usable: Array, found: Fit, k: int) -> Nearby:
        """Pixels without near rays to second order about the maximum; in the others the rays that are not near to first."""
        own, near = slice(2 * k, 2 * k + 2), _rays(model, found, k)
        away = usable.copy()
        away[near.rows, near.columns] = False
        state = terms(model, counts, away, found)
        at = (near.rows, near.columns)
        made = cls(model, found, k, near, counts[at], usable[at], np.zeros(len(near.rows)), np.zeros((len(near.rows), 2)),
                   -state.gradient[own], state.information[own, own])  # fmt: skip
        steps = np.array([[0, 0], [STEP_NM, 0], [-STEP_NM, 0], [0, STEP_NM], [0, -STEP_NM]])
        places = np.repeat(found.places[None], len(steps), 0)
        places[:, k] += steps
        whole = np.array([model.image(found.which, one, derivatives=False)[0][at] for one in places])
        rest = whole - made._bright(places[:, k])
        slope = np.stack([rest[1] - rest[2], rest[3] - rest[4]], -1) / (2 * STEP_NM)
        return dataclasses.replace(made, rest=rest[0], rest_slope=slope)

    @property
    def at_fit(self) -> float:
        """The loss at the fit itself."""
        return float(self.losses(self.found.places[[self.k]])[0])

    def covariance(self) -> Array:
        """From the pixels without near rays: wider than the posterior."""
        least = 1 / float(self.model.field_nm.max()) ** 2  # what is known of any place
        values, vectors = np.linalg.eigh(self.information)
        return (vectors / np.maximum(values, max(1e-4 * float(values.max()), least))) @ vectors.T

    def losses(self, grid: Array) -> Array:
        """At these places, shape (point, 2) -> (point,)."""
        move = grid - self.found.places[self.k]
        image = self.rest + move @ self.rest_slope.T + self._bright(grid)
        residual, variance = deviation(self.model, self.counts, image, self.found.level)
        near = (residual**2 / variance + np.log(variance)) @ self.usable
        return near / 2 + move @ self.gradient + np.einsum("ni,ij,nj->n", move, self.information, move) / 2

    def _bright(self, grid: Array) -> Array:
        """What the near rays give each pixel, shape (point, pixel)."""
        o, s = self.model.optics, self.model.straight[self.found.which]
        places = np.repeat(self.found.places[None], len(grid), 0)
        places[:, self.k] = grid
        rays = kernels.bright(
            self.near.rays, self.near.weight, s.project, s.turn, s.edge, s.screw, self.model.setting.poisson, o.yy_sign, places,
            REFLECTION, o.offset, o.along, o.centre, o.half_width, o.sigma, kernels.TAIL,
        )  # fmt: skip
        starts = np.flatnonzero(np.diff(self.near.pixel_of_ray, prepend=-1))
        return np.add.reduceat(rays, starts, axis=1) if len(starts) else np.zeros((len(grid), 0))


def _rays(model: ImageModel, found: Fit, k: int) -> _Near:
    """The rays near the line of dislocation k, and their pixels."""
    (x, y), o = model.axes_nm, model.optics
    project = model.straight[[found.which[k]]].project[0]
    index = np.array(kernels.rays_near(x, y, o.depth_nm, o.tilt, project, found.places[k], RADIUS_NM), np.int64).reshape(-1, 3)
    i, j, m = index.T
    pixel, of = np.unique(i * len(y) + j, return_inverse=True)
    rays = np.stack([x[i] + o.depth_nm[m] * o.tilt, y[j], o.depth_nm[m]], -1)
    return _Near(pixel // len(y), pixel % len(y), of, rays, o.weight_nm[m])
