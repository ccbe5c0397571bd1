"""The layout of a generic scan file, whatever holds it (HDF5 or Zarr): NeXus where it is followed, common sense elsewhere.

    entry/data/data                 (positions..., rows, columns), the image stack; NXdata with signal and axes
    entry/data/<axis>               coordinates with `units`
    entry/data/measured_<motor>     where each frame was really taken, shape (positions...)
    entry/monitor/data              incident flux per frame
    entry/instrument/...            detector distance and pixel size, photon energy
    entry/instrument/braggscope     modality (attribute) and geometry fields, in files written here; `recorded` marks the
                                    positions that have a frame

The image stack is, in this order: the one that is asked for, entry/data/data, that of the default NXdata group, the only
signal of an NXdata group, the only numeric array of three or more dimensions. An entry without any whose NXdata group shows an
image (entry/data/data of two dimensions) is a scan of that one frame. A plain stack (n, rows, columns) is a line, or
fills the grid that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.scan import Axis, Frames, Scan

from . import units
from .hdf5 import Kept, text
from .positions import Placed, from_measured, on_given_grid

OWN = "instrument/braggscope"
MEASURED = "measured_"
SMALLEST_IMAGE = 32  # rows and columns below which an array of two dimensions is a table
_DEPTH = 12  # of groups; links may form rings


@dataclass(frozen=True)
class Stack:
    """An image stack found in a file: where it is in its entry, the array and the group it is in."""

    where: str
    array: Any
    group: Any


def find_scans(
    root: Any,
    path: Path,
    frames_of: Callable[[Any], Frames],
    *,
    detector: str | None,
    grid: Sequence[int] | None,
    identity: Callable[[Any], Any],
) -> list[Scan]:
    """The scans in an open file, one for each entry with an image stack.

    root: Its root group (h5py.Group or zarr.Group).
    frames_of: Array -> Frames that open it again when read. Raises InputError where it cannot be read.
    identity: Array -> what is the same for two names of one array.
    """
    if _is_map(root):
        raise InputError(f"{path} is a map and holds no image stack of a scan; give the scan that it was made of{_made_of(root)}")
    entries = {name: item for name, item in _members(root) if not _is_array(item)} or {path.stem: root}
    if any(_is_stack(item) for _, item in _members(root)):
        entries = {path.stem: root}
    found = {name: _stacks(entry, identity) or _image(entry) for name, entry in entries.items()}
    if not any(found.values()):
        there = [f"{where} {tuple(array.shape)}" for where, array, _ in _arrays(root, "", _DEPTH) if array.shape]
        listed = f"; it has: {', '.join(there[:6])}{' ...' if len(there) > 6 else ''}" if there else "; it has no arrays at all"
        raise InputError(f"{path} holds no image stack (numbers of 3 or more dimensions){listed}")
    scans = []
    for name, stacks in found.items():
        if stacks:
            chosen = _choose(entries[name], stacks, detector)
            scans.append(_scan(path, name, entries[name], chosen, stacks, frames_of, grid))
    return scans


def _is_map(root: Any) -> bool:
    """Whether this is a map of this package (core.maps): its data have flags that say what they mean."""
    flag = _member(root, "entry/data/flag")
    return flag is not None and "flag_meanings" in flag.attrs


def _made_of(root: Any) -> str:
    """The name of the scan of a map, in brackets; empty where the map does not say it."""
    name = text(_member(root, "entry/data").attrs.get("input_file"))
    return f" ({name})" if name else ""


def _scan(
    path: Path,
    name: str,
    entry: Any,
    chosen: Stack | None,
    stacks: list[Stack],
    frames_of: Callable[[Any], Frames],
    grid: Sequence[int] | None,
) -> Scan:
    """One entry as a Scan; without frames, saying why, where it cannot be mapped."""
    modality, values = geometry_of(entry)
    about: dict[str, Any] = {
        "modality": modality,
        "geometry_values": values,
        "title": text(_value(entry, "title")),
        "metadata": _metadata(entry),
    }
    if chosen is None:
        wish = f"one image stack: there are several, choose one with --detector: {', '.join(s.where for s in stacks)}"
        return Scan(path, name, (), None, np.empty(0, np.int64), missing=(wish,), **about)
    try:
        frames: Frames = frames_of(chosen.array)
        placed = _placed(chosen, grid)
    except InputError as error:
        return Scan(path, name, (), None, np.empty(0, np.int64), detector=chosen.where, missing=(str(error),), **about)
    recorded, monitor = _value(entry, f"{OWN}/recorded"), _monitor(entry, frames.shape[0])
    if recorded is not None and np.size(recorded) == frames.shape[0] and not np.all(recorded):
        keep = np.flatnonzero(np.ravel(recorded))
        frames, lost = Kept(frames, keep), len(placed.order) - len(keep)
        monitor = None if monitor is None else monitor[keep]
        phrase = f"{lost} of {math.prod(len(a) for a in placed.axes)} frames (they were not recorded)"
        placed = Placed(placed.axes, placed.order[keep], placed.positions, (*placed.missing, phrase))
    return Scan(
        path,
        name,
        placed.axes,
        frames,
        placed.order,
        placed.positions,
        detector=chosen.where,
        missing=placed.missing,
        monitor=monitor,
        saturation=_number(entry, "instrument/detector/saturation_value"),
        **about,
    )


def _stacks(entry: Any, identity: Callable[[Any], Any]) -> list[Stack]:
    """The image stacks of an entry, each under one name; the one that stands out first."""
    every = [Stack(where, array, group) for where, array, group in _arrays(entry, "", _DEPTH) if _is_stack(array)]
    every = [s for s in every if not s.where.startswith(("truth/", f"{OWN}/")) and MEASURED not in s.where]
    every.sort(key=lambda s: (s.where != _default(entry), not _is_signal(s)))
    unique: dict[Any, Stack] = {}
    for stack in every:
        unique.setdefault(identity(stack.array), stack)
    return list(unique.values())


def _image(entry: Any) -> list[Stack]:
    """The single frame that an entry without stacks is about: the signal of its group `data` or of the one to be shown."""
    for name in ("data", text(entry.attrs.get("default"))):
        group = _member(entry, name) if name else None
        if group is None or _is_array(group):
            continue
        signal = text(group.attrs.get("signal")) or "data"
        item = _member(group, signal)
        if _is_array(item) and len(item.shape) == 2 and item.dtype.kind in "iuf" and min(item.shape) >= SMALLEST_IMAGE:
            return [Stack(f"{name}/{signal}", item, group)]
    return []


def _default(entry: Any) -> str:
    """The stack in the group `data` of an entry, or in the group that it says is to be shown."""
    for name in ("data", text(entry.attrs.get("default"))):
        group = _member(entry, name) if name else None
        if group is not None and not _is_array(group):
            signal = text(group.attrs.get("signal")) or "data"
            if _is_stack(_member(group, signal)):
                return f"{name}/{signal}"
    return ""


def _is_signal(stack: Stack) -> bool:
    """Whether the group of a stack says that it is what the group is about."""
    return text(stack.group.attrs.get("signal")) == stack.where.rsplit("/", 1)[-1]


def _choose(entry: Any, stacks: list[Stack], detector: str | None) -> Stack | None:
    """The stack that is asked for or that stands out; None where several might be meant."""
    if detector is not None:
        named = [s for s in stacks if detector in (s.where, *s.where.split("/"))]
        if not named:
            raise InputError(f"there is no detector '{detector}'; there are: {', '.join(s.where for s in stacks)}")
        return named[0] if len(named) == 1 or named[0].where == detector else None
    if len(stacks) == 1 or stacks[0].where == _default(entry):
        return stacks[0]
    signals = [s for s in stacks if _is_signal(s)]
    return signals[0] if len(signals) == 1 else None


def _placed(stack: Stack, grid: Sequence[int] | None) -> Placed:
    """Axes of the stack and the place of each frame."""
    lead = tuple(int(n) for n in stack.array.shape[:-2])
    count = math.prod(lead)
    if not lead:  # an image
        return Placed((Axis("point", np.zeros(1)),), np.arange(1))
    vectors = {n: v for n, v in _members(stack.group) if _is_array(v) and len(v.shape) == 1 and v.dtype.kind in "iuf"}
    unit = {name: text(array.attrs.get("units")) for name, array in vectors.items()}
    positions = {
        n.removeprefix(MEASURED): np.ravel(v[()]).astype(np.float64)
        for n, v in _members(stack.group)
        if n.startswith(MEASURED) and _is_array(v) and math.prod(v.shape) == count
    }
    along = {n: v[()] for n, v in vectors.items() if v.shape[0] == count and not n.startswith(MEASURED) and _is_position(n)}
    if grid is not None:
        return on_given_grid(grid, count, along if len(lead) == 1 else {}, unit)
    names = _axis_names(stack, vectors, lead)
    if len(lead) == 1 and names[0] is None and along:
        return from_measured(along, unit, count=count)
    axes, missing = [], []
    for number, (name, length, usual) in enumerate(zip(names, lead, _usual_names(len(lead)), strict=True)):
        if name is not None and name in vectors:
            axes.append(Axis(name, _checked(name, vectors[name][()], length, aborted=number == 0), unit[name]))
        else:
            axes.append(Axis(name or usual, np.arange(float(length))))
            missing += [f"coordinates of axis {name or usual} (counted from 0)"]
    planned = math.prod(len(axis) for axis in axes)
    if planned > count:
        missing.append(f"{planned - count} of {planned} frames (the scan ended after {count})")
    kept = {n: np.concatenate([v, np.full(planned - count, np.nan)]) for n, v in positions.items()}
    return Placed(tuple(axes), np.arange(count), kept, tuple(missing))


def _checked(name: str, values: np.ndarray, length: int, *, aborted: bool) -> np.ndarray:
    """Axis values as float64. The slowest axis may be longer than the stack: the scan was aborted."""
    values = np.asarray(values, np.float64)
    if len(values) < length or (len(values) > length and not aborted):
        raise InputError(
            f"axis '{name}' must have as many values as the stack has positions along it, {length}, got {len(values)}"
        )
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(f"axis '{name}' must be finite numbers, got {bad} that are not among {len(values)}")
    return values


def _is_position(name: str) -> bool:
    """Whether a coordinate may be a motor position: not a time, a counter's error or an index."""
    return not any(word in name.lower() for word in ("time", "epoch", "_errors", "index", "monitor"))


