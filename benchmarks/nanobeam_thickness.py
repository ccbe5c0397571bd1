"""The thickness of the film as a further parameter: likelihood, DONUT and the conventional correlation fit.

    python benchmarks/nanobeam_thickness.py [--models models] [--train]

The published correlation fit of a film of 120 angstrom says 136, DONUT 110. Its read-out (DONUT, correlation_fit_gpu.py) is for a
library of 11 thicknesses in steps of 10 about 117 and 21 values of strain and each tilt; the library script that was published
(generate_sim_library.py) has the uneven thicknesses 50, 75, 90, 100, 110, 117, 124, 134, 144, 159, 184. Both are rebuilt here, on
frames of the closed form whose thickness is known, with what makes their answer.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import braggscope
from braggscope.core.batch import Batch
from braggscope.infer.runtime import set_workers
from braggscope.modalities.nanobeam import phantom
from braggscope.modalities.nanobeam.estimators.correlation import (
    Correlation,
    correlate,
    library_frames,
    read_out,
    summed_templates,
)
from braggscope.modalities.nanobeam.estimators.donut import DonutMethod
from braggscope.modalities.nanobeam.estimators.likelihood import Likelihood
from braggscope.modalities.nanobeam.geometry import NanobeamGeometry, published
from shared import UNITS, covariance, flat_truth, geometry_without_background, random_scan, rms, row, sample, trained

NAMES = ("strain", "omega", "chi", "scale", "background", "thickness")
SHOWN = ("strain", "omega", "chi", "thickness")
RANGES = (5e-3, 0.05, 0.1)
PUBLISHED_FILMS = (50.0, 75.0, 90.0, 100.0, 110.0, 117.0, 124.0, 134.0, 144.0, 159.0, 184.0)
PUBLISHED_GRID = 21
EVEN_FILMS = tuple(np.linspace(67.0, 167.0, 11).tolist())
FILMS = (80.0, 100.0, 117.0, 120.0, 150.0, 200.0, 300.0)
FRAMES = Path(__file__).parents[1] / "examples" / "data" / "sriro3_frames.h5"


def likelihood(options: argparse.Namespace) -> None:
    """Thickness free, 80 to 300 angstrom, over the full range of strain and tilts at a peak of 7 counts."""
    source = phantom.uniform(published(), shape=(options.frames,), seed=7, thickness=(80.0, 300.0))
    counts, truth = source.frames(np.arange(options.frames)).astype(np.uint16), flat_truth(source)
    found = Likelihood(published(), thickness="free").fit(Batch(np.arange(options.frames), counts))
    report("likelihood, 80 to 300 angstrom, full range, peak 7", found, truth, published(), "<= 1.10")


def report(label: str, found: dict, truth: dict, geometry: NanobeamGeometry, target: str) -> None:
    """RMSE over the bound, and how errors of thickness go with those of strain."""
    matrix = covariance(truth, NAMES, geometry)
    for name in SHOWN:
        i, error = NAMES.index(name), found[name] - truth[name]
        good = np.isfinite(error)
        crb = np.sqrt(matrix[good, i, i].mean())
        z = f", z spread {np.nanstd(error / found[f'{name}_std']):.3f}" if f"{name}_std" in found else ""
        measured = f"{rms(error) / crb:.3f} (RMSE {rms(error):.4g}{UNITS[name]}, bias {np.nanmean(error):+.2g}{z})"
        row(f"{label}: {name} RMSE / bound", target, measured)
    lost, flagged = np.isnan(found["strain"]).mean(), (found["flag"] != 0).mean() if "flag" in found else np.nan
    row(f"{label}: lost, flagged", "", f"{100 * lost:.1f} %, {100 * flagged:.1f} %")
    correlated(label, found, truth, matrix)


def correlated(label: str, found: dict, truth: dict, matrix: np.ndarray) -> None:
    """Errors of thickness with errors of strain, each over its bound, and what the Fisher matrix says of each frame.

    In some frames the two go together, in others against each other, so that their mean alone says little: errors that follow
    the matrix have a slope of 1 on its coefficient.
    """
    s, t = NAMES.index("strain"), NAMES.index("thickness")
    stds = np.sqrt(np.einsum("fii->fi", matrix))
    rho = matrix[:, s, t] / (stds[:, s] * stds[:, t])
    product = (found["strain"] - truth["strain"]) / stds[:, s] * (found["thickness"] - truth["thickness"]) / stds[:, t]
    pair = [(found[n] - truth[n]) / stds[:, i] for n, i in (("strain", s), ("thickness", t))]
    good = np.isfinite(product)
    plain = np.corrcoef(pair[0][good], pair[1][good])[0, 1]
    limit = f"or the Fisher matrix's: mean {rho.mean():+.3f}, rms {np.sqrt(np.mean(rho**2)):.3f}"
    row(
        f"{label}: correlation of thickness and strain errors",
        f"< 0.1, {limit}",
        f"{plain:+.3f} +- {1 / np.sqrt(good.sum()):.3f}",
    )
    x, y = rho[good], product[good]
    slope = (x @ y) / (x @ x)
    error = np.sqrt(np.mean((y - slope * x) ** 2) / (x @ x))
    row(f"{label}: slope of the product of errors on the matrix's coefficient", "1", f"{slope:.2f} +- {error:.2f}")


def donut(options: argparse.Namespace) -> None:
    """DONUT with four parameters, published size, strain, tilts and films of 80 to 300 angstrom at random."""
    name = "donut_published_4_0"
    if not options.train and not (options.models / f"{name}.safetensors").exists():
        row("DONUT, 4 parameters", "", f"no model {options.models / name}.safetensors; --train makes it")
        return
    frames, epochs = (600, 2) if options.quick else (20000, 0)
    method = DonutMethod(
        geometry_without_background(), recipe="robust", parameters=4, thickness_middle=190.0, thickness_half=75.0,
        frames=frames, epochs=epochs,
    )  # fmt: skip
    source = random_scan(int(np.ceil(np.sqrt(frames))), seed=1, films=(80.0, 300.0))
    found, said = trained(method, options.models, name, [source], device=options.device)
    row("DONUT, 4 parameters: training", "", said)
    test = random_scan(seed=99, films=(80.0, 300.0))
    values = found.fit(Batch(np.arange(64 * 64), test.frames(np.arange(64 * 64)).astype(np.uint16)))
    report("DONUT, 4 parameters, 80 to 300 angstrom", values, flat_truth(test), geometry_without_background(), "")


def correlation(options: argparse.Namespace) -> None:
    """The conventional fit with a library of thicknesses."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    method = Correlation(published(), thickness="free").prepare(phantom.uniform(published(), shape=(1,)))
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row(
        "templates of the 41^4 library",
        "a few minutes, < 1 GB",
        f"{seconds:.1f} s, {peak / 2**20:.2f} GB ({before / 2**20:.2f} before)",
    )
    libraries = {
        "11 x 21^3 as the published read-out has it": (EVEN_FILMS, PUBLISHED_GRID),
        "11 x 21^3 as the published library script has it": (PUBLISHED_FILMS, PUBLISHED_GRID),
    }
    for film in FILMS:
        counts = frames_of(film)
        found = method.fit(Batch(np.arange(len(counts)), counts))["thickness"]
        row(f"correlation, 41^4, film of {film:g} angstrom", f"{film:g}", f"{found.mean():.1f} +- {found.std():.1f}")
        for name, (films, grid) in libraries.items():
            values = thickness_by(counts, films, grid)
            row(f"correlation, {name}, film of {film:g} angstrom", f"{film:g}", f"{values.mean():.1f} +- {values.std():.1f}")
    marginal(frames_of(120.0))
    measured_frames(libraries)


