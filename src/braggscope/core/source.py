"""Sources: where frames come from. Scans on disk, simulations, replays and live streams all are Sources.

`open` finds the reader of a path by asking every file format that is installed, so that nobody needs to import one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from .batch import Batch
from .errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from .geometry import Geometry
    from .scan import Scan


@runtime_checkable
class Source(Protocol):
    """Frames with the grid they belong to.

    modality: Name of the microscopy, or None where it is not known.
    geometry: Geometry of the instrument, or None.
    grid: The scan axes as coordinates (and measured positions as variables), no frames.
    shape: Length of each scan axis, slowest first. A flat position counts through it in C order.
    frame_shape: Detector rows and columns of a frame.
    provenance: What a map should say about where it came from; plain strings and numbers.
    """

    @property
    def modality(self) -> str | None: ...
    @property
    def geometry(self) -> Geometry | None: ...
    @property
    def grid(self) -> xr.Dataset: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def frame_shape(self) -> tuple[int, int]: ...
    @property
    def provenance(self) -> dict[str, Any]: ...

    def batches(self, size: int | None = None, *, only: np.ndarray | None = None) -> Iterator[Batch]:
        """The frames that are there, in batches, in the order in which the source has them.

        size: Most frames in a batch; by default as many as fit in about 64 MB.
        only: Booleans over flat positions; frames elsewhere are not read.
        """


def open_scans(path: str | Path, **hints: Any) -> list[Scan]:
    """Every scan found in a file or folder, lazily; also those that cannot be mapped (see `Scan.missing`).

    hints: What the file may not say itself, such as grid=(rows, columns).
    Raises InputError where the path does not exist or no format knows it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    for reader in readers():
        if reader.matches(path):
            return list(reader.scans(path, **hints))
    raise InputError(f"{path} is in no format known here; known are: {', '.join(r.FORMAT for r in readers())}")


def open_scan(path: str | Path, scan: str | None = None, *, detector: str | None = None, **hints: Any) -> Scan:
    """The one scan with frames in a file or folder; motor positions that are out of order are put in order.

    scan: Name of one of several scans ("1.1").
    detector: Name of one of several image stacks of a scan.
    Raises InputError, listing the candidates, where none or several would do.
    """
    found = open_scans(path, detector=detector, **hints)
    if scan is not None:
        named = [one for one in found if one.name == scan]
        if not named:
            raise InputError(f"{path} has no scan '{scan}'; it has: {', '.join(one.name for one in found)}")
        if named[0].frames is None:
            raise InputError(f"scan '{scan}' of {path} cannot be mapped: {'; '.join(named[0].missing)}")
        return named[0].in_order()
    whole = [one for one in found if one.frames is not None]
    if not whole:
        reasons = "; ".join(f"{one.name}: {', '.join(one.missing)}" for one in found) or "it is empty"
        raise InputError(f"{path} cannot be mapped ({reasons})")
    if len(whole) > 1:
        raise InputError(f"{path} has several scans, choose one with --scan: {', '.join(one.name for one in whole)}")
    return whole[0].in_order()


@cache
def readers() -> tuple[ModuleType, ...]:
    """The file formats: every module in braggscope.io that has `matches`, and those of the entry points.

    A reader module has FORMAT (its name), RANK (lower is asked first), matches(path) -> bool and
    scans(path, *, detector=None, grid=None) -> iterable of Scan.
    """
    folder = importlib.import_module("braggscope.io")
    modules = [importlib.import_module(f"braggscope.io.{m.name}") for m in pkgutil.iter_modules(folder.__path__)]
    modules += [point.load() for point in importlib.metadata.entry_points(group="braggscope.readers")]
    return tuple(sorted((m for m in modules if hasattr(m, "matches")), key=lambda m: m.RANK))
