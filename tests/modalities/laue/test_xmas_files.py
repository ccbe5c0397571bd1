"""Files of XMAS, made here from known grains: orientation, sign of the indices and scale come out; there is no real file."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError
from braggscope.modalities.laue.detector import detector_matrix, spots
from braggscope.modalities.laue.files import read_table, xmas
from braggscope.modalities.laue.frames import from_xmas
from braggscope.modalities.laue.geometry import bm32
from braggscope.physics.crystals import crystal_of

GEOMETRY = bm32()
UB = Rotation.from_euler("xyz", [-20.0, 50.0, 10.0], degrees=True).as_matrix() @ crystal_of("Ge").b_matrix
COLUMNS = "x(exp) y(exp) h k l xdev ydev energy dspace intens integr xwidth ywidth tilt rfactor pearson xcentroid ycentroid"


@pytest.fixture
def reflections():
    hkl = np.stack(np.meshgrid(*[np.arange(-6, 7, 2)] * 3), -1).reshape(-1, 3)
    row, column, energy = spots(np.linalg.inv(detector_matrix(GEOMETRY)), hkl @ UB.T)
    kept = (row > 0) & (row < 2048) & (column > 0) & (column < 2048) & (energy < 30)
    return hkl[kept], row[kept], column[kept], energy[kept]


def matrix_lines(matrix):
    return [" ".join(f"{value:.9f}" for value in row) for row in matrix]


def str_file(path, reflections, sign, scale):
    hkl, row, column, energy = reflections
    lines = ["image.mccd", "Number of grains 2", "Grain no 1", COLUMNS]
    for (h, k, m), r, c, e in zip(sign * hkl, row, column, energy, strict=True):
        lines.append(f"{c + 1:.4f} {r + 1:.4f} {h} {k} {m} 0.3 -0.4 {e:.4f} 1.0 800 4000 1 1 0 0.02 1 {c + 1:.2f} {r + 1:.2f}")
    sample = from_xmas(GEOMETRY.xbet_deg).T @ UB * scale
    lines += [
        "latticeparameters 0.56575 0.56575 0.56575 90 90 90",
        "dd, xcen, ycen     70.775 941.74 1082.56",
        "xbet, xgam 0.63 -0.682",
    ]
    lines += [
        "dev1, dev2, dev 0.3 0.4 0.5",
        "deviatoric strain in crystal reference frame (10-3)",
        *matrix_lines(np.diag([1.0, -2.0, 1.0])),
    ]
    lines += [
        "coordinates of a*, b*, c* in X, Y, Z",
        *matrix_lines(sample.T),
        "Grain no 2",
        COLUMNS,
        "latticeparameters 0 0 0 0 0 0",
    ]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("sign", "scale"), [(1, 10.0), (-1, 1.0), (-1, 20 * np.pi)])
def test_a_refined_grain_comes_out_whatever_sign_and_unit_the_file_has(tmp_path, reflections, sign, scale):
    str_file(tmp_path / "a.str", reflections, sign, scale)
    (grain,) = xmas.read_str(tmp_path / "a.str", pixel_um=79.142)
    np.testing.assert_allclose(grain.ub, UB, rtol=2e-5, atol=1e-6)  # four decimals of the energies
    np.testing.assert_array_equal(grain.hkl, reflections[0])
    np.testing.assert_allclose(grain.peaks["row"], reflections[1], atol=1e-4)
    assert grain.mean_deviation_px == pytest.approx(0.5) and grain.strain[1, 1] == pytest.approx(-2e-3)
    assert (grain.geometry.distance_mm, grain.geometry.xgam_deg, grain.geometry.pixel_um) == (70.775, -0.682, 79.142)
    table = read_table(tmp_path / "a.str")
    assert "geometry" not in table.attrs and table.attrs["xmas_calibration"] == [70.775, 941.74, 1082.56, 0.63, -0.682]


def test_an_indexation_comes_out(tmp_path, reflections):
    hkl, row, column, energy = reflections
    u = from_xmas(0.63).T @ UB / np.linalg.norm(UB[:, 0])
    lines = [
        "image.mccd",
        "x",
        "y",
        f"number of indexed reflections: {len(hkl)}",
        "x(exp) y(exp) h k l ang.dev. xdev ydev energy theta",
    ]
    for (h, k, m), r, c, e in zip(hkl, row, column, energy, strict=True):
        lines.append(f"{c + 1:.4f} {r + 1:.4f} {h} {k} {m} 0.01 0.1 0.1 {e:.4f} 40 800 4000 1 1 0 0.02 1 {c + 1:.2f} {r + 1:.2f}")
    (tmp_path / "a.ind").write_text("\n".join([*lines, "matrix hkl => XYZ", *matrix_lines(u)]) + "\n")
    grain = xmas.read_ind(tmp_path / "a.ind", xbet_deg=0.63)
    np.testing.assert_allclose(grain.ub, UB, rtol=2e-5, atol=1e-6)
    table = read_table(tmp_path / "a.ind")
    np.testing.assert_allclose(table["column"], column, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Grain no 1\nx(exp)\n1 2 3\n", "must state the calibration"),
        (
            "Grain no 1\nx(exp)\n1 2 3\nlatticeparameters\ndd, xcen, ycen 1 2 3\nxbet, xgam 1 2\n",
            "a spot must have at least 11 columns, got 3",
        ),
        ("x(exp)\n", "must have a part 'Grain no'"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path, text, words):
    (tmp_path / "a.str").write_text(text)
    with pytest.raises(InputError, match=words):
        read_table(tmp_path / "a.str")
