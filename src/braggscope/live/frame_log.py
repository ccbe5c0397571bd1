"""The frames of a scan as they came: two files that only grow.

`frames.bin` has the frames one after another, as recorded; `index.bin` one record for each, written after the frame itself.
A record therefore means a whole frame: after a kill, a half-written frame or record at the end is cut off, and nothing before it
is lost. Any number of processes may follow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .messages import Frame

RECORD = np.dtype(
    [("number", "<i8"), ("position", "<i8"), ("monitor", "<f8"), ("sent", "<f8"), ("received", "<f8"), ("late", "<i8")]
)
FRAMES, INDEX = "frames.bin", "index.bin"


class FrameWriter:
    """Appends frames; one process at a time.

    folder: Of the scan; what an earlier writer left is kept.
    """

    def __init__(self, folder: Path, frame_shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = frame_shape, np.dtype(dtype)
        self.bytes = int(np.prod(frame_shape)) * self.dtype.itemsize
        self._frames = os.open(folder / FRAMES, os.O_RDWR | os.O_CREAT, 0o644)
        self._index = os.open(folder / INDEX, os.O_RDWR | os.O_CREAT, 0o644)
        self.count = min(os.fstat(self._index).st_size // RECORD.itemsize, os.fstat(self._frames).st_size // self.bytes)
        os.ftruncate(self._index, self.count * RECORD.itemsize)
        os.ftruncate(self._frames, self.count * self.bytes)

    def append(self, frames: Sequence[Frame], positions: Sequence[int], late: Sequence[bool]) -> None:
        """Write frames, then their records. Raises OSError where the disk is full; what was there stays."""
        if not frames:
            return
        data = np.stack([np.asarray(frame.data, self.dtype) for frame in frames])
        records = np.array(
            [(f.number, p, f.monitor, f.sent, f.received, w) for f, p, w in zip(frames, positions, late, strict=True)], RECORD
        )
        records["received"][~np.isfinite(records["received"])] = time.time()
        write_at(self._frames, data.view(np.uint8).data.cast("B"), self.count * self.bytes)
        write_at(self._index, records.tobytes(), self.count * RECORD.itemsize)
        self.count += len(frames)

    def close(self) -> None:
        """Close the files."""
        os.close(self._frames)
        os.close(self._index)


class FrameLog:
    """The frames so far (the `Frames` of a scan): its shape grows as frames come."""

    def __init__(self, folder: Path, frame_shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.folder, self.frame_shape, self.dtype = Path(folder), frame_shape, np.dtype(dtype)

    def __len__(self) -> int:
        try:
            return (self.folder / INDEX).stat().st_size // RECORD.itemsize
        except FileNotFoundError:
            return 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames so far, rows, columns."""
        return (len(self), *self.frame_shape)

    def records(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The records (RECORD) of these frames, in order of arrival."""
        stop = len(self) if stop is None else min(stop, len(self))
        if stop <= start:
            return np.zeros(0, RECORD)
        return np.fromfile(self.folder / INDEX, RECORD, count=stop - start, offset=start * RECORD.itemsize)

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Frames `which`, cut to rows and columns, in memory; shape (frame, row, column)."""
        if not len(self):
            return np.zeros((0, *self.frame_shape), self.dtype)[:, rows, columns]
        mapped = np.memmap(self.folder / FRAMES, self.dtype, "r", shape=self.shape)
        return np.array(mapped[which, rows, columns])


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of the data at an offset of an open file."""
    left = memoryview(data)
    while len(left):
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
