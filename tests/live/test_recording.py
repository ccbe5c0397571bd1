"""The receiver: gaps, late frames, other scans, the buffer's policies, and what happens when it is started again."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.core.scan import Axis
from braggscope.live import buffer as buffer_module
from braggscope.live.buffer import Buffer
from braggscope.live.frame_log import FrameWriter
from braggscope.live.ledger import LOST
from braggscope.live.messages import End, Frame, Gap, Refused, Start
from braggscope.live.playing import Frames, Schedule, start_of
from braggscope.live.receiving import receive
from braggscope.live.recording import Recorder
from braggscope.live.run_folder import start_from

from .conftest import planned


def frame(n, shape=(6, 8), dtype=np.uint16, **more):
    return Frame(n, np.full(shape, n, dtype), **more)


def counts_of(run, number=0):
    return json.loads((run.scans()[number].path / "ledger.json").read_text())


def test_a_frame_that_later_ones_passed_is_lost_and_one_that_comes_after_that_is_late(run, scan):
    recorder = Recorder(run, patience_s=0.05)
    recorder.record([start_of(scan), *(frame(n) for n in range(10) if n not in (3, 4))])
    time.sleep(0.1)
    recorder.record([frame(10)])
    assert recorder.counts["lost"] == 2
    recorder.record([frame(4)])
    recorder.finish("complete")
    assert (counts_of(run)["late"], counts_of(run)["received"]) == (1, 10)
    assert run.scans()[0].frames.records()["late"].tolist() == [0] * 9 + [1]


def test_a_gap_that_the_transport_knows_keeps_its_reason(run, scan):
    recorder = Recorder(run)
    recorder.record([start_of(scan), frame(0), Gap(range(1, 4), "buffer full"), frame(4)])
    recorder.finish("complete")
    assert counts_of(run)["lost_by_reason"] == {"buffer full": 3, "not received": 175}


@pytest.mark.parametrize("other", [frame(3, (8, 6)), frame(3, dtype=np.float64), frame(3, dtype=np.uint8)])
def test_a_frame_of_another_shape_or_type_is_refused_and_counted(run, scan, other):
    recorder = Recorder(run)
    recorder.record([start_of(scan), frame(0), other, Refused("malformed", "no message"), frame(1)])
    recorder.finish("complete")
    assert counts_of(run)["refused_by_kind"] == {"another frame shape or type": 1, "malformed": 1}
    assert counts_of(run)["received"] == 2


def test_a_second_scan_has_a_folder_of_its_own(run, scan):
    recorder = Recorder(run)
    second = dataclasses.replace(start_of(scan), scan="second")
    recorder.record([start_of(scan), frame(0), second, frame(1), frame(2)])
    recorder.finish("complete")
    assert [one.started.scan for one in run.scans()] == [start_of(scan).scan, "second"]
    assert [counts_of(run, i)["received"] for i in (0, 1)] == [1, 2]
    assert counts_of(run)["lost_by_reason"] == {"the next scan began": 179}


def test_the_first_frame_tells_shape_and_type_where_nobody_else_does(run, scan):
    recorder = Recorder(run, start_from(planned(scan)))
    recorder.record([frame(n) for n in range(180)])
    assert recorder.settle() is False  # it may still have more to say for a moment
    time.sleep(0.35)
    assert recorder.settle() is True
    assert run.scans()[0].started.frame_shape == (6, 8)
    assert run.scans()[0].ended["reason"] == "complete"


def test_frames_without_a_scan_are_refused(run):
    recorder = Recorder(run)
    recorder.record([frame(0), End()])
    assert (recorder.refused, run.scans()) == (1, [])


def test_a_receiver_that_is_started_again_goes_on_with_the_scan(run, scan):
    first = Recorder(run)
    first.record([start_of(scan), *(frame(n) for n in range(50))])  # and dies: nothing is finished
    again = Recorder(run)
    again.record([start_of(scan), *(frame(n) for n in range(40, 180))])
    again.finish("complete")
    assert len(run.scans()) == 1
    assert (counts_of(run)["received"], counts_of(run)["duplicates"]) == (180, 0)
    assert sorted(run.scans()[0].frames.records()["position"].tolist()) == list(range(180))


def test_the_next_scan_of_the_same_name_is_not_taken_for_the_one_that_was_under_way(run, scan):
    Recorder(run, repeats=False).record([start_of(scan), *(frame(n) for n in range(50))])  # and dies
    again = Recorder(run, repeats=False)
    again.record([*(frame(n) for n in range(50, 60)), start_of(scan), *(frame(n) for n in range(5))])
    again.finish("complete")
    assert [counts_of(run, i)["received"] for i in (0, 1)] == [60, 5]


def test_a_scan_whose_end_and_the_next_start_come_together_ended_as_it_said(run, scan):
    recorder = Recorder(run)
    recorder.record([start_of(scan), *(frame(n) for n in range(180)), End(), start_of(scan), frame(0), start_of(scan), frame(1)])
    recorder.finish("stopped")
    assert [one.ended["reason"] for one in run.scans()] == ["complete", "the next scan began", "stopped"]


def test_more_scans_than_were_asked_for_are_refused(run, scan):
    recorder = Recorder(run, start_from(planned(scan)), most=1)
    recorder.record([start_of(scan), frame(0), start_of(scan), frame(0), frame(1)])
    assert (recorder.finished, recorder.scan, len(run.scans()), recorder.refused) == (1, None, 1, 3)


def test_a_grid_that_is_not_that_of_the_source_is_refused(run, scan):
    plan = dataclasses.replace(
        start_from(planned(scan)), axes=(Axis("y", np.arange(3.0), ""), Axis("x", np.arange(4.0), "")), order=None
    )
    with pytest.raises(InputError, match="but --grid or --plan says 3 x 4; leave that out"):
        Recorder(run, plan).record([start_of(scan)])


def test_a_part_of_a_run_is_done_by_one_process_until_it_ends(run):
    code = "import sys, pathlib; from braggscope.live.run_folder import RunFolder; r = RunFolder(pathlib.Path(sys.argv[1])); "
    code += "r.claim('receiver'); r.report('receiver'); print('mine', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, run.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"mine\n"
        assert run.claimed() == {"receiver": other.pid}
        other.kill()
    assert run.claimed() == {}


def test_a_scan_that_was_complete_when_the_receiver_died_is_finished_by_the_next_one(run, scan):
    Recorder(run).record([start_of(scan), *(frame(n) for n in range(180))])  # and dies before it can say so
    again = Recorder(run)
    time.sleep(0.35)
    assert again.settle() is True
    assert run.scans()[0].ended == {**run.scans()[0].ended, "reason": "complete", "frames": 180}


def test_a_frame_that_comes_when_an_announced_scan_is_over_begins_no_other(run, scan):
    recorder = Recorder(run, start_from(planned(scan)))
    recorder.record([start_of(scan), frame(0), End()])
    time.sleep(0.35)
    assert recorder.settle() is True
    recorder.record([frame(1)])
    assert (len(run.scans()), recorder.refused) == (1, 1)


def test_a_start_that_fits_nothing_leaves_the_scan_alone(run, scan):
    recorder = Recorder(run)
    recorder.record([start_of(scan), frame(0), Start("stray"), frame(1)])
    recorder.finish("complete")
    assert (len(run.scans()), counts_of(run)["received"]) == (1, 2)
    assert counts_of(run)["refused_by_kind"] == {"start without a grid that fits": 1}


@pytest.mark.parametrize("numbers", [[5], [3, 4, 5, 9]])
def test_a_dropped_frame_is_lost_at_the_position_that_its_sender_said(run, scan, numbers):
    buffer, recorder = Buffer("drop-oldest", bytes=0), Recorder(run)
    buffer.put([start_of(scan), *(frame(n, position=179 - n) for n in numbers)])
    for n in range(20, 23):
        buffer.put([frame(n, position=179 - n)])  # as many as are always held
    while len(buffer):
        recorder.record(buffer.take(100, 0))
    lost = np.flatnonzero(recorder.ledger.status == LOST)
    assert buffer.dropped == len(numbers)
    assert lost.tolist() == sorted(179 - n for n in numbers)


def test_a_disk_that_stalls_loses_nothing_where_the_buffer_blocks_and_what_it_says_where_it_drops(run, scan, monkeypatch):
    append, stalled = FrameWriter.append, []

    def stall(self, frames, positions, late):
        if not stalled:
            stalled.append(time.sleep(0.5))
        append(self, frames, positions, late)

    monkeypatch.setattr(FrameWriter, "append", stall)
    monkeypatch.setattr(buffer_module, "BYTES", 20 * 96)
    for number, policy in enumerate(("block", "spill", "drop-oldest"), 1):
        stalled.clear()
        receive(run, {"source": f"replay:{scan.path}?rate=600", "scans": number, "buffer": policy}, threading.Event())
        counts = counts_of(run, number - 1)
        assert counts["received"] + counts["lost"] == 180
        assert (counts["lost"] > 0) == (policy == "drop-oldest")
        assert counts["lost_by_reason"].get("buffer full", 0) == counts["lost"]
        said = run.reported("receiver")
        assert said["dropped"] == counts["lost"]
        assert (said["spilled"] > 0) == (policy == "spill")


def test_a_full_disk_ends_the_scan_with_what_is_there(run, scan):
    """The limit of a process on the size of its files stands for the disk: 100 frames of 96 bytes."""
    (run.path / "run.json").write_text(json.dumps({"source": f"replay:{scan.path}?rate=2000", "scans": 1}))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9600, 9600));"
        "from braggscope.live.receiving import main; sys.exit(main(sys.argv[1]))"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "frames cannot be recorded in" in ended.stderr and "Traceback" not in ended.stderr
    folder, counts = run.scans()[0], counts_of(run)
    assert folder.ended["reason"] == "the disk could not take more"
    assert 0 < counts["received"] == len(folder.frames) == folder.ended["frames"] <= 100
    assert counts["lost_by_reason"] == {"the disk could not take more": 180 - counts["received"]}


def test_the_receiver_reports_rate_counts_and_the_time_on_the_way(run, scan):
    recorder = Recorder(run)
    now = time.time()
    recorder.record(
        [start_of(scan), *(frame(n, sent=now - 0.5, received=now - 0.25) for n in range(10)), frame(10, received=now)]
    )
    assert recorder.transport_ms() == {"p50": pytest.approx(250, abs=1), "p99": pytest.approx(250, abs=1)}
    assert recorder.rates()["rate_hz"] == 5.5  # 11 in two seconds


def test_a_scan_that_the_user_ends_is_over_and_the_next_one_goes_on(run, scan):
    from braggscope.live.control import ask

    stop = threading.Event()
    url = f"replay:{scan.path}?rate=100"
    thread = threading.Thread(target=receive, args=(run, {"source": url, "scans": 1}, stop))
    thread.start()
    while not run.scans():
        time.sleep(0.01)
    ask(run, {"end_scan": 1})
    thread.join(10)
    assert run.scans()[0].ended["reason"] == "ended by the user"


@pytest.mark.parametrize("policy", ["spill", "drop-oldest"])
def test_a_full_buffer_spills_or_records_what_it_drops(policy):
    buffer = Buffer(policy, bytes=100 * 96)
    sent = [frame(n) for n in range(300)]
    buffer.put([*sent, End()])
    taken = []
    while len(buffer):
        taken += buffer.take(37, 0)
    buffer.close()
    numbers = [m.number for m in taken if isinstance(m, Frame)]
    gaps = [n for m in taken if isinstance(m, Gap) for n in m.numbers]
    assert sorted(numbers + gaps) == list(range(300))
    assert isinstance(taken[-1], End)
    assert numbers == sorted(numbers)
    if policy == "spill":
        assert not gaps and buffer.spilled > 0
        assert all((m.data == m.number).all() for m in taken if isinstance(m, Frame))
    else:
        assert len(gaps) == buffer.dropped > 0 and all(m.reason == "buffer full" for m in taken if isinstance(m, Gap))


def test_a_full_buffer_that_blocks_holds_the_sender_and_loses_nothing():
    buffer, done = Buffer("block", bytes=100 * 96), threading.Event()

    def put():
        for n in range(300):
            buffer.put([frame(n)])
        done.set()

    threading.Thread(target=put, daemon=True).start()
    time.sleep(0.1)
    assert not done.is_set()
    taken = []
    while not (done.is_set() and not len(buffer)):
        taken += buffer.take(10, 0.05)
    assert [m.number for m in taken] == list(range(300))


def test_a_policy_that_is_none_is_refused():
    with pytest.raises(InputError, match="the buffer must be one of block, spill, drop-oldest, got 'hope'"):
        Buffer("hope")


def test_a_schedule_loses_shuffles_and_repeats_what_it_says():
    schedule = Schedule(lose=0.1, shuffle=0.2, duplicate=0.1, seed=2)
    numbers = schedule.numbers(20_000)
    assert abs(len(schedule.lost(20_000)) / 20_000 - 0.1) < 0.01
    assert set(numbers) | set(schedule.lost(20_000)) == set(range(20_000))
    assert abs((len(numbers) - len(set(numbers))) / 18_000 - 0.1) < 0.01
    assert 0.1 < (np.diff(numbers) < 0).mean() < 0.3
    assert np.array_equal(numbers, schedule.numbers(20_000))


def test_frames_by_number_are_those_of_the_scan(scan):
    frames = Frames(scan)
    assert [int(frames[n].data[0, 0]) for n in (179, 0, 57)] == [179, 0, 57]