def _axis_names(stack: Stack, vectors: dict[str, Any], lead: tuple[int, ...]) -> list[str | None]:
    """Name of each scan axis: as the attributes say, else z, y, x, else the one coordinate of its length; None where unknown."""
    names = [name if name not in ("", ".") else None for name in _stated_names(stack)[: len(lead)]]
    names += [None] * (len(lead) - len(names))
    usual = _usual_names(len(lead))
    if not any(names) and all(n in vectors and vectors[n].shape[0] == length for n, length in zip(usual, lead, strict=True)):
        return list(usual)
    for number, length in enumerate(lead):
        fitting = [n for n, v in vectors.items() if v.shape[0] == length and n not in names and _is_position(n)]
        if names[number] is None and len(fitting) == 1 and lead.count(length) == 1 and not fitting[0].startswith(MEASURED):
            names[number] = fitting[0]
    return names


def _usual_names(count: int) -> tuple[str, ...]:
    """Names of axes that nobody named: a line is points, a raster has y and x."""
    return ("point",) if count == 1 else ("z", "y", "x")[-count:] if count <= 3 else tuple(f"axis{i}" for i in range(count))


def _stated_names(stack: Stack) -> list[str]:
    """Axis names from NXdata, from Zarr or from HDF5 dimension scales; empty where there are none."""
    metadata = getattr(stack.array, "metadata", None)
    for stated in (
        stack.group.attrs.get("axes"),
        stack.array.attrs.get("axes"),
        stack.array.attrs.get("_ARRAY_DIMENSIONS"),
        getattr(metadata, "dimension_names", None),
    ):
        if stated is not None:
            if isinstance(stated, str | bytes):
                return text(stated).strip("[]").replace(":", ",").split(",")
            return [text(one) for one in stated]
    scales = [d[0].name.rsplit("/", 1)[-1] if len(d) else "" for d in getattr(stack.array, "dims", ())]
    return scales if any(scales) else []


