"""ESRF BLISS files: scans N.1 with their motors, detectors and commands; slow counters in N.2.

What is planned comes from `fscan_parameters` or the title, what was reached from the motor arrays under `instrument/` (the mean
position during each exposure), so that frames of zig-zag and of aborted scans come to their right places. Detector images may
lie in other files behind links or virtual datasets; those that are not there are named, and their frames are left out.
A top group may have any name that ends in ".1".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.scan import Axis, Frames, Scan

from . import units
from .hdf5 import HDF5Frames, Kept, looks_like_hdf5, missing_files, open_file, text, unreadable_filter
from .layout import OWN, geometry_of
from .positions import Placed, Plan, from_measured, on_given_grid, parse_command, place

FORMAT = "ESRF BLISS"
RANK = 10

_SCAN = re.compile(r"\d+\.\d+$")  # "1.1"; also "layer_0_1.1", as collected files have it
_DFXM = re.compile(r"\bid0[36]\b|\bhxm\b", re.IGNORECASE)  # the instruments that are DFXM microscopes
_DFXM_DETECTORS = ("pco_ff", "pco_nf")
_IMAGES = ("data", "image")  # of instrument/<detector>
_VALUES = ("value", "data")  # of instrument/<motor>


def matches(path: Path) -> bool:
    """Whether the path is an HDF5 file with a scan of BLISS in it."""
    path = Path(path)
    if not looks_like_hdf5(path):
        return False
    try:
        with open_file(path) as file:
            return any(_is_scan(file, name) for name in file)
    except (InputError, OSError, RuntimeError):
        return False


def scans(path: Path, *, detector: str | None = None, grid: Sequence[int] | None = None) -> Iterator[Scan]:
    """Every scan of the file in order; those that cannot be mapped say why in `missing`.

    detector: Name of the detector, where a scan has several.
    grid: Length of each scan axis, slowest first, instead of what the scan's command says.
    """
    path = Path(path)
    with open_file(path) as file:
        names = [name for name in file if _is_scan(file, name)]
        fast = [name for name in names if name.endswith(".1") or _images(file[name])]
        for name in sorted(fast, key=_in_order):
            slow = _get(file, re.sub(r"1$", "2", name)) if name.endswith(".1") else None
            yield _as_stated(_scan(path, file[name], name, slow, detector, grid), _get(file, "entry"))


def _as_stated(scan: Scan, entry: Any) -> Scan:
    """The scan with the modality and the geometry that this package noted when it simulated it."""
    if entry is None or _get(entry, OWN) is None:
        return scan
    modality, values = geometry_of(entry)
    return replace(scan, modality=modality or scan.modality, geometry_values={**scan.geometry_values, **values})


def _is_scan(file: Any, name: str) -> bool:
    group = _get(file, name) if _SCAN.search(name) else None
    return group is not None and ("instrument" in group or "measurement" in group)


def _in_order(name: str) -> list[Any]:
    """Sorts 2.1 before 10.1."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _scan(path: Path, group: Any, name: str, slow: Any, detector: str | None, grid: Sequence[int] | None) -> Scan:
    """One scan, with frames where it has one image stack (or the one asked for) whose frames find their place."""
    images = _images(group)
    chosen = detector if detector is not None else next(iter(images), "") if len(images) == 1 else ""
    about: dict[str, Any] = {"title": text(_value(group, "title")), "metadata": _metadata(group, slow, chosen)}
    about |= _modality(about["metadata"], [chosen] if chosen else list(images))
    empty = np.empty(0, np.int64)
    lost = (*_broken_links(group),)
    if chosen not in images:
        listed = ", ".join(images) or "none"
        wish = f"detector '{detector}' (there are: {listed})" if detector is not None else "an image stack"
        if detector is None and images:
            wish = f"one detector: there are several, choose one with --detector: {listed}"
        return Scan(path, name, (), None, empty, missing=(wish, *lost), **about)
    try:
        dataset = group[images[chosen]]
        frames, keep, gone = _frames(path, images[chosen], dataset)
        placed = _placed(group, int(dataset.shape[0]), grid, about["metadata"])
    except InputError as error:
        return Scan(path, name, (), None, empty, detector=chosen, missing=(str(error), *lost), **about)
    return Scan(
        path,
        name,
        tuple(replace(axis, unit=_unit(group, axis.name)) for axis in placed.axes),
        frames,
        placed.order[keep],
        placed.positions,
        detector=chosen,
        missing=(*placed.missing, *gone, *lost),
        **about,
    )


def _images(group: Any) -> dict[str, str]:
    """Detectors with an image stack: name -> where it is in the scan."""
    found: dict[str, str] = {}
    for name in _names(group, "instrument"):
        for kind in _IMAGES:
            if _is_stack(_get(group, f"instrument/{name}/{kind}")):
                found.setdefault(name, f"instrument/{name}/{kind}")
    for name in _names(group, "measurement"):
        if _is_stack(_get(group, f"measurement/{name}")):
            found.setdefault(name, f"measurement/{name}")
    return found


