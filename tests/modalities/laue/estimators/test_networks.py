"""canon and piml: grains larger than the beam are found; substrates, dark frames and bad input are met."""

import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.modalities.laue.estimators.canon import Canon
from braggscope.modalities.laue.estimators.piml import Piml
from braggscope.modalities.laue.geometry import film
from braggscope.modalities.laue.grains.standing import standing
from braggscope.modalities.laue.phantoms.film import film as film_scan
from braggscope.modalities.laue.phantoms.film import polycrystal

METHODS = {"canon": Canon, "piml": Piml}
QUICK = {
    "epochs": 6,
    "side": 32,
    "learning_rate": 3e-3,
    "apart": 0.3,
}  # a scan of ten grains: patterns of one grain are many of all pairs


def mapped(method, source, batches=None):
    state = method.init(source)
    for batch in batches if batches is not None else source.batches(60):
        state = method.update(state, batch)
    return method.result(state)


@pytest.fixture(scope="module")
def coarse():
    return polycrystal(film().replace(substrate=""), shape=(14, 15), frame_shape=(122, 102), step=3.0, size=14.0, seed=4)


@pytest.fixture(scope="module", params=METHODS)
def method(request, coarse):
    return METHODS[request.param](coarse.geometry, components=8, **QUICK).prepare(coarse)


def test_grains_larger_than_the_beam_are_found(coarse, method):
    result = mapped(method, coarse)
    inside = coarse.truth["fraction"].values > 0.9
    truth, label = coarse.truth["grain"].values[inside], result["grain"].values[inside]
    pairs = np.stack([truth, label], 1)
    whole = sum(max(np.bincount(label[truth == n].astype(int))) for n in np.unique(truth)) / len(pairs)
    pure = sum(max(np.bincount(truth[label == n].astype(int))) for n in np.unique(label)) / len(pairs)
    assert whole > 0.8 and pure > 0.87  # the strongest peak is at times that of a neighbour
    shades = np.stack([result[n].values for n in ("red", "green", "blue")])
    assert (shades[:, result["flag"].values == 0] >= 0).all() and np.nanmax(shades) == 1


def test_dark_and_lost_frames(coarse, method):
    frames = next(iter(coarse.batches(400)))
    dark = frames.frames.copy()
    dark[7:160] = np.median(dark)
    result = mapped(method, coarse, [Batch(frames.index[:200], dark[:200])])
    flag, grain = result["flag"].values.ravel(), result["grain"].values.ravel()
    assert (flag[200:] == 1).all() and np.isnan(grain[200:]).all()
    assert (grain[60:100] == 0).all() and (flag[60:100] == 2).all() and np.isnan(result["red"].values.ravel()[60:100]).all()


def test_what_stands_still_is_the_substrate():
    geometry = film()
    options = {"shape": (12, 12), "frame_shape": (122, 102), "step": 1.0, "seed": 2}
    source = film_scan(geometry, **options)
    bright = film_scan(geometry, peak=1e-2, substrate=1e6, noise=None, **options)
    place = np.argmax(next(iter(bright.batches(1))).frames[0])
    still = standing(source)
    first = next(iter(source.batches(144)))
    assert abs(np.median(first.frames.reshape(144, -1)[:, place]) - still.level.ravel()[place]) < 1
    frame_wide = standing(source, remove=False)
    assert np.ptp(frame_wide.level) == 0 and frame_wide.level.ravel()[place] < still.level.ravel()[place]


@pytest.mark.parametrize("name", METHODS)
def test_bad_input_is_named(name, coarse):
    method = METHODS[name]
    with pytest.raises(InputError, match="apart must be between"):
        method(coarse.geometry, apart=0.0)
    with pytest.raises(InputError, match="components must be between"):
        method(coarse.geometry, features=16, components=17)
    with pytest.raises(InputError, match="see the scan first"):
        method(coarse.geometry).fit(next(iter(coarse.batches(2))))
    with pytest.raises(InputError, match="at least 8 patterns with peaks, got 0"):
        method(coarse.geometry, threshold=1e6, **QUICK).prepare(coarse)
    with pytest.raises(InputError, match="rows and"):
        method(film()).prepare(coarse)


def test_the_share_is_a_share():
    with pytest.raises(InputError, match="share must be between"):
        Piml(film(), share=1.2)
