"""EDF files: one frame a file, in a series, or several in a file; also gzip-compressed.

The headers give the motors (`motor_mne`, `motor_pos`) and the scan's command (`scan`, as ID06 writes it, or `title`). The motor
that the command names is the axis; without a command it is the motors that vary. `point_no` puts each frame at its point, so
that lost frames leave a gap where they are missing. A file of a series stands for the whole series it belongs to.
"""

from __future__ import annotations

import bz2
import gzip
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from .positions import Placed, Plan, from_measured, on_given_grid, parse_command, place
from .series import PageFrames, check_not_empty, has_suffix, is_image_folder, prefix_of, series_in, unequal

FORMAT = "EDF"
RANK = 40
SUFFIXES = (".edf", ".edf.gz", ".edf.bz2")

_TYPES = {
    **dict.fromkeys(("unsignedbyte", "uint8"), "u1"),
    **dict.fromkeys(("signedbyte", "int8"), "i1"),
    **dict.fromkeys(("unsignedshort", "uint16"), "u2"),
    **dict.fromkeys(("signedshort", "int16"), "i2"),
    **dict.fromkeys(("unsignedinteger", "unsignedlong", "uint32"), "u4"),
    **dict.fromkeys(("signedinteger", "signedlong", "int32"), "i4"),
    **dict.fromkeys(("unsigned64", "uint64"), "u8"),
    **dict.fromkeys(("signed64", "int64"), "i8"),
    **dict.fromkeys(("floatvalue", "float", "real", "float32"), "f4"),
    **dict.fromkeys(("doublevalue", "double", "float64"), "f8"),
}
_NOT_MOTORS = (
    "image",
    "size",
    "dim_",
    "offset",
    "run",
    "point_no",
    "scan_no",
    "epoch",
    "time",
    "preset",
    "edf_",
    "headerid",
    "col_",
    "row_",
)


def matches(path: Path) -> bool:
    """Whether the path is an EDF file or a folder with EDF files."""
    path = Path(path)
    return (has_suffix(path, SUFFIXES) and path.is_file()) or is_image_folder(path, SUFFIXES)


def scans(path: Path, *, detector: str | None = None, grid: Sequence[int] | None = None) -> Iterator[Scan]:
    """The series of a folder, or the one that a file belongs to.

    grid: Length of each scan axis, slowest first, instead of what the headers say.
    Raises InputError where a file cannot be read or the frames of a series differ in size.
    """
    path = Path(path)
    if path.is_file():
        check_not_empty(path, "an EDF image")
        prefix = prefix_of(path, SUFFIXES)
        files = series_in(path.parent, SUFFIXES).get(prefix, [path])
        yield _scan(path, prefix.rstrip("_-.") or path.name, files if path in files else [path], grid)
        return
    for prefix, files in series_in(path, SUFFIXES).items():
        yield _scan(path, prefix.rstrip("_-.") or path.name, files, grid)


