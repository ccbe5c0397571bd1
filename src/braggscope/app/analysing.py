"""Analyses by name: inputs opened, options checked, the result with its provenance, written where a file is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from braggscope.core import maps
from braggscope.core.analysis import SOURCES, Argument, arguments
from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.geometry import Geometry
from braggscope.core.modality import Modality, modality
from braggscope.core.scan import Scan
from braggscope.core.source import open_scan

from .choosing import GeometryLike, given_geometry, states_geometry
from .describing import is_map_file
from .output import check_output
from .provenance import file_hash, files_of, made_now, plain

CARRIED = ("geometry", "still_motors", "pixel_row_um", "pixel_column_um")  # attributes of a map that its analyses keep
Input = Scan | xr.Dataset | str | Path


def analyse(
    kind: str,
    name: str,
    *inputs: Input,
    geometry: GeometryLike = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    options: Mapping[str, Any] | None = None,
) -> xr.Dataset | dict[str, Any]:
    """The result of an analysis (see `braggscope.analyse`).

    Raises InputError for what can be known beforehand, and then nothing is written.
    """
    of, word = modality(kind), name.replace("-", "_")
    function = of.analysis(word)
    declared = arguments(function)
    chosen = _options(of, declared, options or {}, f"{kind} {name}")
    defaults = {one.name: one.default for one in declared if one.kind == "option" and not one.required}
    files = _files([*inputs, *_file_options(declared, options or {})])
    images = [file for one in inputs for file in files_of(one)]
    read = (*files, *images, geometry if isinstance(geometry, str | Path) else None)
    path = None if output is None else check_output(output, overwrite=overwrite, inputs=read)
    opened = _inputs(of, declared, inputs, f"{kind} {name}")
    instrument = _geometry(of, declared, opened, geometry)
    extra: dict[str, Any] = {} if instrument is None else {"geometry": instrument}
    writes = any(one.kind == "output" for one in declared)
    if writes:
        if path is None:
            raise InputError(f"{kind} {name} writes a file; give its name as output")
        extra["output"] = path
    try:
        result = function(*opened, **chosen, **extra)
    except OSError as error:
        if not writes or isinstance(error, BraggscopeError):
            raise
        raise BraggscopeError(f"{path} cannot be written ({error.strerror or error})") from None
    if writes:
        return dict(result)
    attributes = _provenance(of, word, opened, files, {**defaults, **chosen}, instrument)
    found = {str(key): plain(value) for key, value in result.attrs.items() if key not in attributes}
    result = result.assign_attrs({**attributes, **found, "found": json.dumps(list(found))})
    if path is not None:
        try:
            maps.save(result, path)
        except OSError as error:
            raise BraggscopeError(f"{path} cannot be written ({error.strerror or error}); nothing was written") from None
    return result


def is_scan(kind: Modality, path: str | Path) -> bool:
    """Whether the file of an input that may be a scan or a map is to be opened as a scan: neither a map nor a table."""
    formats = kind.table_formats()
    return not is_map_file(path) and not (formats is not None and formats.matches(path))


def _inputs(of: Modality, declared: Sequence[Argument], given: Sequence[Input], called: str) -> list[Any]:
    """The inputs as the function takes them: each in its place, or all of a list together."""
    wanted = [one for one in declared if one.kind in SOURCES and not one.keyword]
    least = sum(one.required for one in wanted)
    several = bool(wanted) and wanted[-1].several
    if len(given) < least or (len(given) > len(wanted) and not several):
        plural = {"scan": "scans", "map": "maps", "scan or map": "scans or maps"}
        names = " and ".join(f"several {plural[w.kind]}" if w.several else f"a {w.kind}" for w in wanted)
        raise InputError(f"{called} takes {names or 'no input'}, got {len(given)} input{'s' if len(given) != 1 else ''}")
    if several:
        head, tail = given[: len(wanted) - 1], given[len(wanted) - 1 :]
        first = [_opened(of, w, one) for w, one in zip(wanted, head, strict=False)]
        return [*first, [_opened(of, wanted[-1], one) for one in tail]]
    return [_opened(of, w, one) for w, one in zip(wanted, given, strict=False)]


def _opened(of: Modality, wanted: Argument, given: Input) -> Any:
    """A scan or a map, read where a path is given; a table that the modality reads does for a map."""
    if isinstance(given, str | Path):
        formats = of.table_formats() if wanted.kind != "scan" else None
        if formats is not None and formats.matches(given):
            return formats.read(given)
        return maps.load(given) if wanted.kind == "map" or not (wanted.kind == "scan" or is_scan(of, given)) else open_scan(given)
    if not isinstance(given, wanted.type) and not (wanted.kind != "map" and hasattr(given, "batches")):
        raise InputError(f"{wanted.name} must be a {wanted.kind}, got {type(given).__name__}")
    return given


def _files(given: Sequence[Any]) -> list[str | Path]:
    """The files among what is given, and those of scans that are open already."""
    paths = [one if isinstance(one, str | Path) else getattr(one, "path", None) for one in given]
    return [one for one in paths if isinstance(one, str | Path)]


def _file_options(declared: Sequence[Argument], options: Mapping[str, Any]) -> list[Any]:
    """The options given that may be files: maps, scans and paths."""
    known = [one for one in declared if one.keyword and (one.kind in SOURCES or (one.kind, one.type) == ("option", Path))]
    return [options[one.name] for one in known if one.name in options]


def _options(of: Modality, declared: Sequence[Argument], given: Mapping[str, Any], called: str) -> dict[str, Any]:
    """The options, checked by name, type and choice; maps and scans among them opened. None is the default."""
    known = {one.name: one for one in declared if one.keyword and one.kind in ("option", *SOURCES)}
    for name in given:
        if name not in known:
            raise InputError(f"{called} has no option '{name}'; it has: {', '.join(known) or 'none'}")
    lacking = [name for name, one in known.items() if one.required and given.get(name) is None]
    if lacking:
        raise InputError(f"{called} needs the option {lacking[0]} ({known[lacking[0]].says.doc})")
    return {
        name: known[name].checked(value, f"option {name}") if known[name].kind == "option" else _opened(of, known[name], value)
        for name, value in given.items()
        if value is not None
    }


def _geometry(kind: Modality, declared: Sequence[Argument], inputs: Sequence[Any], geometry: GeometryLike) -> Geometry | None:
    """The geometry given; for a scan, else what it states: all of it, or none where the analysis does without.

    A map brings its own, which the analysis reads.
    """
    wanted = next((one for one in declared if one.kind == "geometry"), None)
    if wanted is None:
        if geometry is not None:
            raise InputError("this analysis needs no geometry; leave it out")
        return None
    if geometry is not None:
        return given_geometry(kind, geometry)
    first = next((one for one in inputs if hasattr(one, "batches")), None)
    if first is None or not states_geometry(first):
        return None
    if first.geometry is not None:
        return first.geometry
    of = kind.geometry_class()
    return of.from_scan(first) if wanted.required or of.needed() <= set(first.geometry_values) else None


def _provenance(
    kind: Modality,
    name: str,
    inputs: Sequence[Any],
    files: Sequence[str | Path],
    options: Mapping[str, Any],
    geometry: Geometry | None,
) -> dict[str, Any]:
    """The attributes that a result carries beside what was found."""
    flat = [one for item in inputs for one in (item if isinstance(item, list) else [item])]
    scans = [one for one in flat if hasattr(one, "batches")]
    datasets = [one for one in flat if isinstance(one, xr.Dataset)]
    source = scans[0].provenance if scans else {}
    carried = {n: datasets[0].attrs[n] for n in CARRIED if datasets and n in datasets[0].attrs}
    if geometry is not None:
        carried["geometry"] = geometry.to_mapping()
    paths = [Path(one) for one in files]
    first = source.get("input_file") or (paths[0].name if paths else "data in memory")
    values = {
        "title": f"{kind.name} {name}: {first}",
        **made_now(),
        "modality": kind.name,
        "method": name,
        "options": {n: v if isinstance(v, str | int | float | tuple) or v is None else str(v) for n, v in options.items()},
        "geometry": {},
        **({"scan_of_the_map": datasets[0].attrs["input_file"]} if datasets and "input_file" in datasets[0].attrs else {}),
        **({"input_file": ", ".join(path.name for path in paths)} if paths else {}),
        **source,
        **(file_hash(paths[0]) if len(paths) == 1 else {}),
        **carried,
    }
    if len(paths) > 1:
        values["input_hashes"] = {path.name: file_hash(path)["input_hash"] for path in paths}
    return {n: plain(v) for n, v in values.items() if v is not None}
