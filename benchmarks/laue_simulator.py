"""The Laue simulator: how fast, and where the light of a film goes.

python benchmarks/laue_simulator.py                    patterns of one grain, mixed patterns, a scan to its file
python benchmarks/laue_simulator.py --patterns 10000   as many mixed patterns as a map of 10 x 10 um has
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

import braggscope
from braggscope.infer.runtime import workers
from braggscope.modalities.laue.brightness import layer
from braggscope.modalities.laue.geometry import film
from braggscope.modalities.laue.patterns import spot_image, spots_of
from braggscope.modalities.laue.phantoms.film import film as film_scan
from braggscope.physics.crystals import crystal_of

GRAINS, FRAMES = 400, 200


def row(what: str, target: object, measured: object) -> None:
    print(f"{what:62s}| {target!s:>10} | {measured}", flush=True)


def timed(work: object) -> tuple[float, float]:
    """Wall and processor time of a call, seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()  # type: ignore[operator]
    return time.perf_counter() - wall, time.process_time() - processor


def one_grain() -> None:
    """Spots of gold under the film's detector, and the same drawn."""
    geometry = film()
    start = time.perf_counter()
    gold = layer(geometry, crystal_of("Au"), thickness_um=geometry.thickness_um)
    row("gold, 6 to 22 keV: tables of intensity", "-", f"{time.perf_counter() - start:.2f} s, {len(gold.reflections)} directions")
    turns = Rotation.random(GRAINS, rng=np.random.default_rng(1)).as_matrix()
    spots_of(gold, turns[0])  # compiled
    found = []
    wall, processor = timed(lambda: found.extend(spots_of(gold, u) for u in turns))
    count = np.mean([len(one.row) for one in found])
    row(f"positions and intensities of one grain ({count:.0f} spots)", "<= 0.1 ms", said(wall, processor, GRAINS))
    spot_image(geometry, found[0])
    wall, processor = timed(lambda: [spot_image(geometry, one) for one in found])
    row("its spots drawn on an empty frame of 487 x 407", "-", said(wall, processor, GRAINS))
    ranked = [np.sort(one.intensity)[::-1] for one in found if len(one.row) >= 10]
    relative = np.median([one[:10] / one[0] for one in ranked], axis=0)
    row("spots of a grain by rank, over the brightest (median)", "-", " ".join(f"{r:.3g}" for r in relative))


def said(wall: float, processor: float, count: int) -> str:
    return f"{1e3 * wall / count:.3f} ms, processor {1e3 * processor / count:.3f} ms"


def mixed(patterns: int) -> None:
    """Patterns of a film under a beam of 1 um, as expected and as counted."""
    side = int(np.ceil(np.sqrt(patterns)))
    start = time.perf_counter()
    scan = film_scan(film(), shape=(side, side))
    fraction = scan.truth["fraction"].values
    row(
        f"film of {side} x {side} positions: grains, spots, weights",
        "-",
        f"{time.perf_counter() - start:.1f} s, {scan.truth.sizes['number']} grains, largest share {np.median(fraction):.2f}",
    )
    index = np.arange(min(FRAMES, patterns))
    scan.expected(index[:2])
    for what, work in (("expected", scan.expected), ("counted", scan.frames)):
        wall, processor = timed(lambda work=work: work(index))
        minutes = f"{wall / len(index) * 1e4 / 60:.1f} min for 10 000, {workers()} threads"
        target = "<= 5 min" if what == "counted" else "-"
        row(f"mixed patterns of 487 x 407, {what}", target, f"{said(wall, processor, len(index))}; {minutes}")


def to_file(side: int) -> None:
    """A scan to its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.h5"
        wall, processor = timed(
            lambda: braggscope.simulate("laue", "film", output=path, progress=False, shape=(side, side))  # type: ignore[arg-type]
        )
        size = path.stat().st_size / 1e6
        found = f"{wall:.0f} s, processor {processor:.0f} s, {size:.0f} MB"
        row(f"braggscope.simulate to a file, {side} x {side} patterns", "-", found)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--patterns", type=int, default=1600)
    given = options.parse_args()
    one_grain()
    mixed(given.patterns)
    to_file(int(np.ceil(np.sqrt(given.patterns))))


if __name__ == "__main__":
    main()
