"""The rugged likelihood of a place: climbed from ripple to ripple, summed with its correlations, begun from the right levels."""

import numpy as np
import pytest

from braggscope.modalities.dfxm.dislocations.characters import characters_of
from braggscope.modalities.dfxm.dislocations.fit import Fit, Level, fit, terms
from braggscope.modalities.dfxm.dislocations.model import ImageModel
from braggscope.modalities.dfxm.dislocations.nearby import Nearby
from braggscope.modalities.dfxm.dislocations.posterior import with_posterior
from braggscope.modalities.dfxm.dislocations.search import _levelled, _promising, climbed
from braggscope.modalities.dfxm.dislocations.setting import PRESETS

SHAPE = (50, 50)
ALL = np.ones(SHAPE, bool)


@pytest.fixture(scope="module")
def model():
    setting = PRESETS["al-002"]
    return ImageModel(setting, characters_of(setting), SHAPE)


def drawn(model, which, places, seed, free=(False,) * 4):
    """An image with the published noise: background 5 and read-out 1 % of the brightest pixel; and the levels of it."""
    image = 1.8 * model.image(which, places, derivatives=False)[0]
    beta, variance = 0.05 * image.max(), (0.01 * image.max()) ** 2
    scatter = np.sqrt(image + beta + variance) * np.random.default_rng(seed).standard_normal(SHAPE)
    return image + beta + scatter, Level(1.8, beta, 1.0, variance, free)


@pytest.mark.parametrize(("which", "seed"), [(1, 0), (1, 4), (6, 5)])
def test_a_fit_begun_in_a_ripple_is_climbed_to_the_place_of_the_truth(model, which, seed):
    """Begun 15 nm off, the fit ends in a ripple tens of log-likelihood below the maximum about the truth."""
    true = np.random.default_rng(seed).uniform(-300, 300, (1, 2))
    counts, level = drawn(model, [which], true, seed)
    best = fit(model, counts, ALL, [which], true, level)
    ripple = fit(model, counts, ALL, [which], true + np.array([12.0, -9.0]), level)
    assert ripple.loss > best.loss + 10 and np.hypot(*(ripple.places - true)[0]) > 5
    top = climbed(model, counts, ALL, ripple)
    assert top.loss < best.loss + 0.2
    off = (top.places - true)[0]
    assert off @ np.linalg.solve(with_posterior(model, counts, ALL, top).covariance[:2, :2], off) < 13.8  # 99.9 %


def test_a_fit_at_the_highest_maximum_stays_there(model):
    true = np.array([[-120.0, 85.0]])
    counts, level = drawn(model, [3], true, 3)
    best = fit(model, counts, ALL, [3], true, level)
    np.testing.assert_allclose(climbed(model, counts, ALL, best).places, best.places, atol=1e-6)


def test_the_quick_likelihood_around_a_fit_is_that_of_the_image(model):
    """Over some nanometres about the fit to a tenth and 2 %, where it changes by tens."""
    true = np.array([[-120.0, 85.0]])
    counts, level = drawn(model, [3], true, 3)
    found = fit(model, counts, ALL, [3], true, level)
    about = found.places[0] + np.array([[0, 0], [3, 0], [-2, 3], [1, -4], [5, 5]])
    exact = [fit(model, counts, ALL, [3], one, level, steps=0).loss for one in about]
    quick = Nearby.of(model, counts, ALL, found, 0).losses(about)
    assert np.ptp(exact) > 5
    np.testing.assert_allclose(quick - quick[0], np.array(exact) - exact[0], rtol=0.02, atol=0.1)


def canonical(covariance, part):
    """Canonical correlations of a part of the parameters with the rest, which no linear change within either alters."""
    rest = np.setdiff1d(np.arange(len(covariance)), part)
    roots = [np.linalg.inv(np.linalg.cholesky(covariance[np.ix_(i, i)])) for i in (part, rest)]
    return np.linalg.svd(roots[0] @ covariance[np.ix_(part, rest)] @ roots[1].T, compute_uv=False)


def test_the_posterior_keeps_the_correlations_of_places_and_levels(model):
    """Two dislocations 0.4 um apart, levels free: summed places are wider, but hang together with the rest as before."""
    which, true = (4, 9), model.from_image([4, 9], np.array([[-300.0, 150.0], [300.0, -250.0]]))
    counts, level = drawn(model, which, true, 7, free=(True, True, False, True))
    found = fit(model, counts, ALL, which, true, level)
    summed = with_posterior(model, counts, ALL, found).covariance
    assert summed.shape == (7, 7)
    np.testing.assert_allclose(summed, summed.T, rtol=1e-9, atol=1e-12 * np.abs(summed).max())
    scale = np.sqrt(np.diag(summed))
    assert np.linalg.eigvalsh(summed / np.outer(scale, scale)).min() > 1e-3
    before = np.linalg.inv(terms(model, counts, ALL, found).information)
    levels = np.array([4, 5, 6])
    np.testing.assert_allclose(canonical(summed, levels), canonical(before, levels), rtol=1e-6)
    assert canonical(summed, levels).max() > 0.05
    assert not np.allclose(summed[:4, :4], before[:4, :4], rtol=0.01)


def test_levels_of_an_image_are_those_it_was_made_with(model):
    image = model.image([2], np.array([[70.0, -40.0]]), derivatives=False)[0]
    weight = np.random.default_rng(0).uniform(0.2, 2.0, SHAPE) * (np.arange(SHAPE[1]) > 4)  # columns without weight are not asked
    counts = np.where(weight > 0, 2.3 * image + 17.0, 1e4)
    start = Level(1.5, 10.0, 1.0, 4.0, (True, True, False, True))
    [found] = _levelled(counts, weight, start, image[None])
    assert (found.amplitude, found.background) == pytest.approx((2.3, 17.0), rel=1e-9)
    assert (found.gain, found.readout2, found.free) == (1.0, 4.0, start.free)


@pytest.mark.parametrize("free", [(True, False), (False, True), (False, False)])
def test_beside_a_level_that_is_given_the_other_is_found(model, free):
    image = model.image([2], np.array([[70.0, -40.0]]), derivatives=False)[0]
    start = Level(1.5 if free[0] else 2.3, 10.0 if free[1] else 17.0, 1.0, 4.0, (*free, False, False))
    [found] = _levelled(2.3 * image + 17.0, np.ones(SHAPE), start, image[None])
    assert (found.amplitude, found.background) == pytest.approx((2.3, 17.0), rel=1e-9)


def test_an_amplitude_falls_to_a_third_at_most_and_a_flat_image_tells_no_levels(model):
    image = model.image([2], np.array([[70.0, -40.0]]), derivatives=False)[0]
    start = Level(3.0, 10.0, 1.0, 4.0, (True, True, False, True))
    falling, flat = _levelled(20 - 0.5 * image, np.ones(SHAPE), start, np.stack([image, np.ones(SHAPE)]))
    assert falling.amplitude == 1.0
    assert flat == start


def test_starts_that_came_to_one_place_or_fell_far_behind_their_character_are_left():
    begun = [(3, 0.0, 0.0), (3, 0.1, 1e-3), (5, 0.1, 1.0), (3, 4.0, 2.0), (3, 60.0, 20.0), (5, 80.0, 30.0), (7, 0.0, 500.0)]
    fits = [Fit((which,), np.array([[place, 0.0]]), None, np.eye(2), loss, 1.0, False) for which, place, loss in begun]
    kept = [(one.which[0], one.places[0, 0]) for one in _promising(fits)]
    assert kept == [(3, 0.0), (5, 0.1), (3, 4.0), (7, 0.0)]
