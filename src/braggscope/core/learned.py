"""Methods whose network is trained before it maps.

    for report in Donut(geometry).train([scan], Training(folder)):
        print(report.epoch, report.validation)
    map = report.estimator ...               # an estimator like any other, with a model that can be saved

A method declares options of training with `option(..., stage="training")`; they are part of the model and cannot be changed when
a model is used. Used without a model, a method trains in `prepare` on the source that it maps.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from .errors import InputError
from .estimator import PerFrame
from .geometry import Geometry, hash_of_file
from .source import Source

if TYPE_CHECKING:
    from .model import Model

CHECKPOINT_NAME = "checkpoint.safetensors"  # in the folder of a training, or in that of each of its networks
SAME = 1e-6  # relative difference of geometry values that is rounding


@dataclass(frozen=True)
class Training:
    """How a training runs; what is learned from what is the method's.

    folder: Where checkpoints and logs go; None keeps none.
    resume: Go on from the checkpoint in the folder.
    seed: Of the initial weights, the order of frames and simulated noise.
    device: "cpu" or "cuda"; devices, nodes: how many, started by torchrun where there is more than one process.
    precision: "32", or "bf16" where the device is faster with it.
    log: Format of the log in the folder.
    patience: Epochs without a better validation loss before the training stops; 0: it does not.
    start: Weights by name to begin with, instead of random ones; they are kept unless an epoch has a better validation loss.
    longer: Epochs in parts of those that the method's options ask for.
    """

    folder: Path | None = None
    resume: bool = False
    seed: int = 0
    device: str = "cpu"
    devices: int = 1
    nodes: int = 1
    precision: Literal["32", "bf16"] = "32"
    log: Literal["csv", "tensorboard"] = "csv"
    patience: int = 0
    start: Mapping[str, np.ndarray] | None = dataclasses.field(default=None, repr=False)
    longer: float = 1.0

    def epochs(self, asked: int) -> int:
        """How many epochs to train where the options ask for so many."""
        return max(1, round(asked * self.longer))


@dataclass(frozen=True)
class Report:
    """One epoch of a training.

    epoch, epochs: Which, counted from 1, of how many at most.
    network: Which of several networks that are trained one after the other, counted from 1.
    train, validation: Losses by name, means over the epoch; "loss" is the one that counts.
    best: Whether its weights are the best so far.
    seconds: Since the start of the training of this network, without interruptions.
    stopped: Why no epoch follows, where it is not the last one planned; empty otherwise.
    estimator: The method with the best weights; in the last report only.
    """

    epoch: int
    epochs: int
    train: Mapping[str, float]
    validation: Mapping[str, float]
    best: bool
    seconds: float
    stopped: str = ""
    estimator: Any = None
    network: int = 1

    @property
    def last(self) -> bool:
        """Whether no epoch follows."""
        return self.epoch >= self.epochs or bool(self.stopped)

    @property
    def failed(self) -> bool:
        """Whether the training stopped because a loss was no finite number."""
        return bool(self.stopped) and not math.isfinite(self.validation.get("loss", math.nan))


def ending(reports: Iterator[Report], make: Callable[[Report], Any]) -> Iterator[Report]:
    """The reports of a training, each as soon as it is there, the last one with the method.

    make: The trained method, by the last report.
    """
    for report in reports:
        yield dataclasses.replace(report, estimator=make(report)) if report.last else report


def checkpoints(folder: Path) -> list[Path]:
    """Every checkpoint in the folder of a training; one of several networks has one for each."""
    return sorted(folder.rglob(CHECKPOINT_NAME))


def forget(folder: Path) -> None:
    """Delete the checkpoints of an earlier training, so that none of them is taken for one of the next."""
    for path in checkpoints(folder):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Learned(PerFrame):
    """The base of a method that maps frames with a trained network.

    ignores: Geometry fields that may differ between the model and a scan.
    """

    model: Model | None = dataclasses.field(default=None, repr=False, kw_only=True)

    ignores: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def train(self, sources: Sequence[Source], training: Training) -> Iterator[Report]:
        """Train on these sources, one report per epoch; the last one has the trained method.

        A training that is resumed reports the epochs it has behind it as well, as if it had not been interrupted.

        Raises InputError, before the first report, where the sources cannot be learned from.
        """

    def prepare(self, source: Source) -> Self:
        """Train for the source where there is no model yet."""
        self.check_source(source)
        if self.model is not None:
            return self
        *_, last = self.train_for(source, Training())
        return last.estimator

    def train_for(self, source: Source, training: Training) -> Iterator[Report]:
        """Train in order to map this source: on its frames, unless the method learns better from others."""
        return self.train([source], training)

    def check_source(self, source: Source) -> None:
        """Raise InputError where the model knows frames of another shape."""
        if self.model is not None and tuple(source.frame_shape) != tuple(self.model.frame_shape):
            ours, theirs = (" x ".join(map(str, shape)) for shape in (self.model.frame_shape, source.frame_shape))
            raise InputError(f"the model knows frames of {ours} pixels, those of the scan have {theirs}; cut or bin the scan")

    @classmethod
    def from_model(cls, model: Model, geometry: Geometry | None, values: Mapping[str, Any]) -> Self:
        """The method with a model and options given as words or values.

        geometry: Of the scan. Raises InputError, with the values, where the model was trained for another one, and for an
        option that training has decided.
        """
        hashes = model.provenance.get("geometry_files") or {}
        differing = _differences(model.geometry, geometry, cls.ignores, hashes)
        if differing:
            raise InputError(
                f"the model was trained for another geometry: {'; '.join(differing)}; train one for this geometry, or give the "
                "model's geometry with --geometry if that is what is meant"
            )
        for name in values:
            if name in cls.training_options():
                raise InputError(f"option {name} was decided when the model was trained (it is {model.options.get(name)})")
        decided = {name: value for name, value in model.options.items() if name in cls.training_options()}
        return dataclasses.replace(cls.with_options(geometry, {**decided, **values}), model=model)

    @classmethod
    def convert(cls, weights: Mapping[str, np.ndarray], geometry: Geometry, *, prefix: str | None = None) -> Model:
        """The model of weights that were published as plain arrays.

        prefix: Of the names of the arrays, where the file holds several networks; None takes the method's own choice.
        Raises InputError where arrays are missing, unexpected or of another shape, and where the method knows no such weights.
        """
        raise InputError(
            f"method '{cls.name}' has no published weights to convert; `braggscope train --method {cls.name}` trains it"
        )

    def exported(self) -> Model:
        """The model with its network as an ONNX graph instead of weights. Raises InputError where the method cannot."""
        raise InputError(f"method '{self.name}' cannot be exported as an ONNX graph")

    @classmethod
    def training_options(cls) -> list[str]:
        """Names of the options that belong to training."""
        return [f.name for f in dataclasses.fields(cls) if f.metadata.get("stage") == "training"]

    def facts(self) -> dict[str, Any]:
        """The model's file, its hash and that of its weights, and how it was trained, for the provenance."""
        if self.model is None:
            return {}
        trained = {f"model_{name}": value for name, value in self.model.provenance.items()}
        own = {"model_hash": self.model.digest(), "model_weights": self.model.weights_hash()}
        return {**(self.model.file or own), **trained}


def _differences(
    trained: Mapping[str, Any], geometry: Geometry | None, ignores: tuple[str, ...], hashes: Mapping[str, str]
) -> list[str]:
    """The values in which a geometry differs from that of a model, a phrase each.

    hashes: Of the files that the model's geometry names, by field: a file is the same wherever it lies.
    """
    if geometry is None:
        return []
    found, now = [], geometry.to_mapping()
    for name in {**trained, **now}:
        old, new = trained.get(name), now.get(name)
        if name in ignores or _same(old, new) or (name in hashes and hashes[name] == hash_of_file(new)):
            continue
        found.append(f"{name} is {_shown(old)} in the model and {_shown(new)} here")
    return found


def _same(old: Any, new: Any) -> bool:
    """Whether two values are equal; numbers but for rounding."""
    if isinstance(old, int | float) and isinstance(new, int | float):
        return abs(old - new) <= SAME * max(abs(old), abs(new))
    return old == new


def _shown(value: Any) -> str:
    return "not set" if value is None else f"{value:.8g}" if isinstance(value, float) else str(value)
