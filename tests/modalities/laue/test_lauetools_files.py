"""Files of LaueTools: its own numbers come out, what is written is read back, and broken files say what is wrong."""

from pathlib import Path

import numpy as np
import pytest

from braggscope.core import maps
from braggscope.core.errors import InputError
from braggscope.modalities.laue.detector import detector_matrix, spots, two_theta_chi
from braggscope.modalities.laue.files import TABLES, lauetools, matches, read_geometry, read_table
from braggscope.modalities.laue.files.fit import read_fit, write_fit
from braggscope.modalities.laue.files.grains import IndexedGrain
from braggscope.modalities.laue.files.table import peak_table, stated_geometry
from braggscope.modalities.laue.geometry import LaueGeometry
from braggscope.physics.crystals import crystal_of

DATA = Path(__file__).parents[2] / "reference" / "laue"
DET, COR, FIT = (
    DATA / f"{name}"
    for name in ("GaN_Si_calib.det", "rerun_lt3219_GaN_Si_nw1_0000_Si.cor", "rerun_lt3219_GaN_Si_nw1_0000_Si.fit")
)
ODD = LaueGeometry(70.775312345678, 941.7400001, 1082.5612345, 0.6312345, -0.6823456, 79.142, 300, 200, material="Ge")


def test_a_calibration_gives_the_geometry_with_its_material():
    geometry = LaueGeometry.from_file(DET)
    assert geometry == LaueGeometry(79.612, 977.81, 932.17, 0.477, 0.447, 73.4, 2018, 2016, material="Si")
    assert read_geometry(DET) == geometry


def test_a_calibration_comes_back_to_the_last_digit(tmp_path):
    lauetools.write_det(tmp_path / "a.det", ODD, u=np.eye(3), source="peaks.dat")
    assert lauetools.read_det(tmp_path / "a.det") == ODD
    lines = (tmp_path / "a.det").read_text().splitlines()  # LaueTools: numbers in line 1, matrix in line 6, the rest by name
    assert len(lines[0].split(",")) == 8 and lines[5].startswith("[[1.0") and "# dd : 70.775312345678" in lines


def test_a_peak_list_has_the_angles_that_its_calibration_gives():
    table = TABLES.read(COR)
    maps.check_map(table)
    geometry = stated_geometry(table)
    assert table.sizes == {"peak": 55} and geometry.columns == 2016
    assert float(table["column"][0]) == pytest.approx(1187.92) and float(table["row"][0]) == pytest.approx(1788.42)
    two_theta, chi = two_theta_chi(detector_matrix(geometry), table["row"].values, table["column"].values)
    np.testing.assert_allclose(two_theta, table["two_theta"], atol=1e-5)  # the digits of the file
    np.testing.assert_allclose(chi, table["chi"], atol=1e-5)
    expected = 2 * np.pi * 52110.87 * 1.11 * 0.95  # height and two sigma, called fwax there
    assert float(table["intensity"][0]) == pytest.approx(expected)


