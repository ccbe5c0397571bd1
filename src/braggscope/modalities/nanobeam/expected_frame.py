"""The frame that the model expects at a point of a map, to be looked at beside the measured one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .geometry import NanobeamGeometry


def expected_frame(values: Mapping[str, float], geometry: NanobeamGeometry, frame_shape: tuple[int, int]) -> np.ndarray | None:
    """Expected counts, shape (row, column); None where the point lacks strain, a tilt or the scale of the counts.

    values: Of the map's variables at the point.
    """
    import torch

    from .forward import NanobeamForward

    known = {n: float(values[n]) for n in NanobeamForward.params if n in values and math.isfinite(values[n])}
    if not {"strain", "omega", "chi", "scale"} <= set(known):
        return None
    params = {name: torch.tensor(value, dtype=torch.float64) for name, value in known.items()}
    with torch.no_grad():
        return np.asarray(NanobeamForward(geometry, frame_shape)(params))
