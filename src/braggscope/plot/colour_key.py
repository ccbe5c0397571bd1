"""Two values as one colour, and the key that says which: hue and chroma in CIELAB, so that equal steps look equally large.

The value pair, scaled to -1..1 in each direction, is a point in the plane a*, b* of CIELAB at constant lightness: its direction
is the hue, its distance from the middle the chroma. Values outside the range are drawn at its edge.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

LIGHTNESS = 68.0  # L* at which the largest disc of the a*, b* plane has colours that a screen can show
CHROMA = 46.0  # radius of that disc at the corner of the key
MISSING = (0.55, 0.55, 0.55)


def key_colours(
    vertical: np.ndarray, horizontal: np.ndarray, vertical_range: tuple[float, float], horizontal_range: tuple[float, float]
) -> np.ndarray:
    """Colour of each pair of values, sRGB from 0 to 1, shape (..., 3); grey where one is NaN.

    >>> key_colours(np.array([0.0]), np.array([np.nan]), (0, 1), (0, 1)).round(2).tolist()
    [[0.55, 0.55, 0.55]]
    """
    b, a = (
        np.clip(2 * (v - low) / (high - low) - 1, -1, 1)
        for v, (low, high) in ((vertical, vertical_range), (horizontal, horizontal_range))
    )
    known = np.isfinite(a) & np.isfinite(b)
    distance = np.hypot(a, b)
    lightness = LIGHTNESS + 18 * (1 - np.minimum(distance, 1))  # the middle is lighter: near grey would look dirty
    colours = _srgb(lightness, CHROMA * a, CHROMA * b)
    return np.where(known[..., None], colours, MISSING)


def draw_key(
    ax: Axes,
    vertical_range: tuple[float, float],
    horizontal_range: tuple[float, float],
    vertical_label: str,
    horizontal_label: str,
    vertical: np.ndarray | None = None,
    horizontal: np.ndarray | None = None,
) -> None:
    """The key on its own axes: horizontal value to the right, vertical one upwards.

    vertical, horizontal: Values of a map, whose density is drawn over the key as contours.
    """
    y, x = np.meshgrid(np.linspace(*vertical_range, 128), np.linspace(*horizontal_range, 128), indexing="ij")
    extent = (*horizontal_range, *vertical_range)
    ax.imshow(
        key_colours(y, x, vertical_range, horizontal_range),
        origin="lower",
        extent=extent,
        aspect="auto",
        interpolation="bilinear",
    )
    if vertical is not None and horizontal is not None:
        known = np.isfinite(vertical) & np.isfinite(horizontal)
        if known.any():
            density, ye, xe = np.histogram2d(
                vertical[known], horizontal[known], bins=24, range=[list(vertical_range), list(horizontal_range)]
            )
            if density.max() > 0:
                ax.contour((xe[1:] + xe[:-1]) / 2, (ye[1:] + ye[:-1]) / 2, density, levels=4, colors="k", linewidths=0.5)
    ax.set_xlabel(horizontal_label)
    ax.set_ylabel(vertical_label)
    ax.set_title("colour key (contours: pixels)", fontsize=9)
    ax.tick_params(labelsize=7)


def _srgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """sRGB of CIELAB colours under D65 (CIE 15:2004; IEC 61966-2-1), clipped to 0..1, shape (..., 3)."""
    fy = (lightness + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * np.array([0.95047, 1.0, 1.08883])
    to_linear = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = np.clip(xyz @ to_linear.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
