"""What cannot be read: one sentence each, that names the file and what is wrong with it."""

from __future__ import annotations

import os
import re

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from braggscope.core.errors import InputError
from braggscope.core.source import open_scan, open_scans, readers


def refused(path, message, **hints):
    with pytest.raises(InputError) as caught:
        open_scan(path, **hints)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    refused(tmp_path / "nothing.h5", r"nothing\.h5 does not exist")


@pytest.mark.parametrize("name", ["a.h5", "a.tif", "a.edf"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    refused(tmp_path / name, r"is empty \(0 bytes\)")


def test_text_called_hdf5(tmp_path):
    (tmp_path / "a.h5").write_text("column 1, column 2")
    refused(tmp_path / "a.h5", r"a\.h5 is not an HDF5 file: it starts with b'column 1'")


def test_truncated_hdf5(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data/data"] = stack(40)
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "a.h5", r"a\.h5 is a truncated HDF5 file: it ends after \d+ bytes, before its data do$")


def test_unknown_format(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    refused(
        tmp_path / "a.docx",
        r"is in no format known here; known are: ESRF BLISS, HDF5/NeXus, Zarr, EDF, marccd/mar345/ADSC/CBF, NumPy, recorded",
    )


def test_no_image_stack_lists_what_is_there(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/strain"] = np.zeros((3, 4))
    refused(tmp_path / "a.h5", r"holds no image stack .*; it has: entry/strain \(3, 4\)")


def test_a_map_is_no_scan_even_where_it_has_three_dimensions(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data/rotation_x"] = np.zeros((2, 3, 4))
        file["entry/data/flag"] = np.zeros((2, 3, 4), np.int32)
        file["entry/data/flag"].attrs["flag_meanings"] = "no_signal"
        file["entry/data"].attrs["input_file"] = "layers.h5"
    refused(tmp_path / "a.h5", r"is a map and holds no image stack of a scan; give the scan that it was made of \(layers\.h5\)")


def test_several_image_stacks_are_listed(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/one"], file["entry/two"] = stack(3), stack(3)
        file["entry/again"] = file["entry/one"]  # another name of the same
    refused(tmp_path / "a.h5", r"there are several, choose one with --detector: again, two")
    assert open_scan(tmp_path / "a.h5", detector="two").detector == "two"
    refused(tmp_path / "a.h5", r"there is no detector 'three'; there are: again, two", detector="three")


def test_unreadable_compression_filter_is_named(tmp_path, stack):
    for path, where in ((tmp_path / "a.h5", "entry/data/data"), (tmp_path / "b.h5", "1.1/instrument/pco_ff/image")):
        with h5py.File(path, "w") as file:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((1, 5, 7))
            plist.set_filter(400, h5py.h5z.FLAG_OPTIONAL)
            group = file.create_group(where.rsplit("/", 1)[0])
            h5py.h5d.create(
                group.id, where.rsplit("/", 1)[1].encode(), h5py.h5t.STD_U16LE, h5py.h5s.create_simple((3, 5, 7)), plist
            )
        refused(path, r"is compressed with the HDF5 filter 400 \(no name\), for which no decoder is installed")
        assert open_scans(path)[0].frames is None  # so that `info` still shows the scan


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = stack(3)
    tifffile.imwrite(tmp_path / "a.tif", stack(3))
    for name in ("a.h5", "a.tif"):
        (tmp_path / name).chmod(0)
        refused(tmp_path / name, "cannot be read: permission denied")


def test_permission_denied_by_the_library(tmp_path, stack, monkeypatch):
    """As above, for a test run by root."""
    (tmp_path / "a.h5").touch()

    def deny(*_, **__):
        raise PermissionError(13, "denied")

    monkeypatch.setattr(h5py, "File", deny)
    refused(tmp_path / "a.h5", r"a\.h5 cannot be read: permission denied")


def test_folder_without_images(tmp_path):
    refused(tmp_path, r"has no images \(\.tif, \.tiff or \.edf\); it has: nothing")
    (tmp_path / "notes.txt").touch()
    refused(tmp_path, r"it has: notes\.txt")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_frames_of_different_sizes(tmp_path, stack, compression):
    tifffile.imwrite(tmp_path / "f_1.tif", stack(1)[0], compression=compression)
    tifffile.imwrite(tmp_path / "f_2.tif", stack(1, 6, 8)[0], compression=compression)
    refused(tmp_path, r"f_2\.tif is 6 x 8 \(rows x columns\), but f_1\.tif of the same series is 5 x 7")


def test_coloured_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 7, 3), np.uint8), photometric="rgb")
    refused(tmp_path / "a.tif", "must hold grey images")


def test_damaged_tiff(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 and then nothing of sense")
    refused(tmp_path / "a.tif", r"a\.tif is not a TIFF file")


def test_nan_axis(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data/data"], file["entry/data/x"] = stack(3), [0, np.nan, 2]
        file["entry/data"].attrs["axes"] = ["x", ".", "."]
    refused(tmp_path / "a.h5", r"axis 'x' must be finite numbers, got 1 that are not among 3")


def test_axis_of_another_length(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data/data"], file["entry/data/x"] = stack(3), [0.0, 1]
        file["entry/data"].attrs["axes"] = ["x", ".", "."]
    refused(tmp_path / "a.h5", r"axis 'x' must have as many values as the stack has positions along it, 3, got 2")


def test_damaged_zarr(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    refused(tmp_path / "a.zarr", "cannot be opened as Zarr")
    group = zarr.open_group(str(tmp_path / "b.zarr"), mode="w")
    group.create_array("flat", shape=(3, 3), dtype="f4")
    refused(tmp_path / "b.zarr", r"holds no image stack .* flat \(3, 3\)")


def test_a_frame_that_is_damaged_inside_is_named(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("entry/data/data", data=stack(3), chunks=(1, 5, 7), compression="gzip")
        place = data.id.get_chunk_info(1).byte_offset
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    raw[place : place + 20] = bytes(20)
    (tmp_path / "a.h5").write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.h5: the frames of /entry/data/data cannot be read"):
        list(open_scan(tmp_path / "a.h5").batches())


def test_matches_never_raises(tmp_path):
    (tmp_path / "empty.h5").touch()
    (tmp_path / "folder.h5").mkdir()
    for path in (*tmp_path.iterdir(), tmp_path, tmp_path / "nothing", tmp_path / "nothing.h5", tmp_path / "nothing.tif"):
        for reader in readers():
            assert reader.matches(path) in (True, False)
