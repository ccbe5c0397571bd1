"""The conventional correlation fit: published errors, equality with the full library fit, time and memory.

The published errors (DONUT, visualizations.ipynb, cell 32) are of a 64 x 64 scan of a sinusoid in strain (+-5e-4) and sigmoids in
the tilts (+-0.005 and +-0.01 deg), each frame scaled to a peak of 7 counts, without background. Scan and library there came
from a sum over the pupil at two samples per pixel with a Gaussian of 0.1 pixel, which aliases: published_kernels.py.

    python benchmarks/nanobeam_correlation.py [--seeds 3]
"""

import argparse
import resource
import time

import numpy as np

from braggscope.core.batch import Batch
from braggscope.modalities.nanobeam.estimators.correlation import AXES, Correlation, library_frames, read_out, summed_templates
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.phantom import uniform
from braggscope.modalities.nanobeam.published_kernels import PublishedKernel

RANGES = (5e-3, 0.05, 0.1)
GRID = 41
PUBLISHED = {"strain": (9.246e-05, 2.6064e-04), "omega": (-1.046e-05, 8.2087e-04), "chi": (-3.4265e-04, 1.47978e-03)}


def templates(kernel: PublishedKernel) -> np.ndarray:
    """Summed templates of the library of a kernel, shape (axis, grid, pixel)."""
    strain, omega, chi = (np.linspace(-r, r, GRID) for r in RANGES)
    sums = np.zeros((3, GRID, *kernel.frame_shape))
    for i, e in enumerate(strain):
        tilts = np.stack([x.ravel() for x in np.meshgrid(omega, chi, indexing="ij")])
        frames = kernel.frames(np.full(GRID**2, e), *tilts).reshape(GRID, GRID, *kernel.frame_shape).astype(float)
        frames /= frames.sum((2, 3), keepdims=True)
        sums[0, i] = frames.sum((0, 1))
        sums[1] += frames.sum(1)
        sums[2] += frames.sum(0)
    return sums.reshape(3, GRID, -1)


def published_sample(pixels: int = 64) -> dict[str, np.ndarray]:
    """Strain and tilts (deg) of the published scan."""

    def sigmoid(high: float, x: tuple[float, float], y: tuple[float, float], turn: float) -> np.ndarray:
        xs, ys = np.meshgrid(np.linspace(*x, pixels), np.linspace(*y, pixels))
        return high / (1 + np.exp(-(xs * np.cos(turn) - ys * np.sin(turn)) / 0.07))

    def tilt(high: float) -> np.ndarray:
        rising = sigmoid(high, (-3, -1), (-1, 1), np.pi / 3)
        falling = sigmoid(high, (-1.5, 0.5), (-1, 1), np.pi / 3) + sigmoid(high, (1, 3), (1, -1), 2 * np.pi / 3)
        return rising - falling + high / 2

    x, y = np.meshgrid(np.linspace(-1, 1, pixels), np.linspace(-1, 1, pixels))
    return {"strain": 5e-4 * np.sin(2 * np.pi * (x + y) / 0.4), "omega": tilt(0.01), "chi": tilt(0.02)}


def reproduce(seeds: int) -> None:
    """The published bias and scatter, with the published kernel."""
    kernel, truth = PublishedKernel("gaussian", published(), (64, 64)), published_sample()
    summed = templates(kernel)
    frames = 7.0 * kernel.frames(*(truth[n].ravel() for n in AXES))  # each has its maximum at 1
    found = []
    for seed in range(seeds):
        counts = np.random.default_rng(seed).poisson(frames).reshape(len(frames), -1).astype(float)
        marginals = np.einsum("fp,agp->fag", counts, summed, optimize=True)
        error = read_out(marginals, RANGES) - np.stack([truth[n].ravel() for n in AXES], axis=-1)
        found.append((error.mean(0), error.std(0)))
    bias, scatter = np.mean(found, axis=0)
    for i, name in enumerate(AXES):
        was_bias, was_scatter = PUBLISHED[name]
        print(f"{name}: scatter | {was_scatter:.3g} +- 15 % | {scatter[i]:.3g} ({100 * (scatter[i] / was_scatter - 1):+.1f} %)")
        print(f"{name}: bias | {was_bias:.3g} | {bias[i]:.3g}")


def compare(frames: int, grid: int = 9) -> None:
    """Against the fit with every library frame, on a smaller grid."""
    geometry, scan = published(), uniform(published(), shape=(frames,))
    counts = scan.frames(np.arange(frames))
    axes = [np.linspace(-r, r, grid) for r in RANGES]
    library = np.stack([library_frames(geometry, (64, 64), e, axes[1], axes[2]) for e in axes[0]]).astype(np.float64)
    scores = np.einsum("fp,eocp->feoc", counts.reshape(frames, -1).astype(np.float64), library, optimize=True)
    marginals = np.stack([scores.sum((2, 3)), scores.sum((1, 3)), scores.sum((1, 2))], axis=1)
    full = read_out(marginals, RANGES)
    ours = Correlation(geometry, grid=grid).fit(Batch(np.arange(frames), counts))
    worst = max(float(np.abs(ours[n] - full[:, i]).max() / RANGES[i]) for i, n in enumerate(AXES))
    print(f"largest difference to the full-library fit ({grid}^3), share of the range | rounding | {worst:.1e}")


def speed(frames: int) -> None:
    """Templates and kernel."""
    estimator, scan = Correlation(published()), uniform(published(), shape=(frames,))
    counts = Batch(np.arange(frames), scan.frames(np.arange(frames)).astype(np.uint16))
    started = time.perf_counter()
    summed_templates(published(), (64, 64), RANGES, GRID)
    print(f"templates of the 41^3 library | <= 60 s | {time.perf_counter() - started:.1f} s")
    times = []
    for _ in range(7):
        started = time.perf_counter()
        values = estimator.fit(counts)
        times.append((time.perf_counter() - started) / frames * 1e3)
    print(f"correlation of uint16 frames | <= 0.05 ms/frame | {min(times):.4f} ms/frame")
    for name in AXES:
        error = values[name] - scan.truth[name].values
        print(f"{name}, full range, closed-form frames: scatter | (no target) | {error.std():.3g}, bias {error.mean():.2g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=4000)
    options = parser.parse_args()
    print("what | target | measured")
    speed(options.frames)
    print(f"memory of the process so far | <= 1 GB | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")
    compare(200)
    reproduce(options.seeds)


if __name__ == "__main__":
    main()
