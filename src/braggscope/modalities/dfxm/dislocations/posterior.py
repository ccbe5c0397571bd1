"""The posterior of a place as it is, not as its curvature at the maximum says.

The likelihood is rugged on the scale of its own width (`nearby`): its curvature at the maximum is that of one ripple. Here the
posterior of each place is summed over a grid, all others held.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .fit import Fit, inverse, terms
from .model import ImageModel
from .nearby import POINTS, SPREAD, Nearby

Array = np.ndarray
WIDE = 4.5  # half the width of the points in standard deviations
ROUNDS = 5
NARROWER = 0.02  # the least that a round shrinks to, of the one before
ENOUGH = 25  # points that carry the weight
REACH_NM, WIDER = 30.0, 5.0  # the first round's largest standard deviation, and what it may be of that at the maximum


def with_posterior(model: ImageModel, counts: Array, usable: Array, found: Fit) -> Fit:
    """The fit with the mean and covariance of the posterior instead of the maximum and the inverse information."""
    state = terms(model, counts, usable, found)
    places, evidence, scaled = found.places.copy(), -found.loss, np.eye(len(state.information))
    for k in range(len(found.which)):
        places[k], covariance, volume = _summed(model, counts, usable, found, k)
        own = slice(2 * k, 2 * k + 2)
        scaled[own, own] = _scale(state.information[own, own], covariance)
        evidence += volume - 0.5 * np.linalg.slogdet(covariance)[1]
    # with the levels and each other places hang together as at the maximum: correlations are kept
    whole = inverse(scaled @ state.information @ scaled.T)
    # Laplace in the levels and in how the places hang together, a sum in each place
    evidence += 0.5 * np.linalg.slogdet(whole)[1] + 0.5 * (len(whole) - places.size) * math.log(2 * math.pi)
    to_image = model.straight[found.which].to_image()
    evidence += float(np.linalg.slogdet(to_image)[1].sum())
    return dataclasses.replace(found, mean=places, covariance=whole, evidence=float(evidence))


def _summed(model: ImageModel, counts: Array, usable: Array, found: Fit, k: int) -> tuple[Array, Array, float]:
    """Mean and covariance of one place, the others and the levels held, and log of the integral of L / L(fit), in nm^2."""
    smooth = Nearby.of(model, counts, usable, found, k)
    own = slice(2 * k, 2 * k + 2)
    centre, covariance = found.places[k], _at_most(smooth.covariance(), found.covariance[own, own])
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


def _at_most(covariance: Array, at_maximum: Array) -> Array:
    """The covariance, no wider than the reach within which `nearby` is right and a ripple of the maximum allow."""
    ripple = float(np.linalg.eigvalsh(at_maximum).max()) if np.isfinite(at_maximum).all() else 0.0
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.minimum(values, max(REACH_NM**2, WIDER**2 * ripple))) @ vectors.T


def _scale(information: Array, covariance: Array) -> Array:
    """The matrix T with T information T^T = covariance^-1, or 0 where one of them tells nothing."""
    try:
        before, after = np.linalg.cholesky(information), np.linalg.cholesky(np.linalg.inv(covariance))
    except np.linalg.LinAlgError:
        return np.zeros((2, 2))
    return np.asarray(after @ np.linalg.inv(before))
