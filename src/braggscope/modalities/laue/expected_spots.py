"""The spots that the grain of a map point should show in its frame, to be drawn over it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from .detector import detector_matrix, spots
from .geometry import LaueGeometry
from .patterns import deformed
from .reflections import material, reflections_of

MOST = 60  # planes, the brightest first
STRAINS = (("xx", "xy", "xz"), ("xy", "yy", "yz"), ("xz", "yz", "zz"))


def expected_spots(values: Mapping[str, float], geometry: LaueGeometry, frame_shape: tuple[int, int]) -> list[dict[str, Any]]:
    """Row, column, indices and energy of the brightest spots on the frame; none where the point has no orientation.

    values: Of the map's variables at the point: orientation_x, _y, _z (deg) and strain_xx ... where they are known.
    """
    turn = [values.get(f"orientation_{a}", math.nan) for a in "xyz"]
    if not np.isfinite(turn).all() or not geometry.material:
        return []
    fitted = geometry.replace(rows=frame_shape[0], columns=frame_shape[1])
    strain = np.nan_to_num([[values.get(f"strain_{n}", 0.0) for n in line] for line in STRAINS])
    reflections = reflections_of(material(geometry.material.split(",")[0]), fitted)
    u = Rotation.from_rotvec(np.deg2rad(turn)).as_matrix()
    row, column, energy = spots(np.linalg.inv(detector_matrix(fitted)), reflections.q @ deformed(u, strain).T)
    inside = np.isfinite(row) & (row >= 0) & (row < frame_shape[0]) & (column >= 0) & (column < frame_shape[1])
    shown = np.flatnonzero(inside & reflections.shown(energy, geometry.energy_low_kev, geometry.energy_high_kev))[:MOST]
    return [
        {
            "row": round(float(row[k]), 2),
            "column": round(float(column[k]), 2),
            "hkl": [int(n) for n in reflections.hkl[k]],
            "energy_kev": round(float(np.atleast_1d(energy)[k]), 3),
        }
        for k in shown
    ]
