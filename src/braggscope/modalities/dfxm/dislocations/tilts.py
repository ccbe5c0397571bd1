"""Tilts of the lattice about a straight dislocation as one reflection shows them, and the Burgers vector that fits them.

A part of the crystal with the distortion H reflects at the goniometer angles (rocking, rolling)

    rock = -(H_zx + k H_zz),    roll = -H_zy                             (sample frame, z along q; to first order in H)

as q_s = F^-T q - q - (phi, chi, 0) is then in the middle of the resolution function. k is tan(theta), since q_1 = 0 there, but
less where the aperture of the objective cuts what a strained part diffracts (`Resolution.strain_to_rock`). Every part of the ray
of a pixel gives nearly the same integrated intensity, so that the mean position of a rocking curve that the scan holds whole is
the mean of this along the ray, weighted with the beam. It is linear in the Burgers vector for a given line and place. Published
is that images of one reflection at several settings encode the Burgers vector (Pal et al. 2025); the fit is this program's.

Left out: the extent of a pixel, curved lines, neighbours (a uniform or linear background stands for those far away).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares

from braggscope.physics.dislocations import climb_field, dislocation_frame, edge_field, screw_field

from .characters import Character
from .imaging import in_sample, rays
from .resolution import Resolution, fixed_optics
from .setting import Setting

Array = np.ndarray
STARTS = 5  # places along x and y from which the search begins
COARSE = 250  # pixels that it looks at
OUT = 60.0  # chi2 above the best, at those, from which on a character is out
STEP = 0.5  # nm, of differences by place
NO_PART = 1e-9  # nm: a part of the Burgers vector below is rounding, and its field is not computed


@dataclass(frozen=True)
class Ring:
    """Pixels around a dislocation and their tilts.

    setting: With exact conventions, at its peak.
    place: Pixels in the laboratory at z = 0, nm, shape (pixel, 2), from `middle`.
    tilt: Rock and roll, rad, shape (pixel, 2).
    whiten: W with W C W^T = 1 for the errors' covariance C, 1/rad, shape (pixel, 2, 2).
    background: Columns of the background, shape (pixel, 2, term).
    reach: How far from the origin of `place` the line may cross z = 0, nm, along x and y.
    strain_to_rock: k.
    """

    setting: Setting
    place: Array
    tilt: Array
    whiten: Array
    background: Array
    reach: Array
    strain_to_rock: float

    def __getitem__(self, which: slice) -> Ring:
        return dataclasses.replace(
            self, place=self.place[which], tilt=self.tilt[which], whiten=self.whiten[which], background=self.background[which]
        )

    def seen(self, burgers: torch.Tensor, normal: torch.Tensor, line: torch.Tensor, place: Array) -> Array:
        """Tilts of the pixels for a dislocation whose line crosses z = 0 of the laboratory at this place, rad, (pixel, 2)."""
        points, weight, gamma = _rays(self.setting)
        ray = torch.from_numpy(self.place - place) @ gamma[:2]  # sample <- laboratory
        frame = dislocation_frame(normal, line)
        x, y, _ = ((ray[:, None] + points) @ frame.T).unbind(-1)
        edge, climb, screw = (frame @ burgers).tolist()
        h = x.new_zeros(*x.shape, 3, 3)
        if abs(edge) > NO_PART:
            h += edge_field(x, y, edge, self.setting.poisson)
        if abs(climb) > NO_PART:
            h += climb_field(x, y, climb, self.setting.poisson)
        if abs(screw) > NO_PART:
            h += screw_field(x, y, screw)
        mean = torch.einsum("pdij,d->pij", h, weight / weight.sum())
        row = (frame[:, 2] @ mean) @ frame  # H_zx, H_zy, H_zz
        return torch.stack([-row[:, 0] - self.strain_to_rock * row[:, 2], -row[:, 1]], -1).numpy()


@dataclass(frozen=True)
class Fitted:
    """A kind of dislocation fitted to a ring.

    place: Where its line crosses z = 0 of the laboratory, nm, shape (2,).
    amplitude, amplitude_std: Of the Burgers vector over the lattice's, with its sign.
    chi2: With the Burgers vector as it is in the lattice, of that sign.
    place_covariance: nm^2, shape (2, 2).
    converged: Whether the search for the place ended; the place and what goes with it mean nothing otherwise.
    """

    character: Character
    place: Array
    amplitude: float
    amplitude_std: float
    chi2: float
    place_covariance: Array
    converged: bool = True


def ring(setting: Setting, place: Array, tilt: Array, covariance: Array, reach: Array, *, linear: bool = False) -> Ring:
    """A ring of pixels. Covariance: Of the errors of rock and roll, rad^2, shape (pixel, 2, 2).

    linear: Whether the background may bend the crystal, a gradient beside a constant.
    """
    exact = at_peak(setting)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    terms = [np.ones(len(place))]
    if linear:
        terms += [place[:, i] / np.abs(place[:, i]).max() for i in range(2)]
    background = np.stack([t[:, None] * np.eye(2)[k] for t in terms for k in range(2)], -1)
    return Ring(exact, place, tilt, whiten, background, reach, Resolution.of(exact).strain_to_rock())


def fitted(at: Ring, characters: Sequence[Character]) -> list[Fitted]:
    """Every character at its best place: first by some of the pixels, then by all for those that may be the best one.

    Of the others, place, amplitude and errors are those by some of the pixels, and chi2 is that of all pixels there.
    """
    every = max(1, len(at.place) // COARSE)
    coarse = at[::every]
    rough = [_fitted(coarse, one, None) for one in characters]
    if every == 1:
        return rough
    least = min(one.chi2 for one in rough)
    out = least + OUT * max(1.0, least / coarse.tilt.size)
    return [_fitted(at, one.character, one.place) if one.chi2 <= out else _scored(at, one) for one in rough]


def _fitted(at: Ring, character: Character, start: Array | None) -> Fitted:
    """The best place and amplitude of a character: with a free amplitude, and with that of the lattice (for chi2)."""
    b, n, t = (v[0] for v in in_sample([character], at.setting))

    def residual(place: Array, sign: float | None) -> Array:
        return _solved(at, at.seen(b, n, t, place), sign)[1]

    if start is None:
        grid = np.stack(np.meshgrid(*(r * np.linspace(-0.8, 0.8, STARTS) for r in at.reach), indexing="ij"), -1).reshape(-1, 2)
        start = min(grid, key=lambda p: float(np.sum(residual(p, None) ** 2)))
    free, ended = _refined(at, start, lambda p: residual(p, None))
    seen = at.seen(b, n, t, free)
    amplitude = float(_solved(at, seen, None)[0][0])
    sign = math.copysign(1.0, amplitude)
    best, ended_too = _refined(at, free, lambda p: residual(p, sign))
    spread = _covariance(at, lambda p: amplitude * at.seen(b, n, t, p), free, seen[..., None])
    place_covariance = _covariance(at, lambda p: sign * at.seen(b, n, t, p), best, np.zeros((*at.tilt.shape, 0)))
    chi2 = float(np.sum(residual(best, sign) ** 2))
    return Fitted(character, best, amplitude, math.sqrt(spread[2, 2]), chi2, place_covariance[:2, :2], ended and ended_too)


def _scored(at: Ring, one: Fitted) -> Fitted:
    """The same with chi2 over these pixels."""
    return dataclasses.replace(one, chi2=float(np.sum((at.whiten @ (at.tilt - modelled(at, one))[..., None]) ** 2)))


def modelled(at: Ring, one: Fitted) -> Array:
    """Tilts of a character with the lattice's Burgers vector and the fitted background, rad, shape (pixel, 2)."""
    b, n, t = (v[0] for v in in_sample([one.character], at.setting))
    seen = math.copysign(1.0, one.amplitude) * at.seen(b, n, t, one.place)
    level, _ = _least(at, at.background, at.tilt - seen)
    return seen + at.background @ level