def geometry_of(entry: Any) -> tuple[str | None, dict[str, Any]]:
    """The modality and the geometry values that an entry states about itself, by field name of a geometry."""
    own = _member(entry, OWN)
    if own is not None and "modality" in own.attrs:
        values = {name: _plain(item[()]) for name, item in _members(own) if _is_array(item) and name != "recorded"}
        return text(own.attrs["modality"]), values
    values = {}
    for _, group in _groups(_member(entry, "instrument")):
        for name, field, convert in (
            ("incident_energy", "energy_kev", units.kev),
            ("energy", "energy_kev", units.kev),
            ("distance", "distance_m", units.metres),
            ("x_pixel_size", "pixel_um", units.pixel_um),
        ):
            kind = text(group.attrs.get("NX_class"))
            wrong = (name == "distance" and kind not in ("", "NXdetector")) or (name == "energy" and kind == "NXsource")
            number = None if wrong else _number(group, name)
            if number is not None and (converted := convert(number, text(group[name].attrs.get("units")))) is not None:
                values.setdefault(field, converted)
        wavelength = _number(group, "incident_wavelength") or _number(group, "wavelength")
        if wavelength:
            values.setdefault("energy_kev", units.KEV_ANGSTROM / wavelength)
    return None, values


def _metadata(entry: Any) -> dict[str, Any]:
    named = {"start_time": "start_time", "end_time": "end_time", "sample": "sample/name", "instrument": "instrument/name"}
    found = {key: text(_value(entry, where)) for key, where in named.items()}
    return {key: value for key, value in found.items() if value}


