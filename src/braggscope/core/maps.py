"""Maps: a convention, not a class. A map is an xarray.Dataset in which

- each quantity `q` has `units` and `long_name`, and `q_std` beside it (one standard deviation, same units) where the method
  is calibrated;
- `flag` (int, 0 = good; `flag_masks` and `flag_meanings` name its bits) says why a point is NaN or doubtful; a doubtful point
  keeps its value;
- `reduced_deviance` (where the method has a likelihood) is the deviance over its expectation under the fitted mean;
- dimensions are scan axes, detector axes ("row", "column"), "grain" or "dislocation";
- attributes hold the provenance.

On disk a map is one HDF5 file that is at once netCDF-4 (group entry/data) and NeXus (NXentry/NXdata with signal and axes).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import xarray as xr

from .beside import written_beside
from .errors import InputError
from .model import SUFFIXES
from .source import open_scans

GROUP = "entry/data"
STATE = "entry/unfinished"
LEDGER = "entry/ledger"
LARGEST_BIT = 30  # of a flag


@dataclass(frozen=True)
class Quantity:
    """A map variable: its name, unit and what it is."""

    name: str
    unit: str
    long_name: str

    def std(self) -> Quantity:
        """Its standard deviation."""
        return Quantity(f"{self.name}_std", self.unit, f"standard deviation of {self.long_name}")


def empty_map(
    quantities: Sequence[Quantity],
    dims: Sequence[str],
    shape: Sequence[int],
    coords: Mapping[str, Any],
    flag_meanings: Mapping[int, str],
) -> xr.Dataset:
    """A map of NaN with all flags 0.

    flag_meanings: Meaning (one word) of each bit value of the flag.
    """
    dataset = xr.Dataset(coords=coords)
    for q in quantities:
        dataset[q.name] = (tuple(dims), np.full(shape, np.nan), {"units": q.unit, "long_name": q.long_name})
    bits = sorted(flag_meanings)
    dataset["flag"] = (
        tuple(dims),
        np.zeros(shape, np.int32),
        {
            "long_name": "why a point is missing or doubtful (0 = good)",
            "flag_masks": np.array(bits, np.int32),
            "flag_meanings": " ".join(flag_meanings[b] for b in bits),
        },
    )
    return dataset


def check_map(dataset: xr.Dataset) -> None:
    """Raise ValueError where a dataset breaks the convention of this module."""
    if "flag" not in dataset or dataset["flag"].dtype.kind != "i":
        raise ValueError("a map needs an integer variable 'flag'")
    for name in ("flag_masks", "flag_meanings"):
        if name not in dataset["flag"].attrs:
            raise ValueError(f"the flag of a map needs the attribute {name}")
    for name, variable in ((str(n), v) for n, v in dataset.data_vars.items()):
        if name == "flag":
            continue
        for attribute in ("units", "long_name"):
            if attribute not in variable.attrs:
                raise ValueError(f"map variable {name} needs the attribute {attribute}")
        base = str(name).removesuffix("_std")
        if base != name and base in dataset and dataset[base].attrs["units"] != variable.attrs["units"]:
            raise ValueError(f"{name} and {base} must have the same units")


def flag_counts(dataset: xr.Dataset) -> dict[str, int]:
    """How many points carry each flag; "good" counts those with none."""
    flag = dataset["flag"]
    counts = {"good": int((flag.values == 0).sum())}
    for bit, word in zip(np.atleast_1d(flag.attrs["flag_masks"]), str(flag.attrs["flag_meanings"]).split(), strict=True):
        counts[word] = int((flag.values & int(bit) != 0).sum())
    return counts


def quantity_names(dataset: xr.Dataset) -> list[str]:
    """The quantities of a map: its variables without flag and standard deviations."""
    return [str(n) for n in dataset.data_vars if n != "flag" and not str(n).endswith("_std")]


def carried_flag(dataset: xr.Dataset, added: Mapping[str, np.ndarray]) -> xr.DataArray:
    """The flag of a map with more reasons: words and where they hold, each on a free bit."""
    old = dataset["flag"]
    masks, words = [int(bit) for bit in np.atleast_1d(old.attrs["flag_masks"])], str(old.attrs["flag_meanings"]).split()
    values = np.array(old.values, np.int32)
    for word, where in added.items():
        if word not in words:
            free = next(bit for bit in (1 << n for n in range(LARGEST_BIT)) if bit not in masks)
            masks.append(free)
            words.append(word)
        values[where] |= masks[words.index(word)]
    order = np.argsort(masks, kind="stable")
    attributes: dict[str, Any] = {
        "long_name": "why a point is missing or doubtful (0 = good)",
        "flag_masks": np.array([masks[i] for i in order], np.int32),
        "flag_meanings": " ".join(words[i] for i in order),
    }
    return xr.DataArray(values, dims=old.dims, coords=old.coords, attrs=attributes)


def save(
    dataset: xr.Dataset,
    path: str | Path,
    *,
    state: Mapping[str, np.ndarray] | None = None,
    ledger: Mapping[str, Any] | None = None,
) -> None:
    """Write a map, whole or not at all: it is written beside the path and then takes its place.

    state: The state of an estimator that is not done, to resume from.
    ledger: Of a live scan, what became of each frame: arrays `status` and `reason` over the scan axes, and their words.
    Raises OSError where the disk is full or the folder cannot be written; what was at `path` stays.
    """
    import h5py

    check_map(dataset)
    path = Path(path)
    plain = dataset.copy(deep=False)
    plain.attrs = {k: _storable(v) for k, v in dataset.attrs.items()}
    with written_beside(path) as target:
        plain.to_netcdf(target, group=GROUP, engine="h5netcdf")
        target.check()
        with h5py.File(target, "r+") as file:
            file.attrs["default"] = "entry"
            entry, data = file["entry"], file[GROUP]
            entry.attrs["NX_class"], entry.attrs["default"] = "NXentry", "data"
            data.attrs["NX_class"] = "NXdata"
            signal = next(iter(dataset.data_vars))
            data.attrs["signal"] = signal
            data.attrs["axes"] = [d if d in dataset.coords else "." for d in dataset[signal].dims]
            others = [n for n in quantity_names(dataset) if n != signal and dataset[n].dims == dataset[signal].dims]
            if others:
                data.attrs["auxiliary_signals"] = others
            for name, value in (state or {}).items():
                file.create_dataset(f"{STATE}/state_{quote(name, safe=' :()')}", data=value)
            for name, value in (ledger or {}).items():
                if isinstance(value, np.ndarray):
                    file.create_dataset(f"{LEDGER}/{name}", data=value)
                else:
                    file.require_group(LEDGER).attrs[name] = json.dumps(value)


def load(path: str | Path) -> xr.Dataset:
    """Read a map into memory. Raises InputError where the file is missing or is no map."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"map file {path} does not exist")
    try:
        with xr.open_dataset(path, group=GROUP, engine="h5netcdf", phony_dims="access") as file:
            check_map(file)  # before a scan is read as a whole
            dataset = file.load()
    except (OSError, KeyError, ValueError) as error:
        if path.suffix in SUFFIXES:
            raise InputError(f"{path} is a model, not a map; `braggscope map --method {path}` makes maps with it") from None
        raise InputError(_why_no_map(path, error)) from None
    dataset.attrs = {k: v for k, v in dataset.attrs.items() if k not in ("NX_class", "signal", "axes", "auxiliary_signals")}
    return dataset


