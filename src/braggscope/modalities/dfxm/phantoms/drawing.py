"""Crystals whose rocking curves are known, for simulation: what all phantoms share.

Fields are drawn over the detector, y (rows) and x (columns) from 0 to 1. A pixel has one or two Gaussian peaks over the motors;
their positions follow the local orientation. The widths of the instrument add to theirs in quadrature. Counts are detector
units: a camera with a scintillator, `CAMERA`, adds its offset, its gain and its read-out noise, on request also pixels with a
dark current and events of gamma rays. What the truth says is in `truth`.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.fft
import torch
from scipy.ndimage import fourier_gaussian, gaussian_filter, gaussian_filter1d

from braggscope.core.errors import InputError
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation

from ..forward import RockingCurve
from ..geometry import DfxmGeometry
from .camera import Camera, dark_current
from .scan import ScanAxes, scan_axes
from .truth import truth_of

# A scientific CMOS camera behind a scintillator: offset and read-out noise as in the scans of ESRF ID03
CAMERA = Noise(gain=2.0, offset=100.0, readout=3.0, saturation=65535.0)
CORRELATION = 0.3  # of any two motors over the peak of a pixel, before the instrument's resolution


@dataclass(frozen=True)
class Peak:
    """A Gaussian peak of every pixel.

    centre, width: Per motor, in its unit, the centre from the middle of the scan; shape (motor, row, column).
    brightness: Height, relative to the other pixels and peaks, shape (row, column).
    """

    centre: np.ndarray
    width: np.ndarray
    brightness: np.ndarray


@dataclass(frozen=True)
class Crystal:
    """The peaks of every pixel, and what else is known of it under its name: (values (row, column), unit, long name)."""

    peaks: tuple[Peak, ...]
    known: Mapping[str, tuple[np.ndarray, str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Canvas:
    """What a phantom is drawn on: the pixels, the scan and the random numbers."""

    random: np.random.Generator
    frame_shape: tuple[int, int]
    scan: ScanAxes

    @property
    def motors(self) -> int:
        """How many motors the scan has."""
        return len(self.scan.names)

    @functools.cached_property
    def position(self) -> tuple[np.ndarray, np.ndarray]:
        """y and x of each pixel, 0 to 1, each of the frame's shape."""
        y, x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in self.frame_shape), indexing="ij")
        return y, x

    def smooth(self, length: float) -> np.ndarray:
        """A random field from 0 to 1 that varies over this fraction of the frame."""
        field = self.random.normal(size=self.frame_shape)
        field = scipy.fft.irfft2(
            fourier_gaussian(scipy.fft.rfft2(field), [length * n for n in self.frame_shape], self.frame_shape[1]),
            self.frame_shape,
        )
        return (field - field.min()) / max(float(np.ptp(field)), 1e-30)

    def illumination(self) -> np.ndarray:
        """Of a line beam, about 1: stripes along the beam, which runs along the rows, and the grain of the scintillator."""
        along = self.random.normal(size=self.frame_shape[1])
        stripes = [gaussian_filter1d(along, length * self.frame_shape[1], mode="wrap") for length in (0.008, 0.03, 0.1)]
        grain = gaussian_filter(self.random.normal(size=self.frame_shape), 0.7, mode="wrap")
        level = 1 + np.sum([0.05 * stripe / stripe.std() for stripe in stripes], axis=0) + 0.04 * grain / grain.std()
        return np.clip(level, 0.2, None)

    def tilts(self, orientation: list[np.ndarray]) -> np.ndarray:
        """Peak centres, 45 % of half the scan times orientations of about -1 to 1, one per motor; shape (motor, row, column)."""
        return np.array([0.45 * half * tilt for half, tilt in zip(self.scan.half, orientation, strict=True)])

    def widths(self, spread: np.ndarray, fraction: float = 0.14) -> np.ndarray:
        """Peak widths: a fraction of half the scan, 0.8 steps at least, times `spread`; shape (motor, row, column)."""
        pairs = zip(self.scan.half, self.scan.step, strict=True)
        return np.array([max(fraction * half, 0.8 * step) * spread for half, step in pairs])


