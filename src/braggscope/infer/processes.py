"""One or several processes that train together: who takes which batch, means over all of them, and their random states."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from braggscope.core.errors import InputError
from braggscope.core.learned import Training

from . import runtime


def check_processes(training: Training) -> None:
    """Raise InputError where other processes run than were asked for."""
    if training.devices < 1 or training.nodes < 1:
        raise InputError(f"devices and nodes must be at least 1, got {training.devices} and {training.nodes}")
    asked, there = training.devices * training.nodes, int(os.environ.get("WORLD_SIZE", 1))
    if asked != there:
        raise InputError(
            f"devices {training.devices} and nodes {training.nodes} make {asked} processes, and this is one of {there}; start "
            f"them with torchrun --nnodes {training.nodes} --nproc-per-node {training.devices} -m braggscope train ..."
        )


def started_fabric(training: Training) -> Any:
    """Lightning Fabric on the devices that were asked for. Raises InputError where they, or Fabric, are not there."""
    check_processes(training)
    device = runtime.device(training.device)
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    except ImportError:
        raise InputError("training needs Lightning Fabric: pip install 'braggscope[train]'") from None
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if device.type == "cuda" and training.devices > torch.cuda.device_count():
        raise InputError(f"devices must be at most {torch.cuda.device_count()}, the GPUs of this machine, got {training.devices}")
    several = training.devices * training.nodes > 1
    started_by = TorchElasticEnvironment() if several else LightningEnvironment()  # not the SLURM job that may be around it
    fabric = Fabric(
        accelerator=device.type,
        devices=training.devices,
        num_nodes=training.nodes,
        strategy="ddp" if several else "auto",
        plugins=[started_by],
        precision="bf16-mixed" if training.precision == "bf16" else "32-true",
    )
    fabric.launch()
    if several:
        atexit.register(_leave)
    return fabric


def _leave() -> None:
    """End the connection to the other processes; otherwise its threads may abort this one as it exits."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def seeded(seed: int, epoch: int, fabric: Any) -> Iterator[None]:
    """Torch's random state decided by seed, epoch and process for a while, and convolutions on a GPU repeatable."""
    state = np.random.SeedSequence([seed, epoch, fabric.global_rank]).generate_state(1, np.uint64)
    gpus = [fabric.device.index] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), _repeatable(bool(gpus)):
        torch.manual_seed(int(state[0]))
        yield


def _repeatable(on_gpu: bool) -> Any:
    flags = torch.backends.cudnn.flags
    return flags(enabled=True, benchmark=False, deterministic=True) if on_gpu else contextlib.nullcontext()


def shared_out(batches: Iterable[Any], fabric: Any, *, whole: bool) -> Iterator[tuple[Any, bool]]:
    """The batches of this process, every n-th, and whether each counts; all processes get equally many.

    whole: Leave out a last round that is not enough for all; else those without a batch get another's, which does not count.
    """
    count, own = fabric.world_size, fabric.global_rank
    for group in _groups(batches, count):
        if len(group) == count or not whole:
            yield group[own if own < len(group) else 0], own < len(group)


def _groups(batches: Iterable[Any], count: int) -> Iterator[Sequence[Any]]:
    """The batches in groups; where they can be indexed, only those that are asked for are made."""
    if count > 1 and isinstance(batches, Sized) and hasattr(batches, "__getitem__"):
        yield from (_Part(batches, start, min(start + count, len(batches))) for start in range(0, len(batches), count))
        return
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, count)):
        yield group


@dataclass(frozen=True)
class _Part(Sequence[Any]):
    """Some batches of many, not made yet."""

    batches: Any
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, number: Any) -> Any:
        return self.batches[self.start + number]


class Means:
    """Means of losses over the frames of the batches that all processes saw."""

    def __init__(self, fabric: Any) -> None:
        self._fabric = fabric
        self._names: list[str] = []
        self._seen: list[tuple[list[Tensor], int]] = []  # what a device still computes is not waited for

    def add(self, losses: Mapping[str, Tensor], frames: int) -> None:
        """Losses that are means over so many frames; 0 frames count for nothing."""
        self._names = list(losses)
        self._seen.append(([value.detach() for value in losses.values()], frames))

    def __bool__(self) -> bool:
        return bool(self._seen)

    def values(self) -> dict[str, float]:
        """The means by name; every process must ask."""
        values = torch.tensor([[float(value) for value in row] for row, frames in self._seen if frames], dtype=torch.float64)
        frames = torch.tensor([frames for _, frames in self._seen if frames], dtype=torch.float64)
        sums = torch.zeros(len(self._names) + 1, dtype=torch.float64)
        if len(frames):
            sums = torch.cat([frames @ values, frames.sum()[None]])
        *sums, total = self._fabric.all_reduce(sums.to(self._fabric.device), reduce_op="sum").tolist()
        return {name: value / total for name, value in zip(self._names, sums, strict=True)}


def finite(value: Tensor, fabric: Any) -> bool:
    """Whether a number is finite in every process."""
    here = math.isfinite(value.detach())
    if fabric.world_size == 1:
        return here
    wrong = torch.tensor([float(not here)], device=fabric.device)
    return not bool(fabric.all_reduce(wrong, reduce_op="sum"))


def frames_in(batch: Any) -> int:
    """Frames of a batch: the length of its first array that has one; 1 where there is none."""
    return next((len(array) for array in _arrays(batch) if array.ndim), 1)


def _arrays(batch: Any) -> Iterator[Any]:
    """The arrays of a nested batch, in order."""
    if isinstance(batch, Tensor | np.ndarray):
        yield batch
    elif isinstance(batch, Mapping | list | tuple):
        for one in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _arrays(one)
