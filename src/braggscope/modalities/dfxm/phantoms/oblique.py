"""Scans of several reflections of one deformed crystal in oblique geometry, one reflection a simulation.

Every pixel looks along its diffracted ray through the sheet of light. The curve over two motors and the angle of the objective
is the sum over places on that ray of Gaussians, centred at the exact setting (`oblique.settings`) of q = F^-T q0 there. Their
covariance comes from the divergence of the beam, the acceptance of the objective and the bandwidth (Poulsen et al. 2017, J. Appl.
Cryst. 50, 1441, to first order in the angles, without its restriction to a vertical scattering plane). Truth: F on the plane, and
the peak positions of the mean q along the ray. Left out: absorption, dynamical diffraction, aberrations, the camera's blur.

Published settings (Henningsson et al. 2025, arXiv:2503.22022; darkmod, tests/end_to_end/defrec/strain_mosa.py, detector.py): beam
0.1 um (standard deviation), divergence 0.027 mrad, objective 0.556 mrad, bandwidth 6e-5 (all FWHM), 11 x 41 x 41 positions, at
most 0.98 x 64000 counts, shot noise and a Gaussian of mean 99.453 and standard deviation 2.317.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter
from torch import Tensor

from braggscope.core.errors import InputError
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation
from braggscope.physics.deformation import diffraction_vector
from braggscope.physics.dislocations import straight_dislocation

from ..geometry import DfxmGeometry
from ..oblique.component_names import COMPONENTS
from ..oblique.reflections import ReflectionSet, published, read_reflections
from ..oblique.sample_plane import View, diffracted_beam, plane_axes, view
from ..oblique.vectors import Observed, lab_vector, nominal, settings, vectors

CAMERA = Noise(gain=1.0, offset=99.453, readout=2.317, saturation=64000.0)
PEAK = 0.98 * 64000
FWHM = 2 * math.sqrt(2 * math.log(2))
DIVERGENCE, ACCEPTANCE, BANDWIDTH = 0.027e-3 / FWHM, 0.556e-3 / FWHM, 6e-5 / FWHM
SHEET_UM = 0.1
RAY_POINTS = 5
REACH = 4.0  # standard deviations of the peak that a scan holds beyond the peaks of its pixels
ALL, FAR = 0.001, 0.02  # share of the pixels left out of that: a core bends without limit, and the steps would miss the rest
SEEN = Observed(("chi", "phi"), "obpitch")

# Aluminium, as published: b along [1 -1 0], slip plane (1 1 -1), line [1 1 2]
BURGERS_UM, POISSON = 2.86e-4, 0.334
BURGERS, NORMAL, LINE = (1.0, -1.0, 0.0), (1.0, 1.0, -1.0), (1.0, 1.0, 2.0)


def edge_dislocation(
    geometry: DfxmGeometry | None,
    *,
    shape: tuple[int, ...] = (11, 41, 41),
    frame_shape: tuple[int, int] = (112, 216),
    seed: int = 0,
    peak: float = PEAK,
    noise: Noise | None = CAMERA,
    reflection: int = 1,
    reflections: str = "",
    half_deg: tuple[float, ...] = (),
) -> Simulation:
    """One straight edge dislocation through the middle of the field, by one of several reflections in oblique geometry.

    geometry: Kept with the scan where the reflections do not state one.
    shape: Points along obpitch, chi and phi.  frame_shape: Rows and columns.
    peak: Expected photons of the brightest pixel at its peak.
    reflection: Which one, counted from 1; the others are simulated with the same options and another seed.
    reflections: TOML file of them; left out, the four of aluminium of Henningsson et al. 2025.
    half_deg: Half of the range of obpitch, chi and phi; left out, 4 standard deviations beyond the peaks of 98 % of the pixels.
    """
    chosen = _chosen(reflections, geometry, reflection)
    field = dislocation_field(chosen)
    return _simulation(field, "edge_dislocation", chosen, reflection, shape, frame_shape, seed, peak, noise, half_deg, FAR)


def finite_strain(
    geometry: DfxmGeometry | None,
    *,
    shape: tuple[int, ...] = (11, 41, 41),
    frame_shape: tuple[int, int] = (112, 216),
    seed: int = 0,
    peak: float = PEAK,
    noise: Noise | None = CAMERA,
    reflection: int = 1,
    reflections: str = "",
    half_deg: tuple[float, ...] = (),
    strain: float = 2e-3,
) -> Simulation:
    """A smooth field of large strain and rotation, too large for the small-strain limit. Options as in `edge_dislocation`.

    strain: Scale of the nine components of F - 1.  half_deg: Left out, so that the peaks of 99.9 % of the pixels are held.
    """
    chosen = _chosen(reflections, geometry, reflection)
    field = smooth_field(strain)
    return _simulation(field, "finite_strain", chosen, reflection, shape, frame_shape, seed, peak, noise, half_deg, ALL)


def dislocation_field(chosen: ReflectionSet, burgers_um: float = BURGERS_UM) -> Callable[[Tensor], Tensor]:
    """F of the published dislocation at points of the sample, um, (..., 3) -> (..., 3, 3); the line is 1 pm off the origin."""
    b, n, t = (torch.from_numpy(chosen.orientation @ np.array(v)) for v in (BURGERS, NORMAL, LINE))
    b = burgers_um * b / b.norm()
    return lambda points: torch.eye(3, dtype=torch.float64) + straight_dislocation(points + 1e-6, b, n, t, POISSON)


def smooth_field(strain: float) -> Callable[[Tensor], Tensor]:
    """F = 1 + the gradient of waves a few um long, so that no dislocation is needed, scaled to strains of about this size."""
    direction = torch.tensor([[0.8, -0.5, 0.4], [0.3, 0.9, -0.6], [-0.7, 0.4, 0.8]], dtype=torch.float64)
    wave = torch.tensor([[0.9, 0.4, 0.1], [-0.5, 0.8, 0.2], [0.6, -0.7, 0.5]], dtype=torch.float64)

    def field(points: Tensor) -> Tensor:
        bend = torch.cos(points @ wave.T + torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
        return torch.eye(3, dtype=torch.float64) + strain * torch.einsum("...w,wi,wj->...ij", bend, direction, wave)

    return field


def _chosen(reflections: str, geometry: DfxmGeometry | None, reflection: int) -> ReflectionSet:
    """The reflections to simulate, the one that was asked for among them."""
    chosen = read_reflections(reflections, geometry) if reflections else published()
    if not 1 <= reflection <= len(chosen.reflections):
        raise InputError(f"reflection must be between 1 and {len(chosen.reflections)}, got {reflection}")
    return chosen


def _simulation(
    field: Callable[[Tensor], Tensor],
    label: str,
    chosen: ReflectionSet,
    reflection: int,
    shape: tuple[int, ...],
    frame_shape: tuple[int, int],
    seed: int,
    peak: float,
    noise: Noise | None,
    half_deg: tuple[float, ...],
    outside: float,
) -> Simulation:
    """The scan of one reflection of a crystal with this field F(points in the sample, um)."""
    if len(shape) != 3 or min(shape) < 3:
        raise InputError(f"phantom {label} needs three scan axes of at least 3 points, got shape {tuple(shape)}")
    one, instrument = chosen.reflections[reflection - 1], chosen.instrument
    axes = plane_axes(one.lit_plane(instrument))
    camera = view(one, instrument, axes, frame_shape)
    points, weights, brightness = _ray_points(chosen, reflection, camera, axes)
    q0 = torch.from_numpy(chosen.reference_vectors()[reflection - 1])
    q = diffraction_vector(field(points), q0)  # (ray, row, column, 3)
    centres = settings(one, instrument, SEEN, q)
    covariance = resolution(chosen, reflection)
    motors = _positions(centres, covariance, nominal(one, instrument, SEEN), shape, half_deg, outside)
    truth = _truth(field, chosen, reflection, camera, axes, (weights[:, None, None, None] * q).sum(0))
    expected = _curves(motors, centres, weights, covariance, peak * brightness)
    grid = xr.Dataset(coords={n: ((n,), np.degrees(v), {"units": "deg"}) for n, v in motors.items()})
    stated = instrument.replace(two_theta_deg=one.two_theta_deg)
    title = f"{label}, reflection {one.name}"
    return Simulation(stated, grid, frame_shape, expected, truth, noise, seed, title)


def resolution(chosen: ReflectionSet, reflection: int) -> Tensor:
    """Covariance of the motors (chi, phi, obpitch; radians) over which a perfect crystal is bright, shape (3, 3).

    The diffraction vector that a ray selects deviates by dq = k (d_out - d_in + e (k' - k)): d_in the divergence (vertical only),
    d_out the acceptance of the objective in and out of the scattering plane, e the bandwidth.
    """
    one, instrument = chosen.reflections[reflection - 1], chosen.instrument
    centre = nominal(one, instrument, SEEN)
    q, _ = lab_vector(one, instrument, SEEN, centre[2])
    k = float(q.norm()) / (2 * math.sin(math.radians(one.two_theta_deg) / 2))
    out = diffracted_beam(one)
    across = np.cross([1.0, 0.0, 0.0], out)
    across /= np.linalg.norm(across)
    parts = np.array([DIVERGENCE * k * np.array([0, 0, 1.0]), ACCEPTANCE * k * across, ACCEPTANCE * k * np.cross(out, across),
                      BANDWIDTH * q.numpy()])  # fmt: skip
    in_sample = parts @ one.rotation(instrument)
    _, jacobian = vectors(one, instrument, SEEN, centre)
    by_motor = torch.linalg.solve(jacobian, torch.from_numpy(in_sample.T.copy()))
    return by_motor @ by_motor.T


def _ray_points(chosen: ReflectionSet, reflection: int, camera: View, axes: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
    """Places on the ray of each pixel (ray, row, column, 3), their weights (ray,), and the brightness of the pixels (0 to 1).

    Gauss-Hermite nodes over the height in the sheet of light. The brightness is that of a mottled crystal with dark grains of
    dirt, fixed to the sample, so that the images of all reflections show the same.
    """
    one, instrument = chosen.reflections[reflection - 1], chosen.instrument
    x, y = camera.places(*np.meshgrid(*(np.arange(n, dtype=float) for n in camera.frame_shape), indexing="ij"))
    nodes, weights = np.polynomial.hermite_e.hermegauss(RAY_POINTS)
    ray = one.rotation(instrument).T @ diffracted_beam(one)
    ray = ray / (axes[2] @ ray)  # per height
    plane = x[..., None] * axes[0] + y[..., None] * axes[1]
    points = plane + SHEET_UM * nodes[:, None, None, None] * ray
    return torch.from_numpy(points), torch.from_numpy(weights / weights.sum()), _mottle(x, y)


def _mottle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Brightness of the sample at these places, from 0.8 to 1, smooth over 0.4 um; the same for the same place."""
    from scipy.ndimage import map_coordinates

    period, count = 20.0, 400
    texture = gaussian_filter(np.random.default_rng(7).normal(size=(count, count)), 0.4 / period * count, mode="wrap")
    texture = (texture - texture.min()) / np.ptp(texture)
    at = np.stack([y, x]) * count / period
    return 0.8 + 0.2 * map_coordinates(texture, at, order=3, mode="grid-wrap").clip(0, 1)


def _positions(
    centres: Tensor,
    covariance: Tensor,
    nominal_at: Tensor,
    shape: tuple[int, ...],
    half_deg: tuple[float, ...],
    outside: float,
) -> dict[str, np.ndarray]:
    """Motor positions in radians by name, obpitch slowest, over the given half ranges or those that the peaks need."""
    away = (centres - nominal_at).abs().flatten(0, -2)
    needed = REACH * covariance.diagonal().sqrt() + torch.quantile(away[:: max(1, len(away) // 100_000)], 1 - outside, dim=0)
    order = (2, 0, 1)
    half = [math.radians(v) for v in half_deg] or [float(needed[i]) for i in order]
    if len(half) != 3 or min(half) <= 0:
        raise InputError(f"half_deg must be three positive angles for obpitch, chi and phi, got {half_deg}")
    return {SEEN.names[i]: float(nominal_at[i]) + h * np.linspace(-1, 1, n) for i, h, n in zip(order, half, shape, strict=True)}


def _curves(
    motors: dict[str, np.ndarray], centres: Tensor, weights: Tensor, covariance: Tensor, height: np.ndarray
) -> Callable[[np.ndarray], Tensor]:
    """Expected photons at flat positions of the scan; float32 where the noise hides it anyway, in units of the peak's width."""
    mesh = np.meshgrid(*motors.values(), indexing="ij")
    of = dict(zip(motors, (m.ravel() for m in mesh), strict=True))
    points = torch.from_numpy(np.stack([of[n] for n in SEEN.names], -1))
    whiten = torch.linalg.inv(torch.linalg.cholesky(covariance))
    at = ((points - centres.flatten(0, -2).mean(0)) @ whiten.T).float()
    peaks = ((centres - centres.flatten(0, -2).mean(0)) @ whiten.T).float()
    bright = torch.from_numpy(height).float()

    def expected(index: np.ndarray) -> Tensor:
        total = torch.zeros(len(index), *bright.shape)
        for share, peak in zip(weights.tolist(), peaks, strict=True):
            square = torch.zeros_like(total)
            for axis in range(3):
                square.add_((at[index, axis, None, None] - peak[..., axis]).square_())
            total.add_(square.mul_(-0.5).exp_(), alpha=share)
        return total.mul_(bright)

    return expected


def _truth(
    field: Callable[[Tensor], Tensor], chosen: ReflectionSet, reflection: int, camera: View, axes: np.ndarray, mean_q: Tensor
) -> xr.Dataset:
    """F at the place that each pixel looks at, in the sample frame, and the peak positions of the mean q along its ray."""
    x, y = camera.places(*np.meshgrid(*(np.arange(n, dtype=float) for n in camera.frame_shape), indexing="ij"))
    f = field(torch.from_numpy(x[..., None] * axes[0] + y[..., None] * axes[1])).numpy()
    at = settings(chosen.reflections[reflection - 1], chosen.instrument, SEEN, mean_q).numpy()
    dims = ("row", "column")
    found = {n: (dims, np.degrees(at[..., i]), {"units": "deg", "long_name": f"true {n}"}) for i, n in enumerate(SEEN.names)}
    for i, name in enumerate(COMPONENTS):
        about = f"true deformation gradient, component {name}"
        found[f"F_{name}"] = (dims, f[..., i // 3, i % 3], {"units": "1", "long_name": about})
    return xr.Dataset(found)
