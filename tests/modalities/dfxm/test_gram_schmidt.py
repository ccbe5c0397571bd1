"""Gram-Schmidt: walls of simulated crystals, orthonormal profiles by hand, a scan that ends before the flanks, bad input."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.core.maps import check_map
from braggscope.core.scan import Axis, Scan
from braggscope.modalities.dfxm.analysis.gram_schmidt import gram_schmidt
from braggscope.modalities.dfxm.phantoms.walls import dislocation_walls
from braggscope.modalities.dfxm.separating import beams
from braggscope.modalities.dfxm.views import gram_schmidt as views


class Stack:
    """Frames in memory, as a reader gives them."""

    def __init__(self, frames):
        self.frames, self.shape, self.dtype = frames, frames.shape, frames.dtype

    def read(self, which, rows, columns):
        return self.frames[which, rows, columns]


def scan_of(frames, **motors):
    axes = tuple(Axis(name, np.asarray(x, float), "deg") for name, x in motors.items())
    return Scan(Path("memory"), "memory", axes, Stack(frames), np.arange(len(frames)))


def walls(seed=0, shape=(31,), frame_shape=(80, 110), **options):
    source = dislocation_walls(None, shape=shape, frame_shape=frame_shape, seed=seed, **options)
    frames = np.asarray(source.frames(np.arange(np.prod(shape)))).astype(np.uint16)
    return source, scan_of(frames, **{str(n): source.grid[n].values for n in source.grid.dims})


def f1(found, true):
    return 2 * (found & true).sum() / (found.sum() + true.sum())


@pytest.fixture(scope="module")
def reduced():
    source, scan = walls()
    return source, scan, gram_schmidt(scan)


@pytest.mark.parametrize(
    ("seed", "shape", "frame_shape", "peak"),
    [(1, (31,), (120, 160), 800.0), (2, (41,), (120, 160), 150.0), (3, (61,), (100, 140), 5000.0), (4, (41,), (200, 150), 800.0)],
)
def test_walls_are_found_without_regions_drawn_by_hand(seed, shape, frame_shape, peak):
    source, scan = walls(seed, shape, frame_shape, peak=peak)
    dataset = gram_schmidt(scan)
    assert f1(dataset["wall"].values > 0, source.truth["wall"].values > 0) >= 0.9
    assert dataset.attrs["size_reduction"] == pytest.approx(shape[0] / 3)


def test_the_map_keeps_the_rules_and_says_what_it_found(reduced):
    _, scan, dataset = reduced
    check_map(dataset)
    assert dataset.attrs["strong_range_from"] == "2 widths" and 0.9 < dataset.attrs["kept_of_the_squares"] <= 1
    np.testing.assert_allclose(dataset["mu"].values, scan.grid["mu"].values)
    assert set(np.unique(dataset["region"].values)) <= {0, 1, 2, 3}


def test_directions_are_orthonormal_and_images_are_projections_on_them(reduced):
    _, scan, dataset = reduced
    e = dataset["direction"].values
    np.testing.assert_allclose(e @ e.T, np.eye(3), atol=1e-12)
    logs = beams.log_counts(scan.frames.frames.astype(float) - dataset.attrs["level"], dataset.attrs["log_scale"])
    for n, name in enumerate(("strong", "weak_minus", "weak_plus")):
        np.testing.assert_allclose(dataset[name].values, np.tensordot(e[n], logs, 1), rtol=1e-9, atol=1e-9)
    # the first direction is the strong profile itself, the second has none of it
    profile = dataset["profile"].values
    np.testing.assert_allclose(e[0], profile[0] / np.linalg.norm(profile[0]))
    np.testing.assert_allclose(e[2] @ profile[:2].T, 0, atol=1e-9)


def test_orthonormal_vectors_by_hand():
    found = beams.orthonormal(np.array([[3.0, 0, 4], [5, 2, 0], [1, 1, 7]]))
    # e1 = (3, 0, 4) / 5; (5, 2, 0) - 3 e1 = (3.2, 2, -2.4), length sqrt(20)
    np.testing.assert_allclose(found[0], [0.6, 0, 0.8])
    np.testing.assert_allclose(found[1], np.array([3.2, 2, -2.4]) / np.sqrt(20))
    with pytest.raises(InputError, match="region plus does not differ from those before it"):
        beams.orthonormal(np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]]))


def test_minus_lies_at_low_positions_and_turns_round_with_the_motor(reduced):
    _, scan, dataset = reduced
    back = gram_schmidt(scan_of(scan.frames.frames[::-1].copy(), mu=scan.grid["mu"].values))
    assert f1(back["region"].values == 2, dataset["region"].values == 3) > 0.9
    curve = dataset["profile"].values
    assert curve[1].argmax() < curve[0].argmax() < curve[2].argmax()


def test_errors_of_the_images_are_their_scatter():
    source = dislocation_walls(None, shape=(31,), frame_shape=(60, 80), peak=400.0, noise=None)
    photons = np.asarray(source.frames(np.arange(31)))
    random, box = np.random.default_rng(0), {"strong": "0:60,0:80", "minus": "0:60,0:20", "plus": "0:60,60:80"}
    images, stds = [], []
    for _ in range(20):
        y = np.round(100 + 2 * random.poisson(photons) + random.normal(0, 3, photons.shape)).astype(np.uint16)
        found = gram_schmidt(scan_of(y, mu=source.grid["mu"].values), pedestal="100", gain="2", readout="3", **box)
        images.append(found["strong"].values)
        stds.append(found["strong_std"].values)
    ratio = np.std(images, axis=0, ddof=1).mean() / np.mean(stds)
    assert ratio == pytest.approx(1, abs=0.15)  # the logarithm's first order at some tens of photons


def test_a_scan_that_ends_before_the_flanks_takes_the_half_maximum():
    _, scan = walls(peak=3000.0)
    half = float(np.sqrt(2 * np.log(2)))
    whole = gram_schmidt(scan)
    centre, width = whole.attrs["strong_centre"], whole.attrs["strong_width"]
    x = scan.grid["mu"].values
    near = np.abs(x - centre) < 1.9 * width
    dataset = gram_schmidt(scan_of(scan.frames.frames[near], mu=x[near]))
    assert dataset.attrs["strong_range_from"] == "half maximum"
    assert dataset.attrs["strong_half_range"] == pytest.approx(half * dataset.attrs["strong_width"])
    with pytest.raises(InputError, match=r"no point below the half maximum of its strong beam.*give the options strong,"):
        gram_schmidt(scan_of(scan.frames.frames[x > centre - 0.1 * width], mu=x[x > centre - 0.1 * width]))


def test_regions_given_by_hand_are_used():
    _, scan = walls()
    dataset = gram_schmidt(scan, strong="0:10,0:110", minus="10:20,0:110", plus="20:30,50:110")
    region = dataset["region"].values
    assert (region[:10] == 1).all() and (region[10:20] == 2).all() and (region[20:30, 50:] == 3).all() and not region[30:].any()
    logs = beams.log_counts(scan.frames.frames.astype(float) - dataset.attrs["level"], dataset.attrs["log_scale"])
    np.testing.assert_allclose(dataset["profile"].values[2], logs[:, 20:30, 50:].mean(axis=(1, 2)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"strong": "0:10,0:10"}, "regions strong, minus and plus must all be given or none of them"),
        ({"strong": "a", "minus": "0:1,0:1", "plus": "0:1,0:1"}, "region strong must be START:STOP,START:STOP"),
        (
            {"strong": "0:90,0:9", "minus": "0:1,0:1", "plus": "0:1,0:1"},
            "region strong must lie inside the frame of 80 rows x 110",
        ),
        ({"motor": "chi"}, "option motor must be one of the scan's motors mu, got 'chi'"),
        ({"threshold": "100"}, "option threshold must be half, otsu or an angle between 0 and 90 deg, got '100'"),
        ({"threshold": "nan"}, "option threshold must be half"),
    ],
)
def test_bad_options_are_named(reduced, options, says):
    with pytest.raises(InputError, match=says):
        gram_schmidt(reduced[1], **options)


def test_darkness_has_no_strong_beam():
    frames = np.round(np.random.default_rng(0).normal(100, 3, (21, 30, 40))).astype(np.uint16)
    with pytest.raises(InputError, match="no pixel whose light stands out of the noise"):
        gram_schmidt(scan_of(frames, mu=np.arange(21)), pedestal="100", gain="2", readout="3")


def test_masked_pixels_get_images_from_what_they_have(reduced):
    _, scan, dataset = reduced
    spoilt = scan.frames.frames.copy()
    spoilt[5, 30, 40] = 65535
    found = gram_schmidt(scan_of(spoilt, mu=scan.grid["mu"].values))
    assert found["flag"].values[30, 40] & 4 and not dataset["flag"].values[30, 40] & 4
    for name in ("strong", "weak_minus", "weak_plus"):
        assert abs(found[name].values[30, 40] - dataset[name].values[30, 40]) < 6 * found[f"{name}_std"].values[30, 40] + 0.1


def test_the_picture_has_the_three_images_and_the_walls(reduced):
    titles = " ".join(ax.get_title(loc="left") for ax in views.beams(reduced[2]).axes)
    for word in ("strong beam", "weak beam -", "weak beam +", "walls", "profiles", "flags"):
        assert word in titles
    assert views.beams(xr.Dataset()) is None


def test_the_picture_of_the_walls_names_each_colour_that_is_drawn(reduced):
    dataset = reduced[2]
    ax = next(ax for ax in views.beams(dataset).axes if "walls" in ax.get_title(loc="left"))
    image = ax.images[0]
    drawn = image.cmap(image.norm(image.get_array()))
    key = {t.get_text(): m.get_facecolor() for t, m in zip(ax.get_legend().texts, ax.get_legend().legend_handles, strict=True)}
    region, wall = dataset["region"].values, dataset["wall"].values > 0
    words = {0: "", 1: "region strong", 2: "region -", 3: "region +"}
    there = {(r, w) for r, w in zip(region.ravel(), wall.ravel(), strict=True)}
    assert len(key) == len(there)
    for r, w in there:
        name = ", ".join(word for word in ("wall" if w else "", words[int(r)]) if word) or "neither"
        assert (drawn[(region == r) & (wall == w)] == key[name]).all()
