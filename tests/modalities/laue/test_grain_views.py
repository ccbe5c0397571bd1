"""Views of grain maps: which are drawn of what, and colours that must be right."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import braggscope
from braggscope.app.viewing import draw_all
from braggscope.modalities.laue.grain_maps import grain_map
from braggscope.modalities.laue.views.grains import ipf_colours, label_colours
from braggscope.modalities.laue.views.indexed import indexed_pattern
from braggscope.modalities.laue.views.lines import between
from braggscope.physics.crystals import crystal_of

AU = crystal_of("Au")


@pytest.mark.parametrize(
    ("name", "options", "views"),
    [
        ("two_point", {"direction_deg": (45.0,)}, {"correlation"}),
        ("sizes", {"draws": 0}, {"grain_sizes"}),
        ("grains", {}, {"overview", "grain_map", "boundaries"}),
    ],
)
def test_each_result_has_its_views(film_map, name, options, views):
    result = braggscope.analyse("laue", name, film_map(1, (20, 24), twins=0.4), **options)
    drawn = draw_all(result)
    assert set(drawn) == views
    for figure, _ in drawn.values():
        figure.canvas.draw()


def test_a_comparison_and_a_map_with_latent_colours_are_drawn(film_map):
    made = film_map(1, (20, 24))
    result = braggscope.analyse("laue", "compare_ebsd", made, made, turns=(0.0,), within=0.0, scale_within=0.0)
    assert {"ebsd_comparison", "grain_map"} <= set(draw_all(result))
    latent = made.assign({n: made["orientation_x"] * k for n, k in (("red", 1), ("green", -1), ("blue", 2))})
    figure = draw_all(latent)["grain_map"][0]
    assert len(figure.axes) == 3  # latent colours, directions, key
    figure.canvas.draw()
    alone = draw_all(made[["grain", "flag"]])["grain_map"][0]
    assert len(alone.axes) == 1


def test_001_along_the_normal_is_red_and_missing_is_grey():
    u = np.stack([np.eye(3), np.full((3, 3), np.nan)])
    colours = ipf_colours(u, AU, np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(colours[0], [1, 0, 0], atol=0.02)
    assert np.ptp(colours[1]) == 0


def test_lines_run_between_points_of_two_grains():
    lines, pairs = between(np.array([[1, 1, 2], [1, 1, 0]]), np.array([0.0, 1.0]), np.array([10.0, 12.0, 14.0]))
    assert lines.tolist() == [[[13.0, -0.5], [13.0, 0.5]]] and pairs.tolist() == [[1, 2]]
    assert len({tuple(c) for c in label_colours(np.arange(1, 60))}) == 59


def test_indexed_spots_are_drawn_with_and_without_the_frame():
    """Of the silicon under nanowires, from the peaks that LaueTools found."""
    folder = Path(__file__).parents[2] / "reference" / "laue"
    peaks = folder / "rerun_lt3219_GaN_Si_nw1_0000_Si.cor"
    result = braggscope.analyse("laue", "index", peaks, geometry=folder / "GaN_Si_calib.det", material=("Si",), grains=1)
    frame = np.random.default_rng(0).poisson(10.0, (1, 2018, 2016)).astype(np.uint16)
    for scan in (None, SimpleNamespace(shape=(1,), batches=lambda size, only: [SimpleNamespace(frames=frame)])):
        figure = indexed_pattern(result, scan)
        figure.canvas.draw()
        ax = figure.axes[0]
        assert len(ax.images) == (scan is not None) and 20 <= len(ax.texts) <= 25
        spots = ax.collections[0].get_offsets()
        place = np.stack([result[f"spot_{n}"] - result[f"spot_{n}_offset"] for n in ("column", "row")], 1)
        np.testing.assert_allclose(np.sort(spots[:, 0]), np.sort(place[:, 0]))


def test_a_map_that_does_not_state_its_crystal_is_drawn_by_number():
    made = grain_map(np.tile(np.eye(3), (5, 6, 1, 1)), AU, np.arange(5.0), np.arange(6.0), np.ones((5, 6), int))
    del made.attrs["crystal"]
    assert len(draw_all(made)["grain_map"][0].axes) == 1
