"""Pictures of nanobeam maps: the maps with their errors, frames beside their model, the pupil.

A view takes a map and, where it shows frames, the scan it was made from; without what it needs it gives None. Views never show or
save a figure.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy.special import xlogy

from braggscope.core.errors import InputError
from braggscope.core.maps import quantity_names
from braggscope.plot.panels import maps_figure

from .forward import NanobeamForward
from .geometry import NanobeamGeometry
from .pupil import load_pupil

if TYPE_CHECKING:
    from braggscope.core.scan import Scan

SIGNED = ("strain", "omega", "chi")


def overview(dataset: xr.Dataset, scan: Scan | None = None) -> Figure | None:
    """Every quantity, beside its standard deviation where the method gives one, then goodness of fit and flags."""
    title = f"nanobeam, {dataset.attrs['method']}" if "method" in dataset.attrs else "nanobeam"
    if "reduced_deviance" in dataset.attrs:
        title += f"; reduced deviance of the scan {float(dataset.attrs['reduced_deviance']):.4f}"
    return maps_figure(dataset, signed=tuple(n for n in SIGNED if n in dataset), title=title)


def frame(dataset: xr.Dataset, scan: Scan | None = None) -> Figure | None:
    """Frames beside their models and residuals: the best fitted, the median and the worst by deviance."""
    geometry = geometry_of(dataset, scan)
    needed = ("strain", "omega", "chi", "scale", "background")
    if scan is None or geometry is None or any(name not in dataset for name in needed):
        return None
    chosen = _examples(dataset)
    if not chosen:
        return None
    figure = Figure(figsize=(9.5, 3.0 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), 3, squeeze=False)
    for row, (label, position) in zip(axes, chosen.items(), strict=True):
        counts = np.asarray(scan.frame(position), np.float64)
        mean = _model(dataset, geometry, position, (counts.shape[0], counts.shape[1]))
        _frame_row(row, counts, mean, f"{label}: {_place(dataset, position)}")
    return figure


def pupil(dataset: xr.Dataset, scan: Scan | None = None) -> Figure | None:
    """The measured pupil that the map was made with, as the detector sees it, and its profiles."""
    geometry = geometry_of(dataset, scan)
    if geometry is None or geometry.pupil_file is None:
        return None
    try:
        image, step = load_pupil(geometry.pupil_file)
    except InputError:  # the map may have come without its pupil file
        return None
    half = [n * step / 2 for n in image.shape]
    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = left.imshow(image, extent=(-half[1], half[1], half[0], -half[0]), cmap="magma", vmin=0)
    figure.colorbar(shown, ax=left, label="transmission (1 = mean of the open part)")
    for radius in geometry.ring_radii_px:
        angle = np.linspace(0, 2 * np.pi, 200)
        left.plot(radius * np.cos(angle), radius * np.sin(angle), "c:", lw=0.7)
    left.set(xlabel="column from the beam centre (px)", ylabel="row from the beam centre (px)", title="pupil")
    for axis, name in ((0, "along rows"), (1, "along columns")):
        at = (np.arange(image.shape[axis]) - (image.shape[axis] - 1) / 2) * step
        band = image.take(range(image.shape[1 - axis] // 2 - 4, image.shape[1 - axis] // 2 + 4), axis=1 - axis)
        right.plot(at, band.mean(1 - axis), lw=1, label=name)
    right.set(xlabel="from the beam centre (px)", ylabel="transmission", title="profiles through the centre")
    right.legend(fontsize=8)
    return figure


def geometry_of(dataset: xr.Dataset, scan: Scan | None = None) -> NanobeamGeometry | None:
    """The geometry that a map says it was made with, else that of the scan, else None."""
    stated: Any = dataset.attrs.get("geometry")
    if isinstance(stated, str):
        try:
            stated = json.loads(stated)
        except ValueError:
            stated = None
    if isinstance(stated, Mapping):
        known = {f.name for f in dataclasses.fields(NanobeamGeometry)}
        return NanobeamGeometry.from_mapping({k: v for k, v in stated.items() if k in known}, where="geometry of the map")
    found = scan.geometry if scan is not None else None
    return found if isinstance(found, NanobeamGeometry) else None


def _examples(dataset: xr.Dataset) -> dict[str, int]:
    """Flat positions of the frames to show, by what they are examples of."""
    order = dataset["reduced_deviance"] if "reduced_deviance" in dataset else dataset["scale"]
    fitted = np.isfinite(np.stack([dataset[name].values.ravel() for name in quantity_names(dataset)])).all(0)
    known = np.flatnonzero(fitted)
    ranked = known[np.argsort(order.values.ravel()[known], kind="stable")]
    if not len(ranked):
        return {}
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    return {label: int(position) for label, position in chosen.items()} if len(ranked) > 2 else {"frame": int(ranked[-1])}


def _model(dataset: xr.Dataset, geometry: NanobeamGeometry, position: int, frame_shape: tuple[int, int]) -> np.ndarray:
    """Expected counts of one frame at the estimates of the map."""
    values = {
        name: torch.tensor(float(dataset[name].values.ravel()[position]), dtype=torch.float64)
        for name in NanobeamForward.params
        if name in dataset
    }
    return NanobeamForward(geometry, frame_shape)(values).numpy()


def _frame_row(axes: np.ndarray, counts: np.ndarray, mean: np.ndarray, label: str) -> None:
    """Counts, model and deviance residual (near a standard normal where the model holds) on three axes."""
    scale = Normalize(0, max(float(np.nanpercentile(counts, 99.5)), float(mean.max()), 1.0))
    deviance = 2 * (xlogy(counts, counts / mean) - counts + mean)
    residual = np.sign(counts - mean) * np.sqrt(np.maximum(deviance, 0))
    for ax, values, title in ((axes[0], counts, f"{label}\ncounts"), (axes[1], mean, "model")):
        _image(ax, values, title, cmap="viridis", norm=scale)
    _image(axes[2], residual, "deviance residual", cmap="RdBu_r", norm=Normalize(-4, 4))


def _image(ax: Axes, values: np.ndarray, title: str, *, cmap: str, norm: Normalize) -> None:
    shown = ax.imshow(values, cmap=cmap, norm=norm, interpolation="nearest")
    ax.set_title(title, fontsize=8)
    ax.tick_params(labelsize=7)
    ax.set_xlabel("column (px)", fontsize=7)
    ax.set_ylabel("row (px)", fontsize=7)
    ax.figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03).ax.tick_params(labelsize=7)


def _place(dataset: xr.Dataset, position: int) -> str:
    """Where a frame is and how well it fits, in words."""
    index = np.unravel_index(position, dataset["flag"].shape)
    words = ", ".join(f"{dim} {i}" for dim, i in zip(dataset["flag"].dims, index, strict=True))
    if "reduced_deviance" in dataset:
        words += f"; reduced deviance {dataset['reduced_deviance'].values[index]:.3f}"
    return words
