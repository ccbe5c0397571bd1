"""Pictures of axial strain."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from braggscope.plot.panels import flag_panel, image_panel

from .scales import rows_over_columns


def strain(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Axial strain, its error, their distributions and the flags.

    None for a map without strain. Red is expansion, blue compression, white the reference.
    """
    if "strain" not in dataset or dataset["strain"].dims != ("row", "column"):
        return None
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    (map_, error), (spread, flags) = figure.subplots(2, 2)
    image_panel(map_, dataset["strain"], signed=True, title="axial strain (positive: expansion)")
    if "strain_std" in dataset:
        image_panel(error, dataset["strain_std"], title="standard deviation of strain")
    else:
        error.axis("off")
    _distribution(spread, dataset)
    flag_panel(flags, dataset)
    for ax in (map_, error, flags):
        ax.set_aspect(rows_over_columns(dataset))
    figure.suptitle(str(dataset.attrs.get("caution", "")), fontsize=8)
    return figure


def _distribution(ax: Any, dataset: xr.Dataset) -> None:
    """How the strain is distributed, and how its typical error would be."""
    values = dataset["strain"].values[np.isfinite(dataset["strain"].values)] * 1e4
    if values.size:
        low, high = np.percentile(values, [0.5, 99.5])
        ax.hist(values, bins=60, range=(low, high) if high > low else None, color="0.6", density=True, label="pixels")
    if "strain_std" in dataset and values.size:
        width = float(np.nanmedian(dataset["strain_std"])) * 1e4
        left, right = (float(edge) for edge in ax.get_xlim())
        x = np.linspace(left, right, 200)
        middle = float(np.median(values))
        ax.plot(x, np.exp(-(((x - middle) / width) ** 2) / 2) / width / np.sqrt(2 * np.pi), "C3", label="typical error")
    unit = dataset.attrs.get("reference_unit", "")
    if "reference" in dataset.attrs:
        source = dataset.attrs.get("reference_from", "given")
        ax.set_title(f"reference {float(dataset.attrs['reference']):.6g} {unit}, {source}", fontsize=8, loc="left")
    ax.set_xlabel("strain (1e-4)")
    ax.set_ylabel("density")
    ax.legend(fontsize=7)
    ax.tick_params(labelsize=7)
