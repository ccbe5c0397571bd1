"""Spots of a frame: found where they are, with errors that hold; what is no spot is told from them."""

import math

import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.modalities.laue.geometry import LaueGeometry
from braggscope.modalities.laue.peaks.background import background
from braggscope.modalities.laue.peaks.fit import BORDER, FAILED, MASKED, OVERLAPPING, SATURATED, SHARP
from braggscope.modalities.laue.peaks.search import Search, find_spots
from braggscope.modalities.laue.peaks.table import peak_table

SHAPE = (240, 176)  # neither square nor whole tiles


def light(shape, spots):
    """Expected counts of Gaussians (row, column, amplitude, sigma major, sigma minor, inclination in degrees)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    total = np.zeros(shape)
    for row, column, amplitude, major, minor, inclination in spots:
        a = np.deg2rad(inclination)
        u = (np.cos(a) * (x - column) + np.sin(a) * (y - row)) / major
        v = (np.cos(a) * (y - row) - np.sin(a) * (x - column)) / minor
        total += amplitude * np.exp(-0.5 * (u**2 + v**2))
    return total


def frame(spots, seed=0, level=50.0, shape=SHAPE):
    random = np.random.default_rng(seed)
    slope = np.linspace(0, 40, shape[1])
    return (random.poisson(level + slope + light(shape, spots)) + np.round(random.normal(10, 2, shape))).astype(np.uint16)


def table_of(image, mask=None, **options):
    return peak_table(find_spots(image, mask, how=Search(**options)))


def nearest(table, row, column):
    at = int(np.argmin(np.hypot(table["row"].values - row, table["column"].values - column)))
    return {n: float(table[n].values[at]) for n in table.data_vars}


SPOTS = [(40.3, 60.8, 900.0, 1.2, 1.2, 0.0), (100.7, 30.2, 3000.0, 2.0, 1.0, 30.0), (180.1, 120.5, 500.0, 1.8, 0.9, -60.0)]


def test_noiseless_gaussians_are_recovered_exactly():
    image = (100 + light(SHAPE, SPOTS)).astype(np.float32)
    image += np.random.default_rng(0).normal(0, 1e-2, SHAPE).astype(np.float32)  # some noise to measure against
    table = table_of(image)
    for row, column, amplitude, major, minor, inclination in SPOTS:
        one = nearest(table, row, column)
        assert (one["row"], one["column"]) == pytest.approx((row, column), abs=2e-4)
        assert (one["sigma_major"], one["sigma_minor"]) == pytest.approx((major, minor), rel=1e-3)
        assert one["amplitude"] == pytest.approx(amplitude, rel=1e-3)
        assert one["intensity"] == pytest.approx(2 * math.pi * amplitude * major * minor, rel=1e-3)
        if major > minor:
            assert one["inclination"] == pytest.approx(inclination, abs=0.1)


def test_places_and_intensities_lie_within_their_errors():
    random = np.random.default_rng(1)
    z, light_z = [], []
    for seed in range(4):
        rows, columns = np.meshgrid(np.arange(20, 225, 25), np.arange(20, 160, 25), indexing="ij")
        truth = [
            (r + random.uniform(-0.5, 0.5), c + random.uniform(-0.5, 0.5), 10 ** random.uniform(1.8, 3), 1.5, 1.0, 20.0)
            for r, c in zip(rows.ravel(), columns.ravel(), strict=True)
        ]
        table = table_of(frame(truth, seed))
        for row, column, amplitude, major, minor, _ in truth:
            one = nearest(table, row, column)
            assert math.hypot(one["row"] - row, one["column"] - column) < 1.5
            z += [(one["row"] - row) / one["row_std"], (one["column"] - column) / one["column_std"]]
            light_z.append((one["intensity"] - 2 * math.pi * amplitude * major * minor) / one["intensity_std"])
    # of 432 values the scatter is known to 3.4 %, of 216 to 4.8 %; four times that
    assert np.std(z) == pytest.approx(1.0, abs=0.14)
    assert np.std(light_z) == pytest.approx(1.0, abs=0.2)
    assert abs(np.mean(z)) < 4 / math.sqrt(len(z))


def test_noise_alone_has_hardly_a_peak():
    table = table_of(frame([], 3, shape=(512, 512)), threshold=5.0)
    assert table.sizes["peak"] <= 2  # 0.3 expected


def test_transposed_frames_give_transposed_peaks():
    image = frame(SPOTS)
    straight, turned = table_of(image), table_of(np.ascontiguousarray(image.T))
    for row, column, *_ in SPOTS:
        a, b = nearest(straight, row, column), nearest(turned, column, row)
        assert (a["row"], a["column"]) == pytest.approx((b["column"], b["row"]), abs=0.3 * a["row_std"])
        assert a["sigma_major"] == pytest.approx(b["sigma_major"], rel=0.02)
        if row > 50:  # not the round one
            assert (a["inclination"] + b["inclination"]) % 180 == pytest.approx(90, abs=5)


def test_threads_change_nothing():
    image = frame(SPOTS)
    a, b = (peak_table(find_spots(image, threads=threads)) for threads in (True, False))
    assert a.identical(b)


def test_hot_pixels_are_no_peaks_and_one_beside_a_spot_does_not_move_it():
    image = frame(SPOTS)
    image[20, 100] = image[200, 40] = 5000
    image[42, 63] = 20000
    spots = find_spots(image)
    assert {(20, 100), (200, 40), (42, 63)} <= {tuple(map(int, p)) for p in spots.hot}
    table = peak_table(spots)
    for row, column in ((20, 100), (200, 40)):
        assert np.hypot(table["row"] - row, table["column"] - column).min() > 3
    one = nearest(table, *SPOTS[0][:2])
    assert math.hypot(one["row"] - 40.3, one["column"] - 60.8) < 5 * one["row_std"]


def test_a_cosmic_ray_is_called_sharp():
    image = frame(SPOTS)
    image[70, 100:104] = 3000
    assert int(nearest(table_of(image), 70, 101.5)["flag"]) & SHARP


def test_saturated_spots_are_fitted_by_their_flanks_and_flagged():
    image = np.minimum(frame([(60.4, 80.3, 9000.0, 2.0, 1.5, 10.0)]), 4000).astype(np.uint16)
    one = nearest(table_of(image, saturation=4000.0), 60.4, 80.3)
    assert int(one["flag"]) & SATURATED
    assert one["amplitude"] == pytest.approx(9000, rel=0.1)
    assert (one["row"], one["column"]) == pytest.approx((60.4, 80.3), abs=0.1)


def test_masked_pixels_and_the_border_are_flagged():
    image = frame([(60.4, 80.3, 900.0, 1.2, 1.2, 0.0), (100.2, 0.8, 900.0, 1.2, 1.2, 0.0)])
    mask = np.ones(SHAPE, bool)
    mask[61, 81] = False
    image[61, 81] = 60000
    table = table_of(image, mask)
    one = nearest(table, 60.4, 80.3)
    assert int(one["flag"]) == MASKED
    assert (one["row"], one["column"]) == pytest.approx((60.4, 80.3), abs=0.1)
    assert int(nearest(table, 100.2, 0.8)["flag"]) & BORDER


def test_two_spots_four_pixels_apart_are_fitted_together():
    pair = [(60.4, 80.3, 900.0, 1.0, 1.0, 0.0), (62.0, 84.2, 600.0, 1.0, 1.0, 0.0)]
    table = table_of(frame(pair))
    for row, column, *_ in pair:
        one = nearest(table, row, column)
        assert int(one["flag"]) == OVERLAPPING
        assert abs(one["row"] - row) < 5 * one["row_std"] and abs(one["column"] - column) < 5 * one["column_std"]


def test_a_round_detector_has_no_peaks_at_its_edge():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for seed in range(3):
        image = frame(SPOTS[1:], seed)
        image[np.hypot(y - 120, x - 88) > 84] = 0
        table = table_of(image, threshold=6.0)
        assert table.sizes["peak"] == 2
    assert find_spots(image).background.dead > 0.1


def test_gaps_of_counting_detectors_are_negative_counts():
    image = frame(SPOTS).astype(np.int32)
    image[:, 70:75] = -1
    table = table_of(image)
    assert not ((table["column"].values > 70) & (table["column"].values < 75)).any()
    one = nearest(table, *SPOTS[0][:2])
    assert math.hypot(one["row"] - 40.3, one["column"] - 60.8) < 0.2


def test_few_photons_without_a_background_are_searched():
    random = np.random.default_rng(0)
    image = random.poisson(0.05 + light(SHAPE, [(60.4, 80.3, 8.0, 1.0, 1.0, 0.0)])).astype(np.uint16)
    table = table_of(image)
    assert math.hypot(nearest(table, 60.4, 80.3)["row"] - 60.4, nearest(table, 60.4, 80.3)["column"] - 80.3) < 1
    assert table.sizes["peak"] < 8


def test_the_gain_is_read_off_the_background():
    random = np.random.default_rng(0)
    photons = random.poisson(np.broadcast_to(np.linspace(20, 400, 512), (256, 512)))
    found = background((300 + 3.0 * photons).astype(np.float32), lambda work, count, **_: work(0, count))
    assert found.gain == pytest.approx(3.0, rel=0.1)


def test_the_most_significant_are_kept():
    table = table_of(frame(SPOTS), most=2)
    assert table.sizes["peak"] == 2
    assert nearest(table, 100.7, 30.2)["significance"] == table["significance"].values.max()


def test_a_frame_of_equal_counts_has_no_peaks():
    for value in (0, 7):
        assert table_of(np.full((64, 64), value, np.uint16)).sizes["peak"] == 0
    assert table_of(np.full((64, 64), np.nan, np.float32)).sizes["peak"] == 0


def test_angles_are_those_of_the_detector():
    geometry = LaueGeometry(70.0, 89.0, 121.0, 0.0, 0.0, 100.0)
    table = peak_table(find_spots(frame([(120.0, 88.0, 3000.0, 1.0, 1.0, 0.0)])), geometry=geometry)
    one = nearest(table, 120, 88)
    assert one["two_theta"] == pytest.approx(90, abs=0.01)  # the foot of the normal, straight above the sample
    assert one["chi"] == pytest.approx(0, abs=0.01)


def test_failed_fits_keep_a_centroid():
    image = frame([(60.0, 80.0, 400.0, 1.2, 1.2, 0.0)])
    mask = np.zeros(SHAPE, bool)
    mask[59:62, 79:82] = True  # nine counts are too few for seven parameters
    mask[120:] = True
    one = nearest(table_of(image, mask), 60, 80)
    if int(one["flag"]) & FAILED:
        assert math.isnan(one["sigma_major"]) and math.isfinite(one["row"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.0}, "threshold must be at least 2 standard deviations, got 1"),
        ({"most": -1}, "most must be a number of peaks"),
        ({"box": 8}, "box must be an odd number of pixels from 5 to 101, got 8"),
        ({"saturation": 0.0}, "saturation must be a positive count, got 0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Search(**options)


def test_a_frame_must_be_an_image():
    with pytest.raises(InputError, match="at least 8 rows and 8 columns, got 3 x 20"):
        find_spots(np.zeros((3, 20), np.uint16))
