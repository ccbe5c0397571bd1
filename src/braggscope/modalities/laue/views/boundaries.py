"""Boundaries of grains: how their misorientations are distributed, and where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from braggscope.core.errors import InputError
from braggscope.plot.panels import colour_panel

from ..grain_maps import crystal_of_map
from ..misorientation import random_density
from .lines import between, places

BIN_DEG = 3.0
SIGMA_3_DEG = 15 / 3**0.5  # Brandon's limit
TWIN = "#d62728"


def boundaries(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Misorientation angles by length of boundary against those of random orientations, and the boundaries in their colours.

    Sigma 3 boundaries are red. None for what is no table of grains with orientations.
    """
    if "boundary" not in dataset.dims or "angle" not in dataset or not np.isfinite(dataset["angle"].values).any():
        return None
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    angles, picture = figure.subplots(1, 2, width_ratios=(1.1, 1))
    _draw_angles(angles, dataset)
    _draw_lines(figure, picture, dataset)
    return figure


def _draw_angles(ax: Any, dataset: xr.Dataset) -> None:
    """The histogram per degree, by length; error bars by the number of boundaries."""
    angle, length = dataset["angle"].values, dataset["length"].values
    known = np.isfinite(angle)
    angle, length, total = angle[known], length[known], length[known].sum()
    edges = np.arange(0, max(angle.max(), 63) + BIN_DEG, BIN_DEG)
    share, _ = np.histogram(angle, edges, weights=length / total / BIN_DEG)
    error = np.sqrt(np.histogram(angle, edges, weights=length**2)[0]) / total / BIN_DEG
    middle = (edges[1:] + edges[:-1]) / 2
    ax.bar(middle, share, 0.94 * BIN_DEG, color="0.8", label=f"{len(angle)} boundaries, {total:.3g} µm")
    if "from_sigma_3" in dataset:
        twin = dataset["from_sigma_3"].values[known] <= SIGMA_3_DEG
        of = np.histogram(angle[twin], edges, weights=length[twin] / total / BIN_DEG)[0]
        ax.bar(middle, of, 0.94 * BIN_DEG, color=TWIN, label=f"Σ3: {length[twin].sum() / total:.2g} of the length")
    ax.errorbar(middle, share, error, fmt="none", ecolor="0.45", lw=0.8)
    try:
        fine = np.linspace(0, edges[-1], 400)
        ax.plot(
            fine, random_density(fine, crystal_of_map(dataset).rotations), color="#1f77b4", lw=1.6, label="random orientations"
        )
    except InputError:
        pass  # without the crystal nothing is to be compared
    ax.set(xlabel="misorientation angle (deg)", ylabel="share of length per degree", xlim=(0, edges[-1]))
    ax.legend(fontsize=8, frameon=False, loc="upper left")
    mean, random = (float(dataset.attrs.get(n, np.nan)) for n in ("mean_angle_deg", "mean_angle_of_random_deg"))
    ax.set_title(f"mean {mean:.1f}°, of random orientations {random:.1f}°", fontsize=9, loc="left")


def _draw_lines(figure: Figure, ax: Any, dataset: xr.Dataset) -> None:
    """The boundaries in the colour of their angle."""
    number = dataset["number"]
    colour_panel(
        ax, np.where((number.values > 0)[..., None], 1.0, 0.85) * np.ones(3), number, title="boundaries (grey: no grain)"
    )
    lines, pairs = between(number.values, *places(number))
    if not len(lines):
        return
    rows = {
        (int(a), int(b)): i for i, (a, b) in enumerate(zip(dataset["grain_a"].values, dataset["grain_b"].values, strict=True))
    }
    which = np.array([rows[min(a, b), max(a, b)] for a, b in pairs.tolist()])
    drawn = LineCollection(list(lines), array=dataset["angle"].values[which], cmap="viridis_r", linewidths=1.2)
    drawn.set_clim(0, float(np.nanmax(dataset["angle"].values)))
    ax.add_collection(drawn)
    if "from_sigma_3" in dataset:
        twin = dataset["from_sigma_3"].values[which] <= SIGMA_3_DEG
        ax.add_collection(LineCollection(list(lines[twin]), colors=TWIN, linewidths=1.8))
    figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.03, label="misorientation (deg); red: Σ3")
