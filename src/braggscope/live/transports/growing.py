"""`h5:FILE`: a scan file that is still being written, by SWMR or by a writer that opens and closes it.

The file is opened anew each time it is looked at, read as far as its frames go, and closed, so that a writer which needs it
for itself gets it. A stack may have grown before the counts of its last frame are written: a frame is read when it has been
there for a moment. A file that is not there yet, locked or half written is tried again. What its layout is, the readers of
finished scans know. In a file that was made at its full size, frames count as they are written; one that is passed over, or
whose chunk holds several frames and only some are written yet, cannot be waited for. A plain stack that grows does not say
how large it will be: its grid comes from the user (`--grid`, `--plan`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.scan import Scan
from braggscope.core.source import open_scan

from ..messages import End, Frame, Message, Start
from ..playing import start_of
from ..urls import Url

SCHEMES = {"h5": "a scan file that is being written (HDF5, SWMR or not)"}
PARAMETERS = {
    "scan": "one of several scans in the file",
    "poll": "seconds between two looks (0.02)",
    "still": "seconds that a frame must have been there before it is read (0.1)",
    "swmr": "of the simulator: 1 writes by SWMR, 0 opens and closes the file",
    "compress": "of the simulator: 1 writes compressed frames",
}
PACKAGES: tuple[str, ...] = ()
POLL_S = 0.02
STILL_S = 0.1
AT_ONCE = 64 * 2**20  # bytes of frames that are read together


class Growing:
    """The receiving end."""

    def __init__(self, url: Url) -> None:
        self._path, self._name = Path(url.place), url.parameters.get("scan")
        self._poll = url.number("poll", POLL_S, low=1e-3, high=60)
        self._still = url.number("still", STILL_S, low=0, high=60)
        self._seen: deque[tuple[float, int]] = deque()  # when it was looked at, and how many frames there were
        if not self._path.parent.is_dir():
            raise InputError(f"folder {self._path.parent} of {self._path} does not exist")
        self._first: tuple[float, tuple[int, ...]] | None = None  # look: when, and the grid
        self._start: Start | None = None
        self._read = 0
        self._known: set[int] = set()
        self._knows_grid = False

    def skip(self, positions: np.ndarray) -> None:
        """Leave out frames at these flat positions, which were recorded before a restart."""
        self._known = set(positions.tolist())

    def receive(self, timeout_s: float, most: int = 256) -> Sequence[Message]:
        """See `transports.Receiver`."""
        scan = self._look()
        if scan is None:
            time.sleep(min(timeout_s, self._poll))
            return []
        if self._start is None:
            return self._begun(scan, timeout_s)
        found: list[Message] = self._new(scan, most)
        if not found:
            time.sleep(min(timeout_s, self._poll))
        return found

    def close(self) -> None:
        """Nothing is held open."""

    def _look(self) -> Scan | None:
        """The scan as it is now; None where the file is not there, not readable now, or has no frames yet."""
        try:
            if not self._path.exists():
                return None
            scan = open_scan(self._path, self._name)
        except (InputError, OSError, RuntimeError, KeyError, ValueError):
            return None  # half written: the next look tells
        return scan if scan.frames is not None and scan.frames.shape[0] else None

    def _begun(self, scan: Scan, timeout_s: float) -> list[Message]:
        """The start, when the file has been looked at twice: while a stack grows, its length and its frames are not those of one
        moment, and a grid that changes is no plan."""
        now = time.time()
        self._first = self._first or (now, scan.shape)
        if now - self._first[0] < max(self._still, self._poll):
            time.sleep(min(timeout_s, self._poll))
            return []
        self._start = start_of(scan)
        return [self._planned(scan, scan.shape == self._first[1])]

    def _planned(self, scan: Scan, same: bool) -> Start:
        """How the scan began. A stack along one axis that has a frame at every position may be all, or only what is there so far:
        its grid must come from the user. same: Whether the grid is that of the first look."""
        assert self._start is not None and scan.frames is not None
        points = math.prod(scan.shape)
        self._knows_grid = same and (len(scan.axes) > 1 or scan.frames.shape[0] < points)
        start = dataclasses.replace(self._start, expected=points, order=None)
        return start if self._knows_grid else dataclasses.replace(start, axes=(), expected=None)

    def _new(self, scan: Scan, most: int) -> list[Message]:
        """Frames that came since the last look."""
        assert scan.frames is not None
        rows, columns = (slice(0, n) for n in scan.frames.shape[1:])
        try:
            count, there = min(scan.frames.shape[0], len(scan.order)), _written(scan.frames)
            if there is not None:
                count = int(there[:count].nonzero()[0].max(initial=-1)) + 1  # a hole is passed over when later frames are there
            each = max(1, math.prod(scan.frames.shape[1:]) * np.dtype(scan.frames.dtype).itemsize)
            stop = min(self._settled(count), self._read + max(1, min(most, AT_ONCE // each)))
            if stop <= self._read:
                return []
            frames = scan.frames.read(slice(self._read, stop), rows, columns)
            read = np.arange(self._read, stop)
        except (InputError, OSError, RuntimeError, ValueError):
            return []
        now, found = time.time(), []
        for number, data in zip(read, frames, strict=True):
            if there is not None and not there[number]:
                continue
            position = int(scan.order[number]) if self._knows_grid else None
            if (number if position is None else position) not in self._known:
                monitor = math.nan if scan.monitor is None else float(scan.monitor[number])
                found.append(Frame(int(number), data, position, monitor, received=now))
        self._read = stop
        return list(found)

    def _settled(self, count: int) -> int:
        """How many frames have been there for long enough, where there are so many now."""
        now, settled = time.time(), 0
        self._seen.append((now, count))
        while len(self._seen) > 1 and self._seen[1][0] <= now - self._still:
            self._seen.popleft()
        if self._seen[0][0] <= now - self._still:
            settled = self._seen[0][1]
        return settled


def _written(frames: Any) -> np.ndarray | None:
    """Booleans over frames: whether they are in a file that was made at its full size; None for others."""
    found: np.ndarray | None = frames.written() if hasattr(frames, "written") else None
    return found


class GrowingWriter:
    """The detector's end: a plain stack of frames that grows, as a detector's file writer makes it."""

    def __init__(self, url: Url) -> None:
        self._path, self._swmr, self._compress = Path(url.place), url.yes("swmr"), url.yes("compress")
        if self._path.exists():
            raise InputError(f"{self._path} exists; give another name")

    def start(self, start: Start) -> None:
        """Make the file, with no frames."""
        import h5py
        import hdf5plugin

        assert start.frame_shape is not None
        how = dict(hdf5plugin.Bitshuffle(cname="lz4")) if self._compress else {}
        self._file = h5py.File(self._path, "w", libver="latest")
        self._stack = self._file.create_dataset(
            "entry/data/data", (0, *start.frame_shape), start.dtype, maxshape=(None, *start.frame_shape),
            chunks=(1, *start.frame_shape), **how,
        )  # fmt: skip
        if self._swmr:
            self._file.swmr_mode = True
        else:
            self._file.close()

    def frame(self, frame: Frame) -> None:
        """Write a frame at the place of its number."""
        import h5py

        if not self._swmr:
            self._file = h5py.File(self._path, "r+", libver="latest", locking=False)
            self._stack = self._file["entry/data/data"]
        self._stack.resize(max(len(self._stack), frame.number + 1), axis=0)
        self._stack[frame.number] = frame.data
        if self._swmr:
            self._stack.flush()
        else:
            self._file.close()

    def end(self, end: End) -> None:
        """Close the file."""
        if self._swmr:
            self._file.close()

    def close(self) -> None:
        """Nothing else is open."""


def open(url: Url) -> Growing:
    """The receiving end."""
    return Growing(url)


def simulate(url: Url) -> GrowingWriter:
    """The detector's end."""
    return GrowingWriter(url)
