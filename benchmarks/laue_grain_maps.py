"""Grain maps of a film whose grains are smaller than the beam: every method against the truth, on the same simulated scans.

    python benchmarks/laue_grain_maps.py [--seeds 10] [--methods canon,piml,indexing,strongest,dominant] [--footprint round]
                                         [--cached FOLDER] [--maps FOLDER] [--frame-shape ROWS COLUMNS]

A scan: 40 x 40 positions 0.1 um apart, gold grains of 0.37 um elongated along x on silicon, beam 1 um, strong reflections about
2000 counts, frames of 487 x 407. A method is any of the modality, with options after a colon (`piml:pooling=mean:apart=0.3`);
`strongest` is the rule by which positions with the strongest peak in the same place are one grain, `dominant` the grain with
the largest share of the light (from the truth), `truth` itself. --cached names a folder with FOOTPRINT_SEED.npy (frames) and
FOOTPRINT_SEED.nc (truth). Maps are kept as FOOTPRINT_SEED_METHOD.npy in the folder --maps, and those there are not made again.

A grain is a connected region of three points or more; points of smaller ones belong to none. Size: root of the mean area,
points. FWHM: twice the distance at which the probability of the same grain is 0.5, points. `rand` is the adjusted Rand index
over all points (points of no grain count as one grain), `in` the share of points in grains. All with the analyses of the
program.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from sklearn.metrics import adjusted_rand_score

from braggscope.core.batch import Batch
from braggscope.core.modality import modality
from braggscope.modalities.laue.analysis.sizes import sizes
from braggscope.modalities.laue.analysis.two_point import two_point
from braggscope.modalities.laue.geometry import LaueGeometry, film
from braggscope.modalities.laue.grain_maps import regions_of
from braggscope.modalities.laue.grains.peaks import strongest_peaks
from braggscope.modalities.laue.grains.standing import standing
from braggscope.modalities.laue.phantoms import beam
from braggscope.modalities.laue.phantoms.film import film as film_scan
from braggscope.modalities.laue.phantoms.microstructure import Microstructure

STEP = 0.1
SAME_PX = 3  # places of one peak differ by less
COLUMNS = ("rand", "size", "grains", "fwhm_x", "fwhm_y", "in", "seconds")


class Cached:
    """A scan whose frames are kept in a file."""

    def __init__(self, frames: np.ndarray, truth: xr.Dataset, geometry: LaueGeometry, seed: int) -> None:
        self.seed = seed
        self.frames, self.truth, self.geometry, self.modality = frames, truth, geometry, "laue"
        self.shape, self.frame_shape, self.provenance = truth["grain"].shape, frames.shape[1:], {}
        axes = {n: ((n,), STEP * np.arange(size), {"units": "um"}) for n, size in zip("yx", self.shape, strict=True)}
        self.grid = xr.Dataset(coords=axes)

    def batches(self, size: int | None = None, *, only: np.ndarray | None = None) -> Iterator[Batch]:
        """The frames, or those where `only` is true, in order."""
        which = np.arange(len(self.frames)) if only is None else np.flatnonzero(only)
        for start in range(0, len(which), size or 100):
            part = which[start : start + (size or 100)]
            yield Batch(part, np.asarray(self.frames[part]))


def scan_of(seed: int, arguments: argparse.Namespace) -> Cached:
    """The scan of a seed: read, or simulated and kept in memory."""
    geometry = film().replace(footprint=arguments.footprint)
    if arguments.cached:
        path = Path(arguments.cached) / f"{arguments.footprint}_{seed}"
        frames = np.load(path.with_suffix(".npy"), mmap_mode="r")
        return Cached(frames, xr.load_dataset(path.with_suffix(".nc"), engine="h5netcdf"), geometry, seed)
    made = film_scan(geometry, seed=seed, frame_shape=arguments.frame_shape, step=STEP)
    return Cached(np.concatenate([b.frames for b in made.batches(100)]), made.truth, made.geometry, seed)


def labels(name: str, scan: Cached) -> np.ndarray:
    """The label of each position by a method, 0 for none."""
    method, *given = name.split(":")
    if method == "truth":
        return np.asarray(scan.truth["grain"].values, int)
    if method == "dominant":
        return dominant(scan)
    if method == "strongest":
        still = standing(scan)
        place = np.concatenate([strongest_peaks(b, still, threshold=6, most=1)[0][:, 0] for b in scan.batches()])
        row, column = np.divmod(place, scan.frame_shape[1])
        return np.where(place < 0, 0, row // SAME_PX * 10_000 + column // SAME_PX + 1).reshape(scan.shape)
    options = dict(one.split("=") for one in given)
    estimator = modality("laue").estimator(method).with_options(scan.geometry, options).prepare(scan)
    state = estimator.init(scan)
    for batch in scan.batches():
        state = estimator.update(state, batch)
    return np.nan_to_num(estimator.result(state)["grain"].values).astype(int)


def kept(name: str, scan: Cached, arguments: argparse.Namespace) -> np.ndarray:
    """The labels by a method, from the folder of maps where they are there."""
    if not arguments.maps:
        return labels(name, scan)
    path = Path(arguments.maps) / f"{arguments.footprint}_{scan.seed}_{name.replace(':', '_')}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, labels(name, scan))
    return np.asarray(np.load(path))


def dominant(scan: Cached) -> np.ndarray:
    """The grain with the largest share of the light at each position."""
    truth = film_scan(scan.geometry, seed=scan.seed, step=STEP).truth
    nothing = np.empty((0, 3, 3))
    fine = Microstructure(truth["fine_grain"].values - 1, truth["fine_y"].values, truth["fine_x"].values, nothing, nothing)
    places = (scan.grid[name].values for name in "yx")
    start, grain, weight = beam.weights(fine, *places, scan.geometry.footprint_um)
    most = [int(grain[a + np.argmax(weight[a:b])]) + 1 for a, b in itertools.pairwise(start)]
    return np.array(most).reshape(scan.shape)


def measured(label: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """What a map is worth."""
    number = regions_of(label).number
    axes = {n: ((n,), STEP * np.arange(size), {"units": "um"}) for n, size in zip("yx", number.shape, strict=True)}
    made = xr.Dataset({"grain": (("y", "x"), number), "flag": (("y", "x"), np.zeros(number.shape, np.int32))}, axes)
    widths, size = two_point(made, reach=STEP * (min(number.shape) - 1)).attrs, sizes(made, draws=0).attrs
    return {
        "rand": adjusted_rand_score(truth.ravel(), number.ravel()),
        "size": size["grain_size_points"],
        "grains": size["grains"],
        "fwhm_x": widths["fwhm_x_um"] / STEP,
        "fwhm_y": widths["fwhm_y_um"] / STEP,
        "in": float((number > 0).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--methods", default="truth,strongest,canon,piml,piml:pooling=mean,piml:pooling=none,indexing")
    parser.add_argument("--footprint", default="round", choices=("round", "stretched"))
    parser.add_argument("--cached", default="")
    parser.add_argument("--maps", default="")
    parser.add_argument("--frame-shape", type=int, nargs=2)
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.methods.split(",")}
    print(" | ".join(("seed", "method", *COLUMNS)), flush=True)
    for seed in range(arguments.seeds):
        scan = scan_of(seed, arguments)
        for name, rows in found.items():
            start = time.perf_counter()
            label = kept(name, scan, arguments)
            rows.append(measured(label, scan.truth["grain"].values) | {"seconds": time.perf_counter() - start})
            print(f"{seed} | {name} | " + " | ".join(f"{rows[-1][c]:.3g}" for c in COLUMNS), flush=True)
    summary(found)


def summary(found: dict[str, list[dict[str, float]]]) -> None:
    """Means over the seeds, and in how many `piml` is below the others in size and both widths."""
    for name, rows in found.items():
        mean = {c: np.mean([row[c] for row in rows]) for c in COLUMNS}
        print(f"mean | {name} | " + " | ".join(f"{mean[c]:.3g}" for c in COLUMNS))
    for name in found:
        for other in ("canon", "indexing") if name.startswith("piml") else ():
            pairs = list(zip(found[name], found.get(other, []), strict=False))
            below = {c: sum(a[c] < b[c] for a, b in pairs) for c in ("size", "fwhm_x", "fwhm_y")}
            both = sum(all(a[c] < b[c] for c in below) for a, b in pairs)
            print(
                f"{name} below {other} | of {len(pairs)} seeds | " + ", ".join(f"{c} {n}" for c, n in below.items()), f"| {both}"
            )


if __name__ == "__main__":
    main()
