"""A pattern with its indexed spots: the places that each grain predicts, with indices."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy.ndimage import maximum_filter

from ..detector import detector_matrix, spots
from ..files.table import stated_geometry
from ..geometry import LaueGeometry
from ..patterns import deformed
from ..reflections import material, reflections_of
from .overview import pattern_figure

WRITTEN = 25  # indices that are written of one grain, lowest first; of many grains each has fewer
MARKS = "osD^vph8"  # circles first; grains of one colour differ in them
COLOURS = ("#4cc9ff", "#ffa62b", "#7cff6b", "#ff6f9c", "#ffe66d", "#c99bff", "#2ff5d4", "#ffffff")  # seen on black
DARK = [withStroke(linewidth=1.5, foreground="black")]  # around letters
STRAIN = (("xx", "xy", "xz"), ("xy", "yy", "yz"), ("xz", "yz", "zz"))


def indexed_pattern(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """The pattern with the spots of each grain: marks where a peak was matched, crosses where a spot is predicted and none was.

    Indices stand at the spots of low order; crosses are drawn for as many of the brightest planes as were matched. None for
    what is no result of `index`. Without the scan, spots alone.
    """
    if "spot_grain" not in dataset or "U" not in dataset:
        return None
    geometry = stated_geometry(dataset)
    frame = _frame(dataset, scan)
    figure = _empty_figure(dataset, geometry) if frame is None else pattern_figure(frame)
    ax = figure.axes[0]
    limits = ax.get_xlim(), ax.get_ylim()
    for i, number in enumerate(dataset["grain"].values):
        colour, mark = COLOURS[i % len(COLOURS)], MARKS[i // len(COLOURS) % len(MARKS)]
        _draw_grain(ax, dataset, int(number), colour, mark)
        if geometry is not None:
            _draw_missing(ax, dataset.isel(grain=i), dataset, geometry, colour, frame)
    ax.set(xlim=limits[0], ylim=limits[1])
    said = f"{dataset.attrs.get('explained', '?')} of {dataset.attrs.get('peaks', '?')} peaks explained"
    ax.set_title(f"{dataset.sizes['grain']} grain{'s' if dataset.sizes['grain'] != 1 else ''}, {said}", fontsize=9, loc="left")
    if dataset.sizes["grain"]:
        figure.legend(fontsize=7, loc="outside lower left", ncols=3, facecolor="0.15", labelcolor="white")
    return figure


def _draw_grain(ax: Axes, dataset: xr.Dataset, number: int, colour: Any, mark: str) -> None:
    """Marks and indices of the matched spots of a grain."""
    of = dataset["spot_grain"].values == number
    row = dataset["spot_row"].values[of] - dataset["spot_row_offset"].values[of]
    column = dataset["spot_column"].values[of] - dataset["spot_column_offset"].values[of]
    hkl = np.stack([dataset[f"spot_{n}"].values[of] for n in "hkl"], 1).astype(int)
    one = dataset.sel(grain=number)
    words = (
        f"{number}: {one['material'].values}, {int(one['matched'])} of {int(one['predicted'])}, {float(one['mean_px']):.2f} px"
    )
    ax.scatter(column, row, s=70, marker=mark, facecolors="none", edgecolors=[colour], linewidths=1.1, label=words)
    written = max(3, WRITTEN // dataset.sizes["grain"])
    for k in np.argsort((hkl**2).sum(1), kind="stable")[:written]:
        text = " ".join(f"{-v}\u0305" if v < 0 else str(v) for v in hkl[k])
        style: Any = {"fontsize": 6.5, "color": colour, "path_effects": DARK, "clip_on": True}
        ax.annotate(text, (column[k], row[k]), xytext=(5, 5), textcoords="offset points", **style)


def _draw_missing(
    ax: Axes, one: xr.Dataset, dataset: xr.Dataset, geometry: LaueGeometry, colour: Any, frame: np.ndarray | None
) -> None:
    """Crosses at predicted spots of the brightest planes that no peak was matched to, where the detector counts."""
    reflections = reflections_of(material(str(one["material"].values)), geometry)
    strain = np.nan_to_num([[float(one[f"strain_{n}"]) for n in line] for line in STRAIN])
    row, column, energy = spots(np.linalg.inv(detector_matrix(geometry)), reflections.q @ deformed(one["U"].values, strain).T)
    rows, columns = geometry.rows or 0, geometry.columns or 0
    inside = np.isfinite(row) & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    lit = reflections.shown(energy, geometry.energy_low_kev, geometry.energy_high_kev)
    if frame is not None:
        counted = maximum_filter(np.nan_to_num(frame), 5) > 0
        inside[inside] = counted[tuple(np.stack([row[inside], column[inside]]).astype(int))]
    bright = np.flatnonzero(inside & lit)[: int(one["matched"])]
    of = dataset["spot_grain"].values == int(one["grain"])
    matched = np.stack([dataset[n].values[of] - dataset[f"{n}_offset"].values[of] for n in ("spot_row", "spot_column")], 1)
    place = np.stack([row[bright], column[bright]], 1)
    far = np.array([np.hypot(*(matched - p).T).min(initial=np.inf) > 2 for p in place], bool)
    ax.scatter(place[far, 1], place[far, 0], s=28, marker="x", color=[colour], linewidths=0.8)


def _frame(dataset: xr.Dataset, scan: Any) -> np.ndarray | None:
    """The frame that was indexed, where the scan is there."""
    if scan is None:
        return None
    number = int(json.loads(str(dataset.attrs.get("options", "{}"))).get("frame", 0))
    only = np.arange(int(np.prod(scan.shape))) == number
    frame = next((one for batch in scan.batches(1, only=only) for one in batch.frames), None)
    return None if frame is None else frame.astype(float)


def _empty_figure(dataset: xr.Dataset, geometry: LaueGeometry | None) -> Figure:
    """Axes of the detector without a frame."""
    figure = Figure(figsize=(7, 7.4), layout="constrained")
    ax = figure.subplots()
    ax.set_facecolor("black")
    rows = geometry.rows if geometry is not None and geometry.rows else float(dataset["spot_row"].max()) + 1
    columns = geometry.columns if geometry is not None and geometry.columns else float(dataset["spot_column"].max()) + 1
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xlabel="column (px)", ylabel="row (px)", aspect="equal")
    return figure
