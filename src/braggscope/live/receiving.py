"""The receiver process: one thread reads the transport into a bounded buffer, the other records (`recording`).

It imports nothing heavy, so that it is there at once when it has to be started again; then it goes on with the scan that was
under way.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import BraggscopeError, InputError

from .buffer import Buffer
from .recording import PATIENCE_S, Recorder
from .run_folder import RunFolder, ScanFolder, read_json, start_from, write_json
from .transports import receiver, source_url

GROUP = 512  # messages recorded together, at most
WAIT_S = 0.05
REPORT_S = 0.5
HAND_OVER = signal.SIGUSR1  # to a receiver: another one will go on with the scan


def receive(run: RunFolder, asked: Mapping[str, Any], stop: threading.Event, leave: threading.Event | None = None) -> int:
    """Record from the source of a run until its scans are over or it is told to stop; how many scans were recorded.

    stop: Set to end the scan and this; leave, with it: to leave the scan open, as another receiver will go on with it.
    asked: The document of run.json: source, plan, patience_s, buffer, scans (None: until it is stopped), timeout_s.
    Raises InputError where the source cannot be opened, BraggscopeError where the disk cannot take more.
    """
    plan = start_from(asked["plan"]) if asked.get("plan") else None
    source = receiver(source_url(str(asked["source"])))
    patience = asked.get("patience_s")
    patience = PATIENCE_S if patience is None else float(patience)
    scans, timeout, reported = asked.get("scans"), asked.get("timeout_s"), 0.0
    says = {"announced": getattr(source, "announces", False), "repeats": getattr(source, "repeats", True)}
    recorder = Recorder(run, plan, patience, most=scans, **says)
    memory = _Memory(source)
    if recorder.scan is not None:
        memory.restore(recorder.scan)
        if hasattr(source, "skip"):
            source.skip(np.flatnonzero(recorder.before))
    buffer = Buffer(str(asked.get("buffer") or getattr(source, "policy", "block")))
    failed: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                messages = source.receive(WAIT_S)
                if messages:
                    buffer.put(messages)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=read, name="braggscope transport", daemon=True)
    thread.start()
    try:
        while not stop.is_set() and not (scans and recorder.finished >= scans) and not (failed and not len(buffer)):
            recorder.record(buffer.take(GROUP, WAIT_S))
            recorder.settle(timeout, not len(buffer))
            memory.keep(recorder.scan)
            if time.time() - reported > REPORT_S:
                reported = time.time()
                _obey(run, recorder, stop)
                _report(run, recorder, buffer)
        if not failed:
            while len(buffer):  # what came before it was told to stop
                recorder.record(buffer.take(GROUP, 0))
            if leave is None or not leave.is_set():
                recorder.finish("stopped")
    except OSError as error:
        with contextlib.suppress(OSError):  # where not even that can be written, the scan stays open and can be resumed
            recorder.finish("the disk could not take more")
        raise BraggscopeError(f"frames cannot be recorded in {run.path} ({error.strerror})") from None
    finally:
        stop.set()
        buffer.close()
        thread.join(5)
        source.close()
    if failed:  # the scan stays open: the one who watches starts this process again
        raise failed[0]
    with contextlib.suppress(OSError):
        _report(run, recorder, buffer, "ended")
    return recorder.finished


class _Memory:
    """What a transport must know again when it is started in the middle of a scan, beside the scan's start."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.kept: tuple[int, Any] | None = None

    def restore(self, scan: ScanFolder) -> None:
        """Tell it what the last one knew."""
        found = read_json(scan.path / "transport.json")
        if found is not None and hasattr(self.source, "restore"):
            self.source.restore(found)

    def keep(self, scan: ScanFolder | None) -> None:
        """Write down what it knows, where that is new."""
        now = getattr(self.source, "state", None)
        if scan is not None and now is not None and (scan.number, now) != self.kept:
            write_json(scan.path / "transport.json", now)
            self.kept = (scan.number, now)


def _obey(run: RunFolder, recorder: Recorder, stop: threading.Event) -> None:
    """Do what the control document asks of the receiver."""
    control = run.control
    if control.get("stop"):
        stop.set()
    if recorder.scan is not None and control.get("end_scan") == recorder.scan.number:
        recorder.finish("ended by the user")


def _report(run: RunFolder, recorder: Recorder, buffer: Buffer, state: str | None = None) -> None:
    scan = recorder.scan
    run.report(
        "receiver",
        state=state or ("receiving" if scan is not None else "waiting"),
        scan=None if scan is None else scan.number,
        scans=recorder.finished,
        counts=None if scan is None else recorder.counts,
        refused=recorder.refused,
        buffered=len(buffer),
        spilled=buffer.spilled,
        dropped=buffer.dropped,
        **({} if scan is None else {**recorder.rates(), "transport_ms": recorder.transport_ms()}),
    )


def main(path: str) -> int:
    """The process: `python -m braggscope.live.receiving RUN_FOLDER`."""
    stop, leave = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def hand_over(*_: Any) -> None:
        leave.set()
        stop.set()

    signal.signal(HAND_OVER, hand_over)
    run = RunFolder(Path(path))
    try:
        run.claim("receiver")
        receive(run, read_json(run.path / "run.json"), stop, leave)
    except BraggscopeError as error:
        run.report("receiver", state="failed", error=str(error))
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
