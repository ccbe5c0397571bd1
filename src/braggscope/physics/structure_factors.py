"""Structure factors of crystals as functions of photon energy, with the anomalous terms of the atoms.

F(h, E) = sum over atoms of occupancy (f0(s) + f'(E) + i f''(E)) exp(-B s^2) exp(2 pi i h.x), s = sin(theta)/lambda = |q|/2, in
electrons (International Tables C, 6.1.1). f0: Waasmaier & Kirfel 1995, Acta Cryst. A 51, 416; f', f'': Chantler 1995, J. Phys.
Chem. Ref. Data 24, 71, both from xraydb. Anisotropic thermal motion and the shape of the atoms are left out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .crystals import Crystal


def structure_factors(crystal: Crystal, hkl: np.ndarray, energy_kev: np.ndarray) -> np.ndarray:
    """F in electrons, complex, shape (reflection, ...).

    hkl: Shape (reflection, 3).  energy_kev: Shape (reflection, ...), or a shape that broadcasts to it.

    >>> from braggscope.physics.crystals import crystal_of
    >>> F = structure_factors(crystal_of("Si"), np.array([[4, 0, 0], [2, 0, 0]]), np.full(2, 100.0))
    >>> np.abs(F).round(0).tolist()
    [56.0, 0.0]
    """
    energy_kev = np.asarray(energy_kev, float)
    total = np.zeros(np.broadcast_shapes((len(hkl), *(1,) * (energy_kev.ndim - 1)), energy_kev.shape), complex)
    for part, f0, anomalous in scattering_terms(crystal, hkl):
        lead = (slice(None), *(None,) * (total.ndim - 1))
        total += part[lead] * (f0[lead] + anomalous(energy_kev))
    return total


def scattering_terms(
    crystal: Crystal, hkl: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]]:
    """For each kind of atom: its sum of phases with thermal factor, f0, both of shape (reflection,), f' + i f'' of E in keV."""
    import xraydb

    s = np.linalg.norm(crystal.b_matrix @ np.asarray(hkl, float).T, axis=0) / 2
    terms = []
    for element, occupancy, b_iso, places in crystal.atoms:
        phases = np.exp(2j * np.pi * (np.asarray(hkl, float) @ places.T)).sum(1)
        f0 = np.asarray(xraydb.f0(element, s), float).reshape(-1)
        terms.append((occupancy * phases * np.exp(-b_iso * s**2), f0, _anomalous(element)))
    return terms


def _anomalous(element: str) -> Callable[[np.ndarray], np.ndarray]:
    """f' + i f'' of an element as a function of the energy in keV."""
    import xraydb

    def of(energy_kev: np.ndarray) -> np.ndarray:
        ev = 1e3 * np.atleast_1d(energy_kev).ravel()
        values = xraydb.f1_chantler(element, ev) + 1j * xraydb.f2_chantler(element, ev)
        return np.asarray(values).reshape(np.shape(energy_kev))

    return of
