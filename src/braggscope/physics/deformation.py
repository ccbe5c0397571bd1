"""The deformation gradient of a crystal and what follows from it: strain, rotation, dislocation density.

F maps a vector of the reference lattice to that of the deformed one. Fields are functions of the place where they are measured
(the deformed crystal), so that 1 - F^-1 = du/dx exactly, u = x - X. Tensors have shape (..., 3, 3) in one Cartesian frame;
a change of the frame by a rotation R takes F to R F R^T. Nothing here assumes small strains where it is not said.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .rotations import cross_matrix, rotation_vector

LEVI_CIVITA = ((0, 1, 2, 1.0), (1, 2, 0, 1.0), (2, 0, 1, 1.0), (0, 2, 1, -1.0), (2, 1, 0, -1.0), (1, 0, 2, -1.0))


def diffraction_vector(deformation: Tensor, reference: Tensor) -> Tensor:
    """Diffraction vector of the deformed lattice, q = F^-T q0: planes deform by the inverse transpose of what they hold.

    deformation: F, shape (..., 3, 3).  reference: q0, shape (..., 3); both broadcast.  Poulsen et al. 2021, eq. 7.

    >>> stretched = torch.diag(torch.tensor([1.0, 1.0, 1.25]))
    >>> diffraction_vector(stretched, torch.tensor([0.0, 0.0, 5.0])).tolist()  # spacing 1.25 times, vector 1 / 1.25
    [0.0, 0.0, 4.0]
    """
    inverse = torch.linalg.inv(deformation)
    return (inverse.mT @ reference[..., None])[..., 0]


def polar(deformation: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation R and right stretch U of F = R U, U symmetric (polar decomposition by singular values, det F > 0).

    Returns both of shape (..., 3, 3).
    """
    u, s, vh = torch.linalg.svd(deformation)
    return u @ vh, vh.mT @ (s[..., None] * vh)


def biot_strain(deformation: Tensor) -> Tensor:
    """Biot strain U - 1: in the frame of the undeformed lattice, free of rotation, relative elongations on its diagonal.

    >>> biot_strain(torch.diag(torch.tensor([1.0, 1.0, 1.25])))[2, 2].item()
    0.25
    """
    return polar(deformation)[1] - torch.eye(3, dtype=deformation.dtype, device=deformation.device)


def green_lagrange_strain(deformation: Tensor) -> Tensor:
    """Green-Lagrange strain (F^T F - 1) / 2.

    >>> green_lagrange_strain(torch.diag(torch.tensor([1.0, 1.0, 1.25])))[2, 2].item()
    0.28125
    """
    return (deformation.mT @ deformation - torch.eye(3, dtype=deformation.dtype, device=deformation.device)) / 2


def infinitesimal_strain(deformation: Tensor) -> Tensor:
    """Strain in the limit of small strain and rotation, the symmetric part of F - 1; wrong by half the square of the rotation."""
    return (deformation + deformation.mT) / 2 - torch.eye(3, dtype=deformation.dtype, device=deformation.device)


def lattice_rotation(deformation: Tensor) -> Tensor:
    """Rotation vector (axis times angle, radians) of R in F = R U; shape (..., 3)."""
    return rotation_vector(polar(deformation)[0])


def distortion(deformation: Tensor) -> Tensor:
    """Elastic distortion 1 - F^-1 = du/dx; F - 1 in the limit of small ones."""
    return torch.eye(3, dtype=deformation.dtype, device=deformation.device) - torch.linalg.inv(deformation)


def dislocation_density(gradient: Tensor) -> Tensor:
    """Nye's dislocation density, alpha_ij = e_jkl d_k beta_il: the curl of each row of the elastic distortion (Nye 1953).

    gradient: d_k beta_il with indices (..., i, l, k), the derivative last, per length.  Returns shape (..., 3, 3), 1 / length.

    The sign: the integral of alpha_ij n_j over a surface with normal n is the Burgers vector b_i = closed integral of
    beta_il dx_l around its edge, right-handed about n (RH/FS, as in physics.dislocations); one dislocation with line t
    gives alpha = b t^T per area. Where beta = F - 1 belongs to a displacement it is zero.
    """
    alpha = torch.zeros_like(gradient[..., 0])
    for j, k, m, sign in LEVI_CIVITA:
        alpha[..., :, j] += sign * gradient[..., :, m, k]
    return alpha


