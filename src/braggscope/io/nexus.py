"""Generic HDF5 and NeXus scan files (their layout is in `layout`), read lazily; and the writer of scans in this form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from braggscope.core.errors import InputError
from braggscope.core.scan import Frames, Scan

from .hdf5 import HDF5Frames, looks_like_hdf5, missing_files, open_file, unreadable_filter
from .layout import find_scans
from .write import write_scan

__all__ = ["FORMAT", "RANK", "matches", "readable_frames", "scans", "write_scan"]

FORMAT = "HDF5/NeXus"
RANK = 20


def matches(path: Path) -> bool:
    """Whether the path is a file that says it is HDF5."""
    return looks_like_hdf5(Path(path))


def scans(path: Path, *, detector: str | None = None, grid: Sequence[int] | None = None) -> list[Scan]:
    """The scans in a file, one for each entry that has an image stack.

    detector: Name of the image stack, where an entry has several.
    grid: Length of each scan axis, slowest first, where the file has a plain stack.
    Raises InputError where the file cannot be read or has no image stack.
    """
    path = Path(path)
    with open_file(path) as file:

        def frames_of(dataset: Any) -> Frames:
            return readable_frames(path, dataset)

        return find_scans(file, path, frames_of, detector=detector, grid=grid, identity=_address)


def readable_frames(path: Path, dataset: Any) -> HDF5Frames:
    """The frames of a dataset. Raises InputError where its filter has no decoder here or all or some of its files are missing."""
    where = f"stack {dataset.name}"
    if lacking := unreadable_filter(dataset):
        raise InputError(f"{where} is compressed with the HDF5 filter {lacking}, for which no decoder is installed")
    if lost := missing_files(dataset):
        raise InputError(f"{where} lies in files that are not there: {', '.join(lost)}")
    return HDF5Frames.of(path, dataset)


def _address(dataset: Any) -> Any:
    """What hard links to one dataset share."""
    import h5py

    info = h5py.h5o.get_info(dataset.id)
    return info.fileno, info.addr
