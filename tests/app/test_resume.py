"""What stops a map half-way leaves a readable map, and --resume finishes it to the map of an uninterrupted run."""

from __future__ import annotations

import resource
import signal
import time

import h5py
import numpy as np
import pytest
import xarray as xr

import braggscope
from braggscope.core import maps
from braggscope.core.scan import Scan

SHAPE = (60, 70)  # five batches of 1024 frames
OFTEN = "import braggscope.app.mapping as m; m.CHECKPOINT_S = m.CHECKPOINT_SHARE = 0"
TIMES = ("created", "seconds", "command")


def same_map(a, b):
    """Identical but for the attributes that tell when and how the program was called."""
    a, b = braggscope.load(a), braggscope.load(b)
    for dataset in (a, b):
        for name in TIMES:
            del dataset.attrs[name]
    xr.testing.assert_identical(a, b)


def frames_in(path):
    """Frames that a map file holds, 0 while it is not there."""
    return int((maps.load(path)["flag"].values == 0).sum()) if path.exists() else 0


def wait_for(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} in {seconds} s"
        time.sleep(0.05)


@pytest.fixture
def broken_reading(monkeypatch):
    """Every reading breaks off after two batches, until `undo` is called."""
    whole = Scan.batches

    def broken(self, size=None, *, only=None):
        for i, batch in enumerate(whole(self, size, only=only)):
            if i == 2:
                raise OSError("read error on the detector's disk")
            yield batch

    monkeypatch.setattr(Scan, "batches", broken)
    return monkeypatch


def test_a_reading_error_keeps_the_map_so_far_and_resume_finishes_it(cli, scan_file, tmp_path, broken_reading):
    scan, out = scan_file(shape=SHAPE), tmp_path / "m.h5"
    code, said, wrong = cli("map", scan, "-o", out)
    assert (code, said) == (1, "")
    assert wrong == (
        "error: reading failed: read error on the detector's disk; "
        f"{out} holds 2048 of 4200 frames; repeat the command with --resume to finish it\n"
    )
    partial = braggscope.load(out)
    assert partial.attrs["complete"] == 0
    assert np.isfinite(partial["level"].values.ravel()[:2048]).all()
    assert (partial["flag"].values.ravel()[2048:] == 1).all()
    code, said, _ = cli("info", out)
    assert "NOT FINISHED" in said
    broken_reading.undo()
    code, said, _ = cli("map", scan, "-o", out, "--resume")
    assert (code, "NOT FINISHED" in said) == (0, False)
    cli("map", scan, "-o", tmp_path / "whole.h5")
    same_map(out, tmp_path / "whole.h5")
    assert maps.load_state(out) is None


def test_masked_counts_of_both_parts_are_counted(cli, scan_file, tmp_path, broken_reading):
    def spoilt(counts):
        counts[0, 0, 0, 0] = counts[59, 69, 0, 0] = 65535
        return counts

    scan, out = scan_file(shape=SHAPE, change=spoilt), tmp_path / "m.h5"
    assert cli("map", scan, "-o", out)[0] == 1
    broken_reading.undo()
    assert "2 counts in 2 frames masked" in cli("map", scan, "-o", out, "--resume")[1]


