"""A small scan file, and what every test of a transport needs."""

from __future__ import annotations

import dataclasses
import socket
import threading

import numpy as np
import pytest

from braggscope.core.simulation import Simulation
from braggscope.core.source import open_scan
from braggscope.live import playing
from braggscope.live.receiving import receive
from braggscope.live.run_folder import RunFolder, start_document


class Numbered:
    """A source whose frames say their position: every pixel of frame i is i, but for one that tells rows from columns."""

    shape, frame_shape, modality, geometry, provenance = (12, 15), (6, 8), None, None, {}

    def __init__(self):
        import xarray as xr

        axes = {n: ((n,), s * np.arange(k), {"units": "um"}) for n, k, s in (("y", 12, 0.5), ("x", 15, 0.25))}
        self.grid = xr.Dataset(coords=axes)

    def frames(self, index):
        made = np.repeat(index.astype(np.uint16), 48).reshape(-1, 6, 8)
        made[:, 2, 5] = 7
        return made

    def batches(self, size=None, *, only=None):
        from braggscope.core.batch import Batch

        index = np.arange(180)
        yield Batch(index, self.frames(index))


@pytest.fixture(scope="session")
def scan(tmp_path_factory):
    """180 frames of 6 x 8 uint16 over a grid of 12 x 15, as a scan file."""
    path = tmp_path_factory.mktemp("scan") / "numbered.h5"
    Simulation.write(Numbered(), path)
    return open_scan(path)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "m.h5.live"
    folder.mkdir()
    return RunFolder(folder)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def port():
    return free_port()


def planned(scan):
    """What `watch --plan SCAN` knows: the grid, not the frames."""
    start = dataclasses.replace(playing.start_of(scan), expected=None, frame_shape=None, dtype=None, order=None)
    return start_document(start)


@pytest.fixture
def recorded(run, scan):
    """Record from a URL while something is sent; the folder of the scan."""

    def record(url, send=lambda: None, **asked):
        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        asked = {"source": url, "plan": planned(scan), "scans": 1, "timeout_s": 15, "patience_s": 0.5, **asked}
        receive(run, asked, threading.Event())
        sending.join(10)
        return run.scans()[-1]

    return record


def assert_right(folder, schedule, count=180):
    """Every frame stands at its position, and every loss of the schedule is in the ledger."""
    records, frames = folder.frames.records(), folder.frames
    values = frames.read(slice(0, len(frames)), slice(None), slice(None))
    assert (values[:, 0, 0] == records["position"]).all()
    assert (values[:, 2, 5] == 7).all()
    lost = schedule.lost(count)
    assert np.array_equal(np.setdiff1d(np.arange(count), records["position"]), lost)
    import json

    counts = json.loads((folder.path / "ledger.json").read_text())
    assert (counts["expected"], counts["received"], counts["lost"]) == (count, count - len(lost), len(lost))
    assert sum(counts["lost_by_reason"].values()) == len(lost)
    return counts