def frames_of(film: float, count: int = 400) -> np.ndarray:
    """Counts of a film of this thickness with the strain and tilts of the sample of the papers, peak 7."""
    fields = random_scan(int(np.sqrt(count)), seed=5).truth
    uniform = {n: fields[n].values for n in ("strain", "omega", "chi")} | {"thickness": np.full(fields["strain"].shape, film)}
    source = sample(uniform, seed=8)
    return source.frames(np.arange(np.prod(source.shape)))


def marginal_of(counts: np.ndarray, films: Sequence[float], grid: int) -> np.ndarray:
    """The marginal over thickness of each frame, less its mean, shape (frame, film)."""
    templates = summed_templates(published(), (64, 64), RANGES, grid, tuple(films))
    found = correlate(np.ascontiguousarray(counts, np.float32).reshape(len(counts), -1), templates)
    return found[:, -len(films) :]


def thickness_by(counts: np.ndarray, films: Sequence[float], grid: int) -> np.ndarray:
    """The published read-out: centre of mass of the index, as a thickness of even steps of 10 angstrom about 117."""
    return 117 + 50 * read_out(marginal_of(counts, films, grid)[:, None], (1.0,))[:, 0]


def marginal(counts: np.ndarray) -> None:
    """What the marginal looks like, why it rises, and what a marginal that only rises makes of any film."""
    mean = marginal_of(counts, EVEN_FILMS, PUBLISHED_GRID).mean(0)
    shape = (mean - mean.min()) / (mean.max() - mean.min())
    row("marginal of a film of 120 angstrom at 67, 77, ... 167, from 0 to 1", "", " ".join(f"{v:.2f}" for v in shape))
    line = 117 + 50 * read_out(np.arange(11.0)[None, None], (1.0,))[0, 0]
    row("read-out of a marginal that is a straight line, whatever its slope", "", f"{line:.1f}")
    middle = [middle_of_library(film) for film in EVEN_FILMS[::5]]
    said = ", ".join(f"{v:.3f}" for v in middle)
    row("light of all library frames of 67, 117, 167 angstrom in the middle half of the columns", "", said)
    aligned = [float(counts.reshape(len(counts), -1).mean(0) @ at_rest(film)) for film in EVEN_FILMS[::5]]
    said = ", ".join(f"{v / aligned[1]:.3f}" for v in aligned)
    row("mean correlation with the one frame at rest of 67, 117, 167 angstrom, that of 117 being 1", "", said)