def read_header(path: Path, start: int = 0) -> dict[str, str]:
    """The header of an EDF frame; keys in lower case. `data_start` is where in the (uncompressed) file the counts begin.

    start: Where in the file the header begins.
    Raises InputError where there is none.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else bz2.open if path.suffix == ".bz2" else open
    check_not_empty(path, "an EDF image")
    raw = b""
    try:
        with opener(path, "rb") as file:
            file.seek(start)
            while b"}\n" not in raw and len(raw) < 2**20 and (more := file.read(8192)):
                raw += more
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error})") from None
    if not raw.lstrip().startswith(b"{") or b"}\n" not in raw:
        raise InputError(f"{path} is not an EDF file: it has no header in braces")
    end = raw.index(b"}\n") + 2
    header = {"data_start": str(start + end)}
    for line in raw[raw.index(b"{") + 1 : end - 2].decode("latin-1").split(";"):
        key, separator, value = line.partition("=")
        if separator:
            header[key.strip().lower()] = value.strip()
    return header


def _scan(path: Path, name: str, files: list[Path], grid: Sequence[int] | None) -> Scan:
    """One series as a Scan."""
    frames = [(file, place, header) for file in files for place, header in _frames_in(file)]
    headers, pages = [header for _, _, header in frames], [(file, place) for file, place, _ in frames]
    shape, dtype = _frame_shape(headers[0], files[0]), _dtype(headers[0], files[0])
    for file, _, header in frames:
        if _frame_shape(header, file) != shape:
            raise InputError(unequal(file, _frame_shape(header, file), files[0], shape))
    motors = _motors(headers)
    command = next((headers[0][k] for k in ("scan", "title", "scan_title") if parse_command(headers[0].get(k, ""))), "")
    placed = _placed(command, headers, motors, len(pages), grid)
    moving = {axis.name for axis in placed.axes}
    still = {n: float(v[0]) for n, v in motors.items() if n not in moving and np.isfinite(v[0])}
    metadata: dict[str, Any] = {
        "motors": still,
        "files": f"{files[0].name} .. {files[-1].name}" if len(files) > 1 else files[0].name,
    }
    for key, header_key in (("date", "date"), ("folder", "dir"), ("exposure_s", "count_time")):
        if header_key in headers[0]:
            metadata[key] = headers[0][header_key]
    folder = str(metadata.get("folder", ""))
    dfxm = re.search(r"/(id06|id03|hxm)/", folder) is not None
    return Scan(
        path,
        name,
        tuple(replace(axis, unit=_unit(axis.name)) for axis in placed.axes),
        PageFrames(pages, shape, dtype, partial(load, shape=shape, stored=dtype)),
        placed.order,
        placed.positions,
        modality="dfxm" if dfxm else None,
        title=command or headers[0].get("title", ""),
        metadata=metadata,
        missing=placed.missing,
    )


def load(path: Path, place: int, *, shape: tuple[int, int], stored: np.dtype[Any]) -> np.ndarray:
    """One frame of an EDF file, shape (row, column). Raises InputError where it cannot be read.

    place: Where in the file its counts begin; in a compressed file, its number.
    stored: Type and byte order in the file.
    """
    try:
        if not _is_packed(path):
            return np.fromfile(path, stored, math.prod(shape), offset=place).reshape(shape)
        import fabio

        with fabio.open(str(path)) as image:
            return np.asarray(image.data if place == 0 else image.get_frame(place).data)
    except (OSError, ValueError, EOFError, AssertionError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({error})") from None


def _is_packed(path: Path) -> bool:
    return path.suffix in (".gz", ".bz2")


def _frames_in(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Where each frame of a file is, as `load` takes it, and its header.

    Raises InputError where the file is cut short or its frames differ in size.
    """
    header = read_header(path)
    if header.get("compression", "none").lower() not in ("", "none"):
        raise InputError(
            f"{path} holds counts compressed as {header['compression']}, which is not read here; gzip the file instead"
        )
    if path.suffix == ".bz2":
        return [(0, header)]
    size = path.stat().st_size
    if path.suffix == ".gz":  # its last four bytes are the size of what it holds
        with open(path, "rb") as file:
            file.seek(-4, 2)
            size = int.from_bytes(file.read(4), "little")
    frames, end = [(int(header["data_start"]), header)], _end(path, header)
    while size > end + 512 and not _is_packed(path):  # some programs pad the file
        header = read_header(path, end)
        frames.append((int(header["data_start"]), header))
        end = _end(path, header)
    if size < end:
        raise InputError(f"{path} is cut short: {size} bytes, its headers and counts need {end}")
    if _is_packed(path):
        return [(number, header) for number in range(_packed_count(path) if size > end + 512 else 1)]
    return frames


def _end(path: Path, header: Mapping[str, str]) -> int:
    """Where the counts of a frame end."""
    return int(header["data_start"]) + math.prod(_frame_shape(header, path)) * _dtype(header, path).itemsize


def _packed_count(path: Path) -> int:
    import fabio

    with fabio.open(str(path)) as image:
        return int(image.nframes)


