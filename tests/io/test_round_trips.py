"""The same frames through every format: equal, lazily, in pieces, cut, from a thread and from a pickled copy."""

from __future__ import annotations

import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import fabio.edfimage
import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
import zarr

from braggscope.core.source import open_scan, open_scans


def hdf5(**create):
    def write(folder, frames):
        path = folder / "film.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("entry/data/data", data=frames, **create)
        return path

    return write


def bliss(folder, frames):
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        file["1.1/title"] = f"ascan mu 0 1 {len(frames) - 1} 0.1"
        file["1.1/instrument/pco_ff/data"] = frames
    return path


def edf_series(folder, frames):
    for number, frame in enumerate(frames):
        fabio.edfimage.EdfImage(data=frame).write(str(folder / f"frame_{number}.edf"))
    return folder


def edf_in_one_file(folder, frames):
    image = fabio.edfimage.EdfImage(data=frames[0])
    for frame in frames[1:]:
        image.append_frame(data=frame)
    image.write(str(folder / "frames.edf"))
    return folder / "frames.edf"


def edf_gzip(folder, frames):
    for number, frame in enumerate(frames):
        fabio.edfimage.EdfImage(data=frame).write(str(folder / f"frame_{number}.edf.gz"))
    return folder


def tiff_folder(folder, frames):
    for number, frame in enumerate(frames):  # natural order: 2 before 10
        tifffile.imwrite(folder / f"frame_{number}.tif", frame)
    return folder


def tiff_pages(**how):
    def write(folder, frames):
        path = folder / "frames.tif"
        with tifffile.TiffWriter(path) as file:
            for frame in frames:
                file.write(frame, contiguous=not how, **how)
        return path

    return write


def tiff_stack(folder, frames):
    tifffile.imwrite(folder / "frames.tif", frames, photometric="minisblack", byteorder=">")
    return folder / "frames.tif"


def zarr_array(version):
    def write(folder, frames):
        path = folder / "film.zarr"
        array = zarr.create_array(
            str(path), shape=frames.shape, dtype=frames.dtype, chunks=(2, *frames.shape[1:]), zarr_format=version
        )
        array[:] = frames
        return path

    return write


def zarr_group(folder, frames):
    group = zarr.open_group(str(folder / "film.zarr"), mode="w", zarr_format=2)
    data = group.create_group("entry").create_group("data")
    data.create_array("data", shape=frames.shape, dtype=frames.dtype, chunks=(4, *frames.shape[1:]))[:] = frames
    return folder / "film.zarr"


FORMATS = {
    "hdf5": hdf5(),
    "hdf5 big-endian": lambda folder, frames: hdf5()(folder, frames.astype(">u2")),
    "hdf5 chunks across frames": hdf5(chunks=(5, 3, 2)),
    "hdf5 gzip": hdf5(chunks=(3, 5, 7), compression="gzip", shuffle=True),
    "hdf5 bitshuffle": hdf5(chunks=(1, 5, 7), compression=hdf5plugin.Bitshuffle(cname="lz4")),
    "hdf5 lz4": hdf5(chunks=(4, 5, 7), compression=hdf5plugin.LZ4()),
    "hdf5 zstd": hdf5(chunks=(4, 5, 7), compression=hdf5plugin.Zstd()),
    "bliss": bliss,
    "edf series": edf_series,
    "edf gzip": edf_gzip,
    "edf in one file": edf_in_one_file,
    "tiff folder": tiff_folder,
    "tiff pages": tiff_pages(),
    "tiff pages compressed": tiff_pages(compression="zlib"),
    "tiff stack big-endian": tiff_stack,
    "zarr 2": zarr_array(2),
    "zarr 3": zarr_array(3),
    "zarr group": zarr_group,
}

each_format = pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS.keys())


