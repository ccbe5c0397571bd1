import dataclasses

import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.maps import flag_counts
from braggscope.modalities.nanobeam import phantom
from braggscope.modalities.nanobeam.batched import fit_batched
from braggscope.modalities.nanobeam.compiled import IN_RADIANS, expected, fit, packed, tables
from braggscope.modalities.nanobeam.estimators.likelihood import (
    BOUND,
    MASKED,
    MISFIT,
    NOT_CONVERGED,
    OUTSIDE,
    TOO_FEW,
    Likelihood,
)
from braggscope.modalities.nanobeam.geometry import published

GOOD = published()
SHAPE = (60, 64)


def frames(count, geometry=GOOD, seed=0, **values):
    """Poisson counts of `count` frames with these parameters."""
    every = {"strain": 0.0, "omega": 0.0, "chi": 0.0, "scale": 7.0, "background": 0.1, "thickness": 117.0, **values}
    parameters = packed({n: np.broadcast_to(np.asarray(v, float), count) for n, v in every.items()})
    return np.random.default_rng(seed).poisson(expected(tables(geometry, SHAPE), SHAPE, parameters)).astype(np.uint16)


def fitted(counts, mask=None, geometry=GOOD, **options):
    return Likelihood(geometry, **options).fit(Batch(np.arange(len(counts)), counts, mask=mask))


def mapped(source, geometry=None, **options):
    estimator = Likelihood(geometry or source.geometry, **options)
    state = estimator.init(source)
    for batch in source.batches():
        state = estimator.update(state, batch)
    return estimator.result(state)


def z_scores(result, truth, name):
    return ((result[name] - truth[name]) / result[f"{name}_std"]).values.ravel()


@pytest.mark.parametrize("options", [{}, {"thickness": "free"}], ids=["thickness fixed", "thickness free"])
def test_truth_is_recovered_within_the_stated_error_over_the_full_range(options):
    """300 frames at a peak of 7 counts: mean of z within +-0.2, spread 0.88 to 1.12 (3 standard deviations), none beyond 5."""
    drawn = (80.0, 300.0) if options else None
    source = phantom.uniform(GOOD, shape=(300,), frame_shape=SHAPE, seed=5, thickness=drawn)
    result = mapped(source, **options)
    assert flag_counts(result)["good"] == 300
    for name in ["strain", "omega", "chi", "scale", "background", *(["thickness"] if options else [])]:
        z = z_scores(result, source.truth, name)
        assert abs(z.mean()) < 0.2 and 0.88 < z.std() < 1.12, (name, z.mean(), z.std())
        assert np.abs(z).max() < 5 or name == "background", name
    assert result.attrs["reduced_deviance"] == pytest.approx(1, abs=5 * result.attrs["reduced_deviance_std"])
    assert np.std(result["reduced_deviance"].values) < 0.05


@pytest.mark.parametrize(
    ("geometry", "free"),
    [
        (GOOD, 5),
        (GOOD, 6),
        (GOOD.replace(threshold=2.0), 5),
        (GOOD.replace(threshold=2.0, saturation=7.0), 5),
        (GOOD.replace(saturation=40.0), 5),
        (GOOD.replace(source_px=0.6, centre_row_px=1.3), 5),
    ],
    ids=["plain", "thickness free", "threshold", "clipped", "bright, clipped", "blurred, off centre"],
)
def test_the_compiled_fit_is_the_torch_fit(geometry, free):
    """Two programs, one answer: within 1e-3 standard deviations (both stop at steps of that size), deviance within 1e-6."""
    peak = 60.0 if geometry.saturation == 40 else 7.0
    counts = phantom.uniform(geometry, shape=(8,), frame_shape=SHAPE, seed=2, peak=peak).frames(np.arange(8))
    mask = np.ones(counts.shape, bool)
    mask[3:5, 10:20, 15:30] = False
    made = tables(geometry, SHAPE)
    mine, reference = fit(made, counts, mask, free, 117.0), fit_batched(geometry, made, counts, mask, free, "cpu")
    std = np.sqrt(np.einsum("fii->fi", reference["covariance"]))[:, :free]
    assert np.abs((mine["parameters"] - reference["parameters"])[:, :free] / std).max() < 1e-3
    correlation = reference["covariance"][:, :free, :free] / std[:, :, None] / std[:, None]
    assert (
        np.abs(mine["covariance"][:, :free, :free] / std[:, :, None] / std[:, None] - correlation).max() < 5e-4
    )  # they stop within 0.01 sigma
    assert np.abs(mine["goodness"] / reference["goodness"] - 1).max() < 1e-5
    assert np.array_equal(mine["state"], reference["state"])