def _frames(path: Path, where: str, dataset: Any) -> tuple[Frames, np.ndarray, list[str]]:
    """The image stack, the frames of it that are there and what is missing.

    Raises InputError where no frame can be read.
    """
    if lacking := unreadable_filter(dataset):
        raise InputError(f"the stack {where} is compressed with the HDF5 filter {lacking}, for which no decoder is installed")
    there = np.ones(dataset.shape[0], bool)
    lost = missing_files(dataset)
    for frames in lost.values():
        there[frames] = False
    if not there.any():
        raise InputError(f"the stack {where} lies in files that are not there: {', '.join(lost)}")
    stack, keep = HDF5Frames.of(path, dataset), np.flatnonzero(there)
    gone = [f"file {name} with {frames.stop - frames.start} frames of {where}" for name, frames in lost.items()]
    return (stack if there.all() else Kept(stack, keep)), keep, gone


def _placed(group: Any, count: int, grid: Sequence[int] | None, metadata: Mapping[str, Any]) -> Placed:
    """Axes and the place of each frame: on the grid asked for, as planned, or as the measured positions say."""
    plan = _plan(group)
    if grid is not None:
        return on_given_grid(grid, count, _moving(group, count), {})
    if plan is None or math.prod(plan.shape) < count:
        return from_measured(_moving(group, count), {}, count=count)
    measured = {name: values for name in plan.motors if (values := _measured(group, name)) is not None}
    if plan.motors == ("point",) and (elapsed := _measured(group, "elapsed_time")) is not None and len(elapsed) >= count:
        plan, measured = Plan((Axis("elapsed_time", plan.axes[0].values),)), {"elapsed_time": elapsed}
    ended = str(metadata.get("end_reason", ""))
    started = {n: v for n, v in metadata.get("motors", {}).items() if isinstance(v, float)}
    return place(plan, count, measured, why="" if ended == "SUCCESS" else ended, started=started)


def _plan(group: Any) -> Plan | None:
    """What the scan was to do: from its parameters, else from its title; `scan_shape` must not contradict it."""
    parameters = {n: _value(group, f"instrument/fscan_parameters/{n}") for n in _names(group, "instrument/fscan_parameters")}
    plan = parse_command(text(_value(group, "title")))
    try:
        if "fast_motor" in parameters:
            axes = tuple(_continuous(parameters, f"{speed}_") for speed in ("slow", "fast"))
            plan = Plan(axes, zigzag=text(parameters.get("fast_motor_mode")).upper() == "ZIGZAG")
        elif "motor" in parameters:
            plan = Plan((_continuous(parameters, ""),))
    except (KeyError, TypeError, ValueError):
        pass  # the parameters of another kind of scan: the title stands
    shape = tuple(int(n) for n in np.ravel(group.attrs.get("scan_shape", ())))
    if plan is not None and shape and math.prod(shape) != math.prod(plan.shape):
        return None
    return plan


def _continuous(parameters: Mapping[str, Any], prefix: str) -> Axis:
    """The axis that fscan_parameters describe."""
    start, step = float(parameters[f"{prefix}start_pos"]), float(parameters[f"{prefix}step_size"])
    return Axis(text(parameters[f"{prefix}motor"]), start + step * np.arange(int(parameters[f"{prefix}npoints"])))


def _measured(group: Any, motor: str) -> np.ndarray | None:
    """The recorded positions of a motor, one for each point, or None."""
    places = [f"instrument/{motor}/{kind}" for kind in _VALUES]
    for where in (*places, f"measurement/{motor}", f"instrument/positioners/{motor}"):
        values = _value(group, where)
        if values is not None and np.ndim(values) == 1 and np.asarray(values).dtype.kind in "iuf":
            return np.asarray(values, np.float64)
    return None


def _moving(group: Any, count: int) -> dict[str, np.ndarray]:
    """Recorded positions of every motor that has one for each frame."""
    motors = [n for n in _names(group, "instrument") if text(_attribute(group, f"instrument/{n}", "NX_class")) == "NXpositioner"]
    motors += [n for n in _names(group, "instrument/positioners") if n not in motors]
    found = {name: values for name in motors if (values := _measured(group, name)) is not None and len(values) >= count > 0}
    return {name: values[:count] for name, values in found.items() if name not in ("elapsed_time", "epoch")}


