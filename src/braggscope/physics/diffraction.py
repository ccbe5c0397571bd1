"""Wavelengths, Bragg angles and the fringe of a thin film.

Angles are radians, lengths angstrom, wave vectors 1/angstrom. Every function takes tensors (or plain numbers) of any shape
that broadcast, and keeps device and dtype. The photon energy enters in keV because that is what beamlines state.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value", float, "Tensor")

HC_KEV_ANGSTROM = 12.398419843  # h c, from the exact SI values of h, c and e (CODATA 2018)


def wavelength(energy_kev: Value) -> Value:
    """Wavelength of a photon, lambda = h c / E, in angstrom.

    energy_kev: Photon energy in keV, shape (...,); must be positive.

    >>> round(wavelength(11.3), 6)
    1.097205
    """
    return HC_KEV_ANGSTROM / energy_kev


def wavevector(energy_kev: Value) -> Value:
    """Length of the wave vector of a photon, k = 2 pi E / h c, in 1/angstrom.

    energy_kev: Photon energy in keV, shape (...,).

    >>> round(wavevector(11.3), 6)
    5.726536
    """
    return energy_kev * (2 * math.pi / HC_KEV_ANGSTROM)


def bragg_sine(energy_kev: Value, lattice: Value, order: int) -> Value:
    """Sine of the Bragg angle of the 00l reflection, lambda l / 2c (W. L. Bragg 1913); above 1 there is no reflection.

    energy_kev: Photon energy in keV, shape (...,).
    lattice: Out-of-plane lattice parameter c in angstrom, shape (...,).
    order: The index l.

    >>> round(bragg_sine(11.3, 4.013, 2), 6)
    0.273413
    """
    return wavelength(energy_kev) * (order / 2) / lattice


def bragg_angle(energy_kev: Value, lattice: Value, order: int) -> Value:
    """Bragg angle of the 00l reflection in radians, asin(lambda l / 2c); arguments as in `bragg_sine`.

    >>> round(math.degrees(bragg_angle(11.3, 4.013, 2)), 4)
    15.8674
    """
    sine = bragg_sine(energy_kev, lattice, order)
    return math.asin(sine) if isinstance(sine, float) else sine.asin()


def reciprocal_length(lattice: Value, order: int, strain: Value) -> Value:
    """Length of the reciprocal lattice vector of a strained lattice, G = 2 pi l / (c (1 + strain)), in 1/angstrom.

    lattice: Lattice parameter c without strain, angstrom, shape (...,).
    order: The index l.
    strain: Relative change of c, shape (...,).

    >>> round(reciprocal_length(4.013, 2, 0.001), 6)
    3.128287
    """
    return 2 * math.pi * order / (lattice * (1 + strain))


def film_fringe(phase: Tensor) -> Tensor:
    """Intensity of a film of N planes off the Bragg condition, sinc^2, 1 at its maximum.

    g(z) = 2 (1 - cos z) / z^2 = sinc^2(z / 2 pi) with z = t q_z: the kinematic sum over a film of thickness t (Warren 1969,
    X-ray Diffraction, ch. 3, for many planes).

    phase: z = thickness times the deviation of q_z from the reciprocal lattice vector, radians, shape (...,).

    >>> import torch
    >>> film_fringe(torch.tensor([0.0, 3.141592653589793], dtype=torch.float64))
    tensor([1.0000, 0.4053], dtype=torch.float64)
    """
    return (phase / (2 * math.pi)).sinc() ** 2


def film_fringe_slope(phase: Tensor) -> Tensor:
    """Derivative of `film_fringe` by its phase, g'(z) = 2 [z sin z - 2 (1 - cos z)] / z^3; a series near 0.

    >>> import torch
    >>> film_fringe_slope(torch.tensor([0.0, 3.141592653589793], dtype=torch.float64))
    tensor([-0.0000, -0.2580], dtype=torch.float64)
    """
    near = phase.abs() < 0.1  # where the difference of cosines has lost digits; the series is exact there to 1e-10
    far = phase.where(~near, phase.new_ones(()))
    exact = 2 * (far * far.sin() - 4 * (far / 2).sin() ** 2) / far**3
    square = phase * phase
    series = -phase * (1 / 6 - square * (1 / 90 - square * (1 / 3360 - square / 226800)))
    return series.where(near, exact)
