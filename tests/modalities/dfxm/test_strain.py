"""Axial strain: Bragg's law solved numerically, its sign, error bars, several maps, bad input."""

import json
import math

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import brentq

from braggscope.core.errors import InputError
from braggscope.core.maps import check_map, flag_counts
from braggscope.modalities.dfxm.analysis.strain import strain
from braggscope.modalities.dfxm.geometry import DfxmGeometry
from braggscope.physics.diffraction import wavelength

SILICON_111 = 3.135601  # angstrom
SPACING = 4.0495 / math.sqrt(3)  # of aluminium 111
TRUTH = np.array([[0.0, 1e-3, -1e-3], [5e-4, -2e-4, 3e-3]])


def peak_map(name, values, std=None, unit="deg", **others):
    found = {name: (("row", "column"), np.asarray(values, float), {"units": unit, "long_name": name})}
    if std is not None:
        found[f"{name}_std"] = (("row", "column"), np.full(np.shape(values), std), {"units": unit, "long_name": "std"})
    for other, image in others.items():
        found[other] = (("row", "column"), np.asarray(image, float), {"units": "count", "long_name": other})
    attributes = {"flag_masks": np.array([1, 2], np.int32), "flag_meanings": "no_signal cut", "long_name": "f"}
    found["flag"] = (("row", "column"), np.zeros(np.shape(values), np.int32), attributes)
    return xr.Dataset(found)


def at_bragg(spacing, unknown, low, high):
    """The motor position at which lambda = 2 d sin theta, by a search."""
    return brentq(lambda x: unknown(x, spacing), low, high, xtol=1e-14, rtol=1e-14)


def energy_scan(spacing, theta=0.157):
    return at_bragg(spacing, lambda c, d: 2 * SILICON_111 * math.sin(math.radians(c)) - 2 * d * math.sin(theta), 2, 20)


def scattering_scan(spacing):
    return at_bragg(spacing, lambda t, d: wavelength(17.0) - 2 * d * math.sin(math.radians(t / 2)), 5, 60)


def kev_scan(spacing, theta=0.157):
    return at_bragg(spacing, lambda e, d: wavelength(e) - 2 * d * math.sin(theta), 5, 60)


@pytest.mark.parametrize(
    "name, unit, scan", [("ccmth", "deg", energy_scan), ("obpitch", "deg", scattering_scan), ("energy", "keV", kev_scan)]
)
def test_strain_is_that_of_braggs_law(name, unit, scan):
    positions = np.vectorize(scan)(SPACING * (1 + TRUTH))
    s = strain([peak_map(name, positions, unit=unit)], reference=scan(SPACING))
    np.testing.assert_allclose(s["strain"].values, TRUTH, atol=1e-12)
    check_map(s)


def test_a_wider_spacing_diffracts_longer_waves_and_less_far():
    # longer waves: a larger angle of the monochromator; a fixed wave: a smaller scattering angle
    assert strain([peak_map("ccmth", [[6.0, 6.001]])], reference=6.0)["strain"].values[0, 1] > 0
    assert strain([peak_map("obpitch", [[18.0, 18.001]])], reference=18.0)["strain"].values[0, 1] < 0


@pytest.mark.parametrize("name, at", [("ccmth", 5.94), ("obpitch", 18.0), ("energy", 17.0)])
def test_errors_are_those_of_repeated_positions(name, at):
    draws = np.random.default_rng(0).normal(at, 1e-4 * at, (60, 70))
    s = strain([peak_map(name, draws, std=1e-4 * at, unit="keV" if name == "energy" else "deg")], reference=at)
    assert s["strain"].values.std() == pytest.approx(float(s["strain_std"].mean()), rel=0.04)  # known to 1.1 %


def test_the_reference_is_the_median_or_that_of_a_region():
    values = np.array([[6.0, 6.0, 6.2], [6.0, 6.3, 6.4], [6.1, np.nan, 6.4]])
    m = peak_map("ccmth", values)
    assert strain([m]).attrs["reference"] == pytest.approx(np.nanmedian(values))
    s = strain([m], region=(0, 2, 0, 1))
    assert s.attrs["reference"] == 6.0 and s.attrs["reference_from"] == "median of 2 points of the region"
    assert s["strain"].values[0, 0] == 0 and flag_counts(s)["no_strain"] == 1


