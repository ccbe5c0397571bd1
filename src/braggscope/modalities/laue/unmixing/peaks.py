"""Peaks of the sums: where each spot is brightest, on the detector and over the scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import correlate1d, maximum_filter
from scipy.spatial import cKDTree

from braggscope.infer.runtime import in_threads

from .lighting import Lights, residual_at, weights_at
from .spots import Images
from .sums import Sums

SAME_PX = 1.5  # px between a peak and that of a neighbouring centre, at most


@dataclass(frozen=True, eq=False)
class Peaks:
    """Peaks over all sums: row, column (px), height, significance, centre (flat); shape (peak,) each."""

    at: np.ndarray
    height: np.ndarray
    significance: np.ndarray
    centre: np.ndarray

    def take(self, which: np.ndarray) -> Peaks:
        return Peaks(self.at[which], self.height[which], self.significance[which], self.centre[which])


def peaks_left(sums: Sums, images: Images, lights: Lights, sigma: float, threshold: float) -> list[Peaks]:
    """The peaks of each sum, without what stands still and the grains known.

    sigma: Of a spot, px.  threshold: Standard deviations of a peak, at least.
    """
    made: list[Peaks] = [Peaks(np.empty((0, 2)), np.empty(0), np.empty(0), np.empty(0, int))] * len(sums.mean)

    def work(first: int, stop: int) -> None:
        for c in range(first, stop):
            if np.isfinite(sums.part[c]):
                rest = residual_at(sums, images, lights, c).reshape(sums.frame_shape)
                weight = weights_at(sums, c).reshape(sums.frame_shape) / np.float32(sums.part[c])
                made[c] = _peaks(rest, weight, sigma, threshold, c)

    in_threads(work, len(made))
    return made


def _peaks(rest: np.ndarray, weight: np.ndarray, sigma: float, threshold: float, centre: int) -> Peaks:
    """Maxima of the amplitude of a Gaussian spot by weighted least squares about each pixel."""
    away = np.arange(-round(4 * sigma), round(4 * sigma) + 1)
    spot = np.exp(-0.5 * (away / sigma) ** 2).astype(np.float32)
    upper = correlate1d(correlate1d(rest * weight, spot, 0, mode="constant"), spot, 1, mode="constant")
    lower = correlate1d(correlate1d(weight, spot**2, 0, mode="constant"), spot**2, 1, mode="constant")
    height = upper / np.maximum(lower, 1e-12)
    sure = upper / np.sqrt(np.maximum(lower, 1e-12))
    top = (maximum_filter(height, 3) == height) & (sure > threshold) & (weight > 0)
    top[[0, -1]] = top[:, [0, -1]] = False
    i, j = np.nonzero(top)
    at = np.stack([i + _vertex(height[i - 1, j], height[i, j], height[i + 1, j]),
                   j + _vertex(height[i, j - 1], height[i, j], height[i, j + 1])], 1)  # fmt: skip
    return Peaks(at, height[i, j].astype(float), sure[i, j].astype(float), np.full(len(i), centre))


def _vertex(before: np.ndarray, here: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where a parabola through three neighbouring values has its maximum, in steps from the middle."""
    bend = before - 2 * here + after
    return np.where(bend < 0, (before - after) / np.where(bend < 0, 2 * bend, 1), 0.0)


def strongest(peaks: list[Peaks], shape: tuple[int, int]) -> Peaks:
    """Peaks that are as high at no neighbouring centre."""
    trees = [cKDTree(one.at) for one in peaks]
    kept = []
    for c, own in enumerate(peaks):
        keep = np.ones(len(own.at), bool)
        for beside in block(c, shape):
            if beside != c and len(peaks[beside].at) and len(own.at):
                off, which = trees[beside].query(own.at, distance_upper_bound=SAME_PX)
                there = np.isfinite(off)
                keep[there] &= own.height[there] >= peaks[beside].height[which[there]]
        kept.append(own.take(keep))
    return Peaks(*(np.concatenate([getattr(one, name) for one in kept]) for name in ("at", "height", "significance", "centre")))


def block(centre: int, shape: tuple[int, int], reach: int = 1) -> np.ndarray:
    """A centre and those around it."""
    i, j = divmod(centre, shape[1])
    rows = np.arange(max(0, i - reach), min(shape[0], i + reach + 1))
    return np.asarray((rows[:, None] * shape[1] + np.arange(max(0, j - reach), min(shape[1], j + reach + 1))).ravel())
