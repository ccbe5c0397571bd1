"""TIFF: a folder of files (in natural order, frame_2 before frame_10) or one file of many pages.

TIFF says nothing of motors: the frames are a line, or fill the grid that is asked for.
"""

from __future__ import annotations

import math
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.scan import Axis, Frames, Scan

from .hdf5 import runs
from .positions import Placed, on_given_grid
from .series import PageFrames, check_not_empty, has_suffix, prefix_of, series_in, unequal

FORMAT = "TIFF"
RANK = 90  # asked last: it also answers for folders without any images
SUFFIXES = (".tif", ".tiff")

_opening = threading.Lock()


def matches(path: Path) -> bool:
    """Whether the path is a TIFF file or a folder (one without images is an error that `scans` explains)."""
    path = Path(path)
    return path.is_dir() or (has_suffix(path, SUFFIXES) and path.is_file())


def scans(path: Path, *, detector: str | None = None, grid: Sequence[int] | None = None) -> Iterator[Scan]:
    """The pages of a file, or the series of a folder.

    grid: Length of each scan axis, slowest first; without it the frames are a line.
    Raises InputError where there are no images, a file cannot be read, or the frames of a series differ in size.
    """
    path = Path(path)
    if path.is_file():
        check_not_empty(path, "a TIFF image")
        yield _scan(path, path.name, _pages(path), grid)
        return
    found = series_in(path, SUFFIXES)
    if not found:
        there = sorted(p.name for p in path.iterdir())[:5]
        raise InputError(f"folder {path} has no images (.tif, .tiff or .edf); it has: {', '.join(there) or 'nothing'}")
    for prefix, files in found.items():
        if len(files) == 1:
            yield _scan(path, prefix_of(files[0], SUFFIXES).rstrip("_-.") or files[0].name, _pages(files[0]), grid)
        else:
            yield _scan(path, prefix.rstrip("_-.") or path.name, _files(files), grid)


def _scan(path: Path, name: str, frames: Frames, grid: Sequence[int] | None) -> Scan:
    count = frames.shape[0]
    placed = Placed((Axis("point", np.arange(float(count))),), np.arange(count))
    if grid is not None:
        placed = on_given_grid(grid, count, {}, {})
    return Scan(path, name, placed.axes, frames, placed.order, title=name, missing=placed.missing)


def _files(files: list[Path]) -> PageFrames:
    """One frame a file. Files as long as the first one have its size; others are looked at."""
    shape, dtype = _shape(files[0])
    length = files[0].stat().st_size
    for file in files[1:]:
        if file.stat().st_size != length and (other := _shape(file)[0]) != shape:
            raise InputError(unequal(file, other, files[0], shape))
    return PageFrames([(file, 0) for file in files], shape, dtype, load)


def _pages(path: Path) -> Frames:
    """All pages of a file: read straight from their place where they lie uncompressed in one piece, else page by page."""
    with _opened(path) as tif:
        stack = tif.series[0]
        shape, dtype = _grey(path, stack.shape, stack.axes), np.dtype(stack.dtype)
        if stack.dataoffset is not None:
            order = dtype.newbyteorder(tif.byteorder)
            return RawFrames(path, stack.dataoffset, (math.prod(stack.shape[:-2]), *shape), order)
        for page in tif.pages:
            if page.shape != shape:
                raise InputError(
                    f"{path} has pages of different sizes: {shape[0]} x {shape[1]} and {page.shape[0]} x {page.shape[1]}"
                )
        return PageFrames([(path, number) for number in range(len(tif.pages))], shape, dtype, load_page)


def load(path: Path, page: int) -> np.ndarray:
    """The frame of a file of one page, shape (row, column)."""
    with _opened(path) as tif:
        return tif.pages[page].asarray()


def load_page(path: Path, page: int) -> np.ndarray:
    """One page of a file, shape (row, column); the file stays open for the next."""
    with _opening, _explained(path):  # one file position, shared by all threads
        return _kept_open(path).pages[page].asarray()


@lru_cache(maxsize=4)
def _kept_open(path: Path) -> Any:
    import tifffile

    return tifffile.TiffFile(path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, open while it is read. Raises InputError where it is empty, no TIFF or damaged."""
    import tifffile

    check_not_empty(path, "a TIFF image")
    with _explained(path), tifffile.TiffFile(path) as tif:
        yield tif


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the library raises for a damaged file, and there is much, into one sentence."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, OSError, LookupError, RuntimeError, ImportError, TypeError, struct.error, zlib.error) as error:
        raise InputError(f"{path} is not a TIFF file or is damaged ({error})") from None


def _shape(path: Path) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Rows, columns and type of a file's first page."""
    with _opened(path) as tif:
        page = tif.pages[0]
        return _grey(path, page.shape, page.axes), np.dtype(page.dtype)


def _grey(path: Path, shape: Sequence[int], axes: str) -> tuple[int, int]:
    """Rows and columns of a grey image. Raises InputError for a coloured one."""
    if axes.endswith("S") or len(shape) < 2:
        raise InputError(f"{path} must hold grey images (rows x columns), got an array of {' x '.join(map(str, shape))} ({axes})")
    return int(shape[-2]), int(shape[-1])


class RawFrames:
    """An uncompressed stack at a place in a file (satisfies `Frames`)."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, int, int], stored: np.dtype[Any]) -> None:
        self.path, self.offset, self.shape, self._stored = path, offset, shape, stored
        self.dtype = stored.newbyteorder("=")

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Frames `which` (a slice or rising positions), cut to rows and columns; shape (frame, row, column)."""
        top, bottom, _ = rows.indices(self.shape[1])
        pieces = runs(which, self.shape[0])
        tall = np.empty((sum(b - a for a, b in pieces), bottom - top, self.shape[2]), self._stored)
        line, done = self.shape[2] * self._stored.itemsize, 0
        whole = bottom - top == self.shape[1]
        with open(self.path, "rb", buffering=0) as file:
            for start, stop in pieces:
                for first in [start] if whole else range(start, stop):
                    last = stop if whole else first + 1
                    place = self.offset + (first * self.shape[1] + top) * line
                    self._fill(file, tall[done : done + last - first], place)
                    done += last - first
        return tall[:, :, columns].astype(self.dtype, copy=False)

    def _fill(self, file: Any, out: np.ndarray, place: int) -> None:
        """Read a whole array from a place in the open file."""
        left: Any = out.reshape(-1).view(np.uint8).data
        file.seek(place)
        while len(left):
            got = file.readinto(left)
            if not got:
                raise InputError(f"{self.path} is cut short: its {self.shape[0]} frames do not all fit in it")
            left = left[got:]
