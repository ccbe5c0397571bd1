"""Maps of EBSD: .ang (EDAX, EMsoft, orix) and .ctf (Oxford, Bruker, MTEX), read as grain maps and written from them.

A map read here has its orientations in the frame of the file's Euler angles, taken as that of its x and y (z = x cross y), and
says so (`orientation_frame` = sample). Programs differ in how their x and y lie to their angles, by turns of 90 or 180 deg;
angles between points do not change by that, and a comparison finds the turn. Points on a hexagonal grid are put on the square
grid of the same steps, each place with its nearest point. Of several phases the most frequent is read; points of others are
flagged.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.physics import orientation_files
from braggscope.physics.crystals import Crystal

from ..frames import from_passive
from ..grain_maps import OTHER_PHASE, grain_map

SYMBOLS = dict(
    zip(
        orientation_files.LAUE_CLASSES,
        ("P -1", "P 1 2/m 1", "P m m m", "P 4/m", "P 4/m m m", "P -3", "P -3 m 1", "P 6/m", "P 6/m m m", "P m -3", "P m -3 m"),
        strict=True,
    )
)
"""A space group of each Laue class."""


def read_ebsd(path: str | Path) -> xr.Dataset:
    """The map in a file .ang or .ctf: `orientation_x`, `_y`, `_z` over y and x (um), flags for points without.

    Raises InputError where the file cannot be read, has no indexed point or no symmetry.
    """
    try:
        points = orientation_files.read(Path(path))
    except ValueError as error:
        raise InputError(str(error)) from None
    crystal = Crystal(points.name, points.lattice, SYMBOLS[points.laue], ())  # type: ignore[arg-type]
    orientation = np.where(points.known[:, None, None], from_passive(points.passive, crystal), np.nan)
    y, x, order = _grid(points.y, points.x)
    made = grain_map(orientation[order], crystal, y, x)
    made["flag"].values[points.other[order]] |= OTHER_PHASE
    return made.assign_attrs(orientation_frame="sample", input_file=Path(path).name)


def _grid(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of a map, um, and the number of the point at each place, shape (y, x)."""
    rows = np.unique(y.round(6))
    columns = np.unique(x.round(6))
    order = np.lexsort((x, y))
    if len(rows) * len(columns) == len(x):
        return rows, columns, order.reshape(len(rows), len(columns))
    from scipy.spatial import cKDTree

    first = np.sort(x[np.abs(y - rows[0]) < 1e-6])
    if len(first) < 2 or len(rows) < 2:
        raise InputError("the points of the map lie on no grid of rows and columns")
    step = np.diff(first).min()
    columns = np.arange(columns[0], columns[-1] + step / 2, step)
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    nearest = cKDTree(np.stack([y, x], 1)).query(places)[1]
    return rows, columns, nearest.reshape(len(rows), len(columns))
