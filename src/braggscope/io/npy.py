"""NumPy files (.npy): one image, or a stack of them along the first axis.

The format says nothing of motors: the frames are a line, or fill the grid that is asked for. Pickled objects are never loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.scan import Axis, Scan

from .positions import Placed, on_given_grid
from .series import check_not_empty, has_suffix

FORMAT = "NumPy"
RANK = 60


def matches(path: Path) -> bool:
    """Whether the path is a .npy file."""
    return has_suffix(Path(path), (".npy",)) and Path(path).is_file()


def scans(path: Path, *, detector: str | None = None, grid: Sequence[int] | None = None) -> Iterator[Scan]:
    """The images of a file.

    grid: Length of each scan axis, slowest first; without it the frames are a line.
    Raises InputError where the file is no array of numbers with two or three dimensions.
    """
    path = Path(path)
    frames = NpyFrames(path)
    placed = Placed((Axis("point", np.arange(float(frames.shape[0]))),), np.arange(frames.shape[0]))
    if grid is not None:
        placed = on_given_grid(grid, frames.shape[0], {}, {})
    yield Scan(path, path.stem, placed.axes, frames, placed.order, title=path.stem, missing=placed.missing)


class NpyFrames:
    """The stack of a file, mapped into memory when it is read (satisfies `Frames`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        check_not_empty(path, "a NumPy array")
        stack = self._mapped()
        if stack.ndim not in (2, 3) or stack.dtype.kind not in "uif" or 0 in stack.shape:
            raise InputError(
                f"{path} must hold real numbers of shape (row, column) or (frame, row, column), "
                f"got {stack.dtype} of shape {tuple(stack.shape)}"
            )
        rows, columns = stack.shape[-2:]
        self.shape: tuple[int, int, int] = (stack.shape[0] if stack.ndim == 3 else 1, rows, columns)
        self.dtype: np.dtype[Any] = stack.dtype.newbyteorder("=")

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Frames `which` (a slice or rising positions), cut to rows and columns; shape (frame, row, column)."""
        return np.array(self._mapped().reshape(self.shape)[which, rows, columns], self.dtype)

    def _mapped(self) -> np.ndarray:
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{self.path} is not a NumPy array or is damaged ({error})") from None
