"""LaueTools' indexed grains (.fit), read and written; several grains of one pattern follow each other in a file.

Each grain has its indexed spots, whose columns are named in one line (two sets of names are about: of the calibration and of the
refinement), then UB in q = (UB) B0 G* (orientation and strain: here U (1 + eps)^-1), B0, and UBB0, this program's UB, to eight
decimals. Strains are in 1e-3. Energies are those of hc = 12.398 keV angstrom, 3.4e-5 too low.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.physics.crystals import Crystal

from ..detector import detector_matrix, scattering_directions, spots, two_theta_chi
from ..geometry import LaueGeometry
from .grains import IndexedGrain, table_of
from .lauetools import named_peaks
from .text import numbers, text_of, write_lines

ALIASES = {
    "Xexp": "X", "Yexp": "Y", "2theta_exp": "2theta", "chi_exp": "chi", "peak_Itot": "peak_Itot", "PeakAmplitude": "peak_Isub",
    "PeakFwhm1": "peak_fwaxmaj", "PeakFwhm2": "peak_fwaxmin", "PeakTilt": "peak_inclination", "PeakBkg": "peak_bkg",
    "fwaxmaj": "peak_fwaxmaj", "fwaxmin": "peak_fwaxmin", "Imax": "Ipixmax", "Itot": "Intensity", "intensity": "Intensity",
}  # fmt: skip
"""Names of the same column in files of LaueTools' parts."""
OTHERS = {
    "energy": ("energy(keV)", "Energy"), "deviation": ("pixDev", "pixDevCalib"), "expected_column": ("Xtheo",),
    "expected_row": ("Ytheo",), "source": ("spot_index",),
}  # fmt: skip
WRITTEN = "##spot_index Intensity h k l pixDev energy(keV) Xexp Yexp 2theta_exp chi_exp Xtheo Ytheo 2theta_theo chi_theo Qx Qy Qz"


def read_fit(path: str | Path) -> list[IndexedGrain]:
    """The indexed grains of a .fit file. Raises InputError where a grain lacks its spots or its matrix UBB0."""
    lines = text_of(path).splitlines()
    starts = [i for i, line in enumerate(lines) if line.lstrip("# ").startswith("Number of indexed spots")]
    if not starts:
        raise InputError(f"{path} must say 'Number of indexed spots' for each grain, but does not")
    return [_grain(lines[a:b], path) for a, b in zip(starts, [*starts[1:], len(lines)], strict=True)]


def read_fit_table(path: str | Path) -> xr.Dataset:
    """The indexed peaks of all grains of a .fit file as one table."""
    return table_of(read_fit(path)).assign_attrs(table_file=Path(path).name)


def write_fit(path: str | Path, grains: Sequence[IndexedGrain], crystals: Sequence[Crystal], geometry: LaueGeometry) -> None:
    """Write indexed grains as LaueTools' refinement does, so that its reader takes them.

    grains: Each with peaks of `row`, `column`, h, k and l at least; what else LaueTools lists is worked out.
    crystals: The unstrained crystal of each grain, for B0.
    geometry: Of the pixels, and of the laboratory of UB.
    """
    text: list[str] = []
    for number, (grain, crystal) in enumerate(zip(grains, crystals, strict=True)):
        text += _grain_lines(grain, crystal, geometry, number, Path(path).with_suffix(".cor").name)
    write_lines(path, text)


def _grain(lines: list[str], path: str | Path) -> IndexedGrain:
    """One grain from the lines of its part of the file."""
    place = next((i for i, line in enumerate(lines) if line.lstrip("# ").lower().startswith("spot")), None)
    if place is None:
        raise InputError(f"{path}: a grain must have a line that names the columns of its spots ('#spot_index ...')")
    names = [ALIASES.get(word, word) for word in lines[place].replace("#", " ").split()]
    rows = []
    for line in lines[place + 1 :]:
        if line.startswith("#") or not line.strip():
            break
        rows.append(numbers(line, path, "a spot", len(names)))
    if not rows or not {"h", "k", "l", "X", "Y"} <= set(names):
        raise InputError(
            f"{path}: a grain must list spots with h, k, l, Xexp and Yexp, got {len(rows)} spots of {', '.join(names)}"
        )
    columns = dict(zip(names, np.array(rows).T, strict=True))
    stated = dict(_stated(lines, path))
    if "UBB0" not in stated:
        raise InputError(f"{path}: a grain must have the matrix 'UBB0 matrix in q= (UB B0) G*'")
    return IndexedGrain(
        ub=stated["UBB0"],
        peaks=_peaks(columns),
        material=stated.get("Element", ""),
        mean_deviation_px=stated.get("Mean Deviation"),
        strain=stated["strain"] / 1e3 if "strain" in stated else None,
        geometry=_geometry(stated, path),
        facts={name: value for name, value in stated.items() if name not in ("UBB0", "strain")},
    )


