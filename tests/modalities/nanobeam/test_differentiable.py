"""The compiled forward model as torch functions: gradients against finite differences, nuisance parameters against the fit."""

import numpy as np
import pytest
import torch

from braggscope.modalities.nanobeam import compiled, differentiable, phantom
from braggscope.modalities.nanobeam.differentiable import profile, profiled_deviance, rendered
from braggscope.modalities.nanobeam.geometry import published

SHAPE = (62, 58)
STEPS = (1e-5, 1e-6, 1e-6, 1e-4, 1e-4, 1e-4)  # of a central difference, small against what a parameter does to a frame


@pytest.fixture(scope="module")
def some():
    """Tables, counts as the kernels take them, and parameters that are a little off."""
    geometry = published()
    scan = phantom.uniform(geometry, shape=(40,), frame_shape=SHAPE, peak=7.0, thickness=(80, 300))
    truth = compiled.packed({n: scan.truth[n].values for n in compiled.NanobeamForward.params})
    off = truth + np.random.default_rng(0).normal(size=truth.shape) * [3e-4, 1e-5, 2e-5, 0.2, 0.3, 0.05]
    return compiled.tables(geometry, SHAPE), compiled.transposed(scan.frames(np.arange(40)), None), off


def difference(function, parameters, i):
    """Central difference of function(parameters) by parameter i."""
    step = np.zeros(6)
    step[i] = STEPS[i]
    return (function(parameters + step) - function(parameters - step)) / (2 * STEPS[i])


@pytest.mark.parametrize("i", range(6))
def test_expected_counts_have_the_gradient_of_finite_differences(some, i):
    made, _, parameters = some
    weights = torch.rand(len(parameters), *SHAPE, generator=torch.Generator().manual_seed(1))
    at = torch.tensor(parameters, requires_grad=True)
    (rendered(made, SHAPE, at) * weights).sum().backward()

    def weighted(p):
        return (rendered(made, SHAPE, torch.tensor(p)) * weights).double().sum((1, 2)).numpy()

    numeric = difference(weighted, parameters, i)
    assert np.abs(at.grad[:, i].numpy() - numeric).max() <= 3e-3 * np.abs(numeric).max()  # frames are float32


@pytest.mark.parametrize("i", [0, 1, 2, 5])
def test_the_profiled_deviance_has_the_gradient_of_finite_differences(some, i):
    made, counts, parameters = some
    at = torch.tensor(parameters, requires_grad=True)
    profiled_deviance(made, counts, at).sum().backward()
    numeric = difference(lambda p: profile(made, counts, p)[0], parameters, i)
    assert np.abs(at.grad[:, i].numpy() - numeric).max() <= 1e-3 * np.abs(numeric).max()
    assert not at.grad[:, 3:5].any()  # scale and background are at their best


def test_no_other_scale_and_background_fit_better(some):
    made, counts, parameters = some
    best, found, _ = profile(made, counts, parameters)
    frames = np.maximum(counts, 0).transpose(0, 2, 1)
    for i in (3, 4):
        for step in (-0.05, 0.05):
            moved = found.copy()
            moved[:, i] += step
            other = compiled.described_at(made, frames, None, moved, 5)["goodness"][:, 0]
            assert (other > best - 1e-3).all()
    assert np.allclose(compiled.described_at(made, frames, None, found, 5)["goodness"][:, 0], best, rtol=1e-5)


def test_masked_counts_do_not_matter(some):
    made, counts, parameters = some
    hidden, spoiled = counts.copy(), counts.copy()
    hidden[:, 10:14, 20:30] = -1
    spoiled[:, 10:14, 20:30] += 50
    a = profile(made, hidden, parameters)
    spoiled[:, 10:14, 20:30] = -1
    assert all(np.array_equal(x, y) for x, y in zip(a, profile(made, spoiled, parameters), strict=True))
    assert (a[0] < profile(made, counts, parameters)[0]).all()


def test_a_frame_without_light_gives_numbers(some):
    made, counts, parameters = some
    dark = parameters.copy()
    dark[:, 2] = 0.1  # radians: the ring is far off the frame
    assert all(np.isfinite(x).all() for x in profile(made, counts, dark))


@pytest.mark.parametrize("limits", [{"threshold": 2.0}, {"threshold": 2.0, "saturation": 7.0}])
def test_thresholded_and_clipped_counts_are_taken_for_what_they_are(limits):
    """The profiled deviance has its minimum where the likelihood fit ends, and its gradient is that of finite differences."""
    geometry = published().replace(**limits)
    scan = phantom.uniform(geometry, shape=(60,), peak=7.0, seed=4)
    made, frames = compiled.tables(geometry, (64, 64)), scan.frames(np.arange(60))
    counts, fitted = compiled.transposed(frames, None), compiled.fit(compiled.tables(geometry, (64, 64)), frames, None, 5, 117.0)
    best, found, gradient = profile(made, counts, fitted["parameters"])
    std = np.sqrt(np.einsum("fii->fi", fitted["covariance"]))[:, :5]
    assert np.abs((found - fitted["parameters"])[:, :5] / std).max() < 0.05
    assert np.allclose(best, fitted["goodness"][:, 0], rtol=1e-4)
    assert np.abs(gradient[:, :3] * std[:, :3]).max() < 0.1  # of the deviance per standard deviation
    off = fitted["parameters"] + [3e-4, 1e-5, 2e-5, 0.1, 0.1, 0]
    for i in range(3):
        numeric = difference(lambda p: profile(made, counts, p)[0], off, i)
        assert np.abs(profile(made, counts, off)[2][:, i] - numeric).max() <= 2e-3 * np.abs(numeric).max()
    start = differentiable.with_nuisance(made, counts, fitted["parameters"][:, [0, 1, 2, 5]])
    assert np.abs((start - fitted["parameters"])[:, :5] / std).max() < 0.05
