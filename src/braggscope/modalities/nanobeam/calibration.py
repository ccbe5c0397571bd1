"""The result of a calibration and its files: a geometry in TOML, with its uncertainties, and the pupil beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w

from . import pupil as pupil_files
from .geometry import NanobeamGeometry


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found.

    geometry: The geometry that `map` takes; its `pupil_file` is a temporary one until `save`.
    uncertainty: One standard deviation of each field that was fitted.
    pupil: Pupil as the detector sees it at zero tilt, fringe divided out, shape (row, column); 1 is the mean of the open part.
    pixels_per_sample: Sampling of `pupil`, px.
    illumination: Relative illumination without the ring, same shape.
    frames: Frames that took part.
    summary: What was found and how, a sentence each.
    """

    geometry: NanobeamGeometry
    uncertainty: dict[str, float]
    pupil: np.ndarray
    pixels_per_sample: float
    illumination: np.ndarray
    frames: int
    summary: list[str]

    def save(self, path: str | Path) -> list[Path]:
        """Write the geometry as TOML and the pupil beside it; returns both paths. Each is whole or not there."""
        path = Path(path)
        beside = path.with_suffix(".pupil.npz")
        part = beside.with_name(f".{beside.stem}.writing.npz")
        text = path.with_name(f".{path.name}.writing")
        values = self.geometry.to_mapping() | {"pupil_file": beside.name}
        table = values | {"uncertainty": {k: float(v) for k, v in self.uncertainty.items()}}
        heading = "".join(f"# {line}\n" for line in self.summary)
        try:
            pupil_files.save_pupil(part, self.pupil, self.pixels_per_sample)
            text.write_text(heading + "\n" + tomli_w.dumps({"nanobeam": table}), encoding="utf-8")
            os.replace(part, beside)
            os.replace(text, path)
        finally:
            part.unlink(missing_ok=True)
            text.unlink(missing_ok=True)
        return [path, beside]
