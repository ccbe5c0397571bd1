"""How the counts of a scan scatter, from the curves of some pixels over some of its lines (see ../photon_transfer.py)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from braggscope.core.estimator import motor_positions
from braggscope.core.scan import Scan

if TYPE_CHECKING:
    from ..photon_transfer import DetectorNoise

PIXELS, FRAMES = 4096, 256  # that are looked at, about


def scan_noise(scan: Scan) -> DetectorNoise:
    """Gain, dark level and dark variance of the counts of a scan in its region of interest."""
    from ..photon_transfer import detector_noise

    scan = scan.bin(1)
    fast, lines = scan.shape[-1], math.prod(scan.shape[:-1])
    chosen = np.unique(np.linspace(0, lines - 1, min(lines, max(1, -(-FRAMES // fast)))).astype(int))
    wanted = np.zeros((lines, fast), bool)
    wanted[chosen] = True
    place = np.cumsum(wanted.ravel()) - 1
    pixels = _spread(*scan.frame_shape)
    curves = np.full((int(wanted.sum()), len(pixels)), np.nan, np.float32)
    for batch in scan.batches(min(scan.batch_size(), 16), only=wanted.ravel()):
        counts = batch.frames.reshape(len(batch), -1)[:, pixels].astype(np.float32)
        if batch.mask is not None:
            counts[~batch.mask.reshape(len(batch), -1)[:, pixels]] = np.nan
        curves[place[batch.index]] = counts
    positions = list(motor_positions(scan).values())[-1][wanted.ravel()]
    return detector_noise(curves, fast, positions)


def _spread(rows: int, columns: int) -> np.ndarray:
    """Flat positions of pixels in pieces of rows all over the frame."""
    chosen = max(1, min(rows, PIXELS // min(columns, PIXELS)))
    at = (np.arange(chosen) * 2 + 1) * rows // (2 * chosen)
    return (at[:, None] * columns + np.arange(min(columns, PIXELS))).ravel()
