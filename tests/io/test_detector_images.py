"""marccd, mar345, ADSC and CBF images: counts as they were written, and what their headers say."""

import gzip
import struct

import fabio.adscimage
import fabio.cbfimage
import fabio.mar345image
import numpy as np
import pytest
from fabio.marccdimage import HEADER_FORMAT, HEADER_NAMES

from braggscope.core.errors import InputError
from braggscope.core.source import open_scan

DECTRIS = "\r\n".join(
    (
        "# Detector: PILATUS 6M, S/N 60-0001",
        "# Pixel_size 172e-6 m x 172e-6 m",
        "# Exposure_time 0.5 s",
        "# Count_cutoff 1048500 counts",
    )
)


def write_marccd(path, counts, saturated=65000, exposure_ms=2500, pixel_nm=79142):
    """A TIFF file with the header of marccd (3072 bytes from byte 1024) and its counts after that."""
    rows, columns = counts.shape
    entries = [
        (256, 4, 1, columns), (257, 4, 1, rows), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 4096),
        (277, 3, 1, 1), (278, 4, 1, rows), (279, 4, 1, 2 * counts.size), (34710, 4, 1, 1024),
    ]  # fmt: skip
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    head += b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", 0)
    frame = bytearray(3072)
    place, offsets = 0, {}
    for name, kind in zip(HEADER_NAMES, HEADER_FORMAT, strict=True):
        size = struct.calcsize(kind)
        offsets.setdefault(name, (place, kind))
        place += size
    for name, value in (("saturated_value", saturated), ("exposure_time", exposure_ms), ("pixelsize_x", pixel_nm)):
        at, kind = offsets[name]
        struct.pack_into("<" + kind, frame, at, value)
    path.write_bytes(head.ljust(1024, b"\0") + bytes(frame) + counts.astype("<u2").tobytes())


def read(path):
    scan = open_scan(path)
    return scan, np.concatenate([batch.frames for batch in scan.batches()])


def test_a_series_of_cbf_images(tmp_path, stack):
    frames = stack(4).astype(np.int32)
    frames[:, 2, 3] = -1
    for number, counts in enumerate(frames):
        image = fabio.cbfimage.CbfImage(data=counts, header={"_array_data.header_contents": DECTRIS})
        image.write(str(tmp_path / f"map_{number + 1:05}.cbf"))
    scan, counts = read(tmp_path / "map_00002.cbf")
    assert (scan.name, scan.shape, counts.dtype) == ("map", (4,), np.int32)
    assert np.array_equal(counts, frames)
    assert (scan.detector, scan.saturation) == ("PILATUS 6M, S/N 60-0001", 1048500)
    assert scan.metadata["exposure_s"] == 0.5 and scan.metadata["pixel_um"] == pytest.approx(172)
    assert not next(iter(scan.batches())).mask[:, 2, 3].any()
    assert open_scan(tmp_path, grid=(2, 2)).shape == (2, 2)


def test_an_adsc_image_also_compressed(tmp_path, stack):
    counts = stack(1)[0]
    header = {"PIXEL_SIZE": "0.1024", "TIME": "3", "CCD_IMAGE_SATURATION": "65535", "BYTE_ORDER": "little_endian"}
    path = tmp_path / "spots_001.img"
    fabio.adscimage.AdscImage(data=counts, header=header).write(str(path))
    scan, found = read(path)
    assert np.array_equal(found[0], counts)
    assert scan.metadata["pixel_um"] == pytest.approx(102.4) and scan.metadata["exposure_s"] == 3
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "spots_001.img.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert np.array_equal(read(packed)[1][0], counts)


def test_a_marccd_image(tmp_path):
    counts = np.random.default_rng(0).integers(0, 60000, (12, 16)).astype(np.uint16)
    write_marccd(tmp_path / "Ge_0001.mccd", counts)
    scan, found = read(tmp_path / "Ge_0001.mccd")
    assert np.array_equal(found[0], counts) and found.dtype == np.uint16
    assert scan.saturation == 65000
    assert scan.metadata["exposure_s"] == 2.5 and scan.metadata["pixel_um"] == pytest.approx(79.142)


def test_a_marccd_image_called_tif_is_read_as_tiff(tmp_path):
    counts = np.random.default_rng(0).integers(0, 60000, (12, 16)).astype(np.uint16)
    write_marccd(tmp_path / "Ge_0001.tif", counts)
    assert np.array_equal(read(tmp_path / "Ge_0001.tif")[1][0], counts)


def test_a_mar345_image(tmp_path):
    counts = np.random.default_rng(0).integers(0, 3000, (1200, 1200)).astype(np.uint32)
    counts[3, 4] = 100000  # an overflow, kept in a table of its own
    path = tmp_path / "plate_001.mar1200"
    image = fabio.mar345image.Mar345Image(data=counts)
    image.byteorder = "<"
    image.write(str(path))
    _, found = read(path)
    assert np.array_equal(found[0], counts)


def test_damaged_empty_and_unequal_files_are_named(tmp_path, stack):
    (tmp_path / "bad_001.cbf").write_bytes(b"###CBF: VERSION 1.5\r\nnothing")
    with pytest.raises(InputError, match=r"bad_001.cbf is not a CBF image or is damaged"):
        open_scan(tmp_path / "bad_001.cbf")
    (tmp_path / "void.img").write_bytes(b"")
    with pytest.raises(InputError, match=r"void\.img is empty"):
        open_scan(tmp_path / "void.img")
    folder = tmp_path / "series"
    folder.mkdir()
    for number, counts in enumerate((stack(1)[0], stack(1, rows=6)[0])):
        fabio.cbfimage.CbfImage(data=counts.astype(np.int32)).write(str(folder / f"m_{number}.cbf"))
    with pytest.raises(InputError, match=r"but m_0\.cbf of the same series is 5 x 7"):
        read(folder)
