"""The joint fit behind `calibrate`: the optics of all frames at once, with the strain and tilts of each frame.

The model is that of forward.py with the pupil's table made from the quantities to be found: two radii, the blur by the crystal
and by the source, and the illumination as a polynomial on the disc. One step of Fisher scoring treats the parameters of all
frames and of the optics together; those of the frames are eliminated exactly (Schur complement), so that a step costs little
more than fitting the frames alone and the uncertainties of the optics include theirs.

Detector positions are pixels from the beam centre, u along the scattering plane, v across it. Angles are radians here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.polynomial import Legendre
from scipy import fft
from torch import Tensor

from braggscope.infer.runtime import in_threads, workers
from braggscope.physics.diffraction import film_fringe, film_fringe_slope

from .counts import Counts
from .forward import column_terms
from .geometry import NanobeamGeometry

FRAME_PARAMETERS = ("strain", "omega", "chi", "log_scale", "log_background")
LARGEST_STEP = np.array([2e-3, 3e-4, 3e-4, 1.0, 1.0])
LOG_BACKGROUND = (math.log(1e-4), math.log(1e4))
CHUNK = 2**16  # pixels that are treated together: their derivatives fit the cache


@dataclass(frozen=True)
class Optics:
    """What `calibrate` looks for, as the fit sees it.

    outer, inner: Radii of the ring, px.
    crystal, source: Variances of the blur, by the crystal in (detector pixels / tau)^2 and by the source in px^2.
    thickness: Of the film, angstrom.
    illumination: Coefficients of `polynomials`; the illumination is 1 + their sum.
    """

    outer: float
    inner: float
    crystal: float
    source: float
    thickness: float
    illumination: tuple[float, ...]

    def vector(self) -> np.ndarray:
        """All values, in the order of `names`."""
        return np.array([self.outer, self.inner, self.crystal, self.source, self.thickness, *self.illumination])

    def moved(self, step: np.ndarray) -> Optics:
        """The optics after a step, kept physical."""
        outer, inner, crystal, source, thickness, *illumination = self.vector() + step
        return Optics(
            max(outer, 1.0), float(np.clip(inner, 0.0, 0.95 * outer)), max(crystal, 0.03**2), max(source, 0.0),
            float(np.clip(thickness, 10.0, 5000.0)), tuple(illumination),
        )  # fmt: skip


def polynomials(u: np.ndarray, v: np.ndarray, degree: int) -> np.ndarray:
    """Products of Legendre polynomials of total degree 1 to `degree`, shape (term, ...).

    u, v: Position over the radius of the pupil, shapes that broadcast to (...).
    """
    along = [Legendre.basis(i)(np.clip(u, -1.2, 1.2)) for i in range(degree + 1)]
    across = [Legendre.basis(i)(np.clip(v, -1.2, 1.2)) for i in range(degree + 1)]
    return np.stack([along[d - i] * across[i] for d in range(1, degree + 1) for i in range(d + 1)])


def degree_of(terms: int) -> int:
    """Degree of the polynomial with this many terms."""
    return round((math.sqrt(8 * (terms + 1) + 1) - 3) / 2)


@dataclass(frozen=True)
class PupilGrid:
    """A square grid over the pupil: number of samples along each axis and their pitch in pixels; the axis is in its middle."""

    count: int
    pitch: float

    @classmethod
    def around(cls, radius: float) -> PupilGrid:
        """A grid that holds a ring of this radius with room to grow and to be blurred."""
        pitch = max(1 / 8, radius / 250)
        return cls(2 * fft.next_fast_len(math.ceil((1.15 * radius + 5) / pitch), real=True), pitch)

    def positions(self) -> np.ndarray:
        """Of the samples along one axis, px."""
        return (np.arange(self.count) - (self.count - 1) / 2) * self.pitch


class PupilModel:
    """Tables of the blurred pupil and of its derivatives by the optics, on a grid fixed for the fit."""

    def __init__(self, geometry: NanobeamGeometry, terms: int):
        self.radius = geometry.ring_radii_px[1]
        self.sine = geometry.bragg_sine
        self.grid = PupilGrid.around(self.radius)
        at = self.grid.positions()
        self.distance = np.hypot(at[:, None], at)
        over = at / self.radius
        self.basis = polynomials(over[None, :], over[:, None], degree_of(terms))
        wave_v = fft.fftfreq(self.grid.count, self.grid.pitch)[:, None]
        wave_u = fft.rfftfreq(self.grid.count, self.grid.pitch)[None, :]
        self.pixel = np.sinc(wave_v) * np.sinc(wave_u)
        # tables are looked up linearly, which blurs them by this on average: it is taken out before
        self.linear = np.sinc(wave_v * self.grid.pitch) ** 2 * np.sinc(wave_u * self.grid.pitch) ** 2
        # -2 pi^2 f^2 for a variance of 1 px^2 by the source, and of (s / tau)^2 = 1 by the crystal (s/sqrt 2, wider along u)
        self.by_source = -2 * np.pi**2 * (wave_u**2 + wave_v**2)
        self.by_crystal = -(np.pi**2) * (wave_u**2 / self.sine**2 + wave_v**2)

    def disc(self, radius: float) -> np.ndarray:
        """1 inside, 0 outside, the share covered on the edge."""
        return np.clip((radius - self.distance) / self.grid.pitch + 0.5, 0, 1)

    def edge(self, radius: float) -> np.ndarray:
        """Derivative of `disc` by the radius."""
        half = self.grid.pitch
        return (self.disc(radius + half) - self.disc(radius - half)) / (2 * half)

    def illumination(self, optics: Optics) -> np.ndarray:
        """Relative illumination, shape (v, u)."""
        return 1 + np.tensordot(np.array(optics.illumination), self.basis, 1)

    def transfer(self, optics: Optics) -> np.ndarray:
        """Fourier transform of the whole blur."""
        return self.pixel * np.exp(self.by_source * optics.source + self.by_crystal * optics.crystal)

    def table(self, optics: Optics) -> np.ndarray:
        """The blurred pupil, shape (v, u)."""
        image = (self.disc(optics.outer) - self.disc(optics.inner)) * self.illumination(optics)
        return self._back(fft.rfft2(image, workers=workers()) * self.transfer(optics))

    def tables(self, optics: Optics, *, derivatives: bool = True) -> Tensor:
        """The pupil, its slopes by u and v, and, if wanted, its derivatives by the optics; shape (table, v, u), float32.

        The derivatives are by outer, inner, crystal, source and each term of the illumination.
        """
        light, transfer = self.illumination(optics), self.transfer(optics) / self.linear
        ring = self.disc(optics.outer) - self.disc(optics.inner)
        spectrum = fft.rfft2(ring * light, workers=workers()) * transfer
        pupil = self._back(spectrum)
        by_v, by_u = np.gradient(pupil, self.grid.pitch)
        stack = np.stack([pupil, by_u, by_v]).astype(np.float32)
        if derivatives:
            edges = [self.edge(optics.outer) * light, -self.edge(optics.inner) * light, *(ring * self.basis)]
            images = self._back(fft.rfft2(np.stack(edges).astype(np.float32), workers=workers()) * transfer.astype(np.float32))
            blurs = [self._back((spectrum * by).astype(np.complex64)) for by in (self.by_crystal, self.by_source)]
            stack = np.concatenate([stack, images[:2], np.stack(blurs), images[2:]])
        return torch.from_numpy(stack)

    def _back(self, spectrum: np.ndarray) -> np.ndarray:
        return fft.irfft2(spectrum, (self.grid.count, self.grid.count), workers=workers())


class FrameModel:
    """Expected counts of frames and their derivatives, from the tables of a pupil."""

    def __init__(self, geometry: NanobeamGeometry, frame_shape: tuple[int, int], grid: PupilGrid):
        self.g0, self.shape = geometry.reciprocal_length, frame_shape
        k, angle = geometry.wavevector, geometry.pixel_angle
        self.u_per_tilt, self.v_per_tilt = -1 / (k * geometry.bragg_sine * angle), 1 / (k * angle)
        self.k_cos = k * math.cos(geometry.bragg_angle) * angle
        self.columns = {name: torch.as_tensor(value) for name, value in column_terms(geometry, frame_shape[1]).items()}
        self.rows = torch.linspace(*geometry.rows_px(frame_shape[0]), frame_shape[0], dtype=torch.float64)
        self.to_grid = 2 / (grid.count * grid.pitch)

    def __call__(self, tables: Tensor, thickness: float, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """Expected counts (frame, row, column) and derivatives (frame, parameter, row, column), float32.

        The parameters are FRAME_PARAMETERS and then, where the tables hold more than the pupil and its two slopes, those of
        `Optics`.
        frames: FRAME_PARAMETERS of each frame, shape (frame, parameter).
        """
        values = torch.as_tensor(frames, dtype=torch.float64)
        strain, omega, chi = (values[:, i, None] for i in range(3))
        scale, background = (torch.exp(values[:, i, None, None]).float() for i in (3, 4))
        g = self.g0 / (1 + strain)
        u_shift = g * omega * self.u_per_tilt
        u, v = self.columns["u_rest"] + u_shift, self.rows + g * chi * self.v_per_tilt
        q = self.columns["q_rest"] + self.g0 - g - u_shift * self.k_cos
        q = q[..., None] + self.columns["q_spread"]
        weights = self.columns["weights"]
        fringe, slope = film_fringe(thickness * q) * weights, film_fringe_slope(thickness * q) * weights
        fringe_x, by_q = ((f.sum(-1).float()[:, None, :]) for f in (fringe, slope * thickness))
        by_thickness = (slope * q).sum(-1).float()[:, None, :]
        looked = self._look_up(tables, u, v)
        light = scale * fringe_x
        along, across, steep = light * looked[:, 1], light * looked[:, 2], scale * looked[:, 0] * by_q
        lit = light * looked[:, 0].clamp(min=0)

        def wide(x: Tensor) -> Tensor:
            return x.float()[:, :, None]

        g_strain = -g / (1 + strain)
        u_strain = g_strain * omega * self.u_per_tilt
        u_omega = g * self.u_per_tilt
        across_strain = g_strain * chi * self.v_per_tilt
        columns = [
            along * wide(u_strain) + across * wide(across_strain) + steep * wide(-g_strain - u_strain * self.k_cos),
            along * wide(u_omega) + steep * wide(-u_omega * self.k_cos),
            across * wide(g * self.v_per_tilt),
            lit,
            background.expand_as(lit),
        ]
        if tables.shape[0] > 3:
            by_optics = light[:, None] * looked[:, 3:]
            columns += [*by_optics[:, :4].unbind(1), scale * looked[:, 0] * by_thickness, *by_optics[:, 4:].unbind(1)]
        return lit + background, torch.stack(columns, 1)

    def _look_up(self, tables: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Tables at the grid of points (v, u), shape (frame, table, row, column)."""
        count = len(u)
        points = torch.stack(
            [
                (u * self.to_grid)[:, None, :].expand(count, *self.shape),
                (v * self.to_grid)[:, :, None].expand(count, *self.shape),
            ],
            -1,
        )
        stack = tables[None].expand(count, -1, -1, -1)
        return torch.nn.functional.grid_sample(stack, points.float(), padding_mode="zeros", align_corners=False)


