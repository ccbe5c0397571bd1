"""The map of dominant grains: grains larger than the beam are found, each once, with their orientation and strain."""

import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.modalities.laue.estimators.indexing import Indexing
from braggscope.modalities.laue.geometry import film
from braggscope.modalities.laue.phantoms.film import polycrystal


def mapped(source, **options):
    method = Indexing(source.geometry, **options).prepare(source)
    state = method.init(source)
    for batch in source.batches(16):
        state = method.update(state, batch)
    return method, method.result(state)


@pytest.fixture(scope="module")
def coarse():
    source = polycrystal(film().replace(substrate=""), shape=(7, 8), step=3.0, size=9.0, seed=4)
    return source, *mapped(source, sample=20)


def test_grains_larger_than_the_beam_are_found(coarse):
    source, method, result = coarse
    inside = source.truth["fraction"].values > 0.95
    off = np.sqrt(sum((result[f"orientation_{a}"] - source.truth[f"orientation_{a}"]).values ** 2 for a in "xyz"))
    assert inside.sum() > 25 and np.median(off[inside]) < 0.03 and (off[inside] < 0.1).mean() > 0.9
    strain = np.abs(result["strain_xy"] - source.truth["strain_xy"]).values[inside & (result["flag"].values == 0)]
    assert np.median(strain) < 3e-4
    assert method.facts()["known_orientations"] > 0


def test_labels_are_those_of_the_grains(coarse):
    source, _, result = coarse
    inside = source.truth["fraction"].values > 0.95
    truth, label = source.truth["grain"].values[inside], result["grain"].values[inside]
    first = {int(n): int(np.bincount(label[truth == n].astype(int)).argmax()) for n in np.unique(truth)}
    assert len(set(first.values())) >= len(first) - 1  # one to one, but for a grain that only one position shows
    assert np.mean([first[int(a)] == int(b) for a, b in zip(truth, label, strict=True)]) > 0.9
    sizes = [int((result["grain"].values == n).sum()) for n in range(1, result.attrs["grains"] + 1)]
    assert sizes == sorted(sizes, reverse=True)


def test_dark_frames_are_of_no_grain(coarse):
    source, method, _ = coarse
    batch = next(iter(source.batches(3)))
    empty = type(batch)(batch.index, np.full_like(batch.frames, 20))
    found = method.fit(empty)
    assert (found["grain"] == 0).all() and (found["flag"] == 2).all() and np.isnan(found["orientation_x"]).all()


def test_bad_options_are_named():
    with pytest.raises(InputError, match="within"):
        Indexing(film(), within=0.0)
    with pytest.raises(InputError, match="material"):
        Indexing(film().replace(material="", substrate="")).prepare(polycrystal(film(), shape=(1, 2)))