def nearest(setting: Setting, place: Array, character: Character) -> Array:
    """Least distance of the ray of each pixel from a line through the origin of `place`, nm; (..., 2) -> (...,)."""
    points, _, gamma = _rays(at_peak(setting))
    _, n, t = (v[0] for v in in_sample([character], setting))
    ray = torch.from_numpy(np.concatenate([place, np.zeros((*place.shape[:-1], 1))], -1)) @ gamma
    across = (ray[..., None, :] + points) @ dislocation_frame(n, t)[:2].T
    return across.norm(dim=-1).amin(-1).numpy()


def at_peak(setting: Setting) -> Setting:
    """The same with exact conventions and all angles 0."""
    return setting.replace(conventions="exact", phi_deg=0.0, chi_deg=0.0, two_theta_offset_deg=0.0)


def log_evidence(at: Ring, found: Sequence[Fitted], scale2: float) -> Array:
    """Log of the evidence of each, up to what the background alone has as well; errors scaled by sqrt(scale2).

    Any place within reach of the centre and either sign of b are alike beforehand; a place of which the tilts tell less than that
    costs nothing.
    """
    posterior = np.array([np.linalg.slogdet(one.place_covariance * scale2)[1] for one in found]) / 2 + math.log(2 * math.pi)
    share = np.minimum(posterior - math.log(4 * math.prod(at.reach)), 0.0)
    return np.array([-one.chi2 / (2 * scale2) for one in found]) + share - math.log(2)


