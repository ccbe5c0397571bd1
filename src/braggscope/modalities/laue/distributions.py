"""Distributions of whole numbers n >= 1, fitted to how often each is there: Gaussian, log-normal, Poisson.

The continuous ones give n the probability between n - 1/2 and n + 1/2; every one is taken given n >= 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln, ndtr

MODELS = ("Gaussian", "log-normal", "Poisson")
TAIL = 1e-300


@dataclass(frozen=True)
class Fit:
    """A distribution and how well it does.

    parameters: Mean and standard deviation of n, or, log-normal, of log n.  log_likelihood: Of the counts.
    """

    model: str
    parameters: tuple[float, float]
    log_likelihood: float

    @property
    def aic(self) -> float:
        """Akaike's criterion, 2 k - 2 log L with k free parameters."""
        return 2 * (1 if self.model == "Poisson" else 2) - 2 * self.log_likelihood

    def distance(self, counts: np.ndarray) -> float:
        """Kolmogorov-Smirnov distance of the counts, shape (n,), from the distribution."""
        seen = np.cumsum(counts) / counts.sum()
        return float(np.abs(seen - np.cumsum(probability(self.model, self.parameters, len(counts)))).max())


def probability(model: str, parameters: tuple[float, float], size: int) -> np.ndarray:
    """Probability of n = 0 ... size - 1 given n >= 1 (0 at n = 0), shape (size,)."""
    n = np.arange(size)
    location, width = parameters
    if model == "Poisson":
        found = np.exp(n * math.log(location) - location - gammaln(n + 1.0)) / -math.expm1(-location)
    else:
        edges = np.arange(size + 1) - 0.5
        edges[0] = 0.5
        place = (np.log(edges) if model == "log-normal" else edges) - location
        found = np.diff(ndtr(place / width)) / max(ndtr(-place[1] / width), TAIL)
    found[0] = 0
    return np.asarray(found)


def fitted(model: str, counts: np.ndarray) -> Fit:
    """The distribution of the largest likelihood.

    counts: How often n = 0, 1 ... is there, shape (n,); none of n = 0.
    """
    n, weight = np.flatnonzero(counts), counts[np.flatnonzero(counts)]
    size = len(counts)

    def loss(p: np.ndarray) -> float:
        found = probability(model, _parameters(model, p), size)[n]
        return float(-(weight * np.log(np.maximum(found, TAIL))).sum())

    value = np.log(n) if model == "log-normal" else n
    mean = float((weight * value).sum() / weight.sum())
    spread = math.sqrt(max(float((weight * (value - mean) ** 2).sum() / weight.sum()), 0.05))
    start = [math.log(mean)] if model == "Poisson" else [mean, math.log(spread)]
    best = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-5, "maxiter": 400})
    return Fit(model, _parameters(model, best.x), -float(best.fun))


def p_value(fit: Fit, counts: np.ndarray, draws: int, random: np.random.Generator) -> float:
    """Part of samples of the fit that are, fitted themselves, as far from their fit as the counts are from theirs."""
    longest = 4 * len(counts) + 20
    chance = probability(fit.model, fit.parameters, longest)
    chance /= chance.sum()
    far = fit.distance(counts)
    farther = 0
    for drawn in random.multinomial(int(counts.sum()), chance, draws):
        drawn = drawn[: int(np.flatnonzero(drawn)[-1]) + 1]
        farther += fitted(fit.model, drawn).distance(drawn) >= far
    return (farther + 1) / (draws + 1)


def _parameters(model: str, p: np.ndarray) -> tuple[float, float]:
    """Of the numbers that are varied: the mean of Poisson and widths as logarithms."""
    if model == "Poisson":
        mean = math.exp(min(p[0], 50.0))
        return mean, math.sqrt(mean)
    return float(p[0]), math.exp(min(max(p[1], -7.0), 20.0))
