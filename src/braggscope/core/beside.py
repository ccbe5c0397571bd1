"""Files written whole or not at all: beside their place, which they take when they are complete.

HDF5 cannot close a file that it cannot flush: where a disk fills up, the library keeps the broken file open and the process
crashes when it ends. So HDF5 writes here through a Python file that remembers the first error and from then on only
pretends to write; HDF5 closes in peace, the file is removed and the error is raised.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class BesideFile(io.RawIOBase):
    """A binary file, open for reading and writing, that never raises where it cannot be written (see `failure`)."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115  closed by `close`
        self._place = self._size = 0
        self.failure: OSError | None = None

    def check(self) -> None:
        """Raise the error that writing met, if any."""
        if self.failure is not None:
            raise self.failure

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._place)
        count = self._file.readinto(view) or 0
        if self.failure is not None and count < len(view):  # what was not written reads as zeros
            view[count:] = bytes(len(view) - count)
            count = len(view)
        self._place += count
        return count

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._attempt(lambda: self._write_all(view))
        self._place += len(view)
        self._size = max(self._size, self._place)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._size = self._place if size is None else size
        self._attempt(lambda: self._file.truncate(self._size))
        return self._size

    def close(self) -> None:
        """Nothing yet: libraries close it between two steps of writing; `finish` does."""

    def finish(self) -> None:
        """Close the file, everything in it on the disk (file servers tell only now that there is no room)."""
        if not self._file.closed:
            self._attempt(lambda: os.fsync(self._file.fileno()))
            self._file.close()

    def _write_all(self, view: memoryview) -> None:
        self._file.seek(self._place)
        while view:
            view = view[self._file.write(view) :]

    def _attempt(self, action: Callable[[], Any]) -> None:
        """Do it, unless something failed before; remember a failure."""
        if self.failure is None:
            try:
                action()
            except OSError as error:
                self.failure = error


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[BesideFile]:
    """A file to write that takes the place of `path` at the end.

    Raises OSError where it could not be written, and whatever the body raises; then what was at `path` stays, and nothing else.
    """
    part = path.with_name(f".{path.name}.writing")
    file = BesideFile(part)
    try:
        yield file
        file.finish()
        file.check()
        os.replace(part, path)
    except BaseException as error:
        file.finish()
        part.unlink(missing_ok=True)
        if file.failure is not None and error is not file.failure:
            raise file.failure from error
        raise
