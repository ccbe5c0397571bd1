"""Amortised maximum likelihood: what its training does, and that Fisher steps end where the likelihood does."""

import dataclasses

import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.learned import Training
from braggscope.core.model import load_model, save_model
from braggscope.modalities.nanobeam import phantom
from braggscope.modalities.nanobeam.estimators.amortised import UNSEEN, Amortised
from braggscope.modalities.nanobeam.estimators.likelihood import Likelihood
from braggscope.modalities.nanobeam.geometry import published

SHORT = {"epochs": 4, "frames": 3072, "width": 64, "strain_range": 1e-3, "omega_range": 0.01, "chi_range": 0.02}


def batch_of(scan, count=None):
    index = np.arange(count or int(np.prod(scan.shape)))
    return Batch(index, scan.frames(index))


@pytest.fixture(scope="module")
def reports():
    """A training of seconds over a small range."""
    return list(Amortised(published(), **SHORT).train([], Training(seed=1)))


@pytest.fixture(scope="module")
def scan():
    """Frames inside that range."""
    fields = phantom.uniform(published(), shape=(300,), peak=7.0, seed=3)
    for name in ("strain", "omega", "chi"):
        fields.truth[name] *= 0.16
    parameters = phantom.packed({n: fields.truth[n].values for n in phantom.NanobeamForward.params})
    made = phantom.tables(published(), (64, 64))
    counts = np.random.default_rng(1).poisson(phantom.expected(made, (64, 64), parameters)).astype(np.float32)
    return fields.truth, Batch(np.arange(300), counts)


def test_training_brings_the_errors_down(reports):
    first, last = reports[0].validation, reports[-1].validation
    assert [r.epoch for r in reports] == [1, 2, 3, 4] and reports[-1].estimator.model is not None
    assert last["loss"] < 0.5 * first["loss"]
    for name in ("strain", "omega", "chi"):
        assert last[f"{name}_over_bound_squared"] < 0.5 * first[f"{name}_over_bound_squared"]


def test_two_steps_after_the_network_give_the_likelihood_estimate(reports, scan):
    truth, frames = scan
    ours = reports[-1].estimator.fit(frames)
    full = Likelihood(published()).fit(frames)
    assert set(ours) == set(full)
    for name in ("strain", "omega", "chi"):
        assert np.abs((ours[name] - full[name]) / full[f"{name}_std"]).max() < 0.3, name  # the root of kernels.ENOUGH, and some
        assert np.allclose(ours[f"{name}_std"], full[f"{name}_std"], rtol=0.02)
        z = (ours[name] - truth[name].values) / ours[f"{name}_std"]
        assert 0.88 < z.std() < 1.12, name
    assert (ours["flag"] == 0).all()


def test_frames_that_the_network_misses_are_fitted_from_the_beginning(reports):
    scan = phantom.uniform(published(), shape=(200,), peak=7.0, seed=5)  # five times the range of the training
    frames = batch_of(scan)
    ours, full = reports[-1].estimator.fit(frames), Likelihood(published()).fit(frames)
    for name in ("strain", "omega", "chi"):
        assert np.abs((ours[name] - full[name]) / full[f"{name}_std"]).max() < 0.3, name


def test_without_steps_the_map_is_the_networks_and_says_where_it_has_not_been(reports, scan):
    truth, frames = scan
    alone = dataclasses.replace(reports[-1].estimator, steps=0)
    assert [q.name for q in alone.quantities()] == ["strain", "omega", "chi"]
    result = alone.fit(frames)
    for name in ("strain", "omega", "chi"):
        error = np.abs(result[name] - truth[name].values)
        assert 0.2 < np.median(error / result[f"{name}_std"]) / 0.6745 < 2, name  # four short epochs: roughly calibrated
    assert (result["flag"] & UNSEEN > 0).mean() < 0.05
    outside = alone.fit(batch_of(phantom.uniform(published(), shape=(100,), peak=7.0, seed=5)))
    assert (outside["flag"] & UNSEEN > 0).mean() > 0.8


def test_unjudged_the_answers_are_the_same_and_what_was_not_looked_at_is_unknown(reports, scan):
    _, frames = scan
    dark = Batch(np.arange(301), np.concatenate([frames.frames, np.zeros((1, 64, 64), np.float32)]))
    judged = dataclasses.replace(reports[-1].estimator, steps=0)
    alone = dataclasses.replace(judged, judge="no")
    ours, full = alone.fit(dark), judged.fit(dark)
    assert set(ours) == set(full)
    for name in ("strain", "omega", "chi", "chi_std"):
        assert np.array_equal(ours[name], full[name], equal_nan=True), name
    assert np.isnan(ours["reduced_deviance"]).all() and np.isnan(ours["strain"][300])
    words = {bit for bit in alone.flags if ours["flag"][300] & bit}
    assert "too_few_counts" in {alone.flags[bit] for bit in words}


def test_a_stored_model_and_its_graph_map_alike(reports, scan, tmp_path):
    _, frames = scan
    trained = reports[-1].estimator
    save_model(trained.model, tmp_path / "film.safetensors")
    save_model(trained.exported(), tmp_path / "film.onnx")
    kept, graph = (
        Amortised.from_model(load_model(tmp_path / name), published(), {"steps": "0"})
        for name in ("film.safetensors", "film.onnx")
    )
    plain, onnx = kept.fit(frames), graph.fit(frames)
    for name, half in (("strain", 1e-3), ("omega", 0.01), ("chi", 0.02)):
        assert np.array_equal(plain[name], dataclasses.replace(trained, steps=0).fit(frames)[name])
        assert np.abs(plain[name] - onnx[name]).max() < 1e-4 * 2 * half


def test_frames_of_a_scan_are_learned_from_too():
    scan = phantom.sinusoid_sigmoid(published().replace(threshold=2.0), shape=(10, 12), frame_shape=(64, 62), peak=7.0)
    quick = Amortised(scan.geometry, **{**SHORT, "epochs": 2})
    *_, last = quick.train([scan], Training())
    assert last.estimator.model.frame_shape == (64, 62) and last.estimator.model.facts["frames_of_scans"] > 100
    with pytest.raises(InputError, match="at least 64 frames that can be fitted, got 1 of 1"):
        next(quick.train([phantom.uniform(scan.geometry, shape=(1,), frame_shape=(64, 62))], Training()))


@pytest.mark.parametrize(
    ("name", "value"), [("steps", -1), ("omega_range", 0.5), ("highest_peak", 0.5), ("epochs", 0), ("batch", 1)]
)
def test_a_bad_option_is_named(name, value):
    with pytest.raises(InputError, match=f"option {name} must be between"):
        Amortised(published(), **{name: value})


def test_without_a_model_it_says_how_to_get_one():
    with pytest.raises(InputError, match="braggscope train --method amortised"):
        Amortised(published()).fit(Batch(np.arange(2), np.ones((2, 64, 64), np.float32)))


def test_saturated_reports_are_left_out(reports):
    geometry = published().replace(saturation=600.0)
    scan = phantom.uniform(geometry, shape=(60,), peak=900.0, seed=2)
    model = dataclasses.replace(reports[-1].estimator.model, geometry=geometry.to_mapping())
    ours, full = Amortised.from_model(model, geometry, {}).fit(batch_of(scan)), Likelihood(geometry).fit(batch_of(scan))
    for name in ("strain", "omega", "chi"):
        assert np.nanmax(np.abs((ours[name] - full[name]) / full[f"{name}_std"])) < 0.3, name
