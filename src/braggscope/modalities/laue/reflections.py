"""The reflections of a crystal that a white beam can show: directions, with the harmonics that fall together in each.

All harmonics n h of coprime h leave along one direction, at n times the energy of h; a spot is there where one of them is allowed
and lies in the band.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braggscope.core.errors import InputError
from braggscope.physics.crystals import Crystal, crystal_of
from braggscope.physics.structure_factors import structure_factors

from .detector import HC
from .geometry import LaueGeometry

WEAK = 1e-4
"""|F|^2 below this part of the largest counts as absent."""


@dataclass(frozen=True, eq=False)
class Reflections:
    """Directions of a crystal's reflections, brightest lattice planes first.

    hkl: Coprime indices, shape (direction, 3).
    q: B hkl in the crystal frame, 1/angstrom, shape (direction, 3).
    strength: |F|^2 d^2 of each order n = 1, 2 ..., at the middle of the band, electron^2 angstrom^2; 0 where absent, shape
        (direction, order).
    """

    crystal: Crystal
    hkl: np.ndarray
    q: np.ndarray
    strength: np.ndarray

    def __len__(self) -> int:
        return len(self.hkl)

    def shown(self, energy_kev: np.ndarray, low: float, high: float) -> np.ndarray:
        """Whether a direction whose coprime reflection diffracts at this energy shows a spot in the band; (..., direction)."""
        order = np.arange(1, self.strength.shape[1] + 1)
        energies = np.asarray(energy_kev)[..., None] * order
        return np.asarray(((energies >= low) & (energies <= high) & (self.strength > 0)).any(-1))


def reflections_of(crystal: Crystal, geometry: LaueGeometry, *, largest_two_theta_deg: float = 180.0) -> Reflections:
    """The directions that the band of this geometry can show up to an angle."""
    low, high = geometry.energy_low_kev, geometry.energy_high_kev
    q_max = 2 * high / HC * np.sin(np.deg2rad(largest_two_theta_deg / 2))
    hkl = _indices(crystal, q_max)
    coprime = np.gcd.reduce(hkl, axis=1) == 1
    hkl = hkl[coprime]
    q = hkl @ crystal.b_matrix.T
    length = np.linalg.norm(q, axis=1)
    orders = np.arange(1, max(1, int(q_max / length.min())) + 1)
    every = (hkl[:, None] * orders[:, None]).reshape(-1, 3)
    inside = (length[:, None] * orders <= q_max).ravel()
    strength = np.zeros(len(every))
    amplitude = structure_factors(crystal, every[inside], np.full(inside.sum(), (low + high) / 2))
    strength[inside] = np.abs(amplitude) ** 2
    strength[strength < WEAK * strength.max()] = 0
    strength = strength.reshape(len(hkl), -1) / (length[:, None] * orders) ** 2
    there = strength.max(1) > 0
    first = np.lexsort((*hkl[there].T, length[there].round(9), -strength[there].max(1).round(6)))
    return Reflections(crystal, hkl[there][first], q[there][first], strength[there][first])


def material(name: str, field: str = "material") -> Crystal:
    """The crystal of this name or CIF file. Raises InputError, naming the field and what would do."""
    try:
        return crystal_of(name)
    except ValueError as error:
        raise InputError(f"{field}: {error}") from None


def _indices(crystal: Crystal, q_max: float) -> np.ndarray:
    """All (h, k, l) but zero with |q| up to q_max."""
    a_inverse = np.linalg.inv(crystal.b_matrix)  # rows a, b, c: |h| <= |a| |q|
    most = np.floor(np.linalg.norm(a_inverse, axis=1) * q_max).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in most), indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(grid @ crystal.b_matrix.T, axis=1)
    return grid[(length <= q_max) & (length > 0)]
