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
from .run_folder import RunFolder, read_json, start_from
from .transports import receiver, source_url

GROUP = 512  # messages recorded together, at most
WAIT_S = 0.05
REPORT_S = 0.5


def receive(run: RunFolder, asked: Mapping[str, Any], stop: threading.Event) -> int:
    """Record from the source of a run until its scans are over or it is told to stop; how many scans were recorded.

    asked: The document of run.json: source, plan, patience_s, buffer, scans (None: until it is stopped), timeout_s.
    Raises InputError where the source cannot be opened, BraggscopeError where the disk cannot take more.
    """
    plan = start_from(asked["plan"]) if asked.get("plan") else None
    source = receiver(source_url(str(asked["source"])))
    patience = asked.get("patience_s")
    patience = PATIENCE_S if patience is None else float(patience)
    recorder = Recorder(run, plan, patience, announced=getattr(source, "announces", False))
    if recorder.scan is not None and hasattr(source, "skip"):
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
    scans, timeout, reported = asked.get("scans"), asked.get("timeout_s"), 0.0
    try:
        while not stop.is_set() and not (scans and recorder.finished >= scans):
            recorder.record(buffer.take(GROUP, WAIT_S))
            if failed and not len(buffer):
                raise failed[0]
            recorder.settle(timeout, not len(buffer))
            if time.time() - reported > REPORT_S:
                reported = time.time()
                _obey(run, recorder, stop)
                _report(run, recorder, buffer)
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
        with contextlib.suppress(OSError):
            _report(run, recorder, buffer, "ended")
    return recorder.finished


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
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run = RunFolder(Path(path))
    try:
        receive(run, read_json(run.path / "run.json"), stop)
    except BraggscopeError as error:
        run.report("receiver", state="failed", error=str(error))
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
