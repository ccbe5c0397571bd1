"""What two processes train in test_processes.py: torchrun starts this file with a folder for its results."""

import itertools
import json
import os
import sys
from pathlib import Path

import torch

from braggscope.core.errors import InputError
from braggscope.core.learned import Training
from braggscope.infer.train import Task, train


def frames(seed, count):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, generator=draw)
    return x, x @ torch.linspace(-1, 1, 10).reshape(5, 2)


def built(deep):
    parts = (torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 2))
    return torch.nn.Sequential(*parts) if deep else torch.nn.Linear(5, 2)


def task(size=8, deep=False, spoilt=0, **changes):
    """A regression; in the epoch `spoilt`, the second batch has a frame that is not a number."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = built(deep)

    def batches(epoch):
        x, y = frames(epoch, 48)
        if epoch == spoilt:
            x[9] = torch.nan
        return list(zip(x.split(size), y.split(size), strict=True))

    def loss(network, batch):
        return {"loss": (network(batch[0]) - batch[1]).square().mean(), "first": batch[0][:, 0].mean()}

    values = {
        "network": network,
        "batches": batches,
        "loss": loss,
        "validation": lambda: [frames(100 + count, count) for count in (20, 7, 3)],
        "optimiser": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        "epochs": 3,
    }
    return Task(**{**values, **changes})


def with_rest(epoch):
    """The batches of an epoch and a seventh, which is not enough for both processes."""
    return [*task().batches(epoch), frames(9, 4)]


def trained(task, training):
    reports = list(train(task, training))
    kept = {name: value.tolist() for name, value in task.network.state_dict().items()}
    return {"reports": [[r.epoch, r.train, r.validation, r.best, r.stopped] for r in reports], "weights": kept}


def main(folder):
    said = {}
    try:
        list(train(task(), Training()))
    except InputError as error:
        said["one"] = str(error)
    said["indexed"] = trained(task(batches=with_rest), Training(folder / "indexed", devices=2))
    said["walked"] = trained(task(batches=lambda epoch: iter(with_rest(epoch))), Training(devices=2))
    said["whole"] = trained(task(deep=True), Training(folder / "whole", devices=2))
    begun = train(task(deep=True), Training(folder / "parts", devices=2))
    list(itertools.islice(begun, 2))
    begun.close()
    torch.distributed.barrier()  # the first process has written the checkpoint that both read
    said["parts"] = trained(task(deep=True), Training(folder / "parts", devices=2, resume=True))
    said["spoilt"] = trained(task(spoilt=2), Training(folder / "spoilt", devices=2))
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
