"""Peak lists of crystals of known orientation and strain, for the tests of indexing."""

from functools import cache

import numpy as np
from scipy.spatial.transform import Rotation

from braggscope.modalities.laue.detector import detector_matrix, spots
from braggscope.modalities.laue.geometry import bm32
from braggscope.modalities.laue.indexing.catalogue import catalogue_of
from braggscope.modalities.laue.reflections import material, reflections_of

GEOMETRY = bm32().replace(energy_high_kev=22.0)


@cache
def reflections(name, geometry):
    return reflections_of(material(name), geometry)


def turn(seed):
    return Rotation.random(random_state=seed).as_matrix()


def deviatoric(seed, size=5e-4):
    """A symmetric strain without trace, shape (3, 3)."""
    a = np.random.default_rng(seed).normal(0, size, (3, 3))
    a = (a + a.T) / 2
    return a - np.eye(3) * np.trace(a) / 3


def places(u, strain=None, name="Ge", count=60, geometry=GEOMETRY):
    """Rows and columns of the brightest spots in the band, shape (spot, 2), brightest first; q = U (1 + eps)^-T B h."""
    crystal = reflections(name, geometry)
    q = crystal.q @ np.linalg.inv(np.eye(3) + (np.zeros((3, 3)) if strain is None else strain)) @ u.T
    row, column, energy = spots(np.linalg.inv(detector_matrix(geometry)), q)
    order = np.arange(1, crystal.strength.shape[1] + 1)
    energies = energy[:, None] * order
    in_band = (energies >= geometry.energy_low_kev) & (energies <= geometry.energy_high_kev)
    light = np.where(in_band, crystal.strength, 0).max(1)
    on = (row > 0) & (row < geometry.rows - 1) & (column > 0) & (column < geometry.columns - 1) & (light > 0)
    first = np.flatnonzero(on)[np.argsort(-light[on], kind="stable")[:count]]
    return np.stack([row, column], 1)[first]


def catalogue(name="Ge", geometry=GEOMETRY, tolerance_deg=0.1):
    return catalogue_of(material(name), geometry, tolerance_deg=tolerance_deg)
