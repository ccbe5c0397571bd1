"""Two real processes that train together, on the CPU over the loopback interface."""

import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import braggscope
from braggscope.core.errors import InputError
from braggscope.core.learned import Training
from braggscope.infer.processes import check_processes, frames_in

SCRIPT = Path(__file__).with_name("two_processes.py")
script = runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder where two processes trained, and what each of them found."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), str(folder)]
    source = str(Path(braggscope.__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": source}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def assert_close(found, expected):
    """Reports and weights of two trainings whose sums are taken in another order."""
    for mine, theirs in zip(found["reports"], expected["reports"], strict=True):
        assert mine[0] == theirs[0]
        assert mine[1] == pytest.approx(theirs[1], rel=1e-5)
        assert mine[2] == pytest.approx(theirs[2], rel=1e-5)
        assert mine[3:] == theirs[3:]
    for name, value in expected["weights"].items():
        np.testing.assert_allclose(found["weights"][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["indexed", "walked"])
def test_two_processes_learn_what_one_learns_from_batches_twice_the_size(two, kind):
    _, (first, second) = two
    alone = script["trained"](script["task"](size=16), Training())
    assert_close(first[kind], alone)
    assert_close(second[kind], alone)


def test_both_processes_report_the_same(two):
    _, (first, second) = two
    for name in ("indexed", "walked", "whole", "parts"):
        assert first[name]["reports"] == second[name]["reports"]


def test_only_the_first_process_writes(two):
    folder, _ = two
    assert sorted(path.name for path in (folder / "whole").iterdir()) == ["checkpoint.safetensors", "log.csv"]
    assert len((folder / "whole" / "log.csv").read_text().splitlines()) == 1 + 3


def test_a_training_of_two_processes_is_resumed_bit_for_bit(two):
    _, both = two
    for said in both:
        assert said["parts"]["weights"] == said["whole"]["weights"]
        assert said["parts"]["reports"] == said["whole"]["reports"]


def test_a_loss_that_is_not_finite_in_one_process_stops_both(two):
    _, both = two
    for said in both:
        *_, last = said["spoilt"]["reports"]
        assert last[4] == "the loss is not finite in epoch 2, step 1; the weights of epoch 1 are kept"
        assert math.isnan(last[1]["loss"])
    assert both[0]["spoilt"]["weights"] == both[1]["spoilt"]["weights"]


def test_more_processes_than_asked_for_are_refused(two):
    _, both = two
    assert "devices 1 and nodes 1 make 1 processes, and this is one of 2" in both[0]["one"]


def test_processes_of_several_nodes_are_counted(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "6")
    check_processes(Training(devices=2, nodes=3))
    with pytest.raises(InputError, match=r"devices 2 and nodes 2 make 4 processes, and this is one of 6; .* --nnodes 2"):
        check_processes(Training(devices=2, nodes=2))


@pytest.mark.parametrize(
    "batch, count",
    [
        (torch.zeros(7, 2), 7),
        ((np.zeros((3, 4)), torch.zeros(5)), 3),
        ({"seed": torch.tensor(1.0), "inner": [{"name": "x"}, torch.zeros(4, 1)]}, 4),
        ({"name": "x"}, 1),
    ],
)
def test_a_batch_has_as_many_frames_as_its_first_array(batch, count):
    assert frames_in(batch) == count
