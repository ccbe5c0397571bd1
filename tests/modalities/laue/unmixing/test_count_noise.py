"""The noise of a camera is read off its frames, spots or not, and a scan in other units weighs its pixels alike."""

import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.modalities.laue.geometry import film as instrument
from braggscope.modalities.laue.peaks.background import background
from braggscope.modalities.laue.phantoms.film import film
from braggscope.modalities.laue.unmixing.count_noise import CountNoise
from braggscope.modalities.laue.unmixing.sums import summed


def noise_of(frames):
    return CountNoise.of([background(frame, lambda work, count: work(0, count)) for frame in frames])


def frames(gain, pedestal, readout, seed=0):
    """Of a camera that sees a background of 40 to 120 photons and 300 spots."""
    random = np.random.default_rng(seed)
    light = np.broadcast_to(np.linspace(40, 120, 320), (320, 320)).copy()
    light[tuple(random.integers(0, 320, (2, 300)))] += 3000
    return [
        np.rint(pedestal + gain * random.poisson(light) + random.normal(0, readout, light.shape)).astype(np.float32)
        for _ in range(16)
    ]


@pytest.mark.parametrize(
    ("gain", "pedestal", "readout"), [(1.0, 0.0, 0.0), (1.0, 10.0, 1.5), (3.0, 300.0, 8.0), (0.5, 100.0, 2.0)]
)
def test_gain_pedestal_and_readout_are_in_the_variance(gain, pedestal, readout):
    found = noise_of(frames(gain, pedestal, readout))
    photons = np.array([40.0, 80.0, 120.0, 3000.0])
    assert found.variance(pedestal + gain * photons) == pytest.approx(gain**2 * photons + readout**2, rel=0.12)


def test_pixels_that_may_not_be_used_change_nothing():
    given = frames(1.0, 10.0, 1.5)
    whole = noise_of(given)
    for frame in given:
        frame[:, 200:230] = np.nan
    masked = noise_of([*given, np.full_like(given[0], np.nan)])
    assert masked.variance(np.float32(90)) == pytest.approx(whole.variance(np.float32(90)), rel=0.1)
    assert noise_of([np.full((32, 32), np.nan, np.float32)]).variance(np.float32(7)) == 7


def test_a_scan_in_other_units_weighs_its_pixels_alike():
    """Counts a + b d have b^2 the variance, and every weight is that much less."""

    class Scaled:
        def __init__(self, source):
            self.shape, self.frame_shape, self.source = source.shape, source.frame_shape, source

        def batches(self, size=None, *, only=None):
            for batch in self.source.batches(size):
                yield Batch(batch.index, (100 + 3 * batch.frames.astype(np.int64)).astype(np.uint32))

    source = film(instrument(), shape=(5, 6), frame_shape=(244, 204), step=0.2, size=0.7, seed=1)
    y, x = (a.ravel() for a in np.meshgrid(0.2 * np.arange(5), 0.2 * np.arange(6), indexing="ij"))
    plain, scaled = (summed(one, y, x, (0.42, 0.42)) for one in (source, Scaled(source)))
    assert np.allclose(scaled.same, 100 + 3 * plain.same, atol=0.3)
    ratio = scaled.weight.astype(float) / scaled.unit**2 / (plain.weight.astype(float) / plain.unit**2)
    assert np.median(9 * ratio) == pytest.approx(1, rel=0.05)
