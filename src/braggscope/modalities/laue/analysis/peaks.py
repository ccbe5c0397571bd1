"""The peaks of white-beam patterns: of an image or of every frame of a scan."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.scan import Axis, Scan

from ..geometry import LaueGeometry
from ..indexing.reading import frame_of, why_without_peaks
from ..peaks.following import follow as follow_peaks
from ..peaks.search import Search, find_in_batches
from ..peaks.table import columns_of, peak_table

TO_UM = {"um": 1.0, "µm": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "m": 1e6}


def peaks(
    scan: Scan,
    *,
    threshold: Annotated[float, Says("least height of a peak in a matched filter over its noise", unit="1")] = 4.5,
    most: Annotated[int, Says("largest number of peaks of a frame, the most significant first; 0 for all", unit="1")] = 0,
    box: Annotated[int, Says("side of the box that is fitted around a peak, odd", unit="px")] = 11,
    follow: Annotated[float, Says("largest step of a spot between neighbouring positions; 0: not followed", unit="px")] = 0.0,
    drift: Annotated[float, Says("largest extent of a followed spot on the detector", unit="px")] = 6.0,
    geometry: LaueGeometry | None = None,
) -> xr.Dataset:
    """Table of the peaks of an image or of each frame of a scan, with errors; followed through the scan where asked.

    Matched filters on the frame less its background find the spots; two-dimensional Gaussians are fitted to them. Rows and
    columns count from 0 at the middle of the first pixel (LaueTools: X = column + 1, Y = row + 1); sigma_major and sigma_minor
    are standard deviations, not full widths. Saturated pixels (--saturation) carry no weight. With several frames `frame` says
    which. With a geometry each peak has two_theta and chi.

    Raises InputError for frames that are not of the detector of the geometry.
    """
    if geometry is not None:
        geometry.check_frames(scan.frame_shape)
    how = Search(threshold=threshold, most=most, box=box)
    if not 0 <= follow <= max(drift, 0.0):
        raise InputError(f"follow must be between 0 and drift ({drift:g} px), got {follow:g}")
    single = math.prod(scan.shape) == 1
    if follow > 0 and single:
        raise InputError("follow needs a scan of several frames; leave it out for one image")
    found, about = {}, []
    for at, spots in find_in_batches(scan, how):
        found[at] = columns_of(spots)
        about.append((spots.background.gain, spots.correlation, len(spots.hot)))
    order = sorted(found)
    table = peak_table([found[at] for at in order], frames=None if single else order, geometry=geometry)
    if follow > 0:
        table = follow_peaks(table, scan.shape, tolerance_px=follow, drift_px=drift, steps=_steps(scan.axes))
    if found and not table.sizes["peak"]:
        which = "" if single else f" in any frame; of frame {order[0]}"
        table.attrs["caution"] = f"no peaks{which}: {why_without_peaks(*frame_of(scan, order[0]))}"
    gain, correlation, hot = np.array(about, float).reshape(-1, 3).T
    return table.assign_attrs(
        frames=len(found),
        frame_rows=scan.frame_shape[0],
        frame_columns=scan.frame_shape[1],
        gain=float(np.median(gain)) if len(found) else math.nan,
        noise_correlation=float(np.median(correlation)) if len(found) else math.nan,
        hot_pixels=int(hot.sum()),
    )


def _steps(axes: tuple[Axis, ...]) -> dict[str, float] | None:
    """Step of each axis in um; None where one has no length, or they are not even."""
    steps = {a.name: float(np.mean(np.diff(a.values))) * TO_UM.get(a.unit, np.nan) if len(a) > 1 else 1.0 for a in axes}
    return steps if np.isfinite(list(steps.values())).all() else None
