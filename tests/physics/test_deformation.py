"""Deformation gradients against closed forms, finite differences, scipy and numpy."""

import math

import numpy as np
import scipy.linalg
import torch
from scipy.spatial.transform import Rotation

from braggscope.physics import deformation, dislocations

EYE = torch.eye(3, dtype=torch.float64)
GENERATOR = torch.Generator().manual_seed(4)
SOME = EYE + 0.1 * torch.randn(6, 3, 3, generator=GENERATOR, dtype=torch.float64)


def rotation(vector: list[float]) -> torch.Tensor:
    return torch.from_numpy(Rotation.from_rotvec(vector).as_matrix())


def test_a_rotation_is_no_strain_and_turns_diffraction_vectors():
    turn = rotation([0.3, -0.5, 0.2])
    assert deformation.biot_strain(turn).abs().max() < 1e-15
    assert deformation.green_lagrange_strain(turn).abs().max() < 1e-15
    assert torch.allclose(deformation.lattice_rotation(turn), torch.tensor([0.3, -0.5, 0.2]).double())
    q = torch.tensor([1.0, -2.0, 3.0]).double()
    assert torch.allclose(deformation.diffraction_vector(turn, q), turn @ q)


def test_a_pure_strain_has_no_rotation_and_is_found_whole_after_one():
    strain = torch.tensor([[0.03, 0.01, 0.0], [0.01, -0.02, 0.004], [0.0, 0.004, 0.01]]).double()
    assert deformation.lattice_rotation(EYE + strain).norm() < 1e-15
    turn = rotation([0.0, 0.7, -0.1])
    assert torch.allclose(deformation.biot_strain(turn @ (EYE + strain)), strain, atol=1e-15)
    # Green-Lagrange differs by half the square
    assert torch.allclose(deformation.green_lagrange_strain(turn @ (EYE + strain)), strain + strain @ strain / 2, atol=1e-15)


def test_simple_shear_turns_by_half_its_angle():
    shear = EYE.clone()
    shear[0, 1] = 0.2  # u_x = 0.2 y: R turns about z by -atan(0.1)
    assert torch.allclose(deformation.lattice_rotation(shear), torch.tensor([0.0, 0.0, -math.atan(0.1)]).double(), atol=1e-15)
    assert deformation.infinitesimal_strain(shear)[0, 1] == 0.1
    r, u = scipy.linalg.polar(shear.numpy())
    found = deformation.polar(shear)
    assert np.allclose(found[0], r) and np.allclose(found[1], u)


def test_another_frame_gives_the_same_tensors_in_it():
    turn = rotation([1.0, 0.4, -0.6])
    other = turn @ SOME @ turn.T
    assert torch.allclose(deformation.biot_strain(other), turn @ deformation.biot_strain(SOME) @ turn.T, atol=1e-13)
    assert torch.allclose(deformation.lattice_rotation(other), deformation.lattice_rotation(SOME) @ turn.T, atol=1e-13)


def test_derivatives_of_strain_and_rotation_are_those_of_finite_differences():
    strain, turn = deformation.strain_and_rotation_jacobian(SOME)
    pairs, h = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)), 1e-6
    for c in range(9):
        step = torch.zeros(9).double()
        step[c] = h
        up, down = SOME + step.reshape(3, 3), SOME - step.reshape(3, 3)
        e = (deformation.biot_strain(up) - deformation.biot_strain(down)) / (2 * h)
        assert torch.allclose(torch.stack([e[:, i, j] for i, j in pairs], -1), strain[..., c], atol=1e-8)
        v = (deformation.lattice_rotation(up) - deformation.lattice_rotation(down)) / (2 * h)
        assert torch.allclose(v, turn[..., c], atol=1e-8)
    still = deformation.strain_and_rotation_jacobian(EYE)[1]
    assert torch.allclose(still[2, [1, 3]], torch.tensor([-0.5, 0.5]).double())  # w_z = (F_yx - F_xy) / 2


def four_vectors() -> torch.Tensor:
    return torch.tensor([[-1.0, -1, 3], [-1, 1, 3], [1, 1, 3], [1, -1, 3]]).double()


def test_regression_finds_a_large_deformation_exactly():
    q0 = four_vectors()
    q = deformation.diffraction_vector(SOME[:, None], q0)
    f, _, chi, _ = deformation.deformation_from_vectors(q, q0, 1e-8 * EYE.expand(6, 4, 3, 3))
    assert torch.allclose(f, SOME, atol=1e-13)
    assert chi.max() < 1e-15
    assert torch.allclose(
        deformation.deformation_from_vectors(q[:, :3], q0[:3], 1e-8 * EYE.expand(6, 3, 3, 3))[0], SOME, atol=1e-13
    )


