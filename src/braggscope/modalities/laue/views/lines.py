"""Boundaries of grains as lines on a picture of a map."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection


def between(label: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges between neighbouring points of two grains: ends (x, y), shape (edge, 2, 2), and their labels, (edge, 2)."""
    lines, pairs = [], []
    for upright in (True, False):
        a, b = (label[:, :-1], label[:, 1:]) if upright else (label[:-1], label[1:])
        row, column = np.nonzero((a != b) & (a > 0) & (b > 0))
        pairs.append(np.stack([a[row, column], b[row, column]], 1))
        ey, ex = _edges(y), _edges(x)
        if upright:
            ends = [(ex[column + 1], ey[row]), (ex[column + 1], ey[row + 1])]
        else:
            ends = [(ex[column], ey[row + 1]), (ex[column + 1], ey[row + 1])]
        lines.append(np.stack([np.stack(end, -1) for end in ends], 1))
    return np.concatenate(lines), np.concatenate(pairs)


def outline(ax: Axes, label: np.ndarray, over: xr.DataArray, **style: Any) -> None:
    """Draw the boundaries of labels over the axes of a map variable."""
    lines, _ = between(label, *places(over))
    ax.add_collection(LineCollection(list(lines), **{"colors": "black", "linewidths": 0.6, **style}))


def places(over: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the two axes of a map variable, as its picture has them."""
    axes = [over[d].values.astype(float) if d in over.coords and over.sizes[d] > 1 else None for d in over.dims]
    if any(one is None for one in axes):  # then pictures count points
        return np.arange(over.shape[0], dtype=float), np.arange(over.shape[1], dtype=float)
    return axes[0], axes[1]  # type: ignore[return-value]


def _edges(place: np.ndarray) -> np.ndarray:
    step = (place[-1] - place[0]) / (len(place) - 1) if len(place) > 1 else 1.0
    return place[0] + step * (np.arange(len(place) + 1) - 0.5)
