"""Phantoms of dark-field microscopy: how fast, whether maps of them say their truth, and whether darling opens them.

python benchmarks/dfxm_simulator.py                        time, and z-scores of maps against the truth
python benchmarks/dfxm_simulator.py --peers PYTHON         also files in the layout of ESRF ID03, read by darling
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import braggscope
from braggscope.core.simulation import Simulation
from braggscope.modalities.dfxm.analysis.strain import strain
from braggscope.modalities.dfxm.geometry import id03

HIDDEN = 32  # flag: the shape is hidden by noise, the mean and the width are not
PHANTOMS = ("subgrains", "bent_crystal", "dislocation_walls", "twins", "crystal")
LAID_OUT: list[dict[str, Any]] = [
    {"shape": (41,), "motors": "mu:0.03"},
    {"shape": (21,), "motors": "chi"},
    {"shape": (16, 21), "motors": "chi:0.06 diffry:0.06"},
    {"shape": (16, 21), "motors": "chi:0.06 diffry:0.06", "jitter": 0.1},
    {"shape": (12, 31), "motors": "chi ccmth"},
    {"shape": (5, 6, 7)},
]


def row(what: str, target: object, measured: object) -> None:
    print(f"{what:58s}| {target!s:>13} | {measured}", flush=True)


def made(phantom: str, **options: Any) -> Simulation:
    return braggscope.simulate("dfxm", phantom, geometry=id03(), progress=False, **options)


def speed(folder: Path) -> None:
    """Seconds to draw a phantom and to write its scan."""
    print("41 frames of 1024 x 1024, phantom crystal")
    start = time.perf_counter()
    made("crystal", frame_shape=(1024, 1024))
    row("drawing it, with its truth", "-", f"{time.perf_counter() - start:.1f} s")
    for layout in ("nexus", "id03"):
        start, path = time.perf_counter(), folder / f"{layout}.h5"
        made("crystal", frame_shape=(1024, 1024), output=path, layout=layout)
        row(
            f"the same, and writing it, layout {layout}",
            "-",
            f"{time.perf_counter() - start:.1f} s, {path.stat().st_size / 1e6:.0f} MB",
        )


def z_row(what: str, z: np.ndarray, share: float) -> None:
    row(what, "0 +- 0.1, 1", f"{z.mean():+.3f}, {z.std():.3f} of {len(z)} pixels ({100 * share:.1f} %)")


def compared(phantom: str, method: str, source: Simulation) -> None:
    """z of the centre and the width where there is one peak."""
    found, truth = braggscope.map(source, method=method, progress=False), source.truth
    lit = truth["peaks"].values == 1
    for name in ("mu", "mu_width"):
        wanted = truth[f"{name}_1" if method == "peakfit" else name]
        good = lit & (found["flag"].values & ~HIDDEN == 0) & (found[f"{name}_std"] < 0.05 * found["mu_width"]).values
        z = ((found[name] - wanted) / found[f"{name}_std"]).values[good]
        z_row(f"{phantom}, {method}, {name}", z, good.sum() / lit.sum())


def without_hidden(source: Simulation) -> None:
    """The same, had one left out pixels whose fourth moment came out as one that no curve can have."""
    found, truth = braggscope.map(source, method="moments", progress=False), source.truth
    good = (truth["peaks"].values == 1) & (found["flag"].values == 0) & (found["mu_width_std"] < 0.05 * found["mu_width"]).values
    z = ((found["mu_width"] - truth["mu_width"]) / found["mu_width_std"]).values[good]
    z_row("crystal, moments, mu_width, pixels without any flag", z, good.sum() / (truth["peaks"].values == 1).sum())


def two_peaks(source: Simulation) -> None:
    """Both centres of twins, where two peaks are found without a flag."""
    found, truth = braggscope.map(source, method="peakfit", peaks="2", progress=False), source.truth
    two = truth["peaks"].values == 2
    both = two & (found["peaks"].values == 2) & (found["flag"].values == 0) & (found["reduced_deviance"].values < 1.6)
    turned = (np.abs(found["mu"] - truth["mu_1"]) > np.abs(found["mu"] - truth["mu_2"])).values
    for ours, a, b in (("", 1, 2), ("_2", 2, 1)):
        z = ((found[f"mu{ours}"] - xr.where(turned, truth[f"mu_{b}"], truth[f"mu_{a}"])) / found[f"mu{ours}_std"]).values[both]
        z_row(f"twins, peakfit with two peaks, mu{ours}", z, both.sum() / two.sum())
    missed = two & (found["peaks"].values == 1)
    told = f"{100 * missed.sum() / two.sum():.1f} %, median height {np.median(truth['amplitude_2'].values[missed]):.0f} counts"
    row("pixels with two peaks that are taken for one", "-", f"{told} over a noise of 3")


def strains() -> None:
    for motors in ("ccmth:0.002", "obpitch:0.006"):
        source = made("bent_crystal", shape=(61,), motors=motors, frame_shape=(100, 120), peak=3000.0, resolution="microscope")
        for method in ("moments", "peakfit"):
            truth = source.truth
            found = strain([braggscope.map(source, method=method, progress=False)], reference=truth.attrs["strain_reference_deg"])
            good = found["flag"].values & ~HIDDEN == 0
            z = ((found["strain"] - truth["strain"]) / found["strain_std"]).values[good]
            error = float(np.median(found["strain_std"].values[good]))
            z_row(f"strain from {motors.split(':')[0]}, {method}, median error {error:.1e}", z, good.mean())


def darling(python: str, folder: Path) -> None:
    paths = [folder / f"darling{number}.h5" for number in range(len(LAID_OUT))]
    for path, options in zip(paths, LAID_OUT, strict=True):
        made("crystal", frame_shape=(60, 80), output=path, layout="id03", **options)
    script = Path(__file__).parent / "peers" / "simulator.py"
    out = subprocess.run([python, str(script), *map(str, paths)], capture_output=True, text=True, check=True).stdout
    for line, options in zip([one for one in out.splitlines() if one.startswith("{")], LAID_OUT, strict=True):
        said = json.loads(line)
        what = said.get("command", "scan over three motors") + (", jitter 0.1" if "jitter" in options else "")
        told = said.get("failed") or f"{said['same_counts']}, {said['motors']:.1e} deg, {said['mean']:.1e} deg"
        row(what, "True, 0, 0" if "failed" not in said else "-", told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="python of an environment with darling")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        speed(Path(name))
        print("\n81 points, 4000 photons: z-scores against the truth, mean and spread")
        for phantom in PHANTOMS:
            source = made(phantom, shape=(81,), motors="mu:0.03", frame_shape=(80, 100), peak=4000.0, seed=1)
            for method in ("moments", "peakfit"):
                compared(phantom, method, source)
        without_hidden(source)
        two_peaks(made("twins", shape=(61,), motors="mu:0.03", frame_shape=(80, 100), peak=2000.0, seed=1))
        print("\nsimulation -> map -> strain, 61 points, 3000 photons, resolution of the microscope")
        strains()
        if given.peers:
            print("\nlayout id03, opened by darling: same counts, motors, first moments")
            darling(given.peers, Path(name))


if __name__ == "__main__":
    main()
