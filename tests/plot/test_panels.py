"""Figures of maps: which panels there are, and where."""

import numpy as np
import pytest

from braggscope.core.maps import Quantity, empty_map
from braggscope.plot.panels import maps_figure


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