def test_a_peak_list_is_written_as_it_is_read(tmp_path):
    table = read_table(COR)
    lauetools.write_cor(tmp_path / "a.cor", table)
    again = read_table(tmp_path / "a.cor")
    assert stated_geometry(again) == stated_geometry(table)
    for name in ("row", "column", "two_theta", "chi"):
        np.testing.assert_allclose(again[name], table[name], atol=6e-6)
    np.testing.assert_allclose(again["intensity"], table["amplitude"])
    lauetools.write_dat(tmp_path / "a.dat", table)
    again = read_table(tmp_path / "a.dat")
    assert matches(tmp_path / "a.dat") and "geometry" not in again.attrs
    for name in ("row", "column", "amplitude", "intensity", "background", "sigma_major", "inclination"):
        np.testing.assert_allclose(again[name], table[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_peak_without_place_is_flagged_and_not_written(tmp_path):
    table = peak_table({"row": [10.0, np.nan], "column": [20.0, 5.0], "intensity": [7.0, 8.0]}, ODD)
    assert table["flag"].values.tolist() == [0, 1] and maps.flag_counts(table)["no_position"] == 1
    lauetools.write_cor(tmp_path / "a.cor", table)
    assert read_table(tmp_path / "a.cor").sizes["peak"] == 1


def test_an_indexed_grain_puts_its_spots_where_lauetools_does():
    (grain,) = read_fit(FIT)
    assert (len(grain), grain.material, grain.mean_deviation_px) == (55, "Si", 0.317)
    row, column, energy = spots(np.linalg.inv(detector_matrix(grain.geometry)), grain.hkl @ grain.ub.T)
    np.testing.assert_allclose(row, grain.peaks["expected_row"], atol=2e-4)  # UBB0 has eight decimals
    np.testing.assert_allclose(column, grain.peaks["expected_column"], atol=2e-4)
    apart = np.hypot(row - grain.peaks["row"], column - grain.peaks["column"])
    assert apart.mean() == pytest.approx(0.317, abs=5e-4)
    np.testing.assert_allclose(energy / grain.peaks["energy"] - 1, 12.398419843 / 12.398 - 1, atol=1e-6)
    np.testing.assert_allclose(grain.strain * 1e3, [[0, -0.09, 0.02], [-0.09, -0.01, 0.07], [0.02, 0.07, 0.01]])
    table = read_table(FIT)
    assert set(table["grain"].values) == {1.0} and stated_geometry(table) == grain.geometry.replace(material="Si")


def test_several_grains_come_back_from_a_fit_file(tmp_path):
    (one,) = read_fit(FIT)
    few = IndexedGrain(one.ub, {name: values[:7] for name, values in one.peaks.items()}, "Si")
    silicon = crystal_of("Si")
    write_fit(tmp_path / "a.fit", [one, few], [silicon, silicon], one.geometry)
    first, second = read_fit(tmp_path / "a.fit")
    assert (len(first), len(second)) == (55, 7) and second.strain is None
    np.testing.assert_allclose(first.ub, one.ub, atol=5e-9)
    np.testing.assert_allclose(first.strain, one.strain, atol=1e-9)
    for name in ("row", "column", "h", "k", "l", "expected_row", "expected_column", "deviation"):
        np.testing.assert_allclose(first.peaks[name], one.peaks[name], atol=3e-4, err_msg=name)
    np.testing.assert_allclose(first.facts["UB"] @ first.facts["B0"], first.ub, atol=1e-8)
    assert stated_geometry(read_table(tmp_path / "a.fit")) == one.geometry


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.det", "70.0, 1, 2, 3\n", "at least dd, xcen, ycen, xbet, xgam and the pixel"),
        ("a.det", "70 1024 x 0 0 0.08", "the first line of a .det file must be numbers"),
        ("a.det", "70.0, 1024, 1024, 0, 0, 0.08, 2048, 2048\n# kf_direction : X>0\n", "kf_direction must be Z>0.*got X>0"),
        ("a.det", "-70.0, 1024, 1024, 0, 0, 0.08, 2048, 2048\n", "a.det: distance_mm must be between"),
        ("a.cor", "2theta chi X Y I\n", "lists no peaks"),
        ("a.cor", "2theta chi X Y I\n1 2 3\n", "peak 1 must have the 5 columns"),
        ("a.cor", "2theta chi X Y I\n1 2 3 4 five\n", "line 2 must be numbers, got '1 2 3 4 five'"),
        ("a.cor", "2theta chi I\n1 2 3\n", "must list the columns X and Y"),
        (
            "a.cor",
            "2theta chi X Y I\n1 2 3 4 5\n# dd : 70\n# xcen : 1\n# ycen : 1\n# xbet : 0\n# xgam : 0\n",
            "without 'pixelsize'",
        ),
        ("a.fit", "#Number of indexed spots: 2\n", "names the columns of its spots"),
        ("a.fit", "#Number of indexed spots: 1\n##spot_index h k l Xexp Yexp\n0 1 1 1 5 6\n", "must have the matrix 'UBB0"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        (lauetools.read_det if name == "a.det" else read_table)(tmp_path / name)


def test_what_is_no_peak_list_is_not_taken_for_one(tmp_path):
    (tmp_path / "a.fit").write_bytes(b"SIMPLE  =                    T\0")
    (tmp_path / "a.dat").write_text("0 1\n1 2\n")
    for name in ("a.fit", "a.dat", "none.cor"):
        assert not matches(tmp_path / name)
    with pytest.raises(InputError, match=r"is no peak list known here; known are .cor"):
        read_table(tmp_path / "a.dat")
    with pytest.raises(InputError, match="does not exist"):
        read_geometry(tmp_path / "none.det")


def test_what_a_format_cannot_say_is_refused(tmp_path):
    table = peak_table({"row": [1.0], "column": [2.0], "intensity": [3.0]})
    with pytest.raises(InputError, match="needs the geometry of its angles"):
        lauetools.write_cor(tmp_path / "a.cor", table)
    with pytest.raises(InputError, match="no turn of the laboratory about the beam, but the geometry has roll_deg 12"):
        lauetools.write_det(tmp_path / "a.det", ODD.replace(roll_deg=12.0))
    assert not list(tmp_path.iterdir())
