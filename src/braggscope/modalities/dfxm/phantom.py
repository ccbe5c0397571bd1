"""Crystals whose rocking curves are known, for simulation.

Fields are drawn over the detector, y (rows) and x (columns) from 0 to 1. Each pixel has one Gaussian peak over the motors; its
position follows the local orientation. Counts are detector units: a camera with a scintillator, `CAMERA`, adds its offset, its
gain and its read-out noise. The truth are the moments of the expected curve over the points of the scan, above the pedestal.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from braggscope.core.errors import InputError
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation

from .forward import RockingCurve
from .geometry import DfxmGeometry

# A scientific CMOS camera behind a scintillator: offset and read-out noise as in the scans of ESRF ID03
CAMERA = Noise(gain=2.0, offset=100.0, readout=3.0, saturation=65535.0)
MOTORS = {1: ("mu",), 2: ("chi", "mu"), 3: ("chi", "mu", "ccmth")}
STEP_DEG = {"chi": 0.08, "mu": 0.06, "ccmth": 0.005}


def subgrains(
    geometry: DfxmGeometry | None,
    *,
    shape: tuple[int, ...] = (41,),
    frame_shape: tuple[int, int] = (120, 160),
    seed: int = 0,
    peak: float = 800.0,
    noise: Noise | None = CAMERA,
) -> Simulation:
    """A deformed grain: cells with small orientation gradients between walls, dark around the grain.

    In the walls the curve is wider and weaker. geometry: Kept with the scan, not used.
    shape: Length of one to three scan axes.  frame_shape: Rows and columns.
    peak: Expected photons of the brightest pixel at its peak.
    noise: Of the camera; None gives the expected photons.
    """
    random = np.random.default_rng(seed)
    y, x = _positions(frame_shape)
    count = 14
    tree = cKDTree(random.random((count, 2)))
    distance, cell = tree.query(np.stack([y + 0.03 * np.sin(9 * x), x + 0.03 * np.sin(8 * y)], axis=-1), k=2)
    wall = np.exp(-(((distance[..., 1] - distance[..., 0]) / 0.04) ** 2))
    inside = ((y - 0.5) / 0.46) ** 2 + ((x - 0.5) / 0.48) ** 2 < 1
    brightness = inside * (1 - 0.5 * wall) * (0.5 + 0.5 * _smooth(random, frame_shape, 0.1))
    orientation = [
        random.uniform(-1, 1, count)[cell[..., 0]] * 0.6 + 0.4 * (random.normal() * (y - 0.5) + random.normal() * (x - 0.5))
        for _ in shape
    ]
    return _simulation(geometry, "subgrains", orientation, 1 + 0.6 * wall, brightness, shape, seed, peak, noise)


def bent_crystal(
    geometry: DfxmGeometry | None,
    *,
    shape: tuple[int, ...] = (41,),
    frame_shape: tuple[int, int] = (120, 160),
    seed: int = 0,
    peak: float = 800.0,
    noise: Noise | None = CAMERA,
) -> Simulation:
    """A crystal bent about both axes: each motor's peak position changes smoothly over the image. Arguments as in `subgrains`."""
    random = np.random.default_rng(seed)
    y, x = _positions(frame_shape)
    slopes = [(1.2, 0.3), (-0.4, 1.1), (0.5, -0.9)][: len(shape)]
    orientation = [a * (x - 0.5) + b * (y - 0.5) for a, b in slopes]
    brightness = 0.4 + 0.6 * _smooth(random, frame_shape, 0.2)
    return _simulation(geometry, "bent_crystal", orientation, 1 + 0.3 * x, brightness, shape, seed, peak, noise)


