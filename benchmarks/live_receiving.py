"""The highest rate without loss of each transport, from the detector's simulator into the frame log.

    python benchmarks/live_receiving.py [--only zmq+json,pva] [--frames 50000]

Frames of 64 x 64 uint16 over loopback or the disk. The receiver is a process of its own, as in `braggscope watch`; the sender
is another, on the same cores. Where the transport holds the sender, it sends as fast as it can; PV Access, which does not, is
tried at rising rates, the last one without loss counts. Per frame: processor time of the receiver, which is what a core allows
where nothing else runs on it.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.scan import Axis
from braggscope.live.messages import End, Frame, Start
from braggscope.live.playing import due
from braggscope.live.run_folder import RunFolder, start_document, write_json
from braggscope.live.transports import sender, source_url, stream2
from braggscope.live.transports._compressed import compressed

SHAPE, COLUMNS = (64, 64), 1000
RATES = (1000, 2000, 3000, 5000, 7000, 10_000, 15_000, 20_000)  # of PV Access, Hz
SLOW = {"dir": 10_000, "h5": 20_000}  # frames: one file each; written one by one
TARGET_HZ = 5000


def start_of(count: int) -> Start:
    axes = (Axis("y", np.arange(math.ceil(count / COLUMNS), dtype=float)), Axis("x", np.arange(COLUMNS, dtype=float)))
    return Start("benchmark", axes, SHAPE, "<u2", count)


def send(url: str, count: int, rate: float) -> None:
    """The detector: counts of a weak signal, the same hundred frames over and over."""
    data = np.random.default_rng(1).poisson(2.0, (100, *SHAPE)).astype("<u2")
    known = {frame.tobytes(): compressed(frame, "bslz4") for frame in data}
    stream2.compressed = lambda frame, algorithm: known[frame.tobytes()]  # a detector compresses in hardware
    end = sender(source_url(url))
    end.start(start_of(count))
    for group in due(np.arange(count), rate):
        for n in group.tolist():
            end.frame(Frame(n, data[n % 100], n, sent=time.time()))
    end.end(End())
    end.close()


def measured(url: str, count: int, rate: float, folder: Path) -> dict[str, Any]:
    """What was received of `count` frames, at which rate, and the receiver's processor time for each."""
    run = RunFolder(folder / "map.h5.live")
    run.path.mkdir(parents=True)
    plan = None if url.startswith("replay") else start_document(Start("plan", start_of(count).axes, expected=count))
    timeout = 3.0 if url.startswith(("dir", "h5")) else 30.0
    write_json(run.path / "run.json", {"source": url, "plan": plan, "scans": 1, "timeout_s": timeout})
    receiver = subprocess.Popen([sys.executable, "-m", "braggscope.live.receiving", str(run.path)])
    while not run.reported("receiver"):
        time.sleep(0.02)
    began = cpu_of(receiver.pid)
    detector = multiprocessing.get_context("spawn").Process(target=send, args=(url, count, rate))
    if plan is not None:
        detector.start()
    _, _, used = os.wait4(receiver.pid, 0)
    if plan is not None:
        detector.join()
    said = json.loads((run.scans()[0].path / "ledger.json").read_text())
    spent = used.ru_utime + used.ru_stime - began
    return {**said, "per_frame_us": 1e6 * spent / max(said["received"], 1)}


def cpu_of(pid: int) -> float:
    """Processor time of a process so far, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def row(name: str, found: dict[str, Any]) -> None:
    core = 1e6 / found["per_frame_us"]
    print(
        f"{name} | {found['rate_hz']:.0f} | {found['lost']} of {found['expected']} | {found['per_frame_us']:.0f} | {core:.0f}",
        flush=True,
    )


def replayed(folder: Path, count: int) -> str:
    """The same frames as a scan file."""
    import h5py

    data = np.random.default_rng(1).poisson(2.0, (100, *SHAPE)).astype("<u2")
    with h5py.File(folder / "scan.h5", "w") as file:
        file["entry/data/data"] = np.resize(data, (count // COLUMNS, COLUMNS, *SHAPE))
    return f"replay:{folder / 'scan.h5'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="replay,zmq+json,zmq+stream2,h5,dir,pva")
    parser.add_argument("--frames", type=int, default=50_000)
    arguments = parser.parse_args()
    print(f"transport | frames/s (target {TARGET_HZ}) | lost | processor time per frame (us) | frames/s of one core")
    for name in arguments.only.split(","):
        count = min(arguments.frames, SLOW.get(name, arguments.frames))
        with tempfile.TemporaryDirectory() as at:
            folder = Path(at)
            if name == "pva":
                best = None
                for rate in RATES:
                    url = f"pva://BRAGGSCOPE:RATE{rate}?address=127.0.0.1"
                    found = measured(url, min(count, 5 * rate), rate, folder / str(rate))
                    if found["lost"]:
                        break
                    best = found
                row(f"pva, the last rate without loss (tried {rate} Hz)", best or found)
                continue
            (folder / "frames").mkdir()
            urls = {"h5": f"h5:{folder / 'growing.h5'}?swmr=1", "dir": f"dir:{folder / 'frames'}?first=0"}
            url = replayed(folder, count) if name == "replay" else urls.get(name, f"{name}://127.0.0.1:19742")
            row(name, measured(url, count, 0.0, folder))


if __name__ == "__main__":
    main()
