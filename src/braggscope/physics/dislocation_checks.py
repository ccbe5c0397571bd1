"""What every distortion field of dislocations must obey: the Burgers circuit, compatibility and equilibrium.

A circuit alone leaves signs free (a field may close and yet be no solution); the three together do not. A field is a function
of points, shape (..., 3) -> (..., 3, 3), H_ij = du_i/dx_j.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .dislocations import dislocation_frame, perpendicular
from .elasticity import stress

Field = Callable[[Tensor], Tensor]


def burgers_circuit(field: Field, centre: Tensor, line: Tensor, radius: float, *, count: int = 256) -> Tensor:
    """The closed integral of H dl along a slanted ellipse about a line, right-handed about it; shape (3,).

    The trapezoid rule on a closed curve, exact to rounding where the field is smooth on the scale of radius / count.

    centre: A point that the circuit goes round, shape (3,).  line: Its direction, shape (3,), any length.
    radius: Mean half axis of the ellipse.  count: Points on it.
    """
    w = torch.arange(count, dtype=centre.dtype, device=centre.device) * (2 * math.pi / count)
    axes = dislocation_frame(perpendicular(line), line)
    size = radius * torch.tensor([1.1, 0.9, 0.2], dtype=centre.dtype, device=centre.device)
    place = torch.stack([w.cos(), w.sin(), w.sin()], -1) * size
    step = torch.stack([-w.sin(), w.cos(), w.cos()], -1) * size
    return torch.einsum("pij,pj->i", field(centre + place @ axes), step @ axes) * (2 * math.pi / count)


def gradients(field: Field, points: Tensor) -> Tensor:
    """dH_ij/dx_k by automatic differentiation, shape (point, 3) -> (point, 3, 3, 3)."""
    return torch.stack([torch.func.jacrev(field)(point) for point in points])


def incompatibility(gradient: Tensor) -> Tensor:
    """Largest of dH_ij/dx_k - dH_ik/dx_j against the largest gradient, shape (...,): 0 where H is the gradient of some u."""
    return _against((gradient - gradient.mT).flatten(-3), gradient.flatten(-3))


def imbalance(gradient: Tensor, stiffness: Tensor) -> Tensor:
    """Largest force d sigma_ij/dx_j against the largest gradient of the stress, shape (...,): 0 in equilibrium."""
    by_place = stress(gradient.movedim(-1, 0), stiffness).movedim(0, -1)
    return _against(torch.einsum("...ijj->...i", by_place), by_place.flatten(-3))


def _against(part: Tensor, whole: Tensor) -> Tensor:
    return part.abs().amax(-1) / whole.abs().amax(-1)