def _simulation(
    geometry: DfxmGeometry | None,
    label: str,
    orientation: list[np.ndarray],
    spread: np.ndarray,
    brightness: np.ndarray,
    shape: tuple[int, ...],
    seed: int,
    peak: float,
    noise: Noise | None,
) -> Simulation:
    """A simulation of peaks at 45 % of the half range times `orientation`, 14 % of it (0.8 steps) times `spread` wide."""
    if len(shape) not in MOTORS or min(shape) < 2:
        raise InputError(f"dfxm phantoms need one to three scan axes of at least 2 points, got shape {tuple(shape)}")
    names, frame_shape = MOTORS[len(shape)], brightness.shape
    axes = {n: STEP_DEG[n] * (np.arange(k) - (k - 1) / 2) for n, k in zip(names, shape, strict=True)}
    mesh = {n: m.ravel() for n, m in zip(names, np.meshgrid(*axes.values(), indexing="ij"), strict=True)}
    curve = RockingCurve(mesh)
    params: dict[str, np.ndarray] = {"pedestal": np.zeros(frame_shape)}
    volume = np.ones(frame_shape)
    for name, tilt in zip(names, orientation, strict=True):
        half = max(float(np.ptp(axes[name])) / 2, STEP_DEG[name])
        params[name], params[f"{name}_width"] = 0.45 * half * tilt, max(0.14 * half, 0.8 * STEP_DEG[name]) * spread
        volume = volume * params[f"{name}_width"] * math.sqrt(2 * math.pi) / STEP_DEG[name]
    for a, b in itertools.combinations(names, 2):
        params[f"{a}_{b}_correlation"] = np.full(frame_shape, 0.3)
    params["total"] = peak * brightness / brightness.max() * volume
    tensors = {n: torch.as_tensor(v.ravel(), dtype=torch.float32) for n, v in params.items()}

    def expected(index: np.ndarray) -> torch.Tensor:
        part = RockingCurve({n: m[index] for n, m in mesh.items()}).float()
        part.cell = curve.cell.float()
        return part(tensors).T.reshape(len(index), *frame_shape)

    coords = {n: ((n,), axes[n], {"units": "deg"}) for n in names}
    truth = _truth(expected, mesh, noise or Noise(), frame_shape)
    return Simulation(geometry, xr.Dataset(coords=coords), frame_shape, expected, truth, noise, seed, label)


def _truth(expected, mesh: Mapping[str, np.ndarray], noise: Noise, frame_shape: tuple[int, ...]) -> xr.Dataset:  # type: ignore[no-untyped-def]
    """Moments of the expected curves over the scan, under the names of the map."""
    names, points = list(mesh), len(next(iter(mesh.values())))
    origin = {n: float(v.mean()) for n, v in mesh.items()}
    pairs = list(itertools.combinations(names, 2))
    sums = {(n, k): np.zeros(frame_shape) for n in names for k in range(5)} | {pair: np.zeros(frame_shape) for pair in pairs}
    for start in range(0, points, 16):
        index = np.arange(start, min(start + 16, points))
        counts = expected(index).double().numpy()
        u = {n: mesh[n][index] - origin[n] for n in names}
        for n, k in itertools.product(names, range(5)):
            sums[n, k] += np.tensordot(u[n] ** k, counts, 1)
        for a, b in pairs:
            sums[a, b] += np.tensordot(u[a] * u[b], counts, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = sums[names[0], 0]
        found = {"total": (noise.gain * total, "count"), "pedestal": (np.full(frame_shape, noise.offset), "count")}
        means = {n: sums[n, 1] / total for n in names}
        for n in names:
            m, (s2, s3, s4) = means[n], (sums[n, k] / total for k in (2, 3, 4))
            width = np.sqrt(s2 - m**2)
            found[n] = (origin[n] + m, "deg")
            found[f"{n}_width"] = (width, "deg")
            found[f"{n}_skewness"] = ((s3 - 3 * m * s2 + 2 * m**3) / width**3, "1")
            found[f"{n}_kurtosis"] = ((s4 - 4 * m * s3 + 6 * m**2 * s2 - 3 * m**4) / width**4 - 3, "1")
        for a, b in pairs:
            found[f"{a}_{b}_covariance"] = (sums[a, b] / total - means[a] * means[b], "deg^2")
    return xr.Dataset({n: (("row", "column"), v, {"units": unit, "long_name": f"true {n}"}) for n, (v, unit) in found.items()})


def _positions(frame_shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """y and x of each pixel, 0 to 1, shape of the frame."""
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in frame_shape), indexing="ij")
    return y, x


def _smooth(random: np.random.Generator, frame_shape: tuple[int, int], length: float) -> np.ndarray:
    """A random field from 0 to 1 that varies over this fraction of the frame."""
    field = gaussian_filter(random.normal(size=frame_shape), [length * n for n in frame_shape], mode="wrap")
    return (field - field.min()) / max(float(np.ptp(field)), 1e-30)
