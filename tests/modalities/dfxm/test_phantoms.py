"""The phantoms: what their scans show, the truth under the names of both methods, and options that cannot be."""

import math

import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.modalities.dfxm.phantom import CAMERA, bent_crystal, subgrains
from braggscope.modalities.dfxm.phantom_walls import dislocation_walls


def curves(source):
    """Frames without noise, shape (point, row, column)."""
    return source.frames(np.arange(math.prod(source.shape))).astype(float)


@pytest.mark.parametrize("shape", [(41,), (21, 27)])
def test_amplitude_and_background_are_in_detector_units(shape):
    source = bent_crystal(None, shape=shape, frame_shape=(6, 7), peak=700.0)
    silent = bent_crystal(None, shape=shape, frame_shape=(6, 7), peak=700.0, noise=None)
    truth = source.truth
    assert (truth["background"] == CAMERA.offset).all() and (silent.truth["background"] == 0).all()
    assert truth["amplitude"].max() == pytest.approx(CAMERA.gain * 700, rel=1e-9)
    np.testing.assert_allclose(truth["amplitude"], CAMERA.gain * silent.truth["amplitude"])
    # the highest point of the scan is within half a step of the peak's; the widths are 1.4 steps and more
    assert (curves(silent).max(axis=0) / silent.truth["amplitude"].values > (0.93 if len(shape) == 1 else 0.85)).all()


def test_walls_shine_on_the_flanks_and_are_dark_in_the_strong_beam():
    source = dislocation_walls(None, frame_shape=(60, 80), noise=None, seed=2, walls=2)
    frames, wall = curves(source), source.truth["wall"].values == 1
    assert 0.1 < wall.mean() < 0.3
    strong, flanks = frames[20], frames[[14, 26]].max(axis=0)
    assert strong[wall].mean() < 0.25 * strong[~wall].mean()
    assert flanks[wall].mean() > 8 * flanks[~wall].mean()
    # either side of a wall has its flank; only the cores shine on both
    low, high = frames[14][wall] > 100, frames[26][wall] > 100
    assert (low & ~high).mean() > 0.2 and (high & ~low).mean() > 0.2 and (low & high).mean() < 0.4


def test_wall_says_where_most_light_is_weak_beam_light():
    source = dislocation_walls(None, frame_shape=(40, 50), noise=None, shape=(401,), motors="mu:0.01")
    x, frames = source.grid["mu"].values, curves(source)
    matrix = 0.09 * 2.0  # of half the scan
    outside = frames[np.abs(x) > 2 * matrix].sum(axis=0) / frames.sum(axis=0)
    np.testing.assert_allclose(outside, source.truth["weak_light"], atol=0.03)  # a step is 0.06 widths
    assert ((outside > 0.5) == (source.truth["wall"].values == 1)).mean() > 0.99


@pytest.mark.parametrize("maker", [subgrains, bent_crystal, dislocation_walls])
def test_frames_come_in_any_order_and_hold_what_the_seed_says(maker):
    source, again = (maker(None, shape=(5, 6), frame_shape=(12, 14), seed=4, zingers=3, hot_pixels=0.05) for _ in range(2))
    frames = source.frames(np.arange(30))
    assert np.array_equal(frames[::-1], again.frames(np.arange(30)[::-1]))


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [("walls", 0, "walls must be positive and at most 100, got 0"), ("strength", -1.0, "strength must be positive"),
     ("jitter", 0.7, "jitter must be from 0 to 0.5, got 0.7"), ("hot_pixels", -0.1, "hot_pixels must be from 0"),
     ("peak", 0.0, "peak must be positive"), ("motors", "mu:x", "got 'mu:x'"),
     ("motors", "chi mu", "one motor for each of the 1"), ("motors", "theta", "step of 'theta'"),
     ("resolution", "sharp", "none, microscope or motors with widths"),
     ("resolution", "chi:0.1", "width for 'chi', but the scan moves mu")],
)  # fmt: skip
def test_an_option_that_cannot_be_is_named(option, value, sentence):
    with pytest.raises(InputError, match=sentence):
        dislocation_walls(None, frame_shape=(12, 14), **{option: value})
