"""The strongest peaks of each pattern above what stands still, as short lists: places and light.

A peak is a pixel above the threshold that no pixel around it exceeds; its light is the sum over the 3 x 3 pixels about it.
Reflections of one grain keep their place in all patterns, to a pixel, so that no fit is needed to follow them.
"""

from __future__ import annotations

import numpy as np

from braggscope.core.batch import Batch
from braggscope.infer.runtime import in_threads

from .standing import Standing

AROUND = tuple((r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0))


def strongest_peaks(batch: Batch, still: Standing, *, threshold: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The strongest peaks of each frame.

    threshold: Least height, standard deviations of the pixel's noise.  most: Peaks that are kept.
    Returns place, flat pixel (row * columns + column, -1 for none), int32, and light, counts (0 for none), float32; shape
    (frame, peak), the strongest first.
    """
    place, light = np.full((len(batch), most), -1, np.int32), np.zeros((len(batch), most), np.float32)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            where, strength = _of_frame(still.excess(batch.take(np.array([i])))[0], threshold * still.noise)
            order = np.lexsort((where, -strength))[:most]
            place[i, : len(order)], light[i, : len(order)] = where[order], strength[order]

    in_threads(work, len(batch))
    return place, light


def _of_frame(excess: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat places and light of all peaks of one frame."""
    columns = excess.shape[1]
    padded = np.pad(excess, 1)
    where = np.flatnonzero(excess > least)
    at = (where // columns + 1) * (columns + 2) + where % columns + 1  # in the padded frame
    flat = padded.ravel()
    height = flat[at]
    top = np.ones(len(at), bool)
    total = height.copy()
    for r, c in AROUND:
        beside = flat[at + r * (columns + 2) + c]
        top &= (height > beside) if (r, c) < (0, 0) else (height >= beside)  # of equal ones the first
        total += beside
    return where[top], total[top]
