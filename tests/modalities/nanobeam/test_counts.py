import math

import numpy as np
import pytest
import torch

from braggscope.core.noise import Noise
from braggscope.modalities.nanobeam.counts import Counts, limits


def reports(mean, threshold=0.0, saturation=math.inf, seed=0):
    noise = Noise(threshold=threshold, saturation=saturation)
    return noise.sample(torch.as_tensor(mean), torch.Generator().manual_seed(seed)).numpy()


@pytest.mark.parametrize(("threshold", "saturation"), [(0, math.inf), (2, math.inf), (3, 9), (0, 6)])
def test_threshold_and_clipping_are_read_off_the_histogram(threshold, saturation):
    mean = np.random.default_rng(1).gamma(1.5, 2.5, (4, 64, 64))
    assert limits(reports(mean, threshold, saturation)) == (threshold, saturation)


def test_a_few_bright_counts_are_not_taken_for_a_threshold():
    assert limits(reports(np.full((64, 64), 0.02))) == (0, math.inf)
    assert limits(np.array([0, 0, 5, 9])) == (0, math.inf)


@pytest.mark.parametrize(("threshold", "saturation"), [(0, math.inf), (2, math.inf), (2, 7.0), (0, 7.0)])
def test_score_is_the_slope_of_the_likelihood_and_information_its_variance(threshold, saturation):
    mean = torch.full((1, 1, 60), 3.7, dtype=torch.float64)
    values = torch.arange(60.0, dtype=torch.float64).reshape(1, 1, 60)
    probability = torch.exp(values * mean.log() - mean - torch.lgamma(values + 1))
    seen = torch.where(values < threshold, 0.0, values).clamp(max=saturation)
    counts = Counts(seen, None, threshold, saturation)
    value, slope, information = counts.score(mean)
    step = 1e-5
    difference = (counts.score(mean + step)[0] - counts.score(mean - step)[0]) / (2 * step)
    assert torch.allclose(slope, -difference / 2, atol=1e-6)
    assert float((probability * slope).sum()) == pytest.approx(0, abs=1e-12)
    assert float((probability * slope**2).sum()) == pytest.approx(float(information[0, 0, 0]), rel=1e-9)
    noise = Noise(threshold=float(threshold), saturation=saturation)
    likelihood = noise.log_prob(seen, mean) - noise.log_prob(seen, mean + 0.1)  # the constant drops out
    assert torch.allclose(likelihood, -(value - counts.score(mean + 0.1)[0]) / 2, atol=1e-9)
