"""Amortised maximum likelihood: a compact network gives estimate and standard deviation, one or two Fisher steps the last word.

The network (networks/compact.py) is trained once for an instrument and a film, on frames drawn from the forward model over the
whole range of strain, tilts and doses, and on those of a scan where there is one (amortising.py). Scale and background are
free. With `steps` above 0 its estimate is where the likelihood's Fisher scoring begins, and a step or two are all that is left
of it: the map is that of `likelihood`, faster. Frames for which the steps do not do are fitted from the beginning.
With `steps=0` the map is the network's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.estimator import check_ranges, option
from braggscope.core.learned import Report, Training, ending
from braggscope.core.maps import Quantity
from braggscope.core.model import Model
from braggscope.core.source import Source

from ..geometry import NanobeamGeometry, check_frame
from ..networked import DOSE, Networked
from ..with_deviance import WithDeviance
from .likelihood import Likelihood

if TYPE_CHECKING:
    from ..networks.compact import CompactEncoder
    from ..simulated_frames import Population

ANGLES = ("strain", "omega", "chi")
UNSEEN, OTHER_DOSE = 128, 256
FREE = 5


@dataclass(frozen=True)
class Amortised(Networked):
    """The network's estimate and Fisher steps after it (see the module)."""

    geometry: NanobeamGeometry

    name: ClassVar[str] = "amortised"
    summary: ClassVar[str] = "a trained compact network and one or two steps of maximum likelihood, with calibrated error bars"
    calibrated: ClassVar[bool] = True
    uncalibrated_because: ClassVar[str] = ""
    ignores: ClassVar[tuple[str, ...]] = ("background",)
    flags: ClassVar[Mapping[int, str]] = {**Likelihood.flags, UNSEEN: "outside_range", OTHER_DOSE: "other_dose"}

    steps: int = option(1, "Fisher steps after the network's estimate, one or two; 0: its own estimate and standard deviation")
    strain_range: float = option(5e-3, "trained from minus to plus this strain", unit="1", stage="training")
    omega_range: float = option(0.05, "trained from minus to plus this tilt", unit="deg", stage="training")
    chi_range: float = option(0.1, "trained from minus to plus this tilt", unit="deg", stage="training")
    lowest_peak: float = option(1.5, "expected counts in the brightest pixel, from", unit="count", stage="training")
    highest_peak: float = option(40.0, "expected counts in the brightest pixel, to", unit="count", stage="training")
    rows: int = option(64, "rows of a frame, where no scan says it", stage="training")
    columns: int = option(64, "columns of a frame, where no scan says it", stage="training")
    width: int = option(128, "width of the network's layers", stage="training")
    epochs: int = option(30, "epochs of training", stage="training")
    frames: int = option(65536, "simulated frames of an epoch", stage="training")
    batch: int = option(128, "frames of a training step", stage="training")
    learning_rate: float = option(2e-3, "highest learning rate", stage="training")

    def __post_init__(self) -> None:
        ranges = {
            "steps": (0, 20), "strain_range": (1e-5, 0.01), "omega_range": (1e-4, 0.12), "chi_range": (1e-4, 0.25),
            "lowest_peak": (0.01, 1e6), "highest_peak": (self.lowest_peak, 1e6), "width": (8, 2048), "epochs": (1, 100_000),
            "rows": (8, 4096), "columns": (8, 4096), "batch": (2, 65536), "frames": (self.batch, 10**9),
            "learning_rate": (1e-7, 1.0),
        }  # fmt: skip
        check_ranges(self, ranges)

    def quantities(self) -> tuple[Quantity, ...]:
        every = Likelihood(self.geometry).quantities()
        return every if self.steps else every[: len(ANGLES)]

    def extras(self) -> tuple[Quantity, ...]:
        return WithDeviance.extras(self)

    def trained_range(self) -> Mapping[str, tuple[float, float]]:
        return {name: (-half, half) for name, half in zip(ANGLES, self._units, strict=True)}

    def estimated(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The network's estimates and standard deviations."""
        estimate, log_std, _ = (np.asarray(output, np.float64) for output in self.outputs(counts))
        values = dict(zip(ANGLES, (estimate * self._units).T, strict=True))
        return values | {f"{n}_std": s for n, s in zip(ANGLES, (np.exp(log_std) * self._units).T, strict=True)}

    def train(self, sources: Sequence[Source], training: Training) -> Iterator[Report]:
        """Train on simulated frames, and on those of the sources as well where there are any."""
        import torch

        from braggscope.infer.network import state_arrays
        from braggscope.infer.runtime import single_threaded_torch
        from braggscope.infer.schedules import one_cycle
        from braggscope.infer.train import Task, train

        from .. import amortising

        shape = self._frame_shape(sources)
        population = self._population(shape)
        learning = amortising.Learning(population)
        scans = amortising.frames_of(sources, population, self.geometry.thickness_a)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            network = self.network(shape)
        count, epochs = self.frames // self.batch, training.epochs(self.epochs)
        validation = learning.validation(training.seed, self.batch, self.frames)

        def batches(epoch: int) -> amortising.Epoch:
            far = training.start is None  # from where the deviance has no slope; weights that are given are near already
            share = max(0.0, 1 - (epoch - 1) / max(1.0, amortising.HANDOVER * epochs)) if far else 0.0
            return amortising.Epoch(population, scans, self.batch, count, (training.seed, epoch), share)

        task = Task(
            network=network,
            batches=batches,
            loss=learning.loss,
            validation=lambda: validation,
            validate=learning.validate,
            optimiser=lambda net: torch.optim.AdamW(
                net.parameters(), lr=self.learning_rate, weight_decay=1e-4, betas=(0.9, 0.99)
            ),
            schedule=lambda progress: one_cycle(progress, warming=0.03),
            epochs=epochs,
            clip=20.0,
            config={"method": self.name, "geometry": self.geometry.to_mapping(), "options": self.options(), "frame_shape": shape},
            data_hash="" if scans is None else amortising.digest(scans),
        )

        def finished(last: Report) -> Amortised:
            known = {"frames_of_scans": 0 if scans is None else len(scans)}
            geometry, options = self.geometry.to_mapping(), self.options()
            return dataclasses.replace(
                self, model=Model("nanobeam", self.name, geometry, shape, options, known, {}, state_arrays(network))
            )

        with single_threaded_torch():  # the layers are small, and the other cores draw frames
            yield from ending(train(task, training), finished)

    def fit(self, batch: Batch) -> dict[str, np.ndarray]:
        """Estimates, standard deviations, deviance and flags, as those of `likelihood`."""
        from .. import compiled, differentiable

        batch = compiled.without_saturated(self.geometry, batch)
        made = compiled.tables(self.geometry, (batch.frames.shape[1], batch.frames.shape[2]))
        counts = batch.frames if batch.mask is None else np.where(batch.mask, batch.frames, 0)
        values = self.estimated(np.ascontiguousarray(counts, np.float32))
        if self.judge == "no" and not self.steps:
            return self.unjudged(counts, batch, values)
        found = np.full((len(batch), 4), np.log(self.geometry.thickness_a))
        found[:, :3] = np.stack([values[name] for name in ANGLES], axis=1) * compiled.IN_RADIANS
        start = differentiable.with_nuisance(made, compiled.transposed(batch.frames, batch.mask), found)
        describe = Likelihood(self.geometry).described
        if self.steps:
            fitted = compiled.fit(made, batch.frames, batch.mask, FREE, self.geometry.thickness_a, start=start, steps=self.steps)
            return describe(fitted, batch)
        result = describe(compiled.described_at(made, batch.frames, batch.mask, start, FREE), batch)
        result |= {name: np.where(np.isfinite(result["strain"]), value, np.nan) for name, value in values.items()}
        dose = np.exp(start[:, 3])
        other = (dose < self.lowest_peak / DOSE) | (dose > self.highest_peak * DOSE)
        result["flag"] |= (self._outside(values) * UNSEEN + other * OTHER_DOSE).astype(np.int32)
        return {name: value for name, value in result.items() if not name.startswith(("scale", "background"))}

    @property
    def _units(self) -> np.ndarray:
        """Half the range of strain, omega and chi (degrees)."""
        return np.array([self.strain_range, self.omega_range, self.chi_range])

    def network(self, frame_shape: tuple[int, int]) -> CompactEncoder:
        from ..networks.compact import CompactEncoder, View

        units = (self.strain_range, self.omega_range, self.chi_range)
        return CompactEncoder(View.of(self.geometry, frame_shape, units), self.width)

    def _population(self, frame_shape: tuple[int, int]) -> Population:
        from ..compiled import tables
        from ..simulated_frames import Population

        units = (self.strain_range, self.omega_range, self.chi_range)
        peak = (self.lowest_peak, self.highest_peak)
        return Population(tables(self.geometry, frame_shape), frame_shape, units, peak, self.geometry.thickness_a)

    def _frame_shape(self, sources: Sequence[Source]) -> tuple[int, int]:
        """The shape of the sources' frames; without any, that of the options."""
        shapes = {tuple(source.frame_shape) for source in sources}
        if len(shapes) > 1:
            listed = " and ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
            raise InputError(f"the frames of the sources have different shapes, {listed}; train on one of them")
        rows, columns = next(iter(shapes), (self.rows, self.columns))
        check_frame(self.geometry, (rows, columns))
        return rows, columns