def _unit(group: Any, motor: str) -> str:
    """Unit of a motor; BLISS motors that say none and are known to turn are in degrees."""
    for where in (*(f"instrument/{motor}/{kind}" for kind in _VALUES), f"instrument/positioners/{motor}", f"measurement/{motor}"):
        if unit := text(_attribute(group, where, "units")):
            return unit
    turns = ("mu", "phi", "chi", "omega", "diffry", "diffrz", "obpitch", "obyaw", "ffpitch", "ccmth", "eta", "delta", "gamma")
    return "deg" if motor in turns else "s" if motor == "elapsed_time" else ""


def _metadata(group: Any, slow: Any, detector: str) -> dict[str, Any]:
    """Motors that stood still, exposure, pixel size, how the scan ended, mean slow counters: plain values."""
    motors = {
        n: float(v)
        for n in _names(group, "instrument/positioners")
        if _is_number(v := _value(group, f"instrument/positioners/{n}"))
    }
    counters = {n: _value(slow, f"measurement/{n}") for n in _names(slow, "measurement")}
    counters |= {n: _value(slow, f"instrument/{n}/signal") for n in _names(slow, "instrument") if n not in counters}
    averages = {
        n: float(np.nanmean(v))
        for n, v in counters.items()
        if v is not None and np.size(v) and np.isfinite(v).any() and n not in ("epoch", "elapsed_time")
    }
    exposure = _value(group, "instrument/fscan_parameters/acq_time")
    if exposure is None and detector:
        exposure = _value(group, f"instrument/{detector}/acq_parameters/acq_expo_time")
    words = {"instrument": "instrument/name", "sample": "sample/name", "end_reason": "end_reason"}
    words |= {"start_time": "start_time", "end_time": "end_time"}
    found: dict[str, Any] = {key: text(_value(group, where)) for key, where in words.items()}
    if detector:
        found["detector_description"] = text(_value(group, f"instrument/{detector}/description"))
    found |= {"motors": motors, "slow_counters": averages}
    if exposure is not None and _is_number(exposure):
        found["exposure_s"] = float(exposure)
    pitch = _value(group, f"instrument/{detector}/x_pixel_size") if detector else None
    if pitch is not None and _is_number(pitch):
        unit = text(_attribute(group, f"instrument/{detector}/x_pixel_size", "units"))
        found["pixel_um"] = units.pixel_um(float(pitch), unit or "um")
    return {key: value for key, value in found.items() if value not in ("", None, {})}


def _modality(metadata: Mapping[str, Any], detectors: Sequence[str]) -> dict[str, Any]:
    """`modality` and `geometry_values`, where the instrument is a dark-field X-ray microscope.

    The energy is that of the channel-cut monochromator, silicon 111 at the angle `ccmth`; twice the Bragg angle is the pitch
    `obpitch` of the objective.
    """
    if not (_DFXM.search(str(metadata.get("instrument", ""))) or any(d in _DFXM_DETECTORS for d in detectors)):
        return {}
    motors, values = metadata.get("motors", {}), {}
    if "pixel_um" in metadata:
        values["pixel_um"] = metadata["pixel_um"]
    if 1 < motors.get("ccmth", 0) < 60:
        values["energy_kev"] = units.KEV_ANGSTROM / (2 * units.SILICON_111 * math.sin(math.radians(motors["ccmth"])))
    if 0.1 < motors.get("obpitch", 0) < 90:
        values["two_theta_deg"] = motors["obpitch"]
    return {"modality": "dfxm", "geometry_values": values}


def _broken_links(group: Any) -> Iterator[str]:
    """Files that links of this scan point to and that are not there."""
    import h5py

    for part in ("instrument", "measurement"):
        for name in _names(group, part):
            holders = [(group[part], name)]
            child = _get(group, f"{part}/{name}")
            if isinstance(child, h5py.Group):
                holders += [(child, kind) for kind in _IMAGES if kind in child]
            for holder, key in holders:
                link = holder.get(key, getlink=True)
                if isinstance(link, h5py.ExternalLink) and _get(holder, key) is None:
                    yield f"file {link.filename} (of {part}/{name})"


def _names(group: Any, where: str) -> list[str]:
    """Names of what a group holds; none where it is not there."""
    child = _get(group, where)
    return list(child.keys()) if hasattr(child, "keys") else []


def _get(group: Any, where: str) -> Any:
    """What has this name, or None where there is nothing or only a broken link."""
    try:
        return group[where] if group is not None else None
    except (KeyError, OSError):
        return None


def _value(group: Any, where: str) -> Any:
    item = _get(group, where)
    return item[()] if item is not None and hasattr(item, "shape") and len(item.shape) < 2 else None


def _attribute(group: Any, where: str, name: str) -> Any:
    item = _get(group, where)
    return None if item is None else item.attrs.get(name)


def _is_stack(item: Any) -> bool:
    return item is not None and len(getattr(item, "shape", ())) == 3 and item.dtype.kind in "iuf" and item.size > 0


def _is_number(value: Any) -> bool:
    return value is not None and np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf" and math.isfinite(float(value))
