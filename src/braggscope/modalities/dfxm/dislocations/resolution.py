"""The resolution function of a dark-field microscope in closed form: how bright the lattice is by its deviation q_s.

A ray with the vertical divergence z, the horizontal z' and the relative energy e, leaving within the objective's aperture at d
(in the scattering plane) and x (across it), is diffracted by a lattice whose vector deviates by (Poulsen et al. 2017, J. Appl.
Cryst. 50, 1441; in parts of |q|, along the rocking direction, along the rolling direction and along q itself)

    q_rock = -(z + d) / 2    q_roll = (x - z') / (2 sin theta)    q_par = e + cot(theta) (d - z) / 2

z is a box of full width w, e and z' are Gaussians, d and x are boxes of the full width of the aperture (a square one). Only z is
left to integrate over, between the limits of both boxes:

    p(q_rock, q_par) ~ integral over z of N(q_par + cot(theta) (z + q_rock); s_e),   |z| < w/2,  |z + 2 q_rock| < D/2

The combination q_1 = cos(theta) q_rock + sin(theta) q_par = -cos(theta) z + sin(theta) e does not contain the aperture: where
that is wide, the image depends on q_1 alone, as a box convolved with a Gaussian (`closed`).

Left out: the shape of a round or lens-like aperture, extinction, and correlations of angle and energy of the beam.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .optics import Optics, optics_of
from .setting import Setting

NARROWEST = 1e-12  # rad: a horizontal divergence of 0 is taken as this


def fixed_optics(setting: Setting) -> Optics:
    """The optics of a setting at its peak, kept for the next call: beam, pixels and resolution do not depend on the angles."""
    return _optics_at_peak(setting.replace(phi_deg=0.0, chi_deg=0.0, two_theta_offset_deg=0.0))


@functools.lru_cache(maxsize=64)
def _optics_at_peak(setting: Setting) -> Optics:
    return optics_of(setting)


def closed(q_1: Tensor, half_width: float, sigma: float, reach: float = math.inf) -> Tensor:
    """p(q_1), a box of this half-width convolved with a Gaussian, 1 in the middle of a wide box; shape and dtype as q_1.

    half_width: cos(theta) w / 2.  sigma: sin(theta) s_e.
    reach: Standard deviations from the edge of the box beyond which p is taken as 0 or 1; the compiled images have kernels.REACH.

    >>> closed(torch.tensor([0.0, 1.0, 3.0]), 1.0, 0.1).tolist()
    [1.0, 0.5, 0.0]
    """
    p = between((-half_width - q_1) / sigma, (half_width - q_1) / sigma)
    apart = q_1.abs()
    p = torch.where(apart >= half_width + reach * sigma, torch.zeros_like(p), p)
    return torch.where(apart <= half_width - reach * sigma, torch.ones_like(p), p)


def between(low: Tensor, high: Tensor) -> Tensor:
    """Probability of a standard normal variable between two limits, to full relative precision in both tails."""
    flip = low + high > 0  # so that the tail that is subtracted from 1 is never the small one
    one, other = torch.where(flip, -high, low), torch.where(flip, -low, high)
    return torch.special.ndtr(other) - torch.special.ndtr(one)


@dataclass(frozen=True)
class Resolution:
    """The instrument of the closed form in three dimensions.

    theta: Bragg angle, rad.  divergence: Full width w of z, rad.  horizontal: Standard deviation of z', rad.
    bandwidth: Standard deviation s_e of e.  aperture: Full width D of d and x, rad.
    """

    theta: float
    divergence: float
    horizontal: float
    bandwidth: float
    aperture: float

    @classmethod
    def of(cls, setting: Setting) -> Resolution:
        """That of a setting."""
        theta = math.radians(setting.two_theta_deg) / 2
        return cls(
            theta,
            math.radians(setting.divergence_deg),
            max(setting.horizontal_divergence, NARROWEST),
            fixed_optics(setting).sigma / math.sin(theta),
            setting.aperture_rad,
        )

    def density(self, q: Tensor) -> Tensor:
        """Brightness at the deviation q = (q_rock, q_roll, q_par), its largest value (at 0) being 1; (..., 3) -> (...,)."""
        rock, roll, parallel = q.unbind(-1)
        return self.in_plane(rock, parallel) * self.across(roll)

    def in_plane(self, rock: Tensor, parallel: Tensor) -> Tensor:
        """The part of the scattering plane: the Gaussian of the energy over the divergence that the aperture lets through."""
        w, aperture, cot = self.divergence / 2, self.aperture / 2, 1 / math.tan(self.theta)
        low, high = (-aperture - 2 * rock).clamp(min=-w), (aperture - 2 * rock).clamp(max=w)
        middle = parallel + cot * rock
        p = between((middle + cot * low) / self.bandwidth, (middle + cot * high) / self.bandwidth)
        largest = math.erf(cot * min(w, aperture) / (math.sqrt(2) * self.bandwidth))
        return torch.where(low < high, p, torch.zeros_like(p)) / largest

    def across(self, roll: Tensor) -> Tensor:
        """The part of the rolling direction: the aperture convolved with the horizontal divergence."""
        at, half = 2 * math.sin(self.theta) * roll / self.horizontal, self.aperture / 2 / self.horizontal
        return between(at - half, at + half) / math.erf(half / math.sqrt(2))

    def strain_to_rock(self) -> float:
        """How far a small strain moves the middle of a rocking curve, -d<q_rock> / d q_par; tan(theta) with a wide aperture.

        The mean over q_rock of the part of the scattering plane, at two strains of a tenth of the bandwidth either side of 0.
        """
        reach = self.divergence + self.aperture + 5 * math.tan(self.theta) * self.bandwidth
        rock = torch.linspace(-reach, reach, 20001, dtype=torch.float64)
        strain = 0.1 * self.bandwidth * torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        p = self.in_plane(rock, strain)
        low, high = ((p * rock).sum(-1) / p.sum(-1)).tolist()
        return (low - high) / (0.2 * self.bandwidth)

    def rays(self, count: int, generator: torch.Generator) -> Tensor:
        """Deviations that random rays select, shape (ray, 3): the same resolution function by sampling."""
        z, d, x = (torch.rand(3, count, generator=generator, dtype=torch.float64) - 0.5) * torch.tensor(
            [[self.divergence], [self.aperture], [self.aperture]], dtype=torch.float64
        )
        e, across = torch.randn(2, count, generator=generator, dtype=torch.float64)
        rock, roll = -(z + d) / 2, (x - self.horizontal * across) / (2 * math.sin(self.theta))
        return torch.stack([rock, roll, self.bandwidth * e + (d - z) / (2 * math.tan(self.theta))], -1)
