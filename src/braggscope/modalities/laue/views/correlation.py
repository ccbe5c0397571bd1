"""Two-point correlation of grains: curves with their widths, and the correlation in the plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure


def correlation(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Probability of the same grain against distance, with error bands and FWHM, and over displacements in the plane.

    None for what is no result of `two-point`.
    """
    if "same_grain" not in dataset or "along_x" not in dataset:
        return None
    figure = Figure(figsize=(10.5, 4.3), layout="constrained")
    curves, plane = figure.subplots(1, 2, width_ratios=(1.25, 1))
    distance = dataset["distance"].values
    for i, name in enumerate(str(n) for n in dataset["direction"].values):
        p, std = dataset[f"along_{name}"].values, dataset[f"along_{name}_std"].values
        width, error = float(dataset["fwhm"][i]), float(dataset["fwhm_std"][i])
        words = f"along {name.replace('deg', '°')}: FWHM " + (
            f"{width:.3g} ± {error:.1g} µm" if np.isfinite(width) else "not reached"
        )
        (line,) = curves.plot(distance, p, ".-", ms=4, lw=1.2, label=words)
        curves.fill_between(distance, p - std, p + std, color=line.get_color(), alpha=0.2, lw=0)
        if np.isfinite(width):
            curves.plot([width / 2] * 2, [0, 0.5], color=line.get_color(), lw=0.8, ls=":")
            curves.plot(width / 2, 0.5, "o", mfc="white", mec=line.get_color(), ms=5)
    curves.axhline(0.5, color="0.6", lw=0.6)
    curves.set(xlabel="distance (µm)", ylabel="probability of the same grain", ylim=(0, 1.02), xlim=(0, distance[-1]))
    curves.legend(fontsize=8, frameon=False)
    ratio, error = (float(dataset.attrs.get(n, np.nan)) for n in ("anisotropy", "anisotropy_std"))
    curves.set_title(f"FWHM along x over along y: {ratio:.3g} ± {error:.1g}", fontsize=9, loc="left")
    y, x, values = dataset["lag_y"].values, dataset["lag_x"].values, dataset["same_grain"].values
    shown = plane.pcolormesh(x, y, values, vmin=0, vmax=1, cmap="viridis", shading="nearest")
    if len(x) > 1 and len(y) > 1 and np.nanmin(values) < 0.5:
        plane.contour(x, y, values, levels=[0.5], colors="white", linewidths=1.2)
    plane.set(xlabel="displacement along x (µm)", ylabel="displacement along y (µm)", aspect="equal")
    plane.set_title("in the plane; white: 0.5", fontsize=9, loc="left")
    figure.colorbar(shown, ax=plane, fraction=0.046, pad=0.03)
    return figure
