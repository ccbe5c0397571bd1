"""Indexed patterns of XMAS (.str, .ind), read.

Pixels are LaueTools' (from 1), and so are the five parameters of the calibration (dd, xcen, ycen, xbet, xgam), but the size of
a pixel is not in the files. Orientations are in XMAS' sample frame (`frames.from_xmas`). Versions of XMAS differ in the sign of
h, k and l: here the sign is the one with which the grain diffracts, q_x < 0. The layout is the one that LaueTools reads, of files
of 2006; later versions of XMAS are said to turn xgam round.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from braggscope.core.errors import InputError

from ..detector import HC
from ..frames import XMAS_TILT_DEG, from_xmas
from ..geometry import LaueGeometry
from .grains import IndexedGrain, table_of
from .table import peak_table
from .text import numbers, text_of

STR = ("x", "y", "h", "k", "l", "dev_x", "dev_y", "energy", "d", "intens", "integr", "xwidth", "ywidth", "tilt")
IND = ("x", "y", "h", "k", "l", "angle", "dev_x", "dev_y", "energy", "theta", "intens", "integr", "xwidth", "ywidth", "tilt")


def read_str(path: str | Path, *, pixel_um: float | None = None, tilt_deg: float = XMAS_TILT_DEG) -> list[IndexedGrain]:
    """The grains of a .str file (refined strain), UB in the laboratory.

    pixel_um: Size of a pixel; without it, the grains carry no geometry, but facts["calibration"] has the five parameters.
    tilt_deg: Tilt of the sample that XMAS was told.
    Raises InputError where a grain lacks its spots, or the file its calibration or matrices.
    """
    lines = text_of(path).splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("Grain no")]
    if not starts:
        raise InputError(f"{path} must have a part 'Grain no' for each grain, but has none")
    parts = [lines[a:b] for a, b in zip(starts, [*starts[1:], len(lines)], strict=True)]
    five = _calibration(lines, path)
    return [grain for part in parts if (grain := _refined(part, five, pixel_um, tilt_deg, path)) is not None]


def read_str_table(path: str | Path) -> xr.Dataset:
    """The indexed peaks of all grains of a .str file as one table; the calibration is in the attributes, dd first."""
    grains = read_str(path)
    if not grains:
        raise InputError(f"{path} holds no indexed grain")
    return table_of(grains).assign_attrs(table_file=Path(path).name, xmas_calibration=grains[0].facts["calibration"])


def read_ind(path: str | Path, *, xbet_deg: float, tilt_deg: float = XMAS_TILT_DEG) -> IndexedGrain:
    """The first grain of an .ind file (indexation): spots and unstrained orientation, UB in the laboratory.

    xbet_deg: Of the calibration, which the file does not have.
    """
    lines = text_of(path).splitlines()
    columns = _spots_after_count(lines, path)
    ub, hkl = _scaled(from_xmas(xbet_deg, tilt_deg=tilt_deg) @ _matrix_after(lines, "matrix hkl", path), columns)
    return IndexedGrain(ub=ub, peaks={**_peaks(columns), **hkl})


def read_ind_table(path: str | Path) -> xr.Dataset:
    """The indexed peaks of an .ind file as a table; h, k, l have the sign of the file."""
    columns = _spots_after_count(text_of(path).splitlines(), path)
    return peak_table({**_peaks(columns), **{name: columns[name] for name in "hkl"}}, None, {"table_file": Path(path).name})


def _refined(
    part: list[str], five: list[float], pixel_um: float | None, tilt_deg: float, path: str | Path
) -> IndexedGrain | None:
    end = next((i for i, line in enumerate(part) if line.startswith("latticeparameters")), len(part))
    columns = _spots(part[2:end], STR, path)
    if not columns:
        return None  # XMAS lists grains that it gave up, without spots
    stars = _matrix_after(part, "coordinates of a*", path)  # a*, b*, c*, a line to each
    ub, hkl = _scaled(from_xmas(five[3], tilt_deg=tilt_deg) @ stars.T, columns)
    has_strain = any(line.startswith("deviatoric strain in crystal") for line in part)
    return IndexedGrain(
        ub=ub,
        peaks={**_peaks(columns), **hkl},
        mean_deviation_px=float(np.hypot(columns["dev_x"], columns["dev_y"]).mean()),
        strain=_matrix_after(part, "deviatoric strain in crystal", path) / 1e3 if has_strain else None,
        geometry=_geometry(five, pixel_um, path),
        facts={"calibration": five},
    )


def _scaled(ub: np.ndarray, columns: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """UB in 1/angstrom, and h, k, l with the sign that diffracts.

    Neither unit nor length of a* is the same in all files, but the energies of the spots, E = hc |q|^2 / (-2 q_x), say it.
    """
    hkl = np.stack([columns[name] for name in "hkl"], -1)
    q = hkl @ ub.T
    sign = -np.sign(np.median(q[:, 0]))
    scale = np.median(columns["energy"] / (HC * (q**2).sum(1) / (-2 * sign * q[:, 0])))
    return ub * scale, {name: sign * columns[name] for name in "hkl"}


def _peaks(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of XMAS under the names of this program, pixels from 0."""
    named = {
        "column": columns["x"] - 1, "row": columns["y"] - 1, "energy": columns["energy"], "amplitude": columns["intens"],
        "intensity": columns["integr"], "deviation": np.hypot(columns["dev_x"], columns["dev_y"]),
    }  # fmt: skip
    return named


