"""A map laid over one of EBSD."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from braggscope.plot.panels import colour_panel, image_panel

from .grains import label_colours
from .lines import outline

OURS, THEIRS = "#0044cc", "#e07000"


def ebsd_comparison(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Boundaries of a map and of EBSD over each other, and the misorientation of the two.

    The picture under them has the colours of the grains of EBSD. None for what is no result of `compare-ebsd`.
    """
    if "ebsd_number" not in dataset:
        return None
    angles = "misorientation" in dataset and np.isfinite(dataset["misorientation"].values).any()
    figure = Figure(figsize=(10.5 if angles else 6, 5.2), layout="constrained")
    axes = figure.subplots(1, 2 if angles else 1, squeeze=False)[0]
    over, theirs = dataset["number"], dataset["ebsd_number"].values
    index, error, chance = (float(dataset.attrs.get(f"rand_index{n}", np.nan)) for n in ("", "_std", "_by_chance"))
    colour_panel(
        axes[0],
        0.45 + 0.55 * label_colours(theirs),
        over,
        title=f"adjusted Rand index {index:.2f} ± {error:.2f} (by chance {chance:.2f})",
    )
    outline(axes[0], theirs, over, colors=THEIRS, linewidths=2.6)
    outline(axes[0], over.values, over, colors=OURS, linewidths=1.0)
    found, right = (float(dataset.attrs.get(f"boundaries_{n}", np.nan)) for n in ("found", "right"))
    marks = [
        Line2D([], [], color=THEIRS, lw=2.6, label=f"EBSD, {found:.0%} of it in the map"),
        Line2D([], [], color=OURS, lw=1.0, label=f"this map, {right:.0%} of it in EBSD"),
    ]
    figure.legend(handles=marks, loc="outside lower left", ncols=2, fontsize=8, frameon=False)
    if angles:
        median = float(dataset.attrs.get("median_misorientation_deg", np.nan))
        image_panel(axes[1], dataset["misorientation"], title=f"misorientation (deg), median {median:.2g}")
    return figure
