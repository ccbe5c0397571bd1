"""Writing simulated scans as the BLISS control system of ESRF ID03 does, for the programs that read only that.

One file, scan 1.1: the command in `title`, images in `instrument/pco_ff/data` (frame, row, column) with a link from
`measurement`, places of the motors that moved in `instrument/<motor>/value` (stepped, and mu) or `data` (continuous), those of
all others in `positioners`, `fscan_parameters`, how the scan ended; slow counters in 1.2. As there, a continuous motor is read
in the middle of each exposure, half a step after where the frame starts. Geometry, modality and truth are kept in `entry`,
which other readers pass over. Images are compressed with gzip, which every installation of HDF5 reads.
Left out: what the machine, the slits and the camera report, raw encoder values, and regions of interest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braggscope.core.beside import written_beside
from braggscope.core.errors import InputError

from . import units
from .write import TRUTH, StackWriter, write_geometry

if TYPE_CHECKING:
    from braggscope.core.source import Source

DETECTOR = "pco_ff"
EXPOSURE_S, PERIOD_S = 0.5, 0.500417
STARTED = "2025-01-01T00:00:00.000000+01:00"  # the same in every file, so that a seed gives the same file
DATA_MOTORS = ("diffry", "diffrz")  # of which BLISS records the place under `data` at any speed
GZIP = {"compression": "gzip", "compression_opts": 1, "shuffle": True}


def write_id03(source: Source, path: str | Path, *, progress: Callable[[int, int], None] | None = None) -> None:
    """Write a simulated scan over one to three motors as a file of ESRF ID03, with its truth where it has one.

    progress: Called with the number of frames written and of all frames, after each batch.
    Raises InputError for a source that is not a scan of a dark-field X-ray microscope, and OSError where the file cannot be
    written; what was at `path` stays, and nothing half-written.
    """
    import h5py

    if source.modality != "dfxm" or not 1 <= len(source.shape) <= 3:
        raise InputError(
            f"layout id03 is for dfxm scans over one to three motors, got {source.modality} over {len(source.shape)} axes"
        )
    truth = getattr(source, "truth", None)
    with written_beside(Path(path)) as target:
        if truth is not None:
            truth.to_netcdf(target, group=TRUTH, engine="h5netcdf")
            target.check()
        with h5py.File(target, "w" if truth is None else "r+", rdcc_nbytes=64 * 2**20) as file:
            where = f"1.1/instrument/{DETECTOR}/data"
            stack = StackWriter(file, where, (math.prod(source.shape),), source.frame_shape, compression=GZIP)
            for done, points in stack.write(source):
                target.check()
                if progress is not None:
                    progress(done, points)
            if not stack.recorded.all():
                raise InputError(
                    f"layout id03 is for whole scans, but {int((~stack.recorded).sum())} of {points} frames are missing"
                )
            _write_scan(file["1.1"], source)
            _write_slow_counters(file.create_group("1.2"), source)
            write_geometry(file.require_group("entry/instrument"), source)


def _write_scan(scan: Any, source: Source) -> None:
    """Everything of scan 1.1 but the images."""
    instrument = scan["instrument"]
    _about(scan, source)
    scan.attrs["scan_shape"] = np.array(source.shape)
    _classes(scan, NXentry=".", NXinstrument="instrument", NXcollection="measurement", NXdetector=f"instrument/{DETECTOR}")
    positioners = instrument.create_group("positioners")
    _classes(instrument, NXcollection="positioners")
    for name, value in _standing(source).items():
        positioners[name] = value
    for number, (name, places) in enumerate(_places(source).items()):
        stepped = (number < len(source.shape) - 1 or name == "mu") and name not in DATA_MOTORS
        motor = instrument.create_group(name)
        motor.attrs["NX_class"] = "NXpositioner" if stepped else "NXdetector"
        dataset = motor.create_dataset("value" if stepped else "data", data=places)
        dataset.attrs["units"] = str(source.grid[name].attrs.get("units", "deg"))
        positioners[name] = scan[f"measurement/{name}"] = dataset
    _write_parameters(instrument.create_group("fscan_parameters"), source)
    _write_camera(instrument[DETECTOR], source)
    scan[f"measurement/{DETECTOR}"] = instrument[f"{DETECTOR}/data"]


def _about(scan: Any, source: Source) -> None:
    """Title, times, sample and writer, of either scan."""
    scan["title"], scan["start_time"], scan["end_time"], scan["end_reason"] = _command(source), STARTED, _ended(source), "SUCCESS"
    scan["instrument/name"] = "ESRF-ID03"
    scan["instrument/name"].attrs["short_name"] = "id03"
    scan["sample/name"] = f"simulation of {source.provenance.get('input_file', 'a crystal')}"
    scan["writer/status"], scan["writer/date"] = "SUCCEEDED", STARTED
    scan.require_group("measurement")
    _classes(scan, NXsample="sample", NXnote="writer", NXinstrument="instrument", NXcollection="measurement")


def _command(source: Source) -> str:
    """The command of the scan: fscan, fscan2d or fscan3d with motor, start, step and points, slowest first."""
    groups = [f"{name} {start:.7g} {step:.7g} {count}" for name, start, step, count in _axes(source)]
    kind = "fscan" if len(groups) == 1 else f"fscan{len(groups)}d"
    return f"{kind} {' '.join(groups)} {EXPOSURE_S:g} {PERIOD_S:g}"


def _axes(source: Source) -> list[tuple[str, float, float, int]]:
    """Motor, start, step and points of each axis; the fast motor starts half a step before its first place."""
    found = []
    for number, name in enumerate(source.grid.dims):
        values = np.asarray(source.grid[name].values, np.float64)
        step = float(values[-1] - values[0]) / max(1, len(values) - 1)
        start = float(values[0]) - (step / 2 if number == len(source.shape) - 1 else 0)
        found.append((str(name), start, step, len(values)))
    return found


def _places(source: Source) -> dict[str, np.ndarray]:
    """Place of each motor at each frame, as measured where the source says so, shape (frame,)."""
    mesh = np.meshgrid(*(source.grid[name].values for name in source.grid.dims), indexing="ij")
    nominal = {str(name): values for name, values in zip(source.grid.dims, mesh, strict=True)}
    measured = {n: source.grid[f"measured_{n}"].values for n in nominal if f"measured_{n}" in source.grid}
    return {name: np.asarray(values, np.float64).ravel() for name, values in (nominal | measured).items()}


def _standing(source: Source) -> dict[str, float]:
    """Motors that stand still: those the geometry decides, and the rest of the goniometer, on one of its two bases."""
    base = ("diffry", "diffrz") if {"diffry", "diffrz"} & set(source.grid.dims) else ("mu", "omega")
    found = dict.fromkeys((*base, "chi", "phi"), 0.0)
    energy: float | None = getattr(source.geometry, "energy_kev", None)
    two_theta: float | None = getattr(source.geometry, "two_theta_deg", None)
    if energy is not None and energy > units.KEV_ANGSTROM / (2 * units.SILICON_111):
        found["ccmth"] = math.degrees(math.asin(units.KEV_ANGSTROM / (2 * units.SILICON_111 * energy)))
    if two_theta is not None:
        found["obpitch"] = float(two_theta)
    return {name: value for name, value in found.items() if name not in source.grid.dims}


def _write_parameters(group: Any, source: Source) -> None:
    """fscan_parameters, as the macros of BLISS leave them; those of a scan of three motors are in its title alone."""
    axes, kind = _axes(source), _command(source).split()[0]
    for speed, (name, start, step, count) in zip(
        ["slow_", "fast_"] if len(axes) == 2 else [""] * (len(axes) == 1), axes, strict=False
    ):
        group[f"{speed}motor"], group[f"{speed}npoints"] = name, count
        group[f"{speed}start_pos"], group[f"{speed}step_size"] = start, step
    if len(axes) == 2:
        group["fast_motor_mode"] = "REWIND"
    group["acq_time"], group["scan_mode"], group["gate_mode"] = EXPOSURE_S, "TIME", "TIME"
    group["scan_name"] = group["scan_type"] = kind
    group.attrs["NX_class"] = "NXcollection"


def _write_camera(detector: Any, source: Source) -> None:
    """What Lima says about the camera."""
    detector["description"], detector["type"] = "Pco, PCO EDGE FAMILY (simulated)", "lima"
    detector["data"].attrs["interpretation"] = "image"
    acquisition = detector.create_group("acq_parameters")
    acquisition["acq_expo_time"], acquisition["acq_nb_frames"] = EXPOSURE_S, math.prod(source.shape)
    acquisition["acq_mode"], acquisition["acq_trigger_mode"] = "SINGLE", "EXTERNAL_TRIGGER_MULTI"
    pitch: float | None = getattr(source.geometry, "pixel_um", None)
    if pitch is None:
        return
    for name in ("x_pixel_size", "y_pixel_size"):
        detector[name] = float(pitch)
        detector[name].attrs["units"] = "um"


def _write_slow_counters(scan: Any, source: Source) -> None:
    """Scan 1.2: time and ring current, twice a second."""
    elapsed = np.arange(0.0, PERIOD_S * math.prod(source.shape) + 0.5, 0.5)
    _about(scan, source)
    counters = {"elapsed_time": ("value", elapsed, "s"), "sbcurr": ("signal", 200 * np.exp(-elapsed / 2e5), "mA")}
    for name, (kind, values, unit) in counters.items():
        dataset = scan.create_dataset(f"instrument/{name}/{kind}", data=values)
        dataset.attrs["units"] = unit
        scan[f"measurement/{name}"] = dataset
    _classes(scan, NXentry=".", NXpositioner="instrument/elapsed_time", NXdetector="instrument/sbcurr")


def _ended(source: Source) -> str:
    """When the scan ended, in the first day of the year."""
    end = np.datetime64(STARTED[:26]) + np.timedelta64(int(1e6 * PERIOD_S * math.prod(source.shape)), "us")
    return f"{end}{STARTED[26:]}"


def _classes(group: Any, **places: str) -> None:
    """NeXus classes of groups."""
    for kind, where in places.items():
        group[where].attrs["NX_class"] = kind
