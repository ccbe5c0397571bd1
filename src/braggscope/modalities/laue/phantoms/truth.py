"""The truth of a scan of grains, under the names of the maps.

grain                    number of the grain at the position, from 1
fraction                 its part of the light of the beam there
orientation_x, _y, _z    rotation vector of its U, deg, of all equivalents the smallest
strain_xx ... strain_xy  its deviatoric strain in the crystal frame

and beside the maps, over `number` (all grains that the beam meets): `matrix` (U), `strain_tensor`, `area` (um^2, on the fine
map); over `fine_y`, `fine_x` (um): `fine_grain`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from .microstructure import Microstructure

COMPONENTS = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}


def truth_of(sample: Microstructure, grid: xr.Dataset, light: tuple[np.ndarray, np.ndarray, np.ndarray]) -> xr.Dataset:
    """What maps of a scan should say (see the module).

    light: start, grain and weight of `beam.weights`.
    """
    shape = tuple(grid.sizes[n] for n in grid.dims)
    place = np.meshgrid(grid["y"].values, grid["x"].values, indexing="ij")
    here = sample.at(*place)
    found = {"grain": (here + 1, "1", "number of the grain"), "fraction": (_share(here, light), "1", "its share of the light")}
    vector = np.rad2deg(Rotation.from_matrix(sample.orientation).as_rotvec())
    for i, axis in enumerate("xyz"):
        found[f"orientation_{axis}"] = (vector[here, i], "deg", f"rotation of the crystal about {axis}")
    for name, (i, j) in COMPONENTS.items():
        found[f"strain_{name}"] = (sample.strain[here, i, j], "1", f"deviatoric strain {name} in the crystal frame")
    truth = grid.copy()
    for name, (values, unit, text) in found.items():
        truth[name] = (("y", "x"), values.reshape(shape), {"units": unit, "long_name": f"true {text}"})
    return truth.assign(_of_grains(sample))


def _share(here: np.ndarray, light: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Weight of the grain at each position, over that of all."""
    start, grain, weight = light
    position = np.repeat(np.arange(here.size), np.diff(start))
    own = np.bincount(position, weight * (grain == here.ravel()[position]), here.size)
    return (own / np.bincount(position, weight, here.size)).reshape(here.shape)


def _of_grains(sample: Microstructure) -> dict[str, xr.DataArray]:
    """The table of grains and the fine map."""
    count = len(sample.orientation)
    area = np.bincount(sample.number.ravel(), minlength=count) * sample.pitch_um**2
    number = {"number": np.arange(1, count + 1)}

    def table(values: np.ndarray, unit: str, text: str, *dims: str) -> xr.DataArray:
        return xr.DataArray(values, number, ("number", *dims), attrs={"units": unit, "long_name": text})

    um = {"units": "um", "long_name": "place on the surface"}
    fine = {"fine_y": ("fine_y", sample.y, um), "fine_x": ("fine_x", sample.x, um)}
    about = {"units": "1", "long_name": "number of the grain on the fine map"}
    return {
        "matrix": table(sample.orientation, "1", "U, from the crystal frame to the laboratory", "i", "j"),
        "strain_tensor": table(sample.strain, "1", "deviatoric strain in the crystal frame", "i", "j"),
        "area": table(area, "um^2", "area on the fine map"),
        "fine_grain": xr.DataArray((sample.number + 1).astype(np.int32), fine, ("fine_y", "fine_x"), attrs=about),
    }
