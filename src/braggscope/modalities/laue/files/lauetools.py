"""LaueTools' calibration (.det) and peak lists (.cor, .dat), read and written.

A .det file says dd, xcen, ycen, xbet, xgam, the pixel in mm and the frame (rows, columns) in its first line, then with what it
was calibrated, and all of it again as "# name : value". A .cor file lists 2 theta, chi, X, Y, I and perhaps the columns of the
.dat file that it was made from, then the calibration. X and Y count from 1 at the centre of the first pixel. The column I is the
height of a peak above its background, and peak_fwaxmaj and peak_fwaxmin hold the two sigma of a Gaussian in spite of their
name, so that the integrated intensity is 2 pi I times both; where they are missing, I is all there is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from braggscope.core.errors import InputError

from ..geometry import LaueGeometry
from .table import peak_table, stated_geometry
from .text import numbers, text_of, write_lines

FIVE = ("dd", "xcen", "ycen", "xbet", "xgam")
NAMES = {
    "X": "column", "Y": "row", "peak_X": "column", "peak_Y": "row", "2theta": "two_theta", "chi": "chi",
    "peak_Isub": "amplitude", "peak_bkg": "background", "peak_fwaxmaj": "sigma_major", "peak_fwaxmin": "sigma_minor",
    "peak_inclination": "inclination", "Ipixmax": "maximum", "Xfiterr": "column_std", "Yfiterr": "row_std",
}  # fmt: skip
"""LaueTools' columns under the names of this program; the rest is derived from these."""
DAT = "peak_X peak_Y peak_Itot peak_Isub peak_fwaxmaj peak_fwaxmin peak_inclination Xdev Ydev peak_bkg Ipixmax"


def read_det(path: str | Path) -> LaueGeometry:
    """The geometry of a .det file; the material is the one that it was calibrated with, the band of energies the default.

    Raises InputError for one without calibration and for a detector that is not on top (kf_direction other than Z>0).
    """
    text = text_of(path)
    line = (text.splitlines() or [""])[0]
    values = numbers(line.split("#")[0], path, "the first line of a .det file")
    if len(values) < 6:
        raise InputError(
            f"{path}: the first line of a .det file must have at least dd, xcen, ycen, xbet, xgam and the pixel in mm, got "
            f"{len(values)} numbers"
        )
    stated = _remarks(text) | dict(zip(FIVE, map(str, values), strict=False)) | {"pixelsize": str(values[5])}
    if len(values) >= 8:
        stated["framedim"] = f"({values[6]:g}, {values[7]:g})"
    return _geometry(stated, path)


def write_det(path: str | Path, geometry: LaueGeometry, *, u: np.ndarray | None = None, source: str = "") -> None:
    """Write a calibration as LaueTools reads it, to all digits.

    u: Orientation of the calibrant, shape (3, 3).  source: The data of the calibration, for its reader.
    Raises InputError for a geometry with a roll, which the format cannot say.
    """
    _no_roll(geometry, path)
    p, rows, columns = geometry.pixel_um / 1e3, geometry.rows or 0, geometry.columns or 0
    first = (geometry.distance_mm, geometry.xcen_px, geometry.ycen_px, geometry.xbet_deg, geometry.xgam_deg, p)
    matrix = np.eye(3) if u is None else np.asarray(u)
    text = [
        ", ".join([*(f"{value!r}" for value in first), f"{rows}", f"{columns}"]),
        "Sample-Detector distance(IM), xO, yO, angle1, angle2, pixelsize, dim1, dim2",
        f"Calibration done with {geometry.material or 'unknown'} at {time.asctime()} with braggscope",
        f"Experimental Data file: {source or 'unknown'}",
        "Orientation Matrix:",
        "[" + ",".join("[" + ",".join(f"{value:.9f}" for value in row) + "]" for row in matrix) + "]",
        *([f"# Material : {geometry.material}"] if geometry.material else []),
        *_calibration_lines(geometry),
    ]
    write_lines(path, text)


