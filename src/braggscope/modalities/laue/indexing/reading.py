"""Peaks to index, of a peak list or of a frame, with the geometry that is stated with them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from ..files.table import placed, stated_geometry
from ..geometry import LaueGeometry


def geometry_and_peaks(
    source: Scan | xr.Dataset, geometry: LaueGeometry | None, frame: int = 0
) -> tuple[LaueGeometry, xr.Dataset]:
    """The geometry given, else the one stated with the peaks, and the table of peaks with rows and columns.

    source: A table over `peak`, or a scan of which a frame (flat number) is searched for peaks.
    """
    if isinstance(source, xr.Dataset):
        if "peak" not in source.dims:
            raise InputError("the table must be one of peaks; this is a map over " + ", ".join(map(str, source.dims)))
        known = geometry or stated_geometry(source)
        if known is None:
            raise InputError("the peak list states no calibration; give the one of its detector as geometry")
        return known, placed(source, known)
    if geometry is None:
        raise InputError("the image states no calibration; give the one of its detector as geometry")
    geometry.check_frames(source.frame_shape)
    rows, columns = source.frame_shape
    return geometry.replace(rows=rows, columns=columns), peaks_of_frame(*_frame(source, frame))


def peaks_of_frame(counts: np.ndarray, mask: np.ndarray | None) -> xr.Dataset:
    """The table of peaks of a frame."""
    from ..peaks.search import find_spots
    from ..peaks.table import peak_table

    return peak_table(find_spots(counts, mask))


def _frame(scan: Scan, number: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Counts and mask of one frame of a scan. Raises InputError where it is not there."""
    size = int(np.prod(scan.shape))
    if not 0 <= number < size:
        raise InputError(f"frame must be from 0 to {size - 1}, got {number}")
    for batch in scan.batches(1, only=np.arange(size) == number):
        return batch.frames[0], None if batch.mask is None else batch.mask[0]
    raise InputError(f"frame {number} is not in the scan")
