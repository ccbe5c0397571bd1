"""`braggscope play`: what it sends, what it says that it left out, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from braggscope.core.source import open_scan
from braggscope.live.playing import Schedule


@pytest.fixture
def play(scan, capsys):
    """Call `braggscope play` with the scan: code, standard output, standard error."""
    from braggscope.app.cli.main import main

    def call(to, *words):
        code = main(["play", str(scan.path), to, *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_frames_that_were_left_out_are_listed(play, tmp_path):
    code, out, _ = play(f"dir:{tmp_path / 'frames'}", "--lose", "0.1", "--seed", "3", "--json")
    said, lost = json.loads(out), Schedule(lose=0.1, seed=3).lost(180)
    assert code == 0
    assert (said["frames"], said["sent"], said["lost"]) == (180, 180 - len(lost), lost.tolist())
    files = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert files == [f"frame_{n:06d}.npy" for n in np.setdiff1d(np.arange(180), lost)]


def test_a_file_that_was_played_is_the_scan(play, scan, tmp_path):
    assert play(f"h5:{tmp_path / 'copy.h5'}?swmr=1", "--quiet")[0] == 0
    copy, original = open_scan(tmp_path / "copy.h5").frames, scan.frames
    everything = slice(None), slice(None)
    assert np.array_equal(copy.read(slice(0, 180), *everything), original.read(slice(0, 180), *everything))


@pytest.mark.parametrize(
    ("to", "words", "message"),
    [
        ("replay:other.h5", (), "nothing can be sent to replay:"),
        ("h5:copy.h5", ("--lose", "0.1"), "a growing file has every frame in order"),
        ("zmq+json://127.0.0.1:0", (), "needs an address HOST:PORT"),
        ("dir:frames", ("--lose", "2"), "lose must be a share between 0 and 1, got 2"),
        ("dir:frames", ("--rate", "-1"), "rate must be a number of frames per second, 0 or more, got -1"),
    ],
)
def test_what_cannot_be_played_is_one_sentence(play, to, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = play(to, *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
