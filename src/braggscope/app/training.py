"""Training: sources through a method into a model file, with checkpoints and a log on the way.

The output is written when the training ends. Until then the folder beside it (MODEL.training) holds the log and the checkpoint
of the last whole epoch, from which the same call with `resume` goes on to the very model that an uninterrupted run gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braggscope.core.errors import InputError
from braggscope.core.geometry import Geometry
from braggscope.core.learned import Report, Training, checkpoints
from braggscope.core.modality import Modality
from braggscope.core.model import Model
from braggscope.core.source import Source

from .choosing import (
    GeometryLike,
    choose_geometry,
    choose_modality,
    choose_training,
    given_geometry,
    located,
    sole_modality,
)
from .interruption import Interruption
from .learning import check_no_training, failure, follow, leads, training_folder, with_history
from .models import check_suffix, model_line, written
from .output import again, check_output
from .provenance import training_provenance
from .texts import row

PARTS = ("loss", "validation_loss")  # of a model's provenance


@dataclass(frozen=True)
class Trained:
    """A finished training.

    model: With the weights of the epoch whose validation loss was least.
    history: A report for each epoch.
    log: The folder with its log; None where none was kept.
    """

    model: Model
    history: tuple[Report, ...]
    log: Path | None = None

    @property
    def failed(self) -> str:
        """Why the training stopped half-way with a loss that is no number; empty where it did not."""
        return failure(self.history)


def train_model(
    sources: Sequence[Source],
    method: str,
    *,
    modality: str | None = None,
    geometry: GeometryLike = None,
    options: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "cpu",
    devices: int = 1,
    nodes: int = 1,
    precision: str = "32",
    seed: int = 0,
    log: str = "csv",
    patience: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Trained:
    """A method trained on sources (see `braggscope.train`).

    Raises InputError for what can be known beforehand, and then nothing is written; BraggscopeError where the training breaks
    off, and then the folder beside the output holds the last checkpoint.
    """
    folder = None
    if output is not None and leads():
        inputs = [getattr(one, "path", None) for one in sources] + [geometry if isinstance(geometry, str | Path) else None]
        folder = check_training_output(output, overwrite=overwrite, resume=resume, inputs=tuple(inputs))
    elif output is not None:
        folder = training_folder(output)
    elif resume:
        raise InputError("there is nothing to resume without an output, beside which the checkpoint lies")
    training = _training(folder, resume, seed, device, devices, nodes, precision, log, patience)
    kind = _modality(sources, method, modality, geometry)
    chosen = _geometry(sources, kind, geometry)
    estimator = choose_training(kind, chosen, method, options or {}, device)
    sources = [located(source, chosen) for source in sources]
    _check_frames(sources)
    about = training_provenance(estimator, sources, training)
    _set_workers(workers)
    with Interruption():
        history = follow(estimator, estimator.train(sources, training), training, progress and leads(), overwrite=overwrite)
    model = with_history(history[-1].estimator.model, about, history)
    if output is not None and leads():
        model = written(model, output, f"{again(overwrite)} to write it from the checkpoint")
    return Trained(model, tuple(history), folder)


def training_document(trained: Trained) -> dict[str, Any]:
    """What a training found, as JSON values."""
    model, said = trained.model, trained.model.provenance
    return {
        "modality": model.modality,
        "method": model.method,
        "frame_shape": list(model.frame_shape),
        "epochs": said["epochs"],
        "epochs_planned": said["epochs_planned"],
        "best_epoch": said["best_epoch"],
        "loss": _numbers(said["loss"]),
        "validation_loss": _numbers(said["validation_loss"]),
        "seconds": said["seconds"],
        "stopped": said.get("stopped", ""),
        "history": [
            {"epoch": r.epoch, "train": _numbers(r.train), "validation": _numbers(r.validation), "best": r.best}
            for r in trained.history
        ],
    }


def training_table(trained: Trained) -> str:
    """What a training found, as text for a terminal."""
    model, said, data = trained.model, trained.model.provenance, trained.model.provenance["data"]
    on = data if isinstance(data, str) else f"{said['frames']} frames of {', '.join(str(one.get('input_file')) for one in data)}"
    names = list(dict.fromkeys([*said["loss"], *said["validation_loss"]]))
    best = [said["best_epoch"]] if isinstance(said["best_epoch"], int) else said["best_epoch"]
    done = f"{said['epochs']} of {said['epochs_planned']} in {said['seconds']:.1f} s"
    lines = [
        model_line(model),
        row("trained on", f"{on}, seed {said['seed']}"),
        row("epochs", f"{done}; best epoch{'s'[: len(best) - 1]} {', '.join(map(str, best))}"),
        *([row("stopped", said["stopped"])] if "stopped" in said else []),
        "",
        f"  {'best epoch':24}{'training':>13}{'validation':>13}",
    ]
    return "\n".join(lines + [f"  {name:24}" + "".join(_text(said[part].get(name)) for part in PARTS) for name in names])


def check_training_output(output: str | Path, *, overwrite: bool, resume: bool, inputs: tuple[str | Path | None, ...]) -> Path:
    """The folder for checkpoints and logs, if a model file may be written there. Raises InputError where it may not."""
    check_suffix(output, ".safetensors")
    if overwrite and resume:
        raise InputError("--overwrite and --resume contradict each other; give one of them")
    left = bool(checkpoints(training_folder(output)))
    check_output(output, overwrite=overwrite or (resume and left), inputs=inputs, resumable=left)
    return check_training_folder(output, overwrite=overwrite, resume=resume)


def check_training_folder(output: str | Path, *, overwrite: bool, resume: bool) -> Path:
    """The folder for checkpoints and logs. Raises InputError where it is in the way, or holds nothing to resume from."""
    folder = training_folder(output)
    if resume and not checkpoints(folder):
        raise InputError(f"there is no checkpoint in {folder} to resume from; leave --resume out to begin anew")
    check_no_training(output, overwrite=overwrite, resume=resume)
    return folder


def _training(
    folder: Path | None, resume: bool, seed: int, device: str, devices: int, nodes: int, precision: str, log: str, patience: int
) -> Training:
    """How the training runs. Raises InputError where a word or a number is wrong."""
    for name, word, choices in (("precision", precision, ("32", "bf16")), ("log", log, ("csv", "tensorboard"))):
        if word not in choices:
            raise InputError(f"{name} must be {' or '.join(choices)}, got '{word}'")
    for name, number, least in (("seed", seed, 0), ("devices", devices, 1), ("nodes", nodes, 1), ("patience", patience, 0)):
        if number < least:
            raise InputError(f"{name} must be a whole number from {least} on, got {number}")
    kept: dict[str, Any] = {"precision": precision, "log": log, "patience": patience}
    return Training(folder, resume, seed, device, devices, nodes, **kept)


def _modality(sources: Sequence[Source], method: str, name: str | None, geometry: GeometryLike) -> Modality:
    """The one modality of all sources. Raises InputError where they differ."""
    if not sources:
        return sole_modality(method, name, geometry)
    kinds = {choose_modality(source, name, geometry).name: source for source in sources}
    if len(kinds) > 1:
        raise InputError(f"the scans are of different modalities: {' and '.join(kinds)}")
    return choose_modality(sources[0], name, geometry)


def _geometry(sources: Sequence[Source], kind: Modality, geometry: GeometryLike) -> Geometry:
    """The one geometry of all sources. Raises InputError where they state different ones, or nobody states one."""
    if geometry is not None:
        return given_geometry(kind, geometry)
    if not sources:
        raise InputError(
            f"there is nothing to learn from; give scans or, where the method simulates its frames, the {kind.name} geometry as "
            "a TOML file with --geometry"
        )
    first, *others = [choose_geometry(source, kind) for source in sources]
    for other, source in zip(others, sources[1:], strict=True):
        old, new = first.to_mapping(), other.to_mapping()
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if names:
            values = "; ".join(f"{name} is {old.get(name)} and {new.get(name)}" for name in names)
            raise InputError(
                f"{_called(sources[0])} and {_called(source)} state different geometries: {values}; give the one that is "
                "right for both with --geometry"
            )
    return first


def _check_frames(sources: Sequence[Source]) -> None:
    """Raise InputError where the sources have frames of different shapes."""
    shapes = {tuple(source.frame_shape): source for source in sources}
    if len(shapes) > 1:
        said = " and ".join(f"{rows} x {columns} pixels in {_called(one)}" for (rows, columns), one in shapes.items())
        raise InputError(f"the scans have frames of different shapes: {said}; cut or bin them to one")


def _numbers(losses: Mapping[str, float]) -> dict[str, float | None]:
    """Losses as JSON can hold them: None for what is not finite."""
    return {name: float(value) if math.isfinite(value) else None for name, value in losses.items()}


def _text(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.5g'):>13}"


def _set_workers(count: int | None) -> None:
    from braggscope.infer.runtime import set_workers

    set_workers(count)


def _called(source: Source) -> str:
    return str(getattr(source, "path", None) or source.provenance.get("input_file", "a source"))
