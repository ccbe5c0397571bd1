"""Light of grains by least squares: images against drawn frames, normal matrices against dense ones, errors against noise."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braggscope.modalities.laue.brightness import layer
from braggscope.modalities.laue.geometry import film
from braggscope.modalities.laue.patterns import spot_image, spots_of
from braggscope.modalities.laue.reflections import material
from braggscope.modalities.laue.unmixing import kernels
from braggscope.modalities.laue.unmixing.count_noise import CountNoise
from braggscope.modalities.laue.unmixing.lighting import (
    FrameFits,
    Lights,
    Pairs,
    lights,
    measured,
    moved,
    strengthened,
    supported,
)
from braggscope.modalities.laue.unmixing.spots import images_of
from braggscope.modalities.laue.unmixing.sums import Sums, weights

GEOMETRY = film()
LAYER = layer(GEOMETRY, material("Au"), thickness_um=0.3)
TURNS = Rotation.random(6, rng=np.random.default_rng(7)).as_matrix()
PIXELS = GEOMETRY.rows * GEOMETRY.columns
UNSTRAINED = np.zeros((6, 3, 3))


@pytest.fixture(scope="module")
def images():
    """Of six crystals whose brightest spot has 20 000 counts at full light."""
    return counted(images_of(LAYER, TURNS, UNSTRAINED, GEOMETRY.spot_px))


def counted(images):
    expected = images.expected * np.float32(2e4 / images.expected.max())
    return replace(images, expected=expected, strength=expected)


def dense(images):
    """The image of each grain, shape (grain, pixel)."""
    made = np.zeros((len(images), PIXELS), np.float32)
    for g in range(len(images)):
        kernels.draw(made[g], g, 1.0, *images.arrays)
    return made.astype(float)


def sums_of(mean, same, part=0.01):
    """One sum about one centre."""
    shape = (GEOMETRY.rows, GEOMETRY.columns)
    mean = mean[None].astype(np.float32)
    weight = weights(mean, same, np.ones(PIXELS, bool), CountNoise(1.0, 0.0, 0.1))
    return Sums(np.zeros(1), np.zeros(1), mean, np.array([part]), same, weight, 1.0, 1.0, shape)


def test_the_images_are_those_of_the_simulator(images):
    for made, turn in zip(dense(images), TURNS, strict=True):
        drawn = spot_image(GEOMETRY, spots_of(LAYER, turn)).ravel()
        drawn *= made.sum() / drawn.sum()
        assert np.abs(made - drawn).max() < 1e-4 * drawn.max()


def test_the_slope_is_the_change_of_a_spot_that_moves(images):
    step = 1e-3
    s = int(images.expected.argmax())
    width = images.place.shape[1]
    for axis in (0, 1):
        moved_up, moved_down = (images_at(images, s, sign * step, axis) for sign in (1, -1))
        assert np.allclose((moved_up - moved_down) / (2 * step), images.slope[axis, s].reshape(width), atol=2e-5)


def images_at(images, s, step, axis):
    """Shares of a spot, moved along an axis."""
    from scipy.special import ndtr

    at = images.at[s] + np.eye(2)[axis] * step
    half = (round(images.place.shape[1] ** 0.5) - 1) // 2
    parts = []
    for a, b in zip(at, images.at[s], strict=True):
        off = (np.rint(b) + np.arange(-half, half + 1) - a) / GEOMETRY.spot_px
        parts.append(np.diff(ndtr(np.append(off, off[-1] + 1 / GEOMETRY.spot_px) - 0.5 / GEOMETRY.spot_px)))
    return np.outer(*parts).ravel()


def test_the_normal_matrix_is_that_of_the_dense_images(images):
    weight = np.random.default_rng(0).uniform(0.1, 1, PIXELS).astype(np.float32)
    near = np.array([4, 0, 3])
    number = np.full(6, -1)
    number[near] = np.arange(3)
    dark = np.ones(PIXELS, np.float32)
    sums = replace(sums_of(dark, dark), weight=weight[None])
    pairs, matrix = Pairs.of(sums, images, [near]), np.empty((3, 3))
    kernels.normal_matrix(pairs.pair[0], pairs.product[0], number, images.grain, images.strength, matrix)
    own = dense(images)[near]
    assert np.allclose(matrix, own * weight @ own.T, rtol=1e-4)
    assert np.allclose(pairs.inverse(images, images.grain, 0), np.linalg.inv(matrix), rtol=1e-2)


def test_light_has_the_errors_that_it_states(images):
    """Poisson frames of a known mixture: z-scores of mean 0 and spread 1."""
    random = np.random.default_rng(1)
    truth = np.array([0.5, 0.2, 0.1, 0.1, 0.06, 0.04])
    same = np.full(PIXELS, 12.0, np.float32)
    expected = same + truth @ dense(images)
    fits = FrameFits.of(sums_of(expected, same), images, [np.arange(6)])
    frames = random.poisson(expected, (60, PIXELS)).reshape(60, GEOMETRY.rows, GEOMETRY.columns)
    light, variance = fits.light(frames, None, np.zeros(60, int))
    z = (light - truth) / np.sqrt(variance)
    assert abs(z.mean()) < 3 / np.sqrt(z.size) and 0.9 < z.std() < 1.1
    masked = np.ones(frames.shape, bool)
    masked[:, 5, 7] = False
    spoiled = frames.copy()
    spoiled[:, 5, 7] = 60000
    assert np.abs(fits.light(spoiled, masked, np.zeros(60, int))[0] - light).max() < 0.01


def alone(images, least=500):
    """Bright spots that share pixels with no other."""
    return np.flatnonzero((images.expected > least) & (np.diff(images.first) == 1))


def test_strengths_of_spots_are_measured_and_drawn_to_the_expected_ones(images):
    """A film whose spots are not as theory has them."""
    same = np.full(PIXELS, 12.0, np.float32)
    true = images.with_strength(images.expected * np.random.default_rng(2).uniform(0.7, 1.3, len(images.at)))
    sums = sums_of(same + np.full(6, 1 / 6) @ dense(true), same)
    light = Lights([np.arange(6)], [np.full(6, 1 / 6)], [np.ones(6)])
    strength, precision = measured(sums, images, light)
    own = alone(images)
    assert len(own) > 10 and np.allclose(strength[own], true.strength[own], rtol=1e-3)
    for error, share in ((0.3, 0.9), (1e-3, 0.05)):
        followed = strengthened(images, strength, precision, error=error)
        moved_by = (followed.strength - images.expected)[own] / (true.strength - images.expected)[own]
        assert (np.median(moved_by) > share) == (error > 0.1)


def test_spots_are_followed_to_where_they_are(images):
    """The crystals turned by 0.02 deg, which moves spots by a third of a pixel."""
    same = np.full(PIXELS, 12.0, np.float32)
    about_y = Rotation.from_rotvec([0, np.deg2rad(0.02), 0]).as_matrix()
    turned = counted(images_of(LAYER, about_y @ TURNS, UNSTRAINED, GEOMETRY.spot_px))
    light = Lights([np.arange(6)], [np.full(6, 1 / 6)], [np.ones(6)])
    offset, precision = moved(sums_of(same + np.full(6, 1 / 6) @ dense(turned), same), images, light)
    own = alone(images)
    expected = np.array([turned.at[np.abs(turned.at - images.at[s]).sum(1).argmin()] for s in own]) - images.at[own]
    assert np.abs(expected).max() > 0.2 and np.median(np.abs(offset[own] - expected)) < 0.1 * np.abs(expected).max()
    assert np.median(precision[own]) > 100


def test_a_grain_that_is_not_there_is_not_supported(images):
    same = np.full(PIXELS, 12.0, np.float32)
    present = np.array([1, 1, 1, 1, 1, 0]) / 5
    sums = sums_of(same + present @ dense(images), same)
    light = lights(sums, images, Pairs.of(sums, images, [np.arange(6)]))
    assert np.allclose(light.of_grains(6)[:, 0], present, atol=0.01)
    faked = Lights(light.near, [np.full(6, 0.2)], light.std)
    rich = np.bincount(images.grain[alone(images, 200)], minlength=6) >= 4
    found = supported(images, *measured(sums, images, faked))
    assert rich.sum() > 3 and found[:5][rich[:5]].all() and not found[5]
