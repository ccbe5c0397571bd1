"""Memory for frames that is used again once nobody holds the frames in it.

Fresh memory has to be found and cleared by the system, beside a file that fills its cache often more slowly than the frames are
read. A batch that is still held anywhere keeps its memory.
"""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np

SMALLEST = 2**22  # bytes; the allocator itself keeps smaller pieces
MOST = 6  # buffers kept: a batch being computed, one waiting, two read ahead, one being read, one to spare


class Buffers:
    """Uninitialised arrays like `numpy.empty`, on memory of earlier ones."""

    def __init__(self) -> None:
        self._kept: list[np.ndarray] = []
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """An array of this shape and type, its contents undefined."""
        size = math.prod(shape) * dtype.itemsize
        if size < SMALLEST:
            return np.empty(shape, dtype)
        with self._lock:
            return self._free(size)[:size].view(dtype).reshape(shape)

    def _free(self, size: int) -> np.ndarray:
        """Bytes that nothing refers to but the list of kept ones; those that are too small make room."""
        for i in range(len(self._kept)):
            # an array on these bytes refers to them: two references are the list's and the count's own
            if self._kept[i].nbytes >= size and sys.getrefcount(self._kept[i]) == 2:
                return self._kept[i]
        self._kept = [one for one in self._kept if one.nbytes >= size][: MOST - 1]
        self._kept.append(np.empty(size, np.uint8))
        return self._kept[-1]
