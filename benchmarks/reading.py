"""Reading: a stack that is larger than memory at the disk's speed, a compressed nanobeam scan, and how soon `info` answers.

Makes its files in --folder (needs room for --gigabytes) and removes them. The page cache is emptied of a file before each pass
over it, so that the disk is what is measured.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from braggscope.core.source import open_scan

INFO = "from braggscope.core.source import open_scans; import sys; print(open_scans(sys.argv[1]))"


def fastest(work: Callable[[], object], repeat: int, path: Path | None = None) -> float:
    """Seconds of the fastest of some runs, each with the file out of the page cache."""
    times = []
    for _ in range(repeat):
        if path is not None:
            with open(path, "rb") as file:
                os.fsync(file)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def raw(path: Path) -> None:
    """Read a file from end to end into one buffer."""
    buffer = bytearray(2**26)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def through(path: Path) -> None:
    """All batches of a scan."""
    for batch in open_scan(path).batches():
        batch.frames.max()


def write_stack(path: Path, gigabytes: float) -> None:
    """An uncompressed stack of 2048 x 2048 frames."""
    frame = np.random.default_rng(0).integers(90, 4000, (2048, 2048)).astype(np.uint16)
    count = max(2, round(gigabytes * 1e9 / frame.nbytes))
    with h5py.File(path, "w") as file:
        data = file.create_dataset("entry/data/data", (count, *frame.shape), np.uint16)
        for number in range(count):
            data[number] = frame


def write_nanobeam(path: Path, shape: tuple[int, int], **compression: object) -> None:
    """Photon counts of 64 x 64 pixels at 7 counts peak, chunks of 64 frames."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "entry/data/data", (*shape, 64, 64), np.uint16, chunks=(1, min(64, shape[1]), 64, 64), **compression
        )
        for line in range(shape[0]):
            data[line] = rng.poisson(1.5, (shape[1], 64, 64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to make the files; by default a temporary one")
    parser.add_argument("--gigabytes", type=float, default=4, help="size of the uncompressed stack")
    parser.add_argument("--repeat", type=int, default=2, help="the fastest counts")
    parser.add_argument("--data", type=Path, help="folder with dfxm/id03_rocking_mu_fatigue.h5, for the time of `info`")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        path = Path(name) / "stack.h5"
        write_stack(path, given.gigabytes)
        size = path.stat().st_size / 1e9
        disk, ours = fastest(lambda: raw(path), given.repeat, path), fastest(lambda: through(path), given.repeat, path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        rows.append((f"stack of {size:.1f} GB, disk alone (GB/s)", "", size / disk))
        rows.append(("all its batches, over disk alone", ">= 0.5", disk / ours))
        rows.append(("peak memory (GB)", "<= 1.5", peak))
        path.unlink()
        for label, compression in (
            ("gzip", {"compression": "gzip", "compression_opts": 4}),
            ("bitshuffle LZ4", hdf5plugin.Bitshuffle()),
        ):
            film = Path(name) / "film.h5"
            write_nanobeam(film, (165, 165), **dict(compression))
            rows.append((f"165 x 165 frames of 64 x 64, {label} (s)", "<= 3", fastest(partial(through, film), given.repeat)))
            film.unlink()
    if given.data:
        command = [sys.executable, "-c", INFO, str(given.data / "dfxm/id03_rocking_mu_fatigue.h5")]
        seconds = fastest(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), 5)
        rows.append(("opening an ID03 file, whole process (s)", "<= 0.5", seconds))
    print(f"{'':52} target | measured")
    for label, target, value in rows:
        print(f"{label:52} {target:>6} | {value:.2f}")


if __name__ == "__main__":
    main()