def _frame_shape(header: Mapping[str, str], path: Path) -> tuple[int, int]:
    """Rows and columns."""
    try:
        return int(header["dim_2"]), int(header["dim_1"])
    except (KeyError, ValueError):
        raise InputError(f"{path} is no EDF image: its header lacks whole numbers Dim_1 and Dim_2") from None


def _dtype(header: Mapping[str, str], path: Path) -> np.dtype[Any]:
    kind = header.get("datatype", "").lower()
    if kind not in _TYPES:
        raise InputError(f"{path} has DataType '{kind}'; known are: {', '.join(sorted(_TYPES))}")
    low_first = header.get("byteorder", "LowByteFirst").lower() == "lowbytefirst"
    return np.dtype(_TYPES[kind]).newbyteorder("<" if low_first else ">")


def _motors(headers: Sequence[Mapping[str, str]]) -> dict[str, np.ndarray]:
    """Positions of each motor, one for each frame, NaN where a header has none. Without motor lists: every number that varies."""
    tables = [dict(zip(h.get("motor_mne", "").split(), h.get("motor_pos", "").split(), strict=False)) for h in headers]
    if not any(tables):
        words = {k for k, v in headers[0].items() if _float(v) is not None and not k.startswith(_NOT_MOTORS) and "time" not in k}
        tables = [{k: h.get(k, "") for k in words} for h in headers]
        tables = [{k: t[k] for k in t if len({u[k] for u in tables}) > 1} for t in tables]
    names = {name: None for table in tables for name in table}
    values = {name: [_float(table.get(name, "")) for table in tables] for name in names}
    return {name: np.array([math.nan if v is None else v for v in column]) for name, column in values.items()}


def _float(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _placed(
    command: str, headers: Sequence[Mapping[str, str]], motors: Mapping[str, np.ndarray], count: int, grid: Sequence[int] | None
) -> Placed:
    """Axes and the place of each frame."""
    varying = {n: v for n, v in motors.items() if np.isfinite(v).all() and np.ptp(v) > 0}
    plan = parse_command(command)
    if grid is not None:
        return on_given_grid(grid, count, varying, {})
    if plan is None or math.prod(plan.shape) < count:
        return from_measured(
            {n: v for n, v in motors.items() if n in varying or (np.isnan(v).any() and np.isfinite(v).any())}, {}, count=count
        )
    points = _point_numbers(headers, count, math.prod(plan.shape))
    last = int(points[-1]) + 1
    measured = {n: np.full(last, np.nan) for n in plan.motors if n in motors}
    for name, values in measured.items():
        values[points] = motors[name]
    return _with_gaps(place(plan, last, measured), points, plan)


def _point_numbers(headers: Sequence[Mapping[str, str]], count: int, planned: int) -> np.ndarray:
    """Which point of the scan each frame is, rising: as `point_no` says, else one after the other."""
    stated = [_float(header.get("point_no", "")) for header in headers]
    if len(stated) == count and all(s is not None and s == int(s) for s in stated):
        points = np.array(stated, np.int64)
        if (np.diff(points) > 0).all() and points[0] >= 0 and points[-1] < planned:
            return points
    return np.arange(count)


def _with_gaps(placed: Placed, points: np.ndarray, plan: Plan) -> Placed:
    """The same for the frames at these points only, saying how many are missing."""
    lost, planned = math.prod(plan.shape) - len(points), math.prod(plan.shape)
    last = int(points[-1]) + 1
    gaps = f", {last - len(points)} of them in between" if last > len(points) else ""
    missing = [phrase for phrase in placed.missing if phrase.startswith("measured") and " at " not in phrase]
    if lost:
        missing.insert(0, f"{lost} of {planned} frames (the last one there is number {last}{gaps})")
    return replace(placed, order=placed.order[points], missing=tuple(missing))


def _unit(motor: str) -> str:
    """Unit of the motors known to turn at ID06; SPEC writes none."""
    turns = ("diffry", "diffrz", "chi", "phi", "mu", "omega", "obpitch", "obyaw", "ffpitch", "mono", "eta")
    return "deg" if motor in turns else ""
