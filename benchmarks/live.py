"""Live maps: rates without loss, latency from frame to map, the swap of models, training on the way.

    python benchmarks/live.py [--minutes 1] [--rate 1000] [--only zmq,pva,encoder,swap,training,highest] [--model FILE]

Sender, receiver and mapper are processes of this machine and share its cores; frames of 64 x 64 uint16 over loopback. A scan
is as long as `minutes` at `rate`; its frames are those of a small simulated scan over and over. Latency: from the sender's
clock to the record in the result log, of every frame from the start on. "highest": as fast as frames are mapped, the sender
held back. "swap": a new version of the model every second; the longest time between two records while frames come at 1 kHz,
against the same without swaps.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import braggscope
from braggscope.app.live.models import publish
from braggscope.core.model import load_model
from braggscope.core.scan import Axis
from braggscope.core.source import open_scan
from braggscope.live.messages import End, Frame, Start
from braggscope.live.playing import Frames, due, start_of
from braggscope.live.run_folder import RunFolder, folder_of
from braggscope.live.transports import sender, source_url
from shared import row

BASE = (40, 50)
COLUMNS = 1000
PORT = 19_731


def send(url: str, scan: Path, count: int, rate: float, columns: int) -> None:
    """The detector: `count` frames over a raster."""
    base, end = open_scan(scan), sender(source_url(url))
    frames, known = Frames(base), start_of(base)
    data = [frames[n].data for n in range(len(base.order))]
    rows = math.ceil(count / columns)
    axes = (Axis("y", 0.05 * np.arange(rows), "um"), Axis("x", 0.05 * np.arange(columns), "um"))
    end.start(Start("benchmark", axes, known.frame_shape, known.dtype, count, None, known.modality, known.geometry))
    for group in due(np.arange(count), rate):
        for n in group:
            end.frame(Frame(int(n), data[int(n) % len(data)], int(n), sent=time.time()))
    end.end(End())
    end.close()


def watched(
    url: str, scan: Path, count: int, rate: float, folder: Path, *words: str, during=lambda run: None
) -> tuple[dict, np.ndarray]:
    """The figures of a run, and the times of its records; `during` runs beside it."""
    out = folder / "map.h5"
    command = [
        sys.executable,
        "-m",
        "braggscope",
        "watch",
        url,
        "-o",
        str(out),
        "--no-dashboard",
        "--json",
        "--keep-frames",
        "--overwrite",
    ]
    watching = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True)
    run = RunFolder(folder_of(out))
    while not run.reported("receiver"):
        time.sleep(0.05)
    detector = subprocess.Popen([sys.executable, __file__, "--send", url, str(scan), str(count), str(rate), str(COLUMNS)])
    beside = threading.Thread(target=during, args=(run,), daemon=True)
    beside.start()
    said = json.loads(watching.communicate()[0])
    detector.wait()
    mapped = run.scans()[-1].results.records()["mapped"]
    return said, mapped


def sustained(url: str, scan: Path, arguments: argparse.Namespace, folder: Path, name: str) -> None:
    count = int(60 * arguments.minutes * arguments.rate)
    said, mapped = watched(url, scan, count, arguments.rate, folder, "--modality", "nanobeam")
    late = f"p50 {said['latency_ms']['p50']:.1f} ms, p99 {said['latency_ms']['p99']:.1f} ms"
    rate = len(mapped) / (mapped[-1] - mapped[0])
    target = f"{arguments.rate:g} Hz, 0 lost, p99 <= 250 ms"
    row(f"{name}, likelihood, {arguments.minutes:g} min", target, f"{rate:.0f} Hz, {said['lost']} lost, {late}")


def highest(url: str, scan: Path, folder: Path, name: str, count: int, target: str, *words: str) -> None:
    """As fast as frames are mapped."""
    said, mapped = watched(url, scan, count, 0.0, folder, *words)
    begin = len(mapped) // 10  # without the start
    rate = (len(mapped) - begin) / (mapped[-1] - mapped[begin])
    row(f"{name}, highest rate", target, f"{rate:.0f} Hz, {said['lost']} lost of {said['expected']}")


def swapped(url: str, scan: Path, model: Path, folder: Path) -> None:
    """A new version every second while frames come at 1 kHz."""
    known = load_model(model)

    def publishing(run: RunFolder) -> None:
        while run.reported("mapper").get("state") != "mapping":
            time.sleep(0.1)
        for _ in range(15):
            publish(run, known, {"frames": 0})
            time.sleep(1)

    words = ("--method", str(model), "--option", "steps=0")
    waits = []
    for during in (lambda run: None, publishing):
        said, mapped = watched(url, scan, 20_000, 1000.0, folder, *words, during=during)
        gaps = np.diff(np.unique(mapped[3000:]))
        waits.append((1e3 * gaps.max(), said["latency_ms"]["p99"]))
    run = RunFolder(folder_of(folder / "map.h5"))
    versions = len(np.unique(run.scans()[-1].results.records()["version"]))
    measured = (
        f"longest {waits[1][0]:.1f} ms over {versions} versions (without swaps {waits[0][0]:.1f} ms); p99 {waits[1][1]:.1f} ms"
    )
    row("wait of a frame at a swap", "<= 50 ms, versions recorded", measured)


def trained(scan: Path, folder: Path) -> None:
    """The network's own error, frames in the order in which they came, while it is trained on the way."""
    words = ["--method", "amortised", "--option", "steps=0", "--train"]
    for name, value in {"width": 64, "epochs": 1, "frames": 8192}.items():
        words += ["--train-option", f"{name}={value}"]
    out = folder / "trained.h5"
    source = f"replay:{scan}?rate=20"
    command = [
        sys.executable,
        "-m",
        "braggscope",
        "watch",
        source,
        "-o",
        str(out),
        "--no-dashboard",
        "--json",
        "--keep-frames",
        "--overwrite",
    ]
    subprocess.run([*command, *words], stdout=subprocess.PIPE, check=True)
    found, truth = braggscope.load(out), open_scan(scan).truth
    assert truth is not None
    version, run = found["model_version"].values, RunFolder(folder_of(out))
    lines = [json.loads(line) for line in (run.models / "history.jsonl").read_text().splitlines()]
    models = [run.models / f"version_{line['version']:04}.safetensors" for line in lines]
    whole = [braggscope.map(scan, model, steps=0, progress=False) for model in models]
    for name, scale, unit in (("strain", 1e6, "1e-6"), ("omega", 1e3, "1e-3 deg"), ("chi", 1e3, "1e-3 deg")):
        error = (found[name].values - truth[name].values) * scale
        own = [f"{np.sqrt(np.mean(error[version == v] ** 2)):.3g}" for v in np.unique(version)]
        every = [f"{scale * float(((one[name] - truth[name]) ** 2).mean()) ** 0.5:.3g}" for one in whole]
        row(f"error of {name} by version ({unit}): all points; those it mapped", "falls", f"{', '.join(every)}; {', '.join(own)}")
    row("frames seen by each version", "", ", ".join(str(line["frames"]) for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--send", nargs=5)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--only", default="zmq,pva,highest,encoder,swap,training")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    if arguments.send:
        url, scan, count, rate, columns = arguments.send
        send(url, Path(scan), int(count), float(rate), int(columns))
        return
    only = set(arguments.only.split(","))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan = folder / "scan.h5"
        braggscope.simulate("nanobeam", shape=BASE, frame_shape=(64, 64), output=scan, progress=False)
        zmq, pva = f"zmq+json://127.0.0.1:{PORT}", "pva://BRAGGSCOPE:BENCHMARK?address=127.0.0.1"
        print("what | target | measured", flush=True)
        if "zmq" in only:
            sustained(zmq, scan, arguments, folder, "ZeroMQ")
        if "pva" in only:
            sustained(pva, scan, arguments, folder, "PVA")
        if "highest" in only:
            highest(zmq, scan, folder, "ZeroMQ, likelihood", 30_000, "reported", "--modality", "nanobeam")
        model = arguments.model or folder / "model.safetensors"
        if only & {"encoder", "swap"} and arguments.model is None:
            braggscope.train(method="amortised", geometry=open_scan(scan).geometry_values, modality="nanobeam", output=model,
                             progress=False, epochs=2, frames=8192)  # fmt: skip
        if "encoder" in only:
            braggscope.export(model, folder / "model.onnx")
            for judge, count in (("no", 150_000), ("yes", 60_000)):
                words = ("--method", str(folder / "model.onnx"), "--option", "steps=0", "--option", f"judge={judge}")
                highest(zmq, scan, folder, f"ZeroMQ, amortised encoder (ONNX), judge={judge}", count, ">= 5000 Hz", *words)
        if "swap" in only:
            swapped(zmq, scan, model, folder)
        if "training" in only:
            trained(scan, folder)


if __name__ == "__main__":
    main()
