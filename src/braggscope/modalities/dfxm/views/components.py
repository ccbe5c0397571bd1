"""Pictures of components: the maps with their curves, and how many there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from braggscope.plot.panels import flag_panel, image_panel


def separated(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Each component: what every pixel holds of it, and its rocking curve, whose band is one standard deviation."""
    if "mixing" not in dataset or "curve" not in dataset:
        return None
    number = dataset.sizes["component"]
    signed = dataset.attrs.get("separation") == "pca"
    figure = Figure(figsize=(9.5, 2.5 * number + 0.4), layout="constrained")
    axes = figure.subplots(number, 2, squeeze=False, width_ratios=(1.5, 1))
    for n, (left, right) in enumerate(axes):
        one = dataset.isel(component=n)
        image_panel(left, one["mixing"], signed=signed, title=f"component {n + 1} (count), part {float(one['part']):.2g}")
        _curve_panel(right, one, signed, f"C{n}")
        if n < number - 1:
            left.set_xlabel("")
    kind = "variance" if signed else "counts"
    figure.suptitle(
        f"{dataset.attrs.get('separation', 'components')}: maps and rocking curves, by their part of the {kind}", fontsize=10
    )
    return figure


def scree(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """How strong each direction of the scan is beside the noise, how much so many components leave, and the number chosen."""
    if "eigenvalue" not in dataset or "residual" not in dataset:
        return None
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    (first, second), (third, fourth) = figure.subplots(2, 2)
    candidate, chosen = dataset["candidate"].values, int(dataset.attrs["count"])
    edge, by = float(dataset.attrs["noise_edge"]), dataset.attrs["count_by"]
    values = np.maximum(dataset["eigenvalue"].values, 1e-3)
    first.semilogy(candidate, values, ".-", color="C0", label="mean square along each direction")
    rest = dataset["rest"].values
    first.semilogy(candidate[:-1], np.maximum(rest[:-1], 1e-3), "-", color="C1", lw=1, label="left with so many components")
    first.axhline(edge, color="0.4", ls="--", lw=0.8, label=f"largest that noise gives ({edge:.3g})")
    first.set_ylabel("in units of the noise")
    second.plot(candidate, 100 * dataset["explained"].values, ".-", color="C2")
    second.set_ylabel("explained of what is above the noise (%)")
    for ax in (first, second):
        ax.axvline(chosen, color="k", lw=0.8, label=f"chosen: {chosen} ({by})")
        ax.set_xlabel("number of components")
        ax.tick_params(labelsize=7)
    first.legend(fontsize=7)
    image_panel(third, dataset["reduced_deviance"], title="reduced deviance (1 = as expected)")
    flag_panel(fourth, dataset)
    return figure


def _curve_panel(ax: Axes, one: xr.Dataset, signed: bool, colour: str) -> None:
    """The rocking curve of one component: a line over one motor, an image over two, and their projection over three."""
    curve, motors = one["curve"], [str(d) for d in one["curve"].dims]
    if len(motors) > 2:
        curve = curve.sum(motors[0], min_count=1)
    label = {m: f"{m} ({one[m].attrs['units']})" if one[m].attrs.get("units") else m for m in motors}
    if len(motors) == 1:
        x, y, error = one[motors[0]].values, curve.values, one["curve_std"].values
        ax.fill_between(x, y - error, y + error, color=colour, alpha=0.3, lw=0)
        ax.plot(x, y, ".-", ms=3, lw=0.8, color=colour)
        ax.axhline(0, color="0.6", lw=0.6)
        ax.set_xlabel(label[motors[0]])
        ax.set_ylabel("part per point", fontsize=8)
        mean, width = float(one[f"{motors[0]}_mean"]), float(one[f"{motors[0]}_width"])
        ax.set_title(f"mean {mean:.5g}, width {width:.2g} {one[motors[0]].attrs.get('units', '')}", fontsize=9, loc="left")
    else:
        image_panel(ax, curve, signed=signed, title="rocking curve" if len(motors) == 2 else f"summed over {motors[0]}")
    ax.tick_params(labelsize=7)
