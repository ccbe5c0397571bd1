"""Grains below the beam size: a film is unmixed blind, its errors are those of the counts, and what cannot be is said."""

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import adjusted_rand_score

from braggscope.core.errors import InputError
from braggscope.modalities.laue.estimators.unmixing import NO_GRAIN, Unmixing
from braggscope.modalities.laue.geometry import film as instrument
from braggscope.modalities.laue.indexing.known import misorientations
from braggscope.modalities.laue.phantoms.film import film
from braggscope.modalities.laue.reflections import material


def mapped(source, **options):
    method = Unmixing(source.geometry, **options).prepare(source)
    state = method.init(source)
    for batch in source.batches(40):
        state = method.update(state, batch)
    return method, method.result(state)


@pytest.fixture(scope="module")
def small():
    """Grains of 0.8 um under a beam of 1 um that steps by 0.2 um."""
    source = film(instrument(), shape=(14, 16), frame_shape=(300, 250), step=0.2, size=0.8, seed=2, footprint="round")
    return source, *mapped(source, steps=150)


def test_grains_below_the_beam_size_are_told_apart(small):
    source, _, result = small
    truth, label = source.truth["grain"].values, result["grain"].values
    assert adjusted_rand_score(truth.ravel(), label.ravel()) > 0.75
    assert (result["share"].values > 0.5).mean() > 0.8
    sizes = [int((label == n).sum()) for n in range(1, result.attrs["grains"] + 1)]
    assert sizes == sorted(sizes, reverse=True)


def test_each_grain_found_is_one_of_the_film(small):
    source, method, _ = small
    turns = method.known[0].turns
    off = [misorientations(turn, source.truth["matrix"].values, material("Au")).min() for turn in turns]
    assert np.median(off) < 0.06 and np.mean(np.array(off) < 0.5) > 0.95


def test_the_light_of_a_grain_is_known_to_its_error(small):
    """Where the label is right: the share in the light is true to a few percent, the errors of the scales, and noise is less."""
    source, _, result = small
    agree = xr.where(source.truth["fraction"] > 0.15, result["fraction"] / source.truth["fraction"], np.nan).values
    assert np.nanmedian(agree) == pytest.approx(1, abs=0.12)
    assert np.nanmedian(result["fraction_error"]) < 0.02
    assert result["explained"].median() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": 1.7}, "larger than the beam"),
        ({"step": 1.2}, "larger than the beam of 1 um"),
    ],
)
def test_a_step_larger_than_the_beam_is_said(options, words):
    source = film(instrument(), shape=(3, 3), frame_shape=(61, 51), size=1.0, **options)
    with pytest.raises(InputError, match=words):
        Unmixing(source.geometry).prepare(source)


def test_without_geometry_material_or_preparation_it_says_what_is_needed():
    source = film(instrument(), shape=(3, 3), frame_shape=(61, 51))
    with pytest.raises(InputError, match="calibration of the detector"):
        Unmixing(None).prepare(source)
    with pytest.raises(InputError, match="material is not stated"):
        Unmixing(source.geometry.replace(material="")).prepare(source)
    with pytest.raises(InputError, match="prepared on the scan"):
        Unmixing(source.geometry).init(source)


def test_a_scan_without_any_grain_is_a_map_of_none():
    source = film(instrument(), shape=(4, 5), frame_shape=(122, 102), peak=1e-3, substrate=0.0)
    method, result = mapped(source)
    assert len(method.known[0].turns) == 0
    assert (result["flag"].values & NO_GRAIN == NO_GRAIN).all() and (result["grain"].values == 0).all()
