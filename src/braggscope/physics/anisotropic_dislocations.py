"""Distortion fields of straight dislocations in anisotropic linear elasticity.

Sextic formalism (Stroh 1958, Phil. Mag. 3, 625) in its integral form (Barnett & Lothe 1973, Phys. Norv. 7, 13; Bacon, Barnett &
Scattergood 1980, Prog. Mater. Sci. 23, 51). With m and n perpendicular to the line t = m x n, m at the angle w from a fixed
direction, (ab)_jk = a_i C_ijkl b_l and

    N_1 = -(nn)^-1 (nm)    N_2 = (nn)^-1    N_3 = (mn)(nn)^-1(nm) - (mm)
    S = <N_1>    L = -<N_3>                          (mean over w)

the distortion at the distance r from the line along m is

    H = 1/(2 pi r) [ -(S b) m^T + (N_2 L b - N_1 S b) n^T ]

S and L are means of smooth periodic functions, which equal steps of w give to rounding. No eigenvector is needed, so that the
isotropic solid, where those of Stroh's matrix become too few, is no special case, and everything can be differentiated. Frame,
sign of b and unit of lengths as in `dislocations`; everything, the stiffness too, is in one frame.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .dislocations import perpendicular

ANGLES = (
    128  # the error falls as exp(-2 ANGLES Im w) with w the complex angles where (nn) is singular: Im w is above 0.15 in metals
)


def anisotropic_dislocation(points: Tensor, burgers: Tensor, line: Tensor, stiffness: Tensor) -> Tensor:
    """Distortion H of a straight dislocation of any character through the origin of an anisotropic crystal.

    points: Shape (..., 3), in the unit of the Burgers vector.
    burgers: Shape (..., 3).
    line: Along the dislocation, shape (3,), any length.
    stiffness: C_ijkl in the frame of the points, any unit, shape (3, 3, 3, 3) (`elasticity`).
    Returns shape (..., 3, 3); F = 1 + H. Infinite on the line.

    >>> from braggscope.physics.elasticity import crystal_stiffness
    >>> t, b, at = torch.eye(3, dtype=torch.float64)[[2, 2, 0]]  # screw along [001]: by symmetry as in an isotropic solid
    >>> anisotropic_dislocation(at, b, t, crystal_stiffness("Cu"))[2, 1].item()  # 1 / (2 pi)
    0.15915494...
    """
    t = line / line.norm()
    twist, energy = barnett_lothe(t, stiffness)
    across = points - (points @ t)[..., None] * t
    r = across.norm(dim=-1, keepdim=True)
    m = across / r
    n = torch.linalg.cross(t.expand_as(m), m)
    n2 = _inverse(_contracted(n, stiffness, n))
    turned, loaded = burgers @ twist.T, burgers @ energy
    along_n = loaded + torch.einsum("...ij,...j->...i", _contracted(n, stiffness, m), turned)
    along_n = torch.einsum("...ij,...j->...i", n2, along_n)
    outer = along_n[..., :, None] * n[..., None, :] - turned[..., :, None] * m[..., None, :]
    return outer / (2 * math.pi * r[..., None])


def barnett_lothe(line: Tensor, stiffness: Tensor) -> tuple[Tensor, Tensor]:
    """The tensors S and L of a line direction, shape (3, 3) each; L (in the unit of the stiffness) is symmetric.

    The elastic energy per length between the radii r and R is b L b / (4 pi) ln(R / r).

    line: Shape (3,), of length 1.
    """
    first = perpendicular(line)
    second = torch.linalg.cross(line, first)
    w = torch.arange(ANGLES, dtype=line.dtype, device=line.device) * (math.pi / ANGLES)
    m = torch.cos(w)[:, None] * first + torch.sin(w)[:, None] * second
    n = torch.cos(w)[:, None] * second - torch.sin(w)[:, None] * first
    nm = _contracted(n, stiffness, m)
    n1 = -_inverse(_contracted(n, stiffness, n)) @ nm
    n3 = -nm.mT @ n1 - _contracted(m, stiffness, m)
    return n1.mean(0), -n3.mean(0)


def _contracted(a: Tensor, stiffness: Tensor, b: Tensor) -> Tensor:
    """(ab)_jk = a_i C_ijkl b_l, shape (..., 3, 3)."""
    both = (a[..., :, None] * b[..., None, :]).flatten(-2)
    return (both @ stiffness.permute(0, 3, 1, 2).reshape(9, 9)).unflatten(-1, (3, 3))


def _inverse(matrix: Tensor) -> Tensor:
    """Inverse of 3 x 3 matrices by their cofactors: several times faster than a factorisation of each."""
    a, b, c = matrix.unbind(-2)
    columns = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -1)
    return columns / (a * columns[..., 0]).sum(-1)[..., None, None]
