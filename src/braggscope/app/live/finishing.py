"""The map of a live scan as a file: what an offline run would give, with the ledger, the versions and the latency beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from braggscope.core import maps
from braggscope.live.ledger import LOST, WORDS, Ledger, read_ledger
from braggscope.live.run_folder import ScanFolder, read_json

NO_VERSION = -1


def ledger_of(folder: ScanFolder) -> Ledger:
    """The ledger of a scan from what is on the disk."""
    start = folder.started
    assert start is not None
    return read_ledger(folder.path, folder.records, start.points, start.planned)


def figures(folder: ScanFolder) -> dict[str, Any]:
    """What became of the frames of a scan: the ledger's counts, rate and latency (mapped - sent, else mapped - received; ms)."""
    counts = ledger_of(folder).counts()
    return {**counts, "rate_hz": _rate(folder), "latency_ms": latency(folder)}


def latency(folder: ScanFolder) -> dict[str, float | None]:
    """Median and 99th percentile of the time from a frame to its first place in the map."""
    records, frames = folder.results.records(), folder.records
    if not len(records) or not len(frames):
        return {"p50": None, "p99": None}
    _, first = np.unique(records["position"], return_index=True)
    points = int(max(records["position"].max(), frames["position"].max())) + 1
    mapped = np.full(points, np.nan)
    mapped[records["position"][first]] = records["mapped"][first]
    came = np.where(np.isfinite(frames["sent"]), frames["sent"], frames["received"])
    spent = 1e3 * (mapped[frames["position"]] - came)
    spent = spent[np.isfinite(spent)]
    if not len(spent):
        return {"p50": None, "p99": None}
    return {"p50": round(float(np.percentile(spent, 50)), 3), "p99": round(float(np.percentile(spent, 99)), 3)}


def _rate(folder: ScanFolder) -> float:
    kept = read_json(folder.path / "ledger.json") or {}
    return float(kept.get("rate_hz", 0.0))


def with_ledger(dataset: xr.Dataset, folder: ScanFolder, outside: np.ndarray) -> xr.Dataset:
    """A map over the scan's positions whose flag says which frames were lost, and which were left out of the region.

    outside: Booleans over flat positions. A map over detector pixels stays as it is.
    """
    start = folder.started
    assert start is not None
    if dataset["flag"].size != start.points or dataset["flag"].dims != tuple(a.name for a in start.axes):
        return dataset
    lost = (ledger_of(folder).status == LOST).reshape(dataset["flag"].shape)
    added = {
        word: where for word, where in {"frame_lost": lost, "outside_region": outside.reshape(lost.shape)}.items() if where.any()
    }
    return dataset.assign(flag=maps.carried_flag(dataset, added)) if added else dataset


def with_versions(dataset: xr.Dataset, folder: ScanFolder) -> xr.Dataset:
    """A map with the version of the model by which each point was mapped (0: the one that the run began with; -1: none)."""
    records = folder.results.records()
    version = np.full(dataset["flag"].size, NO_VERSION, np.int32)
    version[records["position"]] = records["version"]  # in order: the last one holds
    values = version.reshape(dataset["flag"].shape)
    about = {"units": "1", "long_name": "version of the model that mapped the point (-1: none)"}
    return dataset.assign(model_version=(dataset["flag"].dims, values, about))


def ledger_arrays(folder: ScanFolder) -> dict[str, Any]:
    """The ledger as `maps.save` stores it."""
    start, ledger = folder.started, ledger_of(folder)
    assert start is not None
    return {
        "status": ledger.status.reshape(start.shape),
        "status_words": list(WORDS),
        "reason": ledger.reason.reshape(start.shape),
        "reasons": list(ledger.reasons),
        "counts": figures(folder),
    }
