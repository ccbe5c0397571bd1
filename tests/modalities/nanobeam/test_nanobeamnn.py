import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.learned import Training
from braggscope.modalities.nanobeam.estimators.nanobeamnn import FACTORS, NanobeamNN
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.labelled import Labelled, drawn, from_sources, split
from braggscope.modalities.nanobeam.networked import MASKED, MISFIT, OTHER_DOSE, OUTSIDE, TOO_FEW
from braggscope.modalities.nanobeam.phantom import published_grid, uniform

WEIGHTS = Path(__file__).parents[3] / "examples" / "data" / "nanobeamnn_weights.npz"


@pytest.fixture(scope="module")
def weights():
    with np.load(WEIGHTS) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def method(weights):
    return NanobeamNN.from_model(NanobeamNN.convert(weights, published()), published(), {})


def batch(source):
    index = np.arange(source.shape[0])
    return Batch(index, source.frames(index))


def test_the_published_weights_have_the_published_error(method):
    """Scaled squared error 6.3e-5 at their best epoch (metrics of the repository); 1500 frames scatter by 0.2e-5."""
    scan = published_grid(published(), shape=(1500,), kernel="box", seed=1)
    found = method.fit(batch(scan))
    error = [(found[name] - scan.truth[name].values) * factor for name, factor in FACTORS.items()]
    assert 5.5e-5 < np.mean(np.square(error)) < 6.6e-5
    assert (found["flag"] == 0).mean() > 0.99


def test_the_published_ensemble_is_better_than_one_network(method, weights):
    scan = published_grid(published(), shape=(128,), kernel="box", seed=2)
    ensemble = NanobeamNN.from_model(NanobeamNN.convert(weights, published(), prefix="ensemble"), published(), {})
    assert ensemble.ensemble == 10
    one, ten = (m.fit(batch(scan)) for m in (method, ensemble))
    errors = [np.square([(f[n] - scan.truth[n].values) * k for n, k in FACTORS.items()]).mean() for f in (one, ten)]
    assert errors[1] < 0.9 * errors[0]
    assert (ten["strain_spread"] > 0).all() and {q.name for q in ensemble.extras()} >= {
        "strain_spread",
        "omega_spread",
        "chi_spread",
    }


def test_frames_it_was_not_trained_for_are_flagged(method):
    """Another dose, a film of another thickness, a tilt outside the range, dead pixels, no light: each has its flag."""
    usual = {"shape": (40,), "kernel": "box", "seed": 3}
    assert (method.fit(batch(uniform(published(), **usual, peak=30.0)))["flag"] & OTHER_DOSE > 0).all()
    thick = uniform(published().replace(thickness_a=300.0), **usual)
    assert (method.fit(batch(thick))["flag"] & MISFIT > 0).mean() > 0.9
    good = batch(uniform(published(), **usual))
    dead = np.ones(good.frames.shape, bool)
    dead[:, 5, 7] = False
    assert (method.fit(replace(good, mask=dead))["flag"] & MASKED > 0).all()
    dark = method.fit(Batch(np.arange(3), np.zeros((3, 64, 64))))
    assert np.isnan(dark["strain"]).all() and (dark["flag"] & TOO_FEW > 0).all()
    assert (method.judged(good, {**method.fit(good), "chi": np.full(40, 0.2)})["flag"] & OUTSIDE > 0).all()


def test_a_training_learns_and_gives_a_model():
    """Two networks of a coarse grid: the losses fall well below the labels' variance, 0.12."""
    options = {"recipe": "quick", "kernel": "closed_form", "grid": 5, "epochs": 6, "ensemble": 2, "rate": 4e-3, "batch": 16}
    reports = list(NanobeamNN(published(), **options).train([], Training(seed=3)))
    assert [r.epoch for r in reports] == list(range(1, 13)) and {r.epochs for r in reports} == {12}
    assert reports[5].validation["loss"] < 0.06 and reports[11].validation["loss"] < 0.06
    assert all(r.estimator is None for r in reports[:-1])
    model = reports[-1].estimator.model
    assert model.facts["test_loss"] < 0.06 and 3 < model.facts["scale_range"][0] < model.facts["scale_range"][1] < 8
    assert len(model.provenance["data_hash"]) == 64 and model.options["grid"] == 5


def test_an_ensemble_is_resumed_with_all_its_epochs_and_meets_none_of_an_earlier_one(tmp_path):
    """The earlier one has a third epoch and another rate: its second network is not that of the new one."""
    scan = uniform(published(), shape=(30,), seed=4)
    small = NanobeamNN(published(), recipe="published", epochs=2, ensemble=2)
    list(replace(small, epochs=3, rate=1e-3).train([scan], Training(tmp_path)))
    begun = small.train([scan], Training(tmp_path))
    next(begun)
    begun.close()
    resumed = list(small.train([scan], Training(tmp_path, resume=True)))
    whole = list(small.train([scan], Training()))
    told = [[(r.epoch, r.epochs, r.network, r.validation, r.best) for r in reports] for reports in (resumed, whole)]
    assert told[0] == told[1]
    assert [entry[:3] for entry in told[1]] == [(1, 4, 1), (2, 4, 1), (3, 4, 2), (4, 4, 2)]
    assert resumed[-1].estimator.model.weights_hash() == whole[-1].estimator.model.weights_hash()


