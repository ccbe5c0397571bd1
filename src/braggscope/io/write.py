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
            for done, points in _write_frames(file, source):
                target.check()
                if progress is not None:
                    progress(done, points)
            _write_description(file, source)


def _write_frames(file: Any, source: Source) -> Iterator[tuple[int, int]]:
    """Write every batch, in whatever order the frames come; then the monitor and which positions have a frame.

    Yields the number of frames written and of all, after each batch.
    """
    points = math.prod(source.shape)
    recorded, monitor = np.zeros(points, bool), np.full(points, np.nan)
    dataset: Any = None
    for batch in source.batches():
        kind = _type(batch.frames)
        if dataset is None:
            dataset = _create(file, source, kind)
        elif np.promote_types(dataset.dtype, kind) != dataset.dtype:
            dataset = _widened(file, source, np.promote_types(dataset.dtype, kind))
        rank = np.argsort(batch.index, kind="stable")
        done = 0
        for start, stop in runs(batch.index[rank], points):
            for box in boxes(start, stop, source.shape):
                sizes = [s.stop - s.start for s in box]
                frames = batch.frames[rank[done : done + math.prod(sizes)]]
                dataset[box] = frames.astype(dataset.dtype, copy=False).reshape(*sizes, *source.frame_shape)
                done += math.prod(sizes)
        recorded[batch.index] = True
        if batch.monitor is not None:
            monitor[batch.index] = batch.monitor
        yield int(recorded.sum()), points
    if dataset is None:
        _create(file, source, np.dtype(np.uint16))
    if not recorded.all():
        file.create_dataset("entry/instrument/braggscope/recorded", data=recorded.reshape(source.shape))
    if np.isfinite(monitor).any():
        file.create_dataset("entry/monitor/data", data=monitor.reshape(source.shape))


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


def _create(file: Any, source: Source, kind: np.dtype[Any], name: str = "entry/data/data") -> Any:
    """The empty dataset, in chunks of whole frames along the fast axis."""
    import hdf5plugin

    shape = (*source.shape, *source.frame_shape)
    fit = max(1, CHUNK_BYTES // (math.prod(source.frame_shape) * kind.itemsize))
    pieces = -(-source.shape[-1] // min(fit, source.shape[-1]))
    chunks = (*(1 for _ in source.shape[:-1]), -(-source.shape[-1] // pieces), *source.frame_shape)
    return file.create_dataset(name, shape, kind, chunks=chunks, compression=hdf5plugin.Bitshuffle(cname="lz4"))


def _widened(file: Any, source: Source, kind: np.dtype[Any]) -> Any:
    """The dataset in a wider type, because a later batch needs it; the counts written so far are copied line by line."""
    narrow, wide = file["entry/data/data"], _create(file, source, kind, "entry/data/wider")
    for line in np.ndindex(source.shape[:-1]):
        wide[line] = narrow[line]
    del file["entry/data/data"]
    file.move("entry/data/wider", "entry/data/data")
    return file["entry/data/data"]


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
