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
    """The geometry given, else the one stated with the peaks, and the table of peaks with rows and columns; `masked_share` is an
    attribute of those of a frame.

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
    counts, mask = frame_of(source, frame)
    peaks = peaks_of_frame(counts, mask)
    if not peaks.sizes["peak"]:
        raise InputError(f"the pattern has no peaks: {why_without_peaks(counts, mask)}")
    masked = 0.0 if mask is None else float((~mask).mean())
    return geometry.replace(rows=rows, columns=columns), peaks.assign_attrs(masked_share=masked)


def peaks_of_frame(counts: np.ndarray, mask: np.ndarray | None) -> xr.Dataset:
    """The table of peaks of a frame."""
    from ..peaks.search import find_spots
    from ..peaks.table import peak_table

    return peak_table(find_spots(counts, mask))


def why_without_peaks(counts: np.ndarray, mask: np.ndarray | None) -> str:
    """What is to be seen of a frame, shape (row, column), in which no peak was found."""
    most = np.iinfo(counts.dtype).max if counts.dtype.kind in "ui" else np.inf
    full = float((counts >= most).mean())
    unused = 0.0 if mask is None else float((~mask & (counts < most)).mean())
    if full + unused > 0.5:
        return f"{full:.0%} of its pixels are saturated and {unused:.0%} masked; a shorter exposure or another mask would do"
    if counts.min() == counts.max():
        return f"every pixel reads {counts.flat[0]:g}"
    return "none stands out of the background; look at the frame, and search with a lower threshold (laue peaks) if it shows some"


def frame_of(scan: Scan, number: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Counts and mask of one frame of a scan. Raises InputError where it is not there."""
    size = int(np.prod(scan.shape))
    if not 0 <= number < size:
        raise InputError(f"frame must be from 0 to {size - 1}, got {number}")
    for batch in scan.batches(1, only=np.arange(size) == number):
        return batch.frames[0], None if batch.mask is None else batch.mask[0]
    raise InputError(f"frame {number} is not in the scan")
