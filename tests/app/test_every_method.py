"""The whole way through the program, for every modality and method that there is: simulate, map, resume, report."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import xarray as xr

import braggscope
from braggscope.app.mapping import map_source
from braggscope.core.curves import pixel_blocks
from braggscope.core.errors import BraggscopeError
from braggscope.core.modality import modalities
from braggscope.core.scan import Scan

METHODS = [(kind.name, method) for kind in modalities().values() for method in kind.methods()]


def options_of(name, method):
    """Options with which a method that learns does so in seconds."""
    return modalities()[name].example_options.get(method, {})


@pytest.fixture(scope="module")
def scan_of(tmp_path_factory):
    """Makes the small simulated scan file of a modality, or the one that a method has instead."""
    folder = tmp_path_factory.mktemp("scans")

    def file(name, method):
        kind = modalities()[name]
        own = kind.example_scans.get(method, {})
        path = folder / (f"{name}_{method}.h5" if own else f"{name}.h5")
        if not path.exists():
            braggscope.simulate(name, output=path, progress=False, seed=3, **{**kind.example_phantom, **own})
        return path

    return file


@pytest.mark.parametrize(("modality", "method"), METHODS)
def test_map_and_report(cli, scan_of, tmp_path, modality, method):
    scan, out = scan_of(modality, method), tmp_path / "m.h5"
    words = [f"--option={name}={value}" for name, value in options_of(modality, method).items()]
    code, said, wrong = cli("map", scan, "--method", method, "-o", out, "--json", "--workers", 1, *words)
    assert (code, wrong) == (0, "")
    numbers = json.loads(said)
    first = next(iter(numbers["quantities"]))
    found = np.isfinite(braggscope.load(out)[first].values).sum()  # a network of a few epochs explains no frame, and says so
    assert (found if numbers["uncalibrated_because"] else numbers["good"]) > 0.5 * numbers["points"]
    assert numbers["uncalibrated_because"] or all(
        f"{name}_std" in braggscope.load(out) for name in numbers["quantities"] if name != "reduced_deviance"
    )
    page = tmp_path / "r.html"
    code, _, wrong = cli("report", out, "--scan", scan, "-o", page)
    assert (code, wrong) == (0, "")
    assert page.read_text().count("<img ") >= 1


@pytest.mark.parametrize(("modality", "method"), METHODS)
def test_a_resumed_map_is_the_map(scan_of, tmp_path, monkeypatch, modality, method):
    """Reading breaks off in the middle; what was done and the rest together are the whole, bit for bit."""
    scan, options = braggscope.open(scan_of(modality, method)), options_of(modality, method)
    frames = modalities()[modality].estimator(method).reads == "frames"
    size = math.prod(scan.shape if frames else scan.frame_shape) // 5
    monkeypatch.setattr("braggscope.engine.local.BATCH_FRAMES", size)
    original, breaking = Scan.batches, [False]

    def batches(self, wanted=None, *, only=None):
        for i, batch in enumerate(original(self, wanted, only=only)):
            if breaking[0] and wanted == size and i == 2:
                raise OSError("gone")
            yield batch

    def blocks(*given):
        for i, block in enumerate(pixel_blocks(*given, size=size)):
            if breaking[0] and i == 2:
                raise OSError("gone")
            yield block

    monkeypatch.setattr(Scan, "batches", batches)
    monkeypatch.setattr("braggscope.engine.local.pixel_blocks", blocks)
    whole = map_source(scan, method, options=options, workers=1, progress=False)
    breaking[0] = True
    with pytest.raises(BraggscopeError, match=rf"gone; .* holds {2 * size} of"):
        map_source(scan, method, options=options, workers=1, output=tmp_path / "m.h5", progress=False)
    assert np.isfinite(braggscope.load(tmp_path / "m.h5")["flag"]).all()
    breaking[0] = False
    resumed = map_source(scan, method, options=options, workers=1, output=tmp_path / "m.h5", resume=True, progress=False)
    for dataset in (whole, resumed):
        for name in ("created", "seconds", "command"):
            del dataset.attrs[name]
    xr.testing.assert_identical(resumed, whole)
