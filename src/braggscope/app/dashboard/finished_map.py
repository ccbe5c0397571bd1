"""A finished map file, with the frames of its scan where that is given."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from braggscope.core import maps
from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from ..reopening import reopen
from .frames import curve
from .provider import Missing
from .shown import Shown


class FinishedMap:
    """A map file (see `provider.Provider`)."""

    live = False

    def __init__(self, path: str | Path, scan: str | Path | None = None) -> None:
        """Read the map. Raises InputError where it is none, or the scan is not that of the map."""
        self.path = Path(path)
        dataset = maps.load(self.path)
        self._dataset, self._shown = dataset, Shown.of(dataset, count=1)
        self._ledger = maps.load_ledger(self.path)
        self._scan = None if scan is None else reopen(dataset, scan)
        self._lock = threading.Lock()  # one HDF5 read at a time

    def status(self, scan: int | None = None) -> dict[str, Any]:
        """See `provider.Provider`."""
        shown, attrs = self._shown, self._shown.attributes
        rows_columns = list(self._scan.frame_shape) if self._scan is not None else None
        name = self.path.name
        return {
            "live": False,
            "state": "done",
            "modality": attrs.get("modality"),
            "method": attrs.get("method"),
            "title": attrs.get("title", name),
            "scans": [{"number": 1, "name": name, "shape": list(shown.shape), "state": "done"}],
            "scan": 1,
            "frames": self._scan is not None,
            "frame_shape": rows_columns,
            "ledger": (self._ledger or {}).get("counts"),
            "rates": None,
            "latency_ms": ((self._ledger or {}).get("counts") or {}).get("latency_ms"),
            "mapped": attrs.get("frames_used", attrs.get("pixels_used")),
            "model_version": None,
            "parts": {},
            "control": None,
            "history": 0,
            "provenance": attrs,
        }

    def shown(self, scan: int | None = None) -> Shown:
        """See `provider.Provider`."""
        return self._shown

    def changes(self, since: int, scan: int | None = None) -> np.ndarray | None:
        """See `provider.Provider`."""
        return np.zeros(0, np.int64) if since >= self._shown.count else None

    def history(self, variable: str, at: int, scan: int | None = None) -> np.ndarray:
        """See `provider.Provider`."""
        raise Missing("a finished map has no history; that of a live run is in its folder (watch --keep-frames)")

    def frame(self, position: int, scan: int | None = None) -> np.ndarray:
        """See `provider.Provider`."""
        if self._scan is None:
            raise Missing("no frames: the scan file was not given (view MAP --scan FILE)")
        if "row" in self._shown.dims:
            raise Missing("the map is over detector pixels; its curve is at curves/ROW/COLUMN")
        try:
            with self._lock:
                found = self._scan.frame(position)
        except (OSError, InputError) as error:
            raise Missing(f"the frame cannot be read ({error})") from None
        if np.isnan(found).all():
            raise Missing("there is no frame at this position")
        return found

    def curve(self, row: int, column: int, scan: int | None = None) -> dict[str, Any]:
        """See `provider.Provider`."""
        if self._scan is None:
            raise Missing("no curves: the scan file was not given (view MAP --scan FILE)")
        with self._lock:
            return curve(self._scan, row, column)

    def ledger(self, scan: int | None = None) -> dict[str, Any]:
        """See `provider.Provider`."""
        if self._ledger is None:
            raise Missing("the map is not of a live scan, it has no ledger")
        return {
            **self._ledger["counts"],
            "status": np.asarray(self._ledger["status"]).ravel(),
            "words": self._ledger["status_words"],
            "reason": np.asarray(self._ledger["reason"]).ravel(),
            "reasons": self._ledger["reasons"],
        }

    def drawn(self, scan: int | None = None) -> tuple[xr.Dataset, Scan | None]:
        """See `provider.Provider`."""
        return self._dataset, self._scan

    def training(self) -> list[dict[str, Any]]:
        """See `provider.Provider`."""
        return []

    def control(self, document: Any) -> dict[str, Any]:
        """See `provider.Provider`."""
        raise Missing("this is a finished map; nothing runs that could be asked")
