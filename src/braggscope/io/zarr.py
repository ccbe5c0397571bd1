"""Zarr arrays and groups, formats 2 and 3, in the layout of generic scan files (`layout`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from .hdf5 import boxes, runs
from .layout import find_scans

FORMAT = "Zarr"
RANK = 30
_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


def matches(path: Path) -> bool:
    """Whether the path is a folder that says it is Zarr."""
    path = Path(path)
    return path.is_dir() and (path.suffix == ".zarr" or any((path / mark).exists() for mark in _MARKS))


def scans(path: Path, *, detector: str | None = None, grid: Sequence[int] | None = None) -> list[Scan]:
    """The scans in a store, one for each entry that has an image stack.

    detector: Name of the image stack, where an entry has several.
    grid: Length of each scan axis, slowest first, where there is a plain stack.
    Raises InputError where the store cannot be read or has no image stack.
    """
    path = Path(path)
    root = _open(path)
    group = _Lone(path.stem, root) if hasattr(root, "shape") else root
    return find_scans(
        group, path, lambda array: ZarrFrames(path, array), detector=detector, grid=grid, identity=lambda array: array.path
    )


def _open(path: Path) -> Any:
    """The array or group of a store."""
    import zarr

    try:
        return zarr.open(str(path), mode="r")
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied") from None
    except Exception as error:  # zarr has no error of its own for a store that is damaged or uses an unknown codec
        raise InputError(f"{path} cannot be opened as Zarr ({type(error).__name__}: {error})") from None


class _Lone:
    """A store that is one array, seen as a group that holds it."""

    def __init__(self, name: str, array: Any) -> None:
        self._items = {name: array}
        self.attrs: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def __getitem__(self, name: str) -> Any:
        return self._items[name]


class ZarrFrames:
    """An image stack in a Zarr store (satisfies `Frames`): its last two axes are rows and columns, the others are scanned."""

    def __init__(self, path: Path, array: Any) -> None:
        self.path, self._array = path, array
        self.dtype = np.dtype(array.dtype).newbyteorder("=")
        lead = array.shape[:-2]
        self.shape = (math.prod(lead), int(array.shape[-2]), int(array.shape[-1]))

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Frames `which` (a slice or rising positions), cut to rows and columns; shape (frame, row, column)."""
        parts = [
            np.asarray(self._array[(*box, rows, columns)])
            for start, stop in runs(which, self.shape[0])
            for box in boxes(start, stop, self._array.shape[:-2])
        ]
        flat = [part.reshape(-1, *part.shape[-2:]) for part in parts]
        frames = flat[0] if len(flat) == 1 else np.concatenate(flat) if flat else np.empty((0, *self.shape[1:]))[:, rows, columns]
        return frames.astype(self.dtype, copy=False)
