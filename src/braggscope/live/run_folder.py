"""The folder of a run: all that its parts know of each other.

    MAP.h5.live/
      run.json            what `watch` was asked for
      control.json        pause, region, thresholds, remapping: what a user or the beamline asks for now
      parts/NAME.json     each part's own report (receiver, mapper, trainer, server): process, time, figures
      parts/NAME.lock     held by the one process that may write what is that part's
      models/             version_0001.safetensors ..., current.json (version, file), history.jsonl (a line for each version)
      scan_0001/          one for each scan of the run
        start.json        grid, frame shape, type, modality, geometry
        transport.json    what the transport must know again after a restart
        frames.bin, index.bin             frames as they came (frame_log)
        ledger.jsonl, ledger.json         what was lost, late, refused; counts now (ledger)
        results.bin, results.json         records of mapped frames (result_log)
        state.npz, partial.h5             state and map so far of a method that accumulates
        end.json                          the receiver is done: reason, frames
        done.json                         the map file is written: its path, counts

JSON files are written beside and renamed, so that a reader sees the old or the new one, never half.
"""

from __future__ import annotations

import functools
import json
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import BraggscopeError
from braggscope.core.scan import Axis

from .frame_log import RECORD, FrameLog
from .messages import Start
from .result_log import ResultLog

SUFFIX = ".live"
CLAIM_S = 10.0  # for the process before to end
SCAN = re.compile(r"scan_(\d{4,})")


def folder_of(output: str | Path) -> Path:
    """The run folder that belongs to a map file."""
    return Path(f"{output}{SUFFIX}")


@dataclass(frozen=True)
class ScanFolder:
    """One scan of a run."""

    path: Path

    @property
    def number(self) -> int:
        """1 for the first scan of the run."""
        found = SCAN.fullmatch(self.path.name)
        return int(found[1]) if found else 0

    @property
    def started(self) -> Start | None:
        """How it began; None before."""
        path = self.path / "start.json"
        try:
            stat = path.stat()
        except FileNotFoundError:
            return None
        return _started(str(path), stat.st_mtime_ns, stat.st_size)

    @property
    def frames(self) -> FrameLog:
        """The frames so far; only after the start."""
        start = self.started
        if start is None or start.frame_shape is None or start.dtype is None:
            raise ValueError(f"{self.path} has no start")
        return FrameLog(self.path, start.frame_shape, np.dtype(start.dtype))

    @property
    def records(self) -> np.ndarray:
        """The records of the frames so far; none before there is a start and a frame."""
        start = self.started
        return np.zeros(0, RECORD) if start is None or start.frame_shape is None else self.frames.records()

    @property
    def results(self) -> ResultLog:
        """The records of mapped frames so far."""
        return ResultLog(self.path)

    @property
    def ended(self) -> dict[str, Any] | None:
        """The receiver's last word ({"reason", "frames"}); None while it goes on."""
        return read_json(self.path / "end.json")

    @property
    def done(self) -> dict[str, Any] | None:
        """The mapper's last word ({"output", ...}); None while it goes on."""
        return read_json(self.path / "done.json")


@dataclass(frozen=True)
class RunFolder:
    """A run."""

    path: Path

    def scans(self) -> list[ScanFolder]:
        """Its scans that have begun, in order."""
        found = [p for p in self.path.glob("scan_*") if SCAN.fullmatch(p.name) and (p / "start.json").exists()]
        return [ScanFolder(p) for p in sorted(found, key=lambda p: int(p.name[5:]))]

    def next_scan(self, start: Start) -> ScanFolder:
        """A folder for a scan that begins."""
        number = 1 + max((one.number for one in self.scans()), default=0)
        folder = self.path / f"scan_{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "start.json", start_document(start))
        return ScanFolder(folder)

    def report(self, part: str, **figures: Any) -> None:
        """What a part says of itself now."""
        (self.path / "parts").mkdir(parents=True, exist_ok=True)
        write_json(self.path / "parts" / f"{part}.json", {"pid": os.getpid(), "time": time.time(), **figures})

    def reported(self, part: str) -> dict[str, Any]:
        """What a part said last; empty before."""
        return read_json(self.path / "parts" / f"{part}.json") or {}

    def claim(self, part: str) -> None:
        """Be the one process that does a part of this run, until it ends. Raises BraggscopeError where another does it."""
        import fcntl

        (self.path / "parts").mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path / "parts" / f"{part}.lock", os.O_RDWR | os.O_CREAT, 0o644)  # closed by the end of the process
        until = time.time() + CLAIM_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.time() > until:
                    other = self.reported(part).get("pid")
                    raise BraggscopeError(f"another process ({other}) is the {part} of this run") from None
                time.sleep(0.05)

    def claimed(self) -> dict[str, int]:
        """The parts that a process is working on, with its number."""
        import fcntl

        found = {}
        for path in (self.path / "parts").glob("*.lock"):
            with path.open("r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    found[path.stem] = int(self.reported(path.stem).get("pid", 0))
        return found

    @property
    def control(self) -> dict[str, Any]:
        """What is asked for now; see `control`."""
        return read_json(self.path / "control.json") or {}

    @property
    def models(self) -> Path:
        """Folder of the models."""
        return self.path / "models"


@functools.lru_cache(maxsize=8)
def _started(path: str, changed: int, size: int) -> Start:
    """The start in a file; read again when the file has changed."""
    return start_from(read_json(Path(path)))


def start_document(start: Start) -> dict[str, Any]:
    """A start as plain values."""
    axes = [{"name": a.name, "values": np.asarray(a.values, float).tolist(), "unit": a.unit} for a in start.axes]
    order = None if start.order is None else np.asarray(start.order).tolist()
    plain = {
        name: getattr(start, name) for name in ("scan", "frame_shape", "dtype", "expected", "modality", "geometry", "metadata")
    }
    return {**plain, "axes": axes, "order": order}


def start_from(document: Mapping[str, Any]) -> Start:
    """The start of such plain values, checked. Raises ValueError, TypeError or KeyError where they are none."""
    axes = tuple(Axis(str(a["name"]), np.asarray(a["values"], float).ravel(), str(a.get("unit", ""))) for a in document["axes"])
    shape, order, geometry = (document.get(name) for name in ("frame_shape", "order", "geometry"))
    if not isinstance(geometry, Mapping | None):
        raise TypeError("the geometry must be names and values")
    return Start(
        str(document["scan"]),
        axes,
        None if shape is None else (int(shape[0]), int(shape[1])),
        None if document.get("dtype") is None else np.dtype(str(document["dtype"])).str,
        None if document.get("expected") is None else int(document["expected"]),
        None if order is None else np.asarray(order, np.int64).ravel(),
        None if document.get("modality") is None else str(document["modality"]),
        geometry,
        dict(document.get("metadata") or {}),
    )


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file whole or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    beside.write_text(json.dumps(document))
    os.replace(beside, path)


def read_json(path: Path) -> Any:
    """The document of a JSON file; None where there is none (yet)."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
