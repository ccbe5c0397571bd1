"""Frames drawn at random from the forward model, as many as a training asks for: other ones every epoch, none kept.

Strain and tilts are uniform over their ranges and a little beyond, the peak is log-uniform between two doses, the background
a share of it. An epoch's frames are decided by the seed and the epoch alone.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from braggscope.infer.runtime import in_threads

from . import compiled, differentiable
from .compiled import IN_RADIANS, Tables

BEYOND = 1.06  # of each range: an estimator is worst at the edge of what it has seen
BACKGROUND_SHARE = (1e-3, 0.1)  # of the peak
DRAWN_AT_ONCE = 256  # frames of one random stream
NORMAL_FROM = 60.0  # mean above which numba's own Poisson generator is used


@dataclass(frozen=True)
class Frames:
    """Some frames and what is known about them.

    counts: As compiled.transposed gives them, float32, shape (frame, column, row); below zero: not used.
    parameters: What the frames show, as in kernels.py, shape (frame, 6).
    deviance: Of the counts at these parameters with scale and background at their best, shape (frame,).
    """

    counts: np.ndarray
    parameters: np.ndarray
    deviance: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, which: np.ndarray | slice) -> Frames:
        """Some of them."""
        return Frames(self.counts[which], self.parameters[which], self.deviance[which])

    def images(self) -> np.ndarray:
        """The counts as a network takes them, float32, shape (frame, row, column); unused ones are 0."""
        return np.maximum(self.counts, 0).transpose(0, 2, 1)


@dataclass(frozen=True)
class Population:
    """What frames are drawn.

    units: Half the range of strain, omega and chi (degrees).
    peak: Lowest and highest expected counts at full illumination on the fringe maximum.
    thickness: Of the film, angstrom.
    """

    made: Tables
    frame_shape: tuple[int, int]
    units: tuple[float, float, float]
    peak: tuple[float, float]
    thickness: float

    def draw(self, count: int, *seed: int) -> Frames:
        """This many frames; the same for the same seed."""
        generator = np.random.default_rng(seed)
        parameters = np.empty((count, 6))
        parameters[:, :3] = generator.uniform(-BEYOND, BEYOND, (count, 3)) * self.units * IN_RADIANS
        parameters[:, 3] = generator.uniform(math.log(self.peak[0]), math.log(self.peak[1]), count)
        share = generator.uniform(math.log(BACKGROUND_SHARE[0]), math.log(BACKGROUND_SHARE[1]), count)
        parameters[:, 4] = parameters[:, 3] + share
        parameters[:, 5] = math.log(self.thickness)
        mean = compiled.expected(self.made, self.frame_shape, parameters)
        counts = compiled.transposed(poisson(mean, int(generator.integers(2**31))), None)
        if self.made.threshold >= 2:
            counts[counts < self.made.threshold] = 0
        if self.made.saturation > 0:
            counts = np.minimum(counts, self.made.saturation)
        deviance = differentiable.profile(self.made, counts, parameters)[0]
        return Frames(counts, parameters, deviance)


def poisson(mean: np.ndarray, seed: int) -> np.ndarray:
    """Poisson counts at these means, float32, shape (frame, row, column); three times as fast as numpy's at few counts."""
    counts = np.empty(mean.shape, np.float32)

    def some(first: int, last: int) -> None:
        for block in range(first, last):
            part = slice(block * DRAWN_AT_ONCE, (block + 1) * DRAWN_AT_ONCE)
            _poisson(mean[part].reshape(-1), np.random.default_rng((seed, block)), counts[part].reshape(-1))

    in_threads(some, -(-len(mean) // DRAWN_AT_ONCE))
    return counts


@njit(cache=True, nogil=True)
def _poisson(mean, generator, counts):
    """By inversion: the smallest n with P(N <= n) above a uniform number."""
    for i in range(mean.size):
        m = float(mean[i])  # in float32 the probabilities would not add up to 1, and the search would run to its end
        if m > NORMAL_FROM:
            counts[i] = generator.poisson(m)
            continue
        chance = math.exp(-m)
        total, uniform, n = chance, generator.random(), 0
        while uniform > total and n < 300:
            n += 1
            chance *= m / n
            total += chance
        counts[i] = n
