"""The mapper: a process that follows the frames of a run and keeps the map of each scan (`scan_mapping`)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr

from braggscope.core.batch import Batch
from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.estimator import PerFrame
from braggscope.core.learned import Learned
from braggscope.core.modality import modality
from braggscope.live.run_folder import RunFolder

from .asked import Asked
from .scan_mapping import ScanMapper, map_scan


def follow(run_folder: RunFolder) -> None:
    """Map the scans of a run, one after another, until the receiver has ended and all are mapped.

    Raises InputError where the method cannot map what comes, BraggscopeError where a file cannot be written.
    """
    from braggscope.infer.runtime import set_workers

    asked = Asked.read(run_folder)
    set_workers(asked.workers)
    _warm(asked)
    while True:
        open_scans = [one for one in run_folder.scans() if one.done is None]
        if not open_scans:
            if run_folder.reported("receiver").get("state") in ("ended", "failed"):
                if [one for one in run_folder.scans() if one.done is None]:
                    continue
                run_folder.report("mapper", state="ended")
                return
            run_folder.report("mapper", state="waiting")
            time.sleep(0.05)
            continue
        map_scan(ScanMapper(run_folder, open_scans[0], asked))


def _warm(asked: Asked) -> None:
    """Let the method map a dark frame, so that what it compiles and loads is there when the first frame comes."""
    xr.Dataset(coords={"x": ("x", np.zeros(1))})  # xarray looks for other array libraries at its first array: a second
    if asked.modality is None or asked.model is not None:
        return
    kind = modality(asked.modality)
    with contextlib.suppress(Exception):  # a frame of another shape than it wants: then the first one is slow
        known = kind.load(kind.example_geometry)()
        geometry = known if asked.geometry is None else kind.geometry_class().from_mapping(asked.geometry)
        method = kind.estimator(asked.method or kind.default_method).with_options(geometry, asked.options)
        if isinstance(method, PerFrame) and not isinstance(method, Learned):
            method.fit(Batch(np.zeros(1, np.int64), np.ones((1, 64, 64), np.uint16)))


def main(path: str) -> int:
    """The process: `python -m braggscope.app.live.mapping RUN_FOLDER`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the watching process says when it is over
    run_folder = RunFolder(Path(path))
    try:
        run_folder.claim("mapper")
        follow(run_folder)
    except BraggscopeError as error:
        run_folder.report("mapper", state="failed", error=str(error), input=isinstance(error, InputError))
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stderr.flush()
    os._exit(code)  # taking compiled libraries down takes seconds; everything is on the disk
