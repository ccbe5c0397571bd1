"""HDF5: opening a file with clear errors, and image stacks in it that are read piece by piece.

h5py and hdf5plugin (the decoders of bitshuffle, LZ4, Blosc, Zstandard ...) are imported where a file is opened, so that listing
the readers costs nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError

from .buffers import Buffers

SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx", ".nexus", ".he5", ".cxi")
SIGNATURE = b"\x89HDF\r\n\x1a\n"
CACHE_BYTES = 256 * 2**20  # most memory for decoded chunks that several reads share
CACHED_SHARE = 0.5  # of the memory: stacks up to this size may stay in the file cache of the system


def looks_like_hdf5(path: Path) -> bool:
    """Whether the name or the first bytes say HDF5."""
    try:
        if not path.is_file():
            return False
        if path.suffix.lower() in SUFFIXES:
            return True
        with open(path, "rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def open_file(path: Path) -> Any:
    """The HDF5 file, open for reading; also while something else writes it and has locked it.

    Raises InputError where it cannot be read, is empty, is no HDF5 file or is cut short.
    """
    import h5py
    import hdf5plugin  # noqa: F401  registers the decoders

    try:
        try:
            return h5py.File(path, "r")
        except BlockingIOError:  # only then without the lock: one process must open a file with the same locking everywhere
            return h5py.File(path, "r", locking=False)
        except OSError as error:
            if "SWMR" not in str(error) and "already open for write" not in str(error):
                raise
            return h5py.File(path, "r", swmr=True, locking=False)  # its writer says so, or was killed
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied") from None
    except OSError as error:
        raise InputError(_why_unreadable(path, str(error))) from None


def _why_unreadable(path: Path, reason: str) -> str:
    size = path.stat().st_size
    if size == 0:
        return f"{path} is empty (0 bytes); an HDF5 file was expected"
    with open(path, "rb") as file:
        start = file.read(len(SIGNATURE))
    if "truncated" in reason:
        return f"{path} is a truncated HDF5 file: it ends after {size} bytes, before its data do"
    if start != SIGNATURE:
        return f"{path} is not an HDF5 file: it starts with {start!r}"
    return f"{path} is damaged, HDF5 cannot open it ({reason})"


def text(value: Any) -> str:
    """A string as HDF5 or Zarr give it (bytes, str, an array of one, None) as a plain str."""
    if value is None:
        return ""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def unreadable_filter(dataset: Any) -> str | None:
    """The compression filter of a dataset that this installation cannot decode, as "32008 (bitshuffle)"; None where it can."""
    import h5py

    plist = dataset.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            return f"{code} ({text(name) or 'no name'})"
    return None


def missing_files(dataset: Any) -> dict[str, slice]:
    """Files of a virtual or external dataset that are not there: name -> the range of its first axis that they hold."""
    folder, lost = Path(dataset.file.filename).parent, {}
    for name, _, _ in dataset.external or ():
        if not (folder / name).exists():
            lost[str(name)] = slice(0, dataset.shape[0])
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        if source.file_name != "." and "%" not in source.file_name and not (folder / source.file_name).exists():
            first, last = source.vspace.get_select_bounds()
            whole = lost.get(source.file_name, slice(int(first[0]), int(last[0]) + 1))
            lost[source.file_name] = slice(min(whole.start, int(first[0])), max(whole.stop, int(last[0]) + 1))
    return lost


def runs(which: slice | np.ndarray, length: int) -> list[tuple[int, int]]:
    """The ranges (start, stop) of adjacent positions in a slice or in rising positions.

    >>> runs(np.array([2, 3, 4, 9]), 10)
    [(2, 5), (9, 10)]
    """
    if isinstance(which, slice):
        start, stop, step = which.indices(length)
        if step == 1:
            return [(start, stop)] if stop > start else []
        which = np.arange(start, stop, step)
    which = np.asarray(which)
    breaks = np.flatnonzero(np.diff(which) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(which, breaks) if len(part)]


def boxes(start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """The blocks of an array of this shape that cover the flat range start:stop, in C order.

    >>> [tuple((s.start, s.stop) for s in box) for box in boxes(2, 8, (3, 4))]
    [((0, 1), (2, 4)), ((1, 2), (0, 4))]
    """
    if len(shape) < 2:
        if stop > start:
            yield (slice(start, stop),) if shape else ()
        return
    inner = math.prod(shape[1:])
    first, last = -(-start // inner), stop // inner
    if first > last:  # within one line
        yield from _in_line(last, start - last * inner, stop - last * inner, shape)
        return
    if start < first * inner:
        yield from _in_line(first - 1, start - (first - 1) * inner, inner, shape)
    if first < last:
        yield (slice(first, last), *(slice(0, n) for n in shape[1:]))
    if stop > last * inner:
        yield from _in_line(last, 0, stop - last * inner, shape)


def _in_line(line: int, start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    for box in boxes(start, stop, shape[1:]):
        yield (slice(line, line + 1), *box)


class HDF5Frames:
    """An image stack in an HDF5 file (satisfies `Frames`): its last two axes are rows and columns, the others are scanned.

    The file is opened at the first read and stays open; a copy that was pickled opens its own.
    """

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.name, self._shape = path, name, shape
        self.dtype = dtype.newbyteorder("=")
        self._dataset: Any = None
        self._lock = threading.Lock()
        self._buffers = Buffers()

    @classmethod
    def of(cls, path: Path, dataset: Any) -> HDF5Frames:
        """The stack that this open dataset holds (behind an external link, in another file); it is opened again when read."""
        inside = Path(dataset.file.filename)
        return cls(path if inside.resolve() == path.resolve() else inside, dataset.name, tuple(dataset.shape), dataset.dtype)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return math.prod(self._shape[:-2]), self._shape[-2], self._shape[-1]

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Frames `which` (a slice or rising positions), cut to rows and columns; shape (frame, row, column)."""
        pieces = runs(which, self.shape[0])
        window = (rows, columns)
        height, width = (len(range(*cut.indices(size))) for cut, size in zip(window, self._shape[-2:], strict=True))
        out = self._buffers.empty((sum(b - a for a, b in pieces), height, width), self.dtype)
        done = 0
        try:
            dataset = self._open()
            for start, stop in pieces:
                for box in boxes(start, stop, self._shape[:-2]):
                    sizes = [s.stop - s.start for s in box]
                    part = out[done : done + math.prod(sizes)].reshape(*sizes, height, width)
                    dataset.read_direct(part, (*box, *window))
                    done += math.prod(sizes)
            _forget(dataset)
        except OSError as error:
            raise InputError(f"{self.path}: the frames of {self.name} cannot be read ({error})") from None
        return out

    def written(self, start: int, stop: int) -> np.ndarray:
        """Booleans: whether frames `start` to `stop` are in the file; true where it takes its space before they are written.

        A chunk of several frames counts as written with the first of them.
        """
        dataset = self._open()
        if dataset.chunks is None:
            return np.ones(stop - start, bool)
        places = np.stack(np.unravel_index(np.arange(start, stop), self._shape[:-2]), 1)
        origins = places // dataset.chunks[:-2] * dataset.chunks[:-2]
        info = dataset.id.get_chunk_info_by_coord
        return np.array([info((*origin, 0, 0)).byte_offset is not None for origin in origins.tolist()], bool)

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        with self._lock:
            if self._dataset is not None:
                self._dataset.file.close()
                self._dataset = None

    def _open(self) -> Any:
        """The open dataset, with a cache that holds one layer of chunks, so that no chunk is decoded twice in a pass."""
        import h5py

        with self._lock:
            if self._dataset is None:
                file = open_file(self.path)
                dataset = file[self.name]
                if dataset.chunks is not None:
                    across = math.prod(-(-n // c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True))
                    layer = across * math.prod(dataset.chunks) * dataset.dtype.itemsize
                    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
                    access.set_chunk_cache(max(521, 10 * across + 1), min(max(layer, 2**20), CACHE_BYTES), 1.0)
                    dataset = h5py.Dataset(h5py.h5d.open(file.id, self.name.encode(), access))
                self._dataset = dataset
            return self._dataset

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_dataset": None, "_lock": None, "_buffers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._buffers = threading.Lock(), Buffers()


def _forget(dataset: Any) -> None:
    """Let the system drop what it has cached of a file that is too large to stay cached anyway.

    Finding fresh memory for its cache costs the system more than reading (0.5 against 0.9 GB/s for a pass), and a file like that
    would push out everything else.
    """
    if hasattr(os, "posix_fadvise") and dataset.id.get_storage_size() > CACHED_SHARE * _memory():
        with contextlib.suppress(OSError, NotImplementedError, ValueError):  # a driver without a file descriptor
            os.posix_fadvise(dataset.file.id.get_vfd_handle(), 0, 0, os.POSIX_FADV_DONTNEED)


@cache
def _memory() -> int:
    """Memory of this machine, bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Kept:
    """Some of the frames of a stack (satisfies `Frames`): those at the rising positions `keep`."""

    def __init__(self, frames: Any, keep: np.ndarray) -> None:
        self.frames, self.keep = frames, keep

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return (len(self.keep), *self.frames.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a count."""
        return self.frames.dtype

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Frames `which` among those kept."""
        return self.frames.read(self.keep[which], rows, columns)
