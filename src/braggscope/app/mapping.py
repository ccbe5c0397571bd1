"""Mapping: a source through a method into a map, with checkpoints on the way.

The output file is a readable map from the start. It is written once before the first frame (a full disk is found at once),
again from time to time, and when something stops the run: then it also holds the method's state, from which the same call
with `resume` goes on to the very map that an uninterrupted run gives.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from braggscope.core import maps
from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.estimator import Estimator, State
from braggscope.core.learned import Learned
from braggscope.core.model import Model
from braggscope.core.source import Source
from braggscope.engine.local import Progress, ReadingFailed, run

from .choosing import GeometryLike, choose_estimator, choose_geometry, choose_modality, choose_model, located, states_geometry
from .interruption import Interruption
from .learning import check_no_training, superseded, trained_on, trains
from .output import again, check_output
from .progress import Show
from .provenance import differences, files_of, plain, provenance

if TYPE_CHECKING:
    from .training import Trained

CHECKPOINT_S = 15.0  # least time between two checkpoints
CHECKPOINT_SHARE = 20  # and at least so many times the time that one takes: at most 5 % of the run
MASKED = "run_masked"  # entry beside the estimator's state: masked counts and frames so far


def map_source(
    source: Source,
    method: str | Path | Model | Trained | None = None,
    *,
    modality: str | None = None,
    geometry: GeometryLike = None,
    options: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "cpu",
    workers: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The map of a source (see `braggscope.map`).

    Raises InputError for what can be known beforehand, and then nothing is written; BraggscopeError where the work breaks
    off, and then the output holds the map so far.
    """
    if overwrite and resume:
        raise InputError("--overwrite and --resume contradict each other; give one of them")
    model = choose_model(method)
    files = (*files_of(source), geometry, None if model is None else model.file.get("model_file"))
    inputs = tuple(one for one in files if isinstance(one, str | Path))
    unfinished = output is not None and resume and Path(output).exists()
    path = None if output is None else check_output(output, overwrite=overwrite or unfinished, inputs=inputs, resumable=True)
    kind = choose_modality(source, modality, geometry, model)
    chosen = choose_geometry(source, kind, geometry, model)
    borrowed = model is not None and geometry is None and not states_geometry(source)
    source = located(source, chosen)
    estimator = choose_estimator(kind, chosen, None if method is None else str(method), options or {}, device, model)
    attributes = provenance(source, kind, estimator) | ({"geometry_from": "the model"} if borrowed else {})
    keeper = Keeper(path, estimator, attributes, overwrite)
    if path is not None and trains(estimator):
        check_no_training(path, overwrite=overwrite, resume=resume)
    if path is not None and unfinished and not superseded(path, estimator):
        finished = keeper.take_up(path)
        if finished is not None:
            return finished
    _set_workers(workers)
    with Interruption(aloud=progress) as interruption, _told(keeper):
        _first_frame(source)
        keeper.estimator = _prepared(estimator, source, keeper, resume, device, progress)
        done = _run(source, keeper, interruption, progress)
        dataset = keeper.dataset(done, finished=True)
        keeper.write(dataset, done)
    return dataset


@dataclass
class Keeper:
    """Turns the state of a run into a map with provenance, and keeps the output file.

    overwrite: Whether a file that is there already was to be replaced.
    state, masked, seconds: What an earlier run left; nothing at the start.
    saved, total: Frames that the file on disk holds, None where there is none yet; and planned.
    """

    path: Path | None
    estimator: Estimator
    attributes: dict[str, str | int | float]
    overwrite: bool = False
    state: State | None = None
    masked: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    saved: int | None = None
    total: int = 0
    started: float = field(default_factory=time.perf_counter)
    _last: float = 0.0
    _cost: float = 0.0

    def take_up(self, path: Path) -> xr.Dataset | None:
        """Take the state over from an unfinished map file; the map itself where it is finished already.

        Raises InputError where the file is no map, or one of another run.
        """
        earlier = maps.load(path)
        other = differences(earlier.attrs, self.attributes)
        if other:
            raise InputError(f"{path} cannot be resumed: {'; '.join(other)}")
        state = maps.load_state(path)
        if state is None:
            return earlier
        self.masked = tuple(int(n) for n in state.pop(MASKED))  # type: ignore[assignment]
        self.state, self.seconds, self.saved = state, float(earlier.attrs["seconds"]), int(state["seen"].sum())
        self.total = len(state["seen"])
        self.attributes |= {name: earlier.attrs[name] for name in ("created", "command")}
        return None

    def dataset(self, progress: Progress, *, finished: bool) -> xr.Dataset:
        """The map so far, with its provenance."""
        dataset = self.estimator.result(progress.state)
        unit = "frames" if self.estimator.reads == "frames" else "pixels"
        counts = {
            f"{unit}_planned": progress.total,
            f"{unit}_used": progress.done,
            f"{unit}_lost": progress.total - progress.done,
            "masked_counts": progress.masked_counts,
            "masked_frames": progress.masked_frames,
            "seconds": round(self.seconds + time.perf_counter() - self.started, 3),
            "complete": int(finished),
        }
        found = {str(name): plain(value) for name, value in dataset.attrs.items()}
        return _on_detector(dataset, self.attributes).assign_attrs({**self.attributes, **counts, **found})

    def save(self, progress: Progress) -> None:
        """Write the output file of a run that is not finished, with the state. Raises BraggscopeError where that fails."""
        if self.path is not None:
            begin = time.perf_counter()
            masked = np.array([progress.masked_counts, progress.masked_frames])
            self.write(self.dataset(progress, finished=False), progress, {**progress.state, MASKED: masked})
            self._last = time.perf_counter()
            self._cost = self._last - begin

    def write(self, dataset: xr.Dataset, progress: Progress, state: State | None = None) -> None:
        """Write the output file, if there is to be one. Raises BraggscopeError where that fails."""
        if self.path is None:
            return
        try:
            maps.save(dataset, self.path, state=state)
        except OSError as error:
            raise BraggscopeError(f"{self.path} cannot be written ({_reason(error)}){self.left()}") from None
        self.saved, self.total = progress.done, progress.total

    def take_back(self) -> None:
        """Remove an output file that this run began and that holds no frame yet."""
        if self.path is not None and self.state is None and self.saved == 0:
            self.path.unlink(missing_ok=True)

    def save_now_and_then(self, progress: Progress) -> None:
        """Write the output file if the last time is long enough ago."""
        if time.perf_counter() - self._last >= max(CHECKPOINT_S, CHECKPOINT_SHARE * self._cost):
            self.save(progress)

    def left(self) -> str:
        """What an interrupted run leaves, as the end of a sentence."""
        if self.saved is None:
            return "; nothing was written"
        held = f"{self.path} holds {self.saved} of {self.total} {self.estimator.reads}"
        return f"; {held}; {again(self.overwrite)} to finish it"


