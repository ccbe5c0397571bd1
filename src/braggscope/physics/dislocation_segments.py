"""Distortion of networks of straight dislocation segments, finite also on the lines.

Non-singular isotropic elasticity of Cai, Arsenlis, Weinberger & Bulatov (2006, J. Mech. Phys. Solids 54, 561): every point of a
line is spread over a core of width a, which replaces the distance by R = sqrt(r^2 + a^2). Mura's line integral for the
distortion (Mura 1963, Phil. Mag. 8, 843) with the Green's function of the isotropic solid is then

    H_ij = 1/(8 pi) e_jnh oint { b_i R_ppn + d_in b_q R_ppq + [nu b_n R_ipp - b_p R_inp] / (1 - nu) } t_h dl

with R_ijk the derivatives of R by the point of observation, d_in the unit matrix. It is integrated here in closed form for a
straight segment. There is no term of a surface: the sum over a network in which every line closes, or ends at a node where the
Burgers vectors add up to 0, is the elastic distortion, however a cut is drawn. The part of a single segment has no meaning.

About a straight line the Burgers vector within the radius r is b [1 - a^4 / (r^2 + a^2)^2]: the field is that of `dislocations`
to (a/r)^2, and its curl, which is the spread line itself, falls as (a/r)^4 against the gradients. Equilibrium holds everywhere,
in the core too. A loop whose line is right-handed about n has displaced what lies on the side of n by -b against the other side
(RH/FS, sign of b as in `dislocations`, t from the start to the end of a segment). Lengths are in one unit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .dislocations import dislocation_frame, perpendicular
from .rotations import cross_matrix

PAIRS = 2**18  # points times segments at once: some 100 MB


def segment_distortion(points: Tensor, segments: Tensor, burgers: Tensor, poisson: float, core: float) -> Tensor:
    """Distortion H of a closed network of straight segments, summed over them, in the frame of the points.

    points: Shape (..., 3), in the unit of the Burgers vectors.
    segments: Start and end of each, shape (segment, 2, 3).
    burgers: Of each, with the line from start to end, shape (segment, 3).
    poisson: nu.  core: Width a, about the length of b; 0 gives the singular fields.
    Returns shape (..., 3, 3); F = 1 + H.
    """
    flat = points.reshape(-1, 3)
    size = max(1, PAIRS // max(1, len(segments)))
    parts = [_summed(part, segments, burgers, poisson, core) for part in flat.split(size)]
    return torch.cat(parts).reshape(*points.shape, 3)


def polygon(vertices: Tensor) -> Tensor:
    """The segments of a closed polygon, shape (vertex, 3) -> (vertex, 2, 3); the line follows the vertices."""
    return torch.stack([vertices, vertices.roll(-1, 0)], 1)


def circular_loop(radius: float, normal: Tensor, count: int = 48) -> Tensor:
    """A regular polygon about the origin of the area of a circle, right-handed about the normal: segments, (count, 2, 3)."""
    corner = radius * math.sqrt(2 * math.pi / (count * math.sin(2 * math.pi / count)))
    angle = torch.arange(count, dtype=normal.dtype, device=normal.device) * (2 * math.pi / count)
    first, second, _ = dislocation_frame(perpendicular(normal), normal)
    return polygon(corner * (torch.cos(angle)[:, None] * first + torch.sin(angle)[:, None] * second))


def _summed(points: Tensor, segments: Tensor, burgers: Tensor, poisson: float, core: float) -> Tensor:
    """Sum over the segments, shape (point, 3, 3): three outer products per segment, with the integrals as weights."""
    step = segments[:, 1] - segments[:, 0]
    length = step.norm(dim=-1)
    t = step / length[:, None]
    from_start = points[:, None] - segments[:, 0]
    along = (from_start * t).sum(-1)
    d = from_start - along[..., None] * t  # from the line to the point
    square = (d * d).sum(-1) + core**2
    upper, lower = _integrals(along, square), _integrals(along - length, square)
    j03, j13, j05, j15, j25 = (a - b for a, b in zip(upper, lower, strict=True))
    bd, bt = (d * burgers).sum(-1), (t * burgers).sum(-1)
    a2, q = 3 * core**2, 1 / (1 - poisson)
    v3, v5 = -2 * j03 - a2 * j05, -2 * j13 - a2 * j15  # of the vector V = integral of R_ppn: along d and along t
    normal_d = torch.linalg.cross(d, t.expand_as(d))
    normal_b = torch.linalg.cross(burgers, t)
    on_d = (v3 + q * j03)[..., None] * burgers
    on_d = on_d - 3 * q * ((bd * j05 + bt * j15)[..., None] * d + (bd * j15 + bt * j25)[..., None] * t)
    on_b = q * ((poisson * v3 + j03)[..., None] * d + (poisson * v5 + j13)[..., None] * t)
    turn = bd * v3 + bt * v5 + q * (bd * j03 + bt * j13)
    total = torch.einsum("psi,psj->pij", on_d, normal_d) + torch.einsum("psi,sj->pij", on_b, normal_b)
    return (total + (turn @ cross_matrix(t).flatten(-2)).unflatten(-1, (3, 3))) / (8 * math.pi)


def _integrals(along: Tensor, square: Tensor) -> tuple[Tensor, ...]:
    """Indefinite integrals of l^m / R^n over l with R^2 = l^2 + square, for (m, n) = (0, 3), (1, 3), (0, 5), (1, 5), (2, 5)."""
    r = (along**2 + square).sqrt()
    j03 = along / (square * r)
    j05 = j03 * (1 / r**2 + 2 / square) / 3
    return j03, -1 / r, j05, -1 / (3 * r**3), along**3 / (3 * square * r**3)
