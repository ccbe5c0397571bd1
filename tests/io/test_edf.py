"""EDF series of ID06 and others."""

from __future__ import annotations

import gzip

import fabio.edfimage
import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.core.source import open_scan, open_scans

SCAN = "ascan  diffry -23.176 -23.146  3 5"


def series(edf, frames, points=None, **header):
    for number in points or range(len(frames)):
        motors = {"mono": 5.7, "diffry": -23.176 + 0.01 * number}
        path = edf(f"raw/strain_{number:04}.edf", frames[number], motors, scan=SCAN, point_no=number, count_time=5, **header)
    return path.parent


def test_the_motor_of_the_command_is_the_axis(edf, stack):
    frames = stack(4)
    scan = open_scan(series(edf, frames, dir="/data/id06/inhouse/strain"))
    assert (scan.name, scan.title, scan.modality) == ("strain", SCAN, "dfxm")
    assert [(a.name, a.values.tolist(), a.unit) for a in scan.axes] == [
        ("diffry", pytest.approx([-23.176, -23.166, -23.156, -23.146]), "deg")
    ]
    assert scan.metadata["motors"] == {"mono": 5.7}
    assert np.array_equal(np.concatenate([b.frames for b in scan.batches()]), frames)
    assert scan.missing == ()


def test_a_file_stands_for_its_series(edf, stack):
    folder = series(edf, stack(4))
    edf("raw/dark_0000.edf", stack(4)[0])
    assert open_scan(folder / "strain_0002.edf").shape == (4,)
    assert [scan.name for scan in open_scans(folder)] == ["dark", "strain"]


def test_one_frame_of_a_scan_is_an_aborted_scan(edf, stack):
    scan = open_scan(series(edf, stack(4)[:1]))
    assert scan.shape == (4,) and scan.order.tolist() == [0]
    assert scan.grid["diffry"].values == pytest.approx([-23.176, -23.166, -23.156, -23.146])
    assert scan.missing == ("3 of 4 frames (the last one there is number 1)",)


def test_lost_files_leave_a_gap_where_they_are_missing(edf, stack):
    frames = stack(4)
    scan = open_scan(series(edf, frames, [0, 1, 3]))
    assert scan.order.tolist() == [0, 1, 3]
    assert np.array_equal(scan.frame(3), frames[3])
    assert np.isnan(scan.frame(2)).all()
    assert scan.missing == ("1 of 4 frames (the last one there is number 4, 1 of them in between)",)


def test_without_a_command_the_motors_that_vary_make_the_grid(edf, stack):
    frames = stack(6)
    for number, frame in enumerate(frames):
        path = edf(f"raw/frame_{number}.edf", frame, {"chi": number // 3, "mu": 0.5 * (number % 3), "phi": 2.0})
    scan = open_scan(path.parent)
    assert [(a.name, a.values.tolist()) for a in scan.axes] == [("chi", [0, 1]), ("mu", [0, 0.5, 1])]


def test_headers_without_motor_lists_are_searched_for_numbers_that_vary(edf, stack):
    for number, frame in enumerate(stack(4)):
        path = edf(f"raw/frame_{number}.edf", frame, phi=0.1 * number, gain=2, epoch=1e9 + number)
    assert [(a.name, a.values.tolist()) for a in open_scan(path.parent).axes] == [("phi", pytest.approx([0, 0.1, 0.2, 0.3]))]


def test_frames_of_different_sizes_are_refused(edf, stack):
    edf("raw/frame_0.edf", stack(2)[0])
    path = edf("raw/frame_1.edf", stack(2, 4, 9)[0])
    with pytest.raises(InputError, match=r"frame_1\.edf is 4 x 9 .* but frame_0\.edf of the same series is 5 x 7"):
        open_scan(path)


def test_a_file_that_is_cut_short_is_named(edf, stack):
    path = edf("raw/frame_0.edf", stack(1)[0])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"frame_0\.edf is cut short"):
        open_scan(path)


def test_something_else_called_edf_is_named(tmp_path):
    (tmp_path / "a.edf").write_text("not an image")
    with gzip.open(tmp_path / "b.edf.gz", "wb") as file:
        file.write(b"neither")
    for name in ("a.edf", "b.edf.gz"):
        with pytest.raises(InputError, match=f"{name} is not an EDF file: it has no header in braces"):
            open_scan(tmp_path / name)


def test_big_endian_frames_of_one_file_have_their_own_headers(tmp_path):
    """Written by hand, as old instruments do; the second frame has a longer header."""
    frames = np.arange(24, dtype=">i4").reshape(2, 3, 4)
    raw = b""
    for number, frame in enumerate(frames):
        words = {"ByteOrder": "HighByteFirst", "DataType": "SignedInteger", "Dim_1": 4, "Dim_2": 3, "motor_mne": "mu"}
        lines = [f"{key} = {value} ;" for key, value in {**words, "motor_pos": 0.5 * number}.items()]
        raw += "\n".join(["{", *lines]).encode().ljust(512 * (number + 1) - 2) + b"}\n" + frame.tobytes()
    (tmp_path / "old.edf").write_bytes(raw)
    scan = open_scan(tmp_path / "old.edf")
    assert np.array_equal(next(scan.batches()).frames, frames)
    assert scan.frames.dtype.isnative
    assert [(a.name, a.values.tolist()) for a in scan.axes] == [("mu", [0, 0.5])]


def test_several_frames_in_a_gzip_file_are_read(tmp_path, stack):
    frames = stack(3)
    image = fabio.edfimage.EdfImage(data=frames[0])
    for frame in frames[1:]:
        image.append_frame(data=frame)
    image.write(str(tmp_path / "frames.edf.gz"))
    assert np.array_equal(next(open_scan(tmp_path / "frames.edf.gz").batches()).frames, frames)
