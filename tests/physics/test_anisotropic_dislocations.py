"""Anisotropic fields: circuits, equilibrium, the isotropic limit, Stroh's eigenvectors and finite differences."""

import math

import numpy as np
import pytest
import torch

from braggscope.physics import anisotropic_dislocations as anisotropic
from braggscope.physics import dislocation_checks as checks
from braggscope.physics import dislocations, elasticity
from braggscope.physics.slip_systems import line_direction, slip_system

SYSTEM = slip_system("[110](1-11)")
BURGERS = 0.404 * torch.tensor(SYSTEM.burgers, dtype=torch.float64)
POINTS = 3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
METALS = ["Al", "Cu", "Ni", "W"]


def line_at(degrees: float) -> torch.Tensor:
    return torch.tensor(line_direction(SYSTEM, degrees), dtype=torch.float64)


@pytest.mark.parametrize("degrees", [0, 30, 45, 60, 90])
@pytest.mark.parametrize("metal", METALS)
def test_circuit_compatibility_and_equilibrium(metal, degrees):
    stiffness, line = elasticity.crystal_stiffness(metal), line_at(degrees)

    def field(points):
        return anisotropic.anisotropic_dislocation(points, BURGERS, line, stiffness)

    found = checks.burgers_circuit(field, 0.2 * dislocations.perpendicular(line), line, 2.0)
    assert torch.allclose(found, BURGERS, atol=1e-12)
    gradient = checks.gradients(field, POINTS[:2])
    assert checks.incompatibility(gradient).max() < 1e-13 and checks.imbalance(gradient, stiffness).max() < 1e-13


def test_the_isotropic_solid_is_no_special_case():
    b, line = torch.tensor([0.2, -0.13, 0.31], dtype=torch.float64), torch.tensor([1.0, 2, -0.5], dtype=torch.float64)
    found = anisotropic.anisotropic_dislocation(POINTS, b, line, elasticity.isotropic_stiffness(26.5, 0.347))
    exact = dislocations.mixed_dislocation(POINTS, b, line, 0.347)
    assert torch.allclose(found, exact, rtol=0, atol=1e-14)


@pytest.mark.parametrize("metal", ["Cu", "Ti"])
def test_the_eigenvectors_of_stroh_give_the_same(metal):
    """H = 1/pi Im sum_a A_a (m + p_a n) / (m.r + p_a n.r) (L_a . b), eigenvectors with 2 A_a . L_a = 1 (Ting 1996, ch. 5)."""
    stiffness, line = elasticity.crystal_stiffness(metal), line_at(60)
    m, n, _ = dislocations.dislocation_frame(dislocations.perpendicular(line), line).numpy()
    c = stiffness.numpy()

    def contracted(a, b):
        return np.einsum("i,ijkl,l->jk", a, c, b)

    q, r, inverse = contracted(m, m), contracted(m, n), np.linalg.inv(contracted(n, n))
    matrix = np.block([[-inverse @ r.T, inverse], [r @ inverse @ r.T - q, -r @ inverse]])
    p, vectors = np.linalg.eig(matrix)
    vectors = vectors[:, p.imag > 0] / np.sqrt(2 * (vectors[:3] * vectors[3:]).sum(0)[p.imag > 0])
    p = p[p.imag > 0]
    place = POINTS.numpy()
    z = (place @ m)[:, None] + (place @ n)[:, None] * p
    gradient = (m[:, None] + n[:, None] * p)[None] / z[:, None]
    exact = np.einsum("ia,pka,a->pik", vectors[:3], gradient, vectors[3:].T @ BURGERS.numpy()).imag / np.pi
    found = anisotropic.anisotropic_dislocation(POINTS, BURGERS, line, stiffness).numpy()
    assert np.abs(found - exact).max() < 1e-11 * np.abs(exact).max()  # of the eigenvectors


def test_energy_of_a_screw_along_a_cube_axis():
    _, energy = anisotropic.barnett_lothe(torch.tensor([0.0, 0, 1]).double(), elasticity.crystal_stiffness("Cu"))
    assert energy[2, 2].item() == pytest.approx(75.4)  # K = c44 (Hirth & Lothe 1982, ch. 13)
    # and of the edge along it: (cb + c12) sqrt(c66 (cb - c12) / (c22 (cb + c12 + 2 c66))), cb = c11
    c11, c12, c44 = elasticity.CRYSTALS["Cu"]
    edge = (c11 + c12) * math.sqrt(c44 * (c11 - c12) / (c11 * (c11 + c12 + 2 * c44)))
    assert energy[0, 0].item() == pytest.approx(edge)


def test_the_crystal_can_be_turned_with_all_that_is_in_it():
    turn = dislocations.dislocation_frame(*torch.tensor([[1.0, 1, 0], [0.3, -0.3, 1]]).double())
    stiffness = elasticity.crystal_stiffness("Ni")
    turned = elasticity.rotated_stiffness(stiffness, turn)
    here = anisotropic.anisotropic_dislocation(POINTS, BURGERS, line_at(30), stiffness)
    there = anisotropic.anisotropic_dislocation(POINTS @ turn.T, turn @ BURGERS, turn @ line_at(30), turned)
    assert torch.allclose(turn @ here @ turn.T, there, atol=1e-14)


def test_anisotropy_of_tungsten_is_little_and_that_of_copper_is_not():
    for metal, low, high in (("W", 0.0, 0.01), ("Cu", 0.15, 0.6)):
        stiffness = elasticity.crystal_stiffness(metal)
        own = anisotropic.anisotropic_dislocation(POINTS, BURGERS, line_at(60), stiffness)
        nearest = dislocations.mixed_dislocation(POINTS, BURGERS, line_at(60), elasticity.voigt_average(stiffness)[1])
        assert low <= (own - nearest).norm() / nearest.norm() <= high, metal


def test_gradients_by_place_burgers_vector_line_and_stiffness():
    stiffness = elasticity.crystal_stiffness("Cu").requires_grad_()
    inputs = [POINTS[:2].clone().requires_grad_(), BURGERS.clone().requires_grad_(), line_at(45).requires_grad_(), stiffness]
    assert torch.autograd.gradcheck(anisotropic.anisotropic_dislocation, inputs, atol=1e-6)


def test_each_point_may_have_a_burgers_vector_of_its_own():
    stiffness = elasticity.crystal_stiffness("Al")
    several = torch.stack([BURGERS, 2 * BURGERS.flip(0)])
    found = anisotropic.anisotropic_dislocation(POINTS[:, None], several, line_at(0), stiffness)
    assert found.shape == (6, 2, 3, 3)
    alone = anisotropic.anisotropic_dislocation(POINTS, several[1], line_at(0), stiffness)
    assert torch.allclose(found[:, 1], alone)
