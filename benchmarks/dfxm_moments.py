"""DFXM moments: against np.sum in memory, against the disk for a file larger than memory, and against darling's moments.

    python benchmarks/dfxm_moments.py                        the stack in memory
    python benchmarks/dfxm_moments.py --size-gb 16           also a file of this size, written and deleted in --folder
    python benchmarks/dfxm_moments.py --data ../shared/data  also raw moments of the two real scans

The in-memory time is that of init + update + result, with pedestal and error bars, after one call that loads the compiled code.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from braggscope.core.batch import Batch
from braggscope.core.simulation import Simulation
from braggscope.modalities.dfxm.estimators.moments import Moments

MEMORY_GB = 1.5


def fastest(work: Callable[[], object], repeat: int) -> float:
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def rocking_stack(points: int, rows: int, columns: int) -> np.ndarray:
    """Counts of a rocking scan: Gaussian peaks on a pedestal of 100, gain 2, read-out noise 3."""
    random = np.random.default_rng(0)
    u = np.arange(points) - (points - 1) / 2
    mean = random.uniform(-0.25, 0.25, (rows, columns)).astype(np.float32) * points / 2
    stack = np.empty((points, rows, columns), np.uint16)
    for i in range(points):
        photons = random.poisson(800 * np.exp(-0.5 * ((u[i] - mean) / (0.07 * points)) ** 2))
        stack[i] = np.round(100 + 2 * photons + random.normal(0, 3, mean.shape)).clip(0)
    return stack


def in_memory(repeat: int) -> None:
    stack = rocking_stack(41, 1024, 1024)
    grid = xr.Dataset(coords={"mu": (("mu",), np.linspace(0.0, 0.4, 41), {"units": "deg"})})
    source = Simulation(None, grid, (1024, 1024), lambda index: None, xr.Dataset(), None)  # type: ignore[arg-type, return-value]
    estimator, batch = Moments(None), Batch(np.arange(41), stack)

    def moments() -> xr.Dataset:
        return estimator.result(estimator.update(estimator.init(source), batch))

    moments()
    ours, whole, along = [], [], []
    for _ in range(repeat):  # in turn, so that a busy machine is busy for all three
        ours.append(fastest(moments, 1))
        whole.append(fastest(lambda: np.sum(stack), 1))
        along.append(fastest(lambda: np.sum(stack, axis=0), 1))
    a, b, c = min(ours), min(whole), min(along)
    print(f"1024 x 1024 x 41 uint16, {len(os.sched_getaffinity(0))} cores, fastest of {repeat}")
    print("                                    target | measured")
    print(f"moments / np.sum(stack)             <= 3.0 | {a / b:5.2f}   ({a * 1e3:.1f} ms / {b * 1e3:.1f} ms)")
    print(f"moments / np.sum(stack, axis=0)            | {a / c:5.2f}   ({c * 1e3:.1f} ms)")
    print("published for raw moments: darling 4.9, darfix 21 times np.sum")


def write_file(path: Path, size_gb: float) -> int:
    """A generic scan file of about this size, uncompressed; returns its number of frames."""
    import h5py

    block = rocking_stack(32, 1024, 1024)
    frames = max(64, int(size_gb * 1e9 / block[0].nbytes) // 32 * 32)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("entry/data/data", (frames, 1024, 1024), np.uint16)
        for start in range(0, frames, 32):
            data[start : start + 32] = block
        axis = file.create_dataset("entry/data/mu", data=np.linspace(0, 1, frames))
        axis.attrs["units"] = "deg"
        file["entry"].attrs["NX_class"] = "NXentry"
        file["entry/data"].attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["mu", ".", "."]})
    return frames


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cold_read(path: Path) -> float:
    """Bytes per second of a plain sequential read from disk."""
    forget(path)
    start, count = time.perf_counter(), 0
    with open(path, "rb", buffering=0) as file:
        while got := file.read(64 * 2**20):
            count += len(got)
            os.posix_fadvise(file.fileno(), 0, count, os.POSIX_FADV_DONTNEED)
    return count / (time.perf_counter() - start)


def one_pass(path: str) -> None:
    """In a process of its own: map the file with the engine under the memory limit, print seconds and peak memory."""
    from braggscope.core.source import open_scan
    from braggscope.engine.local import run

    limit = int(MEMORY_GB * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    start = time.perf_counter()
    scan, estimator = open_scan(path), Moments(None)
    for progress in run(scan, estimator):
        state = progress.state
    result = estimator.result(state)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": seconds, "peak_gb": peak, "mean": float(result["mu"].mean())}))


def larger_than_memory(folder: Path, size_gb: float) -> None:
    path = folder / "braggscope_benchmark_dfxm.h5"
    try:
        frames = write_file(path, size_gb)
        size = path.stat().st_size
        before = cold_read(path)
        forget(path)
        done = subprocess.run([sys.executable, __file__, "--one-pass", str(path)], check=True, capture_output=True, text=True)
        after = cold_read(path)
    finally:
        path.unlink(missing_ok=True)
    got = json.loads(done.stdout.splitlines()[-1])
    disk, rate = max(before, after), size / got["seconds"]
    print(f"{size / 1e9:.1f} GB uncompressed, {frames} frames of 1024 x 1024, one pass")
    print("                                    target | measured")
    print(f"rate / cold reading rate of the disk >= 0.5 | {rate / disk:5.2f}   ({rate / 1e9:.2f} of {disk / 1e9:.2f} GB/s)")
    print(f"peak memory (GB)                    <= {MEMORY_GB} | {got['peak_gb']:5.2f}   (RLIMIT_DATA {MEMORY_GB} GB)")


def real_scans(data: Path) -> None:
    from braggscope.core.source import open_scan

    print("raw moments of real scans, largest difference to darling 1.0.0 / motor step")
    print("                                    target | measured")
    for name, reference in [
        ("id03_rocking_mu_fatigue", "reference_rocking_mu_darling_darfix"),
        ("id03_mosa_domains_111_Al_chi_diffry", "reference_domains_darling"),
    ]:
        scan, known = open_scan(data / "dfxm" / f"{name}.h5"), np.load(data / "dfxm" / f"{reference}.npz")
        estimator = Moments.with_options(None, {"pedestal": "none"})
        state = estimator.init(scan)
        for batch in scan.batches():
            state = estimator.update(state, batch)
        result = estimator.result(state)
        mean = known["mean_raw"].reshape(*scan.frame_shape, -1)
        for i, motor in enumerate(scan.grid.dims):
            axis = scan.grid[motor].values
            step = np.ptp(axis) / (len(axis) - 1)
            worst = np.nanmax(np.abs(result[motor].values - mean[..., i])) / step
            print(f"{name[5:28]:24s}{motor!s:8s} <= 2.0e-05 | {worst:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--size-gb", type=float, help="size of the file for the pass over a file; without it there is none")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where that file is written")
    parser.add_argument("--data", type=Path, help="folder with dfxm/ in it, for the comparison with darling")
    parser.add_argument("--one-pass", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_pass:
        return one_pass(given.one_pass)
    in_memory(given.repeat)
    if given.size_gb:
        larger_than_memory(given.folder, given.size_gb)
    if given.data:
        real_scans(given.data)


if __name__ == "__main__":
    main()
