"""Segments: straight chains, the spread core, loops from afar, equilibrium, and independence of how a line is cut."""

import math

import pytest
import torch

from braggscope.physics import dislocation_checks as checks
from braggscope.physics import dislocation_segments as segments
from braggscope.physics import dislocations
from braggscope.physics.elasticity import isotropic_stiffness

NU, CORE = 0.334, 0.3
B = torch.tensor([0.2, -0.13, 0.17], dtype=torch.float64)
LINE = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64) / math.sqrt(6)
NORMAL = torch.tensor([1.0, 2.0, -1.5], dtype=torch.float64)


def loop_field(loop, core=CORE):
    return lambda points: segments.segment_distortion(points, loop, B.expand(len(loop), 3), NU, core)


def long_chain(length, pieces):
    """A straight line through the origin in many pieces, closed far away."""
    ends = torch.linspace(-length, length, pieces + 1, dtype=torch.float64)[:, None] * LINE
    across = length * dislocations.perpendicular(LINE)
    return segments.polygon(torch.cat([ends, ends[-1:] + across, ends[:1] + across]))


def test_a_long_chain_is_a_straight_dislocation():
    points = torch.tensor([[1.0, -2.0, 0.5], [3.0, 2.0, -4.0]]).double()
    exact = dislocations.mixed_dislocation(points, B, LINE, NU)
    for core, tolerance in ((0.0, 1e-5), (0.01, 2e-4)):  # what closes the line is 1e6 away; the core counts as (a/r)^2
        found = loop_field(long_chain(1e6, 7), core)(points)
        assert (found - exact).abs().max() < tolerance * exact.abs().max()
    assert loop_field(long_chain(1e6, 8), 0.2)(0 * LINE).abs().max() < 1e-6  # finite on the line, 0 by symmetry


@pytest.mark.parametrize("radius", [0.2, 0.7, 3.0])
def test_the_burgers_vector_within_a_radius_is_that_of_the_spread_core(radius):
    angle = torch.arange(400).double() * (2 * math.pi / 400)
    x, y, _ = dislocations.dislocation_frame(dislocations.perpendicular(LINE), LINE)
    place = radius * (angle.cos()[:, None] * x + angle.sin()[:, None] * y)
    step = radius * (angle.cos()[:, None] * y - angle.sin()[:, None] * x) * (2 * math.pi / 400)
    found = torch.einsum("pij,pj->i", loop_field(long_chain(1e5, 6))(place), step)
    share = 1 - (CORE**2 / (radius**2 + CORE**2)) ** 2
    assert torch.allclose(found, share * B, atol=1e-8)


def test_circuits_about_two_sides_of_a_loop_are_right_handed_about_its_line():
    loop = segments.polygon(torch.tensor([[0.0, 0, 0], [60, 0, 5], [70, 50, 0], [5, 40, -8]]).double())
    for start, end in loop:
        found = checks.burgers_circuit(loop_field(loop), (start + end) / 2, end - start, 15.0, count=512)
        assert torch.allclose(found, B, atol=1e-6 * B.norm().item())  # (a/r)^4 lies outside: 1e-7


def test_equilibrium_holds_also_in_the_core_and_the_field_is_compatible_outside():
    loop = segments.circular_loop(30.0, NORMAL, 12)
    corner, middle = loop[0, 0], loop[3].mean(0)
    points = torch.stack([corner + 0.02, middle + 0.1, 0.1 * middle])
    gradient = checks.gradients(loop_field(loop), points)
    assert checks.imbalance(gradient, isotropic_stiffness(1.0, NU)).max() < 1e-12
    assert checks.incompatibility(gradient)[0] > 0.1 > 1e-6 > checks.incompatibility(gradient)[2]
    singular = checks.gradients(loop_field(loop, 0.0), points)
    assert checks.incompatibility(singular).max() < 1e-11


def test_from_afar_a_loop_is_a_dipole_of_forces():
    """u_i = C_jlmn b_m A_n dG_ij/dx_l with A along the normal about which the line is right-handed; Kelvin's G."""
    stiffness, normal = isotropic_stiffness(1.0, NU), NORMAL / NORMAL.norm()

    def green(r):
        distance = r.norm()
        shape = (3 - 4 * NU) * torch.eye(3, dtype=r.dtype) + torch.outer(r, r) / distance**2
        return shape / (16 * math.pi * (1 - NU) * distance)

    def displacement(r):
        return torch.einsum("jlmn,m,n,ijl->i", stiffness, B, 9 * math.pi * normal, torch.func.jacrev(green)(r))

    far = torch.tensor([800.0, -300.0, 500.0]).double()
    exact = torch.func.jacrev(displacement)(far)
    found = loop_field(segments.circular_loop(3.0, NORMAL, 32))(far)
    assert (found - exact).abs().max() < 1e-4 * exact.abs().max()  # (radius / distance)^2


def test_a_line_may_be_cut_anywhere_and_a_diagonal_run_both_ways_adds_nothing():
    corners = torch.tensor([[0.0, 0, 0], [6, 0, 1], [7, 5, 0], [1, 4, -1]]).double()
    points = torch.tensor([[1.0, 2.0, 3.0], [6.5, 2.0, 0.3]]).double()
    whole = loop_field(segments.polygon(corners))(points)
    finer = torch.cat([corners[:1], corners[:1] * 0.7 + corners[1:2] * 0.3, corners[1:]])
    assert torch.allclose(loop_field(segments.polygon(finer))(points), whole, atol=1e-13)
    halves = [segments.polygon(corners[[0, 1, 2]]), segments.polygon(corners[[0, 2, 3]])]
    assert torch.allclose(sum(loop_field(half)(points) for half in halves), whole, atol=1e-13)


def test_chunks_of_points_shapes_and_gradients(monkeypatch):
    loop = segments.circular_loop(3.0, NORMAL, 5)
    points = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = loop_field(loop)(points)
    monkeypatch.setattr(segments, "PAIRS", 7)
    assert whole.shape == (4, 2, 3, 3) and torch.allclose(loop_field(loop)(points), whole, atol=1e-15)
    inputs = [points[0].clone().requires_grad_(), loop.clone().requires_grad_(), B.repeat(5, 1).requires_grad_()]
    assert torch.autograd.gradcheck(lambda p, s, b: segments.segment_distortion(p, s, b, NU, CORE), inputs)


def test_a_circular_loop_has_the_area_of_the_circle_and_its_sense():
    loop = segments.circular_loop(3.0, NORMAL, 9)
    area = torch.linalg.cross(loop[:, 0], loop[:, 1]).sum(0) / 2
    assert torch.allclose(area, 9 * math.pi * NORMAL / NORMAL.norm())
