"""Expected counts of one nanobeam frame, in closed form, and the sum over the pupil that it stands for.

Units: 1/angstrom, radians and detector pixels inside, the units of `NanobeamForward.params` at the border. Signs and axes are
those of README.md. With k the wave vector, alpha the Bragg angle, gamma(x) = alpha + atan(x p / R) the exit angle, and
G = G0 / (1 + strain) the reciprocal lattice vector, a pixel (y, x) sees one point of the pupil,

    u(x) = -[k (cos alpha - cos gamma) + G omega] / (k sin alpha)        v(y) = y p / R + G chi / k

    q_z = k (sin gamma + sin alpha) - G - u k cos alpha
    I = scale * P(u, v) * <sinc^2(t q_z / 2 pi)> + background

P is the pupil blurred by the crystal, the source and the pixel (pupil.py); <> is the mean over the pixel and the crystal's
width. Not modelled: dynamical diffraction, absorption, the substrate, a gradient of strain inside the beam.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from braggscope.core.forward import Forward, Param
from braggscope.physics.diffraction import film_fringe, film_fringe_slope

from .geometry import NanobeamGeometry
from .pupil import Pupil, pupil, transmission

DEGREE = math.pi / 180


class NanobeamForward(Forward):
    """Expected counts (..., row, column) of a frame; parameters as in `params`.

    `scale` is the number of counts that a pixel expects at full transmission of the pupil and at the maximum of a fringe that
    does not vary over the pixel: very nearly the brightest pixel of the frame, less its background.
    """

    params: ClassVar[Mapping[str, Param]] = {
        "strain": Param("1", -0.01, 0.01, "out-of-plane strain of the film"),
        "omega": Param("deg", -0.12, 0.12, "tilt in the scattering plane"),
        "chi": Param("deg", -0.25, 0.25, "tilt out of the scattering plane"),
        "scale": Param("count", 1e-3, 1e9, "expected counts at full illumination on the fringe maximum"),
        "background": Param("count", 1e-5, 1e9, "expected background per pixel"),
        "thickness": Param("angstrom", 10.0, 5000.0, "thickness of the film"),
    }

    coefficients: Tensor
    u_rest: Tensor
    v_rest: Tensor
    q_rest: Tensor
    q_spread: Tensor
    weights: Tensor

    def __init__(self, geometry: NanobeamGeometry, frame_shape: tuple[int, int], *, pupil_table: Pupil | None = None):
        """The model of a frame.

        frame_shape: Rows and columns.
        pupil_table: Pupil to use in place of the geometry's.
        """
        super().__init__()
        self.geometry = geometry
        self.frame_shape = frame_shape
        table = pupil_table or pupil(geometry)
        self.origin, self.per_pixel = table.origin, table.per_pixel
        for name, value in {"coefficients": table.coefficients, **column_terms(geometry, frame_shape[1])}.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float64))
        self.register_buffer("v_rest", torch.linspace(*geometry.rows_px(frame_shape[0]), frame_shape[0], dtype=torch.float64))

    def forward(self, params: Mapping[str, Tensor]) -> Tensor:
        """Expected counts, shape (..., row, column); `thickness` and `background` default to the geometry's."""
        return self._model(params, ())[0]

    def jacobian(self, params: Mapping[str, Tensor], names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Expected counts and their elementary derivatives, shape (..., name, row, column)."""
        return self._model(params, names)

    def light(self, params: Mapping[str, Tensor]) -> Tensor:
        """Sum of the pupil's transmission over the frame, pixels, shape (...,)."""
        place = self._place(self._complete(params))
        return self._transmission(place)[0].sum((-2, -1))

    def _model(self, params: Mapping[str, Tensor], names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Expected counts and, for any names, derivatives; each derivative moves u, v and q_z, or is one of its own."""
        p = self._complete(params)
        place = self._place(p)
        q = place["q"][..., None] + self._like(self.q_spread, place["q"])
        weights, thickness = self._like(self.weights, q), p["thickness"][..., None]
        fringe = (film_fringe(thickness * q) * weights).sum(-1)[..., None, :]
        value, by_v, by_u = self._transmission(place)
        scale = p["scale"][..., None]
        expected = scale * value * fringe + p["background"][..., None]
        if not names:
            return expected, expected
        slope = film_fringe_slope(thickness * q) * weights
        along, across = scale * by_u * fringe, scale * by_v * fringe
        steep = scale * value * (slope.sum(-1)[..., None, :] * thickness)
        rates = self._rates(p)
        columns = []
        for name in names:
            if name in rates:
                u_by, v_by, q_by = (rate[..., None] for rate in rates[name])
                columns.append(along * u_by + across * v_by + steep * q_by)
            elif name == "thickness":
                columns.append(scale * value * (slope * q).sum(-1)[..., None, :])
            else:
                columns.append((value * fringe if name == "scale" else torch.ones_like(expected)).expand_as(expected))
        return expected, torch.stack(columns, dim=-3)

    def _transmission(self, place: Mapping[str, Tensor]) -> Tensor:
        coefficients = self._like(self.coefficients, place["u"])
        return transmission(coefficients, self.origin, self.per_pixel, place["v"], place["u"])

    def _place(self, p: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Point of the pupil (v of each row, u of each column; pixels) and q_z of each column."""
        g0, stretch = self.geometry.reciprocal_length, 1 / (1 + p["strain"])
        u_shift = g0 * stretch * p["omega"] * self._per_degree[0]
        v_shift = g0 * stretch * p["chi"] * self._per_degree[1]
        # q_z without a difference of large numbers, so that float32 is enough
        q_shift = g0 * p["strain"] * stretch - u_shift * self._k_cos
        rest = {name: self._like(getattr(self, f"{name}_rest"), q_shift) for name in "uvq"}
        return {"u": rest["u"] + u_shift, "v": rest["v"] + v_shift, "q": rest["q"] + q_shift}

    def _rates(self, p: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """How u, v and q_z move with strain, omega and chi, in their units."""
        stretch = 1 / (1 + p["strain"])
        g = self.geometry.reciprocal_length * stretch
        u_omega, v_chi, none = g * self._per_degree[0], g * self._per_degree[1], torch.zeros_like(g)
        u_strain, v_strain = -u_omega * stretch * p["omega"], -v_chi * stretch * p["chi"]
        return {
            "strain": (u_strain, v_strain, g * stretch - u_strain * self._k_cos),
            "omega": (u_omega, none, -u_omega * self._k_cos),
            "chi": (none, v_chi, none),
        }

    @property
    def _per_degree(self) -> tuple[float, float]:
        """Pixels that u and v move per degree of tilt and unit of G."""
        k = self.geometry.wavevector
        pixels = DEGREE / (k * self.geometry.pixel_angle)
        return -pixels / self.geometry.bragg_sine, pixels

    @property
    def _k_cos(self) -> float:
        """Change of q_z per pixel of u, k cos(alpha) p / R."""
        return self.geometry.wavevector * math.cos(self.geometry.bragg_angle) * self.geometry.pixel_angle

    def _complete(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All parameters, each with one axis behind the leading ones."""
        some = params["strain"]
        defaults = {"thickness": self.geometry.thickness_a, "background": self.geometry.background}
        full = {name: some.new_tensor(value) for name, value in defaults.items() if name not in params}
        values = torch.broadcast_tensors(*(full.get(name, params.get(name, some)) for name in self.params))
        return {name: value[..., None] for name, value in zip(self.params, values, strict=True)}

    def _like(self, buffer: Tensor, other: Tensor) -> Tensor:
        return buffer.to(device=other.device, dtype=other.dtype)


def column_terms(geometry: NanobeamGeometry, columns: int) -> dict[str, np.ndarray]:
    """What depends on the column alone, at zero strain and tilt, float64.

    u_rest: Point of the pupil, pixels, shape (column,).
    q_rest: q_z, 1/angstrom, shape (column,).
    q_spread: Deviations of q_z at the Gauss points of a pixel, shape (column, point).
    weights: Of these points, shape (point,).
    """
    k, alpha, step = geometry.wavevector, geometry.bragg_angle, geometry.pixel_angle
    x = np.linspace(*geometry.columns_px(columns), columns)
    gamma = alpha + np.arctan(x * step)
    turn = step / (1 + (x * step) ** 2)  # d gamma / dx
    # sin a - sin b and cos a - cos b as products, which keep all digits
    half, mean = (gamma - alpha) / 2, (gamma + alpha) / 2
    u = -2 * np.sin(half) * np.sin(mean) / np.sin(alpha)
    q = k * 2 * np.sin(half) * np.cos(mean) - u * k * math.cos(alpha)
    q_per_px = turn * k * (np.cos(gamma) + np.sin(gamma) / math.tan(alpha))
    sigma = geometry.blur_px[1] / 2
    phase = geometry.thickness_a * float(q_per_px.max()) * (0.5 + 2 * sigma)  # across half a pixel
    nodes, weights = _pixel_rule(sigma, 2 + math.ceil(2 * phase))
    return {"u_rest": u / step, "q_rest": q, "q_spread": q_per_px[:, None] * nodes, "weights": weights}


def _pixel_rule(sigma: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss quadrature for the box of one pixel blurred by a Gaussian: nodes (pixels) and weights.

    By the three-term recurrence of the measure (Golub & Welsch 1969), which is sampled finely. The Gaussian counts half: the
    crystal's width moves the point of the pupil, not the pixel, and q_z follows the two equally.
    """
    grid = np.linspace(-0.5 - 8 * sigma, 0.5 + 8 * sigma, 4001)
    if sigma > 0:
        from scipy.special import ndtr

        mass = ndtr((grid + 0.5) / sigma) - ndtr((grid - 0.5) / sigma)
    else:
        mass = np.ones_like(grid)
    mass[[0, -1]] /= 2
    mass /= mass.sum()
    off: list[float] = []
    before, now = np.zeros_like(grid), np.ones_like(grid)
    for _ in range(points - 1):  # Lanczos; the diagonal is zero by symmetry
        following = grid * now - (off[-1] if off else 0.0) * before
        off.append(math.sqrt(float((mass * following**2).sum())))
        before, now = now, following / off[-1]
    nodes, vectors = np.linalg.eigh(np.diag(off, 1) + np.diag(off, -1))
    return nodes, vectors[0] ** 2


def full_pupil_sum(
    geometry: NanobeamGeometry,
    frame_shape: tuple[int, int],
    params: Mapping[str, float],
    *,
    step_px: float = 0.02,
    points: int = 8,
) -> Tensor:
    """Expected counts of one frame as the sum over the open pupil, without any of the approximations of the closed form.

    I(y, x) = sum over (v, u) of Gy(y, v) D(v, u) Gx(x, u) S(x, u), exactly separable; averaged over the pixel. It is the
    independent test of `NanobeamForward`, some thousand times slower. Normalised like it; float64.

    params: One number per parameter; units as in `NanobeamForward.params`.
    step_px: Sampling of the pupil, pixels.
    points: Gauss points over the pixel along x; across, the mean over the pixel is exact.
    Raises ValueError for a geometry with a pupil file, whose blur is not known.
    """
    if geometry.pupil_file is not None:
        raise ValueError("the sum over the pupil needs the ideal pupil, not a pupil_file")
    k, alpha, angle = geometry.wavevector, geometry.bragg_angle, geometry.pixel_angle
    width = geometry.crystal_width_tau * k * angle  # s
    g = geometry.reciprocal_length / (1 + params["strain"])
    thickness = params.get("thickness", geometry.thickness_a)
    inner, outer = geometry.ring_radii_px
    reach = outer + 5 * geometry.source_px + 1
    pupil_px = torch.arange(-reach, reach, step_px, dtype=torch.float64)
    radius = torch.hypot(pupil_px[:, None], pupil_px)
    is_open = ((radius > inner) & (radius < outer)).double()
    if geometry.source_px > 0:
        from scipy.ndimage import gaussian_filter

        is_open = torch.as_tensor(gaussian_filter(is_open.numpy(), geometry.source_px / step_px))
    y = torch.linspace(*geometry.rows_px(frame_shape[0]), frame_shape[0], dtype=torch.float64)[:, None]
    shift = g * params["chi"] * DEGREE / k / angle
    sigma = geometry.blur_px[0]
    ndtr = torch.special.ndtr
    across = ndtr((y + shift - pupil_px + 0.5) / sigma) - ndtr((y + shift - pupil_px - 0.5) / sigma)
    lit = (across * step_px) @ is_open
    x = torch.linspace(*geometry.columns_px(frame_shape[1]), frame_shape[1], dtype=torch.float64)
    nodes, weights = np.polynomial.legendre.leggauss(points)
    result = torch.zeros(frame_shape, dtype=torch.float64)
    for node, weight in zip(nodes / 2, weights / 2, strict=True):
        gamma = alpha + torch.atan((x + node) * angle)
        qx = k * (math.cos(alpha) - torch.cos(gamma)) + g * params["omega"] * DEGREE
        qx = qx[:, None] + k * math.sin(alpha) * angle * pupil_px
        qz = (k * (torch.sin(gamma) + math.sin(alpha)) - g)[:, None] - k * math.cos(alpha) * angle * pupil_px
        rod = torch.exp(-((qx / width) ** 2)) * (k * math.sin(alpha) * angle * step_px / (width * math.sqrt(math.pi)))
        result += weight * lit @ (rod * torch.special.sinc(thickness * qz / (2 * math.pi)) ** 2).T
    return params["scale"] * result + params.get("background", geometry.background)


def example() -> tuple[NanobeamForward, dict[str, Tensor]]:
    """A frame of the published film, not square, and two points to try it at."""
    from .geometry import published

    values = {
        "strain": [1e-3, -2e-3],
        "omega": [0.01, -0.03],
        "chi": [0.06, -0.02],
        "scale": [7.0, 30.0],
        "background": [0.1, 0.5],
    }
    params = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    return NanobeamForward(published(), (58, 64)), {**params, "thickness": torch.tensor([117.0, 180.0], dtype=torch.float64)}
