"""NanobeamNN: a small network trained on simulated frames with their labels (Luo et al., Sci. Rep. 15, 21736 (2025)).

As published: 41^3 frames on a grid of strain (+-5e-3), omega (+-0.05 deg) and chi (+-0.1 deg), simulated with the hard,
aliased box (published_kernels.py), the whole set scaled to a peak of 7 counts, Poisson noise drawn once; 80 % of them to learn
from; mean squared error of strain x 100, omega x 10 and chi x 5 with Adam at 1e-4, batches of 64, 500 epochs, the weights of the
best. The recipe "quick" draws the noise anew in every epoch, and its learning rate rises and falls once (Smith & Topin 2018).

The published ensemble is ten such networks with seeds of their own; its mean is the estimate. The spread of its members is
reported beside it. It is no standard deviation: all members share the simulation and its grid. The network knows frames of
one geometry and dose, so that other frames are flagged (networked.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.estimator import check_ranges, option
from braggscope.core.geometry import Geometry
from braggscope.core.learned import CHECKPOINT_NAME, Report, Training, ending, forget
from braggscope.core.maps import Quantity
from braggscope.core.model import Model
from braggscope.core.source import Source

from ..geometry import NanobeamGeometry, check_frame
from ..networked import JUDGED, Networked

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..labelled import Labelled

FACTORS = {"strain": 100.0, "omega": 10.0, "chi": 5.0}  # label = factor x value, so that all labels are within +-0.5
RANGES = {"strain": 5e-3, "omega": 0.05, "chi": 0.1}
FRAME_SHAPE = (64, 64)
RECIPES = {"published": {"epochs": 500, "batch": 64, "rate": 1e-4}, "quick": {"epochs": 60, "batch": 64, "rate": 2e-3}}
RANGES_OF_OPTIONS = {
    "ensemble": (1, 100), "frames": (10, 10**7), "rows": (1, 4096), "columns": (1, 4096), "peak": (0.1, 1e5),
    "epochs": (0, 10**6), "batch": (0, 65536), "rate": (0, 1),
}  # fmt: skip
QUICK = {"warming": 0.25, "start": 0.04, "end": 1e-3}  # course of the learning rate, see infer/schedules.py


@dataclass(frozen=True)
class NanobeamNN(Networked):
    """Strain and tilts by the published network (see the module)."""

    name: ClassVar[str] = "nanobeamnn"
    summary: ClassVar[str] = "the published small network, trained on simulated frames; knows one geometry and dose, no errors"
    uncalibrated_because: ClassVar[str] = "the network gives no error; the members of an ensemble share what they were trained on"

    recipe: str = option("published", "how it is trained", choices=("published", "quick"), stage="training")
    ensemble: int = option(1, "networks, each with a seed of its own; ten as published", stage="training")
    kernel: str = option(
        "box", "kernel of its own simulation: box as published", choices=("box", "gaussian", "closed_form"), stage="training"
    )
    grid: int = option(41, "simulated frames along each axis; 0: at random", stage="training")
    frames: int = option(68921, "simulated frames where they are at random", stage="training")
    rows: int = option(64, "rows of its own simulation's frames", stage="training")
    columns: int = option(64, "columns of its own simulation's frames", stage="training")
    peak: float = option(7.0, "counts in the brightest simulated pixel", unit="count", stage="training")
    noise: str = option("recipe", "Poisson noise of simulated frames", choices=("recipe", "once", "redrawn"), stage="training")
    epochs: int = option(0, "epochs of each network; 0: as the recipe has it", stage="training")
    batch: int = option(0, "frames of a step; 0: as the recipe has it", stage="training")
    rate: float = option(0.0, "learning rate, with recipe quick its largest; 0: as the recipe has it", stage="training")

    def __post_init__(self) -> None:
        check_ranges(self, RANGES_OF_OPTIONS)
        if self.grid != 0 and not 3 <= self.grid <= 101:
            raise InputError(f"option grid must be 0 or between 3 and 101, got {self.grid}")

    def network(self, frame_shape: tuple[int, int]) -> nn.Module:
        from ..networks.nanobeamnn import Ensemble
        from ..networks.nanobeamnn import NanobeamNN as Network

        return Ensemble([Network(frame_shape) for _ in range(self.ensemble)])

    def estimated(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        mean, spread = (np.asarray(output, np.float64) for output in self.outputs(counts))
        values = {name: mean[:, i] / factor for i, (name, factor) in enumerate(FACTORS.items())}
        if self.ensemble > 1:
            values |= {f"{name}_spread": spread[:, i] / factor for i, (name, factor) in enumerate(FACTORS.items())}
        return values

    def trained_range(self) -> Mapping[str, tuple[float, float]]:
        return {name: (-high, high) for name, high in RANGES.items()}

    def extras(self) -> tuple[Quantity, ...]:
        if self.ensemble == 1:
            return super().extras()
        spread = (Quantity(f"{q.name}_spread", q.unit, f"spread of the ensemble in {q.long_name}") for q in self.quantities())
        return (*super().extras(), *spread)

    def train_for(self, source: Source, training: Training) -> Iterator[Report]:
        """Train on a simulation of frames like those of the source, whose truth is not asked for."""
        own = dataclasses.replace(self, rows=source.frame_shape[0], columns=source.frame_shape[1])
        return own.train([], training)

    def train(self, sources: Sequence[Source], training: Training) -> Iterator[Report]:
        """Train on sources that know their truth, or without any on a simulation of its own."""
        from braggscope.infer.train import train

        from ..labelled import split

        data = self._data(sources, training.seed)
        if training.folder is not None and not training.resume:
            forget(training.folder)  # of networks that this training may not come to
        parts = split(len(data), training.seed)
        members: list[nn.Module] = []
        for member in range(self.ensemble):
            network, task = self._task(data, parts, self._training(training, member))
            members.append(network)
            reports = train(task, self._training(training, member))
            if member == self.ensemble - 1:
                reports = ending(reports, lambda _: self._trained(members, data, parts, training.seed))
            yield from (self._counted(report, member) for report in reports)

    def _data(self, sources: Sequence[Source], seed: int) -> Labelled:
        """The frames to learn from."""
        from ..labelled import at_random, from_sources, on_grid, renderer, simulated

        if sources:
            for source in sources:
                check_frame(self.geometry, source.frame_shape)
            return from_sources(sources)
        frame_shape = (self.rows, self.columns)
        check_frame(self.geometry, frame_shape)
        labels = on_grid(self.grid) if self.grid else at_random(self.frames, seed)
        render = renderer(self.kernel, self.geometry, frame_shape, self.peak)
        detector = {"threshold": self.geometry.threshold, "saturation": self.geometry.saturation}
        published = self.kernel != "closed_form"  # these kernels know of no detector
        data = simulated(render, frame_shape, labels, self.peak, **({} if published else detector))
        once = self.noise == "once" or (self.noise == "recipe" and self.recipe == "published")
        return data.fixed(seed) if once else data

    def _task(self, data: Labelled, parts: list[np.ndarray], training: Training) -> tuple[nn.Module, Any]:
        """One network and what it is to learn."""
        import torch

        from braggscope.infer.schedules import one_cycle
        from braggscope.infer.train import Task

        from ..labelled import Batches
        from ..networks.nanobeamnn import NanobeamNN as Network

        recipe, seed = self._recipe, training.seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Network((data.stored.shape[1], data.stored.shape[2]))
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth less time on a CPU
        factors = tuple(FACTORS.values())
        task = Task(
            network=network,
            batches=lambda epoch: Batches(data, parts[0], int(recipe["batch"]), factors, seed, epoch),
            loss=_squared_error,
            validation=lambda: Batches(data, parts[1], int(recipe["batch"]), factors, seed, 0),
            optimiser=lambda net: torch.optim.Adam(net.parameters(), lr=recipe["rate"]),
            epochs=training.epochs(int(recipe["epochs"])),
            schedule=partial(one_cycle, **QUICK) if self.recipe == "quick" else None,
            config={**self.options(), "geometry": self.geometry.to_mapping(), "member_seed": seed},
            data_hash=data.digest(),
        )
        return network, task

    @property
    def _recipe(self) -> dict[str, float]:
        """Epochs, batch and rate: as an option says, or else the recipe."""
        return {name: getattr(self, name) or value for name, value in RECIPES[self.recipe].items()}

    def _training(self, training: Training, member: int) -> Training:
        """That of one member: with its own seed and, in an ensemble, its own folder, which may have no checkpoint yet."""
        folder = training.folder
        if folder is not None and self.ensemble > 1:
            folder = Path(folder) / f"member_{member}"
        resume = training.resume and (member == 0 or (folder is not None and (folder / CHECKPOINT_NAME).is_file()))
        return dataclasses.replace(training, folder=folder, resume=resume, seed=training.seed + member)

    def _counted(self, report: Report, member: int) -> Report:
        """A report of a member as one of the whole training."""
        planned = report.epochs
        said = f"network {member + 1} of {self.ensemble}: " if report.stopped and self.ensemble > 1 else ""
        return dataclasses.replace(
            report,
            epoch=report.epoch + member * planned,
            epochs=planned * self.ensemble,
            stopped=said + report.stopped,
            network=member + 1,
        )

    def _trained(self, members: list[nn.Module], data: Labelled, parts: list[np.ndarray], seed: int) -> Self:
        """The method with its trained networks, and their error on the frames that were kept apart."""
        from ..networks.nanobeamnn import Ensemble

        test = data.counts(parts[2], seed, 0)
        provenance = {"data_hash": data.digest(), "recipe": self.recipe}
        shape = (data.stored.shape[1], data.stored.shape[2])
        trained = self.with_network(Ensemble(members).eval(), shape, test[:JUDGED], provenance)
        found = trained.estimated(test)
        error = [found[name] * f - data.labels[parts[2], i] * f for i, (name, f) in enumerate(FACTORS.items())]
        facts = {**trained._model.facts, "test_loss": float(np.mean(np.square(error))), "test_frames": len(test)}
        return dataclasses.replace(trained, model=dataclasses.replace(trained._model, facts=facts))

    @classmethod
    def convert(cls, weights: Mapping[str, np.ndarray], geometry: Geometry | None, *, prefix: str | None = None) -> Model:
        """A model of published weights, for frames of 64 x 64 pixels at a peak of 7 counts.

        prefix: Of the arrays of one network ("trained/", the default), or "ensemble" for all of "seed.../".
        Raises InputError where the arrays are not those of this network.
        """
        from ..labelled import at_random, renderer, simulated
        from ..networks.nanobeamnn import from_published

        if not isinstance(geometry, NanobeamGeometry):
            raise InputError("converting nanobeamnn weights needs a nanobeam geometry, that of the frames they were trained for")
        prefixes = _prefixes(weights, prefix)
        arrays: dict[str, np.ndarray] = {}
        for member, one in enumerate(prefixes):
            arrays |= from_published(weights, one, member)
        method = cls(geometry, ensemble=len(prefixes))
        provenance = {"converted_from": ", ".join(prefixes), "data": "published weights of NanobeamNN"}
        model = Model("nanobeam", cls.name, geometry.to_mapping(), FRAME_SHAPE, method.options(), {}, provenance, arrays)
        render = renderer("box", geometry, FRAME_SHAPE, method.peak)
        frames = simulated(render, FRAME_SHAPE, at_random(JUDGED // 2, 0), method.peak).fixed(0)
        return dataclasses.replace(method, model=model).usual(frames.stored)._model


def _prefixes(weights: Mapping[str, np.ndarray], prefix: str | None) -> list[str]:
    """Prefixes of the networks that are meant."""
    there = list(dict.fromkeys(name.rpartition("/")[0] + "/" for name in weights if "/" in name))
    if prefix in ("ensemble", "seed"):
        found = sorted((one for one in there if one[:-1].removeprefix("seed").isdigit()), key=lambda one: int(one[4:-1]))
        if not found:
            raise InputError(f"the weights have no networks seed0/, seed1/ ...; they have: {', '.join(there) or 'no prefix'}")
        return found
    one = (prefix if prefix is not None else "trained").rstrip("/") + "/"
    if one not in there:
        raise InputError(f"the weights have no prefix '{one}'; they have: {', '.join(there) or 'none'}")
    return [one]


def _squared_error(network: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Mean squared error of the scaled labels, as published, and of each alone."""
    frames, labels = batch
    squared = (network(frames) - labels).square().mean(0)
    return {"loss": squared.mean(), **{f"{name}_mse": squared[i] for i, name in enumerate(FACTORS)}}
