"""The light of the beam on each grain of a columnar film: overlap of its area with the beam's footprint at every scan position.

The footprint is a Gaussian on the surface, `geometry.footprint_um` wide along y and x, scaled to a volume of one, so that a grain
that fills the beam has the weight 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.ndimage import find_objects
from scipy.special import ndtr

from .microstructure import Microstructure

FWHM = 2 * math.sqrt(2 * math.log(2))
REACH = 4.0  # standard deviations of the footprint after which it is dark, 6e-5 of it along each axis
FAINTEST = 1e-4  # weight below which a grain is left out


def weights(
    sample: Microstructure, y: np.ndarray, x: np.ndarray, footprint_um: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which grains each scan position lights, and how much.

    y, x: Positions of the scan axes on the surface, um.
    footprint_um: Full widths at half maximum along y and x.
    Returns start, grain, weight: position p = (row, column) of the scan in C order lights grain[start[p]:start[p + 1]].
    """
    sigma = footprint_um[0] / FWHM, footprint_um[1] / FWHM
    parts = list(_of_each(sample, y, x, sigma))
    position, grain, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((grain, position))
    start = np.searchsorted(position[order], np.arange(len(y) * len(x) + 1))
    return start.astype(np.int64), grain[order], weight[order]


def _of_each(
    sample: Microstructure, y: np.ndarray, x: np.ndarray, sigma: tuple[float, float]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Positions that light a grain, its number and the weights there, grain by grain."""
    for grain, box in enumerate(find_objects(sample.number + 1)):
        if box is None:
            continue
        rows, columns = sample.y[box[0]], sample.x[box[1]]
        near_y, near_x = (_near(p, grain_places, s) for p, grain_places, s in ((y, rows, sigma[0]), (x, columns, sigma[1])))
        along_y = _share(y[near_y], rows, sample.pitch_um, sigma[0])
        along_x = _share(x[near_x], columns, sample.pitch_um, sigma[1])
        light = along_y @ (sample.number[box] == grain) @ along_x.T
        row, column = np.nonzero(light >= FAINTEST)
        yield near_y[row] * len(x) + near_x[column], np.full(len(row), grain), light[row, column]


def _near(positions: np.ndarray, places: np.ndarray, sigma: float) -> np.ndarray:
    """Numbers of the positions whose beam reaches these places."""
    reach = REACH * sigma
    return np.flatnonzero((positions >= places[0] - reach) & (positions <= places[-1] + reach))


def _share(positions: np.ndarray, places: np.ndarray, pitch: float, sigma: float) -> np.ndarray:
    """Part of a Gaussian about each position that falls into each cell of the fine map, shape (position, place)."""
    off = places - positions[:, None]
    return np.asarray(ndtr((off + pitch / 2) / sigma) - ndtr((off - pitch / 2) / sigma))
