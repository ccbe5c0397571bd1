"""Fields of several parallel straight dislocations: dipoles, finite walls, and the infinite tilt wall in closed form.

Frames, signs and units as in `dislocations`. A field is added up dislocation by dislocation, from any field of one dislocation
through the origin, isotropic or anisotropic.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def superposed(field: Callable[[Tensor, Tensor], Tensor], points: Tensor, positions: Tensor, burgers: Tensor) -> Tensor:
    """Distortion of several dislocations, the sum of their own.

    field: Distortion of one through the origin at points with a Burgers vector, such as
        `lambda r, b: mixed_dislocation(r, b, line, poisson)`.
    points: Shape (..., 3).
    positions: A point on each line, shape (dislocation, 3).
    burgers: Shape (dislocation, 3).
    Returns shape (..., 3, 3).
    """
    total = points.new_zeros((*points.shape, 3))
    for position, one in zip(positions, burgers, strict=True):
        total = total + field(points - position, one)
    return total


def dipole(separation: Tensor, burgers: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and Burgers vectors of a dipole about the origin: b at separation / 2, -b at -separation / 2; (2, 3) each."""
    return torch.stack([separation / 2, -separation / 2]), torch.stack([burgers, -burgers])


def wall(count: int, step: Tensor, burgers: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and Burgers vectors of a wall of equal dislocations with its middle at the origin; shape (count, 3) each.

    step: From one to the next, shape (3,).
    """
    order = torch.arange(count, dtype=step.dtype, device=step.device) - (count - 1) / 2
    return order[:, None] * step, burgers.expand(count, 3)


def tilt_wall_field(x: Tensor, y: Tensor, burgers: Tensor | float, spacing: Tensor | float, poisson: float) -> Tensor:
    """Distortion of the infinite wall of edge dislocations at y = 0, +-h, ... with b along x, in the frame of `edge_field`.

    With W = (pi/h) coth(pi z / h), W' = -dW/dz, z = x + i y, the sums of 1/z and 1/z^2, and
    K = b / (4 pi (1 - nu)) (isotropic; the sum of `edge_field`, as Hirth & Lothe 1982, ch. 19, have it for the stresses)

        H_xx = K [ (1 - 2 nu) Im W + x Im W' ]    H_xy =  K [ (2 - 2 nu) Re W + x Re W' ]
        H_yy = K [ (1 - 2 nu) Im W - x Im W' ]    H_yx = -K [ (2 - 2 nu) Re W - x Re W' ]

    Far from it the strain is 0 and the lattices on both sides are turned by b/h against each other (Frank's rule).

    x, y: Shape (...,).  burgers, spacing: b and h, unit of x.  poisson: nu.  Returns shape (..., 3, 3).

    >>> tilt_wall_field(torch.tensor(9.0), torch.tensor(0.0), 0.1, 1.0, 0.3)[0, 1].item()  # b / (2 h)
    0.05...
    """
    k, q = burgers / (4 * math.pi * (1 - poisson)), math.pi / spacing
    side = torch.where(x < 0, -1.0, 1.0).to(x.dtype)  # so that no exponential grows
    small = torch.exp(-2 * q * side * torch.complex(x, y))
    first, second = q * side * (1 + small) / (1 - small), 4 * q**2 * small / (1 - small) ** 2
    shear, normal, middle = x * second.real, x * second.imag, (2 - 2 * poisson) * first.real
    outer = (1 - 2 * poisson) * first.imag
    xx, xy, yx, yy = outer + normal, middle + shear, shear - middle, outer - normal
    zero = torch.zeros_like(xx)
    return k * torch.stack([xx, xy, zero, yx, yy, zero, zero, zero, zero], -1).unflatten(-1, (3, 3))
