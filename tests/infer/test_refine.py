import math

import pytest
import torch

from braggscope.core.forward import Forward, Param
from braggscope.infer.refine import refine


class Peak(Forward):
    """A Gaussian peak on a background, 40 points."""

    params = {  # noqa: RUF012
        "centre": Param("1", -3.0, 3.0),
        "height": Param("count", 1e-3, 1e6),
        "background": Param("count", 1e-4, 1e6),
    }

    def forward(self, params):
        p = {n: v[..., None] for n, v in params.items()}
        x = torch.linspace(-5, 5, 40, dtype=p["centre"].dtype)
        return p["height"] * torch.exp(-0.5 * (x - p["centre"]) ** 2) + p["background"]


def problems(count, seed=0, height=40.0):
    draw = torch.Generator().manual_seed(seed)
    truth = {
        "centre": 2 * torch.rand(count, generator=draw, dtype=torch.float64) - 1,
        "height": torch.full((count,), height, dtype=torch.float64),
        "background": torch.full((count,), 2.0, dtype=torch.float64),
    }
    return truth, torch.poisson(Peak()(truth), draw)


def begun(count):
    values = {"centre": 0.0, "height": 20.0, "background": 1.0}
    return {n: torch.full((count,), v, dtype=torch.float64) for n, v in values.items()}


FREE = ("centre", "height", "background")
LOG = ("height", "background")


def test_truth_is_recovered_within_the_stated_error():
    truth, counts = problems(400)
    found = refine(Peak(), counts, begun(400), FREE, logarithmic=LOG)
    assert found.converged.all() and not found.at_bound.any()
    for i, name in enumerate(FREE):
        z = (found.params[name] - truth[name]) / found.covariance[:, i, i].sqrt()
        assert abs(z.mean()) < 0.2 and 0.9 < z.std() < 1.1, name  # 400 draws: mean +-0.05, spread +-0.035


def test_the_likelihood_is_stationary_at_the_estimate():
    _, counts = problems(5)
    found = refine(Peak(), counts, begun(5), FREE, logarithmic=LOG, tolerance=1e-14)
    values = {n: v.clone().requires_grad_() for n, v in found.params.items()}
    mean = Peak()(values)
    (counts * mean.log() - mean).sum().backward()
    for i, name in enumerate(FREE):
        assert (values[name].grad * found.covariance[:, i, i].sqrt()).abs().max() < 1e-4, name


def test_the_only_parameter_of_a_flat_model_is_the_mean_with_poisson_error():
    _, counts = problems(3)
    start = {**begun(3), "height": torch.full((3,), 1e-3, dtype=torch.float64)}
    found = refine(Peak(), counts, start, ("background",), logarithmic=LOG)
    flat = counts.mean(1)
    assert torch.allclose(found.params["background"], flat, rtol=1e-3)  # 1e-3: the peak of 1e-3 counts that is left
    assert torch.allclose(found.covariance[:, 0, 0].sqrt(), (flat / 40).sqrt(), rtol=1e-3)


def test_masked_points_do_not_matter():
    _, counts = problems(4)
    mask = torch.ones_like(counts, dtype=torch.bool)
    mask[:, 12:15] = False
    spoiled = counts.clone()
    spoiled[:, 12:15] = 1e4
    a = refine(Peak(), counts, begun(4), FREE, mask=mask, logarithmic=LOG)
    b = refine(Peak(), spoiled, begun(4), FREE, mask=mask, logarithmic=LOG)
    assert all(torch.equal(a.params[n], b.params[n]) for n in FREE)


def test_an_estimate_at_the_edge_of_the_range_is_reported():
    truth, _ = problems(2)
    counts = Peak()({**truth, "centre": torch.full((2,), 3.7, dtype=torch.float64)})
    found = refine(Peak(), counts, begun(2), FREE, logarithmic=LOG, longest={"centre": 0.5})
    assert (found.params["centre"] == 3.0).all() and found.at_bound[:, 0].all() and not found.at_bound[:, 1:].any()


def test_too_few_steps_is_not_converged():
    _, counts = problems(3)
    assert not refine(Peak(), counts, begun(3), FREE, logarithmic=LOG, steps=1).converged.any()


def test_least_squares_is_the_same_method_with_another_score():
    """Unit variance: one Newton step solves a linear problem exactly."""
    truth, _ = problems(3)
    counts = Peak()(truth)
    found = refine(
        Peak(), counts, {**truth, "background": truth["background"] + 5}, ("background",),
        score=lambda n, mean: (n - mean, torch.ones_like(mean)), damping=0.0, steps=2, tolerance=math.inf,
    )  # fmt: skip
    assert torch.allclose(found.params["background"], truth["background"], atol=1e-9)
    assert found.covariance[:, 0, 0].tolist() == pytest.approx([1 / 40] * 3)
