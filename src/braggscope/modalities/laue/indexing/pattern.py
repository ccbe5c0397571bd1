"""The peaks of one frame as indexing takes them: places with their variances, and the directions they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from braggscope.core.errors import InputError

from ..detector import detector_matrix, scattering_directions
from ..geometry import LaueGeometry

UNFIT = ("sharper_than_a_spot", "masked_pixels_in_the_spot")
"""Flags of peaks that are left out: hot pixels and cosmic rays, which no optics can have made, and biased places."""
KNOWN = 0.4  # of the distance of matching: a peak whose place is less certain can be matched to nothing
BEYOND = 20  # px that a detector whose size is not stated reaches beyond the outermost peaks


@dataclass(frozen=True, eq=False)
class Pattern:
    """Peaks, brightest first.

    places: Row and column, px, shape (peak, 2).  variance: Theirs, px^2, shape (peak, 2); 1 where not `weighted`.
    light: Intensities as given.  order: Place of each peak in the table they came from.
    directions: Unit scattering vectors, laboratory, shape (peak, 3).  sines: sin theta.
    inverse: Of the detector matrix.  rows, columns: Of the detector, px.
    radians_per_px: How far a scattering vector turns for a pixel, the mean over the peaks.
    """

    places: np.ndarray
    variance: np.ndarray
    weighted: bool
    light: np.ndarray
    order: np.ndarray
    directions: np.ndarray
    sines: np.ndarray
    matrix: np.ndarray
    inverse: np.ndarray
    rows: int
    columns: int
    radians_per_px: float

    def __len__(self) -> int:
        return len(self.places)


def pattern_of(
    row: np.ndarray,
    column: np.ndarray,
    intensity: np.ndarray,
    geometry: LaueGeometry,
    *,
    row_std: np.ndarray | None = None,
    column_std: np.ndarray | None = None,
) -> Pattern:
    """The pattern of peaks on the detector of a geometry; peaks that are not finite are left out.

    row, column: Px from 0, shape (peak,).  intensity: Brighter ones are tried first.  row_std, column_std: Where known, px.
    """
    bright = np.where(np.isfinite(intensity), intensity, -np.inf)
    order = np.argsort(-bright, kind="stable")
    order = order[(np.isfinite(row) & np.isfinite(column))[order]]
    places = np.ascontiguousarray(np.stack([row, column], 1)[order], float)
    weighted = row_std is not None and column_std is not None
    variance = np.ones_like(places)
    if row_std is not None and column_std is not None:
        variance = np.stack([row_std, column_std], 1)[order] ** 2
        known = np.isfinite(variance) & (variance > 0)
        variance[~known] = variance[known].max() if known.any() else 1.0
    matrix = detector_matrix(geometry)
    directions = np.ascontiguousarray(scattering_directions(matrix, places[:, 0], places[:, 1]))
    rows, columns = (_size(size, places[:, i]) for i, size in enumerate((geometry.rows, geometry.columns)))
    return Pattern(
        places, variance, weighted, np.asarray(intensity, float)[order], order, directions, -directions[:, 0],
        matrix, np.linalg.inv(matrix), rows, columns,
        _turn(matrix, places if len(places) else np.array([[rows / 2, columns / 2]])),
    )  # fmt: skip


def pattern_of_table(peaks: xr.Dataset, geometry: LaueGeometry, *, known_to: float = np.inf) -> Pattern:
    """The pattern of a table of peaks: `row`, `column` and, where they are there, `intensity` and the standard deviations.

    known_to: Peaks whose place has a larger standard deviation are left out, px.
    Raises InputError for a table without rows and columns, and for peaks outside the detector.
    """
    lacking = [name for name in ("row", "column") if name not in peaks or peaks[name].dims != ("peak",)]
    if lacking:
        raise InputError(f"a table of peaks has {' and '.join(lacking)} over peak, this one does not; find peaks with laue peaks")
    unfit = np.any([_flagged(peaks, word) for word in UNFIT], axis=0)
    for name in ("row_std", "column_std"):
        unfit |= peaks[name].values > known_to if name in peaks else False
    row, column = np.where(unfit, np.nan, peaks["row"].values), peaks["column"].values.astype(float)
    for axis, at, size in (("row", row, geometry.rows), ("column", column, geometry.columns)):
        if size is not None and np.isfinite(at).any() and not (np.nanmin(at) > -1 and np.nanmax(at) < size):
            raise InputError(
                f"{axis} of a peak must be on the detector of {size} {axis}s, got {np.nanmin(at):.1f} to {np.nanmax(at):.1f}; "
                "give the calibration of this detector"
            )
    stds = {f"{n}_std": peaks[f"{n}_std"].values for n in ("row", "column") if f"{n}_std" in peaks}
    intensity = peaks["intensity"].values if "intensity" in peaks else np.zeros(len(row))
    return pattern_of(row, column, intensity, geometry, **stds)


def _turn(matrix: np.ndarray, places: np.ndarray) -> float:
    """How far a scattering vector turns for a pixel, radians, the mean over places and both directions."""
    here, *beside = (scattering_directions(matrix, *(places + step).T) for step in ((0, 0), (1, 0), (0, 1)))
    return float(np.mean([np.linalg.norm(one - here, axis=1).mean() for one in beside]))


def _size(stated: int | None, at: np.ndarray) -> int:
    """Rows or columns of the detector, or up to a little beyond the last peak."""
    return stated if stated is not None else int(at.max(initial=0.0)) + BEYOND


def _flagged(table: xr.Dataset, word: str) -> np.ndarray:
    """Where the flag of a table has the bit of this meaning."""
    flag = table.get("flag")
    words = [] if flag is None else str(flag.attrs.get("flag_meanings", "")).split()
    if flag is None or word not in words:
        return np.zeros(table.sizes["peak"], bool)
    return np.asarray(flag.values & int(np.atleast_1d(flag.attrs["flag_masks"])[words.index(word)]) != 0)
