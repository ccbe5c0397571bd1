"""All nanobeam methods on the same frames: published kernels, closed form, dose, and the sample of the papers.

    python benchmarks/nanobeam_methods.py --models models --train --output maps

Parts: `kernels` (frames of the two published, aliased simulators, labels off their grid), `closed` (closed form, full range, a
peak of 7 counts), `dose` (10 to 10 000 counts in a frame; the networks know one dose, or with `amortised` a range of doses) and
`sample` (the sample of the papers mapped; strain that shows in the map of omega, as a regression slope).

Models are those of --models; --train makes those that are missing. A row says first what is measured, then what is asked,
then RMSE (over the Cramer-Rao bound; z spread, where the method gives standard deviations) of strain, omega and chi.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tomli_w
from matplotlib.figure import Figure

from braggscope.core.batch import Batch
from braggscope.core.estimator import PerFrame
from braggscope.core.learned import Learned
from braggscope.infer.runtime import set_workers
from braggscope.modalities.nanobeam import phantom
from braggscope.modalities.nanobeam.compiled import tables
from braggscope.modalities.nanobeam.estimators.amortised import Amortised
from braggscope.modalities.nanobeam.estimators.correlation import Correlation
from braggscope.modalities.nanobeam.estimators.donut import DonutMethod
from braggscope.modalities.nanobeam.estimators.likelihood import Likelihood
from braggscope.modalities.nanobeam.estimators.moments import Moments
from braggscope.modalities.nanobeam.estimators.nanobeamnn import NanobeamNN
from braggscope.modalities.nanobeam.geometry import NanobeamGeometry, published
from braggscope.modalities.nanobeam.labelled import at_random, renderer, simulated
from braggscope.modalities.nanobeam.published_pupils import with_published_pupil
from shared import (
    ANGLES,
    UNITS,
    WEIGHTS,
    covariance,
    flat_truth,
    geometry_without_background,
    published_scan,
    quickest,
    rms,
    row,
    trained,
)

SHAPE = (64, 64)
FREE = (*ANGLES, "scale", "background")
SMALL = (5e-4, 0.005, 0.01)  # of the sample of the papers: strain, omega, chi (degrees) from minus to plus
PUBLISHED_DONUT = (1.23e-4, 2.2e-4, 1.6e-3)  # RMSE on the sample of the papers by its own kernel
DOSES = (10, 30, 100, 300, 1000, 3000, 10000)  # counts in a frame
BACKGROUND_SHARE = 0.1 / 7  # of the peak
Values = Mapping[str, np.ndarray]


class Models:
    """The trained methods by name; None where a model is missing and may not be trained."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder, self.train, self.quick = options.models, options.train, options.quick
        self.seed, self.device, self.epochs = options.seed, options.device, options.amortised_epochs

    def get(self, name: str, make: Callable[[], Learned], sources: Callable[[], list] = list) -> Learned | None:
        """A method with the model of this name."""
        if not self.train and not (self.folder / f"{name}.safetensors").exists():
            row(f"{name}", "", f"no model {self.folder / name}.safetensors; --train makes it")
            return None
        return trained(make(), self.folder, name, sources(), seed=self.seed, device=self.device)[0]

    def amortised(self, name: str = "amortised", geometry: NanobeamGeometry | None = None) -> Learned | None:
        """Trained over the full range, peaks of 1.5 to 40 counts."""
        tiny = {"epochs": 2, "frames": 2048} if self.quick else {"epochs": self.epochs}
        return self.get(name, lambda: Amortised(geometry or published(), **tiny))

    def nanobeamnn(self) -> Learned | None:
        """Trained on frames of the closed form, a peak of 7 counts."""
        tiny = {"grid": 9, "epochs": 2} if self.quick else {}
        return self.get("nanobeamnn_closed_form", lambda: NanobeamNN(published(), recipe="quick", kernel="closed_form", **tiny))

    def donut(self) -> Learned | None:
        """Trained on unlabelled frames over the full range."""
        count = 600 if self.quick else 20000
        tiny = {"epochs": 2} if self.quick else {}
        return self.get(
            "donut_full",
            lambda: DonutMethod(published(), recipe="robust", size="compact", **tiny),
            lambda: [phantom.uniform(published(), shape=(count,), seed=31)],
        )

    def donut_of_sample(self, size: str) -> Learned | None:
        """Trained on frames of the sample of the papers, by nanobeam_networks.py."""
        name = f"donut_{size}_0"
        if not (self.folder / f"{name}.safetensors").exists():
            row(f"{name}", "", f"no model {self.folder / name}.safetensors; nanobeam_networks.py donut --size {size} makes it")
            return None
        return trained(DonutMethod(geometry_without_background(), recipe="robust", size=size), self.folder, name)[0]


