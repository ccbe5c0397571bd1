"""Series of image files: their order, and frames that are read one file or one page at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError

from .hdf5 import runs


def natural(path: Path) -> list[Any]:
    """A key that sorts frame_2 before frame_10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name)]


def has_suffix(path: Path, suffixes: Sequence[str]) -> bool:
    """Whether the name ends in one of these, in capitals or not."""
    return path.name.lower().endswith(tuple(suffixes))


def prefix_of(path: Path, suffixes: Sequence[str]) -> str:
    """The name before its counter: strain_0001.edf.gz -> "strain_"."""
    ending = next(s for s in sorted(suffixes, key=len, reverse=True) if path.name.lower().endswith(s))
    return re.sub(r"\d+$", "", path.name[: -len(ending)])


def series_in(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """The series of a folder, each in its order: name before the counter -> files. Files without counters are one series."""
    files = [p for p in folder.iterdir() if p.is_file() and has_suffix(p, suffixes) and not p.name.startswith(".")]
    found: dict[str, list[Path]] = {}
    for path in sorted(files, key=natural):
        found.setdefault(prefix_of(path, suffixes), []).append(path)
    if len(found) > 1 and all(len(group) == 1 for group in found.values()):
        return {folder.name: sorted(files, key=natural)}
    return found


def is_image_folder(path: Path, suffixes: Sequence[str]) -> bool:
    """Whether the path is a folder with such files in it."""
    try:
        return path.is_dir() and any(has_suffix(p, suffixes) for p in path.iterdir())
    except OSError:
        return False


def check_not_empty(path: Path, what: str) -> None:
    """Raise InputError where a file has no bytes or may not be read."""
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); {what} was expected")
        path.open("rb").close()
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied") from None


class PageFrames:
    """Frames that lie one to a page in one or many files (satisfies `Frames`).

    pages: File and page number of each frame.
    load: (file, page) -> the frame, shape (row, column).
    """

    def __init__(
        self,
        pages: Sequence[tuple[Path, int]],
        frame_shape: tuple[int, int],
        dtype: np.dtype[Any],
        load: Callable[[Path, int], np.ndarray],
    ) -> None:
        self.pages, self.frame_shape, self.load = pages, frame_shape, load
        self.dtype = dtype.newbyteorder("=")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return (len(self.pages), *self.frame_shape)

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Frames `which` (a slice or rising positions), cut to rows and columns; shape (frame, row, column)."""
        numbers = [number for start, stop in runs(which, len(self.pages)) for number in range(start, stop)]
        window = [len(range(*cut.indices(size))) for cut, size in zip((rows, columns), self.frame_shape, strict=True)]
        out = np.empty((len(numbers), *window), self.dtype)
        for frame, number in zip(out, numbers, strict=True):
            path, page = self.pages[number]
            loaded = self.load(path, page)
            if loaded.shape != self.frame_shape:
                raise InputError(unequal(path, loaded.shape, self.pages[0][0], self.frame_shape))
            frame[...] = loaded[rows, columns]
        return out


def unequal(path: Path, shape: Sequence[int], first: Path, expected: Sequence[int]) -> str:
    """The message for a frame whose size is not that of the first."""
    return (
        f"{path} is {' x '.join(map(str, shape))} (rows x columns), "
        f"but {first.name} of the same series is {' x '.join(map(str, expected))}"
    )
