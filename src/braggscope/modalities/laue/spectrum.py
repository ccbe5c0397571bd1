"""What the beam brings and the sample takes: spectrum, polarisation and absorption.

Laboratory frame of `geometry`. The beam is polarised horizontally, in the plane of the ring: along y, but for the roll.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.physics.crystals import Crystal

from .frames import about_beam, surface_axes
from .geometry import LaueGeometry

GRAM_PER_UNIT = 1.66053906660e-24
"""Mass of the atomic mass unit, g (CODATA 2018)."""
UM_PER_CM, ANGSTROM_PER_CM = 1e4, 1e8


def spectrum(geometry: LaueGeometry) -> Callable[[np.ndarray], np.ndarray]:
    """S_E, photons per unit energy of the beam as a function of the energy in keV, in any constant unit.

    That of the geometry's file if it names one (two columns: keV, photons per unit energy), else that of its critical energy,
    else flat.
    """
    if geometry.spectrum_file is not None:
        return _from_file(geometry.spectrum_file)
    critical = geometry.critical_energy_kev
    if critical is not None:
        return lambda energy_kev: synchrotron(np.asarray(energy_kev) / critical)
    return lambda energy_kev: np.ones(np.shape(energy_kev))


def synchrotron(ratio: np.ndarray) -> np.ndarray:
    """Photons per unit energy of a bending magnet or wiggler, the integral of K_5/3 from y to infinity; shape of y.

    Over all vertical angles (Schwinger 1949, Phys. Rev. 75, 1912, eq. II.16); per 0.1 % of bandwidth it is y times this.

    ratio: y, energy over critical energy, positive.
    """
    y, value = _synchrotron_table()
    return np.asarray(np.exp(np.interp(np.log(ratio), np.log(y), np.log(value))))


@cache
def _synchrotron_table() -> tuple[np.ndarray, np.ndarray]:
    """y from 1e-4 to 120 and the integral, by the midpoint rule in log y."""
    from scipy.special import kv

    y = np.geomspace(1e-4, 120.0, 10001)
    middle = np.sqrt(y[1:] * y[:-1])
    steps = kv(5 / 3, middle) * middle * np.diff(np.log(y))
    return y[:-1], np.cumsum(steps[::-1])[::-1]


def _from_file(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """Linear between the points of a table. Raises InputError where it is no table of rising energies."""
    try:
        energy, photons = np.loadtxt(Path(path), unpack=True, usecols=(0, 1), delimiter=None)
    except (OSError, ValueError) as error:
        raise InputError(
            f"spectrum_file {path} cannot be read as two columns, keV and photons per unit energy ({error})"
        ) from None
    if np.ndim(energy) == 0 or not (np.diff(energy) > 0).all() or (photons < 0).any():
        raise InputError(f"spectrum_file {path} must have rising energies (keV) and photons that are not negative")
    return lambda energy_kev: np.interp(energy_kev, energy, photons, left=0.0, right=0.0)


def polarisation(ray: Any, field: Any) -> Any:
    """P = 1 - (e.u)^2 of rays whose unit vectors are u, shape (..., 3) -> (...): 1 - sin^2(2 theta) sin^2(chi) for e along y.

    The part of the field's square that lies across the ray (Als-Nielsen & McMorrow 2011, eq. 1.9).

    field: Unit vector e of the electric field, shape (3,), as of `electric_field`.
    """
    return 1 - (ray * field).sum(-1) ** 2


def electric_field(geometry: LaueGeometry) -> np.ndarray:
    """Unit vector of the beam's polarisation, horizontal, in the laboratory that the geometry has turned about the beam."""
    return about_beam(geometry.roll_deg) @ np.array([0.0, 1.0, 0.0])


def absorption_coefficient(crystal: Crystal, energy_kev: np.ndarray) -> np.ndarray:
    """Linear absorption coefficient mu, 1/um: the sum of the atoms' total cross-sections over the volume of the cell.

    Cross-sections: Elam, Ravel & Sieber 2002, Radiat. Phys. Chem. 63, 121, from xraydb.
    """
    import xraydb

    ev = 1e3 * np.asarray(energy_kev, float)
    area = np.zeros(ev.shape)  # cm^2 of all atoms in a cell
    for element, occupancy, _, places in crystal.atoms:
        mass = xraydb.atomic_mass(element) * GRAM_PER_UNIT
        area += occupancy * len(places) * mass * np.asarray(xraydb.mu_elam(element, ev.ravel())).reshape(ev.shape)
    return area / cell_volume(crystal) * ANGSTROM_PER_CM**3 / UM_PER_CM


def cell_volume(crystal: Crystal) -> float:
    """Volume of the unit cell, angstrom^3."""
    return float(1 / np.linalg.det(crystal.b_matrix))


def surface_normal(geometry: LaueGeometry) -> np.ndarray:
    """Unit normal of the sample's surface in the laboratory; the surface is tilted about y and faces up, before the roll."""
    return surface_axes(geometry)[2]
