"""Multiresolution: the sum is the image, PyWavelets' own answer, errors, unknown pixels, every frame, bad input."""

from pathlib import Path

import numpy as np
import pytest
import pywt
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.core.maps import check_map, empty_map
from braggscope.core.scan import Axis, Scan
from braggscope.modalities.dfxm.analysis.multiresolution import multiresolution
from braggscope.modalities.dfxm.analysis.multiresolution_of_map import multiresolution_of_map
from braggscope.modalities.dfxm.separating.wavelets import Wavelets
from braggscope.modalities.dfxm.views import multiresolution as views


class Stack:
    """Frames in memory, as a reader gives them."""

    def __init__(self, frames):
        self.frames, self.shape, self.dtype = frames, frames.shape, frames.dtype

    def read(self, which, rows, columns):
        return self.frames[which, rows, columns]


def scan_of(frames):
    axes = (Axis("mu", 0.01 * np.arange(len(frames)), "deg"),)
    return Scan(Path("memory"), "memory", axes, Stack(frames), np.arange(len(frames)))


def frames_of(points=11, frame=(60, 84), seed=0):
    """A beam that is bright in the middle, with a sharp line, over a curve; Poisson counts of gain 2 above 100."""
    random, (y, x) = np.random.default_rng(seed), np.mgrid[: frame[0], : frame[1]]
    light = np.exp(-(((x - 40) / 40) ** 2)) * (1 + 0.5 * (np.abs(y - x * 0.4 - 10) < 1))
    curve = np.exp(-0.5 * ((np.arange(points) - 5) / 2) ** 2)
    return (100 + 2 * random.poisson(500 * curve[:, None, None] * light)).astype(np.uint16)


