"""Stiffness tensors: symmetries, invariants and the isotropic solid."""

import pytest
import torch

from braggscope.physics import elasticity
from braggscope.physics.rotations import about_axis


def test_symmetries_and_places_of_voigt():
    c = elasticity.crystal_stiffness("Ti")
    assert torch.equal(c, c.permute(1, 0, 2, 3)) and torch.equal(c, c.permute(2, 3, 0, 1))
    for at, value in (((0, 0, 1, 1), 92.0), ((0, 0, 2, 2), 69.0), ((1, 2, 1, 2), 46.7), ((0, 1, 0, 1), (162.4 - 92.0) / 2)):
        assert c[at].item() == pytest.approx(value)


def test_an_isotropic_solid_is_the_same_in_every_frame_and_a_hexagonal_one_about_c():
    axis, angle = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64), torch.tensor(0.7).double()
    isotropic = elasticity.isotropic_stiffness(26.0, 0.3)
    assert torch.allclose(elasticity.rotated_stiffness(isotropic, about_axis(axis, angle)), isotropic)
    titanium, c = elasticity.crystal_stiffness("Ti"), torch.tensor([0.0, 0.0, 1.0]).double()
    assert torch.allclose(elasticity.rotated_stiffness(titanium, about_axis(c, angle)), titanium)
    assert not torch.allclose(elasticity.rotated_stiffness(titanium, about_axis(axis, angle)), titanium)


def test_the_nearest_isotropic_solid_of_an_isotropic_one_is_itself():
    assert elasticity.voigt_average(elasticity.isotropic_stiffness(26.0, 0.3)) == pytest.approx((26.0, 0.3))


def test_uniaxial_stress_gives_poisson_s_ratio():
    strain = torch.diag(torch.tensor([1.0, -0.3, -0.3], dtype=torch.float64))
    found = elasticity.stress(strain, elasticity.isotropic_stiffness(10.0, 0.3))
    assert torch.allclose(found, torch.diag(torch.tensor([26.0, 0.0, 0.0]).double()))  # E = 2 mu (1 + nu)


def test_an_unknown_crystal_is_refused():
    with pytest.raises(ValueError, match=r"no elastic constants of 'Xx'; there are those of Al, Cu, Fe"):
        elasticity.crystal_stiffness("Xx")
