"""Columnar grains of a film: their outlines, orientations and strains.

Positions on the surface in um: x along the beam, uphill, and y (`geometry`). A map of grains is sampled on squares of `pitch_um`.
Left out: grains on top of each other, curved boundaries, orientation that varies inside a grain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError
from braggscope.physics.crystals import Crystal

from ..frames import surface_axes
from ..geometry import LaueGeometry
from ..orientations import reduced
from ..spectrum import surface_normal

TEXTURES = ("random", "fibre")
TWIN_DEG = 60.0  # about [111]: Sigma 3
TWIN_WIDTH = (0.15, 0.4)  # of a twin's band, in root areas of its grain


@dataclass(frozen=True, eq=False)
class Microstructure:
    """A map of grains and what each is.

    number: Grain (from 0) at each point of the fine map, shape (y, x).
    y, x: Places of the rows and columns of the map, um.
    orientation: U of each grain, of all equivalents that with the smallest angle, shape (grain, 3, 3).
    strain: Deviatoric, in the crystal frame, shape (grain, 3, 3).
    """

    number: np.ndarray
    y: np.ndarray
    x: np.ndarray
    orientation: np.ndarray
    strain: np.ndarray

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Grain at positions (um) inside the map; shapes broadcast."""
        pitch = self.x[1] - self.x[0]
        row, column = np.rint((y - self.y[0]) / pitch).astype(int), np.rint((x - self.x[0]) / pitch).astype(int)
        return np.asarray(self.number[row, column])

    @property
    def pitch_um(self) -> float:
        """Distance of the points of the fine map."""
        return float(self.x[1] - self.x[0])


def voronoi(random: np.random.Generator, y: np.ndarray, x: np.ndarray, *, size_um: float, elongation: float) -> np.ndarray:
    """Grains around random points by distance in a stretched metric; numbered from 0, shape (y, x).

    size_um: Root of the mean area of a grain.
    elongation: Mean length along x over that along y.
    """
    pitch = x[1] - x[0]
    spans = len(y) * pitch, len(x) * pitch
    count = max(1, round(spans[0] * spans[1] / size_um**2))
    stretch = np.array([np.sqrt(elongation), 1 / np.sqrt(elongation)])  # of y and of x, into the metric
    seeds = (np.array([y[0], x[0]]) + random.random((count, 2)) * spans) * stretch
    points = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1) * stretch
    nearest = cKDTree(seeds).query(points.reshape(-1, 2))[1]
    return np.unique(nearest, return_inverse=True)[1].reshape(len(y), len(x))


def orientations(
    random: np.random.Generator,
    count: int,
    crystal: Crystal,
    geometry: LaueGeometry,
    *,
    texture: str,
    fibre: str,
    spread_deg: float,
) -> np.ndarray:
    """Orientations U of grains, shape (grain, 3, 3).

    texture: "random", or "fibre": the normal of the planes `fibre` ("1 1 1") along the surface normal.
    spread_deg: Standard deviation of each component of the tilt away from it.
    """
    if texture == "random":
        return Rotation.random(count, rng=random).as_matrix()
    normal = surface_normal(geometry)
    plane = crystal.b_matrix @ _indices(fibre)
    align = Rotation.align_vectors(normal[None], (plane / np.linalg.norm(plane))[None])[0]
    turn = Rotation.from_rotvec(random.uniform(0, 2 * np.pi, count)[:, None] * normal)
    tilt = Rotation.from_rotvec(np.deg2rad(spread_deg) * random.standard_normal((count, 3)))
    return (tilt * turn * align).as_matrix()


def with_twins(
    random: np.random.Generator, number: np.ndarray, orientation: np.ndarray, geometry: LaueGeometry, part: float
) -> tuple[np.ndarray, np.ndarray]:
    """The map and the orientations with a band of a Sigma 3 twin across some grains; the twins have numbers of their own.

    The twin's lattice is turned by 60 degrees about one of the grain's [111] axes; its band follows the trace of that plane in
    the surface and goes through a random point of the grain.

    part: Fraction of the grains that have one.
    """
    number, found = number.copy(), list(orientation)
    uphill, across, _ = surface_axes(geometry)
    places = np.argsort(number, axis=None, kind="stable")
    first = np.searchsorted(number.ravel()[places], np.arange(len(orientation) + 1))
    for grain in np.flatnonzero(random.random(len(orientation)) < part):
        row, column = np.unravel_index(places[first[grain] : first[grain + 1]], number.shape)
        axis = np.array([1, *random.choice([-1, 1], 2)]) / np.sqrt(3)
        plane = orientation[grain] @ axis
        trace = np.array([plane @ across, plane @ uphill])  # its normal in the surface: y, x
        length = np.hypot(*trace)
        middle = random.integers(len(row))
        width = random.uniform(*TWIN_WIDTH) * np.sqrt(len(row))
        apart = np.abs((row - row[middle]) * trace[0] + (column - column[middle]) * trace[1]) / max(length, 1e-9)
        band = apart <= width / 2
        if 0 < band.sum() < len(row):
            number[row[band], column[band]] = len(found)
            found.append(orientation[grain] @ Rotation.from_rotvec(np.deg2rad(TWIN_DEG) * axis).as_matrix())
    return number, np.array(found)


def strains(random: np.random.Generator, count: int, size: float) -> np.ndarray:
    """Random deviatoric strains whose components have this standard deviation before the trace is taken off, (grain, 3, 3)."""
    raw = size * random.standard_normal((count, 3, 3))
    even = np.triu(raw) + np.triu(raw, 1).swapaxes(-1, -2)
    return even - np.trace(even, axis1=-2, axis2=-1)[:, None, None] / 3 * np.eye(3)


def microstructure(
    seed: int,
    y: np.ndarray,
    x: np.ndarray,
    crystal: Crystal,
    geometry: LaueGeometry,
    *,
    size_um: float,
    elongation: float,
    texture: str,
    fibre: str,
    spread_deg: float,
    twins: float,
    strain: float,
) -> Microstructure:
    """A film whose fine map has the places y and x; arguments as above."""
    if texture not in TEXTURES:
        raise InputError(f"option texture must be {' or '.join(TEXTURES)}, got '{texture}'")
    ranges = {
        "elongation": (elongation, 0.1, 10.0),
        "spread": (spread_deg, 0, 90),
        "twins": (twins, 0, 1),
        "strain": (strain, 0, 0.05),
    }
    for name, (value, low, high) in ranges.items():
        check_range(name, value, low, high)
    random = np.random.default_rng((seed, 4))
    number = voronoi(random, y, x, size_um=size_um, elongation=elongation)
    found = orientations(random, int(number.max()) + 1, crystal, geometry, texture=texture, fibre=fibre, spread_deg=spread_deg)
    if twins > 0:
        number, found = with_twins(random, number, found, geometry, twins)
    return Microstructure(number, y, x, reduced(found, crystal.rotations), strains(random, len(found), strain))


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise InputError for an option outside its range."""
    if not low <= value <= high:
        raise InputError(f"option {name} must be between {low:g} and {high:g}, got {value:g}")


def _indices(words: str) -> np.ndarray:
    try:
        hkl = np.array([int(word) for word in words.replace(",", " ").split()])
    except ValueError:
        hkl = np.zeros(0)
    if hkl.shape != (3,) or not hkl.any():
        raise InputError(f"option fibre must be three indices like '1 1 1', got '{words}'")
    return hkl