def with_steps(found: Learned | None, steps: int) -> Learned | None:
    return None if found is None else Amortised.from_model(found.model, found.geometry, {"steps": steps})


def existing(methods: Mapping[str, PerFrame | None]) -> dict[str, PerFrame]:
    return {name: method for name, method in methods.items() if method is not None}


def figures(values: Values, truth: Values, limit: np.ndarray | None) -> str:
    """RMSE of each parameter, over the bound and with the spread of z, and what was lost or flagged."""
    said = []
    for i, name in enumerate(ANGLES):
        error = values[name] - truth[name]
        good, more = np.isfinite(error), []
        if limit is not None and good.any():
            more.append(f"{rms(error) / np.sqrt(limit[good, i, i].mean()):.2f}")
        if f"{name}_std" in values:
            more.append(f"z {np.nanstd(error / values[f'{name}_std']):.2f}")
        said.append(f"{name} {rms(error) if good.any() else np.nan:.3g}{UNITS[name]}" + (f" ({', '.join(more)})" if more else ""))
    lost, flagged = np.isnan(values["strain"]).mean(), (values["flag"] != 0).mean()
    return f"{'; '.join(said)}; lost {100 * lost:.1f} %, flagged {100 * flagged:.1f} %"


def no_worse(values: Values, labels: Values, than: Mapping[str, float]) -> str:
    worse = [n for n in ANGLES if rms(values[n] - labels[n]) > than[n]]
    return "no parameter worse" if not worse else f"worse: {', '.join(worse)}"


def kernels(options: argparse.Namespace, models: Models) -> None:
    """Frames of the published simulators; the likelihood and `amortised` with the pupil that their kernel blurs."""
    network = None
    if options.weights.exists():
        with np.load(options.weights, allow_pickle=False) as file:
            network = NanobeamNN.from_model(NanobeamNN.convert(dict(file), published()), published(), {})
    else:
        row("published NanobeamNN weights", "", f"no file {options.weights}; give one with --weights")
    for kernel in ("box", "gaussian"):
        geometry = geometry_for(kernel, options.models)
        fitted = models.amortised(f"amortised_{kernel}", geometry)
        methods = {"likelihood": Likelihood(geometry)}
        methods |= {f"amortised, {steps} steps": with_steps(fitted, steps) for steps in (0, 2)}
        for what, labels in labels_of(kernel, options.frames).items():
            counts = simulated(renderer(kernel, published(), SHAPE, 7.0), SHAPE, labels, 7.0).counts(
                np.arange(len(labels)), 41, 1
            )
            compare(f"{kernel} kernel, {what}", counts, labels, network, existing(methods), kernel, what)


def geometry_for(kernel: str, folder: Path) -> NanobeamGeometry:
    """The geometry for frames of a published kernel; also written as geometry_KERNEL.toml, for the command line."""
    folder.mkdir(parents=True, exist_ok=True)
    geometry = with_published_pupil(published(), kernel, (folder / f"pupil_{kernel}.npz").resolve())
    table = geometry.to_mapping() | {"pupil_file": f"pupil_{kernel}.npz"}  # beside it
    (folder / f"geometry_{kernel}.toml").write_text(tomli_w.dumps({"nanobeam": table}), encoding="utf-8")
    return geometry


def labels_of(kernel: str, count: int) -> dict[str, np.ndarray]:
    if kernel == "box":
        return {"full range, off the grid": at_random(count, 40)}
    scan = flat_truth(published_scan())
    return {
        "small range, off the grid": at_random(count, 40, SMALL),
        "sample of the papers": np.stack([scan[n] for n in ANGLES], axis=-1),
    }


