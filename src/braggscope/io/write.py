"""Writing scans as generic HDF5 files: whole or not at all, a batch at a time, so that memory stays bounded.

The layout is that of `layout`: counts in entry/data/data (uint16 where they fit, bitshuffle and LZ4, chunks of whole frames),
axes with units beside it, geometry and modality in entry/instrument/braggscope, the truth of a simulation in entry/truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braggscope.core.beside import written_beside

from .hdf5 import boxes, runs

if TYPE_CHECKING:
    from braggscope.core.source import Source

CHUNK_BYTES = 2**20
TRUTH = "entry/truth"


def write_scan(source: Source, path: str | Path, *, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the frames of a simulation or of any other source, with its grid, geometry and, where it has one, its truth.

    progress: Called with the number of frames written and of all frames, after each batch.
    Raises OSError where the disk is full or the folder cannot be written; what was at `path` stays, and nothing half-written.
    """
    import h5py

    truth = getattr(source, "truth", None)
    with written_beside(Path(path)) as target:
        if truth is not None:
            truth.to_netcdf(target, group=TRUTH, engine="h5netcdf")
            target.check()
        with h5py.File(target, "w" if truth is None else "r+", rdcc_nbytes=64 * 2**20) as file:
            stack = StackWriter(file, "entry/data/data", source.shape, source.frame_shape)
            for done, points in stack.write(source):
                target.check()
                if progress is not None:
                    progress(done, points)
            if not stack.recorded.all():
                file.create_dataset("entry/instrument/braggscope/recorded", data=stack.recorded.reshape(source.shape))
            if np.isfinite(stack.monitor).any():
                file.create_dataset("entry/monitor/data", data=stack.monitor.reshape(source.shape))
            _write_description(file, source)


class StackWriter:
    """Writes frames into one dataset of an open file, in whatever order they come.

    recorded, monitor: Of each flat position so far: whether it has a frame, and the incident flux (NaN where not known).
    """

    def __init__(
        self, file: Any, where: str, shape: tuple[int, ...], frame_shape: tuple[int, int], *, compression: Any = None
    ) -> None:
        """For a dataset `where` of shape (*shape, *frame_shape).

        compression: Arguments of h5py for it; by default bitshuffle and LZ4.
        """
        import hdf5plugin

        self.file, self.where, self.shape, self.frame_shape = file, where, shape, frame_shape
        self.compression = compression or {"compression": hdf5plugin.Bitshuffle(cname="lz4")}
        self.recorded, self.monitor = np.zeros(math.prod(shape), bool), np.full(math.prod(shape), np.nan)

    def write(self, source: Source) -> Iterator[tuple[int, int]]:
        """Write every batch; yields the number of frames written and of all, after each."""
        points, dataset = math.prod(self.shape), None
        for batch in source.batches():
            kind = _type(batch.frames)
            if dataset is None:
                dataset = self._create(kind, self.where)
            elif np.promote_types(dataset.dtype, kind) != dataset.dtype:
                dataset = self._widened(np.promote_types(dataset.dtype, kind))
            rank = np.argsort(batch.index, kind="stable")
            done = 0
            for start, stop in runs(batch.index[rank], points):
                for box in boxes(start, stop, self.shape):
                    sizes = [s.stop - s.start for s in box]
                    frames = batch.frames[rank[done : done + math.prod(sizes)]]
                    dataset[box] = frames.astype(dataset.dtype, copy=False).reshape(*sizes, *self.frame_shape)
                    done += math.prod(sizes)
            self.recorded[batch.index] = True
            if batch.monitor is not None:
                self.monitor[batch.index] = batch.monitor
            yield int(self.recorded.sum()), points
        if dataset is None:
            self._create(np.dtype(np.uint16), self.where)

    def _create(self, kind: np.dtype[Any], where: str) -> Any:
        """The empty dataset, in chunks of whole frames along the fast axis."""
        fit = max(1, CHUNK_BYTES // (math.prod(self.frame_shape) * kind.itemsize))
        pieces = -(-self.shape[-1] // min(fit, self.shape[-1]))
        chunks = (*(1 for _ in self.shape[:-1]), -(-self.shape[-1] // pieces), *self.frame_shape)
        return self.file.create_dataset(where, (*self.shape, *self.frame_shape), kind, chunks=chunks, **self.compression)

    def _widened(self, kind: np.dtype[Any]) -> Any:
        """The dataset in a wider type, because a later batch needs it; the counts written so far are copied chunk by chunk."""
        narrow, wide = self.file[self.where], self._create(kind, f"{self.where}_wider")
        for piece in wide.iter_chunks():
            wide[piece] = narrow[piece]
        del self.file[self.where]
        self.file.move(f"{self.where}_wider", self.where)
        return self.file[self.where]


def _saturation(source: Source) -> float | None:
    """The smallest count that means an overflow, where a scan on disk says so."""
    stated = getattr(source, "saturation", None)
    return None if stated is None else float(stated)


def _type(frames: np.ndarray) -> np.dtype[Any]:
    """The smallest type that holds these counts exactly: what a detector gave as 8 or 16 bits stays that.

    Whole numbers become uint16 below 65535, which would read as an overflow; else uint32, int32 where some are negative.
    """
    if frames.dtype.kind == "u" and frames.dtype.itemsize <= 2:
        return frames.dtype
    if frames.dtype.kind == "f" and not (np.isfinite(frames).all() and (frames == np.rint(frames)).all()):
        return frames.dtype
    low, high = float(frames.min(initial=0)), float(frames.max(initial=0))
    if low < 0:
        return np.dtype(np.int32 if max(-low, high) < 2**31 else np.float64)
    return np.dtype(np.uint16 if high < 65535 else np.uint32 if high < 2**32 - 1 else np.float64)


def _write_description(file: Any, source: Source) -> None:
    """Axes, measured positions, NeXus attributes, detector, modality and geometry."""
    data, names = file["entry/data"], [str(name) for name in source.grid.dims]
    for name, variable in source.grid.variables.items():
        if set(variable.dims) <= set(source.grid.dims):
            dataset = data.create_dataset(str(name), data=np.asarray(variable.values))
            dataset.attrs["units"] = str(variable.attrs.get("units", ""))
    file.attrs["default"], file.attrs["NX_class"] = "entry", "NXroot"
    _attributes(file["entry"], NX_class="NXentry", default="data")
    _attributes(data, NX_class="NXdata", signal="data", axes=[*names, ".", "."])
    data["data"].attrs["interpretation"] = "image"
    label = source.provenance.get("input_title") or source.provenance.get("input_file", "")
    file["entry/title"] = str(label)
    instrument = file.require_group("entry/instrument")
    instrument.attrs["NX_class"] = "NXinstrument"
    if (saturation := _saturation(source)) is not None:
        file["entry/instrument/detector/saturation_value"] = saturation
        file["entry/instrument/detector"].attrs["NX_class"] = "NXdetector"
    write_geometry(instrument, source)


def write_geometry(instrument: Any, source: Source) -> None:
    """The modality and what is known of the geometry, in the group `braggscope` of an instrument."""
    own = instrument.require_group("braggscope")
    own.attrs["NX_class"] = "NXcollection"
    if source.modality is not None:
        own.attrs["modality"] = source.modality
    stated = getattr(source, "geometry_values", {}) if source.geometry is None else source.geometry.to_mapping()
    for name, value in stated.items():
        own.create_dataset(name, data=value)


def _attributes(group: Any, **values: Any) -> None:
    for name, value in values.items():
        group.attrs[name] = value
