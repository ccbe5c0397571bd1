"""The main job on the bundled data, with the commands that a user would type.

Maps two real dark-field scans, simulates and maps a nanobeam scan, at rest and live, calibrates and maps two real nanobeam
frames, takes apart the Laue patterns of grains smaller than the beam, and writes one report with pictures of them all. Run by
`make demo`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(os.path.relpath(Path(__file__).resolve().parent))
DATA = HERE / "data"
FILM = HERE / "nanobeam_sriro3.toml"


def steps(out: Path) -> list[tuple[str, str]]:
    """What is done and the command that does it."""
    rocking, mosaic, frames = DATA / "id03_rocking_mu.h5", DATA / "id03_mosa_chi_diffry.h5", DATA / "sriro3_frames.h5"
    return [
        ("A real two-dimensional mosaicity scan of ESRF ID03: what is in the file?", f"info {mosaic}"),
        ("Its map: mean orientation, width and shape of every pixel's peak", f"map {mosaic} -o {out}/mosaicity.h5"),
        ("A real rocking scan of ESRF ID03, shorter than the peaks of a deformed crystal", f"map {rocking} -o {out}/rocking.h5"),
        (
            "A nanobeam scan of a strained film, simulated with photon noise at a peak of 7 counts",
            f"simulate nanobeam --phantom sinusoid_sigmoid --geometry {FILM} --shape 80 80 --peak 7 --seed 1 "
            f"-o {out}/film_scan.h5",
        ),
        ("Strain and tilts of the film by maximum likelihood", f"map {out}/film_scan.h5 --method likelihood -o {out}/film.h5"),
        (
            "The same scan live: frames come 1000 a second, some out of order, some never",
            f"watch 'replay:{out}/film_scan.h5?rate=1000&lose=0.02&shuffle=0.1&seed=1' -o {out}/live.h5 --no-dashboard",
        ),
        (
            "Two real frames of a SrIrO3 film: first the optics, from the frames themselves",
            f"calibrate {frames} --geometry {FILM} -o {out}/sriro3.toml",
        ),
        ("Then their strain and tilts", f"map {frames} --geometry {out}/sriro3.toml -o {out}/sriro3.h5"),
        (
            "Laue patterns of a gold film whose grains are smaller than the beam, simulated",
            f"laue simulate --phantom film --shape 20 20 --frame-shape 244 204 --option size=0.5 --option step=0.1 --seed 1 "
            f"-o {out}/gold_scan.h5",
        ),
        (
            "Its grains, from the light that each has at every position",
            f"map {out}/gold_scan.h5 --method unmixing -o {out}/gold.h5",
        ),
        (
            "One page with all of it",
            f"report {out}/mosaicity.h5 {out}/rocking.h5 {out}/film.h5 {out}/live.h5 {out}/sriro3.h5 {out}/gold.h5 "
            f"--scan {mosaic} --scan {rocking} --scan {out}/film_scan.h5 --scan {frames} --scan {out}/gold_scan.h5 "
            f"-o {out}/report.html",
        ),
    ]


def main() -> int:
    """Run all steps; stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for the results; an earlier demo in it goes")
    out = parser.parse_args().output
    if out.exists():
        if any(out.iterdir()) and not (out / "rocking.h5").exists():
            parser.error(f"{out} holds other things than an earlier demo; name another folder with --output")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    program, start = Path(sys.executable).with_name("braggscope"), time.perf_counter()
    for title, command in steps(out):
        print(f"\n# {title}\n$ braggscope {command}", flush=True)
        done = subprocess.run([program, *shlex.split(command)], check=False)
        if done.returncode:
            return done.returncode
    print(f"\nDone in {time.perf_counter() - start:.0f} s. Open {out}/report.html")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
