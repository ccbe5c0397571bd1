"""Figures of maps: which panels there are, and where."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from braggscope.core.maps import Quantity, empty_map
from braggscope.plot.panels import flag_panel, maps_figure


def made(*, stds=(), deviance=True):
    """A map of 3 x 4 points with three quantities."""
    quantities = [Quantity(name, "deg", name) for name in ("strain", "omega", "chi")]
    extras = [Quantity("reduced_deviance", "1", "misfit")] if deviance else []
    errors = [one.std() for one in quantities if one.name in stds]
    dataset = empty_map([*quantities, *errors, *extras], ("y", "x"), (3, 4), {}, {1: "lost"})
    for name in dataset.data_vars:
        dataset[name].values[...] = 0 if name == "flag" else np.arange(12.0).reshape(3, 4)
    return dataset


def panels(figure):
    """Titles of the drawn panels in the order of the page, a tuple per row; empty words where nothing is drawn."""
    grid = figure.axes[0].get_gridspec()
    rows = [[""] * grid.ncols for _ in range(grid.nrows)]
    for ax in figure.axes:
        place = ax.get_subplotspec()
        if place is not None and place.get_gridspec() is grid and ax.axison:
            rows[place.rowspan.start][place.colspan.start] = ax.get_title(loc="left").split(" (")[0].split(":")[0]
    return [tuple(row) for row in rows]


def test_each_quantity_stands_beside_its_standard_deviation():
    assert panels(maps_figure(made(stds=("strain", "omega", "chi")))) == [
        ("strain", "standard deviation of strain"),
        ("omega", "standard deviation of omega"),
        ("chi", "standard deviation of chi"),
        ("reduced deviance", "flags"),
    ]


def test_without_any_standard_deviation_no_column_is_empty():
    assert panels(maps_figure(made())) == [("strain", "omega"), ("chi", "reduced deviance"), ("flags", "")]
    assert panels(maps_figure(made(deviance=False))) == [("strain", "omega"), ("chi", "flags")]


@pytest.mark.parametrize("deviance", [True, False])
def test_what_a_map_does_not_have_leaves_its_place_empty(deviance):
    drawn = panels(maps_figure(made(stds=("strain",), deviance=deviance), ["strain", "chi"]))
    assert drawn == [
        ("strain", "standard deviation of strain"), ("chi", ""), ("reduced deviance" if deviance else "", "flags"),
    ]  # fmt: skip


def test_a_point_with_several_flags_has_a_colour_of_its_own_and_the_key_adds_up():
    flag = np.array([[0, 1, 1, 2], [4, 3, 3, 3], [0, 0, 2, 2]])
    dataset = empty_map([Quantity("mu", "deg", "mu")], ("row", "column"), flag.shape, {}, {1: "cut", 2: "no_light", 4: "lost"})
    dataset["flag"].values[...] = flag
    ax = Figure().subplots()
    flag_panel(ax, dataset)
    image = ax.images[0]
    drawn = image.cmap(image.norm(image.get_array()))
    key = {
        mark.get_text(): handle.get_facecolor()
        for mark, handle in zip(ax.get_legend().texts, ax.get_legend().legend_handles, strict=True)
    }
    assert list(key) == ["cut: 2 alone, 5 in all", "no light: 3 alone, 6 in all", "lost: 1", "several flags: 3"]
    for mask, colour in zip((flag == 1, flag == 2, flag == 4, flag == 3), key.values(), strict=True):
        np.testing.assert_allclose(drawn[mask], np.broadcast_to(colour, (mask.sum(), 4)))
    np.testing.assert_allclose(drawn[flag == 0], np.broadcast_to(to_rgba("white"), (3, 4)))
    assert ax.get_title(loc="left") == "flags: 3 of 12 points have none (white)"


def test_a_map_without_flags_is_white():
    ax = Figure().subplots()
    flag_panel(ax, made())
    assert ax.get_legend() is None and (ax.images[0].get_array() == 0).all()
