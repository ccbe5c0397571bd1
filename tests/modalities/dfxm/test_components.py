"""Components: sources recovered within their errors, an independent program, the count, masked pixels, bad input."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from braggscope.core.errors import InputError
from braggscope.core.maps import check_map
from braggscope.core.scan import Axis, Scan
from braggscope.modalities.dfxm.analysis.components import components
from braggscope.modalities.dfxm.separating import scan_counts
from braggscope.modalities.dfxm.views import components as views

OFFSET, GAIN, READOUT = 100.0, 2.0, 3.0


class Stack:
    """Frames in memory, as a reader gives them."""

    def __init__(self, frames):
        self.frames, self.shape, self.dtype = frames, frames.shape, frames.dtype

    def read(self, which, rows, columns):
        return self.frames[which, rows, columns]


def scan_of(frames, order=None, **motors):
    motors = motors or {"mu": 0.01 * np.arange(len(frames))}
    axes = tuple(Axis(name, np.asarray(x, float), "deg") for name, x in motors.items())
    return Scan(Path("memory"), "memory", axes, Stack(frames), np.arange(len(frames)) if order is None else order)


def three_sources(frame=(110, 150), points=31, peak=800.0, seed=0):
    """Frames, independent maps (source, row, column) of which most is zero, and curves (source, point) that overlap."""
    random, u = np.random.default_rng(seed), np.arange(points)
    fields = [gaussian_filter(random.normal(size=frame), 3, mode="wrap") for _ in range(3)]
    maps = np.array([np.maximum(0, field / field.std() - 0.5) for field in fields])
    maps /= maps.max(axis=(1, 2), keepdims=True)
    centre, width = np.array([9.0, 15.0, 21.0])[:, None], np.array([2.2, 3.0, 2.4])[:, None]
    curves = np.exp(-0.5 * ((u - centre) / width) ** 2)
    photons = peak * np.tensordot(curves.T, maps, 1)
    counts = OFFSET + GAIN * random.poisson(photons) + random.normal(0, READOUT, photons.shape)
    return np.round(counts).clip(0, 65535).astype(np.uint16), maps, curves


def matched(dataset, maps):
    """Largest correlation of each true map with one of the found ones, and which."""
    found = np.corrcoef(
        np.vstack([maps.reshape(len(maps), -1), dataset["mixing"].values.reshape(dataset.sizes["component"], -1)])
    )
    found = np.abs(found[: len(maps), len(maps) :])
    return found.max(axis=1), found.argmax(axis=1)


@pytest.fixture(scope="module")
def made():
    return three_sources()


@pytest.mark.parametrize("method", ["nica", "nmf", "nica_nmf"])
def test_the_true_maps_and_curves_are_recovered(made, method):
    frames, maps, curves = made
    dataset = components(scan_of(frames), method=method)
    check_map(dataset)
    assert (dataset.attrs["count"], dataset.attrs["count_by"], dataset.attrs["separation"]) == (3, "noise", method)
    likeness, which = matched(dataset, maps)
    assert likeness.min() >= 0.995 and sorted(which) == [0, 1, 2]
    found = dataset["curve"].values[which]
    np.testing.assert_allclose(found.sum(axis=1), 1)
    shape = curves / curves.sum(axis=1, keepdims=True)
    # independence of the maps holds to the sample that they are
    assert np.abs(found - shape).max() < (0.06 if method == "nica" else 0.03) * shape.max()
    assert dataset.attrs["gain"] == pytest.approx(GAIN, rel=0.15)  # measured on some thousand pixels


def test_the_product_of_nica_factors_is_the_data_to_the_noise(made):
    frames, _, _ = made
    dataset = components(scan_of(frames), method="nica", pedestal="100", gain="2", readout="3")
    product = np.tensordot(dataset["curve"].values.T, dataset["mixing"].values, 1)
    y = frames - dataset.attrs["level"]
    assert np.linalg.norm(y - product) / np.linalg.norm(y) == pytest.approx(dataset.attrs["relative_residual"], rel=1e-9)
    # the noise is the only thing left, 1 in units of itself; its variance at a noisy expectation makes this some per cent more
    assert 0.98 < dataset.attrs["reduced_deviance"] < 1.08


def test_principal_components_are_those_of_scikit_learn(made):
    from sklearn.decomposition import PCA

    frames, _, _ = made
    dataset = components(scan_of(frames), method="pca", count=3)
    curves = frames.reshape(len(frames), -1).T.astype(float)
    centred = curves - curves.mean(axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    overlap = np.abs(dataset["curve"].values @ vectors[:, :-4:-1])
    np.testing.assert_allclose(overlap, np.eye(3), atol=1e-6)
    # of the curves less their own mean scikit-learn also takes the mean curve off: the span of 3 + 1 directions holds ours
    theirs = PCA(3, svd_solver="full").fit(centred)
    span = np.linalg.qr(np.vstack([theirs.components_, centred.mean(axis=0)]).T)[0]
    assert np.linalg.norm(span.T @ dataset["curve"].values[0]) == pytest.approx(1, abs=1e-2)
    scores = dataset["curve"].values @ centred.T
    np.testing.assert_allclose(dataset["mixing"].values.reshape(3, -1), scores, atol=1e-6)


def test_errors_of_the_maps_are_those_of_counting():
    # one curve: the map is sum(a y / D) / sum(a^2 / D); its scatter over many pixels of the same light is known
    points, pixels = 15, 4000
    curve = np.exp(-0.5 * ((np.arange(points) - 7) / 2.0) ** 2)
    random = np.random.default_rng(5)
    light = np.repeat([400.0, 100.0], pixels // 2)
    y = OFFSET + GAIN * random.poisson(curve[:, None] * light) + random.normal(0, READOUT, (points, pixels))
    frames = np.round(y).astype(np.uint16).reshape(points, 40, 100)
    dataset = components(scan_of(frames), count=1, pedestal="100", gain="2", readout="3")
    found, std = dataset["mixing"].values.ravel(), dataset["mixing_std"].values.ravel()
    for half in (slice(None, pixels // 2), slice(pixels // 2, None)):
        assert found[half].mean() == pytest.approx(GAIN * light[half][0] * curve.sum(), rel=5e-3)
        assert np.std(found[half]) / np.sqrt(np.mean(std[half] ** 2)) == pytest.approx(1, abs=0.05)  # 2000 pixels: 1.6 %


def test_errors_of_the_curve_moments_are_those_of_repeated_scans():
    # nica: its curves are not cut at zero, which would pull the mean towards the middle of the scan
    _, maps, curves = three_sources(frame=(30, 40), seed=7)
    photons, random, found = 60 * np.tensordot(curves[:1].T, maps[:1], 1), np.random.default_rng(2), []
    for _ in range(40):
        y = OFFSET + GAIN * random.poisson(photons) + random.normal(0, READOUT, photons.shape)
        one = components(scan_of(np.round(y).astype(np.uint16)), method="nica", count=1, pedestal="100", gain="2", readout="3")
        found.append([float(one[n][0]) for n in ("mu_mean", "mu_mean_std", "mu_width", "mu_width_std")])
    mean, mean_std, width, width_std = np.array(found).T
    x = 0.01 * np.arange(31)
    true = curves[0] @ x / curves[0].sum()
    spread = np.sqrt(curves[0] @ (x - true) ** 2 / curves[0].sum())
    for value, std, known in ((mean, mean_std, true), (width, width_std, spread)):
        assert np.std(value) / np.sqrt(np.mean(std**2)) == pytest.approx(1, abs=0.35)  # 40 scans: 11 %, three times
        assert abs(value.mean() - known) < 4 * std.mean() / np.sqrt(40)


def test_noise_alone_has_no_component():
    frames = np.round(np.random.default_rng(0).normal(OFFSET, READOUT, (31, 40, 50))).astype(np.uint16)
    with pytest.raises(InputError, match="no component that stands out of the noise"):
        components(scan_of(frames), pedestal="100", gain="2", readout="3")


def test_a_continuum_of_curves_is_counted_by_its_share():
    # a peak that moves through the image: far more directions than `most` stand out of the noise
    x, u = np.linspace(-1, 1, 80), np.arange(41)
    random = np.random.default_rng(0)
    photons = 3000 * np.exp(-0.5 * ((u[:, None, None] - 20 - 14 * x) / 1.5) ** 2) * np.ones((41, 60, 1))
    frames = np.round(OFFSET + GAIN * random.poisson(photons) + random.normal(0, READOUT, photons.shape)).astype(np.uint16)
    dataset = components(scan_of(frames), most=12)
    attrs = dataset.attrs
    assert attrs["count_above_noise"] > 12 and attrs["count_by"].startswith("share")
    assert dataset["explained"].values[attrs["count"] - 1] == pytest.approx(attrs["explained_above_noise"])
    less = components(scan_of(frames), criterion="share", share=0.5)
    assert less.attrs["count"] < attrs["count"] and less.attrs["explained_above_noise"] >= 0.5
    assert components(scan_of(frames), most=4).attrs["count_by"] == "share, limited by most"


def test_masked_pixels_are_separated_by_what_they_have(made):
    frames, _, _ = made
    spoilt = frames.copy()
    spoilt[14, 10:14, 20:24] = 65535  # an overflow
    whole, dataset = components(scan_of(frames)), components(scan_of(spoilt))
    box = dataset["flag"].values[10:14, 20:24]
    assert (box & 4).all() and not (dataset["flag"].values & 4).sum() - 4 * 16
    np.testing.assert_allclose(
        dataset["mixing"].values[:, 10:14, 20:24],
        whole["mixing"].values[:, 10:14, 20:24],
        atol=0.05 * whole["mixing"].values.max(),
    )


def test_order_of_frames_and_reading_in_pieces_change_nothing(made, monkeypatch):
    frames, _, _ = made
    whole = components(scan_of(frames), method="nica_nmf")
    order = np.random.default_rng(1).permutation(len(frames))
    monkeypatch.setattr(scan_counts, "KEPT_BYTES", 0)  # read again each time
    again = components(scan_of(frames[order], order), method="nica_nmf")
    for name in ("mixing", "curve", "mixing_std", "reduced_deviance"):
        np.testing.assert_allclose(
            again[name].values, whole[name].values, rtol=1e-6, atol=1e-6 * np.abs(whole[name].values).max()
        )


def test_two_motors_give_curves_over_both():
    random, (rows, columns) = np.random.default_rng(3), (20, 30)
    u, v = np.meshgrid(np.arange(9), np.arange(11), indexing="ij")
    curves = np.array([np.exp(-0.5 * ((u - a) ** 2 + (v - b) ** 2) / 1.4**2) for a, b in ((2, 7), (6, 3))])
    light = np.zeros((2, rows, columns))
    light[0, :, :15], light[1, :12] = 300.0, 200.0
    photons = np.tensordot(curves.reshape(2, -1).T, light, 1)
    frames = (OFFSET + GAIN * random.poisson(photons)).astype(np.uint16)
    dataset = components(scan_of(frames, chi=0.1 * np.arange(9), mu=0.01 * np.arange(11)))
    assert dataset["curve"].dims == ("component", "chi", "mu") and dataset.attrs["count"] == 2
    # a fifth of a step: noise cut at zero, far from the peaks, pulls means towards the middle of the scan
    np.testing.assert_allclose(sorted(dataset["chi_mean"].values), [0.2, 0.6], atol=0.02)
    np.testing.assert_allclose(sorted(dataset["mu_mean"].values), [0.03, 0.07], atol=0.002)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "ica"}, "option method must be one of nica_nmf, nmf, nica, pca, got 'ica'"),
        ({"criterion": "aic"}, "option criterion must be one of auto, noise, share, minka, got 'aic'"),
        ({"count": 32}, "option count must be at most 31"),
        ({"count": -1}, "option count must be at least 0, got -1"),
        ({"share": 1.5}, "option share must be between 0 and 1, got 1.5"),
        ({"gain": "-3"}, "option gain must be auto or a positive number, got '-3'"),
        ({"pedestal": "low"}, "option pedestal must be auto, none or a number, got 'low'"),
    ],
)
def test_bad_options_are_named(made, options, says):
    with pytest.raises(InputError, match=says):
        components(scan_of(made[0]), **options)


def test_two_frames_are_too_few(made):
    with pytest.raises(InputError, match="components need at least 3 frames, scan 'memory' has 2"):
        components(scan_of(made[0][:2]))


def test_pictures_show_each_map_with_its_curve_and_the_scree(made):
    dataset = components(scan_of(made[0]))
    titles = [ax.get_title(loc="left") for ax in views.separated(dataset).axes]
    assert sum("component" in t for t in titles) == 3 and sum("width" in t for t in titles) == 3
    axes = views.scree(dataset).axes
    assert any("chosen: 3 (noise)" in t.get_text() for t in axes[0].get_legend().get_texts())
    assert views.separated(xr.Dataset()) is None and views.scree(xr.Dataset()) is None
