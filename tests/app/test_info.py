"""`braggscope info`: files, maps, methods and modalities, at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def test_a_scan_file(cli, scan_file):
    code, said, wrong = cli("info", scan_file())
    assert (code, wrong) == (0, "")
    assert "motor       y: 0 to 2.5 um, 6 points, step 0.5 um" in said
    assert "motor       x: 0 to 3 um, 7 points, step 0.5 um" in said
    assert "42, 5 x 4 pixels (rows x columns), uint16" in said
    assert "modality    tiny" in said
    assert "geometry    gain 1" in said
    assert "missing     nothing" in said


def test_an_aborted_scan_says_what_is_missing(cli, scan_file):
    code, said, _ = cli("info", scan_file(change=lambda counts: counts.reshape(42, 5, 4)[:30]), "--grid", 6, 7)
    assert code == 0
    assert "30 of 42 planned" in said
    assert "missing     nothing" not in said


def test_a_scan_file_as_json(cli, scan_file):
    code, said, _ = cli("info", scan_file(), "--json")
    (scan,) = json.loads(said)["scans"]
    assert code == 0
    assert scan["shape"] == [6, 7]
    assert scan["frame_shape"] == [5, 4]
    assert scan["axes"][1] == {"motor": "x", "unit": "um", "first": 0.0, "last": 3.0, "points": 7, "step": 0.5}
    assert scan["geometry"] == {"gain": 1.0}


def test_a_scanned_motor_is_not_among_those_at_rest():
    from braggscope.app.describing import _still
    from braggscope.core.scan import Axis, Scan

    moved = Scan(Path("s.h5"), "1.1", (Axis("diffry", np.arange(3.0)),), None, np.arange(3), metadata={
        "sample": "Al", "motors": {"diffry": 9.2, "phi": 0.0},
    })  # fmt: skip
    assert _still(moved) == {"sample": "Al", "motors": {"phi": 0.0}}


def test_a_map_file(cli, scan_file, tmp_path):
    cli("map", scan_file(), "-o", tmp_path / "m.h5")
    code, said, _ = cli("info", tmp_path / "m.h5")
    assert code == 0
    assert "tiny map by mean, 6 x 7 points (y, x)" in said
    assert "mean count per pixel, count +- std" in said
    assert "input_file              scan.h5" in said
    found = json.loads(cli("info", tmp_path / "m.h5", "--json")[1])
    assert found["shape"] == {"y": 6, "x": 7}
    assert found["quantities"] == {"level": {"unit": "count", "long_name": "mean count per pixel", "has_std": True}}
    assert found["provenance"]["geometry"] == {"gain": 1.0}


def test_a_method(cli):
    code, said, _ = cli("info", "--method", "mean", "--modality", "tiny")
    assert code == 0
    assert "mean (tiny): mean count per pixel" in said
    assert "pause=0.0 s" in said
    assert "time that a batch takes" in said
    assert "error bars  calibrated" in said
    assert "error bars  no: a maximum has no simple error" in cli("info", "--method", "curve")[1]


def test_a_modality(cli):
    code, said, _ = cli("info", "--modality", "tiny")
    assert code == 0
    assert "phantoms    ramp" in said
    assert "gain (count)" in said


def test_what_there_is(cli):
    code, said, _ = cli("info")
    assert code == 0
    for word in ("tiny: flat frames, for tests", "curve, mean (default)", "HDF5"):
        assert word in said
    assert cli("--version")[1].startswith("braggscope ")


@pytest.mark.parametrize("words", [["--help"], ["map", "--help"], ["info", "SCAN"], ["info", "MAP"], ["info"]])
def test_nothing_heavy_is_imported(cli, scan_file, tmp_path, words):
    scan, made = scan_file(), tmp_path / "m.h5"
    cli("map", scan, "-o", made)
    words = [{"SCAN": str(scan), "MAP": str(made)}.get(word, word) for word in words]
    code = (
        "import sys; from braggscope.app.cli.main import main\n"
        f"assert main({words!r}) == 0\n"
        "print(*(m for m in ('torch', 'xarray', 'matplotlib', 'numba', 'tqdm', 'pandas') if m in sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == ""
    assert ran.stdout


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, braggscope; print(*(m for m in ('torch', 'numpy', 'xarray', 'h5py') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