def read_cor(path: str | Path) -> xr.Dataset:
    """The peak table of a .cor file, with the geometry of the calibration that it states.

    Angles are as the file has them, to its five digits. Raises InputError for a file without columns X and Y.
    """
    columns, text = _columns(path)
    remarks = _remarks(text)
    geometry = _geometry(remarks, path) if all(name in remarks for name in FIVE) else None
    return peak_table(_named(columns, path), geometry, {"table_file": Path(path).name})


def write_cor(path: str | Path, table: xr.Dataset, geometry: LaueGeometry | None = None) -> None:
    """Write a peak table as LaueTools and LaueNN read it: 2 theta, chi, X, Y, I, and the calibration.

    geometry: That of the angles; where left out, the one that the table states.
    Raises InputError where there is none, or one with a roll.
    """
    geometry = geometry if geometry is not None else stated_geometry(table)
    if geometry is None:
        raise InputError(f"{path}: a .cor file needs the geometry of its angles; give one")
    _no_roll(geometry, path)
    columns = {"row": table["row"].values, "column": table["column"].values}
    angles = peak_table(columns, geometry)
    height = table["amplitude" if "amplitude" in table else "intensity"].values
    listed = np.stack(
        [angles["two_theta"], angles["chi"], columns["column"] + 1, columns["row"] + 1, np.nan_to_num(height)], axis=-1
    )[np.isfinite(columns["row"])]
    text = ["2theta       chi         X           Y           I       "]
    text += ["   ".join(f"{value:.6f}" for value in line) for line in listed]
    text += [f"# File created at {time.asctime()} with braggscope", "# Calibration parameters"]
    write_lines(path, text + _calibration_lines(geometry))


def read_dat(path: str | Path) -> xr.Dataset:
    """The peak table of a .dat file (LaueTools' peak search); it states no geometry."""
    columns, _ = _columns(path)
    return peak_table(_named(columns, path), None, {"table_file": Path(path).name})


def write_dat(path: str | Path, table: xr.Dataset) -> None:
    """Write a peak table as LaueTools' peak search does; columns that the table lacks are 0, sigma 1 px."""
    count = table.sizes["peak"]

    def column(name: str, missing: float = 0.0) -> np.ndarray:
        return np.nan_to_num(table[name].values) if name in table else np.full(count, missing)

    height = column("amplitude" if "amplitude" in table else "intensity")
    background = column("background")
    highest = column("maximum") if "maximum" in table else height + background
    listed = [
        table["column"].values + 1, table["row"].values + 1, height + background, height, column("sigma_major", 1.0),
        column("sigma_minor", 1.0), column("inclination") % 360, column("none"), column("none"), background, highest,
    ]  # fmt: skip
    kept = np.isfinite(table["row"].values)
    lines = ["   ".join([*(f"{v:.4f}" for v in line[:-1]), f"{line[-1]:.0f}"]) for line in np.stack(listed, -1)[kept]]
    ends = [f"# File created at {time.asctime()} with braggscope", f"# Comments: nb of peaks {kept.sum()}"]
    write_lines(path, [DAT, *lines, *ends])


