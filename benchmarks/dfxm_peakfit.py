"""DFXM peak fits: speed, error over the Cramer-Rao bound, z-scores, honesty on real scans, and memory; peers in the same run.

    python benchmarks/dfxm_peakfit.py                                   simulations
    python benchmarks/dfxm_peakfit.py --data ../shared/data             also the real rocking and domains scans
    python benchmarks/dfxm_peakfit.py --peers PYTHON                    also darling, darfix and midas-dfxm in that interpreter
    python benchmarks/dfxm_peakfit.py --size-gb 16 --folder FOLDER      also a file of this size under a limit of 2 GB

Times are of prepare + all pixels + result, from frames in memory. Simulated pixels: Gaussians on a pedestal of 100, gain 2,
read-out noise 3.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.optimize import curve_fit

from braggscope.core.batch import Batch
from braggscope.core.curves import pixel_blocks
from braggscope.core.scan import Scan
from braggscope.core.simulation import Simulation
from braggscope.modalities.dfxm.estimators.peakfit import PeakFit

MEMORY_GB = 2.0
NARROW = ("width_below_the_step", "curve_not_described_by_the_peaks")  # no doubt about where a peak is
NOISE = {"gain": 2.0, "readout": 3.0}


class Stack(Simulation):
    """Frames that are in memory, as a source."""

    def batches(self, size=None, *, only=None):  # type: ignore[no-untyped-def]
        """Views of the frames, copies only where some are left out."""
        frames = self.expected(np.arange(math.prod(self.shape)))
        for start in range(0, len(frames), 64):
            part = slice(start, min(start + 64, len(frames)))
            batch = Batch(np.arange(part.start, part.stop), frames[part])
            if only is None or only[part].all():
                yield batch
            elif only[part].any():
                yield batch.take(only[part])


def source_of(frames: np.ndarray, shape: tuple[int, ...]) -> Stack:
    names = ("chi", "mu")[-len(shape) :]
    coords = {n: ((n,), 0.01 * (np.arange(k) - (k - 1) / 2), {"units": "deg"}) for n, k in zip(names, shape, strict=True)}
    return Stack(None, xr.Dataset(coords=coords), frames.shape[1:], lambda index: frames, xr.Dataset(), None)  # type: ignore[arg-type, return-value]


def fitted(source: Stack, **options: object) -> xr.Dataset:
    estimator = PeakFit.with_options(None, options).prepare(source)
    state = estimator.init(source)
    for block in pixel_blocks(source.batches(), math.prod(source.shape), source.frame_shape):
        state = estimator.update(state, block)
    return estimator.result(state)


def counted(light: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Reports of the camera for expected photons."""
    return np.round(100 + 2 * random.poisson(light) + random.normal(0, 3, light.shape)).clip(0).astype(np.uint16)


