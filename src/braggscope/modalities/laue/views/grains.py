"""Maps of grains: colours of the latent features, colours of the inverse pole figure with their key, boundaries."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from braggscope.core.errors import InputError
from braggscope.physics.crystals import Crystal
from braggscope.plot.colour_key import MISSING
from braggscope.plot.panels import colour_panel

from ..frames import crystal_axes
from ..grain_maps import ORIENTATION, crystal_of_map, matrices_of, normal_of
from .lines import outline

GOLDEN = 0.6180339887  # turns of hue between labels: neighbours in number are far apart in colour
RGB = ("red", "green", "blue")


def grain_map(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Grains in the colours of the latent features and of the crystal direction along the surface normal, with the key.

    None for a map without labels and orientations. A map of labels alone has a colour for each label; grey: none.
    """
    if dataset["flag"].ndim != 2:
        return None
    label = _labels(dataset)
    turns = _orientations(dataset)
    if label is None and turns is None:
        return None
    over = dataset["flag"]
    panels: list[tuple[str, np.ndarray]] = []
    if all(name in dataset for name in RGB):
        panels.append(("latent features", _latent(dataset)))
    crystal = None
    if turns is not None:
        crystal, u = turns
        panels.append(("crystal direction along the surface normal", ipf_colours(u, crystal, normal_of(dataset))))
    if not panels and label is not None:
        panels.append((f"{len(np.unique(label[label > 0]))} grains, colours by number", label_colours(label)))
    figure = _figure(over, len(panels), crystal is not None)
    widths = [4.0] * len(panels) + ([1.9] if crystal is not None else [])
    grid = figure.add_gridspec(1, len(widths), width_ratios=widths)
    for i, (title, colours) in enumerate(panels):
        ax = figure.add_subplot(grid[i])
        colour_panel(ax, colours, over, title=title)
        if label is not None:
            outline(ax, label, over)
    if crystal is not None:
        ipf_key(figure, grid[len(panels)], crystal)
    return figure


def ipf_colours(u: np.ndarray, crystal: Crystal, direction: np.ndarray) -> np.ndarray:
    """Colours of the direction in the crystal, sRGB, shape (..., 3, 3) -> (..., 3); grey where an orientation is not known.

    direction: In the frame of the orientations, shape (3,).
    """
    from orix.plot.direction_color_keys import DirectionColorKeyTSL
    from orix.vector import Vector3d

    known = np.isfinite(u).all((-2, -1))
    colours = np.tile(np.array(MISSING), (*known.shape, 1))
    inside = np.einsum("ij,nkj,k->ni", crystal_axes(crystal), u[known], direction)
    if len(inside):
        colours[known] = DirectionColorKeyTSL(_laue(crystal)).direction2color(Vector3d(inside))
    return colours


def ipf_key(figure: Figure, place: Any, crystal: Crystal) -> None:
    """The key of these colours: the sector of directions of the Laue class."""
    import orix.plot  # noqa: F401  it registers the projection

    ax: Any = figure.add_subplot(place, projection="ipf", symmetry=_laue(crystal))
    ax.plot_ipf_color_key(show_title=False)
    for text in ax.texts:
        text.set_fontsize(8)
    ax.set_title(f"{crystal.name}, {_laue(crystal).name}", fontsize=9, loc="left", pad=14)


def label_colours(label: np.ndarray) -> np.ndarray:
    """A colour for each label, grey for 0; shape (..., 3)."""
    hue = label * GOLDEN % 1
    value = 0.65 + 0.35 * (label * GOLDEN**2 * 7 % 1)
    colours = hsv_to_rgb(np.stack([hue, np.full(label.shape, 0.55), value], -1))
    return np.where((label > 0)[..., None], colours, MISSING)


def _figure(over: xr.DataArray, panels: int, key: bool) -> Figure:
    """A figure in the proportions of the map."""
    spans = [float(abs(over[d][-1] - over[d][0])) if d in over.coords and over.sizes[d] > 1 else over.sizes[d] for d in over.dims]
    tall = np.clip(spans[0] / spans[1] if spans[1] else 1.0, 0.25, 2.5)
    return Figure(figsize=(4.4 * panels + (2.2 if key else 0), 3.9 * tall + 0.9), layout="constrained")


def _labels(dataset: xr.Dataset) -> np.ndarray | None:
    """Labels of a map, or of the table of grains."""
    name = next((n for n in ("grain", "number") if n in dataset.data_vars and dataset[n].dims == dataset["flag"].dims), None)
    if name is None:
        return None
    values = np.nan_to_num(dataset[name].values, nan=0.0)
    return np.where(values > 0, values, 0).astype(int)


def _orientations(dataset: xr.Dataset) -> tuple[Crystal, np.ndarray] | None:
    """The crystal and U at each point, of a map or, as means, of the table of grains; None where they are not known."""
    mean = [f"mean_{n}" for n in ORIENTATION]
    if "number" in dataset and all(n in dataset for n in mean):
        number = dataset["number"].values
        values = {
            n: np.where(number > 0, dataset[m].values[np.maximum(number, 1) - 1], np.nan)
            for n, m in zip(ORIENTATION, mean, strict=True)
        }
        dataset = dataset.assign({n: (dataset["number"].dims, v) for n, v in values.items()})
    if not all(n in dataset and dataset[n].dims == dataset["flag"].dims for n in ORIENTATION):
        return None
    try:
        return crystal_of_map(dataset), matrices_of(dataset)
    except InputError:
        return None  # a map that does not say of what it is


def _latent(dataset: xr.Dataset) -> np.ndarray:
    """The three latent colours, each from its 1st to its 99th percentile."""
    channels = []
    for name in RGB:
        values = dataset[name].values.astype(float)
        low, high = np.nanpercentile(values, [1, 99]) if np.isfinite(values).any() else (0.0, 1.0)
        channels.append(np.clip((values - low) / (high - low if high > low else 1.0), 0, 1))
    colours = np.stack(channels, -1)
    return np.where(np.isfinite(colours).all(-1, keepdims=True), colours, MISSING)


def _laue(crystal: Crystal) -> Any:
    from orix.quaternion.symmetry import get_point_group

    return get_point_group(crystal.space_group_number).laue