def phantom(draw: Callable[..., Crystal]) -> Callable[..., Simulation]:
    """Make the drawing of a crystal a phantom: a function of geometry, the options of `_simulated` and its own -> Simulation.

    draw: Function (canvas, *, own options) -> Crystal.
    """
    own = [p for p in inspect.signature(draw, eval_str=True).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    common = list(inspect.signature(_simulated, eval_str=True).parameters.values())[1:]

    @functools.wraps(draw)
    def simulate(geometry: DfxmGeometry | None, **options: Any) -> Simulation:
        kept = {name: value for name, value in options.items() if name not in {p.name for p in own}}
        return _simulated(functools.partial(draw, **{n: v for n, v in options.items() if n not in kept}), geometry, **kept)

    simulate.__signature__ = inspect.Signature([*common, *own])  # type: ignore[attr-defined]
    return simulate


def _simulated(
    draw: Callable[[Canvas], Crystal],
    geometry: DfxmGeometry | None,
    *,
    shape: tuple[int, ...] = (41,),
    frame_shape: tuple[int, int] = (120, 160),
    seed: int = 0,
    peak: float = 800.0,
    noise: Noise | None = CAMERA,
    motors: str = "",
    resolution: str = "none",
    jitter: float = 0.0,
    hot_pixels: float = 0.0,
    zingers: float = 0.0,
) -> Simulation:
    """The scan of a crystal.

    geometry: Kept with the scan; its energy sets the middle of a scan of ccmth, its scattering angle the resolution.
    shape: Length of one to three scan axes.  frame_shape: Rows and columns.
    peak: Expected photons of the brightest pixel at its peak.
    noise: Of the camera; None gives the expected photons.
    motors: Of the scan, slowest first, with the step in degrees where it is to be another: "chi mu:0.01".
    resolution: Of the instrument: none, microscope (`scan.microscope`) or widths in degrees, "mu:0.01 chi:0.02".
    jitter: Standard deviation of the motors about their places, in steps; the places reached are recorded.
    hot_pixels: Fraction of the pixels that have a dark current.  zingers: Mean number of events of gamma rays in a frame.
    """
    for name, value, high in (
        ("peak", peak, math.inf),
        ("jitter", jitter, 0.5),
        ("hot_pixels", hot_pixels, 0.5),
        ("zingers", zingers, 1e6),
    ):
        if not (0 <= value <= high and math.isfinite(value)) or (name == "peak" and value == 0):
            raise InputError(f"option {name} must be {'positive' if name == 'peak' else f'from 0 to {high:g}'}, got {value}")
    size = (int(frame_shape[0]), int(frame_shape[1]))
    scan = scan_axes(geometry, tuple(shape), motors, resolution)
    crystal = draw(Canvas(np.random.default_rng(seed), size, scan))
    mesh, planned = scan.reached(jitter, seed), RockingCurve(scan.reached(0, seed))
    peaks, tables = _seen(crystal.peaks, scan, peak, float(planned.cell))

    def light(index: np.ndarray) -> torch.Tensor:
        part = RockingCurve({n: m[index] for n, m in mesh.items()}).float()
        part.cell = planned.cell.float()
        return sum((part(table) for table in tables[1:]), start=part(tables[0])).T.reshape(len(index), *size)

    dark = dark_current(hot_pixels, size, seed)
    truth = truth_of(crystal, peaks, light, mesh, scan, noise or Noise(), np.zeros(size) if dark is None else dark.numpy())
    expected = light if dark is None else lambda index: light(index) + dark
    camera = noise if noise is None or zingers == 0 else Camera.of(noise, zingers)
    name = getattr(draw, "func", draw).__name__
    return Simulation(geometry, scan.grid(mesh if jitter else None), size, expected, truth, camera, seed, name)


def _seen(
    peaks: tuple[Peak, ...], scan: ScanAxes, photons: float, cell: float
) -> tuple[tuple[Peak, ...], list[dict[str, torch.Tensor]]]:
    """Peaks as the instrument sees them, the brightest so many photons high, and as parameters of the forward model.

    The resolution adds to the covariance along the motors; what a peak sends altogether stays.
    """
    wider, totals, correlations = [], [], []
    for one in peaks:
        width = np.sqrt(one.width**2 + np.reshape(scan.resolution, (-1, 1, 1)) ** 2)
        inner, outer = (_determinant(w, one.width) for w in (one.width, width))
        correlations.append(
            {(i, j): CORRELATION * np.prod(one.width[[i, j]], 0) / np.prod(width[[i, j]], 0) for i, j in _pairs(scan)}
        )
        height = one.brightness * np.sqrt(inner / outer)
        wider.append(Peak(one.centre, width, height))
        totals.append(height * np.sqrt((2 * math.pi) ** len(width) * outer) / cell)
    scale = photons / max(float(one.brightness.max()) for one in wider)
    seen = tuple(Peak(one.centre, one.width, scale * one.brightness) for one in wider)
    return seen, [_table(*each, scan) for each in zip(seen, (scale * total for total in totals), correlations, strict=True)]


def _pairs(scan: ScanAxes) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(len(scan.names)), 2))


def _determinant(width: np.ndarray, own: np.ndarray) -> np.ndarray:
    """|S| of peaks so wide whose covariances are those of the peaks' own widths, shape (row, column)."""
    covariance = CORRELATION * own[:, None] * own[None]
    for i in range(len(width)):
        covariance[i, i] = width[i] ** 2
    return np.linalg.det(np.moveaxis(covariance, (0, 1), (-2, -1)))


def _table(
    peak: Peak, total: np.ndarray, correlation: Mapping[tuple[int, int], np.ndarray], scan: ScanAxes
) -> dict[str, torch.Tensor]:
    """Parameters of the forward model, one value per pixel."""
    table = {"total": total, "pedestal": np.zeros_like(total)}
    for i, name in enumerate(scan.names):
        table |= {name: peak.centre[i], f"{name}_width": peak.width[i]}
    table |= {f"{scan.names[i]}_{scan.names[j]}_correlation": rho for (i, j), rho in correlation.items()}
    return {name: torch.as_tensor(values.ravel(), dtype=torch.float32) for name, values in table.items()}
