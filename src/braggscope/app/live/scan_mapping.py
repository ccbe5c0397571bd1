"""Mapping one scan of a run, from wherever an earlier mapper left it.

A method whose points come from one frame each has its results appended to a log (`live.result_log`), from which its state is
built again after a kill, to the last bit. Any other has its state stored from time to time; what came after is read from the
frame log again. Frames that a method has used are those of its state (`seen`), so that nothing is used twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from braggscope.core import maps
from braggscope.core.errors import BraggscopeError
from braggscope.core.estimator import PerFrame
from braggscope.core.learned import Learned
from braggscope.core.model import Model
from braggscope.core.scan import Scan
from braggscope.engine.local import Progress, run
from braggscope.live.recorded import Follower
from braggscope.live.result_log import ResultWriter
from braggscope.live.run_folder import RunFolder, ScanFolder, write_json

from ..mapping import Keeper
from ..provenance import provenance
from .asked import Asked
from .finishing import figures, ledger_arrays, with_ledger, with_versions
from .models import Swap, current_model, current_version

MOST = 256  # frames in a batch: a quarter of a second of the slowest method at 1 kHz
POLL_S = 0.001
CONTROL_S = 0.05
IDLE_S = 0.02  # between two looks where nothing came lately
REPORT_S = 0.25
PARTIAL_S, PARTIAL_SHARE = 0.5, 20  # least time between two partial maps, and times what one costs
STATE_S = 5.0
NOT_MAPPED = 10**9  # where there is no version yet


class ScanMapper:
    """Maps one scan of a run, from wherever an earlier mapper left it."""

    def __init__(self, run: RunFolder, folder: ScanFolder, asked: Asked) -> None:
        self.run, self.folder, self.asked = run, folder, asked
        self.latencies: deque[float] = deque(maxlen=2000)
        self.done: deque[tuple[float, int]] = deque()
        self.masked = np.zeros(2, np.int64)
        self.swap: Swap | None = None
        self.version = 0
        self._reported = self._partial = self._stored = 0.0
        self._cost = self._asked_at = 0.0
        self._asked: dict[str, Any] = {}
        self.started = time.perf_counter()

    # -- before the first frame -------------------------------------------------------------------------------------------

    def begin(self) -> bool:
        """Wait for what the method needs, and make it ready; whether there is anything to map. Raises InputError."""
        if not self._wait(lambda: self._frames() > 0):
            return False
        self.scan = self.asked.scan(self.folder)
        model = self._first_model()
        self.scan, self.kind, estimator = self.asked.parts(self.scan, model)
        self.estimator_prepares = estimator.prepares_on_scan
        if estimator.prepares_on_scan or estimator.reads == "pixels":
            wanted = self.asked.first or math.prod(self.scan.shape)
            self._wait(lambda: self._frames() >= wanted or self.folder.ended is not None)
        self.following = Follower(self.folder, self.scan)
        self.scan = self.following.scan
        self.attributes = provenance(self.scan, self.kind, estimator, hashed=False)
        self.attributes |= {"input_file": self.asked.source, "command": self.asked.command or self.attributes["command"]}
        self.attributes["title"] = f"{self.kind.name} {estimator.name}: {self.asked.source}"
        self.estimator = estimator.prepare(self._first_frames())
        self.state = self.estimator.init(self.scan)
        self._take_up()
        self._describe()
        if isinstance(self.estimator, Learned):
            self.swap = Swap(self.run, self._method_of, self.version)
        return True

    def _first_frames(self) -> Scan:
        """What a method prepares itself on: the first frames where so many were asked for, whatever has come since."""
        if self.asked.first is None or not self.estimator_prepares:
            return self.scan
        monitor = self.scan.monitor
        return dataclasses.replace(
            self.scan,
            order=self.scan.order[: self.asked.first],
            monitor=None if monitor is None else monitor[: self.asked.first],
        )

    def _frames(self) -> int:
        start = self.folder.started
        return 0 if start is None or start.frame_shape is None else len(self.folder.frames)

    def _wait(self, ready: Any) -> bool:
        """Wait until something is there; False where the scan ended without a frame."""
        while not ready():
            if self.folder.ended is not None and not self._frames():
                return False
            self.report("waiting")
            time.sleep(IDLE_S)
        return True

    def _first_model(self) -> Model | None:
        """The newest model of the run; waits for the first one where the method has none and is being trained."""
        if self.asked.train and self.asked.model is None:
            self._wait(lambda: current_version(self.run) > 0 or self._untrained())
            if not current_version(self.run):
                raise BraggscopeError(f"the run ended before a model was trained; {self.run.path} holds its frames")
        found = current_model(self.run)
        if found is None:
            return None
        self.version = found[0]
        return found[1]

    def _untrained(self) -> bool:
        """Whether there will be no model any more."""
        over = self.run.reported("trainer").get("state") in ("ended", "failed")
        return over and not current_version(self.run)

    def _method_of(self, model: Model) -> Learned:
        """The method with another model, after it has mapped a frame: the first one is slow."""
        _, _, estimator = self.asked.parts(self.scan, model)
        assert isinstance(estimator, Learned)
        estimator.prepare(self.scan)
        estimator.fit(self.scan.taken(0, 1))
        return estimator

    def _take_up(self) -> None:
        """The state that an earlier mapper of this scan left."""
        points = self.state["seen"].shape
        plain = {k: v for k, v in self.state.items() if not k.startswith("grid_")}
        self.names = [k for k, v in plain.items() if k not in ("flag", "seen") and v.shape == points and v.dtype == np.float64]
        self.logged = isinstance(self.estimator, PerFrame) and len(self.names) + 2 == len(plain)
        self.log = ResultWriter(self.folder.path, self.names if self.logged else [])
        records = self.folder.results.records()
        self.mapped_by = np.full(math.prod(self.scan.shape), NOT_MAPPED)
        self.mapped_by[records["position"]] = records["version"]  # in order: the last one holds
        if self.logged:
            where = records["position"]
            for name in self.names:
                self.state[name][where] = records[name]  # in order: the last one holds
            self.state["flag"][where] = records["flag"]
            self.state["seen"][where] = True
        elif (self.folder.path / "state.npz").exists():
            with np.load(self.folder.path / "state.npz", allow_pickle=False) as stored:
                self.masked = stored["run_masked"]
                self.state = {name: stored[name] for name in stored.files if name != "run_masked"}
        self.looked, self.waiting = 0, np.zeros(0, np.int64)

    def _describe(self) -> None:
        """Write what the map will be, for those who follow the log."""
        empty = self._dataset(finished=False) if not self.logged else self.estimator.result(self.state)
        variables = [
            {"name": str(n), "units": str(v.attrs.get("units", "")), "long_name": str(v.attrs["long_name"]), "dims": list(v.dims),
             "shape": list(v.shape)}
            for n, v in empty.data_vars.items()
        ]  # fmt: skip
        flag = empty["flag"].attrs
        write_json(
            self.folder.path / "map.json",
            {
                "modality": self.kind.name,
                "method": self.estimator.name,
                "from_log": self.logged and self.estimator.per_frame,
                "variables": variables,
                "flag": {"masks": np.atleast_1d(flag["flag_masks"]).tolist(), "meanings": str(flag["flag_meanings"]).split()},
                "attributes": {k: v if isinstance(v, str | int | float) else str(v) for k, v in self.attributes.items()},
            },
        )

    # -- frames -----------------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Map some frames, if there are any to be mapped now; whether there were."""
        control = self._control()
        if control.get("paused") and not control.get("stop"):
            self.report("paused")
            time.sleep(IDLE_S)
            return False
        if self.swap is not None and (method := self.swap.take()) is not None:
            self.estimator, self.version = method, self.swap.version
        which = self._next(control.get("region"))
        if not len(which):
            return self._again(control)
        if self.estimator.reads == "frames":
            self._map(which)
        return True

    def _control(self) -> dict[str, Any]:
        """What is asked for, looked at now and then."""
        now = time.perf_counter()
        if now - self._asked_at > CONTROL_S:
            self._asked, self._asked_at = self.run.control, now
        return self._asked

    def _next(self, region: Any) -> np.ndarray:
        """Places in the frame log of frames that are to be mapped now, at most MOST, unbroken."""
        if self.following.advance():
            self.scan = self.following.scan
        if self.looked < self.following.count and self.estimator.reads == "frames":
            positions = self.following.records["position"][self.looked :]
            fresh = self.looked + np.flatnonzero(~self.state["seen"][positions])
            self.waiting = np.concatenate([self.waiting, fresh]) if len(self.waiting) else fresh
        self.looked = self.following.count
        most = min(MOST, self.scan.batch_size())
        taken = np.arange(min(most, len(self.waiting)))
        if region is not None and len(self.scan.shape) == 2:
            row, column = np.divmod(self.following.records["position"][self.waiting], self.scan.shape[1])
            taken = np.flatnonzero((row >= region[0]) & (row < region[1]) & (column >= region[2]) & (column < region[3]))[:most]
        gap = np.flatnonzero(np.diff(self.waiting[taken]) != 1)
        taken = taken[: gap[0] + 1] if len(gap) else taken  # one read
        which = self.waiting[taken]
        self.waiting = np.delete(self.waiting, taken)
        return which

    def _map(self, which: np.ndarray) -> None:
        """Let the method use frames, and write down what came of them."""
        batch = self.scan.taken(int(which[0]), int(which[-1]) + 1)
        self.state = self.estimator.update(self.state, batch)
        if batch.mask is not None:
            bad = (~batch.mask).sum((1, 2))
            self.masked += (int(bad.sum()), int((bad > 0).sum()))
        self._write(batch.index)
        now = time.time()
        frames = self.following.records[which]
        came = np.where(np.isfinite(frames["sent"]), frames["sent"], frames["received"])
        self.latencies.extend((now - came).tolist())
        self.done.append((now, len(which)))
        if not self.logged:
            self._store()
        self.report("mapping")

    def _write(self, index: np.ndarray) -> None:
        records = np.zeros(len(index), self.log.dtype)
        records["position"], records["version"], records["mapped"] = index, self.version, time.time()
        self.mapped_by[index] = self.version
        if self.logged:
            records["flag"] = self.state["flag"][index]
            for name in self.names:
                records[name] = self.state[name][index]
        self.log.append(records)

    def _again(self, control: dict[str, Any]) -> bool:
        """Map some points of earlier models again, where that is asked for and nothing else is to do."""
        before = self.version if self.asked.remap else control.get("remap")
        if before is None or self.swap is None or not self.logged:
            return False
        old = np.flatnonzero(self.mapped_by < min(before, self.version))[: min(MOST, self.scan.batch_size())]
        if not len(old):
            return False
        places = np.flatnonzero(np.isin(self.scan.order, old))
        gap = np.flatnonzero(np.diff(places) != 1)
        places = places[: gap[0] + 1] if len(gap) else places
        self.state["seen"][self.scan.order[places]] = False
        batch = self.scan.taken(int(places[0]), int(places[-1]) + 1)
        self.state = self.estimator.update(self.state, batch)
        self._write(batch.index)
        self.report("mapping")
        return True

    # -- what others see --------------------------------------------------------------------------------------------------

    def _store(self, always: bool = False) -> None:
        """Write the state, and a partial map, of a method that accumulates, now and then."""
        now = time.perf_counter()
        if always or now - self._stored > max(STATE_S, PARTIAL_SHARE * self._cost):
            path = self.folder.path / "state.npz"
            beside = path.with_suffix(".new")
            with beside.open("wb") as file:
                np.savez(file, allow_pickle=False, run_masked=self.masked, **self.state)
            os.replace(beside, path)
            self._stored = time.perf_counter()
        if always or now - self._partial > max(PARTIAL_S, PARTIAL_SHARE * self._cost):
            begin = time.perf_counter()
            with contextlib.suppress(OSError):
                maps.save(self._dataset(finished=False), self.folder.path / "partial.h5")
            self._partial = time.perf_counter()
            self._cost = self._partial - begin

    def _dataset(self, *, finished: bool) -> xr.Dataset:
        keeper = Keeper(None, self.estimator, dict(self.attributes), started=self.started)
        total = len(self.state["seen"])
        counts = Progress(self.state, int(self.state["seen"].sum()), total, int(self.masked[0]), int(self.masked[1]))
        return keeper.dataset(counts, finished=finished)

    def report(self, state: str) -> None:
        now = time.time()
        if now - self._reported < REPORT_S:
            return
        self._reported = now
        while self.done and self.done[0][0] < now - 2:
            self.done.popleft()
        figures: dict[str, Any] = {"state": state, "scan": self.folder.number, "version": self.version}
        if hasattr(self, "state"):
            figures |= {"mapped": int(self.state["seen"].sum()), "rate_hz": sum(n for _, n in self.done) / 2}
        if self.latencies:
            p50, p99 = np.percentile(self.latencies, [50, 99])
            figures["latency_ms"] = {"p50": round(1e3 * p50, 3), "p99": round(1e3 * p99, 3)}
        self.run.report("mapper", **figures)

    # -- the end ----------------------------------------------------------------------------------------------------------

    def finish(self) -> Path:
        """Write the map file, and say so in the folder. Raises BraggscopeError where that fails."""
        if self.swap is not None:
            self.swap.close()
        if self.estimator.reads == "pixels":
            for progress in run(self.scan, self.estimator, state=self.state):
                self.masked[:] = progress.masked_counts, progress.masked_frames
                self.state = progress.state
        outside = ~self.state["seen"] if self.estimator.reads == "frames" else np.zeros(math.prod(self.scan.shape), bool)
        outside &= np.isin(np.arange(len(outside)), self.scan.order[self.waiting]) if len(self.waiting) else False
        dataset = with_ledger(self._dataset(finished=True), self.folder, outside)
        if isinstance(self.estimator, Learned) and self.logged:
            dataset = with_versions(dataset, self.folder)
        ended = self.folder.ended or {}
        dataset.attrs |= {
            "live_source": self.asked.source,
            "live_end": str(ended.get("reason", "")),
            "complete": int(ended.get("reason") == "complete"),
        }
        path = self.asked.output_of(self.folder)
        try:
            maps.save(dataset, path, ledger=ledger_arrays(self.folder))
        except OSError as error:
            raise BraggscopeError(
                f"{path} cannot be written ({error.strerror}); {self.folder.path} holds frames and results"
            ) from None
        self.log.close()
        write_json(self.folder.path / "done.json", {"output": str(path), **figures(self.folder)})
        return path


def map_scan(mapper: ScanMapper) -> None:
    """Map a scan to its end."""
    if not mapper.begin():
        write_json(mapper.folder.path / "done.json", {"output": None, **figures(mapper.folder)})
        return
    idle = 0
    while True:
        ended = mapper.folder.ended  # before the frames: what comes after it is no frame of this scan
        if mapper.step():
            idle = 0
            continue
        paused = mapper.run.control.get("paused") and not mapper.run.control.get("stop")
        if ended is not None and not paused and len(mapper.following.frames) == mapper.looked:
            break
        idle += 1
        mapper.report("waiting")
        time.sleep(POLL_S if idle < 200 else 5 * POLL_S)
    mapper.finish()
