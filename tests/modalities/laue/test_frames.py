"""Frames of other programs: closed forms, round trips, and what cannot be said."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError
from braggscope.modalities.laue import frames
from braggscope.modalities.laue.detector import detector_matrix, pixels, two_theta_chi
from braggscope.modalities.laue.geometry import LaueGeometry
from braggscope.physics.crystals import crystal_of

BM32 = LaueGeometry(79.612, 977.81, 932.17, 0.477, 0.447, 73.4, 2018, 2016)
TURNED = BM32.replace(roll_deg=-61.0, xbet_deg=-12.0, xgam_deg=141.0)
U = Rotation.from_euler("zxz", [20.0, 70.0, 130.0], degrees=True).as_matrix()


@pytest.mark.parametrize("geometry", [BM32, TURNED, BM32.replace(xbet_deg=0.0, xgam_deg=0.0), BM32.replace(xbet_deg=89.0)])
def test_a_geometry_comes_back_from_its_matrix(geometry):
    again = frames.geometry_of(frames.unturned_matrix(geometry), rows=2018, columns=2016)
    for name, value in geometry.to_mapping().items():
        if isinstance(value, float):
            assert getattr(again, name) == pytest.approx(value, abs=1e-9), name
    np.testing.assert_allclose(frames.unturned_matrix(again), frames.unturned_matrix(geometry), rtol=0, atol=1e-10)


def test_a_detector_across_the_beam_and_one_below_are_matrices_too():
    for geometry in (BM32.replace(xbet_deg=90.0), BM32.replace(xbet_deg=171.0)):  # the second: normal downwards
        matrix = detector_matrix(geometry)
        np.testing.assert_allclose(frames.unturned_matrix(frames.geometry_of(matrix)), matrix, rtol=0, atol=1e-10)


def test_a_roll_turns_angles_about_the_beam():
    flat = BM32.replace(xbet_deg=0.0)
    matrix = frames.about_beam(25.0) @ detector_matrix(flat)
    geometry = frames.geometry_of(matrix)
    assert geometry.roll_deg == pytest.approx(-25.0 if geometry.roll_deg < 0 else 25.0)
    row, column = np.array([100.0, 900.0]), np.array([1500.0, 40.0])
    here, there = two_theta_chi(detector_matrix(flat), row, column), two_theta_chi(matrix, row, column)
    np.testing.assert_allclose(there[0], here[0], atol=1e-10)
    np.testing.assert_allclose(there[1], here[1] - 25.0, atol=1e-10)
    np.testing.assert_allclose(frames.about_beam(geometry.roll_deg) @ matrix, detector_matrix(geometry), atol=1e-10)


def test_a_mirrored_detector_is_refused_and_upside_down_images_mend_it():
    right = detector_matrix(BM32)
    mirrored = frames.flipped_rows(right, 2018)
    with pytest.raises(InputError, match=r"left-handed as seen from the sample.*upside down"):
        frames.geometry_of(mirrored)
    again = frames.geometry_of(frames.flipped_rows(mirrored, 2018))
    np.testing.assert_allclose(detector_matrix(again), right, atol=1e-10)
    here = pixels(np.linalg.inv(right), 0.1, 0.2, 1.0)
    there = pixels(np.linalg.inv(mirrored), 0.1, 0.2, 1.0)
    assert (there[0], there[1]) == pytest.approx((2017 - here[0], here[1]))


def test_oblong_and_oblique_pixels_are_refused():
    for change in (np.diag([1.0, 1.001, 1.0]), np.array([[1.0, 0.01, 0], [0, 1, 0], [0, 0, 1]])):
        with pytest.raises(InputError, match="must be square"):
            frames.geometry_of(detector_matrix(BM32) @ change)


def test_axes_of_the_other_laboratories():
    x, y, z = np.eye(3)
    np.testing.assert_allclose(frames.FROM_APS @ [0, 0, 1], x)  # along the beam
    np.testing.assert_allclose(frames.FROM_APS @ [0, 1, 0], z)  # up
    np.testing.assert_allclose(frames.FROM_PYFAI @ [0, 0, 1], x)
    np.testing.assert_allclose(frames.FROM_PYFAI @ [1, 0, 0], z)
    np.testing.assert_allclose(frames.FROM_PYFAI @ [0, 1, 0], -y)  # to the right of one who looks along the beam
    for matrix in (frames.FROM_APS, frames.FROM_PYFAI, frames.from_xmas(0.3), frames.sample_axes(40.0)):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-14)
        assert np.linalg.det(matrix) == pytest.approx(1)


def test_the_sample_faces_up_and_against_the_beam():
    axes = frames.sample_axes(40.0)
    np.testing.assert_allclose(axes[2], [-np.sin(np.deg2rad(40)), 0, np.cos(np.deg2rad(40))])
    assert np.deg2rad(40) == pytest.approx(np.arcsin(-axes[2, 0]))  # the beam meets the surface at the tilt


def test_xmas_frame_at_no_tilt_and_at_forty_degrees():
    flat = frames.from_xmas(0.0, tilt_deg=0.0)
    np.testing.assert_allclose(flat, [[0, 1, 0], [1, 0, 0], [0, 0, -1]])
    turned = flat.T @ frames.from_xmas(0.6)  # a turn about X by 40 - 0.3 deg, as LaueTools has it
    c, s = np.cos(np.deg2rad(39.7)), np.sin(np.deg2rad(39.7))
    np.testing.assert_allclose(turned, [[1, 0, 0], [0, c, s], [0, -s, c]], atol=1e-12)


@pytest.mark.parametrize("roll", [0.0, 45.137])
def test_a_reciprocal_lattice_of_the_aps_comes_back(roll):
    b = crystal_of("GaN").b_matrix
    ub = frames.about_beam(roll) @ U @ b
    lattice = frames.ub_to_aps(ub, roll_deg=roll)
    assert np.linalg.norm(lattice[:, 2]) == pytest.approx(2 * np.pi / 0.5185)  # c* of GaN, 1/nm
    np.testing.assert_allclose(frames.ub_from_aps(lattice, roll_deg=roll), ub, atol=1e-14)


def test_the_orientation_of_a_strained_crystal_is_its_polar_rotation():
    crystal, strain = crystal_of("GaN"), 1e-3 * np.array([[1.0, 0.3, 0], [0.3, -2, 0.1], [0, 0.1, 0.7]])
    ub = U @ np.linalg.inv(np.eye(3) + strain) @ crystal.b_matrix
    np.testing.assert_allclose(frames.rotation_of(ub, crystal), U, atol=1e-14)
    assert frames.rotation_of(np.stack([ub, ub]), crystal).shape == (2, 3, 3)


@pytest.mark.parametrize("name", ["Si", "GaN"])
def test_orix_takes_the_same_orientations(name):
    orientations = pytest.importorskip("orix.quaternion")
    crystal, sample = crystal_of(name), frames.sample_axes(40.0)
    angles = np.array([[10.0, 35.0, 80.0], [220.0, 120.0, 300.0], [0.0, 90.0, 45.0]])
    theirs = orientations.Orientation.from_euler(np.deg2rad(angles))  # Bunge, sample to crystal
    u = frames.from_orix(theirs, crystal, sample=sample)
    np.testing.assert_allclose(np.linalg.det(u), 1)
    np.testing.assert_allclose((frames.bunge(u, crystal, sample=sample) - angles + 180) % 360, 180, atol=1e-6)
    again = frames.to_orix(u, crystal, sample=sample)
    np.testing.assert_allclose(frames.from_orix(again, crystal, sample=sample), u, atol=1e-10)
    assert again.symmetry.name == {"Si": "m-3m", "GaN": "6mm"}[name]
    np.testing.assert_allclose(
        np.linalg.norm(u @ crystal.b_matrix, axis=-2), np.linalg.norm(crystal.b_matrix, axis=0) * np.ones((3, 1))
    )


def test_bunge_angles_where_only_their_sum_counts():
    crystal = crystal_of("Si")
    u = frames.from_passive(Rotation.from_euler("z", -50.0, degrees=True).as_matrix(), crystal)
    np.testing.assert_allclose(frames.bunge(u, crystal), [50.0, 0.0, 0.0], atol=1e-10)


def test_orix_frame_of_a_hexagonal_crystal_has_a_along_x():
    crystal = crystal_of("GaN")
    direct = np.linalg.inv(crystal.b_matrix)  # rows a, b, c
    np.testing.assert_allclose(frames.crystal_axes(crystal) @ direct[0], [3.189, 0, 0], atol=1e-12)
    np.testing.assert_allclose(frames.crystal_axes(crystal) @ direct[2], [0, 0, 5.185], atol=1e-12)