def compare(
    label: str, counts: np.ndarray, labels: np.ndarray, network: Learned | None, methods: Mapping, kernel: str, what: str
) -> None:
    truth, batch = dict(zip(ANGLES, labels.T, strict=True)), Batch(np.arange(len(counts)), counts)
    than: dict[str, float] = {}
    if network is not None:
        values = network.fit(batch)
        than = {n: rms(values[n] - truth[n]) for n in ANGLES}
        row(f"{label}: published NanobeamNN weights", "", figures(values, truth, None))
    if what == "sample of the papers":
        donut = dict(zip(ANGLES, PUBLISHED_DONUT, strict=True))
        row(f"{label}: DONUT, as published (not run here)", "", "; ".join(f"{n} {v:.3g}{UNITS[n]}" for n, v in donut.items()))
        than = {n: min(v, than.get(n, np.inf)) for n, v in donut.items()}
    for name, method in methods.items():
        values = method.fit(batch)
        target = f"no parameter worse than {'; '.join(f'{v:.3g}' for v in than.values())}" if than else ""
        said = f"{no_worse(values, truth, than)}: " if than else ""
        row(f"{label}: {name}", target, said + figures(values, truth, None))
        if kernel == "box":  # its tilts lack 1 / (1 + strain)
            right = {**values, **{n: values[n] / (1 + values["strain"]) for n in ("omega", "chi")}}
            row(f"{label}: {name}, tilts as that simulator means them", target, figures(right, truth, None))


def closed_form_methods(models: Models) -> dict[str, PerFrame]:
    """Every method that maps strain and tilts over the full range."""
    fitted = models.amortised()
    return existing(
        {
            "correlation": Correlation(published()),
            "nanobeamnn": models.nanobeamnn(),
            "donut": models.donut(),
            "amortised, 0 steps": with_steps(fitted, 0),
            "amortised, 1 steps": with_steps(fitted, 1),
            "amortised, 2 steps": with_steps(fitted, 2),
            "likelihood": Likelihood(published()),
        }
    )


def closed(options: argparse.Namespace, models: Models) -> None:
    """Closed form, full range, a peak of 7 counts: accuracy and time."""
    source = phantom.uniform(published(), shape=(options.frames,), seed=50)
    counts, truth = source.frames(np.arange(options.frames)).astype(np.uint16), flat_truth(source)
    limit, batch = covariance(truth, FREE, published()), Batch(np.arange(options.frames), counts)
    said = "; ".join(f"{n} {np.sqrt(limit[:, i, i].mean()):.3g}{UNITS[n]}" for i, n in enumerate(ANGLES))
    row("full range, peak 7: Cramer-Rao bound", "", said)
    methods = closed_form_methods(models)
    found = {name: method.fit(batch) for name, method in methods.items()}
    times: dict[str, list] = {name: [] for name in methods}
    for _ in range(options.repeats):  # in turn, so that a busy moment hits all of them
        for name, method in methods.items():
            times[name].append(quickest(lambda method=method: method.fit(batch), 1))
    wall, _, processor = (1e3 * t / options.frames for t in quickest(lambda: Moments(published()).fit(batch), options.repeats))
    time = f"{wall:.4f} ms/frame (processor {processor:.4f})"
    row("full range, peak 7: moments", "", f"centres of mass and counts alone, no strain or tilts; {time}")
    for name, values in found.items():
        wall, _, processor = 1e3 * np.min(times[name], axis=0) / options.frames
        time = f"{wall:.3f} ms/frame (processor {processor:.3f})"
        row(f"full range, peak 7: {name}", target_of(name), f"{figures(values, truth, limit)}; {time}")


def target_of(name: str) -> str:
    if name == "amortised, 0 steps":
        return "<= 1.3 x the bound"
    return "<= 1.05 x the bound" if name.startswith(("amortised", "likelihood")) else ""


def dose(options: argparse.Namespace, models: Models) -> None:
    """The same methods on frames of other doses; the background is always the same share of the peak."""
    light, methods = tables(published(), SHAPE).light, closed_form_methods(models)
    for total in DOSES:
        peak = total / (light * (1 - BACKGROUND_SHARE) + np.prod(SHAPE) * BACKGROUND_SHARE)
        geometry = published().replace(background=peak * BACKGROUND_SHARE)
        source = phantom.uniform(geometry, shape=(options.frames,), seed=60, peak=peak)
        counts, truth = source.frames(np.arange(options.frames)).astype(np.uint16), flat_truth(source)
        limit = covariance(truth, FREE, geometry)
        seen = f"{counts.sum((1, 2)).mean():.0f} on average: tilted rings leave the frame"
        row(f"{total} counts in a frame at zero tilt (peak {peak:.2g})", "", seen)
        for name, method in methods.items():
            values = method.fit(Batch(np.arange(len(counts)), counts))
            row(f"{total} counts: {name}", "", figures(values, truth, limit))


