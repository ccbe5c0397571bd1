"""Distributions of grain sizes, and what was fitted to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..distributions import probability

NAMES = {"along_x": "intercepts along x", "along_y": "intercepts along y", "by_area": "roots of areas"}


def grain_sizes(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Sizes along x, along y and by area with the fitted distributions; the preferred one is the thick line.

    None for what is no result of `sizes`.
    """
    if "measure" not in dataset.dims or "fit_of" not in dataset:
        return None
    figure = Figure(figsize=(11.5, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, (i, name) in zip(axes, enumerate(str(m) for m in dataset["measure"].values), strict=True):
        step = float(dataset[f"step_{name}"])
        number = dataset[f"number_{name}"].values
        ax.bar(dataset["points"].values * step, number, width=0.9 * step, color="0.8", label=f"{int(number.sum())} sizes")
        for k in np.flatnonzero((dataset["fit_of"].values == name) & np.isfinite(dataset["fit_aic"].values)):
            _draw_fit(ax, dataset, int(k), step, number.sum(), len(number))
        mean, error = float(dataset["mean"][i]), float(dataset["mean_std"][i])
        ax.axvline(mean, color="black", lw=0.8, ls=":")
        ax.set_title(f"{NAMES[name]}: mean {mean:.3g} ± {error:.1g} µm", fontsize=9, loc="left")
        ax.set_xlabel("size (µm)")
        ax.legend(fontsize=7, frameon=False)
        ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
        last = np.flatnonzero(number)
        ax.set_xlim(0, ((last[-1] if last.size else 1) + 2.5) * step)
        ax.tick_params(labelsize=7)
    axes[0].set_ylabel("number")
    return figure


def _draw_fit(ax: Any, dataset: xr.Dataset, k: int, step: float, total: float, most: int) -> None:
    """The expected numbers of one fitted distribution."""
    model = str(dataset["fit_distribution"].values[k])
    location, width = (float(dataset[f"fit_{n}"][k]) for n in ("location", "width"))
    scale = {"Poisson": (location, width), "log-normal": (location - np.log(step), width)}
    expected = total * probability(model, scale.get(model, (location / step, width / step)), most + 4)
    weight, p = float(dataset["fit_weight"][k]), float(dataset["fit_p_value"][k])
    words = model + (f", p = {p:.2g}" if np.isfinite(p) else "") + f", weight {weight:.2f}"
    n = np.arange(1, most + 4)
    ax.plot(n * step, expected[1:], "-", lw=2.2 if weight > 0.5 else 0.9, marker=".", ms=3, label=words)
