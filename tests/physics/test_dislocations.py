"""Dislocation fields: Burgers circuits, curl and equilibrium, which together leave no sign free."""

import math

import pytest
import torch

from braggscope.physics import dislocation_checks as checks
from braggscope.physics import dislocations
from braggscope.physics.elasticity import isotropic_stiffness

NORMAL, LINE = torch.tensor([1.0, 1.0, -1.0]).double(), torch.tensor([1.0, 1.0, 2.0]).double()
POISSON = 0.334


def burgers_at(degrees: float) -> torch.Tensor:
    """A vector in the slip plane at this angle to the line."""
    across, _, along = dislocations.dislocation_frame(NORMAL, LINE)
    return 0.286 * (math.cos(math.radians(degrees)) * along + math.sin(math.radians(degrees)) * across)


def field(points: torch.Tensor, burgers: torch.Tensor) -> torch.Tensor:
    return dislocations.straight_dislocation(points, burgers, NORMAL, LINE, POISSON)


@pytest.mark.parametrize("degrees", [0, 30, 45, 60, 90])
def test_a_circuit_right_handed_about_the_line_gives_the_burgers_vector(degrees):
    burgers = burgers_at(degrees)
    across, normal, along = dislocations.dislocation_frame(NORMAL, LINE)
    # an ellipse that is neither centred nor perpendicular to the line; the trapezoid rule is exact to rounding on a closed curve
    angle = torch.arange(4000).double() * 2 * math.pi / 4000
    points = (3 * torch.cos(angle) + 0.7)[:, None] * across + (2 * torch.sin(angle) - 0.4)[:, None] * normal
    points = points + (0.5 * torch.sin(angle) + 5)[:, None] * along
    steps = (
        -3 * torch.sin(angle)[:, None] * across + 2 * torch.cos(angle)[:, None] * normal + 0.5 * torch.cos(angle)[:, None] * along
    )
    found = torch.einsum("pij,pj->i", field(points, burgers), steps) * 2 * math.pi / 4000
    assert torch.allclose(found, burgers, atol=1e-13)


@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_off_the_core_the_field_is_that_of_a_displacement_in_equilibrium(degrees):
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 2
    h, burgers = 1e-4, burgers_at(degrees)
    steps = h * torch.eye(3, dtype=torch.float64)
    gradient = torch.stack(
        [(field(points + s, burgers) - field(points - s, burgers)) / (2 * h) for s in steps], -1
    )  # d H_ij / d x_k
    scale = gradient.abs().max()
    # second derivatives of a displacement commute; a wrong sign of 2 nu in H_yy breaks this though circuits stay right
    assert (gradient - gradient.transpose(-1, -2)).abs().max() < 1e-7 * scale  # of the finite differences
    ratio = 2 * POISSON / (1 - 2 * POISSON)  # lambda / mu
    trace = torch.einsum("piik->pk", gradient)
    divergence = ratio * trace + torch.einsum("pijj->pi", gradient) + torch.einsum("pjij->pi", gradient)
    assert divergence.abs().max() < 1e-7 * scale


def test_the_sign_that_several_programs_have_wrong():
    # on the glide plane's normal, (x, y) = (0, 1): H_yy = K y (x^2 - y^2 + 2 nu r2) / r2^2 = K (2 nu - 1), negative
    at = dislocations.edge_field(torch.tensor(0.0), torch.tensor(1.0), 1.0, 0.25)
    k = 1 / (4 * math.pi * 0.75)
    assert math.isclose(at[1, 1].item(), -0.5 * k, rel_tol=1e-6)
    assert math.isclose(at[0, 0].item(), -0.5 * k, rel_tol=1e-6)  # -K (1 - 2 nu): compressed above the extra half plane's end


def test_the_frame_of_edge_dislocation_is_burgers_normal_line():
    across, _, _ = dislocations.dislocation_frame(NORMAL, LINE)
    b = torch.tensor([1.0, -1.0, 0.0]).double()
    assert torch.allclose(across, b / b.norm())


@pytest.mark.parametrize("burgers", [[0.0, 0.286, 0.0], [0.1, -0.2, 0.15]])
def test_a_burgers_vector_out_of_the_plane_of_n_is_taken_whole(burgers):
    """With a part along n, the field is that of an edge dislocation that climbs."""
    b, stiffness = torch.tensor(burgers).double(), isotropic_stiffness(1.0, POISSON)
    for one in (lambda p: field(p, b), lambda p: dislocations.mixed_dislocation(p, b, LINE, POISSON)):
        assert torch.allclose(checks.burgers_circuit(one, 0 * b, LINE, 3.0), b, atol=1e-13)
        gradient = checks.gradients(one, torch.tensor([[1.0, 2.0, -0.7]]).double())
        assert checks.incompatibility(gradient).max() < 1e-13 and checks.imbalance(gradient, stiffness).max() < 1e-13


def test_no_slip_plane_need_be_known():
    points = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    b = burgers_at(30)
    assert torch.allclose(dislocations.mixed_dislocation(points, b, LINE, POISSON), field(points, b), atol=1e-14)
    lines = torch.stack([LINE, LINE.flip(0), -LINE])  # one each
    several = dislocations.mixed_dislocation(points[:3], b, lines, POISSON)
    assert torch.allclose(several[1], dislocations.mixed_dislocation(points[1], b, lines[1], POISSON))
