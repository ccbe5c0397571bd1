"""The nanobeam networks against what is published of them and against the Cramer-Rao bound: accuracy, training time, speed.

    python benchmarks/nanobeam_networks.py published [--weights WEIGHTS.npz]
    python benchmarks/nanobeam_networks.py nanobeamnn --recipe quick
    python benchmarks/nanobeam_networks.py donut --size compact --seeds 5
    python benchmarks/nanobeam_networks.py amortised
    python benchmarks/nanobeam_networks.py speed

DONUT learns from frames of strain and tilts at random, in the ranges of the sample of the papers, and is tried on other such
frames and on the sample. Trained on the sample, it would know that chi is twice omega there, and be better than any measurement.

A training writes its model to --models and is left out where that is there already. --quick tries everything with a tiny
training; its figures say nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from braggscope.core.batch import Batch
from braggscope.core.learned import Learned, Training
from braggscope.core.source import Source
from braggscope.infer.network import export, onnx_runner, torch_runner
from braggscope.infer.runtime import set_workers, workers
from braggscope.modalities.nanobeam import phantom
from braggscope.modalities.nanobeam.donut_training import prepared
from braggscope.modalities.nanobeam.estimators.amortised import Amortised
from braggscope.modalities.nanobeam.estimators.donut import DonutMethod
from braggscope.modalities.nanobeam.estimators.likelihood import Likelihood
from braggscope.modalities.nanobeam.estimators.nanobeamnn import FACTORS, NanobeamNN
from braggscope.modalities.nanobeam.forward import NanobeamForward
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.labelled import GRID, at_random, on_grid, renderer, simulated
from braggscope.modalities.nanobeam.networks.compact import CompactEncoder, View
from braggscope.modalities.nanobeam.networks.donut import Encoder
from nanobeam_likelihood import bound
from shared import (
    ANGLES,
    UNITS,
    WEIGHTS,
    covariance,
    flat_truth,
    geometry_without_background,
    published_scan,
    quickest,
    random_scan,
    rms,
    row,
    trained,
)

SHAPE = (64, 64)
RANGE = (5e-3, 0.05, 0.1)
ON_GRID = {"strain": 1.157e-4, "omega": 4.297e-4, "chi": 9.783e-4}  # of the published weights, 3000 frames each
OFF_GRID = {"strain": 1.442e-4, "omega": 5.421e-4, "chi": 1.7723e-3}
DONUT = {"strain": (1.2e-4, 1.23e-4), "omega": (2.2e-4, 2.2e-4), "chi": (8e-4, 1.6e-3)}  # target and published
FILMS = (80.0, 300.0)  # angstrom


def box_frames(count: int, *, grid: bool) -> tuple[np.ndarray, np.ndarray]:
    """Fresh counts and labels of the published box kernel at a peak of 7, on points of the 41^3 grid or off it."""
    draw = np.random.default_rng(20)
    labels = draw.permutation(on_grid(GRID))[:count] if grid else at_random(count, 21)
    data = simulated(renderer("box", published(), SHAPE, 7.0), SHAPE, labels, 7.0)
    return data.counts(np.arange(count), 22, 1), labels


def errors_on_box(method: NanobeamNN, count: int, label: str, target: str) -> None:
    for grid, name, was in ((True, "on the grid", ON_GRID), (False, "off the grid", OFF_GRID)):
        counts, labels = box_frames(count, grid=grid)
        found = method.estimated(counts)
        errors = {n: found[n] - labels[:, i] for i, n in enumerate(ANGLES)}
        mse = float(np.mean([np.square(FACTORS[n] * errors[n]) for n in ANGLES]))
        row(f"{label}, {count} fresh frames {name}: scaled MSE", target if grid else "", f"{mse:.3g}")
        for n in ANGLES:
            measured = f"{errors[n].std():.4g}{UNITS[n]} (bias {errors[n].mean():.2g})"
            row(f"{label}, {name}: {n} scatter", f"published weights: {was[n]:.4g}", measured)


def published_weights(options: SimpleNamespace) -> None:
    with np.load(options.weights, allow_pickle=False) as file:
        model = NanobeamNN.convert(dict(file), published(), prefix=None)
    errors_on_box(NanobeamNN.from_model(model, published(), {}), options.frames, "published weights", "5.5e-5 to 6.6e-5")


def export_row(found: Learned, counts: np.ndarray, label: str) -> None:
    """How far the trained network as an ONNX graph is from itself in torch."""
    graph = type(found).from_model(found.exported(), found.geometry, {"steps": 0} if isinstance(found, Amortised) else {})
    bare = dataclasses.replace(found, steps=0) if isinstance(found, Amortised) else found
    a, b = (one.fit(Batch(np.arange(len(counts)), counts)) for one in (graph, bare))
    worst = max(float(np.nanmax(np.abs(a[n] - b[n])) / (2 * high)) for n, high in zip(ANGLES, RANGE, strict=True))
    row(f"{label}: ONNX Runtime against torch, share of the range", "<= 1e-4", f"{worst:.1e}")


def nanobeamnn(options: SimpleNamespace) -> None:
    tiny = {"grid": 9, "epochs": 2} if options.quick else {}
    method = NanobeamNN(published(), **{"recipe": options.recipe, "epochs": options.epochs, **tiny})
    name = f"nanobeamnn_{options.recipe}"
    found, said = trained(method, options.models, name, seed=options.seed, device=options.device)
    label = f"NanobeamNN, recipe {options.recipe}"
    row(f"{label}: training", "<= 60 min on two cores" if options.recipe == "quick" else "about 2.5 h on two cores", said)
    row(f"{label}: scaled MSE on the frames kept apart", "<= 6.3e-5", f"{found.model.facts['test_loss']:.3g}")
    errors_on_box(found, options.frames, label, "<= 6.3e-5")
    export_row(found, box_frames(256, grid=False)[0], label)


def donut_method(options: SimpleNamespace) -> tuple[DonutMethod, Source, str]:
    """The method, what it learns from, and the name of its model."""
    frames = 600 if options.quick else options.train_frames
    values = {"recipe": options.recipe, "size": options.size, "parameters": options.parameters, "frames": frames}
    values["epochs"] = 2 if options.quick else options.epochs
    pixels, name = int(np.ceil(np.sqrt(frames))), f"donut_{options.size}"
    name += "" if options.recipe == "robust" else f"_{options.recipe}"
    if options.parameters == 3:
        return DonutMethod(geometry_without_background(), **values), random_scan(pixels, seed=1), name
    films = {"thickness_middle": 190.0, "thickness_half": 75.0}
    return DonutMethod(geometry_without_background(), **values, **films), random_scan(pixels, seed=1, films=FILMS), f"{name}_4"


def donut(options: SimpleNamespace) -> None:
    method, source, name = donut_method(options)
    films = None if options.parameters == 3 else FILMS
    tests = {"random scan": random_scan(seed=99, films=films)} | (
        {"sample of the papers": published_scan(seed=99)} if not films else {}
    )
    counts, good = {what: test.frames(np.arange(64 * 64)) for what, test in tests.items()}, 0
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        found, said = trained(method, options.models, f"{name}_{seed}", [source], seed=seed, device=options.device)
        label = f"DONUT, {options.size} encoder, recipe {options.recipe}, {options.parameters} parameters, seed {seed}"
        row(f"{label}: training on {found.model.facts['frames']} frames", "<= 90 min on two cores", said)
        reached = [
            donut_errors(
                f"{label}, {what}", found.estimated(counts[what].astype(np.float32)), flat_truth(test), options.parameters
            )
            for what, test in tests.items()
        ]
        good += all(reached)
        export_row(found, counts["random scan"][::16], label)
    row(f"DONUT, {options.size} encoder: seeds that converge to the errors asked for", f"of {options.seeds}", good)
    physics_share(method, source, options.quick)


def donut_errors(label: str, values: dict, truth: dict, parameters: int) -> bool:
    """Rows of the errors; whether they are those asked for."""
    converged = True
    free = (*ANGLES, "scale", "background") + (("thickness",) if parameters == 4 else ())
    limit = covariance({n: v[::16] for n, v in truth.items()}, free, geometry_without_background())
    for n in (*ANGLES, "thickness")[:parameters]:
        error, crb = values[n] - truth[n], np.sqrt(limit[:, free.index(n), free.index(n)].mean())
        target = f"<= {DONUT[n][0]:g} (published {DONUT[n][1]:g})" if n in DONUT and parameters == 3 else ""
        bias = f"bias {np.nanmean(error):+.2g}, {rms(error) / crb:.2f} x the bound"
        row(f"{label}: {n} RMSE", target, f"{rms(error):.4g}{UNITS[n]} ({bias})")
        converged &= n not in DONUT or rms(error) <= DONUT[n][0]
    return bool(converged)


def physics_share(method: DonutMethod, source: Source, quick: bool) -> None:
    """Processor time of a training step with the loss of the physics and with a trivial one, on one thread."""
    set_workers(1)
    made = prepared(method, [source], Training())
    batch = {name: value for name, value in next(iter(made.task.batches(1))).items()}
    network, optimiser = made.network.train(), made.task.optimiser(made.network)

    def step(with_physics: bool) -> None:
        optimiser.zero_grad()
        if with_physics:
            loss = made.task.loss(network, batch)["loss"]
        else:
            loss = sum(part.square().mean() for part in network(batch["counts"].clamp(min=0)) if len(part))
        loss.backward()
        optimiser.step()

    step(True), step(False)
    times = [[quickest(lambda on=on: step(on), 1)[2] for on in (True, False)] for _ in range(3 if quick else 15)]
    full, bare = np.median(times, axis=0)
    share = f"{100 * (1 - bare / full):.1f} % of {1e3 * full:.0f} ms processor time (batch of {len(batch['counts'])}, one thread)"
    row(f"DONUT, {method.size} encoder: physics branch in a training step", "< 10 %", share)
    set_workers(None)


def amortised(options: SimpleNamespace) -> None:
    tiny = {"epochs": 2, "frames": 2048} if options.quick else {"epochs": options.epochs} if options.epochs else {}
    method = Amortised(published(), **tiny)
    found, said = trained(method, options.models, "amortised", seed=options.seed, device=options.device)
    row("amortised: training", "", said)
    forward, count = NanobeamForward(published(), SHAPE), options.frames
    for peak in (2.0, 7.0, 30.0):
        source = phantom.uniform(published(), shape=(count,), seed=5, peak=peak)
        counts = source.frames(np.arange(count)).astype(np.uint16)
        limit = bound(forward, source.truth, 5)
        for steps in (0, 1, 2):
            one = Amortised.from_model(found.model, published(), {"steps": steps})
            amortised_rows(one, counts, source.truth, limit, f"amortised, {steps} steps, peak {peak:g}")
    export_row(found, counts[:256], "amortised")
    amortised_speed(found, options.repeats)


def amortised_rows(method: Learned, counts: np.ndarray, truth, limit: np.ndarray, label: str) -> None:
    values = method.fit(Batch(np.arange(len(counts)), counts))
    for i, n in enumerate(ANGLES):
        error = values[n] - truth[n].values
        ratio, z = rms(error) / rms(limit[np.isfinite(error), i]), error / values[f"{n}_std"]
        target = "<= 1.05" if method.steps else "<= 1.3; z spread 0.9 to 1.1"
        row(f"{label}: {n} RMSE / bound", target, f"{ratio:.3f} (z spread {np.nanstd(z):.3f}, mean {np.nanmean(z):+.3f})")
    lost, flagged = np.isnan(values["strain"]).sum(), (values["flag"] != 0).sum()
    row(f"{label}: frames lost, flagged, of {len(counts)}", "0", f"{lost}, {flagged}")


def amortised_speed(found: Learned, repeats: int) -> None:
    """Time of encoder and steps, and of the likelihood fit, in turn on the same frames."""
    counts = phantom.uniform(published(), shape=(1000,), seed=2).frames(np.arange(1000)).astype(np.uint16)
    batch, graph = Batch(np.arange(1000), counts), found.exported()
    methods: dict[str, Learned | Likelihood] = {
        f"amortised, {steps} steps, {kind}": Amortised.from_model(model, published(), {"steps": steps})
        for steps in (0, 1, 2)
        for kind, model in (("torch", found.model), ("ONNX Runtime", graph))
    }
    methods["likelihood"] = Likelihood(published())
    for one in methods.values():
        one.fit(Batch(np.arange(64), counts[:64]))
    times = {name: [] for name in methods}
    for _ in range(repeats):
        for name, one in methods.items():
            times[name].append(quickest(lambda one=one: one.fit(batch), 1))
    for name, found_times in times.items():
        wall, _, processor = np.min(found_times, axis=0)
        target = "<= 0.15 on two cores" if name.startswith("amortised") else ""
        row(f"{name}: ms/frame, {workers()} threads", target, f"{wall:.3f} (processor {processor:.3f})")


def speed(options: SimpleNamespace) -> None:
    """Encoders with random weights in ONNX Runtime, one thread, batches of 64."""
    set_workers(1)
    geometry = published()
    counts = phantom.uniform(geometry, shape=(64,), seed=3).frames(np.arange(64)).astype(np.float32)
    torch.manual_seed(0)
    networks = {
        "NanobeamNN": (NanobeamNN(geometry).network(SHAPE), "<= 0.12", 0.5),
        "compact encoder": (CompactEncoder(View.of(geometry, SHAPE, RANGE)), "<= 0.05", 1.0),
        "DONUT, published size": (Encoder(SHAPE, 3), "<= 2 (published: 2.9 in torch)", 0.5),
    }
    for name, (network, target, half_range) in networks.items():
        run, reference = onnx_runner(export(network, (torch.ones(2, *SHAPE),), "{}")), torch_runner(network)
        run(counts)
        times = [1e3 / 64 * t for t in quickest(lambda run=run: run(counts), options.repeats)]
        measured = f"{times[0]:.4f} (median {times[1]:.4f}, processor {times[2]:.4f})"
        row(f"{name}, ONNX Runtime, one thread: ms/frame", target, measured)
        worst = np.abs(run(counts)[0] - reference(counts)[0]).max() / (2 * half_range)
        row(f"{name}, ONNX Runtime against torch: largest difference, share of the range", "<= 1e-4", f"{worst:.1e}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--models", type=Path, default=Path("models"), help="folder of trained models")
    common.add_argument("--quick", action="store_true", help="tiny trainings, in a folder of their own")
    common.add_argument("--frames", type=int, default=4000, help="frames of each row")
    common.add_argument("--repeats", type=int, default=15, help="timings")
    common.add_argument("--workers", type=int, help="threads; by default all cores")
    common.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to train")
    common.add_argument("--seed", type=int, default=0)
    common.add_argument("--epochs", type=int, default=0, help="of the training; 0: as the recipe has it")
    commands = made.add_subparsers(dest="command", required=True)
    one = commands.add_parser("published", parents=[common], help="the published NanobeamNN weights on their own kernel")
    one.add_argument("--weights", type=Path, default=WEIGHTS)
    one.set_defaults(run=published_weights)
    one = commands.add_parser("nanobeamnn", parents=[common], help="NanobeamNN trained here")
    one.add_argument("--recipe", choices=("quick", "published"), default="quick")
    one.set_defaults(run=nanobeamnn)
    one = commands.add_parser("donut", parents=[common], help="DONUT trained on unlabelled frames")
    one.add_argument("--size", choices=("published", "compact"), default="compact")
    one.add_argument("--recipe", choices=("robust", "published"), default="robust")
    one.add_argument("--seeds", type=int, default=1, help="trainings")
    one.add_argument("--first-seed", type=int, default=0)
    one.add_argument("--train-frames", type=int, default=20000, help="unlabelled frames to learn from")
    one.add_argument("--parameters", type=int, choices=(3, 4), default=3, help="4: the thickness, 80 to 300 angstrom, too")
    one.set_defaults(run=donut)
    commands.add_parser("amortised", parents=[common], help="the compact encoder and Fisher steps").set_defaults(run=amortised)
    commands.add_parser("speed", parents=[common], help="encoders in ONNX Runtime").set_defaults(run=speed)
    return made


def main() -> None:
    options = parser().parse_args()
    if options.quick:
        options.models = options.models / "quick"
    set_workers(options.workers)
    row("what", "target", "measured")
    options.run(options)


if __name__ == "__main__":
    main()
