"""Dislocations followed through simulated movies: identities, places, errors, motion and cost.

    python benchmarks/dfxm_tracking.py [--seeds 10] [--refined 10]

Movies of 60 frames of 512 x 512 pixels at 4 Hz, 13 dislocations (the phantom dislocation_movie: a boundary that captures some,
two pairs that pass each other, one that leaves, one that ends, one that starts). True places and tracks are matched frame by
frame by the least sum of distances below 8 px; an identity switch is a change of the track of a true dislocation. An error is the
root mean square distance of the smoothed place from the true one, px, over all matched, those that overlap included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

import braggscope
from braggscope.modalities.dfxm.dislocations.characters import chosen
from braggscope.modalities.dfxm.dislocations.model import ImageModel
from braggscope.modalities.dfxm.dislocations.setting import setting_of
from braggscope.modalities.dfxm.tracking.detecting import Detector
from shared import row

FARTHEST = 8.0


def matched(truth: xr.Dataset, tracks: xr.Dataset, names: tuple[str, str] = ("row", "column")) -> np.ndarray:
    """Track of each true dislocation in each frame, -1 for none, shape (dislocation, time)."""
    true = np.stack([truth["row"].values, truth["column"].values], -1)
    found = np.stack([tracks[n].values for n in names], -1)
    which = np.full(true.shape[:2], -1)
    for k in range(true.shape[1]):
        a, b = (np.flatnonzero(np.isfinite(p[:, k]).all(1)) for p in (true, found))
        far = np.linalg.norm(true[a, k][:, None] - found[b, k][None], axis=-1)
        for i, j in zip(*linear_sum_assignment(np.minimum(far, 2 * FARTHEST)), strict=True):
            if far[i, j] < FARTHEST:
                which[a[i], k] = b[j]
    return which


def switches(which: np.ndarray) -> int:
    return sum(int((np.diff(one[one >= 0]) != 0).sum()) for one in which)


def errors(truth: xr.Dataset, tracks: xr.Dataset, which: np.ndarray, prefix: str = "") -> tuple[np.ndarray, ...]:
    """Errors (place, 2), those over their standard deviations, and which overlap."""
    d, k = np.nonzero(which >= 0)
    t = which[d, k]
    off = [tracks[f"{prefix}{n}"].values[t, k] - truth[n].values[d, k] for n in ("row", "column")]
    std = [tracks[f"{prefix}{n}_std"].values[t, k] for n in ("row", "column")]
    return np.stack(off, -1), np.stack(off, -1) / np.stack(std, -1), truth["overlapped"].values[d, k] > 0


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean((values**2).sum(-1)))) if np.isfinite(values).any() else float("nan")


def one_seed(seed: int, refine: bool, folder: Path) -> dict[str, float]:
    path = folder / f"movie{seed}.h5"
    truth = braggscope.simulate("dfxm", "dislocation_movie", seed=seed, output=path, progress=False).truth
    scan, found = braggscope.open(path), {}
    for name, fitted in (("plain", False), ("refined", True))[: 1 + refine]:
        start = time.perf_counter()
        tracks = braggscope.analyse("dfxm", "track", scan, preset="al-002", characters=("12",), refine=fitted)
        seconds = time.perf_counter() - start
        which = matched(truth, tracks)
        off, pulls, overlapped = errors(truth, tracks, which)
        measured = errors(truth, tracks, which, "measured_")[0]
        there = int(np.isfinite(truth["row"].values).sum())
        good = np.isfinite(tracks["diffusion"].values)
        found |= {
            f"{name}_switches": switches(which), f"{name}_rms": rms(off), f"{name}_alone": rms(off[~overlapped]),
            f"{name}_overlapped": rms(off[overlapped]), f"{name}_measured": rms(measured),
            f"{name}_median": float(np.median(np.linalg.norm(off, axis=-1))),
            f"{name}_pull": float(np.sqrt(np.nanmean(pulls**2))),
            f"{name}_pull_median": float(np.nanmedian(np.abs(pulls)) / 0.6745),
            f"{name}_missed": there - int((which >= 0).sum()), f"{name}_there": there, f"{name}_tracks": tracks.sizes["track"],
            f"{name}_seconds": seconds, f"{name}_diffusion": float(np.median(tracks["diffusion"].values[good])),
        }  # fmt: skip
    path.unlink()
    return found


def in_the_image(diffusion: float) -> float:
    """A diffusion coefficient along the Burgers vector as it is in the plane of the image."""
    setting = setting_of("al-002")
    model = ImageModel(setting, chosen(setting, ["12"]), (64, 64))
    return diffusion * float((model.to_image([0], np.array([[1.0, 0.0]])) ** 2).sum())


def speed(folder: Path) -> tuple[float, float, float]:
    """Frames a second of the detection, by the clock and by processor time, and of all without refinement."""
    path = folder / "speed.h5"
    braggscope.simulate("dfxm", "dislocation_movie", seed=0, output=path, progress=False)
    scan, detector = braggscope.open(path), Detector.of((512, 512), 3.5, 10)
    frames = next(iter(scan.batches())).frames[:20]
    whole, part, processor = [], [], []
    for _ in range(3):
        start = time.perf_counter()
        braggscope.analyse("dfxm", "track", scan)
        whole.append(time.perf_counter() - start)
        start, used = time.perf_counter(), time.process_time()
        for frame in frames:
            detector.found(frame)
        part.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return len(frames) / min(part), len(frames) / min(processor), 60 / min(whole)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--seeds", type=int, default=10)
    given.add_argument("--refined", type=int, default=10, help="seeds that are refined too")
    options = given.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wall, processor, analysed = speed(folder)
        what = "frames/s of 512 x 512, no refinement: detection | by processor time | whole analysis"
        row(what, ">= 20", f"{wall:.1f} | {processor:.1f} | {analysed:.1f}")
        every = []
        for seed in range(options.seeds):
            every.append(one_seed(seed, seed < options.refined, folder))
            print(f"  seed {seed}: " + ", ".join(f"{k} {v:.4g}" for k, v in every[-1].items()), flush=True)
    for kind, target in (("plain", 0.3), ("refined", 0.05)):
        if f"{kind}_rms" not in every[0]:
            continue
        some = [one for one in every if f"{kind}_rms" in one]
        values = {k: np.array([one[f"{kind}_{k}"] for one in some]) for k in ("switches", "rms", "alone", "overlapped", "median",
                  "measured", "pull", "pull_median", "missed", "there", "seconds", "diffusion")}  # fmt: skip
        row(f"{kind}: seeds without identity switch", "9 of 10", f"{int((values['switches'] == 0).sum())} of {len(some)}")
        for what in ("rms", "alone", "overlapped", "median", "measured"):
            said = f"{values[what].max():.3f} | {np.nanmean(values[what]):.3f}"
            row(f"{kind}: {what} (px), worst | mean of seeds", f"<= {target}" if what == "rms" else "-", said)
        said = f"{values['pull'].mean():.2f} | {values['pull_median'].mean():.2f}"
        row(f"{kind}: error over its std, rms | from the median", "1", said)
        row(f"{kind}: true places without a track", "-", f"{int(values['missed'].sum())} of {int(values['there'].sum())}")
        row(f"{kind}: median diffusion (nm^2/s), mean of seeds", f"{in_the_image(300):.0f}", f"{values['diffusion'].mean():.0f}")
        row(f"{kind}: seconds a movie", "-", f"{values['seconds'].mean():.1f}")


if __name__ == "__main__":
    main()