def test_a_failing_method_leaves_the_last_good_checkpoint(cli, scan_file, tmp_path, monkeypatch):
    monkeypatch.setattr("braggscope.app.mapping.CHECKPOINT_S", 0)
    monkeypatch.setattr("braggscope.app.mapping.CHECKPOINT_SHARE", 0)
    code, _, wrong = cli("map", scan_file(shape=SHAPE), "-o", tmp_path / "m.h5", "--option", "fails_at=3000")
    assert code == 1
    assert "error: method 'mean' failed (ArithmeticError: broken on purpose)" in wrong
    assert "holds 2048 of 4200" in wrong
    assert frames_in(tmp_path / "m.h5") == 2048


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "curve"], "method was mean and is curve"),
        (["--option", "pause=0.001"], "option pause was 0.0 and is 0.001"),
        (["--roi", "0:5,0:3"], "roi was [0, 5, 0, 4] and is [0, 5, 0, 3]"),
        (["--saturation", "100"], "saturation was none and is 100.0"),
        (["--geometry", "g.toml"], "geometry gain was 1.0 and is 2.0"),
    ],
)
def test_another_run_is_not_resumed(cli, scan_file, tmp_path, broken_reading, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.toml").write_text("[tiny]\ngain = 2.0\n")
    scan, out = scan_file(shape=SHAPE), tmp_path / "m.h5"
    cli("map", scan, "-o", out)
    before = out.read_bytes()
    code, _, wrong = cli("map", scan, "-o", out, "--resume", *words)
    assert code == 2
    assert wrong.startswith(f"error: {out} cannot be resumed: ")
    assert sentence in wrong
    assert out.read_bytes() == before


def test_another_input_is_not_resumed(cli, scan_file, tmp_path, broken_reading):
    scan, out = scan_file(shape=SHAPE), tmp_path / "m.h5"
    cli("map", scan, "-o", out)
    with h5py.File(scan, "r+") as file:
        file["entry/data/data"][5, 5, 1, 1] += 1
    code, _, wrong = cli("map", scan, "-o", out, "--resume")
    assert code == 2
    assert "input_hash was" in wrong


def test_a_changed_file_of_the_geometry_is_noticed(cli, scan_file, tmp_path, broken_reading):
    scan, out, toml = scan_file(shape=SHAPE), tmp_path / "m.h5", tmp_path / "g.toml"
    toml.write_text("[tiny]\nimage_file = 'pupil.npz'\n")
    (tmp_path / "pupil.npz").write_text("round")
    cli("map", scan, "-o", out, "--geometry", toml)
    (tmp_path / "pupil.npz").write_text("square")
    code, _, wrong = cli("map", scan, "-o", out, "--geometry", toml, "--resume")
    assert code == 2
    assert "geometry_files was" in wrong


def test_resume_of_a_finished_map_does_nothing_and_of_no_map_begins(cli, scan_file, tmp_path):
    scan, out = scan_file(), tmp_path / "m.h5"
    assert cli("map", scan, "-o", out, "--resume")[0] == 0
    before = out.read_bytes()
    assert cli("map", scan, "-o", out, "--resume")[0] == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_map_is_readable_and_resumes(cli, program, scan_file, tmp_path, number):
    scan, out = scan_file(shape=SHAPE), tmp_path / "m.h5"
    words = ("map", scan, "-o", out, "--option", "pause=0.25")
    running = program(*words, first=OFTEN)
    wait_for(lambda: frames_in(out) > 0, "checkpoint")
    running.send_signal(number)
    said, wrong = running.communicate(timeout=20)
    assert (running.returncode, said) == (1, "")
    done = frames_in(out)
    assert 0 < done < 4200
    assert wrong == f"error: interrupted; {out} holds {done} of 4200 frames; repeat the command with --resume to finish it\n"
    assert cli(*words, "--resume", "--quiet") == (0, "", "")
    assert cli(*words[:3], tmp_path / "whole.h5", *words[4:], "--quiet")[0] == 0
    same_map(out, tmp_path / "whole.h5")


def test_a_disk_that_fills_half_way_leaves_the_last_checkpoint(cli, program, scan_file, tmp_path):
    scan, out = scan_file(shape=SHAPE), tmp_path / "m.h5"
    words = ("map", scan, "-o", out, "--option", "pause=0.25")
    running = program(*words, first=OFTEN)
    wait_for(lambda: frames_in(out) > 0, "checkpoint")
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))  # as a full disk: files cannot grow beyond
    said, wrong = running.communicate(timeout=20)
    assert (running.returncode, said) == (1, "")
    done = frames_in(out)
    assert 0 < done < 4200
    assert wrong.startswith(f"error: {out} cannot be written (")
    assert wrong.endswith(f"; {out} holds {done} of 4200 frames; repeat the command with --resume to finish it\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.h5", "scan.h5"]
    assert cli(*words, "--resume", "--quiet")[0] == 0
    assert frames_in(out) == 4200


def test_a_disk_that_is_full_from_the_start_is_said_at_once(program, scan_file, tmp_path):
    scan, out = scan_file(shape=SHAPE), tmp_path / "m.h5"

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    said, wrong = (running := program("map", scan, "-o", out, preexec_fn=full)).communicate(timeout=20)
    assert (running.returncode, said) == (1, "")
    assert wrong.startswith(f"error: {out} cannot be written (")
    assert wrong.endswith("; nothing was written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.h5"]
