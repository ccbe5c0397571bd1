"""Trainings under way: the folder beside the output, progress, interruption, and what the model says of its training."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from braggscope.core import maps
from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.estimator import Estimator
from braggscope.core.learned import Learned, Report, Training, checkpoints, forget
from braggscope.core.model import Model, load_model
from braggscope.core.source import Source

from .models import written
from .output import again
from .progress import Show
from .provenance import training_provenance

KEPT = "model.safetensors"  # in the folder beside a map whose method was trained for it


def trains(estimator: Estimator) -> bool:
    """Whether a method must be trained before it maps."""
    return isinstance(estimator, Learned) and estimator.model is None


def trained_on(
    source: Source, estimator: Learned, output: Path | None, *, resume: bool, overwrite: bool, device: str, progress: bool
) -> Learned:
    """The method trained on the source that it is to map.

    output: The map; the model is kept in the folder beside it, so that a map which is resumed need not train again.
    Raises BraggscopeError where the training breaks off, InputError where the model that is there is of another training.
    """
    folder = None if output is None else training_folder(output)
    training = Training(folder, resume and folder is not None and bool(checkpoints(folder)), device=device)
    asked = {name: value for name, value in estimator.options().items() if name in estimator.training_options()}
    about = {**training_provenance(estimator, [source], training), "asked": asked}
    if folder is not None and resume and (folder / KEPT).is_file():
        return _taken_up(folder / KEPT, estimator, about)
    if folder is not None:
        (folder / KEPT).unlink(missing_ok=True)
    estimator.check_source(source)
    history = follow(estimator, estimator.train_for(source, training), training, progress, overwrite=overwrite)
    if failure(history):
        raise BraggscopeError(f"{failure(history)}; nothing was mapped")
    model = with_history(history[-1].estimator.model, about, history)
    if folder is not None:
        model = written(model, folder / KEPT)
    return dataclasses.replace(history[-1].estimator, model=model)


def superseded(output: Path, estimator: Estimator) -> bool:
    """Whether a map was there before the training beside it, which --overwrite began and which is not mapped with yet."""
    folder = training_folder(output)
    if not trains(estimator) or not checkpoints(folder):
        return False
    if not (folder / KEPT).is_file():
        return True
    return load_model(folder / KEPT).weights_hash() != maps.load(output).attrs.get("trained_weights")


def _taken_up(path: Path, estimator: Learned, about: Mapping[str, Any]) -> Learned:
    """The method with the model that an interrupted map left."""
    model = load_model(path)
    if any(model.provenance.get(name) != about[name] for name in ("asked", "data")):
        raise InputError(f"{path} was trained on other data or with other options; --overwrite begins anew")
    rest = {name: value for name, value in estimator.options().items() if name not in about["asked"]}
    return type(estimator).from_model(model, estimator.geometry, rest)


def follow(
    estimator: Learned, reports: Iterator[Report], training: Training, progress: bool, *, overwrite: bool = False
) -> list[Report]:
    """Let a training run, showing each epoch; the reports, the last of which holds the method.

    A training that begins anew deletes the checkpoints of an earlier one.
    overwrite: Whether that was asked for.
    Raises BraggscopeError, saying what is left, where the training is interrupted or fails.
    """
    history: list[Report] = []
    closing = contextlib.closing(reports)  # type: ignore[type-var]  # an iterator that a generator function gave
    with _told(estimator, training, history, overwrite), Show(f"train {estimator.name}", "epoch", progress) as show, closing:
        if training.folder is not None and not training.resume and leads():
            forget(training.folder)
        for report in reports:
            history.append(report)
            show(report.epoch, report.epochs, _losses(report))
    if not history or history[-1].estimator is None:
        raise BraggscopeError(f"method '{estimator.name}' ended its training without a model")
    return history


def failure(history: Sequence[Report]) -> str:
    """Why a training, or that of a member of an ensemble, stopped with a loss that is no number; empty where none did."""
    return next((report.stopped for report in history if report.failed), "")


def with_history(model: Model, about: Mapping[str, Any], history: Sequence[Report]) -> Model:
    """The model, saying where it comes from and how its training went; losses of several networks are their means."""
    networks = [[report for report in history if report.network == number] for number in {r.network: 0 for r in history}]
    best = [next((report for report in reversed(network) if report.best), network[-1]) for network in networks]
    found = {
        "epochs": len(history),
        "epochs_planned": history[-1].epochs,
        "best_epoch": best[0].epoch if len(best) == 1 else [report.epoch for report in best],
        "loss": _mean([report.train for report in best]),
        "validation_loss": _mean([report.validation for report in best]),
        "seconds": round(sum(network[-1].seconds for network in networks), 3),
        "stopped": "; ".join(report.stopped for report in history if report.stopped) or None,
    }
    said = {name: value for name, value in {**about, **found}.items() if value is not None}
    return dataclasses.replace(model, provenance={**model.provenance, **said})


def _mean(losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The means of losses by name."""
    return {name: math.fsum(one[name] for one in losses) / len(losses) for name in losses[0]}


def training_folder(output: str | Path) -> Path:
    """Where checkpoints and logs of a training lie, beside its output."""
    return Path(output).with_suffix(".training")


def check_no_training(output: str | Path, *, overwrite: bool, resume: bool) -> None:
    """Raise InputError where beside an output there lies an earlier training that is neither wanted nor unwanted."""
    folder = training_folder(output)
    if not (resume or overwrite) and (checkpoints(folder) or (folder / KEPT).exists()):
        raise InputError(f"{folder} holds an earlier training; --resume goes on with it, --overwrite begins anew")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is in the way of checkpoints and logs; give another name")


def leads() -> bool:
    """Whether this process is the one that writes and speaks, where torchrun has started several."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def _told(estimator: Learned, training: Training, history: Sequence[Report], overwrite: bool) -> Iterator[None]:
    """Say what an interruption or a failure leaves."""
    try:
        yield
    except KeyboardInterrupt:
        if training.folder is None:
            raise
        raise BraggscopeError(f"interrupted{_left(training, history, overwrite)}") from None
    except BraggscopeError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "no message"
        said = f"the training of '{estimator.name}' failed ({type(error).__name__}: {reason})"
        raise BraggscopeError(f"{said}{_left(training, history, overwrite)}") from error
    finally:
        if training.folder is not None:
            with contextlib.suppress(OSError):
                training.folder.rmdir()  # where nothing came into it


def _left(training: Training, history: Sequence[Report], overwrite: bool) -> str:
    """What an interrupted training leaves, as the end of a sentence."""
    if training.folder is None or not checkpoints(training.folder):
        return "; nothing was written"
    epoch = f" of epoch {history[-1].epoch}" if history else ""
    return f"; {training.folder} holds the checkpoint{epoch}; {again(overwrite)} to go on from it"


def _losses(report: Report) -> str:
    """The losses of an epoch, for a progress bar."""
    found = {"loss": report.train.get("loss", math.nan), "validation": report.validation.get("loss", math.nan)}
    return ", ".join(f"{name} {value:.4g}" for name, value in found.items() if math.isfinite(value))
