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


def read_header(path: Path) -> dict[str, str]:
    """The first header of an EDF file; keys in lower case. `header_bytes` is where the counts begin.

    Raises InputError where there is none.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else bz2.open if path.suffix == ".bz2" else open
    check_not_empty(path, "an EDF image")
    raw = b""
    try:
        with opener(path, "rb") as file:
            while b"}\n" not in raw and len(raw) < 2**20 and (more := file.read(8192)):
                raw += more
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error})") from None
    if not raw.lstrip().startswith(b"{") or b"}\n" not in raw:
        raise InputError(f"{path} is not an EDF file: it has no header in braces")
    end = raw.index(b"}\n") + 2
    header = {"header_bytes": str(end)}
    for line in raw[raw.index(b"{") + 1 : end - 2].decode("latin-1").split(";"):
        key, separator, value = line.partition("=")
        if separator:
            header[key.strip().lower()] = value.strip()
    return header


def _scan(path: Path, name: str, files: list[Path], grid: Sequence[int] | None) -> Scan:
    """One series as a Scan."""
    headers = [read_header(file) for file in files]
    shape, dtype = _frame_shape(headers[0], files[0]), _dtype(headers[0], files[0])
    for file, header in zip(files, headers, strict=True):
        if _frame_shape(header, file) != shape:
            raise InputError(unequal(file, _frame_shape(header, file), files[0], shape))
    pages = [(file, page) for file, header in zip(files, headers, strict=True) for page in range(_frame_count(file, header))]
    motors = _motors(headers) if len(pages) == len(files) else {}
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
        PageFrames(pages, shape, dtype, load),
        placed.order,
        placed.positions,
        modality="dfxm" if dfxm else None,
        title=command or headers[0].get("title", ""),
        metadata=metadata,
        missing=placed.missing,
    )


def load(path: Path, page: int) -> np.ndarray:
    """One frame of an EDF file, shape (row, column). Raises InputError where it cannot be decoded."""
    import fabio

    try:
        with fabio.open(str(path)) as image:
            return np.asarray(image.data if page == 0 else image.get_frame(page).data)
    except (OSError, ValueError, EOFError, AssertionError, AttributeError) as error:
        raise InputError(f"{path}: frame {page} cannot be read ({error})") from None


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
    return np.dtype(_TYPES[kind])


def _frame_count(path: Path, header: Mapping[str, str]) -> int:
    """Frames in a file: more than one where it is larger than one header and one frame."""
    rows, columns = _frame_shape(header, path)
    expected = int(header["header_bytes"]) + rows * columns * _dtype(header, path).itemsize
    size = path.stat().st_size
    if path.suffix == ".gz":  # its last four bytes are the size of what it holds
        with open(path, "rb") as file:
            file.seek(-4, 2)
            size = int.from_bytes(file.read(4), "little")
    if size < expected and path.suffix in (".edf", ".gz") and header.get("compression", "none").lower() in ("", "none"):
        raise InputError(f"{path} is cut short: {size} bytes, its header and {rows} x {columns} counts need {expected}")
    if path.suffix == ".bz2" or size <= expected + 512:
        return 1
    import fabio

    with fabio.open(str(path)) as image:
        return int(image.nframes)


def _motors(headers: Sequence[Mapping[str, str]]) -> dict[str, np.ndarray]:
    """Positions of each motor, one for each file, NaN where a header has none. Without motor lists: every number that varies."""
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
