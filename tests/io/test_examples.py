"""The bundled data open as what they are."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from braggscope.core.source import open_scan

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_rocking_scan():
    scan = open_scan(EXAMPLES / "data/id03_rocking_mu.h5")
    assert scan.title == "fscan mu 0.29 0.001 150 0.5 0.580407"
    assert [(a.name, len(a), a.unit) for a in scan.axes] == [("mu", 150, "deg")]
    assert scan.axes[0].values[[0, -1]] == pytest.approx([0.29039026, 0.4392018], abs=1e-6)  # measured, not planned
    assert scan.frame_shape == (90, 170) and scan.modality == "dfxm" and scan.missing == ()
    assert 2500 < scan.frame(0).min() < 2600  # the pedestal


def test_the_mosaicity_scan():
    scan = open_scan(EXAMPLES / "data/id03_mosa_chi_diffry.h5")
    assert [(a.name, len(a), a.unit) for a in scan.axes] == [("chi", 26, "deg"), ("diffry", 37, "deg")]
    assert scan.frame_shape == (120, 120) and scan.frames.shape[0] == 962 and scan.missing == ()
    assert scan.geometry_values["pixel_um"] == 6.5


def test_the_nanobeam_frames():
    scan = open_scan(EXAMPLES / "data/sriro3_frames.h5")
    assert scan.frames.shape == (2, 64, 64) and scan.frames.dtype == np.uint8 and scan.modality == "nanobeam"
    frames = next(scan.batches()).frames
    assert frames.max() == 7 and not (frames == 1).any()  # clipped, thresholded
    assert set(tomllib.loads((EXAMPLES / "nanobeam_sriro3.toml").read_text())["nanobeam"]) >= {"energy_kev", "stop_um"}


def test_they_are_small_and_say_where_they_are_from():
    files = list((EXAMPLES / "data").iterdir())
    assert sum(f.stat().st_size for f in files) < 8e6
    readme = (EXAMPLES / "data/README.md").read_text()
    assert all(f.name in readme for f in files if f.name != "README.md")


def test_opening_imports_neither_torch_nor_xarray():
    program = (
        "import sys; from braggscope.core.source import open_scans; open_scans(sys.argv[1]);"
        "print([m for m in ('torch', 'xarray', 'matplotlib', 'zarr', 'fabio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(EXAMPLES / "data/id03_rocking_mu.h5")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