def at_rest(film: float) -> np.ndarray:
    """The library frame of a film without strain and tilt, shape (pixel,)."""
    return library_frames(published().replace(thickness_a=film), (64, 64), 0.0, np.zeros(1), np.zeros(1))[0, 0]


def middle_of_library(film: float, grid: int = 11) -> float:
    """Share of the light of a library's frames of one film that falls on columns 16 to 47 of 64."""
    geometry = published().replace(thickness_a=film)
    strain, omega, chi = (np.linspace(-r, r, grid) for r in RANGES)
    total = sum(library_frames(geometry, (64, 64), e, omega, chi).sum((0, 1), dtype=np.float64) for e in strain)
    image = np.reshape(total, (64, 64))
    return float(image[:, 16:48].sum() / image.sum())


def measured_frames(libraries: dict) -> None:
    """The two measured frames that are published, of a film of 120 angstrom; their ring is smaller than the nominal one."""
    scan = braggscope.open(FRAMES)
    counts = np.concatenate([batch.frames for batch in scan.batches()])
    for name, (films, grid) in libraries.items():
        values = thickness_by(counts, films, grid)
        said = ", ".join(f"{v:.1f}" for v in values)
        row(f"correlation, {name}, the two measured frames", "published: 136 (whole scan)", said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of trained models")
    parser.add_argument("--train", action="store_true", help="train what is missing there")
    parser.add_argument("--frames", type=int, default=4000, help="frames of the likelihood's rows")
    parser.add_argument("--workers", type=int, help="threads; by default all cores")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to train")
    parser.add_argument("--quick", action="store_true", help="a tiny training, in a folder of its own; its figures say nothing")
    options = parser.parse_args()
    if options.quick:
        options.models, options.train = options.models / "quick", True
    set_workers(options.workers)
    row("what", "target", "measured")
    for part in (likelihood, correlation, donut):
        part(options)


if __name__ == "__main__":
    main()
