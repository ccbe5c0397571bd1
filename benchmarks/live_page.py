"""The page in headless Chromium: first map after the first frame, updates a second, a map of 2000 x 2000 redrawn.

    python benchmarks/live_page.py [--rate 1000] [--side 165] [--large 2000] [--chromium FILE]

The page is open before a scan begins, as at a beamline. "first map": from the sender's clock at the first frame to the moment at
which the page has drawn values. Updates are counted over ten seconds of a scan of side x side points that are mapped by the
likelihood; browser, server, mapper, receiver and sender share the cores. "redrawn": from a change of the colours, or of the
variable (which is read first), to the next frame of the browser after it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from playwright.sync_api import Page, sync_playwright

import braggscope
from braggscope.core.maps import save
from braggscope.live.run_folder import RunFolder
from shared import row

PORT = 19_751
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
KNOWN = "Array.from(window.braggscope.state.values.get('strain') ?? []).some(Number.isFinite) && window.braggscope.draws"
CHANGED = """async ([name, value]) => {
    const begin = performance.now(), draws = window.braggscope.draws, chosen = document.getElementById(name);
    chosen.value = value;
    chosen.dispatchEvent(new Event("change"));
    while (window.braggscope.draws === draws) await new Promise((done) => setTimeout(done, 2));
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return performance.now() - begin;
}"""


def until(page: Page, script: str, seconds: float = 120) -> None:
    """Wait for it; by asking again and again, as the page forbids code from outside."""
    end = time.monotonic() + seconds
    while not page.evaluate(script):
        if time.monotonic() > end:
            raise SystemExit(f"in vain: {script}")
        time.sleep(0.01)


def address(process: subprocess.Popen[str]) -> str:
    """The page's, as the program says it."""
    assert process.stderr is not None
    for line in process.stderr:
        for word in line.split():
            if word.startswith("http://"):
                return word
    raise SystemExit("no address was printed")


def watched(page: Page, folder: Path, side: int, rate: float) -> None:
    """A scan that begins when the page is open."""
    scan = folder / "scan.h5"
    braggscope.simulate("nanobeam", shape=(20, 50), frame_shape=(64, 64), output=scan, progress=False)
    url = f"zmq+json://127.0.0.1:{PORT}"
    command = [sys.executable, "-m", "braggscope", "watch", url, "-o", str(folder / "map.h5"), "--modality", "nanobeam"]
    command += ["--dashboard", "--timeout", "60"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        page.goto(address(process))
        until(page, "window.braggscope && document.getElementById('head-a').textContent.startsWith('Waiting')")
        time.sleep(3)  # every process has begun
        words = ["--send", url, str(scan), str(side * side), str(rate), str(side)]
        sender = subprocess.Popen([sys.executable, str(Path(__file__).with_name("live.py")), *words])
        until(page, KNOWN)
        drawn = time.time()
        sent = float(RunFolder(folder / "map.h5.live").scans()[0].frames.records()["sent"][0])
        row("first map on the page after the first frame", "<= 2 s", f"{drawn - sent:.2f} s")
        first = page.evaluate("window.braggscope.draws")
        time.sleep(10)
        drawn_in = page.evaluate("window.braggscope.draws") - first
        row(f"updates of the page at {side} x {side}, {rate:.0f} frames/s", ">= 2 Hz", f"{drawn_in / 10:.1f} Hz")
        sender.wait()
        until(page, "document.getElementById('state').textContent === 'done'")
        row("all points on the page at the end", side * side, page.evaluate(
            "Array.from(window.braggscope.state.values.get('strain')).filter(Number.isFinite).length"
        ))  # fmt: skip
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def large(page: Page, folder: Path, side: int) -> None:
    """A finished map of side x side points."""
    small = folder / "small.h5"
    braggscope.simulate("nanobeam", shape=(6, 6), frame_shape=(64, 64), output=folder / "little.h5", progress=False)
    braggscope.map(folder / "little.h5", output=small, progress=False)
    known = braggscope.load(small)
    random = np.random.default_rng(1)
    wide = {n: (v.dims, np.resize(v.values, (side, side)) * random.normal(1, 0.05, (side, side)), v.attrs)
            for n, v in known.data_vars.items() if n != "flag" and v.dims == known["flag"].dims}  # fmt: skip
    wide["flag"] = (known["flag"].dims, np.zeros((side, side), np.int32), known["flag"].attrs)
    coords = {str(d): (str(d), 0.1 * np.arange(side), known[d].attrs) for d in known["flag"].dims}
    save(xr.Dataset(wide, coords, known.attrs), folder / "large.h5")
    command = [sys.executable, "-m", "braggscope", "view", str(folder / "large.h5"), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next(word for line in process.stdout for word in line.split() if word.startswith("http"))
        begin = time.time()
        page.goto(url)
        until(page, "window.braggscope?.draws > 0")
        row(f"map of {side} x {side}: from the address to the picture", "-", f"{time.time() - begin:.2f} s")
        for what, name, value in (("colours", "palette", "Inferno256"), ("another variable", "variable", "omega")):
            row(f"... {what} changed", "usable", f"{page.evaluate(CHANGED, [name, value]):.0f} ms")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--side", type=int, default=165)
    parser.add_argument("--large", type=int, default=2000)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    asked = parser.parse_args()
    print("what | target | measured", flush=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=asked.chromium, args=QUIET.split())
        errors: list[str] = []
        for work in (
            lambda page: watched(page, Path(name), asked.side, asked.rate),
            lambda page: large(page, Path(name), asked.large),
        ):
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.on("pageerror", lambda error: errors.append(str(error)))
            work(page)
            page.close()
        browser.close()
    row("errors in the page", 0, json.dumps(errors) if errors else 0)


if __name__ == "__main__":
    main()