def named_peaks(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """LaueTools' columns under the names of this program, pixels from 0; the integrated intensity where the widths are known."""
    found: dict[str, np.ndarray] = {}
    for theirs, values in columns.items():
        if theirs in NAMES and NAMES[theirs] not in found:
            found[NAMES[theirs]] = values - 1 if NAMES[theirs] in ("row", "column") else values
    height = columns.get("I", columns.get("Intensity", found.get("amplitude")))
    if height is not None:
        found["intensity"] = height
        if "sigma_major" in found:
            found["amplitude"] = found.get("amplitude", height)
            found["intensity"] = 2 * np.pi * found["amplitude"] * found["sigma_major"] * found["sigma_minor"]
    return found


def _named(columns: dict[str, np.ndarray], path: str | Path) -> dict[str, np.ndarray]:
    found = named_peaks(columns)
    if "row" not in found or "column" not in found:
        raise InputError(f"{path} must list the columns X and Y (or peak_X and peak_Y), got: {', '.join(columns)}")
    return found


def _columns(path: str | Path) -> tuple[dict[str, np.ndarray], str]:
    """The columns of a list by the names in its first line, and the whole text."""
    text = text_of(path)
    lines = text.splitlines() or [""]
    names = lines[0].lstrip("# ").split()
    rows = [numbers(line, path, f"line {i}") for i, line in enumerate(lines[1:], 2) if line.strip() and not line.startswith("#")]
    if not rows:
        raise InputError(f"{path} lists no peaks")
    wrong = next((i for i, row in enumerate(rows) if len(row) < len(names)), None)
    if wrong is not None:
        raise InputError(f"{path}: peak {wrong + 1} must have the {len(names)} columns of the first line, got {len(rows[wrong])}")
    return dict(zip(names, np.array([row[: len(names)] for row in rows]).T, strict=True)), text


def _remarks(text: str) -> dict[str, str]:
    """What the lines "# name : value" say."""
    pairs = [line[1:].split(":", 1) for line in text.splitlines() if line.startswith("#") and ":" in line]
    return {name.strip(): value.strip() for name, value in pairs}


def _geometry(stated: Mapping[str, str], path: str | Path) -> LaueGeometry:
    """The geometry of LaueTools' parameters by name."""
    side = stated.get("kf_direction", "Z>0")
    if side != "Z>0":
        raise InputError(
            f"{path}: kf_direction must be Z>0 (a detector above the sample), got {side}; the parameters of LaueTools mean other "
            f"angles there; calibrate again with Z>0"
        )
    if "pixelsize" not in stated:
        raise InputError(f"{path} states a calibration without 'pixelsize' (mm); add a line '# pixelsize : VALUE'")
    values: dict[str, Any] = {
        name: numbers(stated[theirs], path, theirs, 1)[0]
        for name, theirs in zip(("distance_mm", "xcen_px", "ycen_px", "xbet_deg", "xgam_deg"), FIVE, strict=True)
    }
    frame = [int(n) for n in numbers(stated["framedim"], path, "framedim", 2)] if "framedim" in stated else [0, 0]
    size = {"rows": frame[0], "columns": frame[1]} if min(frame) > 0 else {}
    material = {"material": stated["Material"]} if stated.get("Material") else {}
    pixel_um = round(1e3 * numbers(stated["pixelsize"], path, "pixelsize", 1)[0], 9)
    return LaueGeometry.from_mapping({**values, "pixel_um": pixel_um, **size, **material}, where=str(path))


def _calibration_lines(geometry: LaueGeometry) -> list[str]:
    p = geometry.pixel_um / 1e3
    values = {
        "dd": geometry.distance_mm, "xcen": geometry.xcen_px, "ycen": geometry.ycen_px, "xbet": geometry.xbet_deg,
        "xgam": geometry.xgam_deg, "pixelsize": p, "xpixelsize": p, "ypixelsize": p,
    }  # fmt: skip
    lines = [f"# {name} : {value!r}" for name, value in values.items()]
    if geometry.rows and geometry.columns:
        lines.append(f"# framedim : ({geometry.rows}, {geometry.columns})")
        lines.append(f"# detectordiameter : {max(geometry.rows, geometry.columns) * p * 1.1:.6f}")
    return [*lines, "# kf_direction : Z>0"]


def _no_roll(geometry: LaueGeometry, path: str | Path) -> None:
    if abs(geometry.roll_deg) > 1e-9:
        raise InputError(
            f"{path}: LaueTools has no turn of the laboratory about the beam, but the geometry has roll_deg "
            f"{geometry.roll_deg:g}; set roll_deg = 0 to write the detector in the turned laboratory"
        )