@each_format
def test_frames_come_back_as_they_were(write, stack, tmp_path):
    frames = stack(12)
    scan = open_scan(write(tmp_path, frames))
    assert scan.frame_shape == (5, 7) and len(scan.order) == 12
    assert scan.frames.dtype == np.uint16 and scan.frames.dtype.isnative
    for size in (None, 5):
        batches = list(scan.batches(size))
        assert np.array_equal(np.concatenate([b.frames for b in batches]), frames)
        assert np.concatenate([b.index for b in batches]).tolist() == list(range(12))
        assert all(b.frames.dtype == np.uint16 and b.frames.dtype.isnative for b in batches)


@each_format
def test_cut_and_picked_frames_are_read(write, stack, tmp_path):
    frames = stack(12)
    scan = open_scan(write(tmp_path, frames)).cut(1, 4, 2, 7)
    only = np.isin(np.arange(12), [1, 2, 3, 7, 11])
    (batch,) = scan.batches(only=only)
    assert np.array_equal(batch.frames, frames[only, 1:4, 2:7])
    assert batch.index.tolist() == [1, 2, 3, 7, 11]
    assert np.array_equal(scan.frame(7), frames[7, 1:4, 2:7])


@each_format
def test_scans_are_read_from_threads_and_pickled_copies(write, stack, tmp_path):
    frames = stack(12)
    scan = open_scan(write(tmp_path, frames))
    scan.frame(0)  # its file is open now
    copy = pickle.loads(pickle.dumps(scan))
    with ThreadPoolExecutor(4) as pool:
        for reader in (scan, copy):
            read = list(pool.map(reader.frame, range(12)))
            assert np.array_equal(np.stack(read), frames)


@each_format
def test_a_grid_can_be_given(write, stack, tmp_path):
    path = write(tmp_path, stack(12))
    assert open_scan(path, grid=(3, 4)).shape == (3, 4)
    short = open_scan(path, grid=(3, 5))
    assert short.shape == (3, 5) and len(short.order) == 12
    assert "3 of 15 frames" in short.missing[0]


@pytest.mark.parametrize("name", ["hdf5", "hdf5 gzip", "tiff pages", "zarr 3", "edf in one file"])
def test_a_pass_over_a_scan_holds_a_few_frames(name, stack, tmp_path):
    """60 frames of 200 kB, two at a time: a fifth of the scan covers them and whatever a library keeps besides."""
    frames = stack(60, 250, 400)
    create = {"chunks": (2, 250, 400), "compression": "gzip"} if name == "hdf5 gzip" else {}
    path = hdf5(**create)(tmp_path, frames) if name.startswith("hdf5") else FORMATS[name](tmp_path, frames)
    scan = open_scan(path)
    next(scan.batches(2))  # imports and caches
    tracemalloc.start()
    total = sum(int(batch.frames.sum()) for batch in scan.batches(2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == frames.sum(dtype=np.int64)
    assert peak < frames.nbytes / 5


@pytest.mark.parametrize("positions", [(2, 3, 2), (3, 4)])
def test_stacks_over_several_axes_are_read_across_their_lines(positions, stack, tmp_path):
    frames = stack(12).reshape(*positions, 5, 7)
    for number, write in enumerate(
        (zarr_array(3), hdf5(), hdf5(chunks=(1,) * (len(positions) - 1) + (2, 5, 7), compression="gzip"))
    ):
        (folder := tmp_path / str(number)).mkdir()
        scan = open_scan(write(folder, frames))
        assert scan.shape == positions
        read = np.concatenate([b.frames for b in scan.batches(5)])
        assert np.array_equal(read, frames.reshape(12, 5, 7))
        only = np.isin(np.arange(12), [1, 5, 6, 7, 10])
        assert np.array_equal(next(scan.batches(only=only)).frames, frames.reshape(12, 5, 7)[only])


def test_a_folder_with_two_series_is_two_scans(stack, tmp_path):
    for prefix in ("dark", "film"):
        for number, frame in enumerate(stack(3)):
            tifffile.imwrite(tmp_path / f"{prefix}_{number:03}.tif", frame)
    assert [scan.name for scan in open_scans(tmp_path)] == ["dark", "film"]
    assert open_scan(tmp_path, "film").shape == (3,)
