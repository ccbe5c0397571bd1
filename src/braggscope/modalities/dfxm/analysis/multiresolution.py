"""Illumination, mesoscale and edges of the images of a scan, by wavelets.

After Abulshohoud et al. 2022: what varies slowly over the image (the beam, thickness) is in the approximation, subgrains and
walls are in coarse details, dislocations and edges in the finest ones. How the parts are made is in ../separating/wavelets.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from ..carried import cautions, gain_caution

IMAGES = ("total", "frame", "frames")


def multiresolution(
    scan: Scan,
    *,
    image: Annotated[
        str, Says("what is separated: the total over the scan, one frame, or every frame", choices=IMAGES)
    ] = "total",
    point: Annotated[int, Says("flat position of the frame in the scan grid, for image frame")] = 0,
    wavelet: Annotated[str, Says("discrete wavelet of PyWavelets: haar, db2, db4, sym4, ...")] = "db2",
    levels: Annotated[int, Says("number of scales, each twice as coarse as the one before; 0: as many as fit, at most 5")] = 0,
    fine: Annotated[int, Says("finest levels that count as edges; the others are mesoscale")] = 2,
    transform: Annotated[
        str,
        Says("stationary (every position alike) or decimated (a grid of 2^level pixels)", choices=("stationary", "decimated")),
    ] = "stationary",
    pedestal: Annotated[str, Says("level without light: auto (darkest common level), none, or a value", unit="count")] = "auto",
    gain: Annotated[
        str, Says("detector units per photon: auto (from the scatter of the scan) or a value", unit="count")
    ] = "auto",
    readout: Annotated[str, Says("standard deviation of a count without light: auto or a value", unit="count")] = "auto",
) -> xr.Dataset:
    """Separate illumination, mesoscale and edges of the total, of one frame or of every frame of a scan.

    Returns: for one image `image`, `illumination`, `mesoscale`, `edges`, whose sum it is, and `detail_horizontal`, `_vertical`,
    `_diagonal` (level, row, column); with stationary wavelets the parts' errors by counting. For every frame, one at a time,
    `illumination_rms` and the like per pixel and `illumination_of_frame` and the like per frame: a frame rich in edges is near a
    weak-beam condition. These hold the noise of single frames too.

    Raises InputError for an unknown wavelet, too many levels, or a frame that is not there.
    """
    from ..separating.multiscale import scales_map, scales_of_frames
    from ..separating.scan_counts import ScanCounts
    from ..separating.wavelets import Wavelets

    if image not in IMAGES:
        raise InputError(f"option image must be one of {', '.join(IMAGES)}, got '{image}'")
    wavelets = Wavelets.fitting(wavelet, levels, transform, scan.frame_shape)
    counts = ScanCounts(scan, pedestal=pedestal, gain=gain, readout=readout)
    noise = counts.noise
    if image == "frames":
        dataset = scales_of_frames(_frames(scan, noise.level), scan.grid, wavelets, fine)
    elif image == "frame":
        values, mask = _frame(scan, point)
        values = np.where(mask, values - noise.level, np.nan)
        variance = noise.gain * np.maximum(values, 0) + noise.variance
        dataset = scales_map(values, "count", f"the frame at point {point}", wavelets, fine, variance)
    else:
        total = np.where(counts.masked, np.nan, counts.project(np.ones((1, counts.points)))[0]).reshape(scan.frame_shape)
        variance = noise.gain * np.maximum(total, 0) + counts.points * noise.variance
        dataset = scales_map(total, "count", "the total", wavelets, fine, variance)
        dataset.attrs["frames_used"] = counts.points
    dataset.attrs.update(level=noise.level, gain=noise.gain, gain_from=noise.gain_from, readout=float(np.sqrt(noise.variance)))
    dataset.attrs.update(cautions(gain_caution(noise.gain_from)))
    return dataset


def _frames(scan: Scan, level: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Frames above the level, a batch at a time."""
    for batch in scan.batches():
        yield batch.index, batch.frames.astype(np.float64) - level, batch.mask


def _frame(scan: Scan, point: int) -> tuple[np.ndarray, np.ndarray]:
    """The frame at a flat position, and where it is known."""
    points = int(np.prod(scan.shape))
    if not 0 <= point < points:
        raise InputError(f"option point must be between 0 and {points - 1}, got {point}")
    only = np.zeros(points, bool)
    only[point] = True
    for batch in scan.batches(only=only):
        frame = batch.frames[0].astype(np.float64)
        return frame, np.ones(frame.shape, bool) if batch.mask is None else batch.mask[0]
    raise InputError(f"scan '{scan.name}' has no frame at point {point}")
