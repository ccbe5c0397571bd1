"""Maximum likelihood of places, amplitude, background and noise in one image, with the covariance of all of them.

    counts = mu + sqrt(V) n(0, 1),    mu = amplitude I(places) + background,    V = gain mu + readout^2

The mean holds the background, as it must; the released code of Brennan et al. leaves it out (`background_in_mean`). Fisher
scoring with the information of a normal distribution whose variance follows its mean,

    sum_pixels  dmu dmu^T / V + dV dV^T / (2 V^2),

which is the Cramer-Rao bound at the same time. With flat priors the estimate is the maximum of the posterior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .model import ImageModel

Array = np.ndarray
STEPS = 60
CONVERGED = 1e-3  # change of the log-likelihood that a further step would make: 0.04 standard deviations
LARGEST_STEP_NM = 400.0
LEAST_VARIANCE = 1e-3  # of the variance of the background


@dataclass(frozen=True)
class Level:
    """Amplitude (counts per nm), background (counts), gain (counts per photon) and read-out variance (counts^2) of an image.

    free: Which of these four are estimated.
    """

    amplitude: float
    background: float
    gain: float
    readout2: float
    free: tuple[bool, bool, bool, bool] = (True, True, False, True)

    @property
    def values(self) -> Array:
        return np.array([self.amplitude, self.background, self.gain, self.readout2])

    @property
    def least_variance(self) -> float:
        """Kept in pixels that hold less than the background."""
        return LEAST_VARIANCE * max(self.gain * abs(self.background) + self.readout2, 1e-12)

    def stepped(self, step: Array) -> Level:
        """Changed by a step of the free ones, kept where they mean something."""
        values = self.values
        values[list(self.free)] += step
        amplitude, background, gain, readout2 = values.tolist()
        return replace(self, amplitude=max(amplitude, self.amplitude / 3), background=background,
                       gain=max(gain, self.gain / 3), readout2=max(readout2, 0.0))  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """Dislocations that explain an image.

    which: Characters, by number in the model's list.
    places: nm, in the frame of each dislocation, shape (dislocation, 2).
    mean: Of the posterior of the places, where it was summed; else the places.
    covariance: Of the places and then of the free levels, in that order.
    evidence: Log of the likelihood integrated over places in the image (nm^2) and free levels, where it was summed.
    loss: Minus the log-likelihood.
    chi2: Sum of squared standard residuals over the number of pixels.
    """

    which: tuple[int, ...]
    places: Array
    level: Level
    covariance: Array
    loss: float
    chi2: float
    converged: bool
    mean: Array | None = None
    evidence: float = -math.inf


def fit(
    model: ImageModel, counts: Array, usable: Array, which: Sequence[int], places: Array, level: Level, steps: int = STEPS
) -> Fit:
    """The nearest maximum of the likelihood, by damped Fisher scoring; no place leaves the field and its margin.

    counts, usable: Shape (x, y).  places: Where to start, nm, (dislocation, 2).
    """
    which, places = tuple(which), np.array(places, float).reshape(-1, 2)
    state = Terms(model, counts, usable, which, places, level)
    damping, converged = 1e-3, False
    for _ in range(steps):
        gradient, information = state.gradient, state.information
        step = _solve(information, gradient, damping)
        gain = float(gradient @ step - step @ information @ step / 2)
        move = step[: places.size].reshape(-1, 2)
        longest = np.abs(move).max(initial=0.0)
        if longest > LARGEST_STEP_NM:
            step *= LARGEST_STEP_NM / longest
            move = step[: places.size].reshape(-1, 2)
        inside = model.holds(which, places + move)
        tried = Terms(model, counts, usable, which, places + move, level.stepped(step[places.size :])) if inside else None
        if tried is not None and tried.loss <= state.loss:
            better = state.loss - tried.loss
            places, level, state, damping = tried.places, tried.level, tried, max(damping / 5, 1e-9)
            if gain < CONVERGED and better < CONVERGED:
                converged = True
                break
        elif gain < CONVERGED:
            converged = True
            break
        else:
            damping = max(damping * 8, 1e-4)
            if damping > 1e6:  # no step however small is better: the top of a ripple
                converged = True
                break
    return Fit(which, places, level, inverse(state.information), state.loss, state.chi2, converged)


def loss(model: ImageModel, counts: Array, usable: Array, which: Sequence[int], places: Array, level: Level) -> float:
    """Minus the log-likelihood at one point, without derivatives."""
    return loss_of(model, counts, usable, model.image(which, places, derivatives=False)[0], level)


def loss_of(model: ImageModel, counts: Array, usable: Array, image: Array, level: Level) -> float:
    """The same of an image that is computed already (depth, nm)."""
    residual, variance = deviation(model, counts, image, level)
    return 0.5 * float((residual**2 / variance + np.log(variance))[usable].sum())


def deviation(model: ImageModel, counts: Array, image: Array, level: Level) -> tuple[Array, Array]:
    """Counts less what is expected of an image (depth, nm), and their variance; shapes broadcast."""
    mean = level.amplitude * image + level.background
    variance = np.maximum(level.gain * mean + level.readout2, level.least_variance)
    return counts - (mean if model.setting.background_in_mean else mean - level.background), variance


def terms(model: ImageModel, counts: Array, usable: Array, found: Fit) -> Terms:
    """Loss, gradient and information at a fit, over these pixels."""
    return Terms(model, counts, usable, found.which, found.places, found.level)


class Terms:
    """Loss, gradient (of minus the loss) and information at one point."""

    def __init__(self, model: ImageModel, counts: Array, usable: Array, which: tuple[int, ...], places: Array, level: Level):
        self.places, self.level = places, level
        image, jacobian = model.image(which, places)
        residual, variance = deviation(model, counts, image, level)
        residual = np.where(usable, residual, 0.0)
        weight = np.where(usable, 1 / variance, 0.0)
        self.chi2 = float((residual**2 * weight).sum() / usable.sum())
        self.loss = 0.5 * float((residual**2 * weight).sum() + np.log(variance[usable]).sum())
        columns = np.concatenate([jacobian, image[None], np.ones((1, *image.shape))]).reshape(-1, image.size)
        dmean, dvariance = _combinations(len(jacobian), level, model.setting.background_in_mean)
        r, w = residual.ravel(), weight.ravel()
        self.gradient = dmean @ (columns @ (r * w)) + dvariance @ (columns @ ((r**2 * w - usable.ravel()) * w / 2))
        by_mean, by_variance = (columns * w) @ columns.T, (columns * (w**2 / 2)) @ columns.T
        self.information = dmean @ by_mean @ dmean.T + dvariance @ by_variance @ dvariance.T


def _combinations(places: int, level: Level, background_in_mean: bool) -> tuple[Array, Array]:
    """Derivatives of mean and variance by the free parameters, of those of the image by the places, the image, and 1.

    Shapes (parameter, column).
    """
    amplitude, background, gain, _ = level.values
    mean, variance = np.zeros((2, places + 4, places + 2))
    mean[:places, :places] = amplitude * np.eye(places)
    variance[:places, :places] = gain * amplitude * np.eye(places)
    mean[places:, places:] = [[1, 0], [0, background_in_mean], [0, 0], [0, 0]]
    variance[places:, places:] = [[gain, 0], [0, gain], [amplitude, background], [0, 1]]
    free = [True] * places + list(level.free)
    return mean[free], variance[free]


def _solve(information: Array, gradient: Array, damping: float) -> Array:
    """A damped step; parameters that nothing depends on stay."""
    diagonal = np.diag(information)
    scale = np.where(diagonal > 0, diagonal, 1.0)
    return np.linalg.lstsq(information + damping * np.diag(scale), gradient, rcond=1e-12)[0]


def inverse(information: Array) -> Array:
    """Covariance; infinite where the image tells nothing."""
    scale = np.sqrt(np.maximum(np.diag(information), 1e-300))
    normal = information / scale[:, None] / scale[None]
    if not np.isfinite(normal).all() or np.linalg.cond(normal) > 1e13:
        return np.full_like(information, math.inf)
    return np.linalg.inv(normal) / scale[:, None] / scale[None]
