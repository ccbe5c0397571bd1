"""Pictures of an image at several scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from braggscope.plot.panels import flag_panel, image_panel

PARTS = ("illumination", "mesoscale", "edges")


def scales(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """The image, its illumination, mesoscale and edges, which add up to it, and the details of each level."""
    if not {"image", *PARTS, "detail_diagonal"} <= set(dataset.data_vars):
        return None
    levels = dataset.sizes["level"]
    columns = max(5, levels)
    figure = Figure(figsize=(3.4 * columns, 6.0), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for ax, name in zip(axes[0], ("image", *PARTS), strict=False):
        image_panel(ax, dataset[name], signed=name in ("mesoscale", "edges"))
    for ax in axes[0, 5:]:
        ax.axis("off")
    flag_panel(axes[0, 4], dataset)
    details = dataset["detail_horizontal"] + dataset["detail_vertical"] + dataset["detail_diagonal"]
    for n, ax in enumerate(axes[1]):
        if n >= levels:
            ax.axis("off")
            continue
        low, high = (1, 2) if n == 0 else (2**n, 2 ** (n + 1))
        image_panel(ax, details.isel(level=n, drop=True).assign_attrs(units=dataset["image"].attrs["units"]), signed=True,
                    title=f"level {n + 1}: {low} to {high} px")  # fmt: skip
    attrs = dataset.attrs
    figure.suptitle(
        f"{dataset['image'].attrs['long_name']}: {attrs['wavelet']}, {attrs['transform']}, {levels} levels", fontsize=10
    )
    return figure


def scales_of_frames(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """How strong illumination, mesoscale and edges are in each pixel over all frames, and in each frame over all pixels."""
    if not {f"{name}_of_frame" for name in PARTS} <= set(dataset.data_vars):
        return None
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    top, bottom = figure.subplots(2, 3)
    for name, above, below in zip(PARTS, top, bottom, strict=True):
        image_panel(above, dataset[f"{name}_rms"])
        curve = dataset[f"{name}_of_frame"]
        if curve.ndim > 2:
            curve = curve.mean(str(curve.dims[0])).assign_attrs(curve.attrs)
        image_panel(below, curve)
        if curve.ndim == 1:
            below.set_ylabel("root mean square (count)")
            below.set_ylim(0, float(np.nanmax(curve)) * 1.05 or 1)
    return figure