def _on_detector(dataset: xr.Dataset, attributes: Mapping[str, Any]) -> xr.Dataset:
    """A map over detector pixels with the middle of each pixel, in rows and columns of the recorded frame, as coordinates."""
    if "roi" not in attributes or not {"row", "column"} <= set(dataset.dims):
        return dataset
    top, _, left, _ = json.loads(str(attributes["roi"]))
    binning = int(attributes["binning"])
    axes = {}
    for name, start in (("row", top), ("column", left)):
        middle = start + (np.arange(dataset.sizes[name]) + 0.5) * binning - 0.5
        axes[name] = (name, middle, {"units": "px", "long_name": f"{name} of the recorded frame"})
    return dataset.assign_coords(axes)


def _run(source: Source, keeper: Keeper, interruption: Interruption, show: bool) -> Progress:
    """Feed the whole source to the method, keeping the output file; the last Progress."""
    steps = run(source, keeper.estimator, state=keeper.state, masked=keeper.masked)
    unit = keeper.estimator.reads.removesuffix("s")
    with contextlib.closing(steps), Show(keeper.estimator.name, unit, show) as bar:
        progress = next(steps)
        bar(progress.done, progress.total)
        keeper.save(progress)
        interruption.held = keeper.path is not None
        try:
            for progress in steps:
                bar(progress.done, progress.total)
                if interruption.asked:
                    raise ReadingFailed("interrupted")
                keeper.save_now_and_then(progress)
        except ReadingFailed as error:  # the state is good
            keeper.save(progress)
            raise BraggscopeError(f"{error}{keeper.left()}") from error
        except InputError:
            keeper.take_back()
            raise
        except BraggscopeError:
            raise
        except Exception as error:  # the state may hold half a batch: what is on disk stays
            reason = f"method '{keeper.estimator.name}' failed ({type(error).__name__}: {_reason(error)})"
            raise BraggscopeError(f"{reason}{keeper.left()}") from error
        finally:
            interruption.held = False
    return progress


def _prepared(estimator: Estimator, source: Source, keeper: Keeper, resume: bool, device: str, progress: bool) -> Estimator:
    """The method, ready for the first frame: trained on the source where that is what it needs."""
    if not isinstance(estimator, Learned) or not trains(estimator):
        return estimator.prepare(source)
    trained = trained_on(
        source, estimator, keeper.path, resume=resume, overwrite=keeper.overwrite, device=device, progress=progress
    )
    if trained.model is not None:
        epochs = trained.model.provenance["epochs"]
        keeper.attributes |= {"trained_epochs": epochs, "trained_weights": trained.model.weights_hash()}
    return trained


def _first_frame(source: Source) -> None:
    """Read one frame, so that frames which cannot be read are found before anything is written."""
    if next(iter(source.batches(1)), None) is None:
        raise InputError(f"{source.provenance.get('input_file', 'the source')} has no frames")


@contextlib.contextmanager
def _told(keeper: Keeper) -> Iterator[None]:
    """Say what an interruption leaves, where there is an output file."""
    try:
        yield
    except KeyboardInterrupt:
        if keeper.path is None:
            raise
        raise BraggscopeError(f"interrupted{keeper.left()}") from None


def _set_workers(count: int | None) -> None:
    from braggscope.infer.runtime import set_workers

    set_workers(count)


def _reason(error: BaseException) -> str:
    """What an error says, in one line; the system's own words where it has any."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
