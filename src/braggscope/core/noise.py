"""Noise: how counts scatter around what is expected.

A detector reports  offset + gain * Poisson(expected) + normal(0, readout), zero below its threshold, at most its saturation.
With gain 1, no offset and no read-out noise the distribution is exactly Poisson, censored at both ends; otherwise the normal
approximation with variance gain^2 expected + readout^2 is used for the likelihood (good above about ten photons).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """Counting noise seen through a detector.

    gain: Detector units per photon.
    offset: Detector units without a photon (the pedestal).
    readout: Standard deviation of the read-out noise, detector units.
    threshold: Reports below it become 0 (a discriminator, or a threshold applied afterwards).
    saturation: Largest report.
    """

    gain: float = 1.0
    offset: float = 0.0
    readout: float = 0.0
    threshold: float = 0.0
    saturation: float = math.inf

    @property
    def counting(self) -> bool:
        """Whether reports are whole photons."""
        return self.gain == 1 and self.offset == 0 and self.readout == 0

    def sample(self, expected: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Reports drawn for expected photons, same shape and dtype."""
        value = torch.poisson(expected, generator)
        if not self.counting:
            normal = torch.randn(expected.shape, generator=generator, dtype=expected.dtype, device=expected.device)
            value = torch.round(self.offset + self.gain * value + self.readout * normal).clamp(min=0)
        value = torch.where(value < self.threshold, torch.zeros_like(value), value)
        return value.clamp(max=self.saturation)

    def mean(self, expected: Tensor) -> Tensor:
        """Mean report before threshold and saturation."""
        return self.offset + self.gain * expected

    def variance(self, expected: Tensor) -> Tensor:
        """Variance of a report before threshold and saturation."""
        return self.gain**2 * expected + self.readout**2

    def log_prob(self, counts: Tensor, expected: Tensor) -> Tensor:
        """Log probability of each report, differentiable in `expected`; shapes broadcast.

        A report of 0 under a threshold means "below the threshold"; one at saturation means "that or more".
        """
        if self.counting:
            point = torch.xlogy(counts, expected) - expected - torch.lgamma(counts + 1)
            if self.threshold > 1:  # P(N < threshold) = Q(ceil(threshold), expected)
                edge = torch.full_like(expected, math.ceil(self.threshold))
                point = torch.where(counts < self.threshold, _LogBelow.apply(edge, expected), point)
            if math.isfinite(self.saturation):
                edge = torch.full_like(expected, math.ceil(self.saturation))
                point = torch.where(counts >= self.saturation, _LogAbove.apply(edge, expected), point)
            return point
        spread = self.variance(expected).clamp(min=1 / 12).sqrt()  # 1/12: reports are rounded to whole units
        standard = (counts - self.mean(expected)) / spread
        point = -0.5 * standard**2 - torch.log(spread) - 0.5 * math.log(2 * math.pi)
        if self.threshold > 0:
            point = torch.where(
                counts < self.threshold, torch.special.log_ndtr((self.threshold - 0.5 - self.mean(expected)) / spread), point
            )
        if math.isfinite(self.saturation):
            point = torch.where(
                counts >= self.saturation, torch.special.log_ndtr((self.mean(expected) - self.saturation + 0.5) / spread), point
            )
        return point


def _log_poisson(count: Tensor, expected: Tensor) -> Tensor:
    return torch.xlogy(count, expected) - expected - torch.lgamma(count + 1)


class _LogBelow(torch.autograd.Function):
    """log P(N < edge) for N ~ Poisson(expected); d/d expected = -p(edge - 1) / P (torch lacks the gradient)."""

    @staticmethod
    def forward(ctx, edge: Tensor, expected: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        value = torch.log(torch.special.gammaincc(edge, expected))
        ctx.save_for_backward(edge, expected, value)
        return value

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        edge, expected, value = ctx.saved_tensors
        return None, -grad * torch.exp(_log_poisson(edge - 1, expected) - value)


class _LogAbove(torch.autograd.Function):
    """log P(N >= edge) for N ~ Poisson(expected); d/d expected = p(edge - 1) / P."""

    @staticmethod
    def forward(ctx, edge: Tensor, expected: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        value = torch.log(torch.special.gammainc(edge, expected))
        ctx.save_for_backward(edge, expected, value)
        return value

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        edge, expected, value = ctx.saved_tensors
        return None, grad * torch.exp(_log_poisson(edge - 1, expected) - value)


def poisson_deviance(counts: Tensor, expected: Tensor) -> Tensor:
    """Deviance of each count, 2 [n log(n / mu) - (n - mu)] (McCullagh & Nelder 1989, sec. 2.3); shapes broadcast."""
    return 2 * (torch.xlogy(counts, counts / expected) - counts + expected)


def deviance_moments(expected: Tensor, largest: int = 200) -> tuple[Tensor, Tensor]:
    """Mean and variance of the Poisson deviance of one count at this expectation, shapes as `expected`.

    Summed over the distribution up to an expectation of 50; above, the expansion 1 + 1/(6 mu), 2 + 2/(3 mu) (the relative
    error there is below 1e-3).
    """
    mu = expected.clamp(min=1e-12).unsqueeze(-1).clamp(max=50.0)
    n = torch.arange(largest, dtype=expected.dtype, device=expected.device)
    weight = torch.exp(_log_poisson(n, mu))
    value = poisson_deviance(n, mu)
    mean = (weight * value).sum(-1)
    variance = (weight * value**2).sum(-1) - mean**2
    large = expected > 50
    mean = torch.where(large, 1 + 1 / (6 * expected.clamp(min=1)), mean)
    return mean, torch.where(large, 2 + 2 / (3 * expected.clamp(min=1)), variance)
