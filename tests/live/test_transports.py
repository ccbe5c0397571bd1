"""Each transport with its simulator: 5 % lost, 10 % out of order, 4 % twice; every position right, every loss in the ledger."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.live.playing import Frames, Schedule, play
from braggscope.live.transports import folder as folder_module
from braggscope.live.transports import pva, receiver, sender, source_url, transports
from braggscope.live.transports._compressed import compressed, decompressed

from .conftest import assert_right, free_port

LOSSY = Schedule(lose=0.05, shuffle=0.1, duplicate=0.04, seed=5)
WHOLE = Schedule()


def url_of(scheme, tmp_path, scan):
    if scheme.startswith("zmq"):
        return f"{scheme}://127.0.0.1:{free_port()}"
    if scheme == "pva":
        return f"pva://BRAGGSCOPE:TEST{free_port()}?address=127.0.0.1"
    if scheme == "dir":
        (tmp_path / "frames").mkdir()
        return f"dir:{tmp_path / 'frames'}?still=0.02&first=0"
    if scheme == "h5":
        return f"h5:{tmp_path / 'growing.h5'}?swmr=1"
    return f"replay:{scan.path}?lose=0.05&shuffle=0.1&duplicate=0.04&seed=5"


def sending(url, scan, schedule):
    """What sends the scan to a URL in another thread."""
    end = sender(source_url(url))

    def send():
        for _ in play(scan, end, schedule):
            pass
        end.close()

    return send


@pytest.mark.parametrize("scheme", sorted(transports()))
def test_losses_disorder_and_duplicates_leave_every_position_right(scheme, scan, recorded, tmp_path):
    url = url_of(scheme, tmp_path, scan)
    schedule = WHOLE if scheme == "h5" else LOSSY  # a growing file has every frame in order
    told = {"timeout_s": 1.5} if scheme == "dir" else {}  # a folder does not say that the scan is over
    folder = recorded(url, (lambda: None) if scheme == "replay" else sending(url, scan, schedule), **told)
    counts = assert_right(folder, schedule)
    if scheme not in ("h5", "dir"):  # a file that is written twice is one file
        assert counts["duplicates"] == len(schedule.numbers(180)) - (180 - len(schedule.lost(180)))
    assert folder.ended["frames"] == 180 - len(schedule.lost(180))


@pytest.mark.parametrize("compression", ["bslz4", "lz4", "none"])
def test_stream2_decodes_what_the_detector_compresses(compression, scan, recorded, port):
    url = f"zmq+stream2://127.0.0.1:{port}?compression={compression}"
    assert_right(recorded(url, sending(url, scan, WHOLE)), WHOLE)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_stream2_frames_are_bit_for_bit_those_sent(dtype):
    frame = np.random.default_rng(1).integers(0, 200, (37, 41)).astype(dtype)
    for algorithm in ("bslz4", "lz4"):
        blob = compressed(frame, algorithm)
        assert np.array_equal(decompressed(blob, algorithm, frame.itemsize, frame.shape, frame.dtype), frame)


def test_threads_that_decode_at_once_get_their_own_frames():
    frames = [np.full((37, 41), n, np.uint16) for n in range(8)]
    blobs = [compressed(frame, "bslz4") for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda n: decompressed(blobs[n], "bslz4", 2, (37, 41), np.dtype("<u2"))[0, 0], [*range(8)] * 200)
    assert list(found) == [*range(8)] * 200


def test_a_file_that_a_writer_opens_and_closes_is_followed(scan, recorded, tmp_path):
    url = f"h5:{tmp_path / 'growing.h5'}?swmr=0"
    command = [sys.executable, "-m", "braggscope", "play", str(scan.path), url, "--rate", "400", "--quiet"]

    def send():
        assert subprocess.run(command, check=False, capture_output=True).returncode == 0

    assert_right(recorded(url, send), WHOLE)


def write_in_place(path, scan, skip=(), rate=400):
    """A file made at its full size whose frames are written one after another; those of `skip` never."""
    frames = Frames(scan)
    with h5py.File(path, "w", libver="latest") as file:
        stack = file.create_dataset("entry/data/data", (12, 15, 6, 8), "u2", chunks=(1, 1, 6, 8))
        file.swmr_mode = True
        for n in range(180):
            if n not in skip:
                stack[np.unravel_index(n, (12, 15))] = frames[n].data
                stack.flush()
            time.sleep(1 / rate)


def test_frames_of_a_file_made_at_its_full_size_count_as_they_are_written(scan, recorded, tmp_path):
    path = tmp_path / "full.h5"
    folder = recorded(f"h5:{path}", lambda: write_in_place(path, scan, skip=(0, 7, 8, 150)), plan=None, timeout_s=1.5)
    records = folder.frames.records()
    assert np.array_equal(records["position"], np.setdiff1d(np.arange(180), [0, 7, 8, 150]))
    assert (folder.frames.read(slice(0, 176), slice(None), slice(None))[:, 0, 0] == records["position"]).all()
    assert json.loads((folder.path / "ledger.json").read_text())["lost"] == 4


def test_a_writer_that_is_killed_leaves_what_it_wrote(scan, recorded, tmp_path):
    url = f"h5:{tmp_path / 'growing.h5'}?swmr=1"
    command = [sys.executable, "-m", "braggscope", "play", str(scan.path), url, "--rate", "100", "--quiet"]

    def send():
        writer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        path = tmp_path / "growing.h5"
        while not path.exists():
            time.sleep(0.01)
        time.sleep(0.8)
        writer.kill()
        writer.wait()

    folder = recorded(url, send, timeout_s=1.5)
    records = folder.frames.records()
    assert 20 < len(records) < 180
    assert (folder.frames.read(slice(0, len(records)), slice(None), slice(None))[:, 0, 0] == records["position"]).all()
    assert folder.ended["reason"] == "nothing came for 1.5 s"
    assert json.loads((folder.path / "ledger.json").read_text())["lost"] == 180 - len(records)


def test_a_file_that_is_half_written_is_read_when_it_is_whole(scan, recorded, tmp_path):
    (tmp_path / "frames").mkdir()
    frames = Frames(scan)

    def send():
        for n in range(180):
            file = io.BytesIO()
            np.save(file, frames[n].data)
            path, content = tmp_path / "frames" / f"frame_{n:04d}.npy", file.getvalue()
            if n % 30 == 7:  # stands still for longer than `still`, in the header or in the counts
                path.write_bytes(content[: 40 if n % 60 == 7 else -30])
                time.sleep(0.1)
            path.write_bytes(content)

    counts = assert_right(recorded(f"dir:{tmp_path / 'frames'}?still=0.02&first=0", send, timeout_s=1.5), WHOLE)
    assert counts["refused"] == 0


def test_a_file_that_stays_unreadable_is_refused_and_its_frame_lost(scan, recorded, tmp_path, monkeypatch):
    (tmp_path / "frames").mkdir()
    monkeypatch.setattr(folder_module, "TRIES_S", 0.3)
    np.save(tmp_path / "frames" / "frame_0000.npy", Frames(scan)[0].data)
    (tmp_path / "frames" / "frame_0001.npy").write_bytes(b"\x93NUMPY no array")
    (tmp_path / "frames" / "notes.npy").write_bytes(b"no number")
    folder = recorded(f"dir:{tmp_path / 'frames'}?still=0.02", timeout_s=1.5)
    counts = json.loads((folder.path / "ledger.json").read_text())
    assert (counts["received"], counts["refused_by_kind"]) == (1, {"unreadable file": 2})


@pytest.mark.parametrize("compression", ["bslz4", "lz4"])
def test_pva_arrays_that_a_codec_plugin_compressed_are_decoded(compression, scan, recorded):
    url = f"pva://BRAGGSCOPE:TEST{free_port()}?address=127.0.0.1&compression={compression}"
    assert_right(recorded(url, sending(url, scan, WHOLE)), WHOLE)


def test_unique_ids_may_begin_anywhere_and_wrap():
    value = {"dimension": [{"size": 8}, {"size": 6}], "value": np.zeros(48, "u2"), "uniqueId": 2**31 - 1}
    assert pva.array(value, 0.0, None).number == 0
    assert pva.array({**value, "uniqueId": -(2**31) + 1}, 0.0, 2**31 - 1).number == 2
    assert pva.array({**value, "uniqueId": 2**31 - 3}, 0.0, 2**31 - 1).kind == "before the scan"


class Arrived:
    """A receiver of PV Access to which arrays are given by hand."""

    def __init__(self, *unique, state=None):
        self.receiver = object.__new__(pva.PvaReceiver)
        self.receiver._arrived, self.receiver._signal = deque(), threading.Event()
        self.receiver._first, self.receiver._fresh, self.receiver._restored = None, False, False
        if state is not None:
            self.receiver.restore(state)
        self.come(*unique)

    def come(self, *unique):
        for number in unique:
            value = {"dimension": [{"size": 8}, {"size": 6}], "value": np.zeros(48, "u2"), "uniqueId": number}
            self.receiver._arrived.append(("frame", value, 0.0))

    def numbers(self):
        return [message.number for message in self.receiver.receive(0.0)]


def test_what_a_server_held_before_the_scan_is_no_frame_of_it_and_a_restart_goes_on_counting():
    came = Arrived(104, 8, 9, 10)  # an image of an earlier scan, sent on subscription
    assert came.numbers() == [0, 1, 2]
    again = Arrived(10, 11, 13, state=came.receiver.state)
    assert again.numbers() == [2, 3, 5]


def test_a_growing_stack_without_a_grid_is_refused_in_one_sentence(scan, recorded, tmp_path):
    url = f"h5:{tmp_path / 'growing.h5'}?swmr=1"
    with pytest.raises(InputError, match="give one with --grid ROWS COLUMNS or --plan SCAN"):
        recorded(url, sending(url, scan, WHOLE), plan=None)


def test_a_finished_file_is_taken_whole_with_its_own_grid(scan, recorded):
    folder = recorded(f"h5:{scan.path}", plan=None)
    assert_right(folder, WHOLE)
    assert [axis.name for axis in folder.started.axes] == ["y", "x"]


def test_tiff_files_are_numbered_by_their_names(scan, recorded, tmp_path):
    (tmp_path / "frames").mkdir()
    url = f"dir:{tmp_path / 'frames'}?still=0.02&first=0&format=tif"
    assert_right(recorded(url, sending(url, scan, LOSSY), timeout_s=1.5), LOSSY)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp:somewhere", "must begin with one of these schemes"),
        ("zmq+json://", "names no file, folder, address or channel"),
        ("zmq+json://nowhere", "needs an address HOST:PORT"),
        ("zmq+json://127.0.0.1:99999", "needs an address HOST:PORT"),
        ("zmq+json://127.0.0.1:99?speed=3", "has no parameter 'speed'; it has: bind"),
        ("replay:scan.h5?lose=2", "parameter lose of replay: must be a number between 0 and 1, got '2'"),
        ("replay:scan.h5?lose", "must be NAME=VALUE"),
        ("dir:nowhere", "folder nowhere does not exist"),
        ("h5:nowhere/f.h5", "folder nowhere of nowhere/f.h5 does not exist"),
        ("replay:nowhere.h5", "nowhere.h5 does not exist"),
    ],
)
def test_a_source_that_is_none_is_one_sentence(url, message, tmp_path, monkeypatch, scan):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan.h5").symlink_to(scan.path)
    with pytest.raises(InputError) as raised:
        receiver(source_url(url))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