def test_a_scan_without_a_rocking_motor_says_that_tilts_look_like_strain():
    assert "looks like strain" in strain([peak_map("ccmth", [[6.0, 6.1]])]).attrs["caution"]
    both = peak_map("ccmth", [[6.0, 6.1]]).assign(mu=(("row", "column"), [[0.0, 0.1]], {"units": "deg", "long_name": "mu"}))
    assert "caution" not in strain([both]).attrs


def test_which_motors_rock_says_the_goniometer_of_the_geometry_or_of_the_map():
    def also(motor):
        image = (("row", "column"), [[0.0, 0.1]], {"units": "deg", "long_name": motor})
        return peak_map("ccmth", [[6.0, 6.1]]).assign({motor: image})

    other = DfxmGeometry(goniometer="base:-y roll:x")
    assert "caution" in strain([also("base")]).attrs
    assert "caution" not in strain([also("base")], geometry=other).attrs
    assert "caution" in strain([also("mu")], geometry=other).attrs
    stated = also("base").assign_attrs(geometry=json.dumps({"goniometer": other.goniometer}))
    assert "caution" not in strain([stated]).attrs


def several(peaks, noise, seed=0, positions=None):
    """Maps of scans at standing ccmth, totals of a Gaussian of 0.006 deg; peaks: Its place at each pixel."""
    random, maps = np.random.default_rng(seed), []
    for x in np.linspace(5.92, 5.96, 9) if positions is None else positions:
        total = 1000 * np.exp(-0.5 * ((x - peaks) / 0.006) ** 2) + random.normal(0, noise, peaks.shape)
        m = peak_map("chi", np.zeros(peaks.shape), total=total, total_std=np.full(peaks.shape, noise))
        maps.append(m.assign_attrs(still_motors=json.dumps({"ccmth": float(x)})))
    return maps


def test_maps_at_standing_energies_give_the_strain_of_each_pixel_in_any_order():
    peaks = np.array([[5.938, 5.940, 5.942]])
    maps = several(peaks, 1e-9)
    s, shuffled = (strain(m, reference=5.94) for m in (maps, [maps[i] for i in (3, 8, 0, 1, 7, 5, 2, 4, 6)]))
    expected = np.sin(np.radians(peaks)) / math.sin(math.radians(5.94)) - 1
    np.testing.assert_allclose(s["strain"].values, expected, rtol=4e-3, atol=1e-9)  # the ends cut at 3 widths
    np.testing.assert_array_equal(s["strain"].values, shuffled["strain"].values)
    assert (s["flag"].values == 0).all()


def test_errors_over_several_maps_are_those_of_repeated_scans():
    s = strain(several(np.full((60, 70), 5.94), 20.0), reference=5.94)
    assert s["strain"].values.std() == pytest.approx(float(s["strain_std"].mean()), rel=0.04)


def test_dark_pixels_and_cut_peaks_are_flagged():
    s = strain(several(np.array([[5.94, 5.96, 7.0]]), 5.0))
    assert np.isnan(s["strain"].values[0, 2]) and flag_counts(s)["no_signal"] == 1
    assert s["flag"].values[0, 1] != 0 and flag_counts(s)["peak_cut_by_the_end_of_the_scan"] == 1


def flagged(maps, which, word, total=None):
    """The maps, one of which says a word at pixel (0, 1), where its total is another."""
    one = maps[which].copy(deep=True)
    one["flag"].attrs.update(flag_masks=np.array([1, 2, 8], np.int32), flag_meanings=f"no_signal cut {word}")
    one["flag"].values[0, 1] |= 8
    if total is not None:
        one["total"].values[0, 1] = total
    return [*maps[:which], one, *maps[which + 1 :]]


