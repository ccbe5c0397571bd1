"""The result of an analysis in numbers: its maps as in a summary, its tables row by row, and what else it found."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import xarray as xr

from braggscope.core.maps import flag_counts, quantity_names

from .summary import counted, quantity_summary, table_of
from .texts import row, shape_text

ROWS = 20  # of a table on a terminal; a file and --json have all
COLUMNS = 9
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


def findings(dataset: xr.Dataset) -> dict[str, Any]:
    """What an analysis found, as plain values.

    Variables over the dimensions of `flag` are maps and are summarised over the same points as `map` says (summary.counted);
    those of one other dimension are columns of a table; single numbers and words are listed.
    """
    flag = dataset["flag"]
    attrs, counts = dataset.attrs, flag_counts(dataset)
    names = [str(n) for n in dataset.data_vars if n != "flag"]
    tabular = flag.ndim == 1
    mapped = set() if tabular else {n for n in names if set(flag.dims) <= set(dataset[n].dims) and not n.endswith("_std")}
    points, over = counted(dataset)
    columns: dict[str, list[str]] = {}
    for name in names:
        if dataset[name].ndim == 1:
            columns.setdefault(str(dataset[name].dims[0]), []).append(name)
    return {
        "modality": attrs.get("modality"),
        "analysis": attrs.get("method"),
        "shape": {str(n): int(size) for n, size in flag.sizes.items()},
        "points": int(flag.size),
        "good": counts.pop("good"),
        "flags": {word: count for word, count in counts.items() if count},
        "over": over,
        "quantities": {n: quantity_summary(dataset, n, points) for n in quantity_names(dataset) if n in mapped},
        "tables": {dim: _table(dataset, dim, found) for dim, found in columns.items()},
        "units": {n: str(dataset[n].attrs["units"]) for found in columns.values() for n in found},
        "found": {
            n: attrs[n] for n in json.loads(str(attrs.get("found", "[]"))) if n in attrs and n not in ("geometry", "options")
        }
        | {n: _value(dataset[n].values[()]) for n in names if dataset[n].ndim == 0},
    }


def findings_text(found: dict[str, Any]) -> str:
    """The same for a terminal."""
    flagged = ", ".join(f"{word} {count}" for word, count in found["flags"].items()) or "none"
    lines = [f"{found['modality']} {str(found['analysis']).replace('_', ' ')}, {shape_text(found['shape'])}"]
    lines.append(row("points", f"{found['points']}, good {found['good']}; flags: {flagged}"))
    lines += [
        row(name.replace("_", " "), _text(value))
        for name, value in found["found"].items()
        if len(str(value)) <= 100 or name == "caution"
    ]
    if found["quantities"]:
        lines += table_of(found["quantities"], found["over"])
    for dim, rows in found["tables"].items():
        lines += ["", *_table_text(dim, rows, found["units"])]
    return "\n".join(lines)


def _table(dataset: xr.Dataset, dim: str, names: list[str]) -> list[dict[str, Any]]:
    """The rows of a table, each with the value of its dimension first."""
    index = dataset[dim].values if dim in dataset.coords else np.arange(dataset.sizes[dim])
    return [
        {dim: _value(at), **{n: _value(dataset[n].values[i]) for n in names}, **_flag(dataset, dim, i)}
        for i, at in enumerate(index)
    ]


def _flag(dataset: xr.Dataset, dim: str, i: int) -> dict[str, Any]:
    return {"flag": int(dataset["flag"].values[i])} if dataset["flag"].dims == (dim,) else {}


def _table_text(dim: str, rows: list[dict[str, Any]], units: dict[str, str]) -> list[str]:
    """A table as lines; the columns of errors stand beside their values."""
    names = [n for n in rows[0] if n != dim and not n.endswith("_std")] if rows else []
    shown = [dim, *names[:COLUMNS]]
    heads = [n + (f" ({units[n]})" if units.get(n, "1") not in ("", "1") else "") for n in shown]
    cells = [[with_error(r, n) for n in shown] for r in rows[:ROWS]]
    widths = [max(len(c) for c in column) for column in zip(heads, *cells, strict=True)]
    lines = ["  " + "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in [heads, *cells]]
    left = []
    if len(rows) > ROWS:
        left.append(f"{len(rows) - ROWS} more rows")
    if len(names) > COLUMNS:
        left.append(f"columns {', '.join(names[COLUMNS:])}")
    return lines + ([f"  not shown: {' and '.join(left)} (--json and the file have them)"] if left else [])


def with_error(values: dict[str, Any], name: str) -> str:
    """A value, and its error where it has one: then to the second digit of the error, if those are more than four digits."""
    value, error = values[name], values.get(f"{name}_std")
    if not isinstance(error, float) or not isinstance(value, float):
        return _text(value)
    digits = 2 + math.floor(math.log10(abs(value))) - math.floor(math.log10(error)) if value and error > 0 else 4
    return f"{value:.{digits}g} +- {error:.2g}" if 4 < digits <= 12 else f"{_text(value)} +- {error:.2g}"


def _value(value: Any) -> Any:
    """A number or word that JSON can hold; None for NaN and infinities."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray | np.generic):
        value = value.item()
    return value if not isinstance(value, float) or np.isfinite(value) else None


def _text(value: Any) -> str:
    """A value for a terminal: numbers, also those of a vector, to four digits."""
    if isinstance(value, str) and len(value.split()) > 1 and all(NUMBER.fullmatch(word) for word in value.split()):
        least = 1e-12 * max(abs(float(word)) for word in value.split())  # below, a component is rounding
        return " ".join(w if w.isdigit() else f"{float(w) if abs(float(w)) > least else 0:.4g}" for w in value.split())
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
