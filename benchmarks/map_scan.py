"""The whole of `braggscope map`: HDF5 in, map file out, in a process of its own; its time and its peak memory.

Simulates a nanobeam scan of 165 x 165 frames of 64 x 64 pixels (the size of the published ones) and maps it by likelihood. The
compiled kernels are cached by the first run, which is therefore slower.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET_S, TARGET_GB = 15.0, 1.5


def program(*words: object) -> tuple[float, float]:
    """Run the program; seconds and peak resident memory in GB."""
    command = [str(Path(sys.executable).with_name("braggscope")), *(str(word) for word in words)]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    scale = 1 if sys.platform == "darwin" else 1024
    return seconds, used.ru_maxrss * scale / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=2, default=(165, 165), help="scan positions")
    parser.add_argument("--method", default="likelihood")
    parser.add_argument("--repeat", type=int, default=3, help="the fastest counts")
    parser.add_argument("--data", type=Path, help="folder for the simulated scan, kept there; by default a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scan = (given.data or Path(folder)) / f"map_scan_{given.shape[0]}x{given.shape[1]}.h5"
        if not scan.exists():
            seconds, memory = program(
                "simulate", "nanobeam", "--shape", *given.shape, "--peak", 7, "--seed", 1, "-o", scan, "--quiet"
            )
            print(f"simulate: {seconds:.1f} s, {memory:.2f} GB, {scan.stat().st_size / 1e6:.0f} MB")
        runs = [
            program("map", scan, "--method", given.method, "-o", Path(folder) / "map.h5", "--overwrite", "--quiet")
            for _ in range(given.repeat)
        ]
    print(f"whole process, {given.shape[0]} x {given.shape[1]} frames, {given.method}, {len(os.sched_getaffinity(0))} cores")
    print("                 target | measured")
    print(f"time (s)      <= {TARGET_S:6.1f} | {min(s for s, _ in runs):6.2f}  (runs: {', '.join(f'{s:.1f}' for s, _ in runs)})")
    print(f"memory (GB)   <= {TARGET_GB:6.1f} | {max(m for _, m in runs):6.2f}")


if __name__ == "__main__":
    main()
