"""Calibrate: the detector from a pattern of a known crystal, written as a geometry (TOML) or as LaueTools' .det."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.scan import Scan

from ..geometry import LaueGeometry


def calibrate(
    pattern: Scan | xr.Dataset,
    *,
    material: Annotated[str | None, Says("built-in name or CIF file of the crystal; left out: of the geometry")] = None,
    within_px: Annotated[float, Says("distance within which a peak belongs to a spot at last", unit="px")] = 1.0,
    frame: Annotated[int, Says("frame of a scan, from 0 in the order of the grid")] = 0,
    geometry: LaueGeometry | None = None,
    output: Path,
) -> dict[str, object]:
    """Calibrate the detector with a pattern of a known, unstrained crystal; the geometry is written (TOML or .det).

    pattern: Peak list, or a scan of which one frame is taken.
    geometry: Where to start: within about 1 % of the distance, 20 px and 1 deg.
    Returns the fields found with their standard deviations, and how many peaks match how well.
    Raises InputError for too few peaks, an unknown material, and where no detector near the start explains the peaks.
    """
    from ..calibrate import calibrate as calibrated

    found = calibrated(pattern, geometry, material=material, within=within_px, frame=frame)
    found.save(output)
    values = {name: getattr(found.geometry, name) for name in found.uncertainty}
    return {
        "file": str(output),
        **values,
        **{f"{name}_std": std for name, std in found.uncertainty.items()},
        "matched": len(found.residuals),
        "mean_px": float(found.residuals.mean()),
        "summary": "; ".join(found.summary[:1] + found.summary[1 + len(values) :]),
    }
