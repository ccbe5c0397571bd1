"""Fractions that give the light measured: known films blurred and found again, scales, lost frames."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from braggscope.modalities.laue.unmixing.deblurring import deblurred, scales

SIGMA = (0.42, 0.66)
STEPS = {"steps": 100}


def blurred(grain, y, x, pitch):
    """Light of the grains of a fine map under the beam at scan positions, shape (grain, y, x)."""
    cells = [(np.arange(n) + 0.5) * pitch for n in grain.shape]
    parts = [np.exp(-0.5 * ((at[:, None] - c) / s) ** 2) for at, c, s in zip((y, x), cells, SIGMA, strict=True)]
    parts = [p * pitch / (s * np.sqrt(2 * np.pi)) for p, s in zip(parts, SIGMA, strict=True)]
    return np.array([parts[0] @ (grain == g) @ parts[1].T for g in range(grain.max() + 1)])


@pytest.fixture(scope="module")
def case():
    """A film of Voronoi grains of 0.5 um that reaches beyond the scan, its light, and the grain at each position."""
    from scipy.spatial import cKDTree

    random = np.random.default_rng(4)
    pitch, step, reach, size = 0.025, 0.1, 2.0, 3.0
    full = size + 2 * reach
    seeds = random.uniform(0, full, (int(full**2 / 0.25), 2))
    n = round(full / pitch)
    grid = (np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1) + 0.5) * pitch
    grain = cKDTree(seeds).query(grid)[1]
    at = reach + step * np.arange(round(size / step))
    index = (at / pitch).astype(int)
    light = blurred(grain, at, at, pitch)
    lit = light.max((1, 2)) > 1e-3
    number = np.cumsum(lit) - 1
    return light[lit], at, number[grain[np.ix_(index, index)]]


def test_a_film_blurred_by_the_beam_is_found_again(case):
    light, at, truth = case
    found = deblurred(light, np.ones(truth.shape, bool), at, at, SIGMA, **STEPS)
    assert adjusted_rand_score(truth.ravel(), found.grain.ravel()) > 0.8
    assert adjusted_rand_score(truth.ravel(), light.argmax(0).ravel()) < 0.55
    assert ((found.share > 0) & (found.share <= 1)).all()
    sure = found.share > 0.9
    assert (found.grain == truth)[sure].mean() > 0.95


def test_light_that_no_grain_explains_is_given_to_none(case):
    light, at, truth = case
    largest = int(np.bincount(truth.ravel()).argmax())
    found = deblurred(np.delete(light, largest, axis=0), np.ones(truth.shape, bool), at, at, SIGMA, **STEPS)
    assert (found.grain[truth == largest] == -1).mean() > 0.7
    assert (found.grain[truth != largest] == -1).mean() < 0.05


def test_lost_frames_are_filled_from_those_around_and_their_light_is_not_used(case):
    light, at, truth = case
    seen = np.random.default_rng(5).random(truth.shape) > 0.1
    found = deblurred(np.where(seen, light, 7.0), seen, at, at, SIGMA, **STEPS)
    assert adjusted_rand_score(truth[seen], found.grain[seen]) > 0.75


def test_the_map_does_not_hang_on_the_direction_of_the_axes(case):
    light, at, truth = case
    seen = np.ones(truth.shape, bool)
    found = deblurred(light, seen, at, at, SIGMA, **STEPS).grain
    turned = deblurred(light[:, ::-1], seen, at[::-1], at, SIGMA, **STEPS).grain
    assert (found[::-1] == turned).mean() > 0.97


def test_a_scan_of_one_line_is_deblurred_along_it():
    at = np.arange(40) * 0.1
    truth = (at > 1.9).astype(int)
    light = blurred(np.repeat([[0] * 160 + [1] * 160], 200, 0), np.array([2.5]), at + 2.0, 0.025)
    found = deblurred(light, np.ones((1, 40), bool), np.zeros(1), at, SIGMA, **STEPS)
    assert (found.grain[0] == truth).mean() >= 0.95


def test_scales_make_the_light_full(case):
    light, _, _ = case
    wrong = np.random.default_rng(6).uniform(0.85, 1.15, len(light))
    measured = (light * wrong[:, None, None]).reshape(len(light), -1).T * 123.0
    right = scales(measured)
    common = measured.sum(1) / np.median(measured.sum(1))
    assert np.abs((measured * right).sum(1) - 1).max() < 0.4 * np.abs(common - 1).max()
    inner = light.sum((1, 2)) > 20
    assert inner.sum() > 10 and np.abs(np.log(right * wrong * 123)[inner]).max() < 0.3
