"""Pictures of the deformation gradient and of the sensitivity of reflections to it.

A view takes a map or a table; it gives a figure, or None where the dataset is not of its kind.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from braggscope.plot.panels import flag_panel, image_panel

from ..oblique.component_names import COMPONENTS, STRAINS


def deformation_gradient(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """The nine components of F - 1 on one scale, and beside them their standard deviations.

    None for a map without F.
    """
    if "F_xx" not in dataset:
        return None
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False)[0]
    values = {c: dataset[f"F_{c}"] - (1.0 if c[0] == c[1] else 0.0) for c in COMPONENTS}
    reach = _reach(list(values.values()))
    spread = _reach([dataset[f"F_{c}_std"] for c in COMPONENTS])
    for part, what in ((left, "F - 1"), (right, "standard deviation of F")):
        part.suptitle(what)
        axes = part.subplots(3, 3, sharex=True, sharey=True)
        for ax, c in zip(axes.ravel(), COMPONENTS, strict=True):
            shown = values[c] if part is left else dataset[f"F_{c}_std"]
            picture = _image(
                ax, shown, (-reach, reach) if part is left else (0.0, spread), "RdBu_r" if part is left else "viridis"
            )
            ax.set_title(c, fontsize=9, loc="left")
        for ax in axes[-1]:
            ax.set_xlabel("x (um)")
        for ax in axes[:, 0]:
            ax.set_ylabel("y (um)")
        bar = part.colorbar(picture, ax=axes, shrink=0.6, pad=0.02)
        bar.formatter.set_powerlimits((-3, 4))
    return figure


def strain_and_rotation(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Biot strain, lattice rotation, the goodness of the regression where there is one, and the flags.

    None for a map without these.
    """
    if "strain_yz" not in dataset or "rotation_x" not in dataset:
        return None
    figure = Figure(figsize=(12, 11.5), layout="constrained")
    axes = figure.subplots(4, 3)
    for row, names in enumerate([STRAINS[:3], STRAINS[3:]]):
        for ax, c in zip(axes[row], names, strict=True):
            image_panel(ax, dataset[f"strain_{c}"], signed=True)
    for ax, c in zip(axes[2], "xyz", strict=True):
        image_panel(ax, dataset[f"rotation_{c}"], signed=True)
    if "reduced_deviance" in dataset:
        image_panel(axes[3, 0], dataset["reduced_deviance"], title="reduced deviance")
    else:
        axes[3, 0].axis("off")
    flag_panel(axes[3, 1], dataset)
    axes[3, 2].axis("off")
    return figure


def dislocation_density(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Burgers vector per area of the lit plane: each component, and how far it stands out of its standard deviation.

    None for a map without it.
    """
    if "dislocation_density_x" not in dataset:
        return None
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    axes = figure.subplots(2, 3)
    for column, c in enumerate("xyz"):
        name = f"dislocation_density_{c}"
        image_panel(axes[0, column], dataset[name], signed=True)
        score = (dataset[name] / dataset[f"{name}_std"]).rename(name)
        _image(axes[1, column], score, (-6.0, 6.0), "RdBu_r", bar=True)
        axes[1, column].set_title(f"{c}: in standard deviations", fontsize=9, loc="left")
        axes[1, column].set_xlabel("x (um)")
    axes[1, 0].set_ylabel("y (um)")
    burgers = [dataset.attrs.get(f"burgers_{c}_nm") for c in "xyz"]
    if None not in burgers:
        spread = [dataset.attrs[f"burgers_{c}_nm_std"] for c in "xyz"]
        words = ", ".join(f"{c} {v:.4f} +- {s:.4f}" for c, v, s in zip("xyz", burgers, spread, strict=True))
        figure.suptitle(f"Burgers vector of the circuit: {words} nm", fontsize=10)
    return figure


def sensitivity(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """What every observable tells of every component of F, and the errors of the components with all reflections and without one.

    None for what is no table of the analysis `sensitivity`.
    """
    if "derivative" not in dataset or "error_without" not in dataset:
        return None
    figure = Figure(figsize=(13, 1.8 + 0.32 * dataset["derivative"].sizes["reflection"] * 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    table = dataset["derivative"].values.reshape(-1, 9)
    rows = [f"{r}: {o}" for r in dataset["reflection"].values for o in dataset["observable"].values]
    reach = np.abs(table).max()
    _table(left, table, rows, "RdBu_r", (-reach, reach), "{:.1f}")
    left.set_title(
        f"derivative of the observable by the component ({dataset['derivative'].attrs['units']})", fontsize=9, loc="left"
    )
    errors = np.vstack([dataset["error"].values, dataset["error_without"].values])
    names = ["all reflections", *(f"without {r}" for r in dataset["reflection"].values)]
    finite = np.where(np.isfinite(errors), errors, np.nan)
    _table(right, np.log10(finite), names, "viridis", (np.nanmin(np.log10(finite)), np.nanmax(np.log10(finite))), "", finite)
    right.set_title("standard deviation of the component", fontsize=9, loc="left")
    figure.suptitle(f"condition number {dataset.attrs['condition_number']:.3g}", fontsize=10)
    return figure


def _table(
    ax: Axes, values: np.ndarray, rows: list[str], colours: str, limits: tuple[float, float], form: str, shown: Any = None
) -> None:
    """A table as coloured cells with their numbers.  shown: What is written, instead of the values that give the colour."""
    ax.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1] if limits[1] > limits[0] else limits[0] + 1, aspect="auto")
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_xticks(range(9), COMPONENTS)
    middle = (limits[0] + limits[1]) / 2
    for (i, j), value in np.ndenumerate(values):
        text = form.format(value) if shown is None else "none" if np.isnan(shown[i, j]) else f"{shown[i, j]:.1e}"
        dark = abs(value) > 0.6 * limits[1] if shown is None else value < middle
        ax.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")


def _image(ax: Axes, values: xr.DataArray, limits: tuple[float, float], colours: str, *, bar: bool = False) -> Any:
    """A map over x and y with given limits."""
    x, y = values["x"].values, values["y"].values
    half = (x[1] - x[0]) / 2
    extent = (x[0] - half, x[-1] + half, y[0] - half, y[-1] + half)
    shown = ax.imshow(
        values.values, origin="lower", extent=extent, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest"
    )
    ax.tick_params(labelsize=7)
    if bar:
        ax.figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03).ax.tick_params(labelsize=7)
    return shown


def _reach(variables: list[xr.DataArray]) -> float:
    """The 99th percentile of what is finite in these, never 0."""
    found = np.concatenate([np.abs(v.values[np.isfinite(v.values)]) for v in variables])
    return float(np.percentile(found, 99)) or 1.0 if found.size else 1.0
