"""Maps as pictures: each quantity beside its standard deviation, then goodness of fit and flags.

Functions take a map (core.maps) and draw on given axes or give a figure; they never show or save one.
"""

from __future__ import annotations

from typing import Any, Literal

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from braggscope.core.maps import quantity_names

SEVERAL = "0.45"  # grey of points with more than one flag
LONG = 44  # letters of a title, from which on they are smaller
COLOURS = (0, 1, 2, 3, 4, 5, 6, 8, 9)  # of tab10: without its grey


def image_panel(ax: Axes, values: xr.DataArray, *, signed: bool = False, title: str = "") -> None:
    """One map variable as an image (or a line, for a one-dimensional scan), with a colour bar that states its unit.

    signed: Whether zero is in the middle of the colour scale. The scale spans the 1st to 99th percentile.
    """
    unit = str(values.attrs.get("units", ""))
    label = f"{values.name}" + (f" ({unit})" if unit not in ("", "1") else "")
    text = title or label
    ax.set_title(text, fontsize=9 if len(text) < LONG else 7, loc="left")
    if values.ndim == 1:
        ax.plot(values[values.dims[0]] if values.dims[0] in values.coords else np.arange(values.size), values, ".-", ms=3, lw=0.7)
        ax.set_xlabel(_axis_label(values, 0))
        return
    finite = values.values[np.isfinite(values.values)]
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    if signed:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    if not high > low:
        low, high = low - 0.5, low + 0.5
    shown = ax.imshow(
        values.values, origin="lower" if "row" not in values.dims else "upper", aspect=_aspect(values), extent=_extent(values),
        cmap="RdBu_r" if signed else "viridis", vmin=low, vmax=high, interpolation="nearest",
    )  # fmt: skip
    ax.set_ylabel(_axis_label(values, 0))
    ax.set_xlabel(_axis_label(values, 1))
    ax.tick_params(labelsize=7)
    bar = ax.figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03)
    bar.ax.tick_params(labelsize=7)
    bar.formatter.set_powerlimits((-3, 4))  # type: ignore[attr-defined]


def colour_panel(ax: Axes, colours: np.ndarray, over: xr.DataArray, *, title: str = "") -> None:
    """A picture of colours over the axes of a map variable.

    colours: sRGB from 0 to 1, shape (*over.shape, 3).
    """
    ax.imshow(
        colours,
        origin="lower" if "row" not in over.dims else "upper",
        aspect=_aspect(over),
        extent=_extent(over),
        interpolation="nearest",
    )
    ax.set_ylabel(_axis_label(over, 0))
    ax.set_xlabel(_axis_label(over, 1))
    ax.set_title(title, fontsize=9 if len(title) < LONG else 7, loc="left")
    ax.tick_params(labelsize=7)


