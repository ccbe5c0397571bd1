"""Pictures of lattice rotations and misorientations."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from braggscope.plot.colour_key import draw_key, key_colours
from braggscope.plot.panels import flag_panel, image_panel

from .scales import rows_over_columns, spanned, without_layers


def orientation(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Lattice rotation of each pixel as one colour, with the key beside, and the error of the tilt.

    None for a map without rotations. The key spans the 2nd to 98th percentile of the rotations about y (rocking) and x (rolling).
    """
    if "rotation_x" not in dataset or "row" not in dataset.dims or "layer" in dataset.dims:
        return None
    y, x = dataset["rotation_y"].values, dataset["rotation_x"].values
    ranges = spanned(y), spanned(x)
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    image, key, error = figure.subplots(1, 3, width_ratios=(3, 1.6, 3))
    coloured(image, dataset, key_colours(y, x, *ranges))
    image.set_title("lattice rotation (grey: none)", fontsize=9, loc="left")
    draw_key(key, *ranges, "rotation about y, rocking (deg)", "rotation about x, rolling (deg)", y, x)
    if "tilt_std" in dataset:
        image_panel(error, dataset["tilt_std"], title="standard deviation of the tilt (deg)")
        error.set_aspect(rows_over_columns(dataset))
    else:
        error.axis("off")
    return figure


def misorientation(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Misorientation to the neighbours (kam) or to the reference (grod), its error and the flags.

    None for a map with neither.
    """
    name = next((n for n in ("kam", "grod") if n in dataset and dataset[n].dims == ("row", "column")), None)
    if name is None:
        return None
    title = {"kam": "kernel average misorientation (deg)", "grod": "misorientation to the reference (deg)"}[name]
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    axes = figure.subplots(1, 3)
    image_panel(axes[0], dataset[name], title=title)
    if f"{name}_std" in dataset:
        image_panel(axes[1], dataset[f"{name}_std"], title="its standard deviation (deg)")
    else:
        axes[1].axis("off")
    flag_panel(axes[2], dataset)
    for ax in axes:
        ax.set_aspect(rows_over_columns(dataset))
    return figure


def layers(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """The layers of a volume side by side, as colours of rotation or as the first quantity, on common scales.

    None for a map that is no volume. Of many layers, eight are shown.
    """
    if "layer" not in dataset.dims:
        return None
    count = dataset.sizes["layer"]
    shown = np.unique(np.linspace(0, count - 1, min(8, count)).astype(int))
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.1 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    name = str(next(iter(dataset.data_vars)))
    rotated = "rotation_x" in dataset
    ranges = [spanned(dataset[n].values) for n in (("rotation_y", "rotation_x") if rotated else (name, name))]
    for ax, n in zip(axes, shown, strict=False):
        layer = without_layers(dataset, int(n))
        if rotated:
            coloured(ax, layer, key_colours(layer["rotation_y"].values, layer["rotation_x"].values, *ranges))
        else:
            image = ax.imshow(layer[name].values, vmin=ranges[0][0], vmax=ranges[0][1], interpolation="nearest")
            figure.colorbar(image, ax=ax, fraction=0.046)
        ax.set_title(_layer_title(dataset, int(n)), fontsize=8, loc="left")
        ax.set_aspect(rows_over_columns(dataset))
    for ax in axes[len(shown) :]:
        ax.axis("off")
    unit = str(dataset[name].attrs["units"])
    words = str(dataset[name].attrs["long_name"]) + (f" ({unit})" if unit not in ("", "1") else "")
    figure.suptitle("lattice rotation" if rotated else words, fontsize=10)
    return figure


def coloured(ax: Axes, dataset: xr.Dataset, colours: np.ndarray) -> None:
    """A colour picture of the pixels, in the proportions of the sample where they are known."""
    ax.imshow(colours, interpolation="nearest", aspect=rows_over_columns(dataset))
    ax.set_xlabel("column (px)")
    ax.set_ylabel("row (px)")
    ax.tick_params(labelsize=7)


def _layer_title(dataset: xr.Dataset, n: int) -> str:
    """Place, shift and correlation of a layer."""
    unit = dataset["layer"].attrs.get("units", "1")
    words = f"layer {n + 1}" + (f", {float(dataset['layer'][n]):g} um" if unit == "um" else "")
    if "shift_row" in dataset.coords and n > 0:
        shift = f"{float(dataset['shift_row'][n]):.1f}, {float(dataset['shift_column'][n]):.1f}"
        words += f"; shift {shift} px, correlation {float(dataset['correlation'][n]):.2f}"
    return words
