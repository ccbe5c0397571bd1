"""Scan: a finished, aborted or growing measurement on disk, lazy.

Frames are read when asked for, a batch at a time; the file is never whole in memory. A region of interest and binning are
views: they give a new Scan that reads less.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .batch import Batch, PixelBlock, finite, usable
from .curves import pixel_blocks
from .errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from .geometry import Geometry

BATCH_BYTES = 64 * 2**20  # frames of one batch; small enough for a laptop, large enough to hide the overheads
TRUTH = "entry/truth"  # where a scan file holds the truth of a simulation


@dataclass(frozen=True)
class Axis:
    """A scan axis: name of the motor, its positions (1-D, in order of the grid) and their unit."""

    name: str
    values: np.ndarray
    unit: str = ""

    def __len__(self) -> int:
        return len(self.values)


class Frames(Protocol):
    """The image stack of a scan, in order of acquisition. `close` and pickling are the reader's business."""

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Frames `which` (a slice or rising positions), cut to rows and columns (start:stop); shape (frame, row, column)."""


@dataclass(frozen=True)
class Scan:
    """A measurement on disk (satisfies `Source`).

    path: File or folder it is in.
    name: Its name in the file ("1.1"), or the file's own.
    axes: Scan axes, slowest first; their lengths are the shape of the grid as planned.
    frames: The image stack, or None where the scan has none.
    order: Flat grid position of each frame, shape (frame,); shorter than the grid for an aborted scan.
    positions: Measured motor positions per flat grid position, NaN where not reached; only where they were recorded.
    modality, geometry: What the file says, or what the user says with `with_geometry`.
    geometry_values: Geometry values found in the file, by field name.
    title, detector: As the file has them.
    metadata: Motors that stood still, exposure time and the like: plain values.
    missing: What should be there and is not, a phrase each.
    monitor: Incident flux per frame (acquisition order), or None.
    roi: Rows and columns of the recorded frame that are read, as (row start, row stop, column start, column stop).
    binning: Pixels added together along rows and columns after the cut.
    saturation: Smallest count that means an overflow; None: the largest value of the integer type.
    corrections: What was corrected in frames and positions, in order: a name and plain values each (core.corrections).
    """

    path: Path
    name: str
    axes: tuple[Axis, ...]
    frames: Frames | None
    order: np.ndarray
    positions: Mapping[str, np.ndarray] = field(default_factory=dict)
    modality: str | None = None
    geometry: Geometry | None = None
    geometry_values: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    detector: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    monitor: np.ndarray | None = None
    roi: tuple[int, int, int, int] | None = None
    binning: int = 1
    saturation: float | None = None
    corrections: tuple[Mapping[str, Any], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each scan axis, slowest first."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Rows and columns of a frame after cutting and binning."""
        top, bottom, left, right = self._window
        return (bottom - top) // self.binning, (right - left) // self.binning

    @cached_property
    def grid(self) -> xr.Dataset:
        """Axes as coordinates; measured positions as variables `measured_<motor>` over the scan axes."""
        import xarray as xr

        coords = {a.name: ((a.name,), np.asarray(a.values), {"units": a.unit} if a.unit else {}) for a in self.axes}
        units = {a.name: a.unit for a in self.axes}
        dims = tuple(a.name for a in self.axes)
        measured = {
            f"measured_{name}": (dims, np.reshape(values, self.shape), {"units": units.get(name, "")})
            for name, values in self.positions.items()
        }
        return xr.Dataset(measured, coords=coords)

    @cached_property
    def truth(self) -> xr.Dataset | None:
        """What a map should say, where the file is a simulation's and says it for these points and pixels; None elsewhere.

        Dimensions that the scan has not (a table of grains, of boundaries) are taken as they are.
        """
        import h5py
        import xarray as xr

        if not self.path.is_file() or not h5py.is_hdf5(self.path):
            return None
        with h5py.File(self.path, "r") as file:
            if not isinstance(file.get(TRUTH), h5py.Group):
                return None
        truth = xr.load_dataset(self.path, group=TRUTH, engine="h5netcdf")
        rows, columns = self.frame_shape
        sizes = {**{axis.name: len(axis) for axis in self.axes}, "row": rows, "column": columns}
        return truth if all(sizes.get(str(name), size) == size for name, size in truth.sizes.items()) else None

    @property
    def provenance(self) -> dict[str, Any]:
        """Input file, its size, scan, detector, cut, binning and corrections."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        return {
            "input_file": self.path.name,
            "input_size": size,
            "input_scan": self.name,
            "input_title": self.title,
            "input_detector": self.detector,
            "roi": list(self._window),
            "binning": self.binning,
            **({"corrections": [dict(one) for one in self.corrections]} if self.corrections else {}),
        }

    def with_geometry(self, geometry: Geometry) -> Scan:
        """The same scan with this geometry."""
        return dataclasses.replace(self, geometry=geometry, modality=geometry.modality)

    def cut(self, top: int, bottom: int, left: int, right: int) -> Scan:
        """A view of rows top to bottom and columns left to right (ends not included) of each recorded frame."""
        rows, columns = self._stack.shape[1:]
        if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):
            raise InputError(
                f"roi must lie inside the frame of {rows} rows x {columns} columns as START:STOP,START:STOP, "
                f"got {top}:{bottom},{left}:{right}"
            )
        return dataclasses.replace(self, roi=(top, bottom, left, right))

    def bin(self, factor: int) -> Scan:
        """A view whose pixels are sums of factor x factor recorded pixels; rows or columns left over are dropped."""
        top, bottom, left, right = self._window
        if not 1 <= factor <= min(bottom - top, right - left):
            raise InputError(f"binning must be between 1 and the frame's {min(bottom - top, right - left)} pixels, got {factor}")
        return dataclasses.replace(self, binning=factor)

    def in_order(self) -> Scan:
        """The same scan with the values of each axis rising or falling: neighbours in the grid are neighbours in the crystal."""
        steps = [np.diff(axis.values) for axis in self.axes]
        if all((step >= 0).all() or (step <= 0).all() for step in steps):
            return self
        sort = [np.argsort(axis.values, kind="stable") for axis in self.axes]
        old = np.arange(math.prod(self.shape)).reshape(self.shape)[np.ix_(*sort)].ravel()  # of each position of the new grid
        new = np.empty_like(old)
        new[old] = np.arange(len(old))
        return dataclasses.replace(
            self,
            axes=tuple(dataclasses.replace(axis, values=axis.values[one]) for axis, one in zip(self.axes, sort, strict=True)),
            order=new[self.order],
            positions={name: np.ravel(values)[old] for name, values in self.positions.items()},
        )

    def frame(self, position: int) -> np.ndarray:
        """The frame at a flat grid position, shape (row, column); NaN where there is none."""
        at = np.flatnonzero(self.order == position)
        if not len(at):
            return np.full(self.frame_shape, np.nan)
        return self._read(slice(int(at[0]), int(at[0]) + 1))[0][0]

    def batches(self, size: int | None = None, *, only: np.ndarray | None = None) -> Iterator[Batch]:
        """The frames in order of acquisition (see `Source.batches`)."""
        count = min(self._stack.shape[0], len(self.order))
        wanted = np.arange(count) if only is None else np.flatnonzero(only[self.order[:count]])
        size = size or self.batch_size()
        for start in range(0, len(wanted), size):
            which = wanted[start : start + size]
            whole = which[-1] - which[0] + 1 == len(which)
            frames, mask = self._read(slice(int(which[0]), int(which[-1]) + 1) if whole else which)
            monitor = None if self.monitor is None else self.monitor[which]
            yield Batch(self.order[which].astype(np.int64), frames, monitor, mask)

    def taken(self, start: int, stop: int) -> Batch:
        """The frames from `start` to `stop` in order of acquisition, as a batch."""
        frames, mask = self._read(slice(start, stop))
        monitor = None if self.monitor is None else self.monitor[start:stop]
        return Batch(self.order[start:stop].astype(np.int64), frames, monitor, mask)

    def batch_size(self) -> int:
        """Frames that fill a batch of about 64 MB."""
        top, bottom, left, right = self._window
        return max(1, min(4096, BATCH_BYTES // max(1, (bottom - top) * (right - left) * self._stack.dtype.itemsize)))

    def pixels(self, size: int | None = None) -> Iterator[PixelBlock]:
        """The curves of all pixels over the scan, regrouped once (core.curves): in memory, or in a scratch file when larger."""
        return pixel_blocks(self.batches(), math.prod(self.shape), self.frame_shape, size)

    def _read(self, which: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Frames after cutting, masking and binning, and where they may be used."""
        top, bottom, left, right = self._window
        frames = self._stack.read(which, slice(top, bottom), slice(left, right))
        mask = finite(frames) if getattr(self._stack, "marks_unusable", False) else usable(frames, self.saturation)
        if self.binning == 1:
            return frames, mask
        return _binned(frames, self.binning), None if mask is None else _binned(~mask, self.binning) == 0

    @property
    def _window(self) -> tuple[int, int, int, int]:
        return self.roi or (0, self._stack.shape[1], 0, self._stack.shape[2])

    @property
    def _stack(self) -> Frames:
        if self.frames is None:
            raise InputError(f"scan '{self.name}' of {self.path} has no image stack: {'; '.join(self.missing)}")
        return self.frames

    def __repr__(self) -> str:
        axes = " x ".join(f"{a.name} {a.values[0]:.6g}..{a.values[-1]:.6g} {a.unit} ({len(a)})" for a in self.axes if len(a))
        frames = (
            "no frames"
            if self.frames is None
            else f"{self.frames.shape[0]} frames of {self.frame_shape[0]} x {self.frame_shape[1]} {self.frames.dtype}"
        )
        lacking = f"\n  missing: {'; '.join(self.missing)}" if self.missing else ""
        return (
            f"Scan {self.name} of {self.path.name}: {self.title}\n  axes: {axes or 'none'}\n"
            f"  {frames}, detector {self.detector or '?'}\n  modality: {self.modality or '?'}; "
            f"geometry: {self.geometry or dict(self.geometry_values) or '?'}{lacking}"
        )


def _binned(values: np.ndarray, factor: int) -> np.ndarray:
    """Sums over factor x factor pixels, shape (frame, row // factor, column // factor), wide enough not to overflow."""
    count, rows, columns = values.shape[0], values.shape[1] // factor, values.shape[2] // factor
    kind: Any = {"u": np.uint32 if values.itemsize < 4 else np.uint64, "i": np.int64}.get(
        values.dtype.kind, np.float32 if values.itemsize <= 4 else np.float64
    )
    cut = values[:, : rows * factor, : columns * factor]
    return cut.reshape(count, rows, factor, columns, factor).sum(axis=(2, 4), dtype=kind)
