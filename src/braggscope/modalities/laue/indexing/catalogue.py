"""What indexing needs to know of a crystal, made once: its directions in cells, and the angles between bright ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braggscope.physics.crystals import Crystal

from ..geometry import LaueGeometry
from ..reflections import Reflections, reflections_of
from . import kernels

EDGE = 120  # cells along the edge of a face of the cube: less than a degree each
BRIGHT = 200  # reflections, at least, whose pairs are looked for
NARROWEST_DEG = 4.0  # between the reflections of a pair: nearer ones do not fix the orientation


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The reflections of a crystal, prepared for a band and a tolerance.

    directions: Unit vectors in the crystal frame, shape (reflection, 3).  lengths: |q| of the coprime reflection, 1/angstrom.
    orders: Bit n - 1 tells whether the order n is there.  start, members: Reflections by cell of directions.
    pair_angle, pair_first, pair_second, pair_frame: Pairs of bright reflections by rising angle, radians; see the kernels.
    """

    reflections: Reflections
    low: float
    high: float
    tolerance: float
    directions: np.ndarray
    lengths: np.ndarray
    orders: np.ndarray
    start: np.ndarray
    members: np.ndarray
    pair_angle: np.ndarray
    pair_first: np.ndarray
    pair_second: np.ndarray
    pair_frame: np.ndarray

    @property
    def crystal(self) -> Crystal:
        return self.reflections.crystal

    @property
    def lookup(self) -> tuple[np.ndarray | float, ...]:
        """The arguments of `kernels.matched` that are of the crystal."""
        return (self.directions, self.lengths, self.orders, self.low, self.high, EDGE, self.start, self.members)

    @property
    def pairs(self) -> tuple[np.ndarray, ...]:
        return (self.pair_angle, self.pair_first, self.pair_second, self.pair_frame)


def catalogue_of(crystal: Crystal, geometry: LaueGeometry, *, tolerance_deg: float) -> Catalogue:
    """The catalogue of a crystal for the band of a geometry."""
    reflections = reflections_of(crystal, geometry)
    lengths = np.linalg.norm(reflections.q, axis=1)
    directions = np.ascontiguousarray(reflections.q / lengths[:, None])
    bits = (reflections.strength > 0) @ (1 << np.arange(reflections.strength.shape[1], dtype=np.int64))
    start, members = kernels.cells(directions, np.deg2rad(tolerance_deg), EDGE)
    pairs = _pairs(crystal, reflections.hkl, directions, reflections.strength.max(1))
    band = geometry.energy_low_kev, geometry.energy_high_kev
    return Catalogue(reflections, *band, np.deg2rad(tolerance_deg), directions, lengths, bits, start, members, *pairs)


def _pairs(crystal: Crystal, hkl: np.ndarray, directions: np.ndarray, strength: np.ndarray) -> tuple[np.ndarray, ...]:
    """Angles of pairs of bright reflections, one of each class of equivalent pairs, by rising angle."""
    bright = strength >= strength[min(BRIGHT, len(strength)) - 1] * (1 - 1e-6)
    hkl, directions = hkl[bright], directions[bright]
    place = {tuple(h): i for i, h in enumerate(hkl.tolist())}
    images = np.array(
        [[place.get(tuple(h), -1) for h in (hkl @ m.T).tolist()] for m in crystal.operations]
    )  # (operation, reflection)
    firsts = np.flatnonzero(images.min(0, where=images >= 0, initial=len(hkl)) == np.arange(len(hkl)))
    first, second = [], []
    for a in firsts:
        keeping = images[images[:, a] == a]  # the operations that leave the first where it is
        seconds = np.flatnonzero(keeping.min(0, where=keeping >= 0, initial=len(hkl)) == np.arange(len(hkl)))
        first.append(np.full(len(seconds), a))
        second.append(seconds)
    i, j = np.concatenate(first), np.concatenate(second)
    normal = np.cross(directions[i], directions[j])
    sine = np.linalg.norm(normal, axis=1)
    angle = np.arctan2(sine, (directions[i] * directions[j]).sum(1))
    wide = np.flatnonzero(sine > np.sin(np.deg2rad(NARROWEST_DEG)))
    wide = wide[np.argsort(angle[wide], kind="stable")]
    z = normal[wide] / sine[wide, None]
    frames = np.stack([directions[i[wide]], np.cross(z, directions[i[wide]]), z], 1)
    return angle[wide], i[wide], j[wide], np.ascontiguousarray(frames)