def _monitor(entry: Any, count: int) -> np.ndarray | None:
    values = _value(entry, "monitor/data")
    return np.asarray(values, np.float64).ravel() if values is not None and np.size(values) == count else None


def _arrays(group: Any, where: str, depth: int) -> Iterator[tuple[str, Any, Any]]:
    """Every array below a group: path, array, its group."""
    for name, item in _members(group):
        if _is_array(item):
            yield f"{where}{name}", item, group
        elif depth:
            yield from _arrays(item, f"{where}{name}/", depth - 1)


def _groups(group: Any) -> Iterator[tuple[str, Any]]:
    return ((name, item) for name, item in _members(group) if not _is_array(item))


def _members(group: Any) -> Iterator[tuple[str, Any]]:
    """Name and item of whatever a group holds and whatever of it can be opened; nothing for None."""
    for name in group if group is not None else ():
        item = _member(group, name)
        if item is not None:
            yield name, item


def _member(group: Any, name: str) -> Any:
    """What has this name, or None where there is nothing or only a broken link."""
    try:
        return group[name] if group is not None and name in group else None
    except (KeyError, OSError):
        return None


def _is_array(item: Any) -> bool:
    return item is not None and hasattr(item, "shape")


def _is_stack(item: Any) -> bool:
    return (
        _is_array(item) and len(item.shape) >= 3 and item.dtype.kind in "iuf" and min(item.shape) > 0 and min(item.shape[-2:]) > 1
    )


def _value(group: Any, where: str) -> Any:
    item = _member(group, where)
    return item[()] if _is_array(item) else None


def _number(group: Any, name: str) -> float | None:
    """A finite scalar as a float, else None."""
    item = _member(group, name)
    if not _is_array(item) or math.prod(item.shape) != 1 or item.dtype.kind not in "iuf":
        return None
    value = float(np.ravel(item[()])[0])
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """A scalar of a file as a Python bool, int, float or str."""
    if isinstance(value, bytes | str):
        return text(value)
    if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "biuf":
        return np.asarray(value).item()
    return text(value) if np.asarray(value).dtype.kind in "OSUT" and np.size(value) == 1 else np.asarray(value).tolist()