def test_a_frame_has_the_same_bits_in_any_company():
    counts = frames(40, strain=np.linspace(-5e-3, 5e-3, 40), chi=np.linspace(0.1, -0.1, 40))
    whole = fitted(counts)
    for part in (slice(0, 1), slice(7, 20), slice(20, 40)):
        some = fitted(counts[part])
        assert all(np.array_equal(some[name], whole[name][part], equal_nan=True) for name in whole)


def test_the_type_of_the_counts_does_not_matter():
    counts = frames(3, omega=0.02)
    whole = fitted(counts)
    for kind in (np.int32, np.float32, np.float64, np.uint32):
        assert np.array_equal(fitted(counts.astype(kind))["chi"], whole["chi"])


def test_masked_counts_do_not_matter_and_are_flagged():
    counts = frames(4, chi=0.03)
    mask = np.ones(counts.shape, bool)
    mask[1, 2:20, 20:45] = False
    spoiled = np.where(mask, counts, 65535)
    a, b = fitted(counts, mask), fitted(spoiled, mask)
    assert np.array_equal(a["chi"], b["chi"]) and a["flag"].tolist() == [0, MASKED, 0, 0]
    whole = fitted(counts)["chi_std"]
    assert a["chi_std"][1] > 1.1 * whole[1] and np.array_equal(np.delete(a["chi_std"], 1), np.delete(whole, 1))


def test_counts_below_a_threshold_are_taken_for_what_they_are():
    """Frames without a count of 1: honoured, errors are calibrated; ignored, the fit is called a misfit."""
    known = GOOD.replace(threshold=2.0)
    source = phantom.uniform(known, shape=(300,), frame_shape=SHAPE, seed=8)
    result = mapped(source)
    for name in ("strain", "omega", "chi", "scale"):
        assert 0.88 < z_scores(result, source.truth, name).std() < 1.12, name
    assert flag_counts(result)["good"] == 300
    assert flag_counts(mapped(source, GOOD))["misfit"] > 200


def test_clipped_counts_are_taken_for_what_they_are():
    """Reports of 5 that mean 5 or more: honoured, errors are calibrated; ignored, the scale is wrong by many of them."""
    known = GOOD.replace(saturation=5.0)
    source = phantom.uniform(known, shape=(300,), frame_shape=SHAPE, seed=9)
    result = mapped(source)
    for name in ("strain", "omega", "chi", "scale"):
        assert 0.88 < z_scores(result, source.truth, name).std() < 1.12, name
        assert abs(z_scores(result, source.truth, name).mean()) < 0.25, name
    assert flag_counts(result)["good"] == 300
    assert abs(z_scores(mapped(source, GOOD), source.truth, "scale").mean()) > 3


@pytest.mark.parametrize(("saturation", "peak"), [(64.0, 80.0), (150.0, 200.0)])
def test_bright_clipped_counts_are_taken_for_what_they_are(saturation, peak):
    """Half of the lit pixels saturate. Ignored above 100 counts, strain was 12 of its errors off; the deviance of means above 50
    was expected as without saturation, 7 % off."""
    source = phantom.uniform(GOOD.replace(saturation=saturation), shape=(100,), frame_shape=SHAPE, seed=11, peak=peak)
    result = mapped(source)
    for name in ("strain", "omega", "chi", "scale"):
        assert 0.79 < z_scores(result, source.truth, name).std() < 1.21, name  # 3 standard deviations
    assert flag_counts(result)["good"] == 100
    assert result.attrs["reduced_deviance"] == pytest.approx(1, abs=4 * result.attrs["reduced_deviance_std"])


