"""Training of networks: one loop for every method, on a CPU or several GPUs, that can be stopped and gone on with.

    for report in train(Task(network, batches, loss, validation, optimiser, epochs=50), Training(folder)):
        print(report.epoch, report.validation["loss"])

What is learned from what is a Task: batches, a loss of the network and a batch, an optimiser. Lightning Fabric moves network and
batches to the devices and casts to bfloat16. Several processes (torchrun) take the batches of an epoch in turn and average their
gradients, so that a step of n processes sees n batches; losses are means over the frames of all.

At the start of an epoch torch's random state is set from the seed and the epoch's number, and given back at its end: dropout and
whatever else draws from it are the same in a training that was interrupted as in one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.learned import Report, Training

from .checkpoint import Checkpoint, check_identity, load_checkpoint, save_checkpoint
from .logs import Log, open_log
from .network import load_arrays
from .processes import Means, finite, frames_in, seeded, shared_out, started_fabric

Network = torch.nn.Module
Losses = dict[str, Tensor]
Row = dict[str, Any]  # what is known of an epoch; JSON values


@dataclass(frozen=True)
class Task:
    """What is learned from what.

    network: Trained in place; ends with its best weights, in evaluation mode on the CPU.
    batches: Training batches of an epoch (counted from 1), decided by the epoch and a seed alone: tensors, or (nested) tuples or
        dicts of tensors, which are moved to the device, and numpy arrays, which stay. Where they have a length and can be
        indexed, each of several processes makes only its own.
    loss: Losses by name, "loss" the one that is minimised; means over the frames of a batch. The network that it is given
        must be called as a whole, network(frames), not by its parts.
    validation: Batches, the same every time.
    optimiser: Makes the optimiser of the network.
    validate: Losses of a validation batch, "loss" among them; by default `loss`. Called in evaluation mode without gradient.
    schedule: Factor of every learning rate at the progress of the plan, 0 to 1, set before every step; where the batches have no
        length, before every epoch.
    clip: Largest norm of the gradient of all parameters.
    config: What else decides the result; JSON values. A checkpoint of another one, or of other data, is refused.
    data_hash: Of the training data.
    """

    network: Network
    batches: Callable[[int], Iterable[Any]]
    loss: Callable[[Network, Any], Losses]
    validation: Callable[[], Iterable[Any]]
    optimiser: Callable[[Network], torch.optim.Optimizer]
    epochs: int
    validate: Callable[[Network, Any], Losses] | None = None
    schedule: Callable[[float], float] | None = None
    clip: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    data_hash: str = ""


def train(task: Task, training: Training) -> Iterator[Report]:
    """Train a network, a report per epoch; with the last one its best weights are in place.

    A loss that is not finite ends the training with the best weights so far, and the last report says so. A training that is
    resumed reports its earlier epochs again, then learns those to come, if any. Closed early, the network has the best weights so
    far, and the folder its last checkpoint.

    Raises InputError where the task, the machine or the checkpoint will not do; BraggscopeError where a loss is not finite before
    there are weights to keep.
    """
    _check(task, training)
    run = _Run.begun(task, training)
    try:
        yield from run.reports()
    finally:
        run.restore()
        run.log.close()


def _check(task: Task, training: Training) -> None:
    if task.epochs < 1:
        raise InputError(f"epochs must be at least 1, got {task.epochs}")
    if training.seed < 0:
        raise InputError(f"seed must not be negative, got {training.seed}")
    if training.patience < 0:
        raise InputError(f"patience must not be negative, got {training.patience}")
    if training.precision not in ("32", "bf16"):
        raise InputError(f"precision must be 32 or bf16, got '{training.precision}'")
    if training.resume and training.folder is None:
        raise InputError("resume needs the folder of the training that is to go on")


def _identity(task: Task, training: Training) -> Row:
    """What two runs must share so that one can go on where the other ended."""
    planned = {"epochs": task.epochs} if task.schedule else {}
    return {
        "version": version("braggscope"),
        "seed": training.seed,
        "data": task.data_hash,
        "precision": training.precision,
        "processes": training.devices * training.nodes,
        "clip": task.clip,
        "config": json.loads(json.dumps(dict(task.config))),
        **planned,
    }


@dataclass
class _Run:
    """A training under way.

    network, optimiser: As Fabric wraps them; task.network is the same network, bare.
    rates: Learning rate of each group of parameters before the schedule.
    kept: What the next checkpoint holds.
    start: On the clock of this run, when it would have begun without an interruption.
    """

    task: Task
    training: Training
    fabric: Any
    network: Any
    optimiser: Any
    rates: list[float]
    kept: Checkpoint
    log: Log
    start: float
    floor: float = math.inf  # validation loss of the weights that it began with

    @classmethod
    def begun(cls, task: Task, training: Training) -> _Run:
        """Everything ready for the first epoch, or for the one after the checkpoint."""
        fabric, folder = started_fabric(training), training.folder
        kept = Checkpoint(_identity(task, training))
        if training.resume and folder is not None:
            found = load_checkpoint(folder)
            check_identity(found, kept.identity, folder)
            load_arrays(task.network, found.weights, f"the checkpoint in {folder}")
            kept = found
        elif training.start is not None:
            load_arrays(task.network, training.start, "the model to begin with")
        network = fabric.setup_module(task.network)
        optimiser = fabric.setup_optimizers(task.optimiser(task.network))
        rates = [group["lr"] for group in optimiser.param_groups]
        if kept.history:
            optimiser.load_state_dict(kept.optimiser)
        log = open_log(training.log, folder if fabric.is_global_zero else None, kept.history)
        start = time.perf_counter() - (kept.history[-1]["seconds"] if kept.history else 0.0)
        run = cls(task, training, fabric, network, optimiser, rates, kept, log, start)
        if training.start is not None and not kept.history:
            run.begin_with_weights()
        return run

    def begin_with_weights(self) -> None:
        """Take the weights that are there as the best so far."""
        self.floor = self.measure()["loss"]
        self.kept.best = {name: value.detach().clone() for name, value in self.task.network.state_dict().items()}

    def reports(self) -> Iterator[Report]:
        """Every epoch: those of the checkpoint, then those that are still to come."""
        earlier = list(self.kept.history)
        planned = max(self.task.epochs, len(earlier))
        for epoch in range(1, planned + 1):
            if epoch <= len(earlier):
                row, stopped = earlier[epoch - 1], self.impatient() if epoch == len(earlier) else ""
            else:
                row, stopped = self.epoch(epoch)
            if stopped or epoch == planned:
                self.restore()
            yield Report(epoch, planned, row["train"], row["validation"], row["best"], row["seconds"], stopped)
            if stopped:
                return

    def epoch(self, epoch: int) -> tuple[Row, str]:
        """Learn from an epoch's batches and validate: what came of it, and why no epoch follows, or nothing."""
        with seeded(self.training.seed, epoch, self.fabric):
            learned, wrong = self.learn(epoch)
            measured = {"loss": math.nan} if wrong else self.measure()
        if not wrong and not math.isfinite(measured["loss"]):
            wrong = f"the validation loss is not finite in epoch {epoch}"
        better = not wrong and measured["loss"] < self.best_loss()
        row = {"epoch": epoch, "train": learned, "validation": measured, "best": better}
        row |= {"learning_rate": self.optimiser.param_groups[0]["lr"], "seconds": time.perf_counter() - self.start}
        stopped = self.rescued(wrong) if wrong else self.keep(row)
        self.log.write(row)
        return row, stopped

    def learn(self, epoch: int) -> tuple[dict[str, float], str]:
        """The steps of an epoch: mean losses, and what was not finite, or nothing."""
        self.network.train()
        batches, means = self.task.batches(epoch), Means(self.fabric)
        steps = len(batches) // self.fabric.world_size if isinstance(batches, Sized) else 0
        for step, (batch, _) in enumerate(shared_out(batches, self.fabric, whole=True)):
            self.set_rate((epoch - 1 + (step / steps if steps else 0)) / self.task.epochs)
            wrong = self.step(self.fabric.to_device(batch), means)
            if wrong:
                return means.values(), f"the {wrong} is not finite in epoch {epoch}, step {step + 1}"
        if not means:
            many = self.fabric.world_size
            lack = "there is no training batch" if many == 1 else f"there are fewer training batches than processes ({many})"
            raise InputError(f"{lack}; give more frames")
        return means.values(), ""

    def set_rate(self, progress: float) -> None:
        """Set the learning rates of the schedule."""
        if self.task.schedule is not None:
            factor = self.task.schedule(progress)
            for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
                group["lr"] = rate * factor

    def step(self, batch: Any, means: Means) -> str:
        """One step of the optimiser; what is not finite, so that no step was taken, or nothing."""
        losses = self.task.loss(self.network, batch)
        means.add(losses, frames_in(batch))
        if not finite(losses["loss"], self.fabric):
            return "loss"
        self.optimiser.zero_grad()
        self.fabric.backward(losses["loss"])
        if self.task.clip is not None:
            norm = self.fabric.clip_gradients(self.network, self.optimiser, max_norm=self.task.clip, error_if_nonfinite=False)
            if not finite(norm, self.fabric):
                return "gradient of the loss"
        self.optimiser.step()
        return ""

    def measure(self) -> dict[str, float]:
        """Mean losses over the validation batches."""
        self.network.eval()
        means, validate = Means(self.fabric), self.task.validate or self.task.loss
        with torch.no_grad():
            for batch, counts in shared_out(self.task.validation(), self.fabric, whole=False):
                means.add(validate(self.network, self.fabric.to_device(batch)), frames_in(batch) if counts else 0)
        if not means:
            raise InputError("there is no validation batch; give more frames")
        return means.values()

    def best_epoch(self) -> int:
        """The epoch whose weights are the best so far; 0 where there is none."""
        return max((row["epoch"] for row in self.kept.history if row["best"]), default=0)

    def best_loss(self) -> float:
        """The lowest validation loss so far."""
        best = self.best_epoch()
        return self.kept.history[best - 1]["validation"]["loss"] if best else self.floor

    def keep(self, row: Row) -> str:
        """Remember an epoch, in the folder too; why no epoch follows, or nothing."""
        kept, network = self.kept, self.task.network
        kept.history.append(row)
        if row["best"]:
            kept.best = {name: value.detach().clone() for name, value in network.state_dict().items()}
        kept.weights, kept.optimiser = network.state_dict(), self.optimiser.state_dict()
        if self.training.folder is not None and self.fabric.is_global_zero:
            save_checkpoint(kept, self.training.folder)
        return self.impatient()

    def impatient(self) -> str:
        """Why no epoch follows because none has been better for long, or nothing."""
        best, patience, done = self.best_epoch(), self.training.patience, len(self.kept.history)
        if not patience or done - best < patience or done >= self.task.epochs:
            return ""
        return f"no better validation loss for {patience} epochs; the weights of epoch {best} are kept"

    def rescued(self, wrong: str) -> str:
        """Why the training ends where something was not finite; the last checkpoint stays as it is."""
        best = self.best_epoch()
        if not best and not self.kept.best:
            raise BraggscopeError(
                f"{wrong}, and there are no weights to keep yet; a smaller learning rate or cleaner frames would do"
            )
        return f"{wrong}; the weights of epoch {best} are kept"

    def restore(self) -> None:
        """Give the network the best weights so far, ready for use."""
        self.task.network.to("cpu").eval()
        if self.kept.best:
            load_arrays(self.task.network, self.kept.best, "the training")
