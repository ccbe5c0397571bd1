"""A run, followed from its folder: nothing that was read is read again."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from braggscope.core import maps
from braggscope.core.errors import InputError
from braggscope.core.scan import Scan
from braggscope.live.control import ask, checked
from braggscope.live.ledger import LATE, LOST, RECEIVED, WORDS
from braggscope.live.recorded import Follower
from braggscope.live.result_log import FIXED
from braggscope.live.run_folder import RunFolder, ScanFolder, read_json

from ..live.asked import Asked
from ..live.finishing import ledger_of
from ..live.models import history
from .finished_map import FinishedMap
from .frames import curve
from .provider import Missing
from .shown import Shown, Variable, kind_of

ALIVE_S = 3.0  # since a part's last report
MOST_CHANGES = 20_000  # positions; beyond, the whole map is less to send
LEDGER_S = 0.5
VERSION = "model_version"


NOTHING: dict[str, Any] = {
    "live": True, "state": "waiting", "modality": None, "method": None, "scans": [], "scan": None, "frames": True,
    "frame_shape": None, "ledger": None, "rates": None, "mapped": 0, "history": 0, "provenance": {},
}  # fmt: skip


class _Scan:
    """One scan of the run."""

    def __init__(self, run: RunFolder, folder: ScanFolder) -> None:
        self.run, self.folder = run, folder
        self.shown: Shown | None = None
        self.read = 0
        self.final: FinishedMap | None = None
        self.stamp = 0.0
        self._changed: list[tuple[int, np.ndarray]] = []
        self._follower: Follower | None = None
        self._ledger: tuple[float, Any] = (0.0, None)

    def refresh(self) -> Shown:
        """Read what is new. Raises Missing where there is no map yet."""
        done = self.folder.done
        if done is not None and done.get("output") and self.final is None and Path(done["output"]).exists():
            count = 1 + (self.shown.count if self.shown is not None else 0)
            self.final = FinishedMap(done["output"])
            self.shown, self._changed = self.final.shown(), []
            self.shown.count = count
        if self.final is None:
            self._from_folder()
        if self.shown is None:
            raise Missing("no frame of this scan has been mapped yet")
        return self.shown

    def _from_folder(self) -> None:
        about = read_json(self.folder.path / "map.json")
        if about is None:
            return
        if about["from_log"]:
            self._from_log(about)
            return
        path = self.folder.path / "partial.h5"
        stamp = path.stat().st_mtime if path.exists() else 0.0
        if stamp > self.stamp:
            count = 1 + (self.shown.count if self.shown is not None else 0)
            self.shown, self.stamp = Shown.of(maps.load(path), count), stamp

    def _from_log(self, about: dict[str, Any]) -> None:
        if self.shown is None:
            self.shown = self._empty(about)
        records = self.folder.results.records(self.read)
        if not len(records):
            return
        self.read += len(records)
        at = records["position"]
        for name in records.dtype.names or ():
            if name in self.shown.values:
                self.shown.values[name][at] = records[name]
        if VERSION in self.shown.values:
            self.shown.values[VERSION][at] = records["version"]
        self.shown.count += 1
        self._changed.append((self.shown.count, at))
        self._changed = self._changed[-4096:]

    def _empty(self, about: dict[str, Any]) -> Shown:
        """The map before the first result."""
        start = self.folder.started
        assert start is not None
        dims, shape = tuple(a.name for a in start.axes), start.shape
        axes = [{"name": a.name, "values": np.asarray(a.values, float).tolist(), "unit": a.unit} for a in start.axes]
        names = [v["name"] for v in about["variables"]]
        variables = {
            v["name"]: Variable(v["name"], v["units"], v["long_name"], dims, shape, kind_of(v["name"], names))
            for v in about["variables"]
        }
        values = {n: np.ones(start.points, np.int32) if n == "flag" else np.full(start.points, np.nan) for n in variables}
        if (self.run.models / "current.json").exists():
            variables[VERSION] = Variable(VERSION, "1", "version of the model that mapped the point", dims, shape, "other")
            values[VERSION] = np.full(start.points, np.nan)
        words = dict(zip(about["flag"]["masks"], about["flag"]["meanings"], strict=True))
        return Shown(dims, shape, axes, variables, words, values, about["attributes"])

    def changed(self, since: int) -> np.ndarray | None:
        """Positions that changed since; None where that is not known, or too many."""
        if self.shown is None or since >= self.shown.count:
            return np.zeros(0, np.int64)
        if self.final is not None or not self._changed or self._changed[0][0] > since + 1:
            return None
        parts = [at for count, at in self._changed if count > since]
        found = np.unique(np.concatenate(parts))
        return found if len(found) <= MOST_CHANGES else None

    def frame(self, position: int) -> np.ndarray:
        """The frame at a position. Raises Missing."""
        follower = self.follower()
        found = follower.scan.frame(position)
        if np.isnan(found).all():
            raise Missing(self.why_missing(position))
        return found

    def follower(self) -> Follower:
        """The recorded frames, cut and corrected as they are mapped. Raises Missing."""
        start = self.folder.started
        if not self.folder.path.exists() or start is None or start.frame_shape is None:
            raise Missing(
                "the frames are not there any more (watch --keep-frames keeps them)" if self.final else "no frame has come yet"
            )
        if self._follower is None:
            self._follower = Follower(self.folder, Asked.read(self.run).scan(self.folder))
        self._follower.advance()
        return self._follower

    def ledger(self) -> Any:
        """The ledger, looked at now and then."""
        at, known = self._ledger
        if known is None or time.time() - at > LEDGER_S:
            self._ledger = time.time(), ledger_of(self.folder)
        return self._ledger[1]

    def why_missing(self, position: int) -> str:
        """Why there is no frame at a position."""
        ledger = self.ledger()
        if not 0 <= position < len(ledger.status):
            return f"the scan has {len(ledger.status)} positions, got {position}"
        status = int(ledger.status[position])
        if status == LOST:
            return f"the frame was lost: {ledger.reasons[int(ledger.reason[position])]}"
        return "the frame has not come yet" if status not in (RECEIVED, LATE) else "the frame is not readable"


class LiveRun:
    """A run folder (see `provider.Provider`)."""

    live = True

    def __init__(self, root: str | Path) -> None:
        self.run = RunFolder(Path(root))
        self._scans: dict[int, _Scan] = {}
        self._lock = threading.RLock()

    def _scan(self, number: int | None) -> _Scan:
        folders = {one.number: one for one in self.run.scans()}
        if not folders and not self._scans:
            raise Missing("no scan has begun yet")
        wanted = max([*folders, *self._scans]) if number is None else number
        if wanted not in self._scans:
            if wanted not in folders:
                raise Missing(f"there is no scan {wanted}; there are: {', '.join(map(str, folders))}")
            self._scans[wanted] = _Scan(self.run, folders[wanted])
        return self._scans[wanted]

    def status(self, scan: int | None = None) -> dict[str, Any]:
        """See `provider.Provider`."""
        with self._lock:
            parts = {name: self._part(name) for name in ("receiver", "mapper", "trainer", "server")}
            parts = {name: said for name, said in parts.items() if said}
            receiver, mapper = parts.get("receiver", {}), parts.get("mapper", {})
            found = {**NOTHING, "title": self.run.path.name, "parts": parts, "control": self.run.control}
            found |= {"latency_ms": mapper.get("latency_ms"), "model_version": mapper.get("version")}
            try:
                one = self._scan(scan)
            except Missing:
                return found
            start = one.folder.started
            found["scan"], found["scans"] = one.folder.number, [self._line(f) for f in self.run.scans()]
            if start is not None:
                found |= {"frame_shape": start.frame_shape, "modality": start.modality, "title": start.scan}
            found["state"] = self._state(one)
            current = receiver.get("scan") == one.folder.number
            found["ledger"] = (receiver.get("counts") if current else None) or read_json(one.folder.path / "ledger.json")
            found["rates"] = {
                "received_hz": receiver.get("rate_hz", 0) if current else 0,
                "mapped_hz": mapper.get("rate_hz", 0) if current else 0,
            }
            try:
                shown = one.refresh()
            except Missing:
                return found
            found["mapped"] = (
                int(np.isfinite(next(iter(shown.values.values()))).sum()) if "row" not in shown.dims else mapper.get("mapped", 0)
            )
            found |= {"history": one.read, "provenance": shown.attributes}
            for name in ("modality", "method", "title"):
                found[name] = shown.attributes.get(name, found[name])
            return found

    def _part(self, name: str) -> dict[str, Any]:
        said = self.run.reported(name)
        return {**said, "alive": time.time() - float(said["time"]) < ALIVE_S} if said else {}

    def _state(self, one: _Scan) -> str:
        if one.folder.done is not None:
            return "done"
        if self.run.control.get("paused"):
            return "paused"
        return "ended" if one.folder.ended is not None else "running"

    def _line(self, folder: ScanFolder) -> dict[str, Any]:
        start = folder.started
        state = "done" if folder.done is not None else "ended" if folder.ended is not None else "running"
        return {
            "number": folder.number,
            "name": start.scan if start else "",
            "shape": list(start.shape) if start else [],
            "state": state,
        }

    def shown(self, scan: int | None = None) -> Shown:
        """See `provider.Provider`."""
        with self._lock:
            return self._scan(scan).refresh()

    def changes(self, since: int, scan: int | None = None) -> np.ndarray | None:
        """See `provider.Provider`."""
        with self._lock:
            one = self._scan(scan)
            one.refresh()
            return one.changed(since)

    def history(self, variable: str, at: int, scan: int | None = None) -> np.ndarray:
        """See `provider.Provider`."""
        with self._lock:
            one = self._scan(scan)
            shown = one.refresh()
            about = read_json(one.folder.path / "map.json") or {}
            if not about.get("from_log") or not one.folder.path.exists():
                raise Missing("this map has no history: its points do not come from one frame each")
            records = one.folder.results.records()[: max(0, at)]
            column = "version" if variable == VERSION else variable
            if column not in (records.dtype.names or ()) or column in [n for n, _ in FIXED if n not in ("flag", "version")]:
                raise Missing(f"the map has no variable '{variable}'")
            found = np.full(len(shown.values["flag"]), 1.0 if variable == "flag" else np.nan)
            found[records["position"]] = records[column]
            return found

    def frame(self, position: int, scan: int | None = None) -> np.ndarray:
        """See `provider.Provider`."""
        with self._lock:
            try:
                return self._scan(scan).frame(position)
            except (InputError, OSError) as error:
                raise Missing(str(error)) from None

    def curve(self, row: int, column: int, scan: int | None = None) -> dict[str, Any]:
        """See `provider.Provider`."""
        with self._lock:
            return curve(self._scan(scan).follower().scan, row, column)

    def ledger(self, scan: int | None = None) -> dict[str, Any]:
        """See `provider.Provider`."""
        with self._lock:
            one = self._scan(scan)
            if one.final is not None and not one.folder.path.exists():
                return one.final.ledger()
            found = one.ledger()
            return {
                **found.counts(),
                "status": found.status,
                "words": list(WORDS),
                "reason": found.reason,
                "reasons": found.reasons,
            }

    def drawn(self, scan: int | None = None) -> tuple[xr.Dataset, Scan | None]:
        """See `provider.Provider`."""
        with self._lock:
            one = self._scan(scan)
            one.refresh()
            if one.final is None:
                raise Missing("pictures are drawn of the map file, when the scan is over")
            return one.final.drawn()

    def training(self) -> list[dict[str, Any]]:
        """See `provider.Provider`."""
        return history(self.run)

    def control(self, document: Any) -> dict[str, Any]:
        """See `provider.Provider`."""
        if not self.run.path.exists():
            raise Missing("the run is over")
        with self._lock:  # what is asked for is added to what was
            self._check_thresholds(checked(document).get("thresholds") or {})
            return ask(self.run, document)

    def _check_thresholds(self, asked: dict[str, Any]) -> None:
        """Raise InputError for a threshold of what the map has not; before there is a map nobody knows."""
        try:
            known = self._scan(None).refresh().values
        except Missing:
            return
        for name in asked:
            if name not in known:
                raise InputError(f"the map has no variable '{name[:40]}'; it has: {', '.join(known)}")
