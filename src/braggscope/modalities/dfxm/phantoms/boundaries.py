"""Weak-beam volume of dislocation boundaries that meet in a triple junction, for simulation.

Three walls end at one common line. Each is a row of parallel dislocations of aluminium: its normal lies some degrees off the
Burgers vector that it is nearest to, as in a tilt wall (Frank's rule), and its lines some degrees off those of edge dislocations.
Every dislocation emits weak-beam light along its line, more in some places than in others; it wanders about its straight line by
`roughness_um` and its place in the row by `jitter` spacings. A layer is the light within a Gaussian sheet, seen by the objective
with a Gaussian blur. Light of the strong beam lies under it and varies over the frame and from layer to layer; bright spots that
belong to no wall are outliers.

Frame: x along the beam (rows rising), y along columns rising, z up (layers); the origin is pixel (0, 0) of the layer at z = 0.
Left out: the fields of the dislocations (diffraction contrast), and with them what a Burgers vector does to the brightness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation
from braggscope.physics.slip_systems import slip_systems

from ..geometry import DfxmGeometry, id03
from .drawing import CAMERA

LATTICE_A = 4.0495  # angstrom, aluminium
JUNCTION, ZERO = (
    np.array([1.0, 1.0, 1.0]),
    np.array([-1.0, -1.0, 2.0]),
)  # about which the walls turn, and from where; crystal axes
HALF_PLANES_DEG = (30.0, 30.0, 303.0)  # of the walls about the junction; the first two open by `triple_deg` about theirs
LINES_DEG = (22.0, -18.0, 66.0)  # of the dislocations in each wall, from the junction line
STEP_UM = 0.1  # along a dislocation, of the points that emit
WANDERING_UM = 2.0  # standard deviation of the filter that makes the wandering of a line smooth
FWHM = 2 * math.sqrt(2 * math.log(2))


@dataclass(frozen=True)
class Wall:
    """A wall in the laboratory: half-plane direction away from the junction, normal, line direction; spacing in um."""

    away: np.ndarray
    normal: np.ndarray
    line: np.ndarray
    spacing: float


def boundaries(
    geometry: DfxmGeometry | None,
    *,
    shape: tuple[int, ...] = (40,),
    frame_shape: tuple[int, int] = (120, 400),
    seed: int = 0,
    peak: float = 400.0,
    noise: Noise | None = CAMERA,
    spacing_um: tuple[float, ...] = (3.0, 3.5, 4.0),
    triple_deg: float = 48.0,
    outliers: float = 0.05,
    step_um: float = 1.0,
    sheet_um: float = 0.6,
    blur_um: float = 0.3,
    roughness_um: float = 0.1,
    jitter: float = 0.04,
) -> Simulation:
    """Weak-beam images of a scan over the height z: three walls of dislocations that meet in a triple junction.

    geometry: Its pixel_um, magnification and two_theta_deg give the size of a pixel in the sample; without, those of ESRF ID03.
    shape: Layers.  frame_shape: Rows and columns.
    peak: Expected photons of a dislocation that stands upright in the layer, in its middle; 0 for none.
    spacing_um: Of the dislocations in each wall; as many walls as numbers, three at most.
    triple_deg: Angle between the first two walls.  outliers: Share of the bright spots that belong to no wall.
    step_um: Distance of the layers.  sheet_um: Thickness of a layer, FWHM.  blur_um: Of the image, standard deviation.
    roughness_um: By which a line wanders, standard deviation.  jitter: Of the places of the lines in a wall, in spacings.
    """
    _check(shape, frame_shape, spacing_um, {"peak": peak, "outliers": outliers, "roughness_um": roughness_um, "jitter": jitter},
           {"step_um": step_um, "sheet_um": sheet_um, "blur_um": blur_um}, triple_deg)  # fmt: skip
    instrument = geometry or id03()
    pixel = np.array(instrument.sample_pixel_um())
    random = np.random.default_rng(seed)
    size = np.array([*(pixel * frame_shape), step_um * shape[0]])
    orientation = _orientation(random)
    walls = _walls(orientation, spacing_um, triple_deg)
    places, light = _emission(walls, size, random, roughness_um, jitter, sheet_um)
    spots = _outliers(places, size, random, outliers, step_um, sheet_um)
    places, light = np.vstack([places, spots]), np.append(light, np.full(len(spots), sheet_um))
    scale = peak * 2 * math.pi * blur_um**2 / float(pixel.prod())
    diffuse = 0.08 * peak * _smooth(random, frame_shape), random.uniform(0.7, 1.3, shape[0])
    z = step_um * np.arange(shape[0])

    def expected(index: np.ndarray) -> torch.Tensor:
        images = [scale * _layer(places, light, z[i], sheet_um / FWHM, blur_um, pixel, frame_shape) for i in index]
        return torch.from_numpy(np.array([im + diffuse[0] * diffuse[1][i] for im, i in zip(images, index, strict=True)])).float()

    grid = xr.Dataset(coords={"z": ("z", z, {"units": "um"})})
    truth = _truth(walls, orientation, size / 2)
    return Simulation(geometry, grid, frame_shape, expected, truth, noise, seed, "boundaries")


def _check(
    shape: tuple[int, ...], frame_shape: tuple[int, int], spacing_um: tuple[float, ...], least: dict[str, float],
    positive: dict[str, float], triple_deg: float,
) -> None:  # fmt: skip
    """Raise InputError for options that cannot be."""
    if len(shape) != 1:
        raise InputError(f"phantom boundaries is a scan over z alone, got shape {' x '.join(map(str, shape))}")
    if min(frame_shape) < 8:
        raise InputError(f"option frame_shape must be at least 8 x 8 pixels, got {frame_shape[0]} x {frame_shape[1]}")
    if not (1 <= len(spacing_um) <= 3 and min(spacing_um) > 0.2):
        raise InputError(f"option spacing_um must be one to three numbers above 0.2 um, got {spacing_um}")
    for name, value in least.items():
        high = {"outliers": 0.9, "jitter": 0.5}.get(name, math.inf)
        if not (0 <= value <= high and math.isfinite(value)):
            raise InputError(f"option {name} must be from 0 to {high:g}, got {value}")
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"option {name} must be positive, got {value}")
    if not 10 <= triple_deg <= 110:
        raise InputError(f"option triple_deg must be between 10 and 110, got {triple_deg}")


def _orientation(random: np.random.Generator) -> np.ndarray:
    """Rotation from the crystal to the laboratory: the junction some 15 deg off z, in a direction and with a turn at random."""
    j = JUNCTION / np.linalg.norm(JUNCTION)
    e = ZERO / np.linalg.norm(ZERO)
    upright = np.array([e, np.cross(j, e), j])  # e, j x e and j onto x, y and z
    azimuth, spin = random.uniform(0, 360, 2)
    tilt = random.uniform(11, 19)
    return (Rotation.from_euler("ZYZ", [azimuth, tilt, spin], degrees=True)).as_matrix() @ upright


def _walls(orientation: np.ndarray, spacing_um: tuple[float, ...], triple_deg: float) -> list[Wall]:
    """The walls in the laboratory."""
    j, e = (orientation @ v / np.linalg.norm(v) for v in (JUNCTION, ZERO))
    found = []
    for number, (spacing, middle, turn) in enumerate(zip(spacing_um, HALF_PLANES_DEG, LINES_DEG, strict=False)):
        at = math.radians(middle + triple_deg * (-0.5, 0.5, 0.0)[number])
        away = math.cos(at) * e + math.sin(at) * np.cross(j, e)
        line = math.cos(math.radians(turn)) * j + math.sin(math.radians(turn)) * away
        found.append(Wall(away, np.cross(j, away), line, spacing))
    return found


def _emission(
    walls: list[Wall], size: np.ndarray, random: np.random.Generator, roughness: float, jitter: float, sheet: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points of the dislocations, um, shape (point, 3), and the length of line that each stands for times its brightness."""
    reach = float(np.linalg.norm(size))
    s = np.arange(-reach / 2, reach / 2, STEP_UM)
    places, light = [], []
    for wall in walls:
        across = np.cross(wall.normal, wall.line)
        count = int(reach / 2 / wall.spacing) + 1
        rows = np.arange(-count, count + 1) + random.uniform() + random.normal(0, jitter, 2 * count + 1)
        for at in rows * wall.spacing:
            wander = [roughness * _wave(random, len(s)) for _ in range(2)]
            points = (
                size / 2 + at * across + s[:, None] * wall.line + np.outer(wander[0], wall.normal) + np.outer(wander[1], across)
            )
            bright = random.uniform(0.7, 1.3) * np.exp(0.35 * _wave(random, len(s)))
            inside = ((points > -1) & (points < size + 1)).all(axis=1) & ((points - size / 2) @ wall.away > 0)
            places.append(points[inside])
            light.append(STEP_UM * bright[inside])
    return np.vstack(places), np.concatenate(light)


