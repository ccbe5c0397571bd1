"""Rotations against an independent program and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from braggscope.physics import rotations

VECTORS = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 3)))


def test_rotation_vectors_are_those_of_scipy_and_come_back():
    for scale in (1.0, 1e-6, 0.0):
        vector = VECTORS * scale
        matrix = rotations.from_rotation_vector(vector)
        assert np.allclose(matrix, Rotation.from_rotvec(vector.numpy()).as_matrix(), atol=1e-15)
        # beyond pi the same rotation has a shorter vector
        short = Rotation.from_rotvec(vector.numpy()).as_rotvec()
        assert np.allclose(rotations.rotation_vector(matrix), short, rtol=1e-7, atol=1e-16)


def test_a_goniometer_turns_from_the_inside_out():
    mu, chi = torch.tensor(0.3, dtype=torch.float64), torch.tensor(-0.2, dtype=torch.float64)
    found = rotations.goniometer([(0, -1, 0), (1, 0, 0)], [mu, chi])
    # intrinsic: the inner axis is carried along by the outer one
    assert np.allclose(found, Rotation.from_euler("YX", [-0.3, -0.2]).as_matrix(), atol=1e-15)


def test_a_goniometer_without_axes_is_refused():
    with pytest.raises(ValueError, match="at least one axis"):
        rotations.goniometer([], [])


def test_small_angles_keep_their_digits():
    a = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    b = torch.stack([torch.tensor([math.sin(t), 0, math.cos(t)], dtype=torch.float64) for t in (1e-9, 1e-5, 0.3)])
    assert torch.allclose(rotations.angle_between(a, b), torch.tensor([1e-9, 1e-5, 0.3], dtype=torch.float64), rtol=1e-12)


def test_the_shortest_rotation_takes_one_direction_to_the_other_by_their_angle():
    a, b = VECTORS[:20], VECTORS[20:]
    r = rotations.shortest_rotation(a, b)
    assert torch.allclose((r @ (a / a.norm(dim=-1, keepdim=True))[..., None])[..., 0], b / b.norm(dim=-1, keepdim=True))
    assert torch.allclose(rotations.rotation_vector(r).norm(dim=-1), rotations.angle_between(a, b), rtol=1e-7)


def test_the_rotation_between_directions_is_the_shortest_whatever_their_lengths():
    a, b = VECTORS[:20], 7 * VECTORS[20:]
    w = rotations.rotation_between(a, b)
    assert torch.allclose(w, rotations.rotation_vector(rotations.shortest_rotation(a, b)), rtol=1e-7, atol=1e-12)
    turned = Rotation.from_rotvec(w.numpy()).apply((a / a.norm(dim=-1, keepdim=True)).numpy())
    assert np.allclose(turned, (b / b.norm(dim=-1, keepdim=True)).numpy(), atol=1e-14)
    assert torch.allclose(rotations.rotation_between(b, a), -w, atol=1e-14)


def test_the_rotation_between_near_directions_keeps_its_digits_and_is_nothing_for_the_same():
    z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    small = torch.tensor([1e-9, 1e-5, 0.0], dtype=torch.float64)
    near = torch.stack([torch.sin(small), torch.zeros(3), torch.cos(small)], -1)  # turned about y
    expected = torch.stack([torch.zeros(3), small, torch.zeros(3)], -1)
    assert torch.allclose(rotations.rotation_between(z, near), expected.double(), rtol=1e-12, atol=0)


def test_the_bragg_condition_holds_for_a_crystal_turned_by_theta():
    """R_y(-theta) brings a reflection along z to q = k' - k for scattering upwards (Poulsen et al. 2021)."""
    two_theta = torch.tensor(0.4, dtype=torch.float64)
    turned = rotations.goniometer([(0, -1, 0)], [two_theta / 2])[:, 2]
    outgoing = torch.tensor([math.cos(0.4), 0, math.sin(0.4)]) - torch.tensor([1.0, 0, 0])
    assert torch.allclose(turned, rotations.scattering_direction(two_theta))
    assert torch.allclose(turned * 2 * math.sin(0.2), outgoing.double(), atol=1e-7)