def deformation_from_vectors(measured: Tensor, reference: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """F by weighted regression of q_k = A q0_k, A = F^-T, over the reflections (Henningsson et al. 2025, arXiv:2503.22022).

    Linear and exact: the weights are the inverse covariances of the measured vectors, nothing is assumed small.
    Lengths are taken relative to |q0_k|, so that any unit will do.

    measured: q_k, shape (..., reflection, 3).  reference: q0_k, shape (reflection, 3), at least three, not coplanar.
    covariance: Of q_k, shape (..., reflection, 3, 3), same unit squared.
    Returns F (..., 3, 3); the covariance of its nine components in C order (..., 9, 9); the sum of squared standard residuals
    (...,), chi-square distributed with 3 x reflections - 9 degrees of freedom; and the weights dA/dq_k
    (..., reflection, 9, 3), for the errors of what is linear in A.
    """
    lengths = reference.norm(dim=-1)
    q0, q = reference / lengths[:, None], measured / lengths[:, None]
    inverse = torch.linalg.inv(covariance / lengths[:, None, None] ** 2)  # C_k^-1
    # vec(A) in C order: q_a = sum_c A_ac q0_c, so that the design of reflection k is 1 (x) q0_k^T
    normal = torch.einsum("...kab,kc,kd->...acbd", inverse, q0, q0).flatten(-4, -3).flatten(-2, -1)
    right = torch.einsum("...kab,kc->...kacb", inverse, q0).flatten(-3, -2)  # (..., k, 9, 3)
    covariance_a = torch.linalg.inv(normal)
    weights = covariance_a[..., None, :, :] @ right
    a = torch.einsum("...kmb,...kb->...m", weights, q).unflatten(-1, (3, 3))
    residual = q - torch.einsum("...ac,kc->...ka", a, q0)
    chi_square = torch.einsum("...ka,...kab,...kb->...", residual, inverse, residual)
    f = torch.linalg.inv(a).mT
    # dF_ij = -F_il dA_kl F_kj
    jacobian = -torch.einsum("...il,...kj->...ijkl", f, f).flatten(-4, -3).flatten(-2, -1)
    return f, jacobian @ covariance_a @ jacobian.mT, chi_square, weights / lengths[:, None, None]


def propagated(function_jacobian: Tensor, covariance: Tensor) -> Tensor:
    """Standard deviations of quantities with this Jacobian, sqrt(diag(J C J^T)); (..., m, 9), (..., 9, 9) -> (..., m)."""
    return torch.einsum("...ma,...ab,...mb->...m", function_jacobian, covariance, function_jacobian).clamp(min=0).sqrt()


def strain_and_rotation_jacobian(deformation: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the Biot strain (xx, yy, zz, yz, xz, xy) and of the rotation vector by the nine components of F.

    With dF = R (W U + dU), W = K(w) the rate of rotation in the undeformed frame: the antisymmetric part of R^T dF gives
    (tr U - U) w = axial(R^T dF - dF^T R), then dU = R^T dF - W U. The rotation vector v changes by the inverse left Jacobian,
    dv = (1 - K(v)/2 + c K(v)^2) R w,  c = (1 - (a/2) cot(a/2)) / a^2,  a = |v|  (Chirikjian 2011, sec. 10.6).
    Returns shapes (..., 6, 9) and (..., 3, 9); components of F in C order.
    """
    rotation, stretch = polar(deformation)
    units = torch.eye(9, dtype=deformation.dtype, device=deformation.device).reshape(9, 3, 3)
    m = rotation.mT[..., None, :, :] @ units  # R^T dF for each component, (..., 9, 3, 3)
    axial = torch.stack(
        [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1
    )  # of the antisymmetric part of W U + dU, twice
    trace = stretch.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    left = trace * torch.eye(3, dtype=deformation.dtype, device=deformation.device) - stretch
    w = torch.linalg.solve(left, axial.mT).mT  # (..., 9, 3)
    zero = torch.zeros_like(w[..., 0])
    spin = torch.stack([zero, -w[..., 2], w[..., 1], w[..., 2], zero, -w[..., 0], -w[..., 1], w[..., 0], zero], -1)
    du = m - spin.unflatten(-1, (3, 3)) @ stretch[..., None, :, :]
    strain = torch.stack([du[..., i, j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))], -2)
    return strain, _change_of_vector(rotation_vector(rotation)) @ rotation @ w.mT


def _change_of_vector(vector: Tensor) -> Tensor:
    """Inverse of the left Jacobian of a rotation vector; (..., 3) -> (..., 3, 3)."""
    k, angle = cross_matrix(vector), vector.norm(dim=-1)
    safe = torch.where(angle > 1e-4, angle, torch.ones_like(angle))
    c = torch.where(angle > 1e-4, (1 - safe / 2 / torch.tan(safe / 2)) / safe**2, torch.full_like(angle, 1 / 12))
    return torch.eye(3, dtype=k.dtype, device=k.device) - k / 2 + c[..., None, None] * (k @ k)
