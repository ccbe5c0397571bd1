"""Images of any distortion field in a dark-field microscope, differentiable: the reference of the compiled images in `kernels`.

Frames: laboratory (x along the beam, scattering plane x-z) and sample, joined by Gamma (laboratory <- sample). A pixel at (x, y)
sees the ray (x + z / tan 2theta, y, z) through the beam; its value is the integral over the profile of the beam of the
brightness of the lattice there (Poulsen et al. 2021, J. Appl. Cryst. 54, 1555),

    q_s = F^-T q - q - offset,    F^-T q - q = -F^-T H^T q,    F = 1 + H,    q = (0, 0, 1) in the sample,

written without the difference of nearly equal vectors, so that float32 does. Angles may have leading axes, which makes
rocking stacks; all of places, Burgers vectors, lines and angles can be differentiated.

Approximated: F = 1 + H, as published, with the H of linear elasticity at the place where the ray is. That place is in the
deformed crystal, where the gradient of the displacement makes the inverse, F^-1 = 1 - H, so that F^-T q - q = -H^T q; the inverse
transpose in between is neglected. The two differ by H^T H^T q, of second order, as linear elasticity does itself: 2e-5 at 10 nm
from a line, where |H| is 5e-3.

Left out: absorption, dynamical diffraction, the point spread of objective and detector, aberrations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from braggscope.core.errors import InputError
from braggscope.physics.anisotropic_dislocations import anisotropic_dislocation
from braggscope.physics.deformation import diffraction_vector
from braggscope.physics.dislocations import dislocation_frame, straight_dislocation
from braggscope.physics.rotations import about_axis

from .characters import Character
from .resolution import Resolution, closed, fixed_optics
from .setting import Setting

Distortion = Callable[[Tensor], Tensor]
RESOLUTIONS = ("closed", "full")


def rays(
    setting: Setting, shape: tuple[int, int], *, phi: Tensor | None = None, chi: Tensor | None = None, like: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Points in the sample that the pixels of an image see, nm, shape (..., x, y, depth, 3), and their weights, nm, (depth,).

    phi, chi: Goniometer angles from the peak, rad, shape (...,); left out, those of the setting.
    like: A tensor of the dtype and device that is wanted; float64 on the CPU where neither it nor the angles say so.
    """
    phi, chi, _ = _angles(setting, phi, chi, None, like)
    optics = fixed_optics(setting)
    x, y = (torch.as_tensor(axis).to(phi) for axis in optics.axes_nm(shape))
    depth, weight = torch.as_tensor(optics.depth_nm).to(phi), torch.as_tensor(optics.weight_nm).to(phi)
    along = x[:, None, None] + depth * optics.tilt
    lab = torch.stack(torch.broadcast_tensors(along, y[:, None], depth), -1)
    gamma = _gamma(setting, phi, chi)
    return torch.einsum("...ji,xydj->...xydi", gamma, lab), weight


