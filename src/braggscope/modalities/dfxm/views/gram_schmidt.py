"""Pictures of the strong beam and the weak beams of a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from braggscope.plot.panels import flag_panel, image_panel

REGIONS = {0: "", 1: "region strong", 2: "region -", 3: "region +"}  # of the variable `region`
COLOURS = ("black", "#4d4d4d", "#1f5f99", "#a85200", "white", "#bdbdbd", "#9ecae9", "#ffc28a")  # of each, then of each in a wall


def beams(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Strong-beam and weak-beam images, the angle between them, the walls found, and the profiles of the three regions."""
    if "weak_minus" not in dataset or "direction" not in dataset:
        return None
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    axes = figure.subplots(3, 3)
    for ax, name, what in zip(
        axes[0], ("strong", "weak_minus", "weak_plus"), ("strong beam", "weak beam -", "weak beam +"), strict=True
    ):
        image_panel(ax, dataset[name], signed=name != "strong", title=f"{what} (arsinh counts)")
    limit, by = dataset.attrs["threshold_deg"], dataset.attrs["threshold_from"]
    image_panel(axes[1, 0], dataset["weak"], title="from strong (0) to weak beam (90) (deg)")
    _walls(axes[1, 1], dataset)
    axes[1, 2].hist(dataset["weak"].values.ravel(), bins=120, range=(0, 90), color="0.6", log=True)
    axes[1, 2].axvline(limit, color="C3", lw=1, label=f"threshold {limit:.3g} deg ({by})")
    axes[1, 2].set_xlabel("angle (deg)")
    axes[1, 2].set_ylabel("pixels")
    axes[1, 2].legend(fontsize=7)
    _curves(axes[2, 0], dataset["profile"], "profiles of the regions (arsinh counts)")
    _curves(axes[2, 1], dataset["direction"], "made orthonormal")
    flag_panel(axes[2, 2], dataset)
    figure.suptitle(
        f"{dataset.attrs['frames_used']} frames as 3 images, {100 * dataset.attrs['kept_of_the_squares']:.1f} % kept", fontsize=10
    )
    return figure


def _walls(ax: Axes, dataset: xr.Dataset) -> None:
    """Regions and walls: each kind of pixel in one colour, a wall in a region in a light one; the key names what is there."""
    region, wall = dataset["region"].values, dataset["wall"].values > 0
    kinds = np.where(wall, len(REGIONS), 0) + np.where(np.isin(region, list(REGIONS)), region, 0).astype(int)
    ax.imshow(kinds, cmap=ListedColormap(COLOURS), vmin=-0.5, vmax=len(COLOURS) - 0.5, interpolation="nearest")
    ax.set_title(f"walls: {100 * dataset.attrs['wall_fraction']:.1f} % of the lit pixels", fontsize=9, loc="left")
    names = [
        *(what or "neither" for what in REGIONS.values()),
        *(f"wall, {what}" if what else "wall" for what in REGIONS.values()),
    ]
    marks = [
        Patch(facecolor=colour, edgecolor="0.5", linewidth=0.5, label=name)
        for kind, (colour, name) in enumerate(zip(COLOURS, names, strict=True))
        if (kinds == kind).any()
    ]
    ax.legend(handles=marks, fontsize=6, loc="upper left", bbox_to_anchor=(0.0, -0.36), frameon=False, ncols=2)
    ax.set_xlabel("column (px)")
    ax.set_ylabel("row (px)")
    ax.tick_params(labelsize=7)


def _curves(ax: Axes, curves: xr.DataArray, title: str) -> None:
    """The three curves; over several motors, against the point of the scan."""
    motors = [str(d) for d in curves.dims if d != "beam"]
    one = len(motors) == 1
    x = curves[motors[0]].values if one else np.arange(curves[0].size)
    for values, name, colour in zip(curves.values.reshape(3, -1), ("strong", "-", "+"), ("k", "C0", "C1"), strict=True):
        ax.plot(x, values, ".-" if one else "-", ms=3, lw=0.8, color=colour, label=name)
    unit = curves[motors[0]].attrs.get("units", "")
    ax.set_xlabel((f"{motors[0]} ({unit})" if unit else motors[0]) if one else "point of the scan")
    ax.axhline(0, color="0.7", lw=0.6)
    ax.set_title(title, fontsize=9, loc="left")
    ax.legend(fontsize=7)
    ax.tick_params(labelsize=7)