def _why_no_map(path: Path, error: Exception) -> str:
    """What a file that is no map is instead: a scan, or what the readers of scans find wrong with it."""
    try:
        open_scans(path)
    except InputError as wrong:
        own = isinstance(error, ValueError)  # of check_map; others are words of the library
        return (
            f"{path} is not a map file ({error})"
            if own
            else f"{path} is not a map file; it {str(wrong).removeprefix(f'{path} ')}"
        )
    return f"{path} is not a map file but a scan; map it first: `braggscope map {path} -o MAP.h5`"


def load_state(path: str | Path) -> dict[str, np.ndarray] | None:
    """The state in a map file that is not finished; None in a finished one."""
    import h5py

    with h5py.File(path, "r") as file:
        if STATE not in file:
            return None
        return {unquote(name.removeprefix("state_")): value[()] for name, value in file[STATE].items()}


def load_ledger(path: str | Path) -> dict[str, Any] | None:
    """What became of each frame of a live scan (see `save`); None where the map is not of one."""
    import h5py

    with h5py.File(path, "r") as file:
        if LEDGER not in file:
            return None
        group = file[LEDGER]
        arrays = {str(name): np.asarray(value[()]) for name, value in group.items()}
        return {**arrays, **{str(name): json.loads(str(value)) for name, value in group.attrs.items()}}


def _storable(value: Any) -> Any:
    """A provenance value as something HDF5 can hold: numbers and words as they are, everything else as JSON."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str | int | float | np.ndarray | np.generic):
        return value
    return json.dumps(value, default=str)
