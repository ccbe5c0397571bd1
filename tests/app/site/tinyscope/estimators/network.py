"""Mean count of a frame, learned: a network of two numbers, trained with the real loop."""

import dataclasses
import hashlib
import math
import time
from typing import ClassVar

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.estimator import option
from braggscope.core.learned import Learned
from braggscope.core.maps import Quantity
from braggscope.core.model import Model

PER_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Network(Learned):
    """Learns slope and offset from the total of a frame to its mean."""

    name: ClassVar[str] = "network"
    summary: ClassVar[str] = "mean count per pixel by a network of two numbers"
    calibrated: ClassVar[bool] = False
    uncalibrated_because: ClassVar[str] = "it gives a mean alone"
    epochs: int = option(4, "epochs at most", stage="training")
    pause: float = option(0.0, "time that a training batch takes", unit="s", stage="training")
    breaks: int = option(-1, "epoch whose loss is not a number", stage="training")
    simulated: bool = option(False, "learn from frames of its own", stage="training")
    add: float = option(0.0, "added to the result", unit="count")

    def quantities(self):
        return (Quantity("level", "count", "mean count per pixel"),)

    def fit(self, batch):
        level = self._runner()(batch.frames.astype(np.float32))[0] + self.add
        return {"level": level, "flag": np.zeros(len(level), np.int32)}

    def train(self, sources, training):
        from braggscope.infer.train import train

        frames = self._frames(sources, training.seed)
        data_hash = hashlib.sha256(frames.tobytes()).hexdigest()
        task = self._task(frames, data_hash, training.seed)
        for report in train(task, training):
            last = report.epoch == report.epochs or report.stopped
            yield dataclasses.replace(report, estimator=self._with(task.network, frames) if last else None)

    @classmethod
    def convert(cls, weights, geometry, *, prefix=None):
        from braggscope.infer.network import load_arrays, state_arrays

        network = make_network((5, 4))
        prefix = "trained/" if prefix is None else prefix
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        load_arrays(network, own, f"the arrays '{prefix}'")
        return Model("tiny", cls.name, geometry.to_mapping(), (5, 4), {}, {}, {"by": "somebody"}, state_arrays(network))

    def exported(self):
        import torch

        from braggscope.infer.network import export

        graph = export(self._network(), (torch.zeros(1, *self.model.frame_shape),), self.model.document())
        return dataclasses.replace(self.model, weights={}, graph=graph)

    def _network(self):
        from braggscope.infer.network import load_arrays

        network = make_network(self.model.frame_shape)
        load_arrays(network, self.model.weights, "the model")
        return network

    def _runner(self):
        from braggscope.infer.network import onnx_runner, torch_runner

        return torch_runner(self._network()) if self.model.graph is None else onnx_runner(self.model.graph)

    def _with(self, network, frames):
        from braggscope.infer.network import state_arrays

        options = {name: value for name, value in self.options().items() if name in self.training_options()}
        facts = {"largest": float(frames.max())}
        shape = tuple(frames.shape[1:])
        model = Model("tiny", self.name, self.geometry.to_mapping(), shape, options, facts, {}, state_arrays(network))
        return dataclasses.replace(self, model=model)

    def _frames(self, sources, seed):
        if self.simulated:
            return np.random.default_rng(seed).poisson(6.0, (40, 5, 4)).astype(np.float32)
        if not sources:
            raise InputError("network learns from scans; give one")
        frames = np.concatenate([batch.frames for source in sources for batch in source.batches()]).astype(np.float32)
        if len(frames) < 2:
            raise InputError(f"a training set needs at least 2 frames, got {len(frames)}")
        return frames

    def _task(self, frames, data_hash, seed):
        import torch

        from braggscope.infer.train import Task

        tensors = torch.from_numpy(frames)
        held, rest = tensors[: len(tensors) // 4 + 1], tensors[len(tensors) // 4 :]

        def batches(epoch):
            order = np.random.default_rng((seed, epoch)).permutation(len(rest))
            for start in range(0, len(rest), PER_BATCH):
                time.sleep(self.pause)
                yield epoch, rest[order[start : start + PER_BATCH]]

        def loss(network, batch):
            epoch, some = batch
            difference = network(some) - some.mean((1, 2))
            return {"loss": (difference**2).mean() * (math.nan if epoch == self.breaks else 1)}

        return Task(
            make_network(frames.shape[1:]), batches, loss, lambda: [(0, held)],
            lambda network: torch.optim.Adam(network.parameters(), 0.02), self.epochs,
            config={"epochs": self.epochs, "breaks": self.breaks}, data_hash=data_hash,
        )  # fmt: skip


def make_network(frame_shape):
    import torch

    class Line(torch.nn.Module):
        """slope * mean + offset."""

        def __init__(self):
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(0.5))
            self.offset = torch.nn.Parameter(torch.tensor(0.0))

        def forward(self, frames):
            return self.slope * frames.sum((1, 2)) / math.prod(frame_shape) + self.offset

    return Line()
