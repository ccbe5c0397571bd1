"""The tables of a result as CSV files: one for each set of dimensions that is not the image, errors beside their values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from braggscope.core.errors import BraggscopeError, InputError

PIXELS = {"row", "column"}


def check_tables(path: Path, *, overwrite: bool) -> None:
    """Raise InputError where tables cannot be written to a path: no .csv, in no folder, or there already."""
    if path.suffix.lower() != ".csv":
        raise InputError(f"--csv must be the name of a .csv file, got '{path}'")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--csv: there is no folder {path.absolute().parent}")
    there = [one for one in (path, *path.parent.glob(f"{path.stem}_*.csv")) if one.exists()]
    if there and not overwrite:
        raise InputError(f"{there[0]} exists; give another name or --overwrite")


def write_tables(result: xr.Dataset, path: Path) -> list[Path]:
    """Write the tables and name the files: the path itself for one table, else the path with the dimensions in its name.

    Raises BraggscopeError for a result that has maps only.
    """
    tables = _tables(result)
    if not tables:
        raise BraggscopeError("the result has maps and no table; --output writes it")
    written = []
    for name, table in tables.items():
        file = path if len(tables) == 1 else path.with_name(f"{path.stem}_{name}.csv")
        part = file.with_name(f".writing.{file.name}")
        try:
            table.to_csv(part)
            part.replace(file)
        except OSError as error:
            raise BraggscopeError(f"{file} cannot be written ({error.strerror or error})") from None
        finally:
            part.unlink(missing_ok=True)
        written.append(file)
    return written


def _tables(result: xr.Dataset) -> dict[str, Any]:
    """A data frame for each set of dimensions, by their names; units are in the heads of the columns.

    Lines in which every number is missing (a track where it is not) are left out.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, variable in result.data_vars.items():
        dims = tuple(str(d) for d in variable.dims)
        if dims and not PIXELS & set(dims):
            groups.setdefault(dims, []).append(str(name))
    found = {}
    for dims, names in groups.items():
        part = result[names].drop_vars([c for c in result.coords if c not in dims], errors="ignore")
        heads = {n: _head(n, str(result[n].attrs.get("units", ""))) for n in names}
        table = part.to_dataframe(dim_order=list(dims)).rename(columns=heads)
        numbers = table.select_dtypes("floating")
        found["_".join(dims)] = table if numbers.empty else table[numbers.notna().any(axis=1)]
    return found


def _head(name: str, unit: str) -> str:
    return name if unit in ("", "1") else f"{name} ({unit})"
