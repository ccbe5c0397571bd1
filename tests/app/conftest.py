"""The tiny modality of `site/`, found through its entry point as one of another package would be; and scans of it."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from braggscope.core import modality

collect_ignore = ["site"]
SITE = str(Path(__file__).parent / "site")


@pytest.fixture
def tiny(monkeypatch):
    """The tiny modality, known to this process."""
    monkeypatch.syspath_prepend(SITE)
    modality.modalities.cache_clear()
    yield importlib.import_module("tinyscope").MODALITY
    modality.modalities.cache_clear()


@pytest.fixture
def cli(tiny, capsys, monkeypatch):
    """Call the program in this process: code, standard output, standard error."""
    monkeypatch.delitem(sys.modules, "braggscope.app.cli.main", raising=False)  # its groups are those of when it was imported
    from braggscope.app.cli.main import main

    def call(*words):
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def program(tiny):
    """Start the program as a process of its own, with the tiny modality."""

    def start(*words, first="", **more):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([SITE, os.environ.get("PYTHONPATH", "")])}
        code = f"{first}\nfrom braggscope.app.cli.main import run; run()"
        command = [sys.executable, "-c", code, *(str(word) for word in words)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)

    return start


@pytest.fixture
def scan_file(tmp_path):
    """A generic scan file: 6 x 7 frames of 5 x 4 pixels; `change` may alter the counts and `frames` cut the stack short."""

    def make(name="scan.h5", *, change=None, shape=(6, 7), frame_shape=(5, 4), kind=np.uint16, modality="tiny"):
        path = tmp_path / name
        counts = np.random.default_rng(3).poisson(6.0, (*shape, *frame_shape)).astype(kind)
        if change is not None:
            counts = change(counts)
        with h5py.File(path, "w") as file:
            file["entry/data/data"] = counts
            for axis, (word, size) in enumerate(zip(("y", "x"), shape, strict=True)):
                if axis < counts.ndim - 2:
                    file[f"entry/data/{word}"] = np.arange(size) * 0.5
                    file[f"entry/data/{word}"].attrs["units"] = "um"
            file["entry/data"].attrs["NX_class"] = "NXdata"
            file["entry/data"].attrs["signal"] = "data"
            file["entry/data"].attrs["axes"] = ["y", "x", ".", "."] if counts.ndim == 4 else [".", ".", "."]
            file["entry"].attrs["NX_class"] = "NXentry"
            if modality:
                group = file.create_group("entry/instrument/braggscope")
                group.attrs["modality"] = modality
                group["gain"] = 1.0
        return path

    return make


@pytest.fixture
def refused(cli, tmp_path):
    """Call the program; check that it refuses in one sentence and leaves no new file; give the sentence."""

    def call(*words, code=2):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        got, said, wrong = cli(*words)
        assert (got, said) == (code, "")
        assert re.fullmatch(r"error: [^\n]+\n", wrong), wrong
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return wrong

    return call