def rocking(rows: int, columns: int, points: int = 41, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Frames of a rocking scan and the truth in steps."""
    random = np.random.default_rng(seed)
    u = np.arange(points) - (points - 1) / 2
    truth = {
        "mu": random.uniform(-8, 8, (rows, columns)),
        "mu_width": random.uniform(2, 4, (rows, columns)),
        "amplitude": random.uniform(100, 800, (rows, columns)),
    }
    frames = np.empty((points, rows, columns), np.uint16)
    for i in range(points):
        frames[i] = counted(truth["amplitude"] * np.exp(-0.5 * ((u[i] - truth["mu"]) / truth["mu_width"]) ** 2), random)
    return frames, {**truth, "amplitude": 2 * truth["amplitude"]}


def mosaicity(rows: int, columns: int, peaks: int, points: int = 21, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Frames of a scan of two motors with one or two peaks in each pixel."""
    random = np.random.default_rng(seed)
    u = np.arange(points) - (points - 1) / 2
    shape = (rows, columns)
    angle = random.uniform(0, 2 * np.pi, shape)
    centre = np.array([random.uniform(-2, 2, shape), random.uniform(-2, 2, shape)])
    apart = 3.5 * np.array([np.cos(angle), np.sin(angle)]) if peaks == 2 else np.zeros((2, *shape))
    places = [centre + apart, centre - apart][:peaks]
    widths = [random.uniform(1.2, 2.2, (2, *shape)) for _ in places]
    heights = [random.uniform(200, 600, shape), random.uniform(80, 300, shape)][:peaks]
    frames = np.empty((points * points, *shape), np.uint16)
    for i in range(points):
        for j in range(points):
            light = np.zeros(shape)
            for m, w, a in zip(places, widths, heights, strict=True):
                light += a * np.exp(-0.5 * ((u[i] - m[0]) / w[0]) ** 2 - 0.5 * ((u[j] - m[1]) / w[1]) ** 2)
            frames[points * i + j] = counted(light, random)
    return frames, {"chi": places[0][0], "mu": places[0][1]}


def bound_of_centre(truth: dict[str, np.ndarray], points: int = 41) -> np.ndarray:
    """Cramer-Rao bound of the centre in steps: counts of variance 9 + 2 (mean - 100), all four parameters unknown."""
    u = (np.arange(points) - (points - 1) / 2)[:, None]
    m, s, a = (truth[n].ravel() for n in ("mu", "mu_width", "amplitude"))
    t = (u - m) / s
    g = np.exp(-0.5 * t**2)
    jacobian = np.stack([np.ones_like(g), g, a * g * t / s, a * g * t**2])
    information = np.einsum("axp,xp,bxp->pab", jacobian, 1 / (9 + 2 * a * g), jacobian)
    return np.sqrt(np.linalg.inv(information)[:, 2, 2])


def row(what: str, target: object, measured: object) -> None:
    print(f"{what:62s} | {target!s:12s} | {measured}", flush=True)


def with_compilation() -> tuple[float, float]:
    """Seconds of a first and of a second fit of 1024 x 1024 x 41 in a fresh process without compiled code."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import dfxm_peakfit as b\n"
        "f, _ = b.rocking(1024, 1024); s = b.source_of(f, (41,))\n"
        "for _ in range(2):\n    t = time.perf_counter(); b.fitted(s); print(time.perf_counter() - t)"
    )
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)], env={**os.environ, "NUMBA_CACHE_DIR": cache},
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    first, second = (float(line) for line in done.stdout.split()[-2:])
    return first, second


def best(work, repeat: int) -> float:  # type: ignore[no-untyped-def]
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def one_motor(repeat: int) -> np.ndarray:
    frames, truth = rocking(1024, 1024)
    source = source_of(frames, (41,))
    result = fitted(source)
    seconds = best(lambda: fitted(source), repeat)
    row("1024 x 1024 x 41, Gaussian with covariance, warm (s)", "<= 2", f"{seconds:.2f}")
    first, second = with_compilation()
    row("the same in a fresh process, compilation included (s)", "<= 6", f"{first:.1f} (then {second:.1f})")
    good = result["flag"].values == 0
    error = (result["mu"].values / 0.01 - truth["mu"])[good]
    ratio = math.sqrt(np.mean((error / bound_of_centre(truth)[good.ravel()]) ** 2))
    row("error of the centre over the Cramer-Rao bound", "<= 1.05", f"{ratio:.3f} ({good.mean():.2%} of the pixels are good)")
    for name, scale in (("mu", 0.01), ("mu_width", 0.01), ("amplitude", 1.0)):
        z = ((result[name].values - scale * truth[name]) / result[f"{name}_std"].values)[good]
        row(f"z-score of {name}: mean, spread", "0.95 to 1.05", f"{z.mean():+.3f}, {z.std():.3f}")
    return frames


def two_motors(repeat: int) -> np.ndarray:
    kept: list[np.ndarray] = []
    for peaks, target in ((1, 20), (2, 30)):
        frames, truth = mosaicity(512, 512, peaks)
        source = source_of(frames, (21, 21))
        result = fitted(source, peaks=peaks)
        seconds = best(lambda s=source, p=peaks: fitted(s, peaks=p), repeat)
        row(f"512 x 512 x 21 x 21, {peaks} peak{'s' if peaks > 1 else ''} in every pixel (s)", f"<= {target}", f"{seconds:.1f}")
        if peaks == 2:
            right = result["peaks"].values == 2
            row("  pixels in which two peaks are found", "", f"{right.mean():.2%}")
            seconds = best(lambda: fitted(source_of(kept[0], (21, 21)), peaks=2), 1)
            row("  the stack with one peak, asked for up to two (s)", "<= 30", f"{seconds:.1f}")
            distance = np.minimum.reduce(
                [
                    np.abs(result[f"chi{e}"].values / 0.01 - truth["chi"]) / (result[f"chi{e}_std"].values / 0.01)
                    for e in ("", "_2")
                ]
            )[right & (result["flag"].values == 0)]
            row("  |z| of the first peak's chi, root mean square", "0.95 to 1.05", f"{math.sqrt(np.mean(distance**2)):.3f}")
        else:
            good = result["flag"].values == 0
            z = ((result["chi"].values - 0.01 * truth["chi"]) / result["chi_std"].values)[good]
            row("  z-score of chi: mean, spread", "0.95 to 1.05", f"{z.mean():+.3f}, {z.std():.3f}")
            kept.append(frames)
    return kept[0]


def peers(python: str, one: np.ndarray, two: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        u = np.arange(41) - 20.0
        np.save(f"{folder}/rocking.npy", one.astype(np.float32))
        np.save(f"{folder}/mosaicity.npy", two.reshape(21, 21, 512, 512).astype(np.float32))
        np.save(f"{folder}/mu.npy", 0.01 * u)
        np.save(f"{folder}/chi.npy", 0.01 * (np.arange(21) - 10.0))
        script = Path(__file__).parent / "peers" / "peakfit.py"
        done = subprocess.run([python, str(script), folder], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    for name, microseconds in found.items():
        row(f"peer: {name.removesuffix('_us').replace('_', ' ')} (us per pixel)", "", f"{microseconds:.1f}")


def real_scans(data: Path) -> None:
    from braggscope.app.mapping import map_source
    from braggscope.core.source import open_scan

    scan = open_scan(data / "dfxm" / "id03_rocking_mu_fatigue.h5")
    known = np.load(data / "dfxm" / "reference_rocking_mu_darling_darfix.npz")
    m = map_source(scan, "peakfit", progress=False)
    axis = scan.grid["mu"].values
    good = m["flag"].values == 0
    inside = (m["mu"].values >= axis.min()) & (m["mu"].values <= axis.max())
    wide = m["mu_width"].values > np.diff(axis).mean()
    row("real rocking scan: good pixels", "", f"{good.mean():.1%}")
    row("  of these with the centre inside and wider than a step", "all", f"{(inside & wide)[good].mean():.2%}")
    fit = known["gauss_A_sigma_mu_k_m_success"]
    success, centre, sigma = fit[..., 5] > 0.5, fit[..., 2], np.abs(fit[..., 1])
    theirs = (centre >= axis.min()) & (centre <= axis.max())
    row("  darling: called good; of all, with the centre inside", "", f"{success.mean():.1%}; {(success & theirs).mean():.1%}")
    both = good & success & theirs & (sigma > np.diff(axis).mean())
    difference = (m["mu"].values - centre)[both] / np.diff(axis).mean()
    row("  where both are good: median |difference| of centres (steps)", "", f"{np.median(np.abs(difference)):.3f}")
    ours, darling = beside_least_squares(scan, both, m["mu"].values, centre)
    row("  from scipy's least squares: ours, darling's (steps)", "", f"{ours:.2f}, {darling:.2f} (median of 300 pixels)")
    domains(data)


def beside_least_squares(scan: Scan, where: np.ndarray, *centres: np.ndarray) -> list[float]:
    """Median distance in steps of each map of centres from scipy.optimize.curve_fit with equal weights, in 300 pixels."""
    axis = scan.grid["mu"].values
    frames = np.concatenate([batch.frames for batch in scan.batches()]).astype(float)
    step = np.diff(axis).mean()

    def gaussian(x: np.ndarray, a: float, m: float, s: float, b: float) -> np.ndarray:
        return a * np.exp(-0.5 * ((x - m) / s) ** 2) + b

    far = []
    for i, j in np.random.default_rng(0).permutation(np.argwhere(where))[:300]:
        y = frames[:, i, j]
        start = [np.ptp(y), axis[y.argmax()], 20 * step, np.median(y)]
        with contextlib.suppress(RuntimeError):  # no fit in so many steps
            found, _ = curve_fit(gaussian, axis, y, p0=start)
            far.append([abs(c[i, j] - found[1]) / step for c in centres])
    return list(np.median(far, axis=0))


def domains(data: Path) -> None:
    """Two peaks per pixel against darling's labels, where both are confident."""
    from braggscope.app.mapping import map_source
    from braggscope.core.source import open_scan

    scan = open_scan(data / "dfxm" / "id03_mosa_domains_111_Al_chi_diffry.h5")
    start = time.perf_counter()
    m = map_source(scan, "peakfit", options={"peaks": 2}, progress=False)
    row("real domains scan, up to two peaks (s)", "", f"{time.perf_counter() - start:.1f}")
    known = np.load(data / "dfxm" / "reference_domains_darling.npz")
    steps = np.array([np.diff(scan.grid[n].values).mean() for n in ("chi", "diffry")])
    theirs = np.stack([known["peaks2_mean_axis_0"], known["peaks2_mean_axis_1"]], axis=-1) / steps  # (row, column, peak, motor)
    counts, sizes = known["peaks2_sum_intensity"], known["peaks2_number_of_pixels"]
    ours = np.stack([[m[f"{n}{e}"].values for n in ("chi", "diffry")] for e in ("", "_2")])
    ours = np.moveaxis(ours, (0, 1), (2, 3)) / steps
    words = m["flag"].attrs["flag_meanings"].split()
    doubtful = sum(int(bit) for bit, word in zip(m["flag"].attrs["flag_masks"], words, strict=True) if word not in NARROW)
    sure = ((m["peaks"] == 2) & (m["peaks_probability"] > 0.95) & ((m["flag"] & doubtful) == 0)).values
    row("  pixels with two peaks, and certain of it", "", f"{sure.mean():.1%}")
    # darling labels local maxima: it is taken to be confident where the weaker is no single point and a tenth of the stronger
    both = sure & (sizes[..., 1] >= 4) & (counts[..., 1] > 0.1 * counts[..., 0])
    straight = np.linalg.norm(ours - theirs, axis=-1)[both]
    crossed = np.linalg.norm(ours - theirs[..., ::-1, :], axis=-1)[both]
    distance = np.where((straight.sum(1) <= crossed.sum(1))[:, None], straight, crossed)
    apart = np.linalg.norm(theirs[..., 0, :] - theirs[..., 1, :], axis=-1)[both]
    same = (distance < 0.5 * apart[:, None]).all(axis=1)
    row("  both confident: each peak at its own label", "agrees", f"{same.mean():.1%} of {both.sum()} pixels")
    for low, high in ((0, 5), (5, 8), (8, 12), (12, 99)):
        part = (apart >= low) & (apart < high)
        row(f"    labels {low} to {high} steps apart", "", f"{same[part].mean():.1%} of {part.sum()}")
    row("  median distance of either peak from its label (steps)", "", ", ".join(f"{d:.2f}" for d in np.median(distance, axis=0)))


def one_pass(path: str) -> None:
    """In a process of its own: map the file with the engine under the memory limit, print seconds and peak memory."""
    from braggscope.core.source import open_scan
    from braggscope.engine.local import run

    limit = int(MEMORY_GB * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    start = time.perf_counter()
    scan = open_scan(path)
    estimator = PeakFit(None).prepare(scan)
    for progress in run(scan, estimator):
        state = progress.state
    result = estimator.result(state)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_gb": peak, "mean": float(result["mu"].mean())}))


def larger_than_memory(folder: Path, size_gb: float) -> None:
    from dfxm_moments import write_file

    path = folder / "braggscope_benchmark_peakfit.h5"
    try:
        frames = write_file(path, size_gb)
        done = subprocess.run(
            [sys.executable, __file__, "--one-pass", str(path)], check=True, capture_output=True, text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )  # fmt: skip
    finally:
        path.unlink(missing_ok=True)
    got = json.loads(done.stdout.splitlines()[-1])
    row(f"{size_gb:g} GB, {frames} frames of 1024 x 1024: runs in 2 GB (peak GB)", "<= 2", f"{got['peak_gb']:.2f}")
    row("  time (s)", "", f"{got['seconds']:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder with dfxm/ in it")
    parser.add_argument("--peers", help="interpreter that has darling, darfix and midas-dfxm")
    parser.add_argument(
        "--size-gb", type=float, help="size of a file for the pass under a memory limit; without it there is none"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where that file and its curves are written"
    )
    parser.add_argument("--one-pass", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_pass:
        return one_pass(given.one_pass)
    row("", "target", "measured")
    if given.data:
        real_scans(given.data)
    if given.size_gb:
        return larger_than_memory(given.folder, given.size_gb)
    one, two = one_motor(given.repeat), two_motors(given.repeat)
    if given.peers:
        peers(given.peers, one, two)


if __name__ == "__main__":
    main()
