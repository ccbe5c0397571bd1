"""What was made of each frame by a method whose points come from one frame each: a file of records that only grows.

A position may come twice, where it was mapped again with a later model; the last record holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .frame_log import write_at

RESULTS, COLUMNS = "results.bin", "results.json"
FIXED = [("position", "<i8"), ("version", "<i4"), ("flag", "<i4"), ("mapped", "<f8")]


def record_type(names: Sequence[str]) -> np.dtype:
    """Of a record: position, model version, flag, Unix time when it was mapped, then the quantities."""
    return np.dtype(FIXED + [(name, "<f8") for name in names])


class ResultWriter:
    """Appends records; one process at a time. A half-written record that a kill left is cut off.

    names: Of the quantities (with their standard deviations), without the flag.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        from .run_folder import write_json

        self.dtype = record_type(names)
        if not (folder / COLUMNS).exists():
            write_json(folder / COLUMNS, list(names))
        self._file = os.open(folder / RESULTS, os.O_RDWR | os.O_CREAT, 0o644)
        self.count = os.fstat(self._file).st_size // self.dtype.itemsize
        os.ftruncate(self._file, self.count * self.dtype.itemsize)

    def append(self, records: np.ndarray) -> None:
        """Write records (of `dtype`). Raises OSError where the disk is full."""
        write_at(self._file, records.tobytes(), self.count * self.dtype.itemsize)
        self.count += len(records)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class ResultLog:
    """The records so far; any number of processes may follow."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @property
    def names(self) -> list[str]:
        """Of the quantities; none before the method has begun."""
        path = self.folder / COLUMNS
        return [str(name) for name in json.loads(path.read_text())] if path.exists() else []

    def __len__(self) -> int:
        path = self.folder / RESULTS
        return path.stat().st_size // record_type(self.names).itemsize if path.exists() else 0

    def records(self, start: int = 0) -> np.ndarray:
        """Records from `start` on."""
        dtype, count = record_type(self.names), len(self)
        if count <= start:
            return np.zeros(0, dtype)
        return np.fromfile(self.folder / RESULTS, dtype, count=count - start, offset=start * dtype.itemsize)
