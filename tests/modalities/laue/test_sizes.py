"""Grain sizes: intercepts of squares, regions, fits of drawn numbers, and films of a known size."""

import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.modalities.laue.analysis.sizes import intercepts, sizes
from braggscope.modalities.laue.distributions import MODELS, fitted, p_value, probability
from braggscope.modalities.laue.grain_maps import grain_map, regions_of
from braggscope.physics.crystals import crystal_of


def rectangles(rows=4, columns=6, many=5):
    i, j = np.mgrid[: rows * many, : columns * many]
    return i // rows * many + j // columns + 1


def unoriented(label, dy=0.2, dx=0.1):
    u = np.tile(np.eye(3), (*label.shape, 1, 1))
    return grain_map(u, crystal_of("Au"), dy * np.arange(label.shape[0]), dx * np.arange(label.shape[1]), label)


def test_rectangles_have_the_lengths_and_areas_that_they_have():
    found = sizes(unoriented(rectangles()), draws=0)
    np.testing.assert_allclose(found["mean"], [0.6, 0.8, np.sqrt(24 * 0.02)])
    np.testing.assert_allclose(found["count"], [20 * 5, 30 * 5, 25])
    np.testing.assert_allclose(found["variance"], 0, atol=1e-12)
    assert found.attrs["grain_size_um"] == pytest.approx(np.sqrt(24 * 0.02)) and found.attrs["grains"] == 25
    assert found["preferred"].values.tolist() == ["none"] * 3 and (found["flag"].values == 1).all()  # one size: nothing to fit
    inner = sizes(unoriented(rectangles()), whole=True, draws=0)
    assert inner.attrs["grains"] == 9
    np.testing.assert_allclose(inner["count"], [20 * 3, 30 * 3, 9])


def test_regions_of_one_label_are_apart_and_small_ones_are_left_out():
    label = np.array([[1, 1, 2, 1, 1], [1, 2, 2, 0, 1], [3, 3, 1, 1, 1]])
    regions = regions_of(label)
    assert len(regions) == 3 and regions.points.tolist() == [6, 3, 3] and regions.label.tolist() == [1, 1, 2]
    assert (regions.number[2, :2] == 0).all() and regions.number[0, 0] != regions.number[0, 4]
    assert regions_of(label, least=2).points.tolist() == [6, 3, 3, 2]
    assert intercepts(regions, 1)[0].tolist() == [2, 1, 2, 1, 2, 1, 3]
    assert intercepts(regions, 1, whole=True)[0].tolist() == [1]  # beside the border or a point without grain they may be cut


def test_films_have_the_size_asked_for_and_are_longer_along_x(film_map):
    found = [sizes(film_map(seed), draws=0).attrs | {"ratio": None} for seed in range(6)]
    mean, whole = (np.mean([one[n] for one in found]) for n in ("grain_size_um", "planimetric_um"))
    assert mean == pytest.approx(0.353, rel=0.02)  # of sixty films: the border cuts a third of the grains
    assert 0.37 < whole < 0.39  # those of one and two points, a tenth of the number, are left out
    assert 0.1 * found[0]["grain_size_points"] == pytest.approx(found[0]["grain_size_um"])
    scatter = np.std([one["grain_size_um"] for one in found], ddof=1)
    assert scatter < 3 * found[0]["grain_size_um_std"]  # of six; of sixty, 1.09 times
    one = sizes(film_map(0), draws=0)
    assert 1.3 < float(one["mean"][0] / one["mean"][1]) < 1.8


@pytest.mark.parametrize("model", MODELS)
def test_a_distribution_is_found_again_and_preferred(model):
    parameters = {"Gaussian": (9.0, 2.5), "log-normal": (1.8, 0.5), "Poisson": (4.0, 2.0)}[model]
    random = np.random.default_rng(3)
    chance = probability(model, parameters, 80)
    assert chance.sum() == pytest.approx(1, abs=1e-4) and chance[0] == 0
    counts = random.multinomial(3000, chance / chance.sum())
    counts = counts[: np.flatnonzero(counts)[-1] + 1]
    fits = {name: fitted(name, counts) for name in MODELS}
    assert min(fits, key=lambda n: fits[n].aic) == model
    np.testing.assert_allclose(fits[model].parameters, parameters, rtol=0.06)
    assert p_value(fits[model], counts, 19, random) > 0.05
    wrong = "log-normal" if model == "Gaussian" else "Gaussian"
    assert p_value(fits[wrong], counts, 19, random) == pytest.approx(0.05)


def test_an_exact_poisson_of_small_mean_is_found_though_none_is_never_seen():
    chance = probability("Poisson", (1.2, 0), 30)
    fit = fitted("Poisson", np.rint(1e6 * chance))
    assert fit.parameters[0] == pytest.approx(1.2, rel=1e-3)


def test_bad_options_and_maps_are_named():
    with pytest.raises(InputError, match="draws must be 0 or more, got -1"):
        sizes(unoriented(rectangles()), draws=-1)
    with pytest.raises(InputError, match="no grain of 3 points or more"):
        sizes(unoriented(np.arange(12).reshape(3, 4) + 1))
    with pytest.raises(InputError, match="no grain that the border does not cut"):
        sizes(unoriented(rectangles(many=2)), whole=True)


def voronoi(seed, across=7.5, points=160):
    """Grains of mean area 1 um^2 about random points, on a map of so many of them across."""
    from scipy.spatial import cKDTree

    random = np.random.default_rng(seed)
    seeds = random.uniform(-1, across + 1, (random.poisson((across + 2) ** 2), 2))
    at = (np.arange(points) + 0.5) * across / points
    places = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    return cKDTree(seeds).query(places)[1].reshape(points, points) + 1, across / points


def test_points_without_grain_do_not_make_grains_larger():
    found = []
    for seed in range(6):
        label, step = voronoi(seed)
        holes = np.where(np.random.default_rng(seed).random(label.shape) < 0.03, 0, label)
        found.append([sizes(unoriented(one, step, step), draws=0).attrs["planimetric_um"] for one in (label, holes)])
    whole, holed = np.mean(found, axis=0)
    assert whole == pytest.approx(1, abs=0.05) and holed == pytest.approx(
        whole, rel=0.02
    )  # the missing points are 3 % of the area


def test_the_error_of_a_mean_intercept_is_its_scatter_between_films():
    films = [sizes(unoriented(*(lambda label, step: (label, step, step))(*voronoi(seed))), draws=0) for seed in range(24)]
    means, stated = (np.array([one[n].values for one in films]) for n in ("mean", "mean_std"))
    ratio = means.std(axis=0, ddof=1) / np.sqrt((stated**2).mean(axis=0))
    assert (ratio > 0.6).all() and (ratio < 1.45).all()  # intercepts taken as independent: 2 to 3
