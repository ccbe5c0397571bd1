"""Picture of a Burgers vector found by the tilts around a dislocation."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from .scales import rows_over_columns

MOST = 12  # characters that are named
CLASSES = ("none", "rocking", "rolling", "both alike", "both opposite")
COLOURS = ("#eeeeee", "#4c78a8", "#f2a541", "#54a24b", "#b05cc6")


def burgers(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Tilts, measured and of the best character, how probable each character is, and the shapes of the curves.

    None for what is no result of the analysis `burgers`.
    """
    if "rock_model" not in dataset or "probability" not in dataset:
        return None
    figure = Figure(figsize=(13, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    for k, name in enumerate(("rock", "roll")):
        shown = dataset[f"{name}_model"].values
        top = 1e3 * float(np.nanpercentile(np.abs(shown), 99)) if np.isfinite(shown).any() else 1.0
        for ax, of in ((axes[k, 0], name), (axes[k, 1], f"{name}_model")):
            image = ax.imshow(1e3 * dataset[of].values, cmap="RdBu_r", vmin=-top, vmax=top, interpolation="nearest")
            title = f"{name}, measured (mdeg)" if of == name else f"{name} of {dataset.attrs['best']}, in the ring (mdeg)"
            _panel(ax, dataset, title)
            figure.colorbar(image, ax=ax, shrink=0.8).ax.tick_params(labelsize=7)
    _probabilities(axes[0, 2], dataset)
    _shapes(axes[1, 2], dataset)
    amplitude, std = (float(dataset.attrs[n]) for n in ("amplitude_of_best", "amplitude_of_best_std"))
    b = " ".join(f"{float(v):.4f}" for v in str(dataset.attrs["burgers_nm"]).split())
    words = f"b = ({b}) nm, amplitude {amplitude:.3f} +- {std:.3f}; misfit {float(dataset.attrs['misfit']):.3g}"
    figure.suptitle(words + (f"\n{dataset.attrs['caution']}" if "caution" in dataset.attrs else ""), fontsize=9)
    return figure


def _panel(ax: Axes, dataset: xr.Dataset, title: str) -> None:
    """Title, aspect and the place of the best line."""
    ax.plot(float(dataset["line_column"][0]), float(dataset["line_row"][0]), "k+", ms=9)
    ax.set_aspect(rows_over_columns(dataset))
    ax.set_title(title, fontsize=8, loc="left")
    ax.set_xlabel("column", fontsize=8)
    ax.set_ylabel("row", fontsize=8)
    ax.tick_params(labelsize=7)


def _probabilities(ax: Axes, dataset: xr.Dataset) -> None:
    """chi2 of each character over that of the best, on a logarithmic scale, with its probability and amplitude beside it."""
    shown = dataset.isel(character=slice(0, MOST))
    ratio = shown["reduced_chi2"].values / shown["reduced_chi2"].values.min()
    places = np.arange(len(ratio))
    ax.barh(places, ratio, color=["#4c78a8"] + ["0.75"] * (len(ratio) - 1), left=0)
    ax.set_xscale("log")
    ax.set_xlim(0.8, 30 * max(ratio.max(), 1.3))
    for place, value, p, a in zip(places.tolist(), ratio, shown["probability"].values, shown["amplitude"].values, strict=True):
        ax.text(value * 1.08, place, f"p {p:.2g}, {a:+.2f} b", va="center", fontsize=6.5)
    ax.set_yticks(places, [str(n) for n in shown["character"].values], fontsize=7)
    ax.invert_yaxis()
    ax.tick_params(axis="x", labelsize=7)
    ax.set_title("chi$^2$ over that of the best, probability, amplitude", fontsize=8, loc="left")


def _shapes(ax: Axes, dataset: xr.Dataset) -> None:
    """Class of the excess covariance of the curves."""
    if "covariance_class" not in dataset:
        ax.axis("off")
        return
    ax.imshow(dataset["covariance_class"].values, cmap=ListedColormap(COLOURS), vmin=-0.5, vmax=4.5, interpolation="nearest")
    _panel(ax, dataset, "curve drawn out along")
    for colour, word in zip(COLOURS, CLASSES, strict=True):
        ax.plot([], [], "s", color=colour, label=word, markeredgecolor="0.5")
    ax.legend(fontsize=6.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
