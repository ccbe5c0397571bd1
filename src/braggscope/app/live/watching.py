"""Watching: starts the processes of a run, starts again whichever dies, and ends with the scan.

Nothing is kept in this process that is not in the run folder, so that it may be killed too: `resume` goes on with what is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
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
from braggscope.live.receiving import HAND_OVER
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
OPTIONAL = ("trainer", "server")
RESTARTS = 5  # of one part within
WITHIN_S = 600.0
ENDS_S = 10.0  # for the processes of a run whose watch was killed
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
    failed: Called with a sentence when a part ends without which the run goes on.
    """

    def __init__(
        self,
        run: RunFolder,
        parts: tuple[str, ...],
        environment: dict[str, str] | None = None,
        failed: Callable[[str], None] = lambda said: None,
    ) -> None:
        self.run, self.wanted = run, parts
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **(environment or {})}
        self.parts: dict[str, Part] = {}
        self.failed = failed

    def start(self, name: str) -> None:
        """Start a part, or start it again."""
        (self.run.path / "parts").mkdir(parents=True, exist_ok=True)
        (self.run.path / "parts" / f"{name}.json").unlink(missing_ok=True)
        log = (self.run.path / LOG.format(name)).open("ab")
        command = [sys.executable, "-P", "-m", MODULES[name], str(self.run.path)]  # -P: no module from where one stands
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
            failed = said.get("state") == "failed"
            if not failed and len([t for t in part.starts if t > time.time() - WITHIN_S]) <= RESTARTS:
                self.start(name)
                continue
            log = self.run.path / LOG.format(name)
            often = f"the {name} died {RESTARTS} times within {WITHIN_S / 60:g} minutes; {log} says why"
            why = str(said.get("error")) if failed else f"{often}{_last_line(log)}"
            if name in OPTIONAL:  # the map goes on without it
                self.failed(f"the {name} ended: {why}")
                self.run.report(name, state="failed", error=why)
                del self.parts[name]
                continue
            raise (InputError if failed and code == 2 else BraggscopeError)(why)
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
    watch = Watch(run, ("mapper", "receiver", *parts), environment, lambda said: print(f"note: {said}", file=sys.stderr))
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
    outside = int(run.reported("receiver").get("refused") or 0)
    if outside:
        print(f"note: {outside} frames came when no scan was open: before one began, or when it was complete", file=sys.stderr)
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


def _last_line(log: Path) -> str:
    """What a part wrote last, as the end of a sentence."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f" ({lines[-1][:300]})" if lines else ""


def _numbered(output: Path) -> list[Path]:
    """The files that maps of further scans may be called, where they exist."""
    return sorted(p for p in output.parent.glob(f"{output.stem}-*{output.suffix}") if p.stem[len(output.stem) + 1 :].isdigit())


def _end_orphans(run: RunFolder) -> None:
    """End the processes of a run whose watch was killed: they have gone on until now. Raises InputError where they stay."""
    for process in run.claimed().values():
        with contextlib.suppress(ProcessLookupError):
            if process > 0:
                os.kill(process, HAND_OVER)  # ends any other part as well: all that they know is in the folder
    until = time.time() + ENDS_S
    while working := run.claimed():
        if time.time() > until:
            raise InputError(f"{run.path} cannot be resumed: process {next(iter(working.values()))} still works on it")
        time.sleep(0.05)


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
        for name in (one.name for one in dataclasses.fields(Asked) if one.name != "command"):
            was, now = (json.loads(json.dumps(getattr(one, name))) for one in (earlier, asked))
            if was != now:
                raise InputError(f"{run.path} cannot be resumed: {name} was {was} and is {now}; repeat the command as it was")
        _end_orphans(run)
        for left in (run.path / "control.json", *(run.path / "parts").glob("*.json")):
            left.unlink(missing_ok=True)
        return run
    if run.path.exists() and (working := run.claimed()):
        listed = ", ".join(f"{name} ({process})" for name, process in working.items())
        raise InputError(f"a run in {run.path} goes on: {listed}; --resume takes it over")
    url = source_url(asked.source)
    inputs = (url.place,) if Path(url.place).exists() else ()
    check_output(asked.output, overwrite=overwrite, inputs=inputs, resumable=True)
    if not overwrite and asked.scans != 1 and (taken := _numbered(Path(asked.output))):
        raise InputError(f"{taken[0]} exists, which is what the map of a further scan would be called; use --overwrite")
    if url.scheme == "replay":
        receiver(url).close()  # whether the file is there, is a scan, and says what it must
    shutil.rmtree(run.path, ignore_errors=True)
    run.path.mkdir(parents=True)
    asked.write(run)
    return run
