"""The silicon 111 monochromator, whose Bragg angle `ccmth` sets the photon energy."""

from __future__ import annotations

import math

from braggscope.core.errors import InputError
from braggscope.physics.diffraction import HC_KEV_ANGSTROM, bragg_angle, bragg_sine

SILICON_111 = 3.135601  # angstrom, lattice spacing at 22.5 deg C (CODATA 2018: 5.431020511 / sqrt 3); as in io.units


def monochromator_deg(energy_kev: float) -> float:
    """Bragg angle of silicon 111, deg. Raises InputError for waves that are too long for it.

    >>> round(monochromator_deg(17.0), 4)
    6.6784
    """
    if bragg_sine(energy_kev, SILICON_111, 1) >= 1:
        least = HC_KEV_ANGSTROM / (2 * SILICON_111)
        raise InputError(f"a scan of ccmth needs an energy_kev above {least:.2f}, got {energy_kev:g}")
    return math.degrees(bragg_angle(energy_kev, SILICON_111, 1))
