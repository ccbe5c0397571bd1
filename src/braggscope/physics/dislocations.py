"""Distortion fields of dislocations in isotropic linear elasticity.

The dislocation frame has z along the line t, y along the normal n of the slip plane and x = n x t. The Burgers vector is
b = b_e x + b_s t (b_e: edge part, b_s: screw part), so that x, n and t follow from n and t alone, for edge, screw and mixed
lines alike. The sign: the displacement u gains b on a circuit that is right-handed about t, b = closed integral of H dl with
H_ij = du_i/dx_j (RH/FS with the line t, Hirth & Lothe 1982, ch. 1-3). A part of b along n, which glide cannot move, is an edge
dislocation turned by 90 degrees. Lengths are all in one unit. Left out: the core (the fields are infinite on the line), surfaces,
anisotropy (`anisotropic_dislocations`) and curved lines (`dislocation_segments`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def edge_field(x: Tensor, y: Tensor, burgers: Tensor | float, poisson: float) -> Tensor:
    """Distortion of an edge dislocation along z with Burgers vector along x (Hirth & Lothe 1982, eqs 3-43, differentiated).

    With K = b / (4 pi (1 - nu)) and r2 = x^2 + y^2 (Poulsen et al. 2021, J. Appl. Cryst. 54, 1555):

        H_xx = -K y (3 x^2 + y^2 - 2 nu r2) / r2^2    H_xy = K x (3 x^2 + y^2 - 2 nu r2) / r2^2
        H_yx = -K x (x^2 + 3 y^2 - 2 nu r2) / r2^2    H_yy = K y (x^2 - y^2 + 2 nu r2) / r2^2

    x, y: Position from the line, shape (...,).  burgers: Length b, unit of x.  poisson: nu.  Returns shape (..., 3, 3).

    >>> edge_field(torch.tensor(1.0), torch.tensor(0.0), 1.0, 0.25)[0, 1].item()  # 2.5 / (3 pi)
    0.2652582...
    """
    k, r2 = burgers / (4 * math.pi * (1 - poisson)), x**2 + y**2
    middle = 3 * x**2 + y**2 - 2 * poisson * r2
    xx, xy = -k * y * middle / r2**2, k * x * middle / r2**2
    yx, yy = -k * x * (x**2 + 3 * y**2 - 2 * poisson * r2) / r2**2, k * y * (x**2 - y**2 + 2 * poisson * r2) / r2**2
    zero = torch.zeros_like(xx)
    return torch.stack([xx, xy, zero, yx, yy, zero, zero, zero, zero], -1).unflatten(-1, (3, 3))


def screw_field(x: Tensor, y: Tensor, burgers: Tensor | float) -> Tensor:
    """Distortion of a screw dislocation along z: H_zx = -(b / 2 pi) y / r2, H_zy = (b / 2 pi) x / r2 (Hirth & Lothe, eq. 3-2).

    Arguments as in `edge_field`.

    >>> screw_field(torch.tensor(0.0), torch.tensor(2.0), 1.0)[2, 0].item()  # -1 / (4 pi)
    -0.0795774...
    """
    k, r2 = burgers / (2 * math.pi), x**2 + y**2
    zero = torch.zeros_like(r2 * k)
    return torch.stack([zero] * 6 + [-k * y / r2, k * x / r2, zero], -1).unflatten(-1, (3, 3))


def dislocation_frame(normal: Tensor, line: Tensor) -> Tensor:
    """Rows x = n x t, y = n, z = t of unit length: the rotation from the frame of n and t into that of the dislocation.

    normal, line: Shape (..., 3), perpendicular, of any length.  Returns shape (..., 3, 3).
    """
    n, t = normal / normal.norm(dim=-1, keepdim=True), line / line.norm(dim=-1, keepdim=True)
    return torch.stack([torch.linalg.cross(n, t), n, t], -2)


def climb_field(x: Tensor, y: Tensor, burgers: Tensor | float, poisson: float) -> Tensor:
    """Distortion of an edge dislocation along z with Burgers vector along y: `edge_field` turned by 90 degrees about z.

        H_xx = K x (x^2 - y^2 - 2 nu r2) / r2^2       H_xy = K y (3 x^2 + y^2 - 2 nu r2) / r2^2
        H_yx = -K y (x^2 + 3 y^2 - 2 nu r2) / r2^2    H_yy = K x (x^2 + 3 y^2 - 2 nu r2) / r2^2

    Arguments as in `edge_field`.

    >>> climb_field(torch.tensor(0.0), torch.tensor(1.0), 1.0, 0.25)[1, 0].item()  # -2.5 / (3 pi)
    -0.2652582...
    """
    k, r2 = burgers / (4 * math.pi * (1 - poisson)), x**2 + y**2
    middle = k * (x**2 + 3 * y**2 - 2 * poisson * r2) / r2**2
    xx = k * x * (x**2 - y**2 - 2 * poisson * r2) / r2**2
    xy = k * y * (3 * x**2 + y**2 - 2 * poisson * r2) / r2**2
    zero = torch.zeros_like(xx)
    return torch.stack([xx, xy, zero, -y * middle, x * middle, zero, zero, zero, zero], -1).unflatten(-1, (3, 3))


def straight_dislocation(points: Tensor, burgers: Tensor, normal: Tensor, line: Tensor, poisson: float) -> Tensor:
    """Distortion H of a straight dislocation of any Burgers vector through the origin, in the frame of the points.

    points: Shape (..., 3), in the unit of the Burgers vector.
    burgers: Shape (..., 3); its parts along n x t, n and t are the edge, the climb-edge and the screw part.
    normal, line: Of the slip plane and along the dislocation, shape (..., 3), any length, perpendicular to each other.
    poisson: nu.
    Returns shape (..., 3, 3); F = 1 + H. The field depends on b and t alone; n only names the parts.

    >>> b, n, t = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, -1, 0], [1.0, 1, -1], [1.0, 1, 2]))
    >>> straight_dislocation(torch.tensor([3.0, 0, 0], dtype=torch.float64), b, n, t, 0.33).shape
    torch.Size([3, 3])
    """
    rotation = dislocation_frame(normal, line)
    x, y, _ = torch.einsum("...ij,...j->...i", rotation, points).unbind(-1)
    edge, climb, screw = torch.einsum("...ij,...j->...i", rotation, burgers).unbind(-1)
    own = edge_field(x, y, edge, poisson) + climb_field(x, y, climb, poisson) + screw_field(x, y, screw)
    return rotation.mT @ own @ rotation


def mixed_dislocation(points: Tensor, burgers: Tensor, line: Tensor, poisson: float) -> Tensor:
    """Distortion of a straight dislocation as by `straight_dislocation`, without a slip plane, which need not be known."""
    return straight_dislocation(points, burgers, perpendicular(line), line, poisson)


def perpendicular(line: Tensor) -> Tensor:
    """A unit vector perpendicular to each vector, shape (..., 3): across it and the axis that it is least along."""
    axis = torch.nn.functional.one_hot(line.abs().argmin(-1), 3).to(line)
    across = torch.linalg.cross(line, axis)
    return across / across.norm(dim=-1, keepdim=True)
