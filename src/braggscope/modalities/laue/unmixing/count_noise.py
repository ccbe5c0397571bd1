"""The noise of the counts of a scan, from its own frames: a straight line of the variance against the mean.

A camera adds a pedestal and read-out noise and multiplies photons by its gain; with the raw counts as variance, errors and
thresholds would be wrong by as much. Level and variance of the background are those of `peaks.background`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..peaks.background import Background, photon_transfer


@dataclass(frozen=True)
class CountNoise:
    """The variance of a count: gain * mean + constant, counts^2, at least `least`."""

    gain: float
    constant: float
    least: float

    @classmethod
    def of(cls, grounds: list[Background]) -> CountNoise:
        """From the backgrounds of some frames; those without a pixel that counts say nothing."""
        grounds = [one for one in grounds if one.dead < 1]
        if not grounds:
            return cls(1.0, 0.0, 1.0)
        level, variance = (np.median(v, axis=0) for v in ([g.level for g in grounds], [g.sigma**2 for g in grounds]))
        gain = photon_transfer(level.ravel(), variance.ravel())
        return cls(gain, float(np.median(variance - gain * level)), float(variance.min()) / 2)

    def variance(self, mean: np.ndarray) -> np.ndarray:
        """Of counts of this mean, in its shape."""
        return np.maximum(np.float32(self.gain) * mean + np.float32(self.constant), np.float32(self.least))
