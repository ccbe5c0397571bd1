"""Files written beside their place: whole or not at all, and the process outlives a full disk."""

from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest

from braggscope.core.beside import written_beside

FULL_MAP = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from braggscope.core.maps import Quantity, empty_map, save
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
dataset = empty_map([Quantity("a", "1", "a")], ("y",), (100_000,), {"y": np.arange(1e5)}, {1: "no_frame"})
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    save(dataset, sys.argv[1], state={"more": np.ones(100_000)})
except OSError as error:
    print(error.strerror)
"""


def test_a_whole_file_takes_its_place(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("before")
    with written_beside(path) as target, h5py.File(target, "w") as file:
        file["x"] = np.arange(5)
    with h5py.File(path) as file:
        assert file["x"][()].tolist() == [0, 1, 2, 3, 4]
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), written_beside(path) as target:
        target.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_a_failed_write_is_raised_at_the_end(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="No space left") as caught, written_beside(tmp_path / "a.h5") as target:
        monkeypatch.setattr(target, "_write_all", lambda view: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with h5py.File(target, "w") as file:
            file["x"] = np.arange(100_000)
            assert file["x"][99_999] in (0, 99_999)  # in the cache, or not written and so zero
    assert caught.value.errno == 28
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [100_000, 2_200_000])
def test_a_full_disk_while_a_map_is_saved_is_an_error_and_no_crash(tmp_path, limit):
    """The map takes 2.0 MB, its state 0.8 MB more: the process may write less than that."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_MAP, str(tmp_path / "a.h5"), str(limit)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("File too large", 0), done.stderr
    assert list(tmp_path.iterdir()) == []
