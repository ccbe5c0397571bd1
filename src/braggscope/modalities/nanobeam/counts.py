"""Counts that a calibration fits, and what a detector or a program has done to them.

A threshold (smaller counts reported as 0) and a clipping (larger counts reported as the largest) are read off the histogram of
all frames; such reports are then censored: they say "below" or "that or more".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from braggscope.core.errors import InputError
from braggscope.core.source import Source

LARGEST_CLIP = 64  # reports at saturation above this are rare in photon counting and are left to the mask of the scan
LEAST = 20  # reports of one value before a threshold or a clipping is believed


@dataclass(frozen=True)
class Counts:
    """The frames that are fitted and what their values mean.

    frames: Counts, shape (frame, row, column), float32.
    use: 1 where a count may be used, else 0; same shape, or None for all.
    threshold: Smaller counts are reported as 0; at most 1 for none.
    saturation: Reports of this mean "that or more"; infinite for none.
    """

    frames: Tensor
    use: Tensor | None
    threshold: int
    saturation: float

    def take(self, which: np.ndarray | slice) -> Counts:
        """Some of the frames."""
        index = torch.as_tensor(which) if isinstance(which, np.ndarray) else which
        return replace(self, frames=self.frames[index], use=None if self.use is None else self.use[index])

    def score(self, expected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-2 log likelihood up to a constant, its slope d log p / d expected, and the Fisher information; per count.

        Reports below the threshold and at saturation are censored, not left out: to leave the bright ones out would bias.
        """
        n, mu = self.frames, expected
        value, slope, information = 2 * (mu - torch.xlogy(n, mu)), n / mu - 1, 1 / mu
        if self.threshold > 1:
            below = torch.special.gammaincc(torch.full_like(mu, self.threshold), mu).clamp(min=1e-30)
            last = _poisson(self.threshold - 1, mu)
            value = torch.where(n < self.threshold, -2 * torch.log(below), value)
            slope = torch.where(n < self.threshold, -last / below, slope)
            lost = sum((_poisson(j, mu) * (j / mu - 1) ** 2 for j in range(self.threshold)), torch.zeros_like(mu))
            information = information - lost + last**2 / below
        if math.isfinite(self.saturation):
            top = math.ceil(self.saturation)
            above = torch.special.gammainc(torch.full_like(mu, top), mu).clamp(min=1e-30)
            last = _poisson(top - 1, mu)
            value = torch.where(n >= top, -2 * torch.log(above), value)
            slope = torch.where(n >= top, last / above, slope)
            kept = sum((_poisson(j, mu) * (j / mu - 1) ** 2 for j in range(top)), torch.zeros_like(mu))
            information = (information - 1 / mu + kept + last**2 / above).clamp(min=0)
        if self.use is not None:
            value, slope, information = value * self.use, slope * self.use, information * self.use
        return value, slope, information


def _poisson(count: int, mu: Tensor) -> Tensor:
    """Probability of a count."""
    return torch.exp(count * torch.log(mu) - mu - math.lgamma(count + 1))


def read_counts(scan: Source, most: int, fewest: int) -> tuple[Counts, int]:
    """Frames spread evenly over a scan, without those that are too dark, and how many were left out for that.

    most: Frames to read.
    fewest: Counts that a frame needs.
    Raises InputError where no frame has them.
    """
    points = math.prod(scan.shape)
    only = np.zeros(points, bool)
    only[np.unique(np.linspace(0, points - 1, min(most, points)).round().astype(int))] = True
    frames, masks = [], []
    for batch in scan.batches(only=only):
        mask = np.ones(batch.frames.shape, bool) if batch.mask is None else batch.mask
        frames.append(np.where(mask, batch.frames, 0).astype(np.float32))
        masks.append(mask)
    stack = np.concatenate(frames) if frames else np.zeros((0, *scan.frame_shape), np.float32)
    mask = np.concatenate(masks) if masks else np.zeros(stack.shape, bool)
    total = stack.sum((1, 2), dtype=np.float64)
    bright = total >= fewest
    if not bright.any():
        raise InputError(
            f"calibrate needs frames with a ring of at least {fewest} counts, got {total.max(initial=0):.0f} in the brightest of "
            f"{len(stack)} frames; a longer exposure or binning would do"
        )
    kept, used = stack[bright], mask[bright]
    threshold, saturation = limits(kept[used])
    use = None if used.all() else torch.as_tensor(used.astype(np.float32))
    return Counts(torch.as_tensor(kept), use, threshold, saturation), int((~bright).sum())


def limits(values: np.ndarray) -> tuple[int, float]:
    """Threshold and saturation that a set of reports shows: 0 and infinity where there are none.

    Photon counts of any mixture of brightnesses obey p(n)^2 <= (n + 1) / n p(n - 1) p(n + 1), because n! p(n) is log-convex
    (Cauchy-Schwarz). Where the counts below n are missing against this, there was a threshold. And the largest value is rare
    where nothing was clipped.

    values: Reports, any shape; not whole numbers have no such limits.

    >>> limits(np.repeat([0, 2, 3, 4], [900, 90, 80, 70]))
    (2, 4)
    """
    small = values[values <= LARGEST_CLIP]
    whole = small.astype(np.int64)
    if not (small == whole).all() or not len(small):
        return 0, math.inf
    seen = np.bincount(whole, minlength=3)
    first = int(np.flatnonzero(seen[1:])[0]) + 1 if seen[1:].any() else 1
    threshold = 0
    if first > 1 and first + 1 < len(seen):
        missing = seen[first] ** 2 / max(seen[first + 1], 1) * first / (first + 1)
        threshold = first if missing >= LEAST and seen[first + 1] > 0 else 0
    top = len(seen) - 1
    clipped = len(small) == values.size and top > max(first, 1) and seen[top] >= LEAST and 2 * seen[top] >= seen[top - 1] > 0
    return threshold, top if clipped else math.inf