def test_regression_with_equal_weights_is_numpy_lstsq():
    q0, random = four_vectors(), np.random.default_rng(0)
    q = deformation.diffraction_vector(SOME[0], q0) + torch.from_numpy(1e-3 * random.normal(size=(4, 3)))
    found = deformation.deformation_from_vectors(q, q0, 1e-6 * EYE.expand(4, 3, 3))
    a, residual, *_ = np.linalg.lstsq(q0.numpy() / math.sqrt(11), q.numpy() / math.sqrt(11), rcond=None)
    assert np.allclose(found[0], np.linalg.inv(a), atol=1e-12)  # q = A q0, rows: q^T = q0^T A^T, F = A^-T
    assert math.isclose(found[2].item(), residual.sum() * 11 / 1e-6, rel_tol=1e-9)


def test_covariance_and_chi_square_of_the_regression_are_those_of_many_draws():
    q0, random = four_vectors(), np.random.default_rng(1)
    half = 1e-4 * random.normal(size=(4, 3, 3))
    covariance = torch.from_numpy(half @ half.transpose(0, 2, 1) + 1e-9 * np.eye(3))
    root = torch.linalg.cholesky(covariance)
    noise = torch.einsum("kab,nkb->nka", root, torch.from_numpy(random.normal(size=(8_000, 4, 3))))
    q = deformation.diffraction_vector(SOME[1], q0) + noise
    f, cov, chi, weights = deformation.deformation_from_vectors(q, q0, covariance.expand(8_000, 4, 3, 3))
    scatter = np.cov((f - SOME[1]).flatten(1).numpy().T)
    scale = np.sqrt(np.outer(np.diag(scatter), np.diag(scatter)))
    assert np.abs(scatter - cov[0].numpy()).max() < 0.06 * scale.max()  # 20 000 draws: 1 % of a variance
    assert np.abs((scatter - cov[0].numpy()) / scale).max() < 0.06
    assert abs(chi.mean().item() - 3) < 0.1 and abs(chi.var().item() - 6) < 0.6  # 12 - 9 degrees of freedom
    a = torch.einsum("kmb,kb->m", weights[0], q[0])
    assert torch.allclose(torch.linalg.inv(a.reshape(3, 3)).mT, f[0])


def test_dislocation_density_integrates_to_the_burgers_circuit():
    # two lines through a field that is smooth because each is spread over a Gaussian: b by area and b by circuit must agree
    h, n = 0.1, 81
    axis = (torch.arange(n).double() - (n - 1) / 2) * h + 1e-4
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    b, normal, line = (torch.tensor(v).double() for v in ([0.2, 0.0, 0.1], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]))
    nodes = torch.randn(60, 2, generator=GENERATOR, dtype=torch.float64) * 0.6
    beta = sum(
        dislocations.straight_dislocation(torch.stack([x - p, y - q, 0 * x], -1), b, normal, line, 0.3) for p, q in nodes
    ) / len(nodes)
    gradient = torch.zeros(n, n, 3, 3, 3).double()
    gradient[:, 1:-1, ..., 0] = (beta[:, 2:] - beta[:, :-2]) / (2 * h)
    gradient[1:-1, :, ..., 1] = (beta[2:] - beta[:-2]) / (2 * h)
    alpha = deformation.dislocation_density(gradient)[1:-1, 1:-1]
    assert torch.allclose(alpha[..., 2].sum((0, 1)) * h**2, b, atol=2e-3)
    compatible = deformation.dislocation_density(torch.einsum("i,l,k->ilk", *torch.eye(3).double()[[0, 1, 1]]))
    assert compatible.abs().max() == 0  # d_y of beta_xy alone belongs to a displacement


def test_distortion_is_the_gradient_of_the_displacement_where_it_is_measured():
    # X = x - u(x): dX/dx = F^-1, so that 1 - F^-1 = du/dx without remainder
    gradient = torch.tensor([[0.02, 0.1, 0.0], [0.0, -0.03, 0.05], [0.01, 0.0, 0.04]]).double()
    assert torch.allclose(deformation.distortion(torch.linalg.inv(EYE - gradient)), gradient, atol=1e-15)
