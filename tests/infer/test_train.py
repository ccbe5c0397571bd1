"""Training machinery on a small regression: five numbers per frame, two of them to be found."""

import csv
import itertools
import json
import math

import numpy as np
import pytest
import torch
from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.learned import Training
from braggscope.infer.train import Task, train

EPOCHS = 4


def frames(seed, count=48):
    """Frames with two linear combinations of their numbers, and noise."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, generator=draw)
    mix = torch.linspace(-1, 1, 10).reshape(5, 2)
    return x, x @ mix + 0.05 * torch.randn(count, 2, generator=draw)


def batches(epoch):
    x, y = frames(1)
    order = torch.from_numpy(np.random.default_rng([7, epoch]).permutation(len(x)))
    return [(x[i], y[i]) for i in order.split(16)]


def built(seed=3):
    """A network with all that is hard to resume: dropout, batch normalisation with its running means and integer counts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 2)
        )


def squares(network, batch):
    x, y = batch
    return {"loss": ((network(x) - y) ** 2).mean(), "bias": (network(x) - y).mean()}


def task(**changes):
    values = {
        "network": built(),
        "batches": batches,
        "loss": squares,
        "validation": lambda: [frames(2, 20), frames(3, 7)],
        "optimiser": lambda network: torch.optim.AdamW(network.parameters(), lr=2e-2),
        "epochs": EPOCHS,
        "config": {"width": 8, "rates": [0.02, 0.1]},
        "data_hash": "abc",
    }
    return Task(**{**values, **changes})


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(a, b):
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name


def test_training_lowers_the_validation_loss_and_reports_every_epoch():
    reports = list(train(task(epochs=30), Training()))
    assert [r.epoch for r in reports] == list(range(1, 31))
    assert {r.epochs for r in reports} == {30}
    assert reports[-1].validation["loss"] < 0.2 * reports[0].validation["loss"]
    assert set(reports[0].train) == {"loss", "bias"}
    assert not any(r.stopped for r in reports)


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    whole = task(schedule=lambda progress: 1 - 0.9 * progress)
    expected = list(train(whole, Training(tmp_path / "whole", seed=5)))
    for stop_after in (1, 3):
        folder = tmp_path / str(stop_after)
        begun = train(task(schedule=whole.schedule), Training(folder, seed=5))
        first = list(itertools.islice(begun, stop_after))
        begun.close()
        later = task(network=built(seed=99), schedule=whole.schedule)
        second = list(train(later, Training(folder, seed=5, resume=True)))
        assert [r.validation for r in first + second] == [r.validation for r in expected]
        assert [r.train for r in first + second] == [r.train for r in expected]
        assert_same(weights(later.network), weights(whole.network))
        ends = [torch_bytes(tmp_path / name / "checkpoint.safetensors") for name in ("whole", str(stop_after))]
        assert ends[0] == ends[1]


def torch_bytes(path):
    """The arrays of a checkpoint, without what it says of times."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]
