"""Picture of the table of visibilities: which reflection shows which dislocation."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

COLOURS = {0: "#f2c14e", 1: "#8fb8de", 2: "#e4e4e4"}
MEANINGS = {0: "visible", 1: "residual contrast of the edge part only", 2: "invisible"}
MOST = 60  # dislocations that one picture can name


def visibility(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Products g.b (or g.(b x t) where that is all there is) over the colour of the flag, and the deviation if it is given.

    None for what is no table of the analysis `visibility`. The first 60 dislocations are drawn.
    """
    if "gbt" not in dataset or dataset["flag"].dims != ("reflection", "dislocation"):
        return None
    shown = dataset.isel(dislocation=slice(0, MOST))
    rows, columns = shown.sizes["dislocation"], shown.sizes["reflection"]
    panels = 2 if "deviation" in shown else 1
    width = 2.6 + 0.75 * columns
    figure = Figure(figsize=(max(6.0, width * panels), 1.8 + 0.24 * rows), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
    _verdicts(axes[0], shown)
    if panels == 2:
        _deviations(axes[1], shown)
    left = dataset.sizes["dislocation"] - rows
    count, groups = (dataset.attrs.get(name, "?") for name in ("burgers_vectors", "groups_by_g_b_0"))
    fewest = dataset.attrs.get("fewest_reflections")
    words = f"g.b = 0 divides {count} Burgers vectors into {groups} groups" + (f", already by {fewest}" if fewest else "")
    figure.suptitle(words + (f"; {left} more dislocations are not drawn" if left else ""), fontsize=9)
    figure.legend(
        handles=[Patch(color=COLOURS[code], label=text) for code, text in MEANINGS.items()],
        loc="outside lower center", ncols=3 if width * panels > 8 else 1, fontsize=8, frameon=False,
    )  # fmt: skip
    return figure


def _verdicts(ax: Axes, shown: xr.Dataset) -> None:
    """The colour of the flag, and g.b; where that is 0, g.(b x t) in brackets."""
    flag = shown["flag"].values.T
    colours = np.array([tuple(int(COLOURS[code][i : i + 2], 16) for i in (1, 3, 5)) for code in sorted(COLOURS)])
    ax.imshow(colours[flag], aspect="auto", interpolation="nearest")
    for (row, column), code in np.ndenumerate(flag):
        gb, gbt = (float(shown[name].values[column, row]) for name in ("gb", "gbt"))
        text = {0: f"{gb:g}", 1: f"0 ({gbt:.2f})", 2: "0"}[int(code)]
        ax.text(column, row, text, ha="center", va="center", fontsize=7)
    _named(ax, shown, "g.b, in brackets g.(b x t) where g.b = 0")


def _deviations(ax: Axes, shown: xr.Dataset) -> None:
    """The deviation in millidegrees."""
    values = 1e3 * shown["deviation"].values.T
    top = float(values.max()) or 1.0
    ax.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value < 0.6 * top else "black"
        ax.text(column, row, f"{value:.1f}" if value > 1e-9 * top else "0", ha="center", va="center", fontsize=7, color=colour)
    _named(ax, shown, shown["deviation"].attrs["long_name"].replace("|dq|/q", "|dq|/q (mdeg)"))


def _named(ax: Axes, shown: xr.Dataset, title: str) -> None:
    ax.set_xticks(range(shown.sizes["reflection"]), [str(name) for name in shown["reflection"].values], fontsize=8)
    ax.set_yticks(range(shown.sizes["dislocation"]), [str(name) for name in shown["dislocation"].values], fontsize=7)
    ax.set_xlabel("reflection")
    ax.set_title(title, fontsize=8, loc="left")
