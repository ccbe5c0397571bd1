"""Table of grains and boundaries: shapes by hand, truth of films, twins, errors, and maps without some of it."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError
from braggscope.core.maps import check_map
from braggscope.modalities.laue.analysis.grains import borders, grains
from braggscope.modalities.laue.grain_maps import grain_map, labels_of, matrices_of, regions_of
from braggscope.modalities.laue.misorientation import angles
from braggscope.physics.crystals import crystal_of

AU = crystal_of("Au")


def halves(between, shape=(6, 8), noise_deg=0.0):
    """Two grains, left and right, that differ by a rotation."""
    label = np.where(np.arange(shape[1]) < 3, 1, 2) * np.ones((shape[0], 1), int)
    u = np.where((label == 2)[..., None, None], between, np.eye(3))
    noise = Rotation.from_rotvec(np.deg2rad(noise_deg) * np.random.default_rng(0).standard_normal((label.size, 3)))
    u = noise.as_matrix().reshape(*shape, 3, 3) @ u
    return grain_map(u, AU, 0.5 * np.arange(shape[0]), 0.2 * np.arange(shape[1]), label)


def test_two_halves_by_hand():
    found = grains(halves(Rotation.from_euler("z", 30, degrees=True).as_matrix()))
    check_map(found)
    assert found["points"].values.tolist() == [30, 18] and found["label"].values.tolist() == [2, 1]
    np.testing.assert_allclose(found["area"], [3.0, 1.8])
    np.testing.assert_allclose([found["centre_y"], found["centre_x"]], [[1.25, 1.25], [1.0, 0.2]])
    np.testing.assert_allclose([found["extent_y"], found["extent_x"]], [[3.0, 3.0], [1.0, 0.6]])
    np.testing.assert_allclose(found["elongation"], [3.0, 5.0], rtol=1e-9)  # rectangles: the ratio of their sides
    np.testing.assert_allclose(np.abs(found["long_axis"]), 90)
    assert found.sizes["boundary"] == 1 and float(found["length"][0]) == pytest.approx(3.0)
    assert float(found["angle"][0]) == pytest.approx(30) and float(found["axis_z"][0]) == pytest.approx(1)
    assert (found["flag"].values == 0).all() and float(found["spread"].max()) < 1e-5


def test_an_oblique_boundary_has_its_length():
    i, j = np.mgrid[:60, :80]
    regions = regions_of(np.where(3 * j - 2 * i > 60, 1, 2))
    _, _, length = borders(regions, (0.1, 0.1))
    # from (row 0, column 20) to (row 60, column 60)
    assert length[0] == pytest.approx(0.1 * np.hypot(60, 40), rel=0.02)


def test_the_mean_orientation_and_its_errors():
    made = halves(Rotation.from_euler("xyz", [70, 10, 40], degrees=True).as_matrix(), (20, 30), noise_deg=0.5)
    for name, std in zip(("x", "y", "z"), (0.4, 0.5, 0.6), strict=True):
        made[f"orientation_{name}_std"] = made["flag"] * 0 + std
    made["strain_xx"] = made["flag"] * 0 + np.where(made["grain"] == 1, 1e-4, -3e-4)
    made["strain_xx_std"] = made["strain_xx"] * 0 + 5e-5
    found = grains(made)
    np.testing.assert_allclose(found["spread"], 0.5 * np.sqrt(3), rtol=0.1)
    np.testing.assert_allclose(found["mean_orientation_z_std"], 0.6)  # the errors of a grain's points are common
    np.testing.assert_allclose(found["mean_strain_xx"], [-3e-4, 1e-4])
    np.testing.assert_allclose(found["mean_strain_xx_std"], 5e-5)
    truth = angles(np.eye(3), Rotation.from_euler("xyz", [70, 10, 40], degrees=True).as_matrix(), AU.rotations)
    assert float(found["angle"][0]) == pytest.approx(float(truth), abs=0.2)
    assert 0.4 * np.sqrt(2) < float(found["angle_std"][0]) < 0.6 * np.sqrt(2)


def test_the_film_is_found_again(film_map):
    made = film_map(2)
    found = grains(made)
    number = found["number"].values
    assert number.max() == found.sizes["grain"] and (np.diff(found["points"].values) <= 0).all()
    for n in (1, 7, 40):
        assert np.unique(made["grain"].values[number == n]).tolist() == [found["label"].values[n - 1]]
    assert found.attrs["mean_angle_deg"] == pytest.approx(40.7, abs=3) and found.attrs["sigma_3_of_length"] < 0.08
    # without labels, orientations make the same regions
    again = grains(made.drop_vars("grain"))
    assert np.array_equal(again["number"].values, number)


def test_twins_are_sigma_3(film_map):
    made = film_map(1, twins=0.5)
    found = grains(made)
    exact = found["from_sigma_3"].values < 1e-3
    sixty = np.abs(found["angle"].values - 60) < 1e-3
    assert exact.sum() > 15 and (sixty[exact]).all()
    np.testing.assert_allclose(np.stack([found[f"axis_{n}"].values[exact] for n in "xyz"]), 1 / np.sqrt(3), atol=1e-5)
    assert found.attrs["sigma_3_of_length"] > 0.1


def test_a_map_without_orientations_or_material_says_what_is_left():
    made = halves(np.eye(3))
    alone = grains(made[["grain", "flag"]].assign_attrs(crystal=""))
    assert "angle" not in alone and float(alone["length"][0]) == pytest.approx(3.0)
    del made.attrs["crystal"]
    with pytest.raises(InputError, match="does not state its material; give it by --material"):
        grains(made)
    assert grains(made, material="Au").attrs["material"] == "Au"
    with pytest.raises(InputError, match="neither a CIF file nor a crystal known here"):
        grains(made, material="Unobtainium")


def test_points_without_orientation_belong_to_no_grain():
    made = halves(Rotation.from_euler("x", 20, degrees=True).as_matrix()).drop_vars("grain")
    made["orientation_x"].values[2, 1] = np.nan
    label = labels_of(made)
    assert label[2, 1] == 0 and np.isnan(matrices_of(made)[2, 1]).all() and len(np.unique(label)) == 3
    assert grains(made)["flag"].values[2, 1] != 0