def image(
    setting: Setting, distortion: Distortion, shape: tuple[int, int], *, phi: Tensor | None = None, chi: Tensor | None = None,
    dtt: Tensor | None = None, resolution: str = "closed", reach: float = math.inf, like: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Depth at full reflection that each pixel sees, nm, shape (..., x, y).

    distortion: H at points of the sample, nm, (..., x, y, depth, 3) -> (..., x, y, depth, 3, 3); it may bring leading axes of its
        own, which broadcast with those of the angles.
    shape: Pixels along x and y of the laboratory.
    phi, chi, dtt: Rocking and rolling angle from the peak and shift of the scattering angle, rad, shapes (...,) that broadcast;
        left out, those of the setting.
    resolution: "closed", the function of q_1 alone, or "full", in three dimensions with the aperture of the objective.
    reach: Of the closed form (see `resolution.closed`).
    like: As in `rays`.
    Raises InputError for another resolution, and for the full one with the conventions of the released code, which lack it.
    """
    if resolution not in RESOLUTIONS:
        raise InputError(f"resolution must be one of {', '.join(RESOLUTIONS)}, got '{resolution}'")
    if resolution == "full" and setting.conventions == "legacy":
        raise InputError("resolution full needs the conventions 'exact'; those of the released code have only the closed form")
    phi, chi, dtt = _angles(setting, phi, chi, dtt, like)
    points, weight = rays(setting, shape, phi=phi, chi=chi)
    deviation = lattice_deviation(distortion(points)) - _offset(setting, phi, chi, dtt)[..., None, None, None, :]
    if resolution == "full":
        seen = Resolution.of(setting).density(deviation)
    else:
        optics = fixed_optics(setting)
        along, centre = _combination(setting, phi, chi)
        q_1 = (deviation * along[..., None, None, None, :]).sum(-1) - centre[..., None, None, None]
        seen = closed(q_1, optics.half_width, optics.sigma, reach)
    return (seen * weight).sum(-1)


def lattice_deviation(distortion: Tensor) -> Tensor:
    """F^-T q - q = -F^-T H^T q for the unit vector q along z of the sample; (..., 3, 3) -> (..., 3)."""
    unit = torch.eye(3, dtype=distortion.dtype, device=distortion.device)
    return -diffraction_vector(unit + distortion, distortion[..., 2, :])


def straight_lines(
    setting: Setting, places: Tensor, burgers: Tensor, normals: Tensor, lines: Tensor, *, stiffness: Tensor | None = None
) -> Distortion:
    """Distortion of several straight dislocations in the sample, the sum of their own.

    places: Where each line crosses the plane perpendicular to it through the origin, in its own frame (n x t, n), nm, shape
        (..., dislocation, 2); leading axes are sets of dislocations, one image each.
    burgers, normals, lines: In the sample, shape (..., dislocation, 3), burgers in nm.
    stiffness: C_ijkl in the sample, (3, 3, 3, 3), for an anisotropic crystal; left out, isotropic with
        Poisson's ratio of the setting.
    """
    frame = dislocation_frame(normals, lines)
    origin = (places[..., None, :] @ frame[..., :2, :])[..., 0, :]
    sign = fixed_optics(setting).yy_sign

    def field(points: Tensor) -> Tensor:
        total = points.new_zeros(3, 3)
        for k in range(places.shape[-2]):
            b, n, t, at = (v[..., k, :][..., None, None, None, :] for v in (burgers, normals, lines, origin))
            if stiffness is not None:
                total = total + anisotropic_dislocation(points - at, b, lines[k], stiffness)
                continue
            total = total + straight_dislocation(points - at, b, n, t, setting.poisson)
            if sign != 1:
                total = total + _released_difference(
                    points - at, b, frame[..., k, :, :][..., None, None, None, :, :], setting, sign
                )
        return total

    return field


def in_sample(characters: Sequence[Character], setting: Setting) -> tuple[Tensor, Tensor, Tensor]:
    """Burgers vectors in nm, slip-plane normals and lines in the frame of the sample, shape (character, 3) each."""
    turn = torch.from_numpy(setting.orientation())
    b, n, t = (
        torch.tensor([getattr(c, name) for c in characters], dtype=torch.float64) for name in ("burgers", "normal", "line")
    )
    b = b * setting.lattice_a / 10  # angstrom to nm
    if setting.burgers_nm is not None:
        b = b * setting.burgers_nm / b.norm(dim=-1, keepdim=True)
    return b @ turn.T, n @ turn.T, t @ turn.T


def _released_difference(points: Tensor, burgers: Tensor, frame: Tensor, setting: Setting, sign: float) -> Tensor:
    """What the sign of 2 nu in H_yy of an edge changes: (sign - 1) 2 nu K y / r2 on yy of the dislocation's frame."""
    x, y, _ = (frame @ points[..., None])[..., 0].unbind(-1)
    k = (burgers * frame[..., 0, :]).sum(-1) / (4 * math.pi * (1 - setting.poisson))
    yy = (sign - 1) * 2 * setting.poisson * k * y / (x**2 + y**2)
    return yy[..., None, None] * frame[..., 1, :, None] * frame[..., 1, None, :]


def _angles(
    setting: Setting, phi: Tensor | None, chi: Tensor | None, dtt: Tensor | None, like: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """phi, chi and the shift of the scattering angle with equal shapes, rad."""
    given = next((one for one in (phi, chi, dtt, like) if one is not None), torch.zeros((), dtype=torch.float64))
    stated = (setting.phi_deg, setting.chi_deg, setting.two_theta_offset_deg)
    values = [
        torch.tensor(math.radians(deg), dtype=given.dtype, device=given.device) if one is None else one
        for one, deg in zip((phi, chi, dtt), stated, strict=True)
    ]
    a, b, c = torch.broadcast_tensors(*values)
    return a, b, c


def _gamma(setting: Setting, phi: Tensor, chi: Tensor) -> Tensor:
    """Gamma, laboratory <- sample: R_y(-theta) Omega R_x(chi) R_y(-phi); R_y(+theta) R_x(chi) R_y(-phi) in the released code."""
    x, y, z = torch.eye(3, dtype=phi.dtype, device=phi.device)
    theta = torch.full_like(phi, math.radians(setting.two_theta_deg) / 2)
    turned = about_axis(x, chi) @ about_axis(y, -phi)
    if setting.conventions == "legacy":
        return about_axis(y, theta) @ turned
    return about_axis(y, -theta) @ about_axis(z, torch.full_like(phi, math.radians(setting.omega_deg))) @ turned


def _offset(setting: Setting, phi: Tensor, chi: Tensor, dtt: Tensor) -> Tensor:
    """(phi - dtt/2, chi, dtt / (2 tan theta)), with the other sign in the released code; shape (..., 3)."""
    theta = math.radians(setting.two_theta_deg) / 2
    offset = torch.stack([phi - dtt / 2, chi, dtt / 2 / math.tan(theta)], -1)
    return -offset if setting.conventions == "legacy" else offset


def _combination(setting: Setting, phi: Tensor, chi: Tensor) -> tuple[Tensor, Tensor]:
    """c with q_1 = c . q_s, shape (..., 3), and the centre of the resolution, (...,): (cos theta, 0, sin theta) and 0.

    In the released code the first row of R_y(theta)^2 Gamma, and cos(theta) phi.
    """
    theta = math.radians(setting.two_theta_deg) / 2
    if setting.conventions == "legacy":
        twice = about_axis(torch.tensor([0.0, 1.0, 0.0]).to(phi), torch.full_like(phi, 2 * theta))
        return (twice @ _gamma(setting, phi, chi))[..., 0, :], math.cos(theta) * phi
    along = torch.tensor([math.cos(theta), 0.0, math.sin(theta)], dtype=phi.dtype, device=phi.device)
    return along.expand(*phi.shape, 3), torch.zeros_like(phi)
