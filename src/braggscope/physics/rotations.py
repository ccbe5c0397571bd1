"""Rotations of a crystal on its goniometer.

Laboratory frame: x along the beam, z upwards, y = z cross x. Angles are radians; a rotation by a positive angle about an axis is
right-handed. Matrices act on column vectors. Functions take tensors of any leading shape and keep device and dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def about_axis(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotation matrix about a unit axis, R = 1 + sin(a) K + (1 - cos a) K^2 with K v = axis x v (Rodrigues 1840).

    axis: Shape (..., 3), of length 1.  angle: Radians, shape (...,); both broadcast.  Returns shape (..., 3, 3).

    >>> about_axis(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(torch.pi / 2)).round().int().tolist()
    [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    """
    k = cross_matrix(axis)
    sine, versine = torch.sin(angle)[..., None, None], 2 * torch.sin(angle / 2)[..., None, None] ** 2
    return torch.eye(3, dtype=k.dtype, device=k.device) + sine * k + versine * (k @ k)


def cross_matrix(vector: Tensor) -> Tensor:
    """The matrix K with K v = vector x v; shape (..., 3) -> (..., 3, 3)."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [torch.stack(r, -1) for r in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    return torch.stack(rows, -2)


def goniometer(axes: Sequence[Sequence[float]], angles: Sequence[Tensor]) -> Tensor:
    """Rotation from the sample to the laboratory, R_1(a_1) R_2(a_2) ..., the outermost (first) axis carrying all others.

    axes: Unit axis of each motor at zero, in the laboratory (Busing & Levy 1967 for the order).
    angles: Of each motor, radians, shapes that broadcast to (...,).  Returns shape (..., 3, 3).
    """
    total = None
    for axis, angle in zip(axes, angles, strict=True):
        turn = about_axis(torch.tensor(axis, dtype=angle.dtype, device=angle.device), angle)
        total = turn if total is None else total @ turn
    if total is None:
        raise ValueError("a goniometer needs at least one axis")
    return total


def rotation_vector(matrix: Tensor) -> Tensor:
    """Axis times angle of a rotation below pi, accurate for small ones; shape (..., 3, 3) -> (..., 3), radians.

    The antisymmetric part is axis sin(a), the trace 1 + 2 cos(a).
    """
    m = matrix
    skew = torch.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1) / 2
    sine = skew.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, (m.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - 1) / 2)
    return skew * torch.where(sine > 0, angle / torch.where(sine > 0, sine, torch.ones_like(sine)), torch.ones_like(sine))


def from_rotation_vector(vector: Tensor) -> Tensor:
    """The inverse of `rotation_vector`; shape (..., 3) -> (..., 3, 3)."""
    angle = vector.norm(dim=-1)
    safe = torch.where(angle > 0, angle, torch.ones_like(angle))
    return about_axis(vector / safe[..., None], angle)


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """Angle between two vectors, atan2(|a x b|, a . b), accurate for small ones; shapes (..., 3) -> (...,), radians."""
    a, b = torch.broadcast_tensors(a, b)
    return torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1))


def rotation_between(a: Tensor, b: Tensor) -> Tensor:
    """Axis times angle of the smallest rotation that takes direction a to direction b, accurate for small ones.

    w = (a x b) / |a x b| atan2(|a x b|, a . b): nothing turns about a or b. Opposite directions, which have no such axis, give 0.

    a, b: Of any length, shapes (..., 3) that broadcast.  Returns shape (..., 3), radians.

    >>> rotation_between(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 3.0, 0.0])).tolist()
    [0.0, 0.0, 1.5707963705062866]
    """
    a, b = torch.broadcast_tensors(a, b)
    cross = torch.linalg.cross(a, b)
    length = cross.norm(dim=-1, keepdim=True)
    angle = torch.atan2(length, (a * b).sum(-1, keepdim=True))
    return cross * torch.where(
        length > 0, angle / torch.where(length > 0, length, torch.ones_like(length)), torch.ones_like(length)
    )


def shortest_rotation(a: Tensor, b: Tensor) -> Tensor:
    """The rotation by the smallest angle that takes direction a to direction b (not opposite); (..., 3) -> (..., 3, 3)."""
    a, b = torch.broadcast_tensors(a, b)
    a, b = a / a.norm(dim=-1, keepdim=True), b / b.norm(dim=-1, keepdim=True)
    k = cross_matrix(torch.linalg.cross(a, b))
    along = (a * b).sum(-1)[..., None, None]
    return torch.eye(3, dtype=k.dtype, device=k.device) + k + (k @ k) / (1 + along)


def scattering_direction(two_theta: Tensor) -> Tensor:
    """Unit vector along q = k' - k for scattering upwards in the plane x-z: (-sin theta, 0, cos theta); (...,) -> (..., 3).

    two_theta: Scattering angle, radians.
    """
    theta = two_theta / 2
    return torch.stack([-torch.sin(theta), torch.zeros_like(theta), torch.cos(theta)], -1)