def test_counts_at_a_saturation_too_high_to_be_summed_up_to_are_left_out():
    known = GOOD.replace(saturation=600.0)
    counts = np.minimum(frames(3, scale=630.0, background=1.0), 600)
    assert fitted(counts, geometry=known)["flag"].tolist() == [MASKED] * 3
    assert fitted(np.minimum(frames(3, scale=300.0), 600), geometry=known)["flag"].tolist() == [0] * 3


def test_bright_frames_under_a_threshold_are_fitted():
    """A mean above 745 counts, where exp(-mean) is 0 in float64."""
    result = fitted(frames(3, scale=1200.0), geometry=GOOD.replace(threshold=2.0))
    assert result["flag"].tolist() == [0] * 3 and np.abs(result["chi"] / result["chi_std"]).max() < 5


def test_a_wrong_ring_shows_in_the_deviance_of_the_scan():
    """1.6 % small: a few frames show it, the scan as a whole beyond doubt."""
    source = phantom.uniform(GOOD.replace(ring_scale=0.984), shape=(200,), frame_shape=SHAPE, seed=3)
    result = mapped(source, GOOD)
    assert result.attrs["reduced_deviance"] > 1 + 10 * result.attrs["reduced_deviance_std"]
    assert 0 < flag_counts(result)["misfit"] < 200


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"scale": 0.2, "background": 0.01}, TOO_FEW),
        ({"strain": 0.012}, BOUND),
        ({"omega": 0.1, "chi": 0.24, "scale": 30.0}, OUTSIDE),
    ],
)
def test_doubtful_points_keep_their_value_and_say_why(values, flag):
    result = fitted(frames(5, **values))
    assert (result["flag"] & flag != 0).all() and np.isfinite(result["strain"]).all()


def test_tilts_beyond_the_usual_range_are_found_from_further_starts():
    result = fitted(frames(6, omega=[0.1, -0.1, 0.11, -0.11, 0.09, -0.09]))
    assert (result["flag"] == 0).all()
    assert np.abs(result["omega"] - [0.1, -0.1, 0.11, -0.11, 0.09, -0.09]).max() < 1e-3


def test_frames_without_signal_are_nan_with_a_flag():
    counts = np.stack([np.zeros(SHAPE), np.full(SHAPE, np.nan)]).astype(np.float32)
    result = fitted(counts, np.isfinite(counts))
    assert np.isnan(result["strain"]).all() and np.isnan(result["chi_std"]).all()
    assert result["flag"][0] & TOO_FEW and result["flag"][1] & NOT_CONVERGED and result["flag"][1] & MASKED


def test_numbers_that_are_not_counts_are_a_misfit():
    result = fitted(frames(3, chi=0.02).astype(np.float32) / 14)
    assert (result["flag"] & MISFIT != 0).all() and (result["reduced_deviance"] < 0.5).all()


def test_bright_frames_converge():
    result = fitted(frames(4, scale=30000.0, background=100.0, strain=2e-3))
    assert (result["flag"] == 0).all() and np.abs(result["strain"] - 2e-3).max() < 1e-5


def test_small_frames_and_missing_devices_are_refused():
    with pytest.raises(InputError, match="48 x 64 pixels, but the ring"):
        phantom.uniform(GOOD, shape=(2,), frame_shape=(48, 64))
    source = phantom.uniform(GOOD.replace(pixel_um=150.0), shape=(2,), frame_shape=(48, 64))
    with pytest.raises(InputError, match="48 x 64 pixels, but the ring"):
        Likelihood(GOOD).init(source)
    with pytest.raises(InputError, match="thickness must be one of fixed, free, got 'loose'"):
        Likelihood.with_options(GOOD, {"thickness": "loose"})
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no usable CUDA device"):
            fitted(frames(1), device="cuda")


def test_packing_is_in_the_units_of_the_model():
    values = {"strain": [1e-3], "omega": [180.0], "chi": [-90.0], "scale": [np.e], "background": [1.0], "thickness": [np.e**2]}
    assert packed(values)[0] == pytest.approx([1e-3, np.pi, -np.pi / 2, 1, 0, 2])
    assert IN_RADIANS[0] == 1 and dataclasses.is_dataclass(tables(GOOD, SHAPE))
