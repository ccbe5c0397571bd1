"""What an image needs beside the crystal: rays through the beam, the offset of the goniometer and the resolution, as numbers.

Exact rotations (Poulsen et al. 2021, J. Appl. Cryst. 54, 1555): laboratory <- sample is Gamma = R_y(-theta) Omega R_x(chi)
R_y(-phi), and

    q_s = F^-T q - q - (phi - dtt/2, chi, dtt / (2 tan theta)),    q_1 = (cos theta, 0, sin theta) . q_s,    |q| = 1,

and the image is the integral through the beam, along the diffracted beam (cos 2theta, 0, sin 2theta), of p(q_1). A pixel is
pixel / sin 2theta long along x of the laboratory.

Conventions "legacy" are those of the released code of Brennan et al.: see `_legacy`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.linalg import eigh_tridiagonal

from .setting import FWHM, Setting

Array = np.ndarray


@dataclass(frozen=True)
class Optics:
    """The image of a setting: rays, offset and resolution.

    pitch_nm: Of the image along x and y of the laboratory.
    depth_nm, weight_nm: Quadrature through the beam, shape (depth,), with its profile, 1 at the centre.
    tilt: 1 / tan 2theta: x of a ray at height z is x + z tilt.
    gamma: Laboratory <- sample, shape (3, 3).
    offset: (phi - dtt/2, chi, dtt / (2 tan theta)), in q_s.
    along: The row c with q_1 = c . q_s.
    centre, half_width, sigma: Of the resolution, a box convolved with a Gaussian.
    yy_sign: Sign of 2 nu in H_yy of an edge: 1; in the released code -1.
    """

    pitch_nm: tuple[float, float]
    depth_nm: Array
    weight_nm: Array
    tilt: float
    gamma: Array
    offset: Array
    along: Array
    centre: float
    half_width: float
    sigma: float
    yy_sign: float

    def axes_nm(self, shape: tuple[int, int]) -> tuple[Array, Array]:
        """x of the rows and y of the columns of an image in the laboratory at z = 0, nm; 0 in its middle."""
        x, y = ((np.arange(n) - (n - 1) / 2) * p for n, p in zip(shape, self.pitch_nm, strict=True))
        return x, y


def optics_of(setting: Setting) -> Optics:
    """The optics of a setting."""
    return _legacy(setting) if setting.conventions == "legacy" else _exact(setting)


def _exact(setting: Setting) -> Optics:
    theta, two_theta = math.radians(setting.two_theta_deg) / 2, math.radians(setting.two_theta_deg)
    phi, chi, omega, shift = (
        math.radians(v) for v in (setting.phi_deg, setting.chi_deg, setting.omega_deg, setting.two_theta_offset_deg)
    )
    nodes, weights = through_the_beam(setting)
    return Optics(
        pitch_nm=(setting.pixel_nm / math.sin(two_theta), setting.pixel_nm),
        depth_nm=nodes,
        weight_nm=weights,
        tilt=1 / math.tan(two_theta),
        gamma=turn_y(-theta) @ turn_z(omega) @ turn_x(chi) @ turn_y(-phi),
        offset=np.array([phi - shift / 2, chi, shift / 2 / math.tan(theta)]),
        along=np.array([math.cos(theta), 0.0, math.sin(theta)]),
        centre=0.0,
        half_width=math.cos(theta) * math.radians(setting.divergence_deg) / 2,
        sigma=setting.resolution or math.sin(theta) * setting.bandwidth_fwhm / FWHM,
        yy_sign=1.0,
    )


def _legacy(setting: Setting) -> Optics:
    """The released code: Gamma with R_y(+theta), phi counted with the other sign and again in the centre of the resolution, the
    part q_1 by the first row of R_y(theta)^2 Gamma; pixels as on the detector.
    """
    theta = math.radians(setting.two_theta_deg) / 2
    phi, chi, shift = (math.radians(v) for v in (setting.phi_deg, setting.chi_deg, setting.two_theta_offset_deg))
    gamma = turn_y(theta) @ turn_x(chi) @ turn_y(-phi)
    half_width = math.cos(theta) * math.radians(setting.divergence_deg) / 2
    sigma = setting.resolution or math.sin(theta) * setting.bandwidth_fwhm / FWHM
    nodes, weights = through_the_beam(setting)
    return Optics(
        pitch_nm=(setting.pixel_nm, setting.pixel_nm),
        depth_nm=nodes,
        weight_nm=weights,
        tilt=1 / math.tan(2 * theta),
        gamma=gamma,
        offset=-np.array([phi - shift / 2, chi, shift / 2 / math.tan(theta)]),
        along=(turn_y(theta) @ turn_y(theta) @ gamma)[0],
        centre=math.cos(theta) * phi,
        half_width=half_width,
        sigma=sigma,
        yy_sign=-1.0,
    )


@cache
def through_the_beam(setting: Setting) -> tuple[Array, Array]:
    """Gauss' quadrature with the beam's profile, a Gaussian (1 at its centre) cut off on both sides: heights and weights, nm.

    The recurrence of the orthogonal polynomials by Stieltjes' procedure on a fine Legendre rule, then Golub & Welsch 1969.
    """
    spread, half = setting.beam_fwhm_nm / FWHM, setting.beam_half_height_nm
    x, w = np.polynomial.legendre.leggauss(max(200, 4 * setting.depth_points))
    w = w * half * np.exp(-((x * half / spread) ** 2) / 2)
    before, now = np.zeros_like(x), np.ones_like(x) / math.sqrt(w.sum())
    off: list[float] = []
    for _ in range(setting.depth_points):
        following = x * now - (off[-1] if off else 0.0) * before  # the weight is even: no diagonal terms
        off.append(math.sqrt((w * following**2).sum()))
        before, now = now, following / off[-1]
    nodes, vectors = eigh_tridiagonal(np.zeros(setting.depth_points), np.array(off[:-1]))
    return nodes * half, w.sum() * vectors[0] ** 2


def turn_x(angle: float) -> Array:
    """Rotation about x, right-handed, radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def turn_y(angle: float) -> Array:
    """Rotation about y, right-handed, radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def turn_z(angle: float) -> Array:
    """Rotation about z, right-handed, radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