@dataclass
class JointFit:
    """The state of a fit.

    optics, frames: The estimates; `frames` holds FRAME_PARAMETERS, shape (frame, parameter).
    deviance: -2 log likelihood of each frame up to a constant, shape (frame,).
    covariance: Of the optics' vector, with the frames' parameters free; zero where held. None before the first joint step.
    frame_variance: Of FRAME_PARAMETERS, shape (frame, parameter).
    """

    optics: Optics
    frames: np.ndarray
    deviance: np.ndarray
    covariance: np.ndarray | None = None
    frame_variance: np.ndarray | None = None


def fit_frames(counts: Counts, model: FrameModel, table: Tensor, thickness: float, start: np.ndarray, steps: int) -> JointFit:
    """The frames alone, at given optics: Fisher scoring with a damping of 1 %."""
    frames = start.copy()
    optics = Optics(0, 0, 0, 0, thickness, ())
    for _ in range(steps):
        deviance, gradient, fisher = _normal_equations(counts, model, table[:3], thickness, frames)
        fisher[:, range(5), range(5)] *= 1.01
        frames = _stepped(frames, np.linalg.solve(fisher + _tiny(fisher), gradient[..., None])[..., 0])
    return JointFit(optics, frames, deviance)


def fit_jointly(
    counts: Counts,
    model: FrameModel,
    pupil: PupilModel,
    start: JointFit,
    free: np.ndarray,
    prior: tuple[np.ndarray, np.ndarray],
    *,
    steps: int = 30,
    damping: float = 1e-2,
) -> Iterator[JointFit]:
    """Optics and frames together; yields after each accepted step and ends when steps are small against the uncertainties.

    free: Which entries of the optics' vector may change.
    prior: Mean and inverse variance of the optics' vector, which keeps what the frames cannot tell near where it was.
    damping: Of the first step (Levenberg and Marquardt); it falls by ten with each success.
    """
    proposal, accepted, equations = start, start, None
    best, limit = math.inf, _largest_optics_step(start.optics)
    for _ in range(steps):
        found = _normal_equations(counts, model, pupil.tables(proposal.optics), proposal.optics.thickness, proposal.frames)
        off = proposal.optics.vector() - prior[0]
        objective = float(found[0].sum() + (off**2 * prior[1]).sum())
        if equations is None or objective < best + 0.1:  # float32 sums leave about 0.05
            accepted, equations, best, damping = replace(proposal, deviance=found[0]), found, objective, max(damping / 10, 1e-6)
        else:
            damping *= 10
        step, frame_steps, covariance, variance = _schur_step(*equations[1:], accepted.optics, free, prior, damping)
        accepted = replace(accepted, covariance=covariance, frame_variance=variance)
        optics = accepted.optics.moved(np.clip(step, -limit, limit))
        taken = optics.vector() - accepted.optics.vector()
        proposal = replace(accepted, optics=optics, frames=_stepped(accepted.frames, frame_steps(taken)))
        yield accepted
        sigma = np.sqrt(np.diag(covariance))[free]
        if damping > 1e3 or (damping < 1e-3 and (np.abs(taken[free]) <= 0.03 * sigma + 1e-9).all()):
            return


