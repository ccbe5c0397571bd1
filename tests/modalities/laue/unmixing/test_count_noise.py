"""The noise of a camera is read off its frames, spots or not, and a scan in other units weighs its pixels alike."""

import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.modalities.laue.geometry import film as instrument
from braggscope.modalities.laue.peaks.background import background
from braggscope.modalities.laue.phantoms.film import film
from braggscope.modalities.laue.unmixing.count_noise import CountNoise
from braggscope.modalities.laue.unmixing.lighting import weights_at
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


class Changed:
    """A scan whose batches are changed on the way."""

    def __init__(self, source, change):
        self.shape, self.frame_shape, self.source, self.change = source.shape, source.frame_shape, source, change

    def batches(self, size=None, *, only=None):
        for batch in self.source.batches(size):
            yield self.change(batch)


@pytest.fixture(scope="module")
def scan():
    return film(instrument(), shape=(5, 6), frame_shape=(244, 204), step=0.2, size=0.7, seed=1)


def sums_of(source):
    y, x = (a.ravel() for a in np.meshgrid(0.2 * np.arange(5), 0.2 * np.arange(6), indexing="ij"))
    return summed(source, y, x, (0.42, 0.42))


@pytest.mark.parametrize(("offset", "factor"), [(100, 3), (-14e-4, 1e-4), (0, 1000)])
def test_a_scan_in_other_units_weighs_its_pixels_alike(scan, offset, factor):
    """Counts a + b d have b^2 the variance, and every weight is that much less, however small or large it is."""
    plain, scaled = sums_of(scan), sums_of(Changed(scan, lambda b: Batch(b.index, offset + factor * b.frames.astype(float))))
    assert np.allclose(scaled.same, offset + factor * plain.same, atol=0.05 * factor)
    ratio = weights_at(scaled, 7).astype(float) * factor**2 / weights_at(plain, 7)
    assert np.percentile(ratio, [1, 99]) == pytest.approx(1, rel=0.05)


def test_a_frame_that_counts_nowhere_is_none(scan):
    def lost(batch):
        mask = np.ones(batch.frames.shape, bool)
        mask[batch.index == 4] = False
        return Batch(batch.index, batch.frames, mask=mask)

    masked, without = sums_of(Changed(scan, lost)), sums_of(Changed(scan, lambda b: b.take(b.index != 4)))
    assert (masked.weight > 0).all() and masked.frames == without.frames
    assert np.array_equal(masked.mean, without.mean) and np.array_equal(masked.part, without.part)


def test_a_scan_that_counts_nowhere_is_refused(scan):
    with pytest.raises(InputError, match="saturated or masked"):
        sums_of(Changed(scan, lambda b: Batch(b.index, b.frames, mask=np.zeros(b.frames.shape, bool))))
