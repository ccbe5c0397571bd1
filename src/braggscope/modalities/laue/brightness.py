"""How bright the spots of a layer of crystal are: tables over energy, from which kernels and the torch model look up.

I(h) = sum over orders n in the band of |F(n h, n E1)|^2 d_n^2 S_E(n E1) P A / V^2 (Zachariasen 1945, eq. 3.72, kinematic, per
unit of energy), E1 the energy at which the coprime reflection h diffracts. A, in um, is the depth over which the layer diffracts:

    A = exp(-mu_above t_above g) (1 - exp(-mu t g)) / (mu g),      g = 1 / sin(tilt) + 1 / (n . u)

with t the thickness of the layer, n the normal of the surface and u the ray; a ray that does not leave upwards has none. Left
out: extinction (a perfect crystal is weaker), the mosaic of the crystal, and what other layers diffract.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from braggscope.physics.crystals import Crystal
from braggscope.physics.structure_factors import structure_factors

from .detector import detector_matrix
from .geometry import LaueGeometry
from .reflections import Reflections, reflections_of
from .spectrum import absorption_coefficient, cell_volume, electric_field, spectrum, surface_normal

STEP_KEV = 0.004  # of the tables: finer than the width of the gold L edges


@dataclass(frozen=True, eq=False)
class Layer:
    """The spots that a layer of one crystal can show.

    reflections: Its directions.
    family: Row of `table` of each order of each direction, -1 where absent, shape (direction, order).
    table: |F|^2 d^2 S_E / V^2 of each family of equal reflections, shape (family, energy).
    absorption: mu of the layer and of what lies above it, 1/um, shape (2, energy).
    depth: Thickness of the layer (inf: thick) and of what lies above it, um.
    energy: First energy and step of the tables, and the band, keV: shape (4,).
    detector: Inverse of `detector_matrix`, shape (3, 3).
    size: Rows and columns of the detector.
    normal: Of the surface, shape (3,).
    field: Unit vector of the polarisation, shape (3,).
    """

    reflections: Reflections
    family: np.ndarray
    table: np.ndarray
    absorption: np.ndarray
    depth: np.ndarray
    energy: np.ndarray
    detector: np.ndarray
    size: np.ndarray
    normal: np.ndarray
    field: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arguments of `kernels.pattern` after the orientation."""
        tables = (self.family, self.table, self.absorption, self.depth, self.energy)
        return (self.reflections.q, *tables, self.detector, self.size, self.normal, self.field)


def layer(
    geometry: LaueGeometry, crystal: Crystal, *, thickness_um: float | None = None, above: tuple[Crystal, float] | None = None
) -> Layer:
    """The tables of a crystal under this instrument.

    thickness_um: Of the layer; None: more than the beam goes through.
    above: Crystal and thickness (um) of a layer that covers it.
    """
    reflections = reflections_of(crystal, geometry)
    low, high = geometry.energy_low_kev, geometry.energy_high_kev
    energy = _energies(low, high)
    family, table = _families(reflections, energy)
    table *= spectrum(geometry)(energy) / cell_volume(crystal) ** 2
    own = _absorption(crystal, low, high)
    over = _absorption(above[0], low, high) if above else np.zeros_like(own)
    depth = np.array([math.inf if thickness_um is None else thickness_um, above[1] if above else 0.0])
    return Layer(
        reflections, family, table, np.stack([own, over]), depth, np.array([energy[0], STEP_KEV, low, high]),
        np.linalg.inv(detector_matrix(geometry)), np.array(geometry.frame_shape), surface_normal(geometry),
        electric_field(geometry),
    )  # fmt: skip


def _energies(low: float, high: float) -> np.ndarray:
    """Energies of the tables, keV."""
    return np.arange(low, high + STEP_KEV, STEP_KEV)


@lru_cache(maxsize=16)
def _absorption(crystal: Crystal, low: float, high: float) -> np.ndarray:
    """mu at these energies, 1/um; kept, since it takes as long as all other tables of a layer."""
    return absorption_coefficient(crystal, _energies(low, high))


def _families(reflections: Reflections, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|F|^2 d^2 over energy of each family of reflections with equal length and |F|, and the family of each order."""
    orders = np.arange(1, reflections.strength.shape[1] + 1)
    there = reflections.strength > 0
    every = (reflections.hkl[:, None] * orders[:, None])[there]
    length = (np.linalg.norm(reflections.q, axis=1)[:, None] * orders)[there]
    ends = energy[[0, len(energy) // 3, -1]]
    seen = np.abs(structure_factors(reflections.crystal, every, np.broadcast_to(ends, (len(every), 3)))) ** 2
    key = np.column_stack([length / length.max(), seen / seen.max()]).round(9)
    _, first, member = np.unique(key, axis=0, return_index=True, return_inverse=True)
    family = np.full(there.shape, -1)
    family[there] = member.ravel()
    square = np.abs(structure_factors(reflections.crystal, every[first], energy[None])) ** 2
    return family, square / length[first, None] ** 2
