"""Batches: some frames and where they belong; and blocks of pixels with their curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Batch:
    """Some frames of a scan, in any order.

    index: Flat position of each frame in the scan grid (C order, slowest axis first), shape (frame,), int64.
    frames: Counts as recorded, shape (frame, row, column), integer or float.
    monitor: Incident flux during each frame in any constant unit, shape (frame,), or None.
    mask: True where a count may be used, shape (frame, row, column), or None where all may.
    """

    index: np.ndarray
    frames: np.ndarray
    monitor: np.ndarray | None = None
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 3 or self.index.shape != self.frames.shape[:1]:
            raise ValueError(
                f"a batch needs frames (frame, row, column) and one index each, got {self.frames.shape} and {self.index.shape}"
            )
        if self.mask is not None and self.mask.shape != self.frames.shape:
            raise ValueError(f"mask (frame, row, column) must be {self.frames.shape}, got {self.mask.shape}")

    def __len__(self) -> int:
        return len(self.index)

    def take(self, which: np.ndarray) -> Batch:
        """The frames that `which` selects (booleans or positions in this batch)."""
        return Batch(
            self.index[which],
            self.frames[which],
            None if self.monitor is None else self.monitor[which],
            None if self.mask is None else self.mask[which],
        )


@dataclass(frozen=True)
class PixelBlock:
    """The curves of some detector pixels over the whole scan.

    index: Flat detector position of each pixel (row * columns + column), shape (pixel,), int64.
    curves: Counts, shape (pixel, point); a point is a flat position of the scan grid.
    mask: True where a count may be used, same shape; points without a frame are False.
    """

    index: np.ndarray
    curves: np.ndarray
    mask: np.ndarray

    def __len__(self) -> int:
        return len(self.index)


def usable(frames: np.ndarray, saturation: float | None = None) -> np.ndarray | None:
    """Where counts may be used: finite, not negative and below saturation; None where all of them may.

    frames: Counts, any shape.
    saturation: Smallest value that means an overflow; by default the largest value of an unsigned integer type.
    """
    kind = frames.dtype.kind
    if saturation is None and kind == "u":
        saturation = float(np.iinfo(frames.dtype).max)
    if kind == "f":
        if (
            np.isfinite(frames.sum())
            and frames.min(initial=0) >= 0
            and (saturation is None or frames.max(initial=0) < saturation)
        ):
            return None
        good = np.isfinite(frames) & (frames >= 0)
        return good if saturation is None else good & (frames < saturation)
    low_ok = kind == "u" or frames.min(initial=0) >= 0
    high_ok = saturation is None or frames.max(initial=0) < saturation
    if low_ok and high_ok:
        return None
    good = frames >= 0
    return good if saturation is None else good & (frames < saturation)


def finite(frames: np.ndarray) -> np.ndarray | None:
    """Where counts of corrected frames may be used: those not marked with NaN, also negative ones; None where all may."""
    return None if np.isfinite(frames.sum()) else np.isfinite(frames)
