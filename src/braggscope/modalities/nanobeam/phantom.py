"""Films whose strain, tilts and thickness are known, for simulation.

Each phantom gives the truth over the scan and a Source of frames drawn from the forward model. Fields are functions of the
position in the scan, y (first axis) and x (last axis) from 0 to 1. The full range is that of the published networks: strain
+-5e-3, omega +-0.05 deg, chi +-0.1 deg.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter

from braggscope.core.errors import InputError
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation

from .compiled import expected, packed, tables
from .forward import NanobeamForward
from .geometry import NanobeamGeometry, check_frame

FULL_RANGE = {"strain": 5e-3, "omega": 0.05, "chi": 0.1}
SCAN_STEP_UM = 0.05  # between scan positions; of no consequence for the frames
POISSON = Noise()


def sinusoid_sigmoid(
    geometry: NanobeamGeometry,
    *,
    shape: tuple[int, ...] = (165, 165),
    frame_shape: tuple[int, int] = (64, 64),
    seed: int = 0,
    peak: float = 7.0,
    noise: Noise | None = POISSON,
    kernel: str = "closed_form",
) -> Simulation:
    """The sample of the published methods: strain a sinusoid, the two tilts sigmoids (Luo et al. 2025), over the full range.

    shape: Length of one or two scan axes.  frame_shape: Rows and columns.
    peak: Expected counts in the brightest pixel.
    noise: None gives noise-free frames; the default is Poisson noise, with the threshold and saturation of the geometry.
    kernel: "closed_form", or "box" or "gaussian": the aliased sums of published_kernels.py, without background, to reproduce
        published numbers. Their truth has no scale: each frame has one of its own.
    """
    y, x = _positions(shape)
    fields = {
        "strain": FULL_RANGE["strain"] * np.sin(4 * np.pi * x) * np.cos(2 * np.pi * y),
        "omega": FULL_RANGE["omega"] * np.tanh(6 * (x + 0.3 * y - 0.65)),
        "chi": FULL_RANGE["chi"] * np.tanh(6 * (y - 0.2 * x - 0.4)),
    }
    return _simulation(geometry, "sinusoid_sigmoid", fields, shape, frame_shape, seed, peak, noise, kernel)


def domains(
    geometry: NanobeamGeometry,
    *,
    shape: tuple[int, ...] = (165, 165),
    frame_shape: tuple[int, int] = (64, 64),
    seed: int = 0,
    peak: float = 7.0,
    noise: Noise | None = POISSON,
    kernel: str = "closed_form",
) -> Simulation:
    """Ferroelastic stripe domains along the diagonal: the lattice tilts to and fro, and is strained in the walls.

    Arguments as in `sinusoid_sigmoid`.
    """
    y, x = _positions(shape)
    wave = np.sin(8 * np.pi * (x + y) / math.sqrt(2))
    twin = np.tanh(4 * wave)
    fields = {
        "strain": 2e-3 * (1 - twin**2) + 1e-3 * twin,
        "omega": 0.03 * twin,
        "chi": 0.06 * twin + 0.02 * (y - 0.5),
    }
    return _simulation(geometry, "domains", fields, shape, frame_shape, seed, peak, noise, kernel)


def wedge(
    geometry: NanobeamGeometry,
    *,
    shape: tuple[int, ...] = (165, 165),
    frame_shape: tuple[int, int] = (64, 64),
    seed: int = 0,
    peak: float = 7.0,
    noise: Noise | None = POISSON,
    kernel: str = "closed_form",
) -> Simulation:
    """A film whose thickness grows from 80 to 300 angstrom along x, relaxing as it does, bent along y.

    Arguments as in `sinusoid_sigmoid`.
    """
    y, x = _positions(shape)
    fields = {
        "strain": 3e-3 * (0.5 - x),
        "omega": 0.02 * (x - 0.5) * np.ones_like(y),
        "chi": 0.05 * (2 * y - 1),
        "thickness": 80.0 + 220.0 * x,
    }
    return _simulation(geometry, "wedge", fields, shape, frame_shape, seed, peak, noise, kernel)


def random_fields(
    geometry: NanobeamGeometry,
    *,
    shape: tuple[int, ...] = (165, 165),
    frame_shape: tuple[int, int] = (64, 64),
    seed: int = 0,
    peak: float = 7.0,
    noise: Noise | None = POISSON,
    kernel: str = "closed_form",
) -> Simulation:
    """Smooth random strain and tilts, each over its full range. Arguments as in `sinusoid_sigmoid`; `seed` also draws these."""
    draw = np.random.default_rng((seed, 1))
    fields = {}
    for name, high in FULL_RANGE.items():
        field = gaussian_filter(draw.standard_normal(shape), [max(n / 12, 0.5) for n in shape], mode="reflect")
        field -= (field.max() + field.min()) / 2
        fields[name] = high * field / max(np.abs(field).max(), 1e-300)
    return _simulation(geometry, "random_fields", fields, shape, frame_shape, seed, peak, noise, kernel)


def uniform(
    geometry: NanobeamGeometry,
    *,
    shape: tuple[int, ...] = (165, 165),
    frame_shape: tuple[int, int] = (64, 64),
    seed: int = 0,
    peak: float = 7.0,
    noise: Noise | None = POISSON,
    kernel: str = "closed_form",
    thickness: tuple[float, float] | None = None,
) -> Simulation:
    """Every frame its own strain and tilts, uniform over the full range: no map, but a hard test. As `random_fields`.

    thickness: Range of film thickness, also drawn uniformly, angstrom; None: that of the geometry.
    """
    draw = np.random.default_rng((seed, 2))
    fields = {name: draw.uniform(-high, high, shape) for name, high in FULL_RANGE.items()}
    if thickness is not None:
        fields["thickness"] = draw.uniform(*thickness, shape)
    return _simulation(geometry, "uniform", fields, shape, frame_shape, seed, peak, noise, kernel)


def published_grid(
    geometry: NanobeamGeometry,
    *,
    shape: tuple[int, ...] = (165, 165),
    frame_shape: tuple[int, int] = (64, 64),
    seed: int = 0,
    peak: float = 7.0,
    noise: Noise | None = POISSON,
    kernel: str = "closed_form",
    grid: int = 41,
    points: str = "random",
) -> Simulation:
    """Points of the published training set, a grid of strain, omega and chi over the full range. As `sinusoid_sigmoid`.

    grid: Points along each axis.
    points: "random" draws a point for every frame; "all" takes each once, in a scan of grid x grid^2 frames, chi fastest.
    """
    if not 2 <= grid <= 201 or points not in ("random", "all"):
        raise InputError(f"published_grid needs grid from 2 to 201 and points random or all, got {grid} and '{points}'")
    axes = [np.linspace(-high, high, grid) for high in FULL_RANGE.values()]
    if points == "all":
        shape = (grid, grid**2)
        values = [axis.reshape(shape) for axis in np.meshgrid(*axes, indexing="ij")]
    else:
        draw = np.random.default_rng((seed, 3))
        values = [axis[draw.integers(grid, size=shape)] for axis in axes]
    fields = dict(zip(FULL_RANGE, values, strict=True))
    return _simulation(geometry, "published_grid", fields, shape, frame_shape, seed, peak, noise, kernel)


def _positions(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """y and x from 0 to 1 at each scan position; a scan of one axis runs along x at y = 0.5. Shapes as the scan."""
    if len(shape) not in (1, 2) or min(shape) < 1:
        raise InputError(f"the shape of a nanobeam scan must be one or two positive lengths, got {shape}")
    axes = [np.linspace(0, 1, n) if n > 1 else np.full(1, 0.5) for n in shape]
    if len(shape) == 1:
        return np.full(shape, 0.5), axes[0]
    y, x = np.meshgrid(*axes, indexing="ij")
    return y, x


def _simulation(
    geometry: NanobeamGeometry,
    label: str,
    fields: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    frame_shape: tuple[int, int],
    seed: int,
    peak: float,
    noise: Noise | None,
    kernel: str,
) -> Simulation:
    """Frames of a film with these fields; what they do not say is constant: thickness, background, and `scale` from the peak."""
    check_frame(geometry, frame_shape)
    if not peak > geometry.background:
        raise InputError(f"peak must be above the background of the geometry ({geometry.background:g} counts), got {peak:g}")
    if noise == POISSON:
        noise = Noise(threshold=geometry.threshold, saturation=geometry.saturation or math.inf)
    background = geometry.background if kernel == "closed_form" else 0.0
    scale = peak - background if kernel == "closed_form" else math.nan
    constant = {"scale": scale, "background": background, "thickness": geometry.thickness_a}
    names = ("y", "x")[-len(shape) :]
    coords = {n: ((n,), SCAN_STEP_UM * np.arange(c), {"units": "um"}) for n, c in zip(names, shape, strict=True)}
    grid = xr.Dataset(coords=coords)
    truth = grid.copy()
    for name, param in NanobeamForward.params.items():
        values = np.broadcast_to(fields.get(name, constant.get(name, 0.0)), shape).astype(np.float64)
        truth[name] = (names, values, {"units": param.unit, "long_name": param.long_name})
    frames = (
        _frames(geometry, truth, frame_shape)
        if kernel == "closed_form"
        else _aliased(geometry, fields, frame_shape, peak, kernel)
    )
    label = label if kernel == "closed_form" else f"{label} by the published kernel {kernel}"
    return Simulation(geometry, grid, frame_shape, frames, truth, noise, seed, f"simulation of {label}")


def _frames(geometry: NanobeamGeometry, truth: xr.Dataset, frame_shape: tuple[int, int]) -> Callable[[np.ndarray], torch.Tensor]:
    """Expected counts at flat positions, by the closed form."""
    parameters = packed({name: truth[name].values.ravel() for name in NanobeamForward.params})
    return lambda index: torch.from_numpy(expected(tables(geometry, frame_shape), frame_shape, parameters[index]))


def _aliased(
    geometry: NanobeamGeometry, fields: Mapping[str, np.ndarray], frame_shape: tuple[int, int], peak: float, kernel: str
) -> Callable[[np.ndarray], torch.Tensor]:
    """Expected counts at flat positions, by a published kernel."""
    from .labelled import AXES, renderer

    if "thickness" in fields:
        raise InputError(f"kernel '{kernel}' knows one thickness, that of the geometry; the phantom has several")
    render = renderer(kernel, geometry, frame_shape, peak)
    labels = np.stack(np.broadcast_arrays(*(np.asarray(fields[name], np.float64) for name in AXES)), axis=-1).reshape(-1, 3)
    return lambda index: torch.from_numpy(render(labels[index]))
