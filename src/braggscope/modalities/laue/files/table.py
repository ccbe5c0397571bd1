"""Peak tables: a Dataset over `peak` that follows the conventions of maps (core.maps).

`row`, `column` (px, from 0), `intensity` (count, integrated), `amplitude`, `background`, `sigma_major`, `sigma_minor`,
`inclination`, `two_theta`, `chi`; of indexed peaks `h`, `k`, `l`, `energy`, `grain`. The geometry, where it is known, is in the
attributes as for every map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from braggscope.core.errors import InputError

from ..detector import detector_matrix, spots, two_theta_chi
from ..geometry import LaueGeometry

UNITS = {
    "row": ("px", "row of the peak, from 0"),
    "column": ("px", "column of the peak, from 0"),
    "intensity": ("count", "integrated intensity"),
    "amplitude": ("count", "height of the fitted peak above its background"),
    "background": ("count", "background under the peak"),
    "maximum": ("count", "brightest pixel of the peak"),
    "sigma_major": ("px", "larger width of the peak, one sigma"),
    "sigma_minor": ("px", "smaller width of the peak, one sigma"),
    "inclination": ("deg", "direction of the larger width"),
    "two_theta": ("deg", "scattering angle"),
    "chi": ("deg", "azimuth of the ray about the beam from the vertical"),
    "q_x": ("1", "direction of the scattering vector along the beam"),
    "q_y": ("1", "direction of the scattering vector along y"),
    "q_z": ("1", "direction of the scattering vector upwards"),
    "h": ("1", "index h"),
    "k": ("1", "index k"),
    "l": ("1", "index l"),
    "energy": ("keV", "photon energy"),
    "deviation": ("px", "distance of the peak from where its grain puts it"),
    "deviation_deg": ("deg", "angle of the peak from where its grain puts it"),
    "expected_row": ("px", "row where its grain puts the peak"),
    "expected_column": ("px", "column where its grain puts the peak"),
    "grain": ("1", "number of the grain, from 1"),
    "source": ("1", "number of the peak in the list that was indexed, from 0"),
}
"""Unit and meaning of each column."""


def peak_table(
    columns: Mapping[str, Any], geometry: LaueGeometry | None = None, attributes: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """A peak table of these columns.

    columns: By name (`UNITS`), each of shape (peak,); with a `_std` behind the name, its standard deviation.
    geometry: Goes into the attributes; `two_theta` and `chi` are added where the columns lack them.
    """
    found = {name: np.asarray(values, float) for name, values in columns.items()}
    if geometry is not None and "row" in found and "two_theta" not in found:
        found["two_theta"], found["chi"] = two_theta_chi(detector_matrix(geometry), found["row"], found["column"])
    count = len(next(iter(found.values())))
    data: dict[str, Any] = {name: ("peak", values, _meaning(name)) for name, values in found.items()}
    lost = ~np.isfinite(found["row"] + found["column"]) if "row" in found else np.zeros(count, bool)
    about = {"long_name": "why a peak is missing or doubtful (0 = good)", "flag_meanings": "no_position"}
    data["flag"] = ("peak", lost.astype(np.int32), {**about, "flag_masks": np.array([1], np.int32)})
    attrs = dict(attributes or {})
    if geometry is not None:
        attrs["geometry"] = json.dumps(geometry.to_mapping())
    return xr.Dataset(data, {"peak": np.arange(count)}, attrs)


def stated_geometry(table: xr.Dataset) -> LaueGeometry | None:
    """The geometry that a table or a map states in its attributes; None where it states none."""
    stated = table.attrs.get("geometry")
    values = json.loads(stated) if isinstance(stated, str) else stated
    return LaueGeometry.from_mapping(values) if values else None


def placed(table: xr.Dataset, geometry: LaueGeometry) -> xr.Dataset:
    """A table of directions of q with the rows and columns at which this detector sees them; NaN for those that miss its plane.

    Raises InputError where the table has neither.
    """
    if "row" in table:
        return table
    if "q_x" not in table:
        there = ", ".join(str(name) for name in table.data_vars)
        raise InputError(f"the table must have row and column or directions q_x, q_y, q_z; it has: {there}")
    q = np.stack([table[name].values for name in ("q_x", "q_y", "q_z")], -1)
    row, column, _ = spots(np.linalg.inv(detector_matrix(geometry)), q)
    return table.assign(row=("peak", row, _meaning("row")), column=("peak", column, _meaning("column"))).assign_attrs(
        geometry=json.dumps(geometry.to_mapping())
    )


def angles_of(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2 theta and chi, degrees, of the rays of scattering vectors, shape (peak, 3): the ray is x - 2 (x.q^) q^."""
    unit = q / np.linalg.norm(q, axis=-1, keepdims=True)
    ray = np.array([1.0, 0, 0]) - 2 * unit[..., :1] * unit
    return np.rad2deg(np.arctan2(np.hypot(ray[..., 1], ray[..., 2]), ray[..., 0])), np.rad2deg(
        np.arctan2(ray[..., 1], ray[..., 2])
    )


def _meaning(name: str) -> dict[str, str]:
    unit, words = UNITS[name.removesuffix("_std")]
    return {"units": unit, "long_name": f"standard deviation of {words}" if name.endswith("_std") else words}
