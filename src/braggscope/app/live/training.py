"""The trainer: a process that goes on training the method of a run on the frames recorded so far.

Each round begins with the weights of the newest version and all frames so far; a version is published only where its validation
loss is below that of the weights it began with, on the same validation frames (`core.learned.Training.start`). The first round
is as long as the options ask for, so that there is a version soon; each next one takes at least LONGER times as long as the last,
since what short rounds learn is soon learned. The process is nice to the mapper and uses one thread.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from pathlib import Path

from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.learned import Learned, Training
from braggscope.core.model import Model
from braggscope.core.scan import Scan
from braggscope.live.recorded import Follower
from braggscope.live.run_folder import RunFolder, ScanFolder

from ..learning import failure, with_history
from ..provenance import training_provenance
from .asked import Asked
from .models import current_model, current_version, publish

LEAST_FRAMES = 64  # before the first round
GROWTH = 1.1  # frames since the last round, as a factor, before the next one begins
LONGER = 1.35  # duration of a round over that of the last
NICE = 10
LOOK_S = 0.2


def follow(run: RunFolder) -> int:
    """Train until the run is over; how many versions were published. Raises InputError where the method cannot be trained."""
    from braggscope.infer.runtime import set_workers

    asked = Asked.read(run)
    set_workers(1)
    published = rounds = 0
    frames, longer, last, number = 0.0, 1.0, math.inf, 0
    while not (run.control.get("stop") or (_ended(run) and (rounds or current_version(run) or not _any(run)))):
        folder = _scan(run)
        if folder is not None and folder.number != number:  # another scan: its frames count anew
            number, frames = folder.number, 0.0
        count = 0 if folder is None else len(folder.records)
        first = _ended(run) and not rounds  # the scan was over before there was a model: one round with what came
        enough = first or count >= max(LEAST_FRAMES, GROWTH * frames)
        done = asked.rounds is not None and rounds >= asked.rounds
        scan = _frames(folder, asked) if folder is not None and enough and not done else None
        if scan is None:
            run.report("trainer", state="waiting", rounds=rounds, frames=count)
            time.sleep(LOOK_S)
            continue
        frames, rounds = float(count), rounds + 1
        run.report("trainer", state="training", rounds=rounds, frames=count)
        begin = time.monotonic()
        published += one_round(run, asked, scan, rounds, longer)
        took = time.monotonic() - begin
        longer *= LONGER if took < LONGER * last else 1.0  # a round over more frames may take longer by itself
        last = took
    run.report("trainer", state="ended", rounds=rounds, versions=published)
    return published


def one_round(run: RunFolder, asked: Asked, scan: Scan, number: int, longer: float = 1.0) -> bool:
    """Train once on the frames so far; whether a better version came of it.

    longer: Epochs in parts of those that were asked for.
    """
    newest = current_model(run)
    held = newest[1] if newest is not None else None
    estimator = method(asked, scan, held)
    start = None if held is None else held.weights
    training = Training(seed=number, start=start, longer=longer)
    begin, reports = time.time(), []
    with contextlib.closing(estimator.train_for(scan, training)) as steps:  # type: ignore[type-var]  # a generator
        for report in steps:
            reports.append(report)
            run.report(
                "trainer", state="training", rounds=number, frames=len(scan.order), epoch=report.epoch, epochs=report.epochs
            )
    last = reports[-1]
    better = [report for report in reports if report.best]
    if failure(reports) or last.estimator is None or not better:
        return False
    about = training_provenance(estimator, [scan], training)
    model: Model = with_history(last.estimator.model, {**about, "data": [], "round": number}, reports)
    losses = {"loss": better[-1].train.get("loss", math.nan), "validation": better[-1].validation.get("loss", math.nan)}
    publish(run, model, {"frames": len(scan.order), "round": number, "seconds": round(time.time() - begin, 2), **losses})
    return True


def method(asked: Asked, scan: Scan, model: Model | None) -> Learned:
    """The method, ready to be trained: with the options of its model, or those that were asked for.

    Raises InputError where it is none that learns.
    """
    estimator = asked.parts(scan, model)[2]
    if not isinstance(estimator, Learned):
        raise InputError(f"method '{estimator.name}' needs no training; leave --train out")
    if model is None:
        return estimator
    decided = {name: value for name, value in model.options.items() if name in estimator.training_options()}
    return type(estimator).with_options(estimator.geometry, {**asked.options, **decided, **asked.train_options})


def _frames(folder: ScanFolder, asked: Asked) -> Scan | None:
    """The frames of a scan so far; None before the first."""
    start = folder.started
    if start is None or start.frame_shape is None or not len(folder.frames):
        return None
    scan = Follower(folder, asked.scan(folder)).scan
    return asked.parts(scan)[0]


def _scan(run: RunFolder) -> ScanFolder | None:
    """The scan under way, else the last one."""
    scans = run.scans()
    return scans[-1] if scans else None


def _ended(run: RunFolder) -> bool:
    """Whether no more frames come."""
    return run.reported("receiver").get("state") in ("ended", "failed")


def _any(run: RunFolder) -> bool:
    """Whether any frame came."""
    folder = _scan(run)
    return folder is not None and (folder.path / "index.bin").exists() and len(folder.frames) > 0


def main(path: str) -> int:
    """The process: `python -m braggscope.app.live.training RUN_FOLDER`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    run = RunFolder(Path(path))
    try:
        run.claim("trainer")
        follow(run)
    except BraggscopeError as error:
        run.report("trainer", state="failed", error=str(error))
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
