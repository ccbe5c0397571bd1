"""Pictures of domains and of the walls between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from braggscope.plot.colour_key import MISSING, draw_key, key_colours

from .orientation import coloured
from .scales import spanned

NAMED = 30  # domains whose number is written into the picture
LEAST = 0.004  # share of the image that such a domain has at least


def domains(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Domains in the colour of their mean lattice rotation, the walls in that of the misorientation across, and sizes.

    None for a map without domains. The largest domains carry their number.
    """
    if "label" not in dataset or "domain" not in dataset.dims:
        return None
    label = dataset["label"].values
    figure = Figure(figsize=(14, 5), layout="constrained")
    image, key, sizes = figure.subplots(1, 3, width_ratios=(4, 1.5, 2))
    y, x = dataset["mean_rotation_y"].values, dataset["mean_rotation_x"].values
    ranges = spanned(y), spanned(x)
    colours = np.vstack([MISSING, key_colours(y, x, *ranges)])
    coloured(image, dataset, colours[label])
    image.set_title(f"{dataset.sizes['domain']} domains (grey: none)", fontsize=9, loc="left")
    _draw_walls(image, dataset, figure)
    for n in dataset["domain"].values[:NAMED]:
        if dataset["size"].sel(domain=n) >= LEAST * label.size:
            row, column = (float(dataset[c].sel(domain=n)) for c in ("centre_row", "centre_column"))
            image.text(column, row, str(n), fontsize=7, ha="center", va="center")
    draw_key(key, *ranges, "mean rotation about y (deg)", "mean rotation about x (deg)")
    key.set_title("colour key", fontsize=9)
    _draw_sizes(sizes, dataset)
    return figure


def _draw_walls(ax: Any, dataset: xr.Dataset, figure: Figure) -> None:
    """The edges between pixels of two domains, in the colour of the misorientation across their wall."""
    steps = {
        (int(a), int(b)): float(v)
        for a, b, v in zip(*(dataset[f"wall_{n}"].values for n in ("domain_a", "domain_b", "step")), strict=True)
    }
    lines, values = [], []
    for (row, column), (first, second), upright in _edges(dataset["label"].values):
        value = steps.get((min(first, second), max(first, second)))
        if value is not None:
            lines.append([(column, row - 0.5), (column, row + 0.5)] if upright else [(column - 0.5, row), (column + 0.5, row)])
            values.append(value)
    if lines:
        drawn = LineCollection(lines, array=np.array(values), cmap="inferno", linewidths=1.6)
        drawn.set_clim(0, float(np.percentile(values, 98)))
        ax.add_collection(drawn)
        figure.colorbar(drawn, ax=ax, fraction=0.035, label="misorientation across the wall (deg)")


def _edges(label: np.ndarray) -> list[tuple[tuple[float, float], tuple[int, int], bool]]:
    """Middle (row, column) of each edge between two domains, their numbers, and whether the edge is upright."""
    found = []
    for upright, a, b, shift in (
        (True, label[:, :-1], label[:, 1:], (0.0, 0.5)),
        (False, label[:-1], label[1:], (0.5, 0.0)),
    ):
        for row, column in zip(*np.nonzero((a != b) & (a > 0) & (b > 0)), strict=True):
            place = (float(row) + shift[0], float(column) + shift[1])
            found.append((place, (int(a[row, column]), int(b[row, column])), upright))
    return found


def _draw_sizes(ax: Any, dataset: xr.Dataset) -> None:
    """Size and spread of each domain."""
    name = "area" if "area" in dataset else "size"
    unit = dataset[name].attrs["units"].replace("um^2", "µm²")
    ax.scatter(dataset[name], dataset["spread"], s=8, label="spread inside")
    if "spread_by_noise" in dataset:
        ax.scatter(dataset[name], dataset["spread_by_noise"], s=6, marker="_", color="0.4", label="by noise alone")
    ax.set_xscale("log")
    ax.set_xlabel(f"{name} ({unit})")
    ax.set_ylabel("spread of the lattice (deg)")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=7)
    ax.tick_params(labelsize=7)
