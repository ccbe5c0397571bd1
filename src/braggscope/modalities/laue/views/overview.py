"""A first look at a map, and one pattern."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from braggscope.core.maps import quantity_names
from braggscope.plot.panels import maps_figure

SIGNED = tuple(f"strain_{n}" for n in ("xx", "yy", "zz", "yz", "xz", "xy"))


def overview(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Every quantity of a map beside its error; None for tables of curves and distributions, which have views of their own."""
    if dataset["flag"].dims in (("direction",), ("measure",)):
        return None
    names = [n for n in quantity_names(dataset) if n not in ("grain", "red", "green", "blue", "reduced_deviance")]
    over = [n for n in names if dataset[n].dims == dataset["flag"].dims and dataset[n].dtype.kind in "iuf"]
    return maps_figure(dataset, over or ["flag"], signed=SIGNED, title="laue")


def pattern(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """The brightest pattern of the scan on a logarithmic scale; None without the scan.

    Of a map with `total`: at its largest value; else in the middle of the scan.
    """
    if scan is None:
        return None
    points = int(np.prod(scan.shape))
    light = dataset["total"].values.ravel() if "total" in dataset else np.zeros(0)
    chosen = int(np.nanargmax(light)) if np.isfinite(light).any() else points // 2
    only = np.zeros(points, bool)
    only[chosen] = True
    frame = next(iter(scan.batches(1, only=only))).frames[0].astype(float)
    place = ", ".join(
        f"{n} = {scan.grid[n].values[i]:g} {scan.grid[n].attrs.get('units', '')}"
        for n, i in zip(scan.grid.dims, np.unravel_index(chosen, scan.shape), strict=True)
    )
    return pattern_figure(frame, title=f"pattern at {place}")


def pattern_figure(frame: np.ndarray, *, title: str = "") -> Figure:
    """One frame on a logarithmic scale from just below its background to its brightest spots."""
    figure = Figure(figsize=(7, 7.4), layout="constrained")
    ax = figure.subplots()
    low = max(float(np.percentile(frame, 1)), 0.5)
    high = max(float(np.percentile(frame, 99.99)), 4 * low)
    shown = ax.imshow(np.maximum(frame, low), norm=LogNorm(low, high), cmap="magma", interpolation="nearest")
    ax.set_xlabel("column (px)")
    ax.set_ylabel("row (px)")
    ax.set_title(title, fontsize=9, loc="left")
    figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03, label="count")
    return figure