@pytest.mark.parametrize("name", ["haar", "db2", "sym4", "coif1"])
def test_stationary_parts_are_those_of_pywavelets(name):
    image = np.random.default_rng(0).normal(size=(50, 66))
    wavelets = Wavelets.fitting(name, 2, "stationary", image.shape)
    top, left = wavelets._margin
    rows, columns = (-(-(n + 2 * m) // 4) * 4 for n, m in zip(image.shape, (top, left), strict=True))
    extended = np.pad(image, [(top, rows - 50 - top), (left, columns - 66 - left)], mode="symmetric")
    approximation, *details = pywt.mra2(extended, name, 2, transform="swt2", mode="periodization")
    ours, our_details = wavelets.parts(image)
    where = slice(top, top + 50), slice(left, left + 66)
    np.testing.assert_allclose(ours, approximation[where], atol=1e-10)
    for level in (1, 2):
        for n in range(3):
            np.testing.assert_allclose(our_details[level - 1, n], details[2 - level][n][where], atol=1e-10)


@pytest.mark.parametrize("transform", ["stationary", "decimated"])
@pytest.mark.parametrize("name", ["haar", "db4", "bior2.2"])
def test_parts_add_up_to_the_image(name, transform):
    image = np.random.default_rng(1).normal(size=(47, 75))
    wavelets = Wavelets.fitting(name, 2, transform, image.shape)
    approximation, details = wavelets.parts(image)
    np.testing.assert_allclose(approximation + details.sum(axis=(0, 1)), image, atol=1e-12)
    three = wavelets.three(image, 1)
    np.testing.assert_allclose(sum(three), image, atol=1e-12)
    np.testing.assert_allclose(three[1], details[1].sum(axis=0), atol=1e-12)


def test_haar_details_of_a_single_row_step_by_hand():
    # stationary Haar, one level: A is (1 2 1) / 4 along both axes; a step between rows 9 and 10 has no vertical detail
    image = np.zeros((20, 32))
    image[10:] = 8.0
    approximation, details = Wavelets.fitting("haar", 1, "stationary", image.shape).parts(image)
    np.testing.assert_allclose(approximation[8:12, 5], [0, 2, 6, 8], atol=1e-12)
    np.testing.assert_allclose(details[0, 0, 8:12, 5], [0, -2, 2, 0], atol=1e-12)
    np.testing.assert_allclose(details[0, 1:], 0, atol=1e-12)


def test_stationary_wavelets_see_every_position_alike():
    image = np.zeros((48, 64))
    image[20, 30] = 1.0
    moved = np.roll(image, (3, -5), (0, 1))
    wavelets = Wavelets.fitting("db2", 2, "stationary", image.shape)
    (a, d), (b, e) = wavelets.parts(image), wavelets.parts(moved)
    np.testing.assert_allclose(np.roll(d, (3, -5), (2, 3)), e, atol=1e-12)
    np.testing.assert_allclose(np.roll(a, (3, -5), (0, 1)), b, atol=1e-12)


def test_illumination_mesoscale_and_edges_of_the_total():
    frames = frames_of()
    dataset = multiresolution(scan_of(frames), pedestal="100")
    check_map(dataset)
    total = frames.sum(axis=0, dtype=float) - 100 * len(frames)
    np.testing.assert_allclose(dataset["image"].values, total)
    parts = dataset["illumination"] + dataset["mesoscale"] + dataset["edges"]
    np.testing.assert_allclose(parts.values, total, atol=1e-8)
    slow = np.exp(-(((np.arange(84) - 40) / 40) ** 2))
    assert np.corrcoef(dataset["illumination"].values.mean(axis=0), slow)[0, 1] > 0.99
    line = np.abs(np.arange(60)[:, None] - np.arange(84) * 0.4 - 10) < 1
    assert (dataset["edges"].values[line] > 0).mean() > 0.95


def test_errors_are_the_scatter_of_the_parts():
    # noise of a known, uneven variance; over 60 draws the standard deviation is known to 9 % per pixel, here a mean over all
    random, variance = np.random.default_rng(2), np.linspace(1, 9, 60 * 40).reshape(60, 40)
    wavelets = Wavelets.fitting("db2", 2, "stationary", (60, 40))
    made = [wavelets.three(random.normal(size=(60, 40)) * np.sqrt(variance), 1) for _ in range(60)]
    scatter, expected = np.var(made, axis=0), wavelets.variances(variance, 1)
    inside = np.s_[15:45, 12:28]
    for found, known in zip(scatter, expected, strict=True):
        assert found[inside].mean() / known[inside].mean() == pytest.approx(1, abs=0.05)
    assert Wavelets.fitting("db2", 2, "decimated", (60, 40)).variances(variance, 1) is None


def test_every_frame_is_followed():
    frames = frames_of()
    dataset = multiresolution(scan_of(frames), image="frames", levels=2, fine=1, pedestal="100")
    check_map(dataset)
    curve = dataset["illumination_of_frame"]
    assert curve.dims == ("mu",) and int(np.argmax(curve.values)) == 5 and dataset.attrs["frames_used"] == 11
    one = multiresolution(scan_of(frames), image="frame", point=5, levels=2, fine=1, pedestal="100")
    for name in ("illumination", "mesoscale", "edges"):
        assert float(dataset[f"{name}_of_frame"][5]) == pytest.approx(float(np.sqrt((one[name] ** 2).mean())))


def test_masked_pixels_stay_unknown_and_leave_the_others_alone():
    frames = frames_of()
    spoilt = frames.copy()
    spoilt[4, 30, 40] = 65535
    dataset, whole = (multiresolution(scan_of(f), pedestal="100") for f in (spoilt, frames))
    assert (
        dataset["flag"].values[30, 40] == 1 and np.isnan(dataset["edges"].values[30, 40]) and dataset.attrs["filled_pixels"] == 1
    )
    known = dataset["flag"].values == 0
    parts = (dataset["illumination"] + dataset["mesoscale"] + dataset["edges"]).values
    np.testing.assert_allclose(parts[known], whole["image"].values[known], atol=1e-8)


def a_map():
    data = empty_map((), ("row", "column"), (40, 56), {}, {1: "no_data", 2: "no_signal"})
    values = np.add.outer(np.linspace(0, 1, 40), np.linspace(0, 2, 56))
    data["mu"] = (("row", "column"), values.copy(), {"units": "deg", "long_name": "mean mu"})
    data["mu_std"] = (("row", "column"), np.full((40, 56), 0.01), {"units": "deg", "long_name": "standard deviation of mu"})
    data["mu"].values[10, 10] = 1e4  # where there is no signal a mean may be anything
    data["flag"].values[10, 10] = 2
    data["mu"].values[30, 50], data["mu_std"].values[30, 50] = -300.0, 50.0  # nor where its error is larger than the map
    return data


def test_a_quantity_of_a_map_without_what_has_no_signal():
    data = a_map()
    dataset = multiresolution_of_map(data, levels=2, fine=1)
    check_map(dataset)
    assert dataset.attrs["quantity"] == "mu" and dataset["image"].attrs["units"] == "deg"
    assert dataset["flag"].values[10, 10] == 3 and dataset["flag"].values[30, 50] == 1 and dataset.attrs["filled_pixels"] == 2
    known = dataset["flag"].values == 0
    # a plane has no detail away from the border and from the filled pixel
    assert np.abs(dataset["edges"].values[18:24, 20:40]).max() < 1e-10
    assert np.abs(dataset["edges"].values[known]).max() < 0.1
    assert np.abs(multiresolution_of_map(data, levels=2, fine=1, unknown="none", worst=0.0)["edges"].values).max() > 1e3
    # white noise of 0.01: the finest details keep 1 - (3/8)^2-like parts of it, less than all and more than half
    assert 0.005 < float(dataset["edges_std"][25, 30]) < 0.01


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"wavelet": "morlet"}, "option wavelet must be a discrete wavelet such as haar"),
        ({"levels": 9}, r"option levels must be 0 .* which wavelet db2 allows an image of 60 x 84, got 9"),
        ({"fine": 7}, "option fine must be between 1 and the number of levels, 4, got 7"),
        ({"image": "frame", "point": 11}, "option point must be between 0 and 10, got 11"),
        ({"image": "mean"}, "option image must be one of total, frame, frames, got 'mean'"),
        ({"transform": "fast"}, "option transform must be one of stationary, decimated, got 'fast'"),
    ],
)
def test_bad_options_are_named(options, says):
    with pytest.raises(InputError, match=says):
        multiresolution(scan_of(frames_of()), **options)


def test_a_small_image_and_an_unknown_quantity_are_named():
    with pytest.raises(InputError, match="wavelet db4 needs an image of at least 14 pixels a side, got 8 x 40"):
        Wavelets.fitting("db4", 0, "stationary", (8, 40))
    with pytest.raises(InputError, match=r"option quantity must be one over row and column \(mu\), got 'nu'"):
        multiresolution_of_map(a_map(), quantity="nu")


def test_pictures_of_one_image_and_of_all_frames():
    scan = scan_of(frames_of())
    one, every = multiresolution(scan), multiresolution(scan, image="frames", levels=2, fine=1)
    titles = " ".join(ax.get_title(loc="left") for ax in views.scales(one).axes)
    for word in ("illumination", "mesoscale", "edges", "level 1: 1 to 2 px", "flags"):
        assert word in titles
    assert views.scales(every) is None and views.scales_of_frames(one) is None and views.scales(xr.Dataset()) is None
    assert len(views.scales_of_frames(every).axes) >= 6