def background_chi2(at: Ring) -> float:
    """chi^2 of the background alone."""
    return float(np.sum(_least(at, at.background, at.tilt)[1] ** 2))


def free_burgers(at: Ring, found: Fitted) -> tuple[Array, Array]:
    """Burgers vector along Cartesian crystal axes with its length and direction free, nm (3,), and its covariance (3, 3).

    For the line and, to first order, the place of the fitted character.
    """
    _, n, t = (v[0] for v in in_sample([found.character], at.setting))
    axes = torch.from_numpy(at.setting.orientation().T.copy())  # rows: crystal axes in the sample
    basis = np.stack([at.seen(axis, n, t, found.place) for axis in axes], -1)
    linear, _ = _least(at, np.concatenate([basis, at.background], -1), at.tilt)
    b = torch.from_numpy(linear[:3]) @ axes
    covariance = _covariance(at, lambda p: at.seen(b, n, t, p), found.place, basis)[2:5, 2:5]
    return linear[:3], covariance


@functools.lru_cache(maxsize=8)
def _rays(setting: Setting) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points through the beam in the sample from where the ray crosses z = 0, (depth, 3), weights, and Gamma."""
    points, weight = rays(setting, (1, 1))
    return points[0, 0], weight, torch.from_numpy(fixed_optics(setting).gamma)


def _solved(at: Ring, seen: Array, sign: float | None) -> tuple[Array, Array]:
    """Amplitude (where it is free) and background by least squares, and the whitened residuals."""
    if sign is None:
        return _least(at, np.concatenate([seen[..., None], at.background], -1), at.tilt)
    return _least(at, at.background, at.tilt - sign * seen)


def _least(at: Ring, columns: Array, tilt: Array) -> tuple[Array, Array]:
    """Least squares of tilts on columns (pixel, 2, term): coefficients and whitened residuals."""
    a = (at.whiten @ columns).reshape(-1, columns.shape[-1])
    y = (at.whiten @ tilt[..., None]).ravel()
    x = np.linalg.lstsq(a, y, rcond=None)[0]
    return x, y - a @ x


def _refined(at: Ring, start: Array, residual: Callable[[Array], Array]) -> tuple[Array, bool]:
    """The best place from this one on, and whether the search ended by itself."""
    inside = np.clip(start, -0.999 * at.reach, 0.999 * at.reach)
    found = least_squares(residual, inside, bounds=(-at.reach, at.reach), x_scale=100.0, diff_step=1e-5, ftol=1e-6, max_nfev=20)
    return np.asarray(found.x), found.status > 0


def _covariance(at: Ring, seen: Callable[[Array], Array], place: Array, columns: Array) -> Array:
    """Covariance of place (2), the coefficients of the columns (pixel, 2, term) and the background, to first order."""
    moves = [STEP * np.eye(2)[k] for k in range(2)]
    slopes = np.stack([(seen(place + m) - seen(place - m)) / (2 * STEP) for m in moves], -1)
    a = (at.whiten @ np.concatenate([slopes, columns, at.background], -1)).reshape(2 * len(at.place), -1)
    size = np.linalg.norm(a, axis=0)
    size[size == 0] = 1.0
    return np.linalg.pinv((a / size).T @ (a / size), rcond=1e-14, hermitian=True) / np.outer(size, size)
