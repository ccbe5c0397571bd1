"""What the nanobeam benchmarks of the networks share: the published sample, models that are trained once, and the bound."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from braggscope.core.learned import Learned, Training
from braggscope.core.model import load_model, save_model
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation
from braggscope.core.source import Source
from braggscope.infer.runtime import workers
from braggscope.modalities.nanobeam import compiled
from braggscope.modalities.nanobeam.forward import NanobeamForward
from braggscope.modalities.nanobeam.geometry import NanobeamGeometry, published
from nanobeam_correlation import published_sample

ANGLES = ("strain", "omega", "chi")
UNITS = {"strain": "", "omega": " deg", "chi": " deg", "thickness": " angstrom"}
NUISANCE = {"scale": 7.0, "background": 1e-3}
WEIGHTS = Path(__file__).parents[1] / "examples" / "data" / "nanobeamnn_weights.npz"


def row(what: str, target: object, measured: object) -> None:
    print(f"{what} | {target} | {measured}", flush=True)


def geometry_without_background() -> NanobeamGeometry:
    """The published film and instrument; the published frames have no background."""
    return published().replace(background=0.0)


def sample(fields: Mapping[str, np.ndarray], seed: int, peak: float = 7.0, label: str = "published sample") -> Simulation:
    """A scan with these fields as the papers have theirs, but by the closed form: each frame scaled to the peak, no background.

    fields: strain, omega, chi (degrees) and, where it varies, thickness (angstrom), shape (row of the scan, column).
    """
    geometry, shape = geometry_without_background(), fields["strain"].shape
    grid = xr.Dataset(coords={n: ((n,), 0.05 * np.arange(c), {"units": "um"}) for n, c in zip("yx", shape, strict=True)})
    every = {"thickness": np.full(shape, geometry.thickness_a), **fields}
    truth = grid.assign({name: (("y", "x"), np.asarray(value, np.float64)) for name, value in every.items()})
    dark = {"scale": np.ones(truth.sizes["y"] * truth.sizes["x"]), "background": np.full(fields["strain"].size, 1e-12)}
    parameters = compiled.packed({name: np.ravel(value) for name, value in every.items()} | dark)

    def frames(index: np.ndarray) -> torch.Tensor:
        made = compiled.expected(compiled.tables(geometry, (64, 64)), (64, 64), parameters[index])
        return torch.from_numpy(peak * made / made.max((1, 2), keepdims=True))

    return Simulation(geometry, grid, (64, 64), frames, truth, Noise(), seed, label)


def published_scan(pixels: int = 64, seed: int = 0) -> Simulation:
    """The sample of the papers (sinusoid in strain, +-5e-4; sigmoids in the tilts, +-0.005 and +-0.01 deg)."""
    return sample(published_sample(pixels), seed)


def random_scan(pixels: int = 64, seed: int = 0, films: tuple[float, float] | None = None) -> Simulation:
    """Every frame its own strain and tilts, uniform over the ranges of the sample of the papers; and film, between two."""
    draw, high = np.random.default_rng((seed, 3)), (5e-4, 0.005, 0.01)
    fields = {n: draw.uniform(-h, h, (pixels, pixels)) for n, h in zip(ANGLES, high, strict=True)}
    if films is not None:
        fields["thickness"] = draw.uniform(*films, (pixels, pixels))
    return sample(fields, seed, label="strain and tilts at random")


def covariance(truth: Mapping[str, np.ndarray], names: Sequence[str], geometry: NanobeamGeometry) -> np.ndarray:
    """Inverse Fisher matrix of each frame at the truth, shape (frame, name, name).

    truth: Arrays (frame,) of all of NanobeamForward.params.
    """
    forward, parts = NanobeamForward(geometry, (64, 64)), []
    for first in range(0, len(truth["strain"]), 50):
        some = {n: torch.from_numpy(np.asarray(truth[n], np.float64)[first : first + 50]) for n in NanobeamForward.params}
        expected, jacobian = forward.jacobian(some, tuple(names))
        jacobian = jacobian.flatten(2)
        parts.append(torch.linalg.inv((jacobian / expected.flatten(1)[:, None]) @ jacobian.mT))
    return torch.cat(parts).numpy()


def flat_truth(source: Simulation) -> dict[str, np.ndarray]:
    """The truth of all frames, shape (frame,); the published sample's scale and background are nominal."""
    count = int(np.prod(source.shape))
    return {
        n: source.truth[n].values.ravel() if n in source.truth else np.full(count, NUISANCE[n]) for n in NanobeamForward.params
    }


def rms(values: np.ndarray) -> float:
    """Root of the mean square of what is finite."""
    return float(np.sqrt(np.nanmean(np.square(values))))


def quickest(work: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Least and median wall time and least processor time of a call, seconds."""
    wall, processor = [], []
    for _ in range(repeats):
        a, b = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - a)
        processor.append(time.process_time() - b)
    return min(wall), float(np.median(wall)), min(processor)


def trained(
    method: Learned, folder: Path, name: str, sources: Sequence[Source] = (), *, seed: int = 0, device: str = "cpu"
) -> tuple[Learned, str]:
    """A method with the model `name` of a folder, which is trained first where it is not there; and how long that took."""
    path, notes = folder / f"{name}.safetensors", folder / f"{name}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _train(method, path, notes, sources, seed, device)
    model = load_model(path)
    decided = {n: v for n, v in method.options().items() if n in method.training_options() and model.options.get(n) != v}
    for option, value in decided.items():
        print(f"  {path} was trained with {option}={model.options.get(option)}, not {value}", file=sys.stderr)
    said = json.loads(notes.read_text())["said"] if notes.exists() else "time not known"
    mapping = dict(model.geometry)
    if mapping.get("pupil_file"):  # the file of the machine that trained it
        mapping["pupil_file"] = method.geometry.pupil_file
    geometry = NanobeamGeometry.from_mapping(mapping)
    return type(method).from_model(dataclasses.replace(model, geometry=geometry.to_mapping()), geometry, {}), said


def _train(method: Learned, path: Path, notes: Path, sources: Sequence[Source], seed: int, device: str) -> None:
    folder = path.with_suffix(".training")
    resume = folder.exists() and any(folder.iterdir())
    wall, processor, report = time.perf_counter(), time.process_time(), None
    for report in method.train(sources, Training(folder, resume=resume, seed=seed, device=device)):
        losses = f"{report.train['loss']:.4g} {report.validation['loss']:.4g}"
        print(f"  {path.stem} {report.epoch}/{report.epochs}: {losses}, {report.seconds:.0f} s", file=sys.stderr, flush=True)
    assert report is not None
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    said = f"{wall / 60:.1f} min, processor {processor / 60:.1f} min, {workers()} threads, {device}"
    said += f", {report.epoch} of {report.epochs} epochs" + (f" ({report.stopped})" if report.stopped else "")
    said += " (since it was resumed)" if resume else ""
    provenance = {**report.estimator.model.provenance, "epochs": report.epoch}
    save_model(dataclasses.replace(report.estimator.model, provenance=provenance), path)
    notes.write_text(json.dumps({"said": said, "wall_s": wall, "processor_s": processor, "resumed": resume}))
