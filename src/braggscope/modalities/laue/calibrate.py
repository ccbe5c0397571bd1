"""Calibration of the detector from a pattern of a known, unstrained crystal.

Distance, foot of the normal and two tilts are refined with the orientation (`indexing/calibrating.py`). What else the geometry
says (pixel, band, beam) is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w
import xarray as xr

from braggscope.core.errors import InputError, one_of
from braggscope.core.scan import Scan

from .geometry import LaueGeometry
from .indexing.calibrating import FIELDS, detector_of
from .indexing.pattern import KNOWN, pattern_of_table
from .indexing.reading import geometry_and_peaks
from .reflections import material as crystal_named

FEW_PEAKS = 12
LARGE = 0.6  # px


@dataclass(frozen=True, eq=False)
class Calibration:
    """What `calibrate` found.

    geometry: The geometry with the calibrated detector.  uncertainty: One standard deviation of each field that was found.
    turn: U of the crystal.  residuals: Distances of the matched peaks from their prediction, px.
    summary: What was found and how, a sentence each.
    """

    geometry: LaueGeometry
    uncertainty: dict[str, float]
    turn: np.ndarray
    residuals: np.ndarray
    summary: list[str]

    def save(self, path: str | Path) -> list[Path]:
        """Write the geometry, whole or not at all: as LaueTools' .det where the path ends so, else as TOML with uncertainties."""
        path = Path(path)
        part = path.with_name(f".{path.stem}.writing{path.suffix}")
        try:
            if path.suffix.lower() == ".det":
                from .files.lauetools import write_det

                write_det(part, self.geometry, u=self.turn)
            else:
                table = self.geometry.to_mapping() | {"uncertainty": self.uncertainty}
                heading = "".join(f"# {line}\n" for line in self.summary)
                part.write_text(heading + "\n" + tomli_w.dumps({"laue": table}), encoding="utf-8")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return [path]


def calibrate(
    source: Scan | xr.Dataset,
    geometry: LaueGeometry | None = None,
    *,
    material: str | None = None,
    free: Collection[str] | None = None,
    reference: Mapping[str, float] | None = None,
    within: float = 1.0,
    frame: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """The detector that explains the spots of a known crystal.

    source: Peak list, or a scan of which one frame (flat number) is taken.
    geometry: Where to start: within about 1 % of the distance, 20 px and 1 deg; by default what the peak list states.
    material: Name or CIF file of the crystal; by default the material of the geometry.
    free: Which of distance_mm, xcen_px, ycen_px, xbet_deg, xgam_deg; by default all.
    reference: Not used: nothing but the crystal is known.
    Raises InputError for too few peaks, an unknown material, and where no detector near the start explains the peaks.
    """
    if reference:
        raise InputError("a Laue calibration takes no reference; the crystal is all that is known")
    free = tuple(FIELDS) if free is None else tuple(free)
    for name in free:
        if name not in FIELDS:
            raise one_of("free", name, list(FIELDS))
    geometry, table = geometry_and_peaks(source, geometry, frame)
    name = material or geometry.material
    if not name:
        raise InputError("the material of the crystal is not stated; give its name or CIF file as material")
    crystal = crystal_named(name)
    pattern = pattern_of_table(table, geometry, known_to=KNOWN * within)
    if len(pattern) < FEW_PEAKS:
        raise InputError(f"a calibration needs at least {FEW_PEAKS} peaks of the crystal, the pattern has {len(pattern)}")
    brightness = -np.arange(len(pattern), dtype=float)
    found = detector_of(pattern.places, brightness, geometry, crystal, free=free, within=within, progress=progress)
    if found is None:
        raise InputError(
            f"no detector near the one given explains the {len(pattern)} peaks by {name}: give the right material, a geometry "
            "within about 1 % of the distance, 20 px and 1 deg, or a cleaner pattern"
        )
    mean = found.residuals.mean()
    lines = [
        f"calibrated with {name}: {len(found.residuals)} of {len(pattern)} peaks match, {mean:.3f} px on average",
        *(f"{n} = {getattr(found.geometry, n):.6g} +- {s:.2g}" for n, s in found.uncertainty.items()),
        "the crystal is taken as unstrained",
    ]
    if mean > LARGE * within:
        lines.append("caution: the residuals are as large as the distance of matching allows; is the material right?")
    return Calibration(found.geometry.replace(material=name), found.uncertainty, found.turn, found.residuals, lines)
