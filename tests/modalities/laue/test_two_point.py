"""Two-point correlation: closed forms of stripes, squares and triangles of probability; errors; bad maps."""

import numpy as np
import pytest
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.modalities.laue.analysis.two_point import full_width, pair_counts, two_point


def labelled(label, dy=0.2, dx=0.1, unit="um"):
    label = np.asarray(label)
    axes = {n: (n, s * np.arange(k), {"units": unit}) for n, s, k in (("y", dy, label.shape[0]), ("x", dx, label.shape[1]))}
    flag = np.where(label > 0, 0, 1).astype(np.int32)
    about = {"long_name": "flag", "flag_masks": np.array([1], np.int32), "flag_meanings": "none"}
    return xr.Dataset(
        {"grain": (("y", "x"), label, {"units": "1", "long_name": "grain"}), "flag": (("y", "x"), flag, about)}, axes
    )


def stripes(width, rows=30, columns=120):
    return np.tile(np.arange(columns) // width + 1, (rows, 1))


def test_stripes_fall_as_a_triangle_across_and_not_at_all_along():
    width, columns = 6, 120
    found = two_point(labelled(stripes(width)), reach=1.0)
    d = np.arange(0, 11)
    # pairs k apart in one stripe: (width - k) of each of the stripes, of (columns - k)
    exact = (columns // width) * np.maximum(width - d, 0) / (columns - d)
    np.testing.assert_allclose(found["along_x"].values, exact, atol=1e-12)
    assert (found["along_y"].values[::2] == 1).all()  # dy = 2 dx: between the points it is interpolated
    assert found.attrs["fwhm_x_um"] == pytest.approx(2 * 0.1 * 3, rel=0.04)
    assert np.isnan(found.attrs["fwhm_y_um"]) and "larger reach" in found.attrs["caution"]
    assert found["flag"].values.tolist() == [0, 1]


def test_squares_are_alike_along_both_axes_and_at_45_degrees_as_the_product():
    side = 8
    i, j = np.mgrid[:96, :96]
    found = two_point(labelled(i // side * 12 + j // side + 1, 0.1, 0.1), direction_deg=(45.0,), reach=1.1)
    d = found["distance"].values / 0.1
    expected = 96 / (96 - d) * np.maximum(1 - d / side, 0)
    np.testing.assert_allclose(found["along_x"], expected, atol=1e-12)
    np.testing.assert_allclose(found["along_y"], expected, atol=1e-12)
    assert found.attrs["anisotropy"] == pytest.approx(1, abs=1e-12)
    k = d / np.sqrt(2)
    along = (96 / (96 - k) * np.maximum(1 - k / side, 0)) ** 2
    assert np.abs(found["along_45deg"] - along).max() < 0.01  # interpolation among four displacements
    half = (1 - np.sqrt(0.5)) / (1 / side - np.sqrt(0.5) / 96)
    assert float(found["fwhm"][2]) == pytest.approx(2 * half * np.sqrt(2) * 0.1, rel=0.01)


def test_the_picture_in_the_plane_holds_the_curves_and_is_even():
    label = np.random.default_rng(0).integers(1, 4, (20, 30))
    found = two_point(labelled(label, 0.1, 0.1), reach=0.8)
    plane = found["same_grain"].values
    np.testing.assert_allclose(plane, plane[::-1, ::-1])
    middle = plane.shape[0] // 2, plane.shape[1] // 2
    np.testing.assert_allclose(plane[middle[0], middle[1] : middle[1] + 9], found["along_x"].values)
    np.testing.assert_allclose(plane[middle[0] : middle[0] + 9, middle[1]], found["along_y"].values)


def test_missing_points_are_left_out():
    label = stripes(6)
    label[::7, ::5] = 0
    same, pairs = pair_counts(label, np.array([[0, 1], [2, -3]]))
    for (a, b), s, p in zip(((0, 1), (2, -3)), same.sum(1), pairs.sum(1), strict=True):
        near = [(y, x) for y in range(30) for x in range(120) if 0 <= y + a < 30 and 0 <= x + b < 120]
        both = [(label[y, x], label[y + a, x + b]) for y, x in near if label[y, x] and label[y + a, x + b]]
        assert (s, p) == (sum(u == v for u, v in both), len(both))


def test_axes_that_are_swapped_swap_the_widths(film_map):
    one = film_map(3)
    other = one.rename(y="x", x="y").transpose("y", "x")
    a, b = two_point(one).attrs, two_point(other).attrs
    assert (a["fwhm_x_um"], a["fwhm_y_um"]) == pytest.approx((b["fwhm_y_um"], b["fwhm_x_um"]))
    assert a["anisotropy"] == pytest.approx(1 / b["anisotropy"]) and a["anisotropy"] > 1.3


def test_the_errors_are_those_from_film_to_film(film_map):
    found = [two_point(film_map(seed)).attrs for seed in range(10)]
    for name in ("fwhm_x_um", "fwhm_y_um", "anisotropy"):
        values, stds = (np.array([one[n] for one in found]) for n in (name, f"{name}_std"))
        assert 0.5 < values.std(ddof=1) / stds.mean() < 1.8  # of ten: +- 24 %; of sixty, 0.92, 1.24 and 0.91


def test_a_width_is_interpolated():
    assert full_width(np.array([0, 0.1, 0.3]), np.array([1, 0.8, 0.3])) == pytest.approx(2 * (0.1 + 0.2 * 0.6))
    assert np.isnan(full_width(np.array([0, 1.0]), np.array([1, 0.6])))


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (lambda m: m, {"reach": 0.01}, r"reach must be at least a step of the map \(0.1 um\), got 0.01"),
        (lambda m: m.drop_vars("grain"), {}, "the map must have `grain` or `orientation_x`"),
        (lambda m: m.assign(grain=m["grain"] * 0), {}, "the map has no point with a grain"),
        (lambda m: m.isel(y=0, drop=True), {}, "must be over the two axes y and x of a scan, got x"),
        (lambda m: m.assign_coords(x=m["x"].assign_attrs(units="px")), {}, "axis x of the map must have a length as unit"),
        (lambda m: m.assign_coords(x=("x", m["x"].values ** 2, {"units": "um"})), {}, "axis x of the map must have even steps"),
        (lambda m: m, {"threshold": -1.0}, "threshold must be positive, got -1"),
    ],
)
def test_bad_maps_and_options_are_named(change, options, sentence):
    with pytest.raises(InputError, match=sentence):
        two_point(change(labelled(stripes(5, 12, 30))), **options)