def _wave(random: np.random.Generator, count: int) -> np.ndarray:
    """A smooth random function along a line, of standard deviation 1."""
    filtered = gaussian_filter1d(random.normal(size=count), WANDERING_UM / STEP_UM, mode="wrap")
    return filtered * math.sqrt(2 * math.sqrt(math.pi) * WANDERING_UM / STEP_UM)


def _outliers(
    places: np.ndarray, size: np.ndarray, random: np.random.Generator, share: float, step: float, sheet: float
) -> np.ndarray:
    """Places of bright spots, so many that they are this share of the spots that all layers show."""
    per_layer = np.bincount(np.floor(places[:, 2] / step).astype(int).clip(0)).sum() * STEP_UM / max(step, sheet)
    return random.uniform(0, size, (round(share / (1 - share) * per_layer), 3))


def _smooth(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Brightness of the strong beam's light over the frame, 0.5 to 1."""
    field = gaussian_filter(random.normal(size=shape), np.array(shape) / 6, mode="wrap")
    return 0.5 + 0.5 * (field - field.min()) / max(float(np.ptp(field)), 1e-12)


def _layer(
    places: np.ndarray, light: np.ndarray, z: float, sheet: float, blur: float, pixel: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Light of the layer at z, per pixel: the points in the sheet, on a finer grid where a pixel is coarser than the blur."""
    near = np.abs(places[:, 2] - z) < 4 * sheet
    weight = light[near] * np.exp(-((places[near, 2] - z) ** 2) / (2 * sheet**2)) / (math.sqrt(2 * math.pi) * sheet)
    fine = np.ceil(1.5 * pixel / blur).astype(int)
    edges = [np.arange(n * f + 1) / f * p - p / 2 for n, f, p in zip(shape, fine, pixel, strict=True)]
    image, _, _ = np.histogram2d(places[near, 0], places[near, 1], edges, weights=weight)
    image = gaussian_filter(image, blur * fine / pixel, mode="constant")
    return image.reshape(shape[0], fine[0], shape[1], fine[1]).sum(axis=(1, 3))


def _truth(walls: list[Wall], orientation: np.ndarray, centre: np.ndarray) -> xr.Dataset:
    """Normals, lines and spacings of the walls, their nearest Burgers vectors, the junction, and the angles between the walls."""
    vectors = np.array([s.burgers for s in slip_systems("fcc")])
    nearest = [vectors[np.abs(vectors @ orientation.T @ w.normal).argmax()] for w in walls]
    j = orientation @ JUNCTION / np.linalg.norm(JUNCTION)
    opening = [[math.degrees(math.acos(np.clip(a.away @ b.away, -1, 1))) for b in walls] for a in walls]
    rows: dict[str, tuple[tuple[str, ...], np.ndarray, str, str]] = {
        "normal": (("boundary", "axis"), np.array([w.normal for w in walls]), "1", "normal in the laboratory"),
        "line": (("boundary", "axis"), np.array([w.line for w in walls]), "1", "line direction in the laboratory"),
        "burgers": (("boundary", "axis"), np.array(nearest), "a", "Burgers vector, crystal axes, in lattice parameters"),
        "spacing": (("boundary",), np.array([w.spacing for w in walls]), "um", "spacing of the dislocations"),
        "opening": (("boundary", "other"), np.array(opening), "deg", "angle between the half-planes of two walls"),
        "junction": (("axis",), j, "1", "direction of the junction in the laboratory"),
        "place": (("axis",), centre, "um", "a point of the junction"),
        "orientation": (("axis", "crystal_axis"), orientation, "1", "rotation from the crystal to the laboratory"),
    }
    truth = xr.Dataset({n: (dims, v, {"units": u, "long_name": f"true {text}"}) for n, (dims, v, u, text) in rows.items()})
    return truth.assign_attrs(structure="fcc", lattice_a=LATTICE_A)