@pytest.mark.parametrize("which", [0, 3, 8])
def test_a_pixel_not_measured_in_one_map_has_no_strain(which):
    maps = several(np.full((1, 3), 5.94), 1e-3)
    said = strain(flagged(maps, which, "no_data", np.nan), reference=5.94)
    silent = [m.copy(deep=True) for m in maps]
    silent[which]["total"].values[0, 1] = np.nan
    for s in (said, strain(silent, reference=5.94)):
        assert np.isnan(s["strain"].values).tolist() == [[False, True, False]] and np.isnan(s["total"].values[0, 1])
        assert flag_counts(s)["no_data"] == 1 and flag_counts(s)["no_strain"] == 1 and flag_counts(s)["good"] == 2


def test_doubts_of_any_map_are_carried_whatever_bit_they_have():
    maps = several(np.full((1, 3), 5.94), 1e-3)
    s = strain(flagged(flagged(maps, 3, "some_counts_masked", 300.0), 5, "not_converged"), reference=5.94)
    counts = flag_counts(s)
    assert counts["some_counts_masked"] == 1 and counts["not_converged"] == 1 and counts["good"] == 2
    assert np.isfinite(s["strain"].values).all()
    check_map(s)


def test_a_map_without_signal_counts_as_no_light():
    maps = several(np.full((1, 3), 5.94), 1e-3)
    maps[0]["flag"].values[0, 1], maps[0]["total"].values[0, 1] = 1, np.nan  # as peakfit leaves it
    s = strain(maps, reference=5.94)
    assert (s["flag"].values == 0).all()
    # the light that is left out there, 1000 exp(-20/6 squared / 2) = 3.9 of 3008, 20 mdeg away
    assert s["strain"].values[0, 1] == pytest.approx(math.radians(0.02) / math.tan(math.radians(5.94)) * 3.9 / 3008, rel=0.02)


def test_uneven_steps_shift_no_peak():
    positions = np.concatenate([np.arange(5.916, 5.94, 0.002), np.arange(5.94, 5.964, 0.001)])
    s = strain(several(np.array([[5.94]]), 1e-9, positions=positions), reference=5.94)
    assert abs(s["strain"].values[0, 0]) < 5e-6  # the trapezoid rule misses (2^2 - 1^2) / 12 mdeg^2; without weights 1.6e-4


def test_errors_over_uneven_steps_are_those_of_repeated_scans():
    positions = np.concatenate([np.arange(5.92, 5.94, 0.005), np.arange(5.94, 5.961, 0.0025)])
    s = strain(several(np.full((60, 70), 5.941), 15.0, positions=positions), reference=5.94)
    assert s["strain"].values.std() == pytest.approx(float(s["strain_std"].mean()), rel=0.04)


def changed(maps, **attrs):
    return [m.assign_attrs(attrs) for m in maps]


@pytest.mark.parametrize(
    "maps, options, message",
    [
        ([], {}, "at least one map"),
        ([peak_map("mu", [[1.0]])], {}, "this map has none; it has mu"),
        ([peak_map("ccmth", [[6.0]])], {"motor": "obpitch"}, "needs a map along obpitch"),
        ([peak_map("ccmth", [[6.0]])], {"motor": "mu"}, "motor must be one of auto, ccmth"),
        ([peak_map("ccmth", [[6.0]])], {"reference": -6.0}, "positive position of ccmth in deg, got -6"),
        ([peak_map("ccmth", [[6.0]])], {"reference": 6.0, "region": (0, 1, 0, 1)}, "not both"),
        ([peak_map("ccmth", [[6.0]])], {"region": (0, 2, 0, 1)}, "inside the map of 1 rows x 1 columns"),
        ([peak_map("ccmth", [[np.nan]])], {}, "no pixel of the map has a position of ccmth"),
        (changed(several(np.full((2, 2), 5.94), 1.0), still_motors="{}"), {}, "stood elsewhere in each"),
        (several(np.full((2, 2), 5.94), 1.0)[:2], {}, "three or more different positions of ccmth, each once, got 5.92, 5.925"),
        (2 * several(np.full((2, 2), 5.94), 1.0), {}, "each once, got 5.92, 5.92, 5.925"),
    ],
)  # fmt: skip
def test_bad_input_is_named(maps, options, message):
    with pytest.raises(InputError, match=message):
        strain(maps, **options)
