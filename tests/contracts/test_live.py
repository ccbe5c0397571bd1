"""Every method through the live mapper: the map is that of the offline run, for shuffled frames with losses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from braggscope.app.live.asked import Asked
from braggscope.app.live.scan_mapping import ScanMapper, map_scan
from braggscope.core.learned import Learned
from braggscope.core.maps import load, load_ledger
from braggscope.core.model import save_model
from braggscope.core.scan import Axis
from braggscope.engine.local import run
from braggscope.live.frame_log import FrameWriter
from braggscope.live.messages import Frame, Start
from braggscope.live.recorded import recorded_scan
from braggscope.live.run_folder import RunFolder, write_json

from .discovered import METHOD_NAMES, METHODS, prepared, simulation

STAY = 1e-9  # relative to the largest value: sums in another order


def recorded(root, source):
    """A run folder with the frames of a source: 5 % lost, shuffled, in pieces, ended."""
    folder = RunFolder(root)
    root.mkdir()
    axes = tuple(Axis(str(n), source.grid[n].values, str(source.grid[n].attrs.get("units", ""))) for n in source.grid.dims)
    batches = list(source.batches())
    index, frames = np.concatenate([b.index for b in batches]), np.concatenate([b.frames for b in batches])
    random = np.random.default_rng(4)
    kept = random.permutation(np.flatnonzero(random.random(len(index)) > 0.05))
    start = Start(
        "scan", axes, source.frame_shape, frames.dtype.str, modality=source.modality, geometry=source.geometry.to_mapping()
    )
    scan = folder.next_scan(start)
    writer = FrameWriter(scan.path, source.frame_shape, frames.dtype)
    for part in np.array_split(kept, 7):
        writer.append([Frame(int(i), frames[i]) for i in part], [int(index[i]) for i in part], [False] * len(part))
    writer.close()
    write_json(scan.path / "end.json", {"reason": "complete", "frames": len(kept), "time": 0.0})
    return folder, scan


@pytest.mark.parametrize(("modality", "method"), METHODS, ids=METHOD_NAMES)
def test_the_live_map_is_the_offline_map(modality, method, tmp_path):
    source, ready = simulation(modality, method), prepared(modality, method)
    folder, scan = recorded(tmp_path / "m.h5.live", source)
    options, model = dict(modality.example_options.get(method, {})), None
    if isinstance(ready, Learned):
        model, options = str(tmp_path / "model.safetensors"), {}
        save_model(ready.model, tmp_path / "model.safetensors")
    asked = Asked("replay:x", str(tmp_path / "m.h5"), method=None if model else method, model=model, options=options)
    map_scan(ScanMapper(folder, scan, asked))
    offline_source, _, estimator = asked.parts(recorded_scan(scan), ready.model if model else None)
    *_, last = run(offline_source, estimator.prepare(offline_source))
    live, offline = load(tmp_path / "m.h5"), estimator_map(estimator, offline_source, last)
    exact = estimator.per_frame and not estimator.prepares_on_scan
    for name in offline.data_vars:
        if name == "flag":
            continue
        a, b = live[name].values, offline[name].values
        if exact:
            assert np.array_equal(a, b, equal_nan=True), name
        else:
            scale = np.nanmax(np.abs(b), initial=0.0)
            assert np.allclose(a, b, rtol=STAY, atol=STAY * scale, equal_nan=True), name
    counts = load_ledger(tmp_path / "m.h5")["counts"]
    assert counts["received"] == len(scan.frames)
    assert counts["received"] + counts["waiting"] == int(np.prod(source.shape))


def estimator_map(estimator, source, progress):
    """The map of a state by the method prepared on the same source."""
    return dataclasses.replace(estimator.prepare(source)).result(progress.state)
