"""Reading a movie: its axis in steps, and the images of every frame, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.source import Source

from .detecting import Detection, Detector
from .following import CONFIRMED

Array = np.ndarray
LEAST_USABLE = 0.5  # of the pixels of a frame


@dataclass(frozen=True)
class Axis:
    """The axis of a movie: name, unit, values, and the values in steps of the median distance of two frames."""

    name: str
    unit: str
    values: Array
    steps: Array
    step: float


def axis_of(scan: Source) -> Axis:
    """The one axis of a movie, time or a motor. Raises InputError where there are several, too few frames, or places repeat."""
    names = [str(n) for n in scan.grid.dims]
    if len(names) != 1:
        said = " x ".join(f"{n} ({scan.grid.sizes[n]})" for n in names) or "none"
        raise InputError(f"track needs a movie, a scan of one axis such as time, got {said}")
    coordinate = scan.grid[names[0]]
    values = np.asarray(coordinate.values, float)
    if len(values) < CONFIRMED:
        raise InputError(f"track needs a movie of at least {CONFIRMED} frames, got {len(values)}")
    apart = np.diff(values)
    if not (np.isfinite(values).all() and ((apart > 0).all() or (apart < 0).all())):
        raise InputError(f"the axis {names[0]} of a movie must rise or fall in every step, got places that repeat or turn back")
    step = float(np.median(np.abs(apart)))
    return Axis(names[0], str(coordinate.attrs.get("units", "")), values, np.abs(values - values[0]) / step, step)


def usable_frames(scan: Source, only: Array | None = None) -> Iterator[tuple[int, Array, Array | None]]:
    """Number, counts and usable pixels of each frame most of whose pixels may be used."""
    for batch in scan.batches() if only is None else scan.batches(only=only):
        for n, index in enumerate(batch.index):
            mask = None if batch.mask is None else batch.mask[n]
            if mask is None or mask.mean() >= LEAST_USABLE:
                yield int(index), batch.frames[n], None if mask is None or mask.all() else mask


def images_of(scan: Source, detector: Detector, frames: int) -> list[list[Detection] | None]:
    """The images in each frame; None for frames that are missing or unusable."""
    every: list[list[Detection] | None] = [None] * frames
    for index, counts, usable in usable_frames(scan):
        every[index] = detector.found(counts, usable)
    return every
