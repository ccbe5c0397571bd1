"""Orientations of crystals as matrices: equivalents by symmetry."""

from __future__ import annotations

import numpy as np


def reduced(orientation: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Of all equivalent orientations U R that with the smallest rotation angle, shape (..., 3, 3).

    rotations: R of the Laue class in the crystal frame (`Crystal.rotations`), shape (operation, 3, 3).
    """
    every = orientation[..., None, :, :] @ rotations
    best = np.trace(every, axis1=-2, axis2=-1).round(9).argmax(-1)
    return np.asarray(np.take_along_axis(every, best[..., None, None, None], axis=-3)[..., 0, :, :])
