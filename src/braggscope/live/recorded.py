"""The recorded frames of a live scan as a Scan, while it grows and afterwards; also a reader (core.source), so that
`braggscope map MAP.h5.live/scan_0001` maps them again offline.

The frames are those that were received; what was lost is missing, as in an aborted scan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from .frame_log import RECORD
from .run_folder import ScanFolder

FORMAT = "recorded live scan (folder)"
RANK = 65


def matches(path: Path) -> bool:
    """Whether a folder is that of a scan of a live run."""
    return path.is_dir() and (path / "start.json").exists() and (path / "index.bin").exists()


def scans(path: Path, *, detector: str | None = None, grid: tuple[int, int] | None = None) -> Iterator[Scan]:
    """The scan of the folder."""
    yield recorded_scan(ScanFolder(Path(path)))


def recorded_scan(folder: ScanFolder) -> Scan:
    """The frames that are there now. A `Follower` takes in those since.

    Raises InputError where the folder holds no scan with a grid.
    """
    start = folder.started
    if start is None or not start.axes or start.frame_shape is None:
        raise InputError(f"{folder.path} holds no scan that has begun")
    records = folder.frames.records()
    return Scan(
        path=folder.path,
        name=start.scan,
        axes=start.axes,
        frames=folder.frames,
        order=records["position"],
        modality=start.modality,
        geometry_values=dict(start.geometry or {}),
        title=str(start.metadata.get("title", "")),
        metadata=start.metadata,
        monitor=_monitor(records),
    )


class Follower:
    """A recorded scan that grows: `advance` takes in what came since, and reads only that.

    scan: With the frames so far; may be replaced by one that is cut, binned, corrected or has another geometry.
    """

    def __init__(self, folder: ScanFolder, scan: Scan) -> None:
        self.frames, self.scan = folder.frames, scan
        self._records = np.zeros(1024, RECORD)
        self.count = 0
        self.advance()

    @property
    def records(self) -> np.ndarray:
        """The records (frame_log.RECORD) of the frames so far."""
        return self._records[: self.count]

    def advance(self) -> int:
        """Take in the frames that came since; how many."""
        fresh = self.frames.records(self.count)
        if len(fresh):
            while self.count + len(fresh) > len(self._records):
                self._records = np.concatenate([self._records, np.zeros(len(self._records), RECORD)])
            self._records[self.count : self.count + len(fresh)] = fresh
            self.count += len(fresh)
        if len(fresh) or len(self.scan.order) != self.count:
            monitor = self._monitored and self.records["monitor"]
            self.scan = dataclasses.replace(
                self.scan, order=self.records["position"], monitor=None if monitor is False else monitor
            )
        return len(fresh)

    @property
    def _monitored(self) -> bool:
        """Whether the frames have an incident flux: the first one tells, so that the scan does not change its mind."""
        return bool(self.count) and bool(np.isfinite(self._records["monitor"][0]))


def _monitor(records: np.ndarray) -> np.ndarray | None:
    """Incident flux of each frame, where every one has it."""
    values: np.ndarray[Any, Any] = records["monitor"]
    return values if len(values) and np.isfinite(values).all() else None
