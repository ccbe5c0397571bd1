"""A run as Bluesky documents (event-model 1), for what listens to those: start, descriptor, one event for each result, stop.

An event holds what was mapped at one position: each quantity with its standard deviation, the flag, the position of each
motor. The documents of a finished map are the same without the times of the frames.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from braggscope.core import maps
from braggscope.live.result_log import FIXED
from braggscope.live.run_folder import RunFolder, ScanFolder, read_json

from .shown import Shown

Document = tuple[str, dict[str, Any]]
PAGE = 512  # events in one page
POLL_S = 0.1


def subscribe(
    run: str | Path, callback: Callable[[str, dict[str, Any]], None], *, stop: Callable[[], bool] = lambda: False
) -> None:
    """Call back with (name, document) for each document of the last scan of a run, until it is mapped or `stop` says so."""
    for name, document in documents(run, stop=stop):
        callback(name, document)


def documents(run: str | Path, *, stop: Callable[[], bool] = lambda: False) -> Iterator[Document]:
    """The documents of the last scan of a run folder, as its results come; or those of a map file.

    Only methods whose points come from one frame each have events while the scan runs.
    """
    path = Path(run)
    yield from _of_map(path) if path.is_file() else _of_run(RunFolder(path), stop)


def write(run: str | Path, file: TextIO) -> int:
    """Write the documents as lines of JSON; how many."""
    lines = [json.dumps([name, document]) + "\n" for name, document in documents(run)]
    file.writelines(lines)
    return len(lines)


def _of_run(run: RunFolder, stop: Callable[[], bool]) -> Iterator[Document]:
    while not (run.scans() and read_json(run.scans()[-1].path / "map.json")):
        if stop():
            return
        time.sleep(POLL_S)
    folder = run.scans()[-1]
    about, start = read_json(folder.path / "map.json"), folder.started
    assert start is not None
    started = _start(start.scan, about["attributes"], [a.name for a in start.axes], start.shape)
    yield "start", started
    motors = {a.name: (np.asarray(a.values, float), a.unit) for a in start.axes}
    units = {v["name"]: v["units"] for v in about["variables"]}
    descriptor = _descriptor(started["uid"], units, {name: unit for name, (_, unit) in motors.items()})
    yield "descriptor", descriptor
    read, events = 0, 0
    while True:
        over = folder.done is not None or not folder.path.exists() or stop()  # the folder goes when the map is written
        records = folder.results.records(read)
        read += len(records)
        for first in range(0, len(records), PAGE):
            page = _page(records[first : first + PAGE], descriptor, motors, start.shape, events)
            events += len(page["seq_num"])
            yield "event_page", page
        if over and not len(records):
            break
        time.sleep(POLL_S if not len(records) else 0)
    yield "stop", _stop(started["uid"], folder, events)


def _of_map(path: Path) -> Iterator[Document]:
    dataset = maps.load(path)
    shown = Shown.of(dataset)
    started = _start(path.name, shown.attributes, list(shown.dims), shown.shape)
    yield "start", started
    motors = {axis["name"]: (np.asarray(axis["values"]), axis["unit"]) for axis in shown.axes}
    units = {name: v.units for name, v in shown.variables.items()}
    descriptor = _descriptor(started["uid"], units, {name: unit for name, (_, unit) in motors.items()})
    yield "descriptor", descriptor
    points = math.prod(shown.shape)
    names = [n for n in shown.values if n != "flag"]
    records = np.zeros(points, np.dtype([*FIXED, *((n, "<f8") for n in names)]))
    records["position"], records["flag"], records["mapped"] = np.arange(points), shown.values["flag"], time.time()
    for name in names:
        records[name] = shown.values[name]
    for first in range(0, points, PAGE):
        yield "event_page", _page(records[first : first + PAGE], descriptor, motors, shown.shape, first)
    yield "stop", _stop(started["uid"], None, points)


def _start(scan: str, attributes: dict[str, Any], dims: list[str], shape: tuple[int, ...]) -> dict[str, Any]:
    """The document of the beginning."""
    kept = {f"braggscope_{n}": attributes[n] for n in ("modality", "method", "version", "input_file") if n in attributes}
    return {
        "uid": str(uuid.uuid4()), "time": time.time(), "scan_id": 1, "plan_name": "braggscope", "sample": scan, "motors": dims,
        "shape": list(shape), "num_points": math.prod(shape), **kept,
    }  # fmt: skip


def _descriptor(start: str, units: dict[str, str], motors: dict[str, str]) -> dict[str, Any]:
    """What an event holds."""
    keys: dict[str, Any] = {
        name: {"source": f"braggscope:{name}", "dtype": "integer" if name == "flag" else "number", "shape": [], "units": unit}
        for name, unit in {**units, **motors}.items()
    }
    return {
        "uid": str(uuid.uuid4()),
        "time": time.time(),
        "run_start": start,
        "name": "primary",
        "data_keys": keys,
        "configuration": {},
        "hints": {"braggscope": {"fields": list(units)}},
        "object_keys": {"braggscope": list(keys)},
    }


def _page(
    records: np.ndarray,
    descriptor: dict[str, Any],
    motors: dict[str, tuple[np.ndarray, str]],
    shape: tuple[int, ...],
    before: int,
) -> dict[str, Any]:
    """Some results as a page of events."""
    index = np.unravel_index(records["position"], shape)
    data: dict[str, list[Any]] = {n: values[i].tolist() for (n, (values, _)), i in zip(motors.items(), index, strict=True)}
    for name in descriptor["data_keys"]:
        if name in (records.dtype.names or ()):
            data[name] = [None if isinstance(v, float) and not math.isfinite(v) else v for v in records[name].tolist()]
    times = records["mapped"].tolist()
    keys = [name for name in descriptor["data_keys"] if name in data]
    return {
        "uid": [str(uuid.uuid4()) for _ in times], "time": times, "descriptor": descriptor["uid"],
        "seq_num": list(range(before + 1, before + 1 + len(times))), "data": {k: data[k] for k in keys},
        "timestamps": {k: times for k in keys}, "filled": {},
    }  # fmt: skip


def _stop(start: str, folder: ScanFolder | None, events: int) -> dict[str, Any]:
    """The document of the end."""
    reason = str((folder.ended or {}).get("reason", "complete")) if folder is not None else "complete"
    return {
        "uid": str(uuid.uuid4()), "time": time.time(), "run_start": start, "reason": reason, "num_events": {"primary": events},
        "exit_status": "success" if reason == "complete" else "abort",
    }  # fmt: skip
