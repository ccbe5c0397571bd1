"""Noise models against closed forms and scipy's distributions."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from braggscope.core.noise import Noise, deviance_moments, poisson_deviance


def test_counting_log_prob_is_the_poisson_distribution():
    mu = torch.tensor([0.01, 0.7, 12.0], dtype=torch.float64)
    n = torch.arange(9, dtype=torch.float64)[:, None]
    assert np.allclose(Noise().log_prob(n, mu), stats.poisson.logpmf(n.numpy(), mu.numpy()), atol=1e-12)


@pytest.mark.parametrize("mu", [0.3, 2.5, 9.0])
def test_censored_probabilities_sum_to_one(mu):
    noise = Noise(threshold=2, saturation=7)
    reports = torch.tensor([0.0, 2, 3, 4, 5, 6, 7], dtype=torch.float64)
    total = noise.log_prob(reports, torch.tensor(mu, dtype=torch.float64)).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "noise", [Noise(), Noise(threshold=2, saturation=7), Noise(gain=2.2, offset=100, readout=3, saturation=115)]
)
def test_log_prob_gradient_is_the_finite_difference(noise):
    expected = torch.tensor([0.4, 1.3, 6.0, 8.0], dtype=torch.float64, requires_grad=True)
    counts = noise.sample(expected.detach(), torch.Generator().manual_seed(3))
    assert torch.autograd.gradcheck(lambda mu: noise.log_prob(counts, mu), expected)


def test_reports_have_the_stated_mean_and_variance():
    noise = Noise(gain=2.2, offset=100, readout=3)
    mu = torch.full((200_000,), 30.0, dtype=torch.float64)
    reports = noise.sample(mu, torch.Generator().manual_seed(1))
    # standard errors: sqrt(154/2e5) = 0.03 of the mean; 0.3 % of the variance; rounding adds 1/12
    assert reports.mean().item() == pytest.approx(noise.mean(mu)[0].item(), abs=0.12)
    assert reports.var().item() == pytest.approx(noise.variance(mu)[0].item() + 1 / 12, rel=0.015)


def test_threshold_and_saturation_cut_the_reports():
    reports = Noise(threshold=2, saturation=7).sample(torch.full((5000,), 4.0), torch.Generator().manual_seed(1))
    assert set(reports.unique().tolist()) == {0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0}


def test_deviance_moments_are_those_of_drawn_counts():
    for mu in (0.05, 1.0, 8.0, 80.0):
        expected = torch.full((400_000,), mu, dtype=torch.float64)
        drawn = poisson_deviance(torch.poisson(expected, torch.Generator().manual_seed(5)), expected)
        mean, variance = deviance_moments(expected[:1])
        assert drawn.mean().item() == pytest.approx(mean.item(), abs=4 * math.sqrt(variance.item() / 400_000))
        assert drawn.var().item() == pytest.approx(variance.item(), rel=0.03)
