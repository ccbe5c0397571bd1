"""The store of a run: what was written before a kill is there afterwards, and nothing half-written is."""

from __future__ import annotations

import numpy as np
import pytest

from braggscope.live.frame_log import FRAMES, INDEX, RECORD, FrameLog, FrameWriter
from braggscope.live.ledger import LATE, LOST, RECEIVED, Ledger, LedgerFile, read_ledger
from braggscope.live.messages import Frame, Start
from braggscope.live.recorded import Follower, recorded_scan
from braggscope.live.result_log import RESULTS, ResultLog, ResultWriter
from braggscope.live.run_folder import start_document, start_from

SHAPE = (3, 4)


def frames(*numbers):
    return [Frame(n, np.full(SHAPE, n, np.uint16), n, 2.0 * n) for n in numbers]


@pytest.mark.parametrize(("torn", "bytes_left"), [(FRAMES, 2 * 24 + 11), (INDEX, 2 * RECORD.itemsize + 5)])
def test_a_frame_that_a_kill_cut_in_two_is_gone_and_those_before_it_are_there(tmp_path, torn, bytes_left):
    writer = FrameWriter(tmp_path, SHAPE, np.uint16)
    writer.append(frames(5, 1, 7), [5, 1, 7], [False, True, False])
    writer.close()
    with (tmp_path / torn).open("r+b") as file:
        file.truncate(bytes_left)
    again = FrameWriter(tmp_path, SHAPE, np.uint16)
    assert again.count == 2
    again.append(frames(9), [9], [False])
    log = FrameLog(tmp_path, SHAPE, np.dtype(np.uint16))
    assert log.records()["position"].tolist() == [5, 1, 9]
    assert log.read(slice(0, 3), slice(1, 3), slice(None))[:, 0, 0].tolist() == [5, 1, 9]


def test_results_after_a_kill_are_whole_records(tmp_path):
    writer = ResultWriter(tmp_path, ["strain", "strain_std"])
    records = np.zeros(3, writer.dtype)
    records["position"], records["strain"] = [4, 2, 4], [0.1, 0.2, 0.3]
    writer.append(records)
    writer.close()
    with (tmp_path / RESULTS).open("ab") as file:
        file.write(b"half a record")
    again = ResultWriter(tmp_path, ["strain", "strain_std"])
    again.append(records[:1])
    assert ResultLog(tmp_path).records()["position"].tolist() == [4, 2, 4, 4]
    assert ResultLog(tmp_path).records(3)["strain"].tolist() == [0.1]


def test_the_ledger_of_the_disk_is_that_of_the_memory(tmp_path):
    ledger = Ledger(8)
    file = LedgerFile(tmp_path, ledger)
    writer = FrameWriter(tmp_path, SHAPE, np.uint16)
    said = [ledger.frame(p) for p in (0, 1, 1, 99)]
    file.lose(np.array([1, 2, 3]), "not received")  # 1 is there already
    late = ledger.frame(2)
    ledger.refuse("malformed")
    file.note(1, 1, {"malformed": 1})
    file.end("stopped")
    writer.append(frames(0, 1, 2), [0, 1, 2], [False, False, True])
    assert (said, late) == (["received", "received", "duplicate", "outside"], "late")
    with (tmp_path / "ledger.jsonl").open("a") as half:
        half.write('{"lost": [[0')
    found = read_ledger(tmp_path, FrameLog(tmp_path, SHAPE, np.dtype(np.uint16)).records(), 8)
    assert found.counts() == ledger.counts()
    assert found.status.tolist() == [RECEIVED, RECEIVED, LATE, LOST, LOST, LOST, LOST, LOST]
    assert found.counts()["lost_by_reason"] == {"not received": 1, "stopped": 4}


def test_a_position_that_was_not_planned_is_not_lost():
    ledger = Ledger(6, np.array([True, True, False, False, True, True]))
    ledger.frame(0)
    ledger.end("not received")
    assert (ledger.counts()["expected"], ledger.counts()["lost"]) == (4, 3)


def test_a_start_survives_its_json(scan):
    from braggscope.live.playing import start_of

    start = start_of(scan)
    again = start_from(start_document(start))
    assert start_document(again) == start_document(start)
    assert (again.shape, again.frame_shape, again.dtype) == ((12, 15), (6, 8), "<u2")


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame_shape": (0, 4), "dtype": "u2"},
        {"frame_shape": (10**6, 10**6), "dtype": "u2"},
        {"dtype": "O"},
        {"dtype": "datetime64[s]"},
        {"expected": -1},
        {"axes": ((np.array([0.0, np.nan])),)},
    ],
)
def test_a_start_that_cannot_be_is_refused(wrong):
    from braggscope.core.scan import Axis

    if "axes" in wrong:
        wrong = {"axes": (Axis("y", wrong["axes"][0]),)}
    with pytest.raises((ValueError, TypeError)):
        Start("s", **wrong)


def test_a_follower_reads_only_what_is_new_and_equals_the_scan_opened_anew(scan, recorded, run):
    from braggscope.live.playing import start_of

    folder = run.next_scan(start_of(scan))
    writer = FrameWriter(folder.path, (6, 8), np.dtype("<u2"))
    writer.append([Frame(0, np.zeros((6, 8), np.uint16), 4)], [4], [False])
    follower = Follower(folder, recorded_scan(folder))
    for n in range(1, 3000, 500):
        more = range(n, n + 500)
        writer.append(
            [Frame(i, np.full((6, 8), i % 100, np.uint16), i % 180) for i in more], [i % 180 for i in more], [False] * 500
        )
        assert follower.advance() == 500
    assert follower.advance() == 0
    assert np.array_equal(follower.scan.order, recorded_scan(folder).order)
    assert follower.scan.taken(100, 103).frames[:, 0, 0].tolist() == [0, 1, 2]
