"""The posterior of a place as it is, not as its curvature at the maximum says.

Where a ray passes a line within some nanometres, the image changes within a nanometre, and the likelihood is rugged on the scale
of its own width: its curvature at the maximum is that of one ripple. Here the posterior of each place is summed over a grid, all
others held: rays that pass near the line are computed anew, the others, being smooth, to first order.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from . import kernels
from .fit import Fit, deviation, inverse, terms
from .model import REFLECTION, ImageModel

Array = np.ndarray
RADIUS_NM = 150.0  # rays that pass nearer are not smooth over some nanometres
STEP_NM = 2.0  # for the slope of what is smooth
POINTS = 900
WIDE = 4.5  # half the width of the points in standard deviations
ROUNDS = 5
NARROWER = 0.02  # the least that a round shrinks to, of the one before
ENOUGH = 25  # points that carry the weight
# Evenly spread over a square, in no rows: none of them falls on the maximum, whose ripple may be the narrowest of all
SPREAD = 2 * ((np.arange(1, POINTS + 1)[:, None] * np.array([0.7548776662466927, 0.5698402909980532])) % 1) - 1


@dataclass(frozen=True)
class _Near:
    """What one place sees: pixels that hold rays near its line, these rays, and the rest to first order."""

    rows: Array
    columns: Array
    pixel_of_ray: Array
    rays: Array
    weight: Array


def with_posterior(model: ImageModel, counts: Array, usable: Array, found: Fit) -> Fit:
    """The fit with the mean and covariance of the posterior instead of the maximum and the inverse information."""
    state = terms(model, counts, usable, found)
    information, places, evidence = state.information.copy(), found.places.copy(), -found.loss
    for k in range(len(found.which)):
        places[k], covariance, volume = _summed(model, counts, usable, found, k)
        own = slice(2 * k, 2 * k + 2)
        information[own, own] = np.linalg.pinv(covariance, hermitian=True)
        evidence += volume - 0.5 * np.linalg.slogdet(covariance)[1]
    whole = inverse(_positive(information, state.information))
    # Laplace in the levels and in how the places hang together, a sum in each place
    evidence += 0.5 * np.linalg.slogdet(whole)[1] + 0.5 * (len(whole) - places.size) * math.log(2 * math.pi)
    to_image = model.straight[found.which].to_image()
    evidence += float(np.linalg.slogdet(to_image)[1].sum())
    return dataclasses.replace(found, mean=places, covariance=whole, evidence=float(evidence))


def _summed(model: ImageModel, counts: Array, usable: Array, found: Fit, k: int) -> tuple[Array, Array, float]:
    """Mean and covariance of one place, the others and the levels held, and log of the integral of L / L(fit), in nm^2."""
    near = _rays(model, found, k)
    smooth = _Smooth.of(model, counts, usable, found, k, near)
    centre, covariance = found.places[k], smooth.covariance()
    for _ in range(ROUNDS):
        root = np.linalg.cholesky(covariance)
        grid = WIDE * SPREAD @ root.T + centre
        losses = smooth.losses(grid)
        weight = np.exp(-(losses - losses.min()))
        cell = (2 * WIDE) ** 2 * float(np.prod(np.diag(root))) / POINTS
        volume = float(smooth.at_fit - losses.min()) + math.log(float(weight.sum()) * cell)
        weight /= weight.sum()
        fine = 1 / (weight**2).sum() >= ENOUGH
        if not fine:  # a few points hold it all: their spread is a guess, so widened, for a finer round
            weight = weight**0.5 / (weight**0.5).sum()
        centre = weight @ grid
        before, covariance = covariance, (weight[:, None] * (grid - centre)).T @ (grid - centre)
        if not fine:  # a single point has no spread
            covariance += NARROWER**2 * before
        if fine:
            break
    return centre, covariance, volume


def _rays(model: ImageModel, found: Fit, k: int) -> _Near:
    """The rays near the line of dislocation k, and their pixels."""
    (x, y), o = model.axes_nm, model.optics
    project = model.straight[[found.which[k]]].project[0]
    index = np.array(kernels.rays_near(x, y, o.depth_nm, o.tilt, project, found.places[k], RADIUS_NM), np.int64).reshape(-1, 3)
    i, j, m = index.T
    pixel, of = np.unique(i * len(y) + j, return_inverse=True)
    rays = np.stack([x[i] + o.depth_nm[m] * o.tilt, y[j], o.depth_nm[m]], -1)
    return _Near(pixel // len(y), pixel % len(y), of, rays, o.weight_nm[m])


@dataclass(frozen=True)
class _Smooth:
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
    def of(cls, model: ImageModel, counts: Array, usable: Array, found: Fit, k: int, near: _Near) -> _Smooth:
        """Pixels without near rays to second order about the maximum; in the others the rays that are not near to first."""
        own = slice(2 * k, 2 * k + 2)
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


def _positive(information: Array, instead: Array) -> Array:
    """The information, or the one at the maximum where the blocks together are not positive definite."""
    scale = np.sqrt(np.diag(information))
    return information if np.linalg.eigvalsh(information / scale[:, None] / scale[None]).min() > 1e-9 else instead
