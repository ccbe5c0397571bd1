"""Frames for training: the distribution they are drawn from, and that the seed decides them."""

import numpy as np
import pytest
from scipy import stats

from braggscope.modalities.nanobeam import compiled
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.simulated_frames import BEYOND, Population, poisson


@pytest.mark.parametrize("mean", [0.02, 0.7, 6.0, 55.0, 300.0])
def test_counts_are_poisson(mean):
    counts = poisson(np.full((300, 20, 21), mean, np.float32), 5).ravel()
    sigma = np.sqrt(mean / counts.size)
    assert abs(counts.mean() - mean) < 4 * sigma
    assert abs(counts.var() / mean - 1) < 4 * np.sqrt((2 + 1 / mean) / counts.size)
    top = int(stats.poisson.ppf(0.9, mean))
    assert abs((counts <= top).mean() - stats.poisson.cdf(top, mean)) < 4 / np.sqrt(4 * counts.size)


def population(**changes):
    geometry = published().replace(**changes)
    return Population(compiled.tables(geometry, (64, 62)), (64, 62), (5e-3, 0.05, 0.1), (2.0, 20.0), 117.0)


def test_the_seed_decides_the_frames_and_blocks_differ():
    a, b, c = (population().draw(600, *seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert np.array_equal(a.counts, b.counts) and np.array_equal(a.deviance, b.deviance)
    assert not np.array_equal(a.counts, c.counts)
    flat = np.full((512, 8, 8), 3.0, np.float32)
    counts = poisson(flat, 1)
    assert not np.array_equal(counts[:256], counts[256:])


def test_the_frames_fill_their_ranges():
    drawn = population().draw(2000, 7)
    high = BEYOND * np.array([5e-3, np.radians(0.05), np.radians(0.1)])
    assert (np.abs(drawn.parameters[:, :3]) <= high).all()
    assert np.allclose(np.abs(drawn.parameters[:, :3]).mean(0), high / 2, rtol=0.06)
    peak = np.exp(drawn.parameters[:, 3])
    assert peak.min() >= 2 and peak.max() <= 20 and 5.5 < np.exp(np.log(peak).mean()) < 7.5
    # the deviance of counts at their truth is what Poisson counts have
    known = compiled.described_at(population().made, drawn.images(), None, drawn.parameters, 5)["goodness"]
    assert abs((drawn.deviance.sum() - (known[:, 1] + 3).sum()) / np.sqrt(known[:, 2].sum())) < 5


def test_a_threshold_and_a_saturation_are_seen_through():
    counts = population(threshold=2.0, saturation=7.0).draw(50, 1).counts
    assert set(np.unique(counts)) == {0, 2, 3, 4, 5, 6, 7}


def test_no_count_is_beyond_belief():
    """In single precision the probabilities of a mean such as 3.3 add up to less than the largest random number."""
    assert poisson(np.full((600, 64, 64), 3.3, np.float32), 3).max() < 25
