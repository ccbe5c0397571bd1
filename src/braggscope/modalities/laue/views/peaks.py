"""Picture of a table of peaks: where they are on the detector, how well that is known, and how wide they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ..peaks.background import background

MOST = 20_000  # peaks that one picture can show


def peaks(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Peaks on the detector coloured by their light, flagged ones grey; errors of the places; widths along both axes.

    None for what is no table of peaks. With a scan of one frame the peaks lie on it, shown less its background over its noise.
    """
    if not {"row", "column", "sigma_major", "significance"} <= set(dataset) or dataset["flag"].dims != ("peak",):
        return None
    shown = dataset.isel(peak=slice(0, MOST))
    figure = Figure(figsize=(12.5, 6.4), layout="constrained")
    parts: dict[str, Axes] = figure.subplot_mosaic([["detector", "errors"], ["detector", "widths"]], width_ratios=[1.5, 1])
    good = shown["flag"].values == 0
    _detector(parts["detector"], shown, good, scan)
    _errors(parts["errors"], shown.isel(peak=good))
    _widths(parts["widths"], shown.isel(peak=good))
    left = dataset.sizes["peak"] - shown.sizes["peak"]
    count = dataset.sizes["peak"]
    figure.suptitle(
        f"{count} peak{'s' if count != 1 else ''}, {int((dataset['flag'].values == 0).sum())} without a flag"
        + (f"; {left} more are not drawn" if left else ""),
        fontsize=9,
    )
    return figure


def _detector(ax: Axes, shown: xr.Dataset, good: np.ndarray, scan: Any) -> None:
    """Peaks on the detector, over the frame where it is one."""
    if scan is not None and int(np.prod(scan.shape)) == 1:
        ax.imshow(_above_background(scan.frame(0)), cmap="gray_r", vmin=0, vmax=20, interpolation="nearest")
    rows, columns = (
        float(shown.attrs.get(f"frame_{n}", np.nanmax(shown[n[:-1]].values, initial=1))) for n in ("rows", "columns")
    )
    ax.scatter(shown["column"][~good], shown["row"][~good], s=14, facecolors="none", edgecolors="0.55", linewidths=0.6)
    light = np.maximum(shown["intensity"].values[good], 1e-3)
    if light.size:
        norm = LogNorm(light.min(), max(light.max(), 1.001 * light.min()))
        colours = {"c": light, "norm": norm, "cmap": "viridis_r"}
        points = ax.scatter(shown["column"].values[good], shown["row"].values[good], s=14, linewidths=0, alpha=0.8, **colours)
        ax.figure.colorbar(points, ax=ax, fraction=0.046, pad=0.02, label="intensity (count)")
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xlabel="column (px)", ylabel="row (px)", aspect="equal")


def _above_background(frame: np.ndarray) -> np.ndarray:
    """Counts less their background in standard deviations, shape (row, column)."""
    counts = np.asarray(frame, np.float32)
    ground = background(counts, lambda work, count: work(0, count))
    rows, columns = np.mgrid[: counts.shape[0], : counts.shape[1]]
    level, sigma = ground.at_pixels(rows, columns, counts.shape)
    return (counts - level) / sigma


def _errors(ax: Axes, good: xr.Dataset) -> None:
    """Standard deviation of the place against the significance."""
    error = np.hypot(good["row_std"].values, good["column_std"].values) / np.sqrt(2)
    ax.loglog(good["significance"], error, ".", ms=3, alpha=0.6)
    ax.set(xlabel="significance", ylabel="std of row and column (px)")


def _widths(ax: Axes, good: xr.Dataset) -> None:
    """Sigma along both axes."""
    both = [good[name].values[np.isfinite(good[name].values)] for name in ("sigma_major", "sigma_minor")]
    top = float(np.percentile(both[0], 98)) if both[0].size else 1.0
    ax.hist(both, bins=40, range=(0.0, 1.1 * top), histtype="step", label=["sigma major", "sigma minor"])
    ax.set(xlabel="sigma (px)", ylabel="peaks")
    ax.legend(fontsize=8, frameon=False)
