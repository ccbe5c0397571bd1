"""Export of tracks as a table, one line a track and frame, for a spreadsheet or another program."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import xarray as xr

from braggscope.core.errors import BraggscopeError, InputError


def export_tracks(dataset: xr.Dataset, *, output: Path) -> dict[str, object]:
    """Tracks as a CSV file with one line per track and frame.

    dataset: Map of `track`.
    Returns the file, its lines and columns. The columns carry their unit in the name; flag is the sum of the bits of the map.
    Raises InputError for a map without tracks and a name that does not end in .csv.
    """
    if "track" not in dataset.dims or "row" not in dataset:
        raise InputError("export_tracks takes a map of tracks: make one with `braggscope dfxm track`")
    if output.suffix.lower() != ".csv":
        raise InputError(f"output must end in .csv, got '{output.name}'")
    axis = str(dataset["row"].dims[1])
    names = [str(n) for n, v in dataset.data_vars.items() if v.dims == ("track", axis)]
    heads = ["track", _head(axis, dataset[axis].attrs), *(_head(n, dataset[n].attrs) for n in names)]
    there = np.isfinite(dataset["row"].values)
    part = output.with_name(f".writing.{output.name}")
    try:
        with part.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(heads)
            for n, k in zip(*np.nonzero(there), strict=True):
                at = float(dataset[axis].values[k])
                writer.writerow([int(dataset["track"].values[n]), f"{at:.9g}", *(_cell(dataset[v].values[n, k]) for v in names)])
        part.replace(output)
    except OSError as error:
        raise BraggscopeError(f"{output} cannot be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)
    return {"file": str(output), "lines": int(there.sum()), "columns": ", ".join(heads)}


def _head(name: str, attributes: dict) -> str:
    unit = str(attributes.get("units", ""))
    return f"{name} ({unit})" if unit not in ("", "1") else name


def _cell(value: float | np.integer) -> str:
    """A value with its digits, empty where it is missing."""
    if isinstance(value, np.integer):
        return str(int(value))
    return f"{value:.7g}" if np.isfinite(value) else ""
