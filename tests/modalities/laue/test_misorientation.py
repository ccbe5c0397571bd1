"""Misorientations: closed forms, symmetry, the distribution of random crystals, means, and a published map."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braggscope.modalities.laue.grain_maps import grain_map, labels_of, matrices_of
from braggscope.modalities.laue.misorientation import (
    angles,
    axes,
    from_twin,
    means,
    random_density,
    random_mean,
    smallest,
)  # fmt: skip
from braggscope.physics.crystals import crystal_of

AU, TI = crystal_of("Au"), crystal_of("Ti")
PUBLISHED = Path(__file__).parents[2] / "reference" / "laue" / "lauenn_W_0MPa_first.npz"


def turn(angle_deg, *axis):
    axis = np.array(axis, float)
    return Rotation.from_rotvec(np.deg2rad(angle_deg) * axis / np.linalg.norm(axis)).as_matrix()


def randoms(count, seed=0):
    return Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix()


@pytest.mark.parametrize(
    ("crystal", "angle", "axis", "expected"),
    [(AU, 20, (0, 0, 1), 20), (AU, 80, (0, 0, 1), 10), (AU, 100, (1, 1, 1), 20), (AU, 180, (1, 1, 0), 0), (AU, 60, (1, 1, 1), 60),
     (TI, 80, (0, 0, 1), 20), (TI, 90, (1, 0, 0), 90)],
)  # fmt: skip
def test_known_turns(crystal, angle, axis, expected):
    u = randoms(1)[0]
    assert angles(u, u @ turn(angle, *axis), crystal.rotations) == pytest.approx(expected, abs=1e-5)


def test_equivalent_lattices_and_their_order_do_not_matter_and_small_angles_are_exact():
    u, v = randoms(30, 1), randoms(30, 2)
    first = angles(u, v, AU.rotations)
    np.testing.assert_allclose(angles(u @ AU.rotations[5], v @ AU.rotations[17], AU.rotations), first, atol=1e-9)
    np.testing.assert_allclose(angles(v, u, AU.rotations), first, atol=1e-9)
    frame = randoms(1, 3)[0]
    np.testing.assert_allclose(angles(frame @ u, frame @ v, AU.rotations), first, atol=1e-9)
    np.testing.assert_allclose(angles(u, u @ turn(1e-6, 1, 2, 3), AU.rotations), 1e-6, rtol=1e-4)
    assert first.max() < 62.8  # Mackenzie 1958
    assert np.isnan(angles(u[0], np.full((3, 3), np.nan), AU.rotations))


def test_the_axis_is_the_same_for_equivalents_and_lies_in_the_standard_triangle():
    u, v = randoms(20, 4), randoms(20, 5)
    one = axes(smallest(u, v, AU.rotations)[0], AU.rotations)
    other = axes(smallest(v @ AU.rotations[3], u @ AU.rotations[9], AU.rotations)[0], AU.rotations)
    np.testing.assert_allclose(one, other, atol=1e-7)
    assert (one[:, 2] >= one[:, 0] - 1e-9).all() and (one[:, 0] >= one[:, 1] - 1e-9).all() and (one[:, 1] >= -1e-9).all()


def test_random_cubic_pairs_follow_mackenzie():
    assert random_mean(AU.rotations) == pytest.approx(40.736, abs=0.005)  # Mackenzie & Thomson 1957: 40 deg 44'
    w = np.arange(0.25, 180, 0.5)
    density = random_density(w, AU.rotations)
    assert density.sum() * 0.5 == pytest.approx(1, abs=1e-3) and w[density.argmax()] == pytest.approx(45, abs=0.5)
    assert w[density > 0].max() == pytest.approx(62.5, abs=0.3)
    assert random_density(np.array([30.0]), AU.rotations)[0] == pytest.approx(24 * (1 - np.cos(np.pi / 6)) / 180)  # whole sphere
    for crystal in (AU, TI):
        drawn = angles(randoms(4000, 6), randoms(4000, 7), crystal.rotations)
        assert abs(drawn.mean() - random_mean(crystal.rotations)) < 4 * drawn.std() / np.sqrt(4000)


def test_orix_finds_the_same_angles():
    from orix.quaternion import Orientation, symmetry

    u, v = randoms(25, 8), randoms(25, 9)
    one, other = (Orientation.from_matrix(m.transpose(0, 2, 1), symmetry=symmetry.Oh) for m in (u, v))
    np.testing.assert_allclose(np.rad2deg(one.angle_with(other)), angles(u, v, AU.rotations), atol=1e-4)


def test_a_twin_is_recognised_whatever_its_equivalent():
    u = randoms(1)[0]
    for k, axis in enumerate([(1, 1, 1), (1, -1, 1), (-1, -1, 1)]):
        between = smallest(u, u @ turn(60, *axis) @ AU.rotations[k + 4], AU.rotations)[0]
        assert from_twin(between[None], AU.rotations)[0] == pytest.approx(0, abs=1e-4)
    off = smallest(u, u @ turn(3, 1, 2, 5) @ turn(60, 1, 1, 1), AU.rotations)[0]
    assert from_twin(off[None], AU.rotations)[0] == pytest.approx(3, abs=1e-6)
    assert from_twin(smallest(u, u @ turn(45, 0, 0, 1), AU.rotations)[0][None], AU.rotations)[0] > 20


def test_the_mean_of_scattered_equivalents_is_their_middle():
    random = np.random.default_rng(1)
    middle = randoms(2, 10)
    group = np.repeat([0, 1], 400)
    noise = Rotation.from_rotvec(np.deg2rad(1.0) * random.standard_normal((800, 3))).as_matrix()
    scattered = noise @ middle[group] @ AU.rotations[random.integers(24, size=800)]
    found = means(scattered, group, 2, AU.rotations, np.ones(800))
    assert angles(found, middle, AU.rotations).max() < 4 * 1.0 / 20  # standard error of each component: 0.05 deg
    assert np.linalg.det(found) == pytest.approx(1)


def test_neighbours_in_the_published_map_of_tungsten_are_alike_only_as_equivalents():
    stored = np.load(PUBLISHED)["orientation"].astype(float)
    left, _, right = np.linalg.svd(stored)  # some are no rotations by 0.025
    made = grain_map(left @ right, crystal_of("W"), np.arange(21.0), np.arange(51.0))
    u, cubic = matrices_of(made), crystal_of("W").rotations
    assert u.shape == (21, 51, 3, 3)
    near = [(angles(u[:, 1:], u[:, :-1], r) < 2).mean() for r in (cubic, np.eye(3)[None])]
    assert near[0] == pytest.approx(0.288, abs=0.01)
    assert (angles(left @ right, np.roll(left @ right, 7, axis=0), cubic) < 2).mean() < 0.02  # far points are not
    transposed = (left @ right).swapaxes(-1, -2)
    assert (angles(transposed[:, 1:], transposed[:, :-1], cubic) < 2).mean() < 0.04  # U takes the crystal to the laboratory
    label = labels_of(made, threshold_deg=2.0)
    assert np.bincount(label.ravel()).max() == 20 and label.min() == 1
