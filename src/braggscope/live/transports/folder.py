"""`dir:FOLDER`: one file after another in a folder, as a detector writes them (TIFF, CBF, EDF, npy, HDF5 with some frames each).

The folder is listed again and again; a file is read when its size and time have stood still for a moment, and tried again while
it cannot be read. The number of a frame is the last number in the name of its file, counted from the lowest that has been seen
when the first one is read (`first=` says it otherwise); of a file with several frames, its place among all of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.source import open_scan

from ..messages import End, Frame, Message, Refused, Start
from ..urls import Url

SCHEMES = {"dir": "a folder that fills with image files"}
PARAMETERS = {
    "match": "only files whose name holds this",
    "first": "number of the first file; by default the lowest there is when the first one is read",
    "still": "seconds that a file must have stood still (0.1)",
    "format": "of the simulator: npy (default) or tif",
}
KNOWS_GRID = False  # the scan is not described: --grid or --plan does
PACKAGES: tuple[str, ...] = ()
STILL_S = 0.1
POLL_S = 0.02
TRIES_S = 5.0  # how long a file that stands still and cannot be read is tried again
CBF_HEADER, CBF_BEGIN = 2**20, b"\x0c\x1a\x04\xd5"  # longest header; what stands before the pixels
NUMBER = re.compile(r"(\d+)(?!.*\d)")
SUFFIXES = (".tif", ".tiff", ".cbf", ".edf", ".npy", ".h5", ".hdf5", ".nxs", ".mccd", ".mar345", ".img")


class Folder:
    """The receiving end."""

    def __init__(self, url: Url) -> None:
        self._folder, self._match = Path(url.place), url.parameters.get("match", "")
        self._still = url.number("still", STILL_S, low=0, high=60)
        self._first = int(url.number("first", 0, low=0, high=1e9)) if "first" in url.parameters else None
        if not self._folder.is_dir():
            raise InputError(f"folder {self._folder} does not exist")
        self._seen: dict[str, tuple[int, int]] = {}  # size and time of files that are not read yet
        self._since: dict[str, float] = {}
        self._done: set[str] = set()
        self._waiting: list[Message] = []
        self._each: int | None = None  # frames in a file

    def receive(self, timeout_s: float, most: int = 256) -> Sequence[Message]:
        """See `transports.Receiver`."""
        if not self._waiting:
            for name in self._ready():
                self._waiting += self._read(name)
                if len(self._waiting) >= most:
                    break
        found, self._waiting = self._waiting[:most], self._waiting[most:]
        if not found:
            time.sleep(min(timeout_s, POLL_S))
        return found

    def close(self) -> None:
        """Nothing is held open."""

    def _ready(self) -> list[str]:
        """Files that are not read yet and stand still, by number."""
        now = time.time()
        for name, size in self._listed().items():
            if self._seen.get(name) != size:
                self._seen[name], self._since[name] = size, now
        still = [n for n in self._seen if now - self._since[n] >= self._still and self._seen[n][0]]
        return sorted(still, key=lambda name: (_number(name) or 0, name))

    def _listed(self) -> dict[str, tuple[int, int]]:
        """Size and time of the files that are not read yet; none while the folder cannot be listed."""
        found = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name in self._done or self._match not in name or not name.lower().endswith(SUFFIXES):
                        continue
                    with contextlib.suppress(OSError):  # renamed or deleted since
                        stat = entry.stat()
                        found[name] = stat.st_size, stat.st_mtime_ns
        except OSError:  # gone for a moment, as folders on a network are
            return {}
        return found

    def _read(self, name: str) -> list[Message]:
        """The frames of a file; nothing where it cannot be read yet."""
        number = _number(name)
        if number is None:
            return self._refuse(name, "no number in the name")
        try:
            if name.lower().endswith(".cbf") and not _whole_cbf(self._folder / name):
                raise ValueError("cut off")  # a reader may look for its end for ever
            scan = open_scan(self._folder / name)
            assert scan.frames is not None
            count, rows, columns = scan.frames.shape
            frames = scan.frames.read(slice(0, count), slice(0, rows), slice(0, columns))
        except Exception as error:  # whatever is wrong with one file must not end the scan
            if time.time() - self._since[name] < TRIES_S:
                return []
            return self._refuse(name, f"unreadable ({type(error).__name__})")
        if self._first is None:
            self._first = min(n for n in map(_number, self._seen) if n is not None)
        self._each = self._each or count
        begin = (number - self._first) * self._each
        self._forget(name)
        if begin < 0:
            return [Refused("before the first file", f"{name} has a lower number than the first file")]
        return [Frame(begin + i, np.asarray(frame), received=time.time()) for i, frame in enumerate(frames)]

    def _refuse(self, name: str, why: str) -> list[Message]:
        self._forget(name)
        return [Refused("unreadable file", f"{name}: {why}")]

    def _forget(self, name: str) -> None:
        self._done.add(name)
        self._seen.pop(name, None)
        self._since.pop(name, None)


def _whole_cbf(path: Path) -> bool:
    """Whether a CBF file has as many bytes as its header says."""
    with path.open("rb") as file:
        head = file.read(CBF_HEADER)
    size, begin = re.search(rb"X-Binary-Size:\s*(\d+)", head), head.find(CBF_BEGIN)
    return size is not None and begin >= 0 and path.stat().st_size >= begin + len(CBF_BEGIN) + int(size[1])


def _number(name: str) -> int | None:
    """The last number in the name of a file, without its suffix."""
    found = NUMBER.search(Path(name).stem)
    return int(found[1]) if found else None


class FolderWriter:
    """The detector's end: writes each frame as a file under its final name, so that readers may see half of it."""

    def __init__(self, url: Url) -> None:
        self._folder, self._format = Path(url.place), url.parameters.get("format", "npy")
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f"{self._folder} is a file, not a folder")
        self._folder.mkdir(parents=True, exist_ok=True)

    def start(self, start: Start) -> None:
        """Nothing is written: a folder of images says nothing of the scan."""

    def frame(self, frame: Frame) -> None:
        """Write a file."""
        path = self._folder / f"frame_{frame.number:06d}.{self._format}"
        if self._format == "tif":
            import tifffile

            tifffile.imwrite(path, frame.data)
        else:
            np.save(path, frame.data)

    def end(self, end: End) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """Nothing is open."""


def open(url: Url) -> Folder:
    """The receiving end."""
    return Folder(url)


def simulate(url: Url) -> FolderWriter:
    """The detector's end."""
    return FolderWriter(url)