def _geometry(five: list[float], pixel_um: float | None, path: str | Path) -> LaueGeometry | None:
    if pixel_um is None:
        return None
    names = ("distance_mm", "xcen_px", "ycen_px", "xbet_deg", "xgam_deg")
    return LaueGeometry.from_mapping({**dict(zip(names, five, strict=True)), "pixel_um": pixel_um}, where=str(path))


def _calibration(lines: list[str], path: str | Path) -> list[float]:
    """dd (mm), xcen, ycen (px), xbet, xgam (degrees)."""
    found = []
    for start, count in (("dd,", 3), ("xbet,", 2)):
        line = next((one for one in lines if one.startswith(start)), None)
        if line is None:
            raise InputError(
                f"{path} must state the calibration (dd, xcen, ycen and xbet, xgam), but lacks '{start.rstrip(',')}'"
            )
        found += numbers(line.split()[-count:], path, f"the line '{start}'", count)
    return found


def _spots(lines: list[str], names: tuple[str, ...], path: str | Path) -> dict[str, np.ndarray]:
    rows = [numbers(line, path, "a spot") for line in lines if line.strip()]
    if not rows:
        return {}
    count = min(len(row) for row in rows)
    if count < names.index("integr") + 1:
        raise InputError(f"{path}: a spot must have at least {names.index('integr') + 1} columns, got {count}")
    kept = min(count, len(names))
    return dict(zip(names, np.array([row[:kept] for row in rows]).T, strict=False))


def _spots_after_count(lines: list[str], path: str | Path) -> dict[str, np.ndarray]:
    """The spots of an .ind file: their number ends the line before their names."""
    head = next((i for i, line in enumerate(lines) if line.lstrip().startswith("x(exp)")), None)
    if not head:
        raise InputError(f"{path} must name the columns of its spots (x(exp) y(exp) h k l ...), but does not")
    count = int(numbers(lines[head - 1].split()[-1:], path, "the number of spots", 1)[0])
    columns = _spots(lines[head + 1 : head + 1 + count], IND, path)
    if not columns:
        raise InputError(f"{path} lists no spots")
    return columns


def _matrix_after(lines: list[str], start: str, path: str | Path) -> np.ndarray:
    place = next((i for i, line in enumerate(lines) if line.startswith(start)), None)
    if place is None:
        raise InputError(f"{path} must have the matrix '{start} ...', but has none")
    rows = [numbers(line.split()[:3], path, f"the matrix '{start}'", 3) for line in lines[place + 1 : place + 4]]
    if len(rows) < 3:
        raise InputError(f"{path}: the matrix '{start}' must have three lines, got {len(rows)}")
    return np.array(rows)
