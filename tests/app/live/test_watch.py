"""Watching as a user does: the program in one process, a simulated detector in another; killed parts; restarts; bad input."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time

import numpy as np
import pytest

import braggscope
from braggscope.core.errors import InputError
from braggscope.core.maps import flag_counts, load_ledger
from braggscope.live.control import ask

from .conftest import free_port


def assert_offline(output, offline, *, lost=()):
    """Where a frame was received the map is the offline one to the last bit; elsewhere it is lost, and says so."""
    live = braggscope.load(output)
    gone = np.zeros(live["flag"].size, bool)
    gone[list(lost)] = True
    for name in offline.data_vars:
        a, b = live[name].values.ravel(), offline[name].values.ravel()
        if name != "flag":
            assert np.array_equal(a[~gone], b[~gone], equal_nan=True), name
            assert np.isnan(a[gone]).all(), name
    assert flag_counts(live).get("frame_lost", 0) == gone.sum()
    return live


def test_a_lossy_replay_is_mapped_and_the_ledger_printed(program, scan, offline, output):
    words = (
        "watch",
        f"replay:{scan}?rate=2000&lose=0.05&shuffle=0.1&duplicate=0.02&seed=3",
        "-o",
        output,
        "--no-dashboard",
        "--json",
    )
    said = program(*words, output=output).document()
    ledger = load_ledger(output)
    lost = np.flatnonzero(ledger["status"].ravel() == ledger["status_words"].index("lost"))
    assert said["expected"] == 600 and said["received"] == 600 - len(lost) and said["lost"] == len(lost) > 10
    assert said["duplicates"] > 0 and said["late"] == 0 and said["rate_hz"] > 0
    assert said["latency_ms"]["p99"] >= said["latency_ms"]["p50"] > 0
    live = assert_offline(output, offline, lost=lost)
    assert live.attrs["live_source"].startswith("replay:") and live.attrs["complete"] == 1
    assert not (output.parent / "m.h5.live").exists()


def test_two_terminals_a_detector_and_a_watch(program, scan, offline, output):
    url = f"zmq+json://127.0.0.1:{free_port()}"
    watching = program("watch", url, "-o", output, "--no-dashboard", "--json", output=output)
    playing = program("play", scan, url, "--rate", "1500", "--json")
    assert playing.document()["sent"] == 600
    assert watching.document()["received"] == 600
    assert_offline(output, offline)


@pytest.mark.parametrize("part", ["mapper", "receiver"])
def test_nothing_received_is_lost_when_a_part_is_killed(program, scan, offline, output, part):
    url = f"zmq+json://127.0.0.1:{free_port()}"
    watching = program("watch", url, "-o", output, "--no-dashboard", "--json", output=output)
    program("play", scan, url, "--rate", "100", "--quiet")
    watching.until(lambda: (watching.run.reported("receiver").get("counts") or {}).get("received", 0) > 50)
    watching.kill(part)
    said = watching.document()
    ledger = load_ledger(output)
    lost = np.flatnonzero(ledger["status"].ravel() == ledger["status_words"].index("lost"))
    if part == "mapper":
        assert said["received"] == 600
    assert (
        said["received"] + said["lost"] == 600 and said["received"] > 300
    )  # what was in the socket of the killed receiver is lost, and said
    assert_offline(output, offline, lost=lost)


def test_a_run_that_was_killed_as_a_whole_is_resumed(program, scan, offline, output):
    words = ("watch", f"replay:{scan}?rate=200", "-o", output, "--no-dashboard", "--json")
    first = program(*words, output=output)
    first.until(lambda: first.mapped() > 100)
    for part in ("mapper", "receiver"):
        first.kill(part)
    first.process.kill()
    first.end()
    for part in ("mapper", "receiver"):  # a part may have been started again in between
        with contextlib.suppress(ProcessLookupError, KeyError):
            first.kill(part)
    code, _, err = program(*words, output=output).end()
    assert code == 2 and "--resume goes on with it, --overwrite begins anew" in err
    said = program(*words, "--resume", output=output).document()
    assert (said["received"], said["lost"]) == (600, 0)
    assert_offline(output, offline)


def test_a_watch_that_alone_was_killed_is_resumed_and_takes_over_what_went_on(program, scan, offline, output):
    url = f"zmq+json://127.0.0.1:{free_port()}"
    words = ("watch", url, "-o", output, "--modality", "nanobeam", "--no-dashboard", "--json")
    watching = program(*words, output=output)
    playing = program("play", scan, url, "--rate", "100", "--quiet")
    watching.until(lambda: watching.mapped() > 50)
    parts = {name: watching.run.reported(name)["pid"] for name in ("receiver", "mapper")}
    os.kill(watching.process.pid, signal.SIGKILL)
    before = len(watching.run.scans()[0].frames)
    end = time.monotonic() + 20
    while len(watching.run.scans()[0].frames) < before + 50:  # they go on
        assert time.monotonic() < end
        time.sleep(0.05)
    again = program(*words, "--resume", output=output)
    said = again.document()
    assert said["received"] + said["lost"] == 600 and said["received"] > 590  # what was on its way to the old socket may be lost
    assert playing.end()[0] == 0
    assert_offline(output, offline, lost=np.flatnonzero(load_ledger(output)["status"].ravel() == 3))
    for pid in parts.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_ctrl_c_leaves_the_map_so_far(program, scan, offline, output):
    watching = program("watch", f"replay:{scan}?rate=200", "-o", output, "--no-dashboard", output=output)
    watching.until(lambda: watching.mapped() > 100)
    os.kill(watching.process.pid, signal.SIGINT)
    code, out, err = watching.end()
    assert code == 1 and "interrupted" in err and "holds the map of the frames that came" in err and "lost" in out
    live = braggscope.load(output)
    assert 100 < (live["flag"].values == 0).sum() < 600 and live.attrs["complete"] == 0
    ledger = load_ledger(output)
    assert set(ledger["counts"]["lost_by_reason"]) <= {"stopped", "not received"}
    assert_offline(output, offline, lost=np.flatnonzero(ledger["status"].ravel() == 3))


def test_a_pause_and_a_region_are_obeyed(program, scan, offline, output):
    watching = program(
        "watch", f"replay:{scan}?rate=300", "-o", output, "--no-dashboard", "--json", "--keep-frames", output=output
    )
    watching.until(lambda: bool(watching.run.scans()))
    ask(watching.run, {"region": [5, 10, 0, 30]})
    watching.until(lambda: watching.run.reported("receiver").get("state") == "ended" or watching.mapped() > 140)
    records = watching.run.scans()[0].results.records()
    rows = records["position"][20:] // 30  # those that came before the region was asked for stay
    assert ((rows >= 5) & (rows < 10)).mean() > 0.7
    ask(watching.run, {"region": None})
    assert watching.document()["received"] == 600
    assert_offline(output, offline)
    recorded = output.parent / "m.h5.live" / "scan_0001"
    assert (recorded / "frames.bin").stat().st_size == 600 * 8192
    again = braggscope.map(recorded, workers=1, progress=False)
    assert np.array_equal(again["strain"].values, braggscope.load(output)["strain"].values)


def test_a_run_that_is_paused_ends_when_it_is_told_to(program, scan, offline, output):
    watching = program("watch", f"replay:{scan}?rate=200", "-o", output, "--no-dashboard", output=output)
    watching.until(lambda: watching.mapped() > 20)
    ask(watching.run, {"paused": True})
    time.sleep(0.5)
    os.kill(watching.process.pid, signal.SIGINT)
    code, _, err = watching.end()
    assert code == 1 and "holds the map of the frames that came" in err
    assert load_ledger(output)["counts"]["received"] == np.isfinite(braggscope.load(output)["strain"].values).sum()


def test_several_scans_are_several_maps(program, scan, output):
    url = f"zmq+json://127.0.0.1:{free_port()}"
    watching = program("watch", url, "-o", output, "--no-dashboard", "--json", "--scans", "2", output=output)
    for _ in range(2):
        assert program("play", scan, url, "--rate", "2000", "--quiet").end()[0] == 0
    said = watching.document()
    assert [one["received"] for one in said["scans"]] == [600, 600]
    assert output.exists() and output.with_name("m-2.h5").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ftp:x",), "must begin with one of these schemes"),
        (("replay:nowhere.h5",), "nowhere.h5 does not exist"),
        (("replay:SCAN", "--method", "magic"), "'magic'"),
        (("replay:SCAN", "--option", "speed=3"), "has no option 'speed'"),
        (("replay:SCAN", "--train"), "needs no training; leave --train out"),
        (("replay:SCAN", "--method", "amortised"), "has no model; give the file of one with --method, or --train"),
        (("replay:SCAN", "--buffer", "hope"), "--buffer must be one of block, spill, drop-oldest"),
        (("replay:SCAN", "--timeout", "0"), "--timeout must be at least 0.1"),
        (("zmq+stream2://127.0.0.1:9",), "does not know the scan's grid; give it with --grid ROWS COLUMNS or --plan SCAN"),
        (("dir:FOLDER", "--grid", "0", "5"), "--grid must be rows and columns of at least 1"),
        (("dir:FOLDER", "--grid", "4", "5", "--plan", "SCAN"), "--grid and --plan both say the grid"),
        (("replay:SCAN", "--resume"), "there is nothing to resume"),
        (("replay:SCAN", "--overwrite", "--resume"), "contradict each other"),
        (("replay:SCAN", "--train-option", "epochs=3"), "--train-option is for --train"),
        (("replay:SCAN", "--remap"), "--remap is for --train"),
        (("dir:FOLDER", "--grid", "4", "5", "--modality", "nanobeam"), "source dir: does not say the nanobeam geometry"),
        (("dir:FOLDER", "--grid", "4", "5"), "source dir: does not know the modality; give --modality: dfxm, laue, nanobeam"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(words, message, scan, tmp_path, capsys, monkeypatch):
    from braggscope.app.cli.main import main

    (tmp_path / "FOLDER").mkdir()
    monkeypatch.chdir(tmp_path)
    shutil.copy(scan, "SCAN")
    code = main(["watch", *words, "-o", "m.h5", "--no-dashboard"])
    err = capsys.readouterr().err
    assert code == 2 and message in err and err.count("\n") == 1, err
    assert not (tmp_path / "m.h5").exists() and not (tmp_path / "m.h5.live").exists()


def test_an_output_that_exists_is_not_overwritten(scan, tmp_path, capsys):
    from braggscope.app.cli.main import main

    out = tmp_path / "m.h5"
    out.write_bytes(b"mine")
    assert main(["watch", f"replay:{scan}", "-o", str(out), "--no-dashboard"]) == 2
    assert out.read_bytes() == b"mine" and "exists" in capsys.readouterr().err


def test_a_geometry_that_nobody_states_is_said_when_the_first_frame_comes(program, output, tmp_path):
    np.save(tmp_path / "frames.npy", np.ones((12, 64, 64), np.uint16))
    code, _, err = program(
        "watch", f"replay:{tmp_path / 'frames.npy'}", "-o", output, "--modality", "nanobeam", "--no-dashboard"
    ).end()
    assert code == 2 and "does not say the nanobeam geometry" in err
    assert not output.exists() and not output.with_name("m.h5.live").exists()


def test_frames_that_came_before_an_error_are_kept_and_said(program, scan, output):
    url = f"zmq+json://127.0.0.1:{free_port()}"
    watching = program("watch", url, "-o", output, "--roi", "0:900,0:5", "--no-dashboard", output=output)
    program("play", scan, url, "--quiet")
    code, _, err = watching.end()
    assert code == 2 and "roi must lie inside the frame of 64 rows x 64 columns" in err and "frames that came" in err
    assert (output.parent / "m.h5.live" / "scan_0001" / "frames.bin").stat().st_size > 0
    assert not output.exists()


def test_an_interruption_before_any_scan_leaves_nothing(program, output, tmp_path):
    (tmp_path / "empty").mkdir()
    words = ("--grid", "4", "5", "--modality", "dfxm", "-o", output, "--no-dashboard")
    watching = program("watch", f"dir:{tmp_path / 'empty'}", *words, output=output)
    watching.until(lambda: bool(watching.run.reported("receiver")))
    os.kill(watching.process.pid, signal.SIGINT)
    code, _, err = watching.end()
    assert code == 1 and "interrupted before any scan began; there is no map" in err
    assert not output.exists() and not output.with_name("m.h5.live").exists()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"go": 1}, "control has no 'go'"),
        ({"paused": 1}, "control paused must be true or false"),
        ({"region": [3, 1, 0, 2]}, "control region must be [row0, row1, col0, col1]"),
        ({"region": [0, 1.5, 0, 2]}, "control region must be"),
        ({"thresholds": {"strain": [0]}}, "control thresholds of 'strain' must be [low, high]"),
        ({"thresholds": {"strain": [float("nan"), 1]}}, "must be [low, high], numbers or null"),
        ({"thresholds": {"strain": [1, -1]}}, "got low above high"),
        ({"remap": -1}, "control remap must be a whole number"),
        ([], "control must be an object"),
    ],
)
def test_control_that_asks_for_what_there_is_not_is_refused(document, message):
    from braggscope.live.control import checked

    with pytest.raises(InputError) as raised:
        checked(document)
    assert message in str(raised.value)


def test_from_python_it_trains_on_the_way_and_maps_all_points_by_the_last_model(scan, output):
    small = {"width": 16, "epochs": 1, "frames": 512, "batch": 64}
    url = f"replay:{scan}?rate=60"
    (said,) = braggscope.watch(url, output, method="amortised", train=True, train_options=small, remap=True, steps=0)
    version = braggscope.load(said["output"])["model_version"].values
    assert version.min() == version.max() >= 1


def test_from_python_it_is_one_call(scan, offline, output):
    (said,) = braggscope.watch(f"replay:{scan}", output)
    assert (said["received"], said["lost"], said["output"], said["end"]) == (600, 0, str(output), "complete")
    assert_offline(output, offline)


def test_a_page_that_is_open_does_not_keep_the_server_alive(program, offline, tmp_path):
    from websockets.sync.client import connect

    braggscope.save(offline, tmp_path / "m.h5")
    port = free_port()
    viewing = program("view", tmp_path / "m.h5", "--port", str(port), "--no-browser")
    assert viewing.process.stdout.readline() == f"the page is at http://127.0.0.1:{port}/ (Ctrl-C ends)\n"
    with connect(f"ws://127.0.0.1:{port}/api/v1/updates") as page:
        assert page.recv(10)
        os.kill(viewing.process.pid, signal.SIGINT)
        code, _, err = viewing.end(20)
    assert (code, err) == (0, "")
