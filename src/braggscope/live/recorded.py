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

from .run_folder import ScanFolder

FORMAT = "recorded live scan (folder)"
RANK = 5


def matches(path: Path) -> bool:
    """Whether a folder is that of a scan of a live run."""
    return path.is_dir() and (path / "start.json").exists() and (path / "index.bin").exists()


def scans(path: Path, *, detector: str | None = None, grid: tuple[int, int] | None = None) -> Iterator[Scan]:
    """The scan of the folder."""
    yield recorded_scan(ScanFolder(Path(path)))


def recorded_scan(folder: ScanFolder) -> Scan:
    """The frames that are there now. Call `grown` for those since.

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


def grown(scan: Scan, folder: ScanFolder) -> Scan:
    """The same scan with the frames that came since; its corrections and geometry stay."""
    records = folder.frames.records()
    return dataclasses.replace(scan, order=records["position"], monitor=_monitor(records))


def _monitor(records: np.ndarray) -> np.ndarray | None:
    """Incident flux of each frame, where every one has it."""
    values: np.ndarray[Any, Any] = records["monitor"]
    return values if len(values) and np.isfinite(values).all() else None
