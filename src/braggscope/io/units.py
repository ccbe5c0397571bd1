"""Units as files write them, converted to those of geometry files."""

from __future__ import annotations

# In units of the key: keV, m, um. Names as NeXus and common usage write them.
_TO_KEV = {"kev": 1.0, "ev": 1e-3, "mev": 1e3, "j": 1 / 1.602176634e-16}
_TO_M = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "microns": 1e-6, "nm": 1e-9}
_TO_M |= {"angstrom": 1e-10, "angstroms": 1e-10, "å": 1e-10, "meter": 1.0, "metre": 1.0, "micrometer": 1e-6, "millimeter": 1e-3}
KEV_ANGSTROM = 12.398419843  # h c, CODATA 2018
SILICON_111 = 3.135601  # angstrom, lattice spacing at 22.5 deg C (CODATA 2018: 5.431020511 / sqrt 3)


def kev(value: float, unit: str) -> float | None:
    """A photon energy in keV; without a unit, values above 200 are taken as eV. None for an unknown unit.

    >>> kev(11300.0, "eV")
    11.3
    """
    if not unit:
        return value / 1000 if value > 200 else value
    factor = _TO_KEV.get(unit.strip().lower())
    return None if factor is None else value * factor


def metres(value: float, unit: str) -> float | None:
    """A length in m; without a unit it is m, as NeXus has it. None for an unknown unit.

    >>> metres(850.0, "mm")
    0.85
    """
    factor = _TO_M.get(unit.strip().lower() or "m")
    return None if factor is None else value * factor


def pixel_um(value: float, unit: str) -> float | None:
    """A pixel pitch in um. No pixel is larger than 1 cm: a "metre" value above that was written in um (as BLISS does).

    >>> pixel_um(6.5, "m"), pixel_um(0.055, "mm")
    (6.5, 55.0)
    """
    length = metres(value, unit)
    if length is None:
        return None
    return round(length * 1e6, 9) if length < 0.01 else value
