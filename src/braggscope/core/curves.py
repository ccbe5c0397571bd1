"""From frames in any order to the curves of pixels over the whole scan, regrouped once.

A stack that fits is kept in memory; a larger one goes through a scratch file in the folder for temporary files (TMPDIR), which
holds a band of pixels in one piece, so that it is written in long runs and read once. Counts keep their type.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np

from .batch import Batch, PixelBlock

MEMORY_BYTES = 512 * 2**20  # stacks up to this size are regrouped in memory
BAND_BYTES = 64 * 2**20  # of a band of pixels in the scratch file
BLOCK_BYTES = 16 * 2**20  # of a block that is handed out: some seconds of work, so that progress is seen


def pixel_blocks(
    batches: Iterable[Batch], points: int, frame_shape: tuple[int, int], size: int | None = None
) -> Iterator[PixelBlock]:
    """The curves of all pixels, in blocks of neighbouring ones.

    batches: Frames, in any order; positions without one are masked.
    points: Positions of the scan.
    size: Pixels of a block; by default as many as fit in 16 MB.
    """
    pixels, there = math.prod(frame_shape), np.zeros(points, bool)
    stack: _Stack | None = None
    try:
        for batch in batches:
            if stack is None:
                stack = _Stack(points, pixels, batch.frames.dtype)
            stack.put(batch)
            there[batch.index] = True
        if stack is None:
            stack = _Stack(points, pixels, np.dtype(np.uint16))
        size = size or max(1, BLOCK_BYTES // (points * stack.dtype.itemsize))
        for first, counts, good in stack.bands():
            for start in range(0, counts.shape[1], size):
                stop = min(start + size, counts.shape[1])
                curves = np.ascontiguousarray(counts[:, start:stop].T)
                mask = np.broadcast_to(there, curves.shape)
                if good is not None:
                    mask = mask & good[:, start:stop].T
                yield PixelBlock(np.arange(first + start, first + stop), curves, mask)
    finally:
        if stack is not None:
            stack.close()


class _Stack:
    """Frames by position of the scan, in memory or in scratch files; masks beside them from the first frame that has one."""

    def __init__(self, points: int, pixels: int, dtype: np.dtype[Any]) -> None:
        self.points, self.pixels, self.dtype = points, pixels, dtype
        self.large = points * pixels * dtype.itemsize > MEMORY_BYTES
        self.width = max(1, BAND_BYTES // (points * dtype.itemsize)) if self.large else pixels
        self.counts = self._store(dtype)
        self.masks: np.ndarray | IO[bytes] | None = None

    def _store(self, dtype: np.dtype[Any]) -> np.ndarray | IO[bytes]:
        if not self.large:
            return np.zeros((self.points, self.pixels), dtype)
        return tempfile.TemporaryFile(buffering=0)

    def put(self, batch: Batch) -> None:
        """Keep the frames of a batch. Raises ValueError where their type is another one than before."""
        if batch.frames.dtype != self.dtype:
            raise ValueError(f"frames must keep their type {self.dtype}, got {batch.frames.dtype}")
        order = np.argsort(batch.index, kind="stable")
        index = batch.index[order]
        self._write(self.counts, index, batch.frames.reshape(len(batch), -1), order)
        if batch.mask is not None:
            if self.masks is None:  # True is stored as 0, which is also what was never written
                self.masks = self._store(np.dtype(bool))
            self._write(self.masks, index, ~batch.mask.reshape(len(batch), -1), order)

    def _write(self, store: np.ndarray | IO[bytes], index: np.ndarray, rows: np.ndarray, order: np.ndarray) -> None:
        if isinstance(store, np.ndarray):
            store[index] = rows[order]
            return
        breaks = np.flatnonzero(np.diff(index) != 1) + 1
        for start, stop in zip([0, *breaks], [*breaks, len(index)], strict=True):
            for first in range(0, self.pixels, self.width):
                wide = min(self.width, self.pixels - first)
                piece = np.ascontiguousarray(rows[order[start:stop], first : first + wide])
                at = (self.points * first + int(index[start]) * wide) * rows.itemsize
                _whole(os.pwrite, store, piece.data.cast("B"), at)

    def bands(self) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
        """First pixel, counts and (where there are masks) what may be used, shapes (point, pixel of the band)."""
        for first in range(0, self.pixels, self.width):
            wide = min(self.width, self.pixels - first)
            counts = self._read(self.counts, first, wide, self.dtype)
            bad = None if self.masks is None else self._read(self.masks, first, wide, np.dtype(bool))
            yield first, counts, None if bad is None else ~bad

    def _read(self, store: np.ndarray | IO[bytes], first: int, wide: int, dtype: np.dtype[Any]) -> np.ndarray:
        if isinstance(store, np.ndarray):
            return store
        band = np.zeros((self.points, wide), dtype)
        store.seek(self.points * first * dtype.itemsize)
        view, done = band.data.cast("B"), 0
        while done < len(view) and (got := store.readinto(view[done:])):  # type: ignore[attr-defined]
            done += got  # what was never written at the end of the file stays zero
        return band

    def close(self) -> None:
        """Remove the scratch files."""
        for store in (self.counts, self.masks):
            if store is not None and not isinstance(store, np.ndarray):
                store.close()


def _whole(write: Any, store: IO[bytes], view: memoryview, at: int) -> None:
    """Write all of a piece, which the system may do in several parts."""
    done = 0
    while done < len(view):
        done += write(store.fileno(), view[done:], at + done)
