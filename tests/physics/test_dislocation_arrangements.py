"""Dipoles and walls against sums, symmetry and Frank's rule."""

import math

import torch

from braggscope.physics import dislocation_arrangements as arrangements
from braggscope.physics import dislocation_checks as checks
from braggscope.physics import dislocations
from braggscope.physics.anisotropic_dislocations import anisotropic_dislocation
from braggscope.physics.elasticity import crystal_stiffness, isotropic_stiffness

B, H, NU = 0.286, 5.3, 0.334
X, Z = torch.eye(3, dtype=torch.float64)[[0, 2]]


def along_z(points, burgers):
    return dislocations.mixed_dislocation(points, burgers, Z, NU)


def infinite(points):
    return arrangements.tilt_wall_field(points[..., 0], points[..., 1], B, H, NU)


def test_a_long_wall_is_the_infinite_one_near_its_middle():
    positions, burgers = arrangements.wall(4001, torch.tensor([0.0, H, 0.0]).double(), B * X)
    points = torch.tensor([[1.7, 0.4, 3.0], [-6.0, 2.0, 0.0], [0.2, -7.9, 1.0]]).double()

    def edge(points, burgers):
        return dislocations.edge_field(points[..., 0], points[..., 1], burgers[0], NU)

    found = arrangements.superposed(edge, points, positions, burgers)
    missing = 4 * B / (H * 4001)  # the tails beyond the ends: strains of b / (pi h) times distance over half length
    assert (found - infinite(points)).abs().max() < missing


def test_the_infinite_wall_is_a_solution_and_turns_the_lattice_by_frank_s_rule():
    points = torch.tensor([[1.7, 0.4, 0.0], [-0.8, 2.2, 0.0]]).double()
    gradient = checks.gradients(infinite, points)
    assert checks.incompatibility(gradient).max() < 1e-13
    assert checks.imbalance(gradient, isotropic_stiffness(1.0, NU)).max() < 1e-13
    assert torch.allclose(checks.burgers_circuit(infinite, 0 * X, Z, 2.0), B * X, atol=1e-13)
    right, left = infinite(torch.tensor([[1e3, 1.0, 0.0], [-1e3, 1.0, 0.0]]).double())
    angle = 2 * math.asin(B / (2 * H))  # of which b / h is the limit
    assert math.isclose(((right - left)[0, 1] - (right - left)[1, 0]).item() / 2, angle, rel_tol=1e-3)
    assert (right + right.T).abs().max() < 1e-15  # no strain


def test_a_dipole_falls_off_one_power_faster_and_both_ends_have_their_circuit():
    separation = torch.tensor([0.0, 6.0, 0.0]).double()
    positions, burgers = arrangements.dipole(separation, B * X)

    def field(points):
        return arrangements.superposed(along_z, points, positions, burgers)

    near, far = field(torch.tensor([[4e3, 1e3, 0.0], [8e3, 2e3, 0.0]]).double())
    assert torch.allclose(near[:2, :2], 4 * far[:2, :2], rtol=3e-3)
    for centre, b in zip(positions, burgers, strict=True):
        assert torch.allclose(checks.burgers_circuit(field, centre, Z, 2.0), b, atol=1e-12)


def test_any_field_can_be_added_up():
    stiffness = crystal_stiffness("Cu")
    positions, burgers = arrangements.wall(3, torch.tensor([0.0, H, 0.0]).double(), B * X)
    points = torch.tensor([[1.7, 0.4, 3.0], [-6.0, 2.0, 0.0]]).double()

    def one(r, b):
        return anisotropic_dislocation(r, b, Z, stiffness)

    found = arrangements.superposed(one, points, positions, burgers)
    assert torch.allclose(found, sum(one(points - k * H * positions.new_tensor([0, 1, 0]), B * X) for k in (-1, 0, 1)))
