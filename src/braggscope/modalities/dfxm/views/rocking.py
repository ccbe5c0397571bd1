"""Pictures of DFXM maps and of the frames they come from.

A view takes a map and, where it needs frames, the scan; it gives a figure, or None where it has not what it needs.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from braggscope.core.estimator import motor_positions
from braggscope.core.maps import quantity_names
from braggscope.plot.colour_key import draw_key, key_colours
from braggscope.plot.panels import maps_figure

from .scales import spanned

CURVES = 4  # pixels whose curves are shown
SIGNED_ENDS = ("_skewness", "_kurtosis", "_covariance")
SIGNED_STARTS = ("strain", "rotation_", "mesoscale", "edges", "weak_minus", "weak_plus", "dislocation_density_")


def motors_of(dataset: xr.Dataset) -> list[str]:
    """The motors that a map has moments of."""
    return [n for n in quantity_names(dataset) if f"{n}_width" in dataset]


def overview(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Every quantity of the pixels beside its standard deviation, and the flags.

    Of a volume, the middle layer. Quantities over other dimensions (tables, curves, levels) have views of their own; None for a
    map with nothing over pixels.
    """
    over, where = dataset["flag"].dims, ""
    if len(over) == 3:
        layer = dataset.sizes[over[0]] // 2
        dataset, where = dataset.isel({over[0]: layer}), f", {over[0]} {layer + 1} of {dataset.sizes[over[0]]}"
        over = over[1:]
    names = [n for n in quantity_names(dataset) if dataset[n].dims == over and n != "reduced_deviance"]
    if len(over) != 2 or not names:
        return None
    signed = tuple(n for n in names if n.endswith(SIGNED_ENDS) or n.startswith(SIGNED_STARTS))
    return maps_figure(dataset, names, signed=signed, title=_title(dataset) + where)


def _title(dataset: xr.Dataset) -> str:
    """What the map is of."""
    method = str(dataset.attrs.get("method", "moments")).replace("_", " ")
    return "moments of the rocking curves" if method == "moments" else f"{method}: every quantity of the pixels"


def mosaicity(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Mean positions of two motors as one colour per pixel, with the key beside.

    None for a scan of one motor and for a volume. Pixels without signal are grey. The key spans the 2nd to 98th percentile of
    each motor.
    """
    motors = motors_of(dataset)
    if len(motors) < 2 or dataset[motors[0]].ndim != 2:
        return None
    y, x = motors[:2]
    ranges = spanned(dataset[y].values), spanned(dataset[x].values)
    colours = key_colours(dataset[y].values, dataset[x].values, *ranges)
    figure = Figure(figsize=(9, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.4))
    left.imshow(colours, interpolation="nearest")
    left.set_xlabel("column (px)")
    left.set_ylabel("row (px)")
    left.set_title(f"mean {y} and {x} of each pixel (grey: no signal)")
    labels = [f"{name} ({dataset[name].attrs['units']})" if dataset[name].attrs["units"] else name for name in (y, x)]
    draw_key(right, ranges[0], ranges[1], labels[0], labels[1], dataset[y].values, dataset[x].values)
    return figure


def rocking_curves(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Total intensity, and the curves of some pixels with pedestal, mean and width marked.

    None without the scan and for a map without positions of its motors. The pixels are spread over the range of the total; over
    several motors, the curve is the mean over the others.
    """
    if scan is None or "total" not in dataset or dataset["total"].ndim != 2 or not motors_of(dataset):
        return None
    motors, at = motors_of(dataset), _spread_pixels(dataset)
    curves = _curves(scan, at)
    positions = motor_positions(scan)
    figure = Figure(figsize=(4.2 * (1 + len(motors)), 2.3 * len(at)), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.3, len(motors)))[0]
    image = left.subplots()
    image.imshow(dataset["total"].values, interpolation="nearest", cmap="viridis", vmin=0)
    image.set_title("total above the pedestal (count)")
    image.set_xlabel("column (px)")
    image.set_ylabel("row (px)")
    axes = right.subplots(len(at), len(motors), squeeze=False)
    for n, (row, column) in enumerate(at):
        image.plot(column, row, "o", mfc="none", mec=f"C{n + 1}", ms=9, mew=2)
        for ax, motor in zip(axes[n], motors, strict=True):
            curve = _along(scan, motor, positions[motor]), _along(scan, motor, curves[:, n])
            _curve_panel(ax, dataset.isel(row=row, column=column), motor, *curve, f"C{n + 1}")
            ax.set_ylabel("count" if len(motors) == 1 else "mean count", fontsize=7)
            ax.set_title(f"row {row}, column {column}", fontsize=8)
    for ax, motor in zip(axes[-1], motors, strict=True):
        ax.set_xlabel(f"{motor} ({dataset[motor].attrs['units']})")
    return figure


def _along(scan: Any, motor: str, values: np.ndarray) -> np.ndarray:
    """Mean of what is known at the points (flat grid position) over all scan axes but the motor's, shape (position,)."""
    axis = [str(name) for name in scan.grid.dims].index(motor)
    by_position = np.moveaxis(values.reshape(scan.shape), axis, 0).reshape(scan.shape[axis], -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a position without any count: NaN
        return np.asarray(np.nanmean(by_position, axis=1))


def _curve_panel(ax: Any, pixel: xr.Dataset, motor: str, positions: np.ndarray, curve: np.ndarray, colour: str) -> None:
    """One curve with the pedestal, mean and width of its pixel."""
    order = np.argsort(positions, kind="stable")
    ax.plot(positions[order], curve[order], ".-", color=colour, ms=3, lw=0.8)
    ax.axhline(float(pixel["pedestal"]), color="0.4", lw=0.8, ls="--")
    mean, width = float(pixel[motor]), float(pixel[f"{motor}_width"])
    if np.isfinite(mean):
        ax.axvline(mean, color="k", lw=0.8)
    if np.isfinite(mean) and np.isfinite(width):
        ax.axvspan(mean - width, mean + width, color="0.85", zorder=0)
    ax.tick_params(labelsize=7)


def _spread_pixels(dataset: xr.Dataset) -> list[tuple[int, int]]:
    """Pixels at the top, two thirds, one third and the bottom of the total."""
    total = np.where(np.isfinite(dataset["total"].values), dataset["total"].values, -np.inf)
    order = np.argsort(total.ravel())[::-1]
    order = order[np.isfinite(total.ravel()[order])]
    chosen = order[np.unique(np.linspace(0.001, 0.97, CURVES) * (len(order) - 1)).astype(int)] if len(order) else order
    return [(int(i), int(j)) for i, j in zip(*np.unravel_index(chosen, total.shape), strict=True)]


def _curves(scan: Any, at: list[tuple[int, int]]) -> np.ndarray:
    """Counts of some pixels at each point of the scan, NaN where there is none that may be used; shape (point, pixel)."""
    curves = np.full((int(np.prod(scan.shape)), len(at)), np.nan)
    rows, columns = (np.array([p[i] for p in at], int) for i in (0, 1))
    for batch in scan.batches():
        counts = batch.frames[:, rows, columns]
        curves[batch.index] = counts if batch.mask is None else np.where(batch.mask[:, rows, columns], counts, np.nan)
    return curves
