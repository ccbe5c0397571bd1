"""A first look at a map, and one pattern.

A view takes a map and, where it needs frames, the scan; it gives a figure, or None where it has not what it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from braggscope.core.maps import quantity_names
from braggscope.plot.panels import maps_figure

SEEN = 700  # pixels of a picture along a side
TABLES = ("peak", "grain", "direction", "measure")  # dimensions of results that are not over positions
ELSEWHERE = ("grain", "red", "green", "blue", "reduced_deviance")  # have panels or views of their own


def overview(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Every quantity of the positions beside its standard deviation, and the flags.

    None for a map with nothing over positions, as tables of peaks or curves, which have views of their own.
    """
    over = dataset["flag"].dims
    names = [n for n in quantity_names(dataset) if dataset[n].dims == over and n not in ELSEWHERE]
    if not names or len(over) > 2 or set(over) & set(TABLES):
        return None
    signed = tuple(n for n in names if n.startswith(("strain_", "orientation_")) and n != "orientation_error")
    method = str(dataset.attrs.get("method", "laue")).replace("_", " ")
    return maps_figure(dataset, names, signed=signed, title=f"{method}: every quantity of the positions")


def pattern(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """The pattern of one position on a logarithmic scale; None without the scan.

    Of a map with `total`: where that is largest; else in the middle of the scan.
    """
    if scan is None:
        return None
    points = int(np.prod(scan.shape))
    light = dataset["total"].values.ravel() if "total" in dataset else np.zeros(0)
    chosen = int(np.nanargmax(light)) if np.isfinite(light).any() else points // 2
    only = np.zeros(points, bool)
    only[chosen] = True
    frame = next(iter(scan.batches(1, only=only))).frames[0].astype(float)
    places = (
        f"{name} = {scan.grid[name].values[i]:.4g} {scan.grid[name].attrs.get('units', '')}"
        for name, i in zip(scan.grid.dims, np.unravel_index(chosen, scan.shape), strict=True)
    )
    return pattern_figure(frame, title=f"pattern at {', '.join(places)}")


def pattern_figure(frame: np.ndarray, *, title: str = "") -> Figure:
    """One frame less its median on a logarithmic scale from the noise to the brightest spots, shape (row, column).

    A pixel of the picture shows the brightest of those it stands for, so that no spot is lost.
    """
    rows, columns = frame.shape
    figure = Figure(figsize=(7, 7 * rows / columns * 0.86 + 0.5), layout="constrained")
    ax = figure.subplots()
    light = frame - np.nanmedian(frame)
    low = max(1.4826 * float(np.nanmedian(np.abs(light))), 0.5)
    high = max(float(np.nanpercentile(light, 99.99)), 4 * low)
    norm, extent = LogNorm(low, high), (-0.5, columns - 0.5, rows - 0.5, -0.5)
    shown = ax.imshow(_brightest(np.maximum(light, low)), norm=norm, cmap="magma", interpolation="nearest", extent=extent)
    ax.set_xlabel("column (px)")
    ax.set_ylabel("row (px)")
    ax.set_title(title, fontsize=9, loc="left")
    figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03, label="count above the median")
    return figure


def _brightest(frame: np.ndarray) -> np.ndarray:
    """The brightest pixel of each block, so that few more than SEEN blocks are along each axis."""
    side = -(-max(frame.shape) // SEEN)
    padded = np.pad(frame, [(0, -size % side) for size in frame.shape], mode="edge")
    rows, columns = (size // side for size in padded.shape)
    return np.asarray(padded.reshape(rows, side, columns, side).max((1, 3)))
