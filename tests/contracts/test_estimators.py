"""Every estimator: order, merging, lost frames, resuming, the map file, and calibrated errors."""

import math

import numpy as np
import pytest
import xarray as xr

from braggscope.core import maps
from braggscope.core.batch import Batch

from .discovered import METHOD_NAMES, METHODS, half_of, parts, prepared, run, simulation

each = pytest.mark.parametrize(("modality", "method"), METHODS, ids=METHOD_NAMES)


def frames_of(source):
    """All frames as one batch."""
    batches = list(source.batches())
    return Batch(np.concatenate([b.index for b in batches]), np.concatenate([b.frames for b in batches]))


def blocks(batch, size):
    return [batch.take(np.arange(a, min(a + size, len(batch)))) for a in range(0, len(batch), size)]


def assert_same(a, b, tolerance=1e-9):
    """Equal within a relative 1e-9 of each variable's largest value (sums in another order), NaN where NaN."""
    assert set(a.data_vars) == set(b.data_vars)
    for name in a.data_vars:
        x, y = a[name].values, b[name].values
        assert np.array_equal(np.isnan(x), np.isnan(y)), name
        scale = np.nanmax(np.abs(x), initial=0)
        assert np.nanmax(np.abs(x - y), initial=0) <= tolerance * scale, name


@each
def test_the_map_keeps_the_convention_and_survives_the_file(modality, method, tmp_path):
    estimator, source = prepared(modality, method), simulation(modality, method)
    result = estimator.result(run(estimator, source))
    maps.check_map(result)
    maps.save(result, tmp_path / "map.h5")
    xr.testing.assert_equal(maps.load(tmp_path / "map.h5"), result)
    # a network of a few epochs may explain no frame, and then says so
    good = result["flag"].values == 0 if estimator.calibrated else np.isfinite(result[estimator.quantities()[0].name].values)
    assert good.mean() > 0.5, maps.flag_counts(result)
    stds = [n for n in result.data_vars if str(n).endswith("_std")]
    if estimator.calibrated:
        assert {f"{n}_std" for n in maps.quantity_names(result) if n != "reduced_deviance"} == set(stds)
    else:
        assert not stds and estimator.uncalibrated_because
        assert result.attrs["uncalibrated_because"] == estimator.uncalibrated_because


@each
def test_shuffled_equals_in_order(modality, method):
    estimator, source = prepared(modality, method), simulation(modality, method)
    everything = frames_of(source)
    shuffled = everything.take(np.random.default_rng(5).permutation(len(everything)))
    assert_same(estimator.result(run(estimator, source)), estimator.result(run(estimator, source, blocks(shuffled, 53))))


@each
def test_split_and_merged_equals_whole(modality, method):
    estimator, source = prepared(modality, method), simulation(modality, method)
    everything = frames_of(source)
    size = math.prod(source.shape if estimator.reads == "frames" else source.frame_shape)
    part = np.random.default_rng(6).random(size) < 0.4
    a = half_of(estimator, source, blocks(everything, 61), part)
    b = half_of(estimator, source, blocks(everything, 61), ~part)
    assert_same(estimator.result(run(estimator, source)), estimator.result(estimator.merge(a, b)))
    with pytest.raises(ValueError, match="used by both"):
        estimator.merge(a, a)


@each
def test_frames_that_come_twice_count_once(modality, method):
    estimator, source = prepared(modality, method), simulation(modality, method)
    everything = frames_of(source)
    twice = [everything, everything.take(np.arange(0, len(everything), 3))]
    assert_same(estimator.result(run(estimator, source)), estimator.result(run(estimator, source, twice)), 0)


@each
def test_a_lost_frame_is_nan_or_as_if_it_had_never_been(modality, method):
    estimator, source = prepared(modality, method), simulation(modality, method)
    everything = frames_of(source)
    kept = np.ones(len(everything), bool)
    kept[[3, len(kept) // 2]] = False
    lost = estimator.result(run(estimator, source, blocks(everything.take(kept), 97)))
    if not estimator.per_frame:
        in_one = estimator.result(run(estimator, source, [everything.take(kept)]))
        assert_same(lost, in_one)
        return
    whole = estimator.result(run(estimator, source))
    for name in maps.quantity_names(whole):
        a, b = whole[name].values.ravel(), lost[name].values.ravel()
        assert np.isnan(b[~kept]).all() and np.array_equal(a[kept], b[kept], equal_nan=True), name
    assert (lost["flag"].values.ravel()[~kept] == 1).all()


@each
def test_result_can_be_asked_at_any_time_and_a_stored_state_goes_on(modality, method, tmp_path):
    estimator, source = prepared(modality, method), simulation(modality, method)
    batches = parts(estimator, source, blocks(frames_of(source), 97))
    half = estimator.init(source)
    for batch in batches[: len(batches) // 2]:
        half = estimator.update(half, batch)
    first = estimator.result(half)
    maps.save(first, tmp_path / "map.h5", state=half)
    again = maps.load_state(tmp_path / "map.h5")
    assert again is not None
    for batch in batches[len(batches) // 2 :]:
        again = estimator.update(again, batch)
    whole = run(estimator, source, blocks(frames_of(source), 97))
    xr.testing.assert_identical(estimator.result(whole), estimator.result(again))


@each
def test_errors_are_calibrated_or_not_given(modality, method):
    estimator, source = prepared(modality, method), simulation(modality, method)
    if not estimator.calibrated:
        pytest.skip(f"says so itself: {estimator.uncalibrated_because}")
    result = estimator.result(run(estimator, source))
    silent = simulation(modality, method, noisy=False)
    for name in maps.quantity_names(result):
        if name == "reduced_deviance":
            continue
        # a statistic such as a centre of mass has its truth in the noise-free frames
        truth = source.truth[name] if name in source.truth else estimator.result(run(estimator, silent))[name]
        z = ((result[name] - truth) / result[f"{name}_std"]).values[result["flag"].values == 0]
        assert np.isfinite(z).all() and len(z) >= 300, name
        assert abs(z.mean()) < 0.05 + 3 / math.sqrt(len(z)), (name, z.mean())
        assert 0.9 <= z.std() <= 1.1, (name, z.std())