def _normal_equations(
    counts: Counts, model: FrameModel, tables: Tensor, thickness: float, frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deviance (frame,), gradient (frame, parameter) and Fisher matrix (frame, parameter, parameter) of the log likelihood."""
    size = max(1, CHUNK // math.prod(model.shape))
    count = len(FRAME_PARAMETERS) + (tables.shape[0] - 2 if tables.shape[0] > 3 else 0)
    deviance, gradient = np.empty(len(frames)), np.empty((len(frames), count))
    fisher = np.empty((len(frames), count, count))

    def some(start: int, stop: int) -> None:
        for first in range(start, stop, size):
            part = slice(first, min(first + size, stop))
            counted = counts.take(part)
            expected, jacobian = model(tables, thickness, frames[part])
            value, slope, information = counted.score(expected)
            flat = jacobian.flatten(2)
            deviance[part] = value.sum((1, 2), dtype=torch.float64).numpy()
            gradient[part] = torch.bmm(flat, slope.flatten(1)[..., None])[..., 0].numpy()
            fisher[part] = torch.bmm(flat * information.flatten(1)[:, None], flat.transpose(1, 2)).numpy()

    in_threads(some, len(frames))
    return deviance, gradient, fisher


def _schur_step(gradient, fisher, optics, free, prior, damping):  # type: ignore[no-untyped-def]
    """Step of the optics, the steps of the frames as a function of it, and both (co)variances.

    With the Fisher matrix of one frame in blocks [A B; B' C] and its gradient (a, c), the optics see
    S = sum(C - B' A^-1 B) and s = sum(c - B' A^-1 a); then each frame moves by A^-1 (a - B step).
    """
    own = len(FRAME_PARAMETERS)
    a, b, c = fisher[:, :own, :own].copy(), fisher[:, :own, own:], fisher[:, own:, own:]
    a += _tiny(a)
    variance = np.linalg.inv(a)[:, range(own), range(own)]
    a[:, range(own), range(own)] *= 1 + damping
    solved = np.linalg.solve(a, np.concatenate([b, gradient[:, :own, None]], -1))
    schur = (c - b.transpose(0, 2, 1) @ solved[..., :-1]).sum(0)
    slope = (gradient[:, own:] - (b.transpose(0, 2, 1) @ solved[..., -1:])[..., 0]).sum(0)
    schur = schur + np.diag(prior[1])
    slope = slope - prior[1] * (optics.vector() - prior[0])
    held = ~free
    schur[held], schur[:, held] = 0.0, 0.0
    schur[held, held], slope[held] = 1.0, 0.0
    covariance = np.linalg.inv(schur)
    covariance[held, held] = 0.0
    schur[np.diag_indices(len(schur))] *= 1 + damping
    return np.linalg.solve(schur, slope), lambda step: solved[..., -1] - solved[..., :-1] @ step, covariance, variance


def _tiny(matrices: np.ndarray) -> np.ndarray:
    """A diagonal that makes the matrices invertible where a frame tells nothing of a parameter; nothing elsewhere."""
    diagonal = np.einsum("nii->ni", matrices)
    return np.eye(diagonal.shape[1]) * np.where(diagonal <= 0, 1.0, 1e-9 * diagonal)[:, None, :]


def _stepped(frames: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The frames' parameters after a step no longer than LARGEST_STEP."""
    moved = frames + np.clip(step, -LARGEST_STEP, LARGEST_STEP)
    moved[:, 4] = np.clip(moved[:, 4], *LOG_BACKGROUND)
    return moved


def _largest_optics_step(optics: Optics) -> np.ndarray:
    terms = len(optics.illumination)
    return np.array([0.02 * optics.outer, 0.02 * optics.outer, 0.02, 0.3, 0.1 * optics.thickness] + [0.2] * terms)
