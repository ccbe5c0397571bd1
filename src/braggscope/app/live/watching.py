"""Watching: starts the processes of a run, starts again whichever dies, and ends with the scan.

Nothing is kept in this process that is not in the run folder, so that it may be killed too: `resume` goes on with what is there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from braggscope.core.errors import BraggscopeError, InputError
from braggscope.live.control import ask
from braggscope.live.run_folder import RunFolder, folder_of, read_json

from ..interruption import Interruption
from ..output import check_output
from .asked import Asked

MODULES = {
    "mapper": "braggscope.app.live.mapping",
    "receiver": "braggscope.live.receiving",
    "trainer": "braggscope.app.live.training",
    "server": "braggscope.app.dashboard.running",
}
LOOK_S = 0.1
RESTARTS = 5  # of one part within
WITHIN_S = 60.0
READY_S = 60.0  # for the mapper to be there before frames are asked for
LOG = "parts/{}.log"


@dataclass
class Part:
    """A process of a run."""

    name: str
    process: subprocess.Popen[bytes]
    starts: list[float] = field(default_factory=list)


class Watch:
    """The processes of a run.

    environment: Further variables of the processes, such as the token of the page.
    """

    def __init__(self, run: RunFolder, parts: tuple[str, ...], environment: dict[str, str] | None = None) -> None:
        self.run, self.wanted = run, parts
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **(environment or {})}
        self.parts: dict[str, Part] = {}
        self.failed: str = ""

    def start(self, name: str) -> None:
        """Start a part, or start it again."""
        (self.run.path / "parts").mkdir(parents=True, exist_ok=True)
        (self.run.path / "parts" / f"{name}.json").unlink(missing_ok=True)
        log = (self.run.path / LOG.format(name)).open("ab")
        command = [sys.executable, "-m", MODULES[name], str(self.run.path)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
        log.close()
        earlier = self.parts[name].starts if name in self.parts else []
        self.parts[name] = Part(name, process, [*earlier, time.time()])

    def begin(self) -> None:
        """Start everything; the receiver when the mapper is there, so that the first frame waits for nothing."""
        for name in self.wanted:
            if name != "receiver":
                self.start(name)
        until = time.time() + READY_S
        while not self.run.reported("mapper") and self.parts["mapper"].process.poll() is None and time.time() < until:
            time.sleep(0.02)
        self.start("receiver")

    def look(self) -> bool:
        """Start again what died; whether the run goes on. Raises BraggscopeError where a part fails for good."""
        for name, part in list(self.parts.items()):
            code = part.process.poll()
            if code is None or code == 0:
                continue
            said = self.run.reported(name)
            if said.get("state") == "failed":
                if name in ("trainer", "server"):
                    self.failed = f"the {name} ended: {said.get('error')}"
                    del self.parts[name]
                    continue
                kind = InputError if code == 2 else BraggscopeError
                raise kind(str(said.get("error")))
            if len([t for t in part.starts if t > time.time() - WITHIN_S]) > RESTARTS:
                raise BraggscopeError(
                    f"the {name} died {RESTARTS} times within a minute; {self.run.path / LOG.format(name)} says why"
                )
            self.start(name)
        return self.parts["mapper"].process.poll() is None or self.parts["receiver"].process.poll() is None

    def end(self) -> None:
        """End what still runs."""
        for part in self.parts.values():
            if part.process.poll() is None:
                part.process.send_signal(signal.SIGTERM)
        for part in self.parts.values():
            try:
                part.process.wait(10)
            except subprocess.TimeoutExpired:
                part.process.kill()
                part.process.wait()


def watched(
    asked: Asked,
    *,
    overwrite: bool = False,
    resume: bool = False,
    keep_frames: bool = False,
    parts: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    show: Callable[[RunFolder], None] = lambda run: None,
    linger: bool = False,
) -> Iterator[dict[str, Any]]:
    """Run to the end of the scans; the figures of each scan when its map is written, its file among them as "output".

    parts: Beside receiver and mapper.
    show: Called ten times a second.
    linger: Whether to go on when the scans are over, for those who look at the page.

    Raises InputError for what can be known beforehand, or when the first frames come; BraggscopeError where a part fails for
    good. Frames that were recorded stay then, but for those of a replay, which are in its file.
    """
    run = prepared(asked, overwrite=overwrite, resume=resume)
    watch = Watch(run, ("mapper", "receiver", *parts), environment)
    told: set[int] = set()
    with Interruption(aloud=True) as interruption:
        interruption.held = True
        try:
            watch.begin()
            going = True
            while going or linger:
                going = watch.look()
                if interruption.asked:
                    ask(run, {"stop": True})
                    linger = False
                show(run)
                yield from _new(run, told)
                time.sleep(LOOK_S)
            yield from _new(run, told)
        except InputError as error:
            watch.end()
            raise _what_is_left(error, run, asked) from None
        finally:
            interruption.held = False
            watch.end()
    if watch.failed:
        print(f"note: {watch.failed}", file=sys.stderr)
    lacking = [one for one in run.scans() if one.done is None]
    if lacking:
        raise BraggscopeError(
            f"{len(lacking)} scans were not finished; {run.path} holds their frames; repeat the command with --resume"
        )
    if not keep_frames:
        shutil.rmtree(run.path)


def _what_is_left(error: InputError, run: RunFolder, asked: Asked) -> InputError:
    """The error, saying where frames are that came in vain; an empty run, or a replay, leaves nothing."""
    kept = sum(len(one.frames) for one in run.scans() if one.started and one.started.frame_shape)
    if not kept or asked.source.startswith("replay:"):
        shutil.rmtree(run.path)
        return error
    return InputError(f"{error}; {run.path} holds the {kept} frames that came (`braggscope map` takes its scan folders)")


def _new(run: RunFolder, told: set[int]) -> Iterator[dict[str, Any]]:
    """Scans whose map was written since the last look."""
    for scan in run.scans():
        if scan.number not in told and scan.done is not None:
            told.add(scan.number)
            yield {"scan": scan.number, **scan.done, "end": (scan.ended or {}).get("reason")}


def prepared(asked: Asked, *, overwrite: bool, resume: bool) -> RunFolder:
    """The run folder, new or that of an earlier run which is to go on. Raises InputError."""
    from braggscope.live.transports import receiver, source_url

    if overwrite and resume:
        raise InputError("--overwrite and --resume contradict each other; give one of them")
    run = RunFolder(folder_of(asked.output))
    if run.path.exists() and not resume and not overwrite:
        raise InputError(f"{run.path} holds an unfinished run; --resume goes on with it, --overwrite begins anew")
    if resume:
        if read_json(run.path / "run.json") is None:
            raise InputError(f"there is nothing to resume: {run.path} does not exist")
        earlier = Asked.read(run)
        for name in ("source", "method", "model", "modality"):
            if getattr(earlier, name) != getattr(asked, name):
                raise InputError(
                    f"{run.path} cannot be resumed: {name} was {getattr(earlier, name)} and is {getattr(asked, name)}"
                )
        (run.path / "control.json").unlink(missing_ok=True)
        return run
    url = source_url(asked.source)
    inputs = (url.place,) if Path(url.place).exists() else ()
    check_output(asked.output, overwrite=overwrite, inputs=inputs, resumable=True)
    if url.scheme == "replay":
        receiver(url).close()  # whether the file is there, is a scan, and says what it must
    shutil.rmtree(run.path, ignore_errors=True)
    run.path.mkdir(parents=True)
    asked.write(run)
    return run
