"""Models that are trained and swapped while the scan goes on."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

import braggscope
from braggscope.app.live.asked import Asked
from braggscope.app.live.models import current_model, current_version, history, publish
from braggscope.app.live.scan_mapping import ScanMapper
from braggscope.app.live.training import one_round
from braggscope.core.errors import InputError
from braggscope.core.source import open_scan
from braggscope.live.control import ask
from braggscope.live.frame_log import FrameWriter
from braggscope.live.playing import Frames, start_of
from braggscope.live.recorded import Follower
from braggscope.live.run_folder import RunFolder, write_json

SECONDS = {"width": 16, "epochs": 1, "frames": 512, "batch": 64}


class Run:
    """A run folder with a scan whose frames come when the test says so."""

    def __init__(self, root, scan, **asked):
        root.mkdir()
        self.run, self.scan = RunFolder(root), open_scan(scan)
        self.asked = Asked(f"replay:{scan}", str(root.with_suffix("")), modality="nanobeam", **asked)
        self.asked.write(self.run)
        self.folder = self.run.next_scan(start_of(self.scan))
        self.writer = FrameWriter(self.folder.path, self.scan.frames.shape[1:], self.scan.frames.dtype)
        self.frames, self.sent = Frames(self.scan), 0

    def send(self, count):
        which = range(self.sent, self.sent + count)
        self.writer.append([self.frames[n] for n in which], [int(self.scan.order[n]) for n in which], [False] * count)
        self.sent += count

    def end(self):
        self.writer.close()
        write_json(self.folder.path / "end.json", {"reason": "complete", "frames": self.sent, "time": 0.0})


@pytest.fixture
def trained(tmp_path, scan):
    """A run with the first 200 frames of a scan and two versions of a model trained on them."""
    run = Run(tmp_path / "m.h5.live", scan, method="amortised", options={"steps": "0"}, train=True, train_options=SECONDS)
    run.send(200)
    part = run.asked.parts(Follower(run.folder, run.asked.scan(run.folder)).scan)[0]
    assert one_round(run.run, run.asked, part, 1)
    first = current_model(run.run)[1]
    for number in range(2, 8):  # a round that is not better publishes nothing
        if one_round(run.run, run.asked, part, number):
            break
    assert current_version(run.run) == 2
    return run, first, current_model(run.run)[1]


def test_a_round_begins_where_the_last_one_ended_and_is_published_only_if_better(trained):
    run, first, second = trained
    lines = history(run.run)
    assert [line["version"] for line in lines] == [1, 2] and all(line["frames"] == 200 for line in lines)
    assert first.weights_hash() != second.weights_hash() and first.options == second.options


@pytest.mark.parametrize("always", [False, True], ids=["when asked", "whenever there is time"])
def test_frames_before_and_after_a_swap_are_mapped_by_their_models_and_old_ones_again(always, trained, tmp_path):
    run, first, second = trained
    write_json(run.run.models / "current.json", {"version": 1, "file": "version_0001.safetensors"})
    mapper = ScanMapper(run.run, run.folder, dataclasses.replace(run.asked, remap=always))
    assert mapper.begin()
    while mapper.step():
        pass
    write_json(run.run.models / "current.json", {"version": 2, "file": "version_0002.safetensors"})
    until = time.monotonic() + 30
    while mapper.version != 2:  # loaded and tried by a thread; mapping goes on meanwhile
        assert time.monotonic() < until
        mapper.step()
        time.sleep(0.01)
    run.send(400)
    while mapper.step():
        pass
    by = {n: braggscope.map(run.scan, model, workers=1, progress=False, steps=0) for n, model in ((1, first), (2, second))}
    if not always:
        records = run.folder.results.records()
        assert records["version"].tolist() == [1] * 200 + [2] * 400
        assert np.array_equal(records["strain"][:200], by[1]["strain"].values.ravel()[:200])
        assert np.array_equal(records["strain"][200:], by[2]["strain"].values.ravel()[200:])
        ask(run.run, {"remap": 2})
        time.sleep(0.1)
    while mapper.step():
        pass
    run.end()
    mapper.finish()
    live = braggscope.load(tmp_path / "m.h5")
    assert (live["model_version"].values == 2).all()
    assert np.array_equal(live["strain"].values, by[2]["strain"].values)


def test_a_model_that_does_not_suit_is_passed_over_and_said(trained):
    run, _, second = trained
    mapper = ScanMapper(run.run, run.folder, run.asked)
    assert mapper.begin() and mapper.version == 2
    publish(run.run, dataclasses.replace(second, geometry={**second.geometry, "energy_kev": 9.0}), {"frames": 0})
    until = time.monotonic() + 30
    while not run.run.reported("swap"):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert "energy_kev" in run.run.reported("swap")["error"] and mapper.swap.take() is None
    mapper.swap.close()
    mapper.log.close()
    run.writer.close()


def test_training_on_the_way_is_swapped_in_and_a_killed_trainer_comes_back(program, scan, output):
    words = [
        f"replay:{scan}?rate=60",
        "-o",
        output,
        "--method",
        "amortised",
        "--option",
        "steps=0",
        "--train",
        "--no-dashboard",
        "--json",
    ]
    options = [word for name, value in SECONDS.items() for word in ("--train-option", f"{name}={value}")]
    watching = program("watch", *words, *options, "--keep-frames", output=output)
    watching.until(lambda: watching.run.reported("trainer").get("state") == "training")
    watching.kill("trainer")
    said = watching.document()
    assert said["received"] == 600
    live = braggscope.load(output)
    assert np.isfinite(live["strain"].values).all() and live["model_version"].values.min() >= 1


def test_a_method_that_does_not_learn_cannot_be_trained(tmp_path, scan):
    run = Run(tmp_path / "m.h5.live", scan, method="likelihood", train=True)
    run.send(100)
    with pytest.raises(InputError, match="needs no training"):
        one_round(run.run, run.asked, Follower(run.folder, run.asked.scan(run.folder)).scan, 1)
    run.writer.close()
