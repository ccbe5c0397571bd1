"""Samples of the posterior of places and levels by an affine-invariant ensemble (emcee: Foreman-Mackey et al. 2013)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from braggscope.core.errors import InputError

from .fit import Fit, loss
from .model import ImageModel

Array = np.ndarray
WALKERS = 20
BURN_IN = 15  # steps of every walker; they start from the summed posterior


@dataclass(frozen=True)
class Samples:
    """Places, nm, shape (sample, dislocation, 2), and the share of proposals that were taken."""

    places: Array
    accepted: float


def sampled(model: ImageModel, counts: Array, usable: Array, found: Fit, number: int, seed: int) -> Samples:
    """At least this many samples of the places, the free levels varied along.

    Raises InputError where the sampler is not installed.
    """
    try:
        import emcee
    except ImportError:
        raise InputError("sampling needs emcee; install braggscope[posterior]") from None
    start, shape = found.mean if found.mean is not None else found.places, found.places.shape
    free = np.array(found.level.free)
    centre = np.concatenate([np.ravel(start), found.level.values[free]])
    walkers = max(WALKERS, 2 * len(centre) + 2)
    rng = np.random.default_rng(seed)
    spread = rng.multivariate_normal(np.zeros(len(centre)), found.covariance, walkers, check_valid="ignore")

    def log_probability(values: Array) -> float:
        places, levels = values[: found.places.size].reshape(shape), found.level.values
        levels[free] = values[found.places.size :]
        amplitude, background, gain, readout2 = levels
        if amplitude <= 0 or gain <= 0 or readout2 < 0 or not model.holds(found.which, places):
            return -np.inf
        level = dataclasses.replace(found.level, amplitude=amplitude, background=background, gain=gain, readout2=readout2)
        return -loss(model, counts, usable, found.which, places, level)

    sampler = emcee.EnsembleSampler(walkers, len(centre), log_probability)
    state = np.random.RandomState(seed).get_state()
    begun = emcee.State(np.where(_possible(centre + 0.5 * spread, found), centre + 0.5 * spread, centre), random_state=state)
    steps = -(-number // walkers)
    sampler.run_mcmc(begun, BURN_IN + steps, skip_initial_state_check=True)
    chain = sampler.get_chain(discard=BURN_IN, flat=True)
    return Samples(chain[:, : found.places.size].reshape(-1, *shape), float(sampler.acceptance_fraction.mean()))


def _possible(values: Array, found: Fit) -> Array:
    """Where starting levels mean something; places always do."""
    good = np.ones_like(values, bool)
    positive = np.array([True, False, True, True])[np.array(found.level.free)]
    good[:, found.places.size :] = (values[:, found.places.size :] > 0) | ~positive
    return good
