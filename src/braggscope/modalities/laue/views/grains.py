"""The map of grains, each in a colour of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from braggscope.plot.colour_key import MISSING
from braggscope.plot.panels import image_panel

TURN = (np.sqrt(5) - 1) / 2  # of the colour circle from one number to the next: neighbours in number look different


def grains(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Grains in colours that mean nothing but their number (grey: none), and the share of each in the light.

    None for a map without `grain` over two scan axes.
    """
    if "grain" not in dataset or dataset["grain"].ndim != 2:
        return None
    label = dataset["grain"]
    number = np.nan_to_num(label.values, nan=0.0).astype(int)
    extra = "fraction" in dataset
    figure = Figure(figsize=(11 if extra else 6, 5), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, 1 + extra))
    image_panel(axes[0], label, title=f"{len(np.unique(number[number > 0]))} grains (grey: none)")
    picture = axes[0].images[0]
    figure.axes[-1].remove()  # a colour bar of numbers says nothing
    picture.set_data(grain_colours(number))
    if extra:
        image_panel(axes[1], dataset["fraction"], title="share of the light of that grain")
    return figure


def grain_colours(number: np.ndarray) -> np.ndarray:
    """Colours of grain numbers, 0 for none, sRGB from 0 to 1; shape (..., 3)."""
    from matplotlib.colors import hsv_to_rgb

    hue = number * TURN % 1
    saturation, value = 0.45 + 0.4 * (number * 7 % 3) / 2, 0.7 + 0.3 * (number * 5 % 4) / 3
    colours = hsv_to_rgb(np.stack([hue, saturation, value], axis=-1))
    return np.where((number > 0)[..., None], colours, MISSING)
