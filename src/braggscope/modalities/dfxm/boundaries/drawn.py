"""Boundaries of a map as what one draws: points, outlines, dislocations and junctions, in um."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.spatial import ConvexHull

from braggscope.core.errors import InputError

from .planes import Plane, in_plane_axes

LAYERS = ("z", "layer")


@dataclass(frozen=True)
class Drawn:
    """One boundary.

    place, light: Of its bright voxels, shapes (point, 3) and (point,).
    outline: Corners of the convex polygon around them in the plane, shape (corner, 3).
    lines: Ends of the dislocations, shape (line, 2, 3); empty where they are not evenly spaced.
    direction: Of the lines, NaN where there are none.
    """

    number: int
    plane: Plane
    place: np.ndarray
    light: np.ndarray
    outline: np.ndarray
    lines: np.ndarray
    direction: np.ndarray

    def inside(self) -> np.ndarray:
        """Coordinates u, v of the points in the plane, um."""
        return self.plane.inside(self.place)


def check_boundaries(dataset: xr.Dataset) -> None:
    """Raise InputError for a map that is not of boundaries."""
    if "boundary" not in dataset.dims or "label" not in dataset:
        raise InputError("this map has no boundaries; make them with boundaries or boundaries-of-volume")


def drawn(dataset: xr.Dataset, most: int = 0) -> list[Drawn]:
    """The boundaries of a map.  most: Points of each at most, evenly taken; 0 for all."""
    return [_drawn(dataset, int(n), most) for n in dataset["boundary"].values]


def other_points(dataset: xr.Dataset) -> np.ndarray:
    """Places of the bright voxels that belong to no boundary, um."""
    return _places(dataset, (dataset["label"].values == 0) & np.isfinite(dataset["light"].values))[0]


def junction_lines(dataset: xr.Dataset) -> np.ndarray:
    """Ends of the junctions, one of each pair that meets, shape (junction, 2, 3)."""
    if "junction" not in dataset.dims or not dataset.sizes["junction"]:
        return np.zeros((0, 2, 3))
    place, direction = (np.stack([dataset[f"{n}_{a}"].values for a in "xyz"], 1) for n in ("junction_place", "junction"))
    half = 0.5 * dataset["junction_length"].values[:, None] * direction
    return np.stack([place - half, place + half], 1)


def _drawn(dataset: xr.Dataset, number: int, most: int) -> Drawn:
    row = dataset.sel(boundary=number)
    normal, centre, line = (np.array([float(row[f"{n}_{a}"]) for a in "xyz"]) for n in ("normal", "centre", "line"))
    plane = Plane(in_plane_axes(normal), centre, float(row["scatter"]), np.full((3, 3), np.nan))
    place, light = _places(dataset, dataset["label"].values == number)
    inside = plane.inside(place)
    corners = inside[ConvexHull(inside).vertices] @ plane.axes[:2] + centre
    lines = _ends(plane, inside, line, float(row["spacing"]))
    step = max(1, -(-len(place) // most)) if most else 1
    return Drawn(number, plane, place[::step], light[::step], corners, lines, line)


def _places(dataset: xr.Dataset, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of voxels, um, and their light."""
    layer, row, column = np.nonzero(where)
    heights = dataset[next(n for n in LAYERS if n in dataset["label"].dims)].values
    size = float(dataset.attrs["pixel_row_um"]), float(dataset.attrs["pixel_column_um"])
    return np.column_stack([row * size[0], column * size[1], heights[layer]]), dataset["light"].values[layer, row, column]


def _ends(plane: Plane, inside: np.ndarray, line: np.ndarray, spacing: float) -> np.ndarray:
    """Both ends of every dislocation that has points."""
    if not math.isfinite(spacing):
        return np.zeros((0, 2, 3))
    t = plane.axes[:2] @ line
    along, across = inside @ t, inside @ np.array([-t[1], t[0]])
    start = spacing * float(np.angle(np.exp(2j * np.pi * across / spacing).sum())) / (2 * math.pi)
    number = np.rint((across - start) / spacing).astype(int)
    found = []
    for n in np.unique(number):
        mine = along[(number == n) & (np.abs(across - start - spacing * number) < 0.35 * spacing)]
        if len(mine) > 10:
            ends = np.quantile(mine, [0.01, 0.99])
            found.append(ends[:, None] * t + (start + spacing * n) * np.array([-t[1], t[0]]))
    return np.array(found).reshape(-1, 2, 2) @ plane.axes[:2] + plane.centre
