"""What an analysis takes over from the map it was given: geometry, still motors, flags, and the size of a pixel.

A map says in its attributes with which geometry it was made and where the motors stood that did not move ("geometry" and
"still_motors", JSON). A point that the map calls doubtful keeps its value in an analysis and carries the map's flag on.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.core.maps import carried_flag as carried_flag

from .geometry import DfxmGeometry

TO_DEGREES = {"": 1.0, "deg": 1.0, "degree": 1.0, "degrees": 1.0, "mrad": 0.18 / np.pi, "rad": 180 / np.pi}
MOST_CORRELATED = 0.9999  # of errors: a covariance matrix stays invertible


def geometry_of(dataset: xr.Dataset, geometry: DfxmGeometry | None = None) -> DfxmGeometry:
    """The geometry given, else the one that the map was made with, else one in which nothing is known but the goniometer."""
    if geometry is not None:
        return geometry
    stated = json.loads(str(dataset.attrs.get("geometry", "{}")) or "{}")
    return DfxmGeometry.from_mapping(stated, where="geometry in the attributes of the map")


def still_motors(dataset: xr.Dataset, given: Sequence[str] = ()) -> dict[str, float]:
    """Where the motors stood that did not move, in their own unit: as the map says, then as given.

    given: Words NAME=VALUE.
    """
    found = {name: float(value) for name, value in json.loads(str(dataset.attrs.get("still_motors", "{}"))).items()}
    for word in given:
        name, _, value = word.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise InputError(f"still must be motors with their positions like chi=-1.62, got '{word}'") from None
    return found


def in_degrees(variable: xr.DataArray) -> np.ndarray:
    """The values of an angle in degrees; a motor that states no unit is taken to be in degrees."""
    unit = str(variable.attrs.get("units", ""))
    if unit not in TO_DEGREES:
        raise InputError(f"{variable.name} must be an angle in deg, mrad or rad, but the map has it in '{unit}'")
    return np.asarray(variable.values, np.float64) * TO_DEGREES[unit]


def error_covariance(dataset: xr.Dataset, a: str, b: str) -> np.ndarray:
    """Covariance of the errors of two positions, in their units.

    A fit knows the correlation of its errors (`A_B_error_correlation`). Means err together by counting, gain x A_B_covariance /
    total: Var(sum y x / T) = gain sum y (x - <x>)^2 / T^2 = gain width^2 / T, and in the same way for two motors. Neither exceeds
    what the standard deviations `A_std` and `B_std` allow.

    Returns: Shape of the pixels; 0 where the map does not have what it needs (it does from `peakfit` and `moments`).
    """
    product = dataset[f"{a}_std"].values.astype(np.float64) * dataset[f"{b}_std"].values
    most = MOST_CORRELATED * product
    fitted = next((n for n in (f"{a}_{b}_error_correlation", f"{b}_{a}_error_correlation") if n in dataset), None)
    if fitted is not None:
        return np.nan_to_num(np.clip(dataset[fitted].values * product, -most, most))
    name = next((n for n in (f"{a}_{b}_covariance", f"{b}_{a}_covariance") if n in dataset), None)
    gain = float(dataset.attrs.get("gain", np.nan))
    if name is None or "total" not in dataset or not np.isfinite(gain):
        return np.zeros_like(most)
    with np.errstate(divide="ignore", invalid="ignore"):
        shared = gain * dataset[name].values / dataset["total"].values
    return np.nan_to_num(np.clip(shared, -most, most))


def pixel_attributes(dataset: xr.Dataset, geometry: DfxmGeometry | None = None) -> dict[str, float]:
    """Size of a pixel in the sample in um, `pixel_row_um` and `pixel_column_um`, where it is known; else nothing."""
    known = {name: float(dataset.attrs[name]) for name in ("pixel_row_um", "pixel_column_um") if name in dataset.attrs}
    if geometry is None and known:
        return known
    with contextlib.suppress(InputError):
        along, across = geometry_of(dataset, geometry).sample_pixel_um()
        return {"pixel_row_um": along, "pixel_column_um": across}
    return known


def image_dims(dataset: xr.Dataset) -> tuple[str, str]:
    """The two dimensions of the pixels of a map. Raises InputError where it is not a map over detector pixels."""
    if tuple(dataset["flag"].dims) != ("row", "column"):
        over = ", ".join(map(str, dataset["flag"].dims))
        raise InputError(f"the map must be over row and column, as `braggscope map` makes it of a scan, got one over {over}")
    return "row", "column"


def carried_total(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """`total` and its standard deviation, where the map has them: they are what layers are registered on."""
    return {name: dataset[name] for name in ("total", "total_std") if name in dataset}


def variable(values: np.ndarray, unit: str, long_name: str, dims: Sequence[str] = ("row", "column")) -> xr.DataArray:
    """A map variable."""
    return xr.DataArray(values, dims=tuple(dims), attrs={"units": unit, "long_name": long_name})


def cautions(*said: str) -> dict[str, str]:
    """The attribute `caution` of the sentences that are not empty; nothing where none is."""
    text = "; ".join(one for one in said if one)
    return {"caution": text} if text else {}


def gain_caution(gain_from: str) -> str:
    """What is to be said of a gain that could not be measured; nothing of one that was."""
    said = "the detector gain could not be measured and was taken as 1: give it (gain) for right errors"
    return said if gain_from == "assumed" else ""