def test_it_learns_from_simulations_with_their_truth():
    scan = uniform(published(), shape=(30,), seed=4)
    data = from_sources([scan])
    assert np.array_equal(data.stored, scan.frames(np.arange(30))) and np.array_equal(
        data.labels[:, 1], scan.truth["omega"].values
    )
    *_, last = NanobeamNN(published(), recipe="quick", epochs=1).train([scan], Training())
    assert last.estimator.model.provenance["data_hash"] == data.digest()


def test_noise_is_drawn_once_as_published_and_anew_in_the_quick_recipe():
    once, anew = (NanobeamNN(published(), recipe=name, grid=3)._data([], 5) for name in ("published", "quick"))
    which = np.array([3, 20])
    assert once.step is None and np.array_equal(once.counts(which, 1, 1), once.counts(which, 2, 2))
    assert not np.array_equal(anew.counts(which, 1, 1), anew.counts(which, 1, 2))
    assert np.array_equal(anew.counts(which, 1, 2)[1], anew.counts(which[1:], 1, 2)[0])  # whatever frames are drawn beside it


@pytest.mark.parametrize("noise", ["once", "redrawn"])
def test_simulated_counts_are_reported_as_the_detector_does(noise):
    """Counts below 3 as 0, above 5 as 5, the rest as without limits; the published kernels know of no detector."""
    options, which = {"kernel": "closed_form", "grid": 3, "noise": noise}, np.arange(27)
    limited = published().replace(threshold=2.5, saturation=5.0)
    plain, seen = (NanobeamNN(g, **options)._data([], 5).counts(which, 5, 1) for g in (published(), limited))
    assert plain.max() > 5 and np.isin(plain, (1, 2)).any()
    np.testing.assert_array_equal(seen, np.where(plain < 2.5, 0, np.minimum(plain, 5)))
    box = NanobeamNN(limited, **{**options, "kernel": "box"})._data([], 5).counts(which, 5, 1)
    assert box.max() > 5 and (box == 1).any()


@pytest.mark.parametrize("mean", [0.05, 3.0, 70.0])
def test_counts_are_poisson(mean):
    """Mean, variance and P(0) of 80 000 counts, within 4 standard deviations; 70 is drawn in pieces."""
    counts = drawn(np.full((20, 4000), mean, np.float32), np.arange(20), 1, 2).astype(float)
    n = counts.size
    assert abs(counts.mean() - mean) < 4 * np.sqrt(mean / n)
    assert abs(counts.var() - mean) < 4 * np.sqrt((mean + 2 * mean**2) / n)
    assert abs((counts == 0).mean() - np.exp(-mean)) < 4 * np.sqrt(np.exp(-mean) / n)


def test_parts_of_the_frames_are_apart():
    parts = split(100, 6)
    assert [len(p) for p in parts] == [80, 10, 10] and len(np.unique(np.concatenate(parts))) == 100
    with pytest.raises(InputError, match="at least 10 frames, got 9"):
        split(9, 6)


def test_bad_weights_and_sources_are_refused(weights):
    with pytest.raises(InputError, match=r"no prefix 'trainde/'; they have: .*trained/"):
        NanobeamNN.convert(weights, published(), prefix="trainde")
    lacking = {name: value for name, value in weights.items() if name != "trained/fc1.bias"}
    with pytest.raises(InputError, match=r"lacks trained/fc1\.bias"):
        NanobeamNN.convert(lacking, published())
    with pytest.raises(InputError, match=r"members\.0\.head\.bias is 3, this network has 2|head\.bias"):
        NanobeamNN.convert({**weights, "trained/fc1.bias": np.zeros(2)}, published())
    scan = replace(uniform(published(), shape=(20,)), truth=None)
    with pytest.raises(InputError, match="does not say the true strain, omega, chi of its frames"):
        next(NanobeamNN(published()).train([scan], Training()))
    with pytest.raises(InputError, match="option grid must be 0 or between 3 and 101, got 2"):
        NanobeamNN(published(), grid=2)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("batch", -5, "between 0 and 65536, got -5"),
        ("rate", -1.0, "between 0 and 1, got -1"),
        ("rate", float("nan"), "between 0 and 1, got nan"),
        ("peak", float("nan"), "between 0.1 and 100000, got nan"),
        ("rows", -64, "between 1 and 4096, got -64"),
        ("epochs", -1, "between 0 and 1e+06, got -1"),
    ],
)
def test_options_out_of_range_are_refused_at_once(name, value, words):
    with pytest.raises(InputError, match=re.escape(f"option {name} must be {words}")):
        NanobeamNN(published(), **{name: value})


def test_stored_means_keep_the_expectation():
    """Steps of 1e-4 counts at a peak of 7: far below the noise."""
    from braggscope.modalities.nanobeam.labelled import at_random, renderer, simulated

    render, labels = renderer("closed_form", published(), (64, 64), 7.0), at_random(4, 1)
    stored: Labelled = simulated(render, (64, 64), labels, 7.0)
    assert np.abs(stored.stored * stored.step - render(labels)).max() < 1e-4