def sample(options: argparse.Namespace, models: Models) -> None:
    """The sample of the papers by the closed form, mapped; the stripes of strain must not show in omega."""
    scan = published_scan(seed=70)
    counts, truth = scan.frames(np.arange(np.prod(scan.shape))).astype(np.uint16), flat_truth(scan)
    limit = covariance({n: v[::16] for n, v in truth.items()}, FREE, geometry_without_background())
    said = "; ".join(f"{n} {np.sqrt(limit[:, i, i].mean()):.3g}{UNITS[n]}" for i, n in enumerate(ANGLES))
    row("sample of the papers: Cramer-Rao bound, every 16th frame", "", said)
    methods = closed_form_methods(models)
    methods |= existing({f"donut of these ranges, {size}": models.donut_of_sample(size) for size in ("compact", "published")})
    maps = {"truth": {n: truth[n].reshape(scan.shape) for n in ANGLES}}
    for name, method in methods.items():
        values = method.fit(Batch(np.arange(len(counts)), counts))
        row(f"sample of the papers: {name}", "", figures(values, truth, None))
        slope, error = regression(values["omega"] - truth["omega"], truth["strain"])
        target = "visible in the published map" if name == "correlation" else "no stripes: within 3 standard errors of 0"
        measured = f"{slope:+.4f} +- {error:.4f} deg per unit strain: stripes of {abs(slope) * SMALL[0]:.1e} deg"
        row(f"sample of the papers: {name}: slope of the omega error on the strain", target, measured)
        maps[name] = {n: values[n].reshape(scan.shape) for n in ANGLES}
    options.output.mkdir(parents=True, exist_ok=True)
    picture(maps).savefig(options.output / "sample_of_the_papers.png", dpi=130)
    np.savez_compressed(
        options.output / "sample_of_the_papers.npz", **{f"{m}/{n}": v for m, one in maps.items() for n, v in one.items()}
    )


def regression(error: np.ndarray, strain: np.ndarray) -> tuple[float, float]:
    """Slope of a straight line through the errors over the strain, and its standard error."""
    good = np.isfinite(error)
    x, y = strain[good] - strain[good].mean(), error[good] - error[good].mean()
    slope = (x @ y) / (x @ x)
    rest = y - slope * x
    return float(slope), float(np.sqrt(rest @ rest / (len(x) - 2) / (x @ x)))


def picture(maps: Mapping[str, Values]) -> Figure:
    """Maps of all methods side by side: a row for each quantity, a column for each method, one scale for each row."""
    figure = Figure(figsize=(2.1 * len(maps) + 0.6, 6.6), layout="constrained")
    axes = figure.subplots(len(ANGLES), len(maps), squeeze=False)
    for i, n in enumerate(ANGLES):
        high = 1.3 * np.abs(maps["truth"][n]).max()
        for j, (name, values) in enumerate(maps.items()):
            shown = axes[i, j].imshow(values[n], vmin=-high, vmax=high, cmap="RdBu_r", interpolation="nearest")
            axes[i, j].set(xticks=[], yticks=[])
            axes[i, j].set_title(name if i == 0 else "", fontsize=8)
        axes[i, 0].set_ylabel(n + (f" ({UNITS[n].strip()})" if UNITS[n] else ""))
        figure.colorbar(shown, ax=axes[i, -1], fraction=0.05)
    return figure


PARTS = {"kernels": kernels, "closed": closed, "dose": dose, "sample": sample}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of trained models")
    parser.add_argument("--train", action="store_true", help="train what is missing there")
    parser.add_argument("--output", type=Path, default=Path("build/nanobeam_methods"), help="folder for the maps")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="the published NanobeamNN weights as plain arrays")
    parser.add_argument("--frames", type=int, default=4000, help="frames of each row")
    parser.add_argument("--repeats", type=int, default=5, help="timings of which the least is printed")
    parser.add_argument("--workers", type=int, help="threads; by default all cores")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--amortised-epochs", type=int, default=30, help="of `amortised` for the published kernels")
    parser.add_argument("--quick", action="store_true", help="tiny trainings, in a folder of their own; the figures say nothing")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"parts are {', '.join(PARTS)}; got {', '.join(unknown)}")
    if options.quick:
        options.models, options.train = options.models / "quick", True
    set_workers(options.workers)
    row("what", "target", "measured")
    models = Models(options)
    for part in options.parts or PARTS:
        PARTS[part](options, models)


if __name__ == "__main__":
    main()
