"""Peaks and indexed patterns of APS 34-ID: PixelPeakList, PeaksFile and IndexFile; the last two are written, too.

Pixels there count from 0 in the binned region of interest, so that a place x lies at start + group (x + 1/2) - 1/2 on the
detector. Directions G^ are unit vectors of q in the APS laboratory (`frames`); the reciprocal lattice is a*, b*, c*, a brace to
each, in 1/nm with 2 pi. Intensities of an index file are calculated, relative to the strongest. Peaks are numbered from 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.physics.crystals import Crystal

from ..detector import HC
from ..frames import FROM_APS, about_beam, rotation_of, ub_from_aps, ub_to_aps
from .grains import IndexedGrain, table_of
from .table import angles_of, peak_table
from .text import kind_of, numbers, text_of, write_lines


def read_pixels(path: str | Path) -> xr.Dataset:
    """The peak table of a PixelPeakList: rows and columns of the whole, unbinned detector; it states no geometry.

    The column `intens` (height) becomes `amplitude`, `integral` (in counts times pixels) becomes `intensity`.
    Raises InputError where the list is missing or shorter than it says.
    """
    text = text_of(path)
    header = _header(text)
    table = _listed(text, "$peakList", path)
    count = int(float(header.get("Npeaks", len(table))))
    if len(table) != count:
        raise InputError(f"{path} must list {count} peaks as it says, got {len(table)}")
    places = {ours: _whole(table[:, i], header, axis) for i, (ours, axis) in enumerate((("column", "x"), ("row", "y")))}
    extra = {"intensity": table[:, 3], "amplitude": table[:, 2]} if table.shape[1] >= 4 else {}
    return peak_table({**places, **extra}, None, _about(header, path))


def read_directions(path: str | Path) -> xr.Dataset:
    """The table of a PeaksFile: directions q_x, q_y, q_z in the laboratory of this program, with 2 theta and chi.

    It has no rows and columns; `table.placed` finds them for a geometry.
    """
    text = text_of(path)
    table = _listed(text, "$N_Ghat+Intens", path)
    q = table[:, :3] @ FROM_APS.T
    return peak_table({**_directions(q), "intensity": table[:, 3]}, None, _about(_header(text), path))


def write_directions(path: str | Path, q: np.ndarray, intensity: np.ndarray, *, roll_deg: float = 0.0) -> None:
    """Write directions of q as a PeaksFile.

    q: Scattering vectors in the laboratory of this program, of any length, shape (peak, 3).
    roll_deg: That of the geometry that they are from.
    """
    unit = q / np.linalg.norm(q, axis=-1, keepdims=True) @ about_beam(-roll_deg).T @ FROM_APS
    lines = [", ".join([*(f"{v: .7f}" for v in one), f"{value:g}"]) for one, value in zip(unit, intensity, strict=True)]
    write_lines(path, ["$filetype\t\tPeaksFile", f"$N_Ghat+Intens \t{len(lines)}\t\t// number of G^ vectors", *lines])


def read_index(path: str | Path) -> list[IndexedGrain]:
    """The indexed patterns of an IndexFile, UB in the laboratory of this program.

    The directions that it lists are calculated; where its PeaksFile lies beside it, q_x, q_y and q_z are the measured ones.
    facts: euler_deg (z, y, z), goodness, lattice (as the file has it).
    Raises InputError where a pattern lacks its reciprocal lattice.
    """
    text = text_of(path)
    header = _header(text)
    numbers_of = re.findall(r"^\$pattern(\d+)", text, re.MULTILINE)
    if not numbers_of:
        raise InputError(f"{path} must hold indexed patterns ($pattern0 ...), but has none")
    beside = Path(path).parent / Path(header.get("peakFile", "none").strip("'").replace("\\", "/")).name
    measured = read_directions(beside) if kind_of(beside) == "directions" else None
    return [_pattern(text, header, number, measured, path) for number in numbers_of]


def read_index_table(path: str | Path) -> xr.Dataset:
    """The indexed directions of all patterns of an IndexFile as one table."""
    return table_of(read_index(path)).assign_attrs(table_file=Path(path).name)


def write_index(path: str | Path, grains: Sequence[IndexedGrain], crystals: Sequence[Crystal], *, roll_deg: float = 0.0) -> None:
    """Write grains as an IndexFile.

    grains: With peaks of h, k, l; their q_x, q_y, q_z are the measured directions, of which the file gets the errors.
    crystals: Of each grain: lattice parameters of the header, and the rotation of the matrix.
    roll_deg: That of the geometry with which UB was found; the file is in the unturned laboratory.
    """
    first = crystals[0]
    a, b, c, *angles = first.lattice
    indexed = sum(len(one) for one in grains)
    text = [
        "$filetype\tIndexFile",
        f"// Found {len(grains)} patterns, indexed {indexed} spots",
        f"$NpatternsFound\t\t{len(grains)}\t\t// number of patterns found",
        f"$Nindexed\t\t{indexed} \t\t\t// number of spots indexed",
        f"$structureDesc\t\t{first.name}",
        f"$latticeParameters\t{{ {a / 10:g}, {b / 10:g}, {c / 10:g}, {angles[0]:g}, {angles[1]:g}, {angles[2]:g} }}",
        "$lengthUnit\t\t\tnm\t\t\t\t\t// length unit for lattice constants a,b,c",
        f"$SpaceGroup\t\t\t{first.space_group_number}",
    ]
    for number, (grain, crystal) in enumerate(zip(grains, crystals, strict=True)):
        text += _pattern_lines(grain, crystal, number, roll_deg)
    write_lines(path, text)


def euler_of(rotation: np.ndarray) -> np.ndarray:
    """The Euler angles of 34-ID, degrees, of a rotation from its crystal frame to the APS laboratory, shape (3, 3) -> (3,).

    Z(alpha) Y(beta) Z(gamma) = the transposed rotation; found from and checked on two files of the beamline, to 1e-7.
    """
    m = np.asarray(rotation)  # R^T = Z(a) Y(b) Z(g): R[2, 0] = cos a sin b, R[2, 1] = sin a sin b, R[0, 2] = -sin b cos g
    sine = np.hypot(m[2, 0], m[2, 1])
    if sine < 1e-12:
        return np.rad2deg(np.array([np.arctan2(-m[1, 0], m[1, 1]), np.arctan2(sine, m[2, 2]), 0.0]))
    return np.rad2deg(np.array([np.arctan2(m[2, 1], m[2, 0]), np.arctan2(sine, m[2, 2]), np.arctan2(m[1, 2], -m[0, 2])]))


def _pattern(text: str, header: dict[str, str], number: str, measured: xr.Dataset | None, path: str | Path) -> IndexedGrain:
    own = {name: header.get(f"{name}{number}") for name in ("recip_lattice", "EulerAngles", "rms_error", "goodness")}
    if own["recip_lattice"] is None:
        raise InputError(f"{path}: pattern {number} lacks $recip_lattice{number}")
    lattice = np.array(numbers(own["recip_lattice"], path, f"$recip_lattice{number}", 9)).reshape(3, 3).T
    rows = _array(text, number, path)
    q = rows[:, :3] @ FROM_APS.T
    columns = {**dict(zip("hkl", rows[:, 3:6].T, strict=True)), "energy": rows[:, 7], "deviation_deg": rows[:, 8]}
    if rows.shape[1] > 9:
        columns["source"] = rows[:, 9]
        if measured is not None and rows[:, 9].max() < measured.sizes["peak"]:
            peaks = measured.isel(peak=rows[:, 9].astype(int))
            q = np.stack([peaks[f"q_{axis}"].values for axis in "xyz"], -1)
            columns["intensity"] = peaks["intensity"].values
    columns |= _directions(q)
    euler = numbers(own["EulerAngles"], path, f"$EulerAngles{number}", 3) if own["EulerAngles"] else None
    return IndexedGrain(
        ub=ub_from_aps(lattice),
        peaks=columns,
        material=header.get("structureDesc", ""),
        rms_deg=float(own["rms_error"]) if own["rms_error"] else None,
        facts={"euler_deg": euler, "goodness": float(own["goodness"] or "nan"), "lattice": header.get("latticeParameters")},
    )


def _array(text: str, number: str, path: str | Path) -> np.ndarray:
    """The spots of a pattern: G^, h, k, l, intensity, energy, error and perhaps the number of the peak."""
    found = re.search(rf"^\$array{number}\s+(\d+)\s+(\d+)[^\n]*\n", text, re.MULTILINE)
    if found is None:
        raise InputError(f"{path}: pattern {number} lacks its spots ($array{number})")
    lines = text[found.end() :].splitlines()[: int(found[2])]
    rows = [numbers(re.sub(r"^\s*\[[^\]]*\]", "", line), path, f"a spot of $array{number}") for line in lines]
    if len(rows) < int(found[2]) or len({len(row) for row in rows}) != 1 or len(rows[0]) < 9:
        raise InputError(f"{path}: $array{number} must list {found[2]} spots of 9 or 10 numbers each")
    return np.array(rows)


def _pattern_lines(grain: IndexedGrain, crystal: Crystal, number: int, roll_deg: float) -> list[str]:
    ub = about_beam(-roll_deg) @ grain.ub
    q = grain.hkl @ ub.T
    expected = q / np.linalg.norm(q, axis=1, keepdims=True)
    measured = expected
    if "q_x" in grain.peaks:
        measured = np.stack([grain.peaks[f"q_{axis}"] for axis in "xyz"], -1) @ about_beam(-roll_deg).T
    error = np.rad2deg(2 * np.arcsin(np.clip(np.linalg.norm(measured - expected, axis=1) / 2, 0, 1)))
    energy = -HC * (q**2).sum(1) / (2 * q[:, 0])
    intensity = grain.peaks.get("intensity", np.ones(len(grain)))
    source = grain.peaks.get("source", np.arange(len(grain)))
    lattice, rotation = ub_to_aps(ub), FROM_APS.T @ rotation_of(ub, crystal)
    text = [
        "// ------------------------------------------------------------",
        "",
        f"$pattern{number} ",
        f"$EulerAngles{number} {{{', '.join(f'{a:.8f}' for a in euler_of(rotation))}}}\t// Euler angles for this pattern (deg)",
        f"$rms_error{number}\t\t{np.sqrt((error**2).mean()):.5f}\t\t\t\t\t// rms error of (measured-predicted) (deg)",
        f"$rotation_matrix{number}\t\t{_braces(rotation)}",
        f"$recip_lattice{number}\t\t{_braces(lattice)}",
        f"$array{number}\t 10 {len(grain):4d}             G^                         (hkl)       "
        "intens      E(keV)      err(deg)   PkIndex",
    ]
    for i, (g, hkl) in enumerate(zip(expected @ FROM_APS, grain.hkl, strict=True)):
        spot = f"({g[0]:10.7f} {g[1]:10.7f} {g[2]:10.7f})     ({hkl[0]:3.0f} {hkl[1]:3.0f} {hkl[2]:3.0f})"
        text.append(f"    [{i:3d}]   {spot}  {intensity[i]:8.4f},  {energy[i]:10.4f},  {error[i]:10.5f}  {source[i]:6.0f}")
    return text


def _braces(matrix: np.ndarray) -> str:
    """A matrix as the files have it: a brace to each column."""
    return "{" + "".join("{" + ",".join(f"{value:.7f}" for value in column) + "}" for column in np.asarray(matrix).T) + "}"


def _directions(q: np.ndarray) -> dict[str, np.ndarray]:
    two_theta, chi = angles_of(q)
    return {"q_x": q[:, 0], "q_y": q[:, 1], "q_z": q[:, 2], "two_theta": two_theta, "chi": chi}


def _header(text: str) -> dict[str, str]:
    """The values of the lines "$name value // remark"."""
    pairs = [line[1:].split("//")[0].split(None, 1) for line in text.splitlines() if line.startswith("$")]
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def _listed(text: str, name: str, path: str | Path) -> np.ndarray:
    """The numbers that follow the line of this name, one row to a line."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith(name)), None)
    if start is None:
        raise InputError(f"{path} must have a line {name}, but has none")
    rows = []
    for i, line in enumerate(lines[start + 1 :], start + 2):
        if line.startswith(("$", "/")):
            break
        if line.strip():
            rows.append(numbers(line, path, f"line {i}"))
    if not rows or len({len(row) for row in rows}) != 1 or len(rows[0]) < 4:
        raise InputError(f"{path}: the list after {name} must have rows of at least 4 numbers")
    return np.array(rows)


def _whole(place: np.ndarray, header: dict[str, str], axis: str) -> np.ndarray:
    """Places on the whole detector from those in the binned region of interest."""
    start, group = float(header.get(f"start{axis}", 0)), float(header.get(f"group{axis}", 1))
    return start + group * (place + 0.5) - 0.5


def _about(header: dict[str, str], path: str | Path) -> dict[str, str]:
    named = {"detector": "detector_ID", "material": "structureDesc", "image": "inputImage"}
    return {"table_file": Path(path).name, **{ours: header[name] for ours, name in named.items() if name in header}}
