"""Hot pixels: those that are bad in every frame, and hits by cosmic rays or scattered photons in a single frame.

Bad in every frame: the median over frames spread through the scan lies further from the median of the 24 pixels around it than
the noise and the fixed pattern of the camera allow, or never changes while the other pixels do. In a single frame: a count above
all that an image through optics can have beside its neighbours (core.corrections.Spikes). Both in units of noise, which photon
transfer tells. Not found: tracks of three pixels or more side by side, pixels that blink, hot pixels among many others.

They are left out, not replaced: a replaced count looks like a measured one. Where pixels are to be binned or shown, fill=median
replaces them by the median around them, and the record says so.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from scipy.ndimage import median_filter

from braggscope.core.analysis import Says
from braggscope.core.corrections import Spikes, Unspiked, corrected, raw
from braggscope.core.errors import InputError
from braggscope.core.scan import Frames, Scan

from ._noise import believed_noise

ORDER = 10
FRAMES = 15  # whose median tells the pixels that are bad in all
AROUND = 5  # pixels, the side of the square that a pixel is compared with


def hot_pixels(
    scan: Scan,
    *,
    threshold: Annotated[float, Says("how far a count stands out, in standard deviations of its noise")] = 8.0,
    contrast: Annotated[float, Says("most that light can be brighter in a pixel than in the second brightest beside it")] = 4.0,
    fill: Annotated[
        str, Says("whether hot pixels are left out or get the median around them", choices=("mask", "median"))
    ] = "mask",
) -> Scan:
    """Leave out pixels that are hot or dead in the whole scan, and hot counts of single frames."""
    if not (math.isfinite(threshold) and threshold >= 3):
        raise InputError(f"threshold must be at least 3 standard deviations, got {threshold:g}")
    if not (math.isfinite(contrast) and contrast >= 1):
        raise InputError(f"contrast must be at least 1, got {contrast:g}")
    frames, noise = raw(scan), believed_noise(scan)
    gain = noise.gain
    variance = max(noise.variance, gain**2, 1 / 12)
    spikes = Spikes(noise.level, variance, gain, threshold, contrast)
    bad = always_bad(frames, spikes)
    record: dict[str, Any] = {
        "name": "hot-pixels", "options": {"threshold": threshold, "contrast": contrast, "fill": fill},
        "bad_pixels": int(bad.sum()), "level": noise.level, "readout": math.sqrt(variance), "gain": gain,
    }  # fmt: skip
    return corrected(scan, record, frames=Unspiked(frames, bad, spikes, fill == "median"))


def always_bad(frames: Frames, spikes: Spikes) -> np.ndarray:
    """True at pixels that are bad in every frame, shape (row, column) of the recorded frame."""
    count, rows, columns = frames.shape
    which = np.unique(np.linspace(0, count - 1, min(count, FRAMES)).astype(int))
    values = frames.read(which, slice(0, rows), slice(0, columns))
    unusable = ~np.isfinite(values).any(axis=0)
    values = np.where(unusable, values.dtype.type(spikes.level), values)
    middle = np.nanmedian(values, axis=0)
    ground = median_filter(middle, AROUND, mode="nearest")
    away = middle - ground
    pattern = 1.4826 * float(np.median(np.abs(away)))  # of the camera, and what is left of the noise in the median
    signal = np.maximum(ground - spikes.level, 0)
    limit = spikes.threshold * np.sqrt(spikes.variance + pattern**2 + spikes.gain * signal)
    change = np.nanmax(values, axis=0) - np.nanmin(values, axis=0)
    stuck = (change == 0) & (np.mean(change == 0) < 0.05) & (len(which) >= 5)
    hot = away > limit + (spikes.contrast - 1) * signal
    return unusable | stuck | hot | (away < -limit - 0.5 * signal)