def _peaks(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {**named_peaks(columns), **{name: columns[name] for name in "hkl"}}
    for ours, theirs in OTHERS.items():
        name = next((one for one in theirs if one in columns), None)
        if name is not None:
            found[ours] = columns[name] - (ours.startswith("expected"))
    return found


def _stated(lines: list[str], path: str | Path) -> Iterator[tuple[str, Any]]:
    """What a grain's part says beside its spots: matrices, material, deviation, detector."""
    words = [line.lstrip("#").strip() for line in lines]
    matrices = {"UB matrix": "UB", "B0 matrix": "B0", "UBB0 matrix": "UBB0", "deviatoric strain in direct crystal": "strain"}
    for i, word in enumerate(words):
        for start, name in matrices.items():
            if word.startswith(start):
                values = numbers(words[i + 1 : i + 4], path, f"the matrix {name}", 9)
                yield name, np.array(values).reshape(3, 3)
        if word.startswith("Mean") and "Deviation" in word:
            yield "Mean Deviation", numbers(word.split(":")[-1], path, "the mean deviation", 1)[0]
        if word in ("Element", "grainIndex", "CCDLabel") and i + 1 < len(words):
            yield word, words[i + 1]
        if word in ("DetectorParameters", "Frame dimensions", "pixelsize") and i + 1 < len(words):
            yield word, numbers(words[i + 1], path, word)


def _geometry(stated: dict[str, Any], path: str | Path) -> LaueGeometry | None:
    five, pixel, frame = stated.get("DetectorParameters"), stated.get("pixelsize"), stated.get("Frame dimensions")
    if five is None or len(five) < 5 or not pixel:
        return None
    names = ("distance_mm", "xcen_px", "ycen_px", "xbet_deg", "xgam_deg")
    values: dict[str, Any] = dict(zip(names, five, strict=False)) | {"pixel_um": round(1e3 * pixel[0], 9)}
    if frame is not None and len(frame) == 2:
        values |= {"rows": int(frame[0]), "columns": int(frame[1])}
    return LaueGeometry.from_mapping({**values, "material": stated.get("Element", "")}, where=str(path))


def _grain_lines(grain: IndexedGrain, crystal: Crystal, geometry: LaueGeometry, number: int, cor: str) -> list[str]:
    matrix = detector_matrix(geometry)
    row, column = grain.peaks["row"], grain.peaks["column"]
    q = grain.hkl @ np.asarray(grain.ub).T
    row_to, column_to, energy = spots(np.linalg.inv(matrix), q)
    apart = np.hypot(row - row_to, column - column_to)
    height = grain.peaks.get("amplitude", grain.peaks.get("intensity", np.ones(len(grain))))
    direction = scattering_directions(matrix, row, column) * np.linalg.norm(q, axis=1, keepdims=True)
    angles, angles_to = two_theta_chi(matrix, row, column), two_theta_chi(matrix, row_to, column_to)
    listed = np.column_stack(
        [grain.peaks.get("source", np.arange(len(grain))), height, grain.hkl, apart, energy, column + 1, row + 1, *angles,
         column_to + 1, row_to + 1, *angles_to, direction]
    )  # fmt: skip
    text = [
        f"#Strain and Orientation Refinement from experimental file: {cor}",
        f"#File created at {time.asctime()} with braggscope",
        f"#Number of indexed spots: {len(grain)}",
        *("#Element", f"#{grain.material or crystal.name}", "#grainIndex", f"#G_{number}"),
        f"#Mean Deviation(pixel): {np.nanmean(apart):.3f}",
        WRITTEN,
        *(" ".join(f"{value:.6f}" for value in line) for line in listed),
        "#UB matrix in q= (UB) B0 G* ",
        *_matrix(np.asarray(grain.ub) @ np.linalg.inv(crystal.b_matrix), 9),
        *("#B0 matrix in q= UB (B0) G*", *_matrix(crystal.b_matrix, 8)),
        "#UBB0 matrix in q= (UB B0) G* i.e. recip. basis vectors are columns in LT frame: astar = UBB0[:,0], bstar = UBB0[:,1], "
        "cstar = UBB0[:,2]. (abcstar as columns on xyzlab1, xlab1 = ui, ui = unit vector along incident beam)",
        *_matrix(grain.ub, 8),
    ]
    if grain.strain is not None:
        text += ["#deviatoric strain in direct crystal frame (10-3 unit)", *_matrix(np.asarray(grain.strain) * 1e3, 4)]
    five = [geometry.distance_mm, geometry.xcen_px, geometry.ycen_px, geometry.xbet_deg, geometry.xgam_deg]
    text += ["#DetectorParameters", f"#{five}", "#pixelsize", f"#{geometry.pixel_um / 1e3!r}"]
    if geometry.rows and geometry.columns:
        text += ["#Frame dimensions", f"#({geometry.rows}, {geometry.columns})"]
    return [*text, "#"]


def _matrix(matrix: np.ndarray, digits: int) -> list[str]:
    lines = [" ".join(f"{value:.{digits}f}" for value in row) for row in np.asarray(matrix)]
    return [f"#[[{lines[0]}]", f"# [{lines[1]}]", f"# [{lines[2]}]]"]
