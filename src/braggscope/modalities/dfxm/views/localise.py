"""Pictures of localised dislocations: counts, expected image and residual, with the 95 % ellipses of the places."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from ..dislocations.characters import characters_of
from ..dislocations.model import ImageModel
from ..dislocations.setting import setting_of

SHOWN = 4  # images
CHI2_95 = 5.991  # of two degrees of freedom
ZOOM_STD = 6.0  # half the width of the close-up, in standard deviations


def localised(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """The first images with their dislocations: expected image, each place closely with its ellipse, counts and residual.

    None for another map. Counts and residual need the scan.
    """
    if not {"of_image", "image_x", "character"} <= set(dataset.data_vars):
        return None
    setting = setting_of(str(dataset.attrs["preset"]))
    shape = (int(dataset.attrs["image_rows"]), int(dataset.attrs["image_columns"]))
    model = ImageModel(setting, characters_of(setting), shape)
    shown = [i for i in range(dataset.sizes["image"]) if np.isfinite(dataset["number"][i])][:SHOWN]
    if not shown:
        return None
    across = 2 if scan is None else 4
    figure = Figure(figsize=(3.4 * across, 3.2 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), across, squeeze=False)
    frames = {} if scan is None else _frames(scan, shown)
    for row, at in zip(axes, shown, strict=True):
        own = dataset.isel(dislocation=np.flatnonzero(dataset["of_image"].values == at))
        _draw_image(figure, row, own, at, frames.get(at), model)
    return figure


def _frames(scan: Any, shown: list[int]) -> dict[int, np.ndarray]:
    """The frames of these images."""
    only = np.isin(np.arange(int(np.prod(scan.shape))), shown)
    batches = scan.batches(only=only)
    return {int(at): np.asarray(f, float) for batch in batches for at, f in zip(batch.index, batch.frames, strict=True)}


def _draw_image(figure: Figure, row: Any, own: xr.Dataset, at: int, counts: np.ndarray | None, model: ImageModel) -> None:
    """Model and close-up of one image, and its counts and residual."""
    names = [c.name for c in model.characters]
    which = [names.index(str(c)) for c in own["character"].values]
    in_image = np.stack([own["image_x"].values, own["image_y"].values], -1)
    background, readout = float(own["background"][at]), float(own["readout"][at])
    mean = np.full(model.shape, background)
    if which:
        image = model.image(which, model.from_image(which, in_image), derivatives=False)[0]
        mean = background + float(own["amplitude"][at]) * image
    top = float(mean.max() if counts is None else np.nanpercentile(counts, 99.8))
    panels = [(row[0], mean, f"image {at}: expected (count)", (0.0, top), "magma")]
    if counts is not None:
        residual = (counts - mean) / np.sqrt(np.maximum(mean + readout**2, 1e-9))
        goodness = f"standard residual (χ²/n = {float(own['reduced_deviance'][at]):.2f})"
        panels += [(row[1], counts, "counts", (0.0, top), "magma"), (row[2], residual, goodness, (-4.0, 4.0), "RdBu_r")]
    x, y = (axis / 1000 for axis in model.axes_nm)
    for ax, values, title, limits, colours in panels:
        drawn = ax.imshow(
            values.T,
            origin="lower",
            extent=(x[0], x[-1], y[0], y[-1]),
            vmin=limits[0],
            vmax=limits[1],
            cmap=colours,
            aspect="auto",
        )
        ax.set_title(title, fontsize=9, loc="left")
        ax.set_xlabel("x along the beam (µm)", fontsize=8)
        ax.tick_params(labelsize=7)
        figure.colorbar(drawn, ax=ax, fraction=0.045).ax.tick_params(labelsize=7)
        ax.plot(in_image[:, 0] / 1000, in_image[:, 1] / 1000, "+", color="tab:cyan", ms=9)
    row[0].set_ylabel("y (µm)", fontsize=8)
    for k, place in enumerate(in_image / 1000):
        row[0].annotate(f"{k + 1}", place, xytext=(4, 4), textcoords="offset points", color="tab:cyan", fontsize=9)
    _draw_ellipses(row[-1], own)


def _draw_ellipses(ax: Any, own: xr.Dataset) -> None:
    """The 95 % ellipse of each place about its centre, so that several can be compared, and samples where there are some."""
    reach = 1.0
    for k in range(own.sizes["dislocation"]):
        one = own.isel(dislocation=k)
        covariance = np.array([[one["x_variance"], one["xy_covariance"]], [one["xy_covariance"], one["y_variance"]]], float)
        if not np.isfinite(covariance).all():
            continue
        values, vectors = np.linalg.eigh(covariance)
        width, height = 2 * np.sqrt(CHI2_95 * np.maximum(values, 0))
        colour = f"C{k}"
        angle = float(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
        label = f"dislocation {k + 1}: character {one['character'].item()}, probability {float(one['probability']):.2f}"
        ax.add_patch(Ellipse((0, 0), width, height, angle=angle, fill=False, color=colour, label=label))
        if "x_sample" in one:
            ax.plot(one["x_sample"] - one["x"], one["y_sample"] - one["y"], ".", ms=1.5, color=colour, alpha=0.4)
        reach = max(reach, float(np.sqrt(values.max())) * ZOOM_STD / 1.6)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    frame = str(own.attrs.get("frame", ""))
    ax.set_title(f"95 % ellipses, frame of the {frame}", fontsize=9, loc="left")
    ax.set_xlabel("x - estimate (nm)", fontsize=8)
    ax.set_ylabel("y - estimate (nm)", fontsize=8)
    ax.tick_params(labelsize=7)
    if ax.patches:
        ax.legend(fontsize=7, loc="upper right")
