"""Pictures of tracks: ways over the image, places against time with their errors, and mean square displacements."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

NEEDED = {"row", "column", "velocity_row", "msd", "track_flag"}
OVERLAPPED = 2  # bit of the flag
SHOWN = 20  # tracks with a line of their own
OUTLINE = withStroke(linewidth=2, foreground="w")
MARGIN = 20.0  # px round the tracks, where no frame is shown


def tracks(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """The way of every dislocation, coloured by time, over the mean of the movie where its frames are at hand."""
    if not set(dataset.data_vars) >= NEEDED:
        return None
    axis = str(dataset["row"].dims[1])
    values = dataset[axis].values
    figure = Figure(figsize=(8.5, 7.5), layout="constrained")
    ax = figure.subplots()
    rows, columns = dataset["row"].values, dataset["column"].values
    image = _mean_frame(scan)
    if image is not None:
        low, high = np.nanpercentile(image, [1, 99.97])
        ax.imshow(image, cmap="gray", norm=PowerNorm(0.6, low, max(high, low + 1e-6)), interpolation="nearest")
        ax.autoscale(False)
    else:
        ax.set_xlim(np.nanmin(columns) - MARGIN, np.nanmax(columns) + MARGIN)
        ax.set_ylim(np.nanmax(rows) + MARGIN, np.nanmin(rows) - MARGIN)
        ax.set_aspect("equal")
    drawn = None
    for n, number in enumerate(dataset["track"].values):
        at = np.flatnonzero(np.isfinite(rows[n]))
        points = np.stack([columns[n, at], rows[n, at]], -1)
        drawn = LineCollection(list(np.stack([points[:-1], points[1:]], 1)), array=values[at[:-1]], cmap="plasma", linewidths=1.8)
        drawn.set_clim(values.min(), values.max())
        ax.add_collection(drawn)
        ax.plot(*points[-1], "o", ms=2.5, color="C2")
        ax.annotate(str(number), points[-1], xytext=(5, -5), textcoords="offset points", fontsize=8, path_effects=[OUTLINE])
    if drawn is not None:
        figure.colorbar(drawn, ax=ax, fraction=0.04, label=_label(dataset, axis))
    ax.set_xlabel("column (px)")
    ax.set_ylabel("row (px)")
    ground = ", over the mean of the movie" if image is not None else ""
    ax.set_title(f"{dataset.sizes['track']} tracks{ground}", fontsize=10, loc="left")
    return figure


def positions(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Places along rows and columns against time: the band is one standard deviation, points are the frames alone."""
    if not set(dataset.data_vars) >= NEEDED:
        return None
    axis = str(dataset["row"].dims[1])
    values = dataset[axis].values
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for ax, name in zip(panels, ("row", "column"), strict=True):
        for n in range(min(dataset.sizes["track"], SHOWN)):
            place, std = dataset[name].values[n], dataset[f"{name}_std"].values[n]
            start = place[np.isfinite(place)][0]
            shared = (dataset["flag"].values[n] & OVERLAPPED) > 0
            colour, label = f"C{n % 10}", str(dataset["track"].values[n])
            ax.fill_between(values, place - start - std, place - start + std, color=colour, alpha=0.3, lw=0)
            ax.plot(values, np.where(shared, np.nan, place - start), "-" if n < 10 else "--", lw=1, color=colour, label=label)
            ax.plot(values, np.where(shared, place - start, np.nan), ":", lw=1.4, color=colour)
            measured = dataset[f"measured_{name}"].values[n] - start
            ax.plot(values, measured, ".", ms=2.5, color=colour)
        ax.axhline(0, color="0.7", lw=0.6)
        ax.set_ylabel(f"{name} from its first (px)")
        ax.tick_params(labelsize=8)
    panels[1].set_xlabel(_label(dataset, axis))
    said = "smoothed places with one standard deviation; points: single frames; dotted: overlapping images"
    panels[0].set_title(said, fontsize=9, loc="left")
    figure.legend(*panels[0].get_legend_handles_labels(), title="track", fontsize=7, title_fontsize=8, loc="outside right center")
    return figure


def displacements(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Mean square displacement against the time between two places, both logarithmic, beside diffusion and steady motion."""
    if not set(dataset.data_vars) >= NEEDED:
        return None
    figure = Figure(figsize=(7.5, 5.5), layout="constrained")
    ax = figure.subplots()
    lag, msd, std = dataset["lag"].values, dataset["msd"].values, dataset["msd_std"].values
    for n in range(min(dataset.sizes["track"], SHOWN)):
        good = (msd[n] > 0) & np.isfinite(std[n])
        if good.sum() < 2:
            continue
        low = np.minimum(std[n], 0.9 * np.maximum(msd[n], 0))  # a bar to zero has no end on this scale
        ax.errorbar(lag[good], msd[n][good], yerr=[low[good], std[n][good]], fmt="o-" if n < 10 else "s--", ms=3, lw=0.8,
                    elinewidth=0.6, label=str(dataset["track"].values[n]))  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlim(0.85 * lag[0], 1.35 * lag[-1])
    ax.set_yscale("log")
    _slopes(ax, lag, msd)
    unit = str(dataset["msd"].attrs["units"]).replace("^2", "²")
    ax.set_xlabel(f"lag ({dataset['lag'].attrs.get('units', '')})")
    ax.set_ylabel(f"mean square displacement ({unit})")
    ax.tick_params(labelsize=8)
    for name in (ax.xaxis, ax.yaxis):
        name.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.legend(title="track", fontsize=7, title_fontsize=8, loc="outside right center")
    return figure


def _slopes(ax: Axes, lag: np.ndarray, msd: np.ndarray) -> None:
    """Lines of a random walk and of steady motion through the middle of the displacements at the first lag."""
    first = msd[:, 0][msd[:, 0] > 0]
    if not first.size:
        return
    start = float(np.median(first))
    for power, style, text in ((1, "--", "2 D t"), (2, ":", "(v t)²")):
        line = start * (lag / lag[0]) ** power
        ax.plot(lag, line, style, color="0.4", lw=1)
        ax.annotate(text, (lag[-1], line[-1]), xytext=(4, 0), textcoords="offset points", fontsize=8, color="0.3", va="center")


def _label(dataset: xr.Dataset, axis: str) -> str:
    unit = str(dataset[axis].attrs.get("units", ""))
    return f"{axis} ({unit})" if unit else axis


def _mean_frame(scan: Any) -> np.ndarray | None:
    """Mean of the frames, where there is a scan with frames."""
    if scan is None or not hasattr(scan, "batches"):
        return None
    total, count = np.zeros(scan.frame_shape), 0
    for batch in scan.batches():
        total += batch.frames.sum(0, dtype=float)
        count += len(batch)
    return total / count if count else None