def flag_panel(ax: Axes, dataset: xr.Dataset) -> None:
    """The flags of a map: points without any white, those with one in its colour, those with several in a grey of their own.

    The key counts every point in the one colour that it has, so that the numbers add up to the number of points; behind it, for
    a flag that also stands with others, how many have it in all.
    """
    flag = dataset["flag"]
    masks = dict(zip(str(flag.attrs["flag_meanings"]).split(), np.atleast_1d(flag.attrs["flag_masks"]), strict=True))
    has = {word: (flag.values & int(mask)) != 0 for word, mask in masks.items()}
    has = {word: points for word, points in has.items() if points.any()}
    several = np.sum(list(has.values()), axis=0, dtype=int) > 1 if has else np.zeros(flag.shape, bool)
    which, marks = np.zeros(flag.shape), []
    colours: list[Any] = ["white"]
    for number, (word, points) in enumerate(has.items()):
        alone, every = int((points & ~several).sum()), int(points.sum())
        colours.append(matplotlib.colormaps["tab10"](COLOURS[number % len(COLOURS)]))
        which[points & ~several] = len(colours) - 1
        label = f"{word.replace('_', ' ')}: {alone}" + (f" alone, {every} in all" if every > alone else "")
        marks.append(Patch(color=colours[-1], label=label))
    if several.any():
        colours.append(SEVERAL)
        which[several] = len(colours) - 1
        marks.append(Patch(color=SEVERAL, label=f"several flags: {int(several.sum())}"))
    ax.set_title(f"flags: {int((flag.values == 0).sum())} of {flag.size} points have none (white)", fontsize=9, loc="left")
    if flag.ndim == 1:
        ax.scatter(np.arange(flag.size), which, c=[colours[int(n)] for n in which], s=4)
        ax.set_yticks([])
    else:
        ax.imshow(
            which, origin="lower" if "row" not in flag.dims else "upper", aspect=_aspect(flag), extent=_extent(flag),
            cmap=ListedColormap(colours), vmin=-0.5, vmax=len(colours) - 0.5, interpolation="nearest",
        )  # fmt: skip
        ax.set_ylabel(_axis_label(flag, 0))
    ax.set_xlabel(_axis_label(flag, flag.ndim - 1))
    ax.tick_params(labelsize=7)
    if marks:
        ax.legend(handles=marks, fontsize=6, loc="upper left", bbox_to_anchor=(0.0, -0.25), frameon=False)


def maps_figure(dataset: xr.Dataset, names: list[str] | None = None, *, signed: tuple[str, ...] = (), title: str = "") -> Figure:
    """The map of each quantity beside its standard deviation; at the end deviance and flags.

    Where no quantity has a standard deviation, the maps stand two to a row instead.
    """
    names = names or [n for n in quantity_names(dataset) if n != "reduced_deviance"]
    panels = [panel for name in names for panel in (name, f"{name}_std")]
    panels += ["reduced_deviance", "flag"]
    if not any(f"{name}_std" in dataset for name in names):
        panels = [panel for panel in panels if panel in dataset]
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(8.5, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for ax, panel in zip(axes, [*panels, ""], strict=False):
        _panel(ax, dataset, panel, panel in signed)
    if title:
        figure.suptitle(title)
    return figure


def _panel(ax: Axes, dataset: xr.Dataset, name: str, signed: bool) -> None:
    """One variable of a map, or nothing where the map does not have it."""
    of = name.removesuffix("_std")
    if name not in dataset:
        ax.axis("off")
    elif name == "flag":
        flag_panel(ax, dataset)
    elif name == "reduced_deviance":
        image_panel(ax, dataset[name], title="reduced deviance (1 = as expected)")
    elif name != of:
        image_panel(ax, dataset[name], title=f"standard deviation of {of} ({dataset[of].attrs['units']})")
    else:
        image_panel(ax, dataset[name], signed=signed)


def _axis_label(values: xr.DataArray, axis: int) -> str:
    name = str(values.dims[axis])
    unit = values[name].attrs.get("units", "") if name in values.coords else "px" if name in ("row", "column") else ""
    return f"{name} ({unit})" if unit else name


def _extent(values: xr.DataArray) -> tuple[float, float, float, float] | None:
    """Edges in scan coordinates (left, right, bottom, top), or None for pixels and for names."""
    edges = []
    for name in reversed(values.dims):
        if name not in values.coords or values.sizes[name] < 2 or values[name].dtype.kind not in "iuf":
            return None
        x = values[name].values
        half = (x[-1] - x[0]) / (len(x) - 1) / 2
        edges += [float(x[0] - half), float(x[-1] + half)]
    if "row" in values.dims:  # rows are drawn downwards
        edges[2], edges[3] = edges[3], edges[2]
    return edges[0], edges[1], edges[2], edges[3]


def _aspect(values: xr.DataArray) -> Literal["equal", "auto"]:
    """Equal where both axes are lengths in the same unit or pixels, else as the figure has room."""
    units = {values[d].attrs.get("units", "px") if d in values.coords else "px" for d in values.dims}
    return "equal" if len(units) == 1 else "auto"
