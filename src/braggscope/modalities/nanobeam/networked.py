"""What the network methods of this modality share: frames through a network, and whether its answer can be believed.

A network answers any frame. So every answer is put into the closed form, with the scale and background that fit best, and the
frame is flagged where the deviance is worse than counting explains and than frames of the training gave (`misfit`; a network
that is far off on these too is flagged all the same), where the
scale is outside what the network was trained on (`other_dose`), and where a parameter is (`outside_range`). That takes longer
than the network itself; with `judge=no` it is left out, and the map has neither deviance nor these flags. Counts that may not
be used (dead, saturated) enter the network as 0, which it was not trained for: `masked_counts`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import xarray as xr

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.estimator import option
from braggscope.core.learned import Learned
from braggscope.core.maps import Quantity
from braggscope.core.model import Model
from braggscope.core.source import Source

from .geometry import NanobeamGeometry, check_frame
from .with_deviance import WithDeviance

if TYPE_CHECKING:
    from torch import nn

    from braggscope.infer.network import Runner

MASKED, TOO_FEW, MISFIT, OTHER_DOSE, OUTSIDE = (2**i for i in range(1, 6))
FEWEST = 300  # counts above background; with fewer the answer is hardly more than the middle of the training's range
NOTHING = 30  # counts above background; with fewer there is nothing to say
SIGMA = 4.5  # of the deviance
DOSE = 1.5  # factor by which the scale may be outside what was trained on
BEYOND = 1.1  # factor by which a parameter may be
USUAL = 1.3  # reduced deviance at most that a network may call usual; one that is worse on its own frames is flagged there too
JUDGED = 1024  # frames at most from which a training learns what deviance and scale are usual


@dataclass(frozen=True)
class Networked(Learned, WithDeviance):
    """The base of a method that maps frames with a network (see the module)."""

    geometry: NanobeamGeometry

    judge: str = option("yes", "no: faster, without the deviance of each frame and the flags from it", choices=("yes", "no"))

    calibrated: ClassVar[bool] = False
    uncalibrated_because: ClassVar[str] = "the network says how large a parameter is, not how sure that is"
    flags: ClassVar[Mapping[int, str]] = {
        MASKED: "masked_counts",
        TOO_FEW: "too_few_counts",
        MISFIT: "misfit",
        OTHER_DOSE: "other_dose",
        OUTSIDE: "outside_range",
    }

    @abc.abstractmethod
    def network(self, frame_shape: tuple[int, int]) -> nn.Module:
        """The network that maps counts (frame, row, column) to outputs, with the options of the method; untrained."""

    @abc.abstractmethod
    def estimated(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Quantities and further variables of float32 counts (frame, row, column), in the units of the map."""

    @abc.abstractmethod
    def trained_range(self) -> Mapping[str, tuple[float, float]]:
        """Lowest and highest value of each quantity that the network can know."""

    def quantities(self) -> tuple[Quantity, ...]:
        from .forward import NanobeamForward

        return tuple(
            Quantity(name, p.unit, p.long_name) for name, p in NanobeamForward.params.items() if name in self.trained_range()
        )

    def extras(self) -> tuple[Quantity, ...]:
        from .forward import NanobeamForward

        fitted = tuple(
            Quantity(n, NanobeamForward.params[n].unit, NanobeamForward.params[n].long_name) for n in ("scale", "background")
        )
        return (*fitted, *super().extras())

    def check_source(self, source: Source) -> None:
        check_frame(self.geometry, source.frame_shape)
        super().check_source(source)

    def fit(self, batch: Batch) -> dict[str, np.ndarray]:
        """The network's answers, NaN where a frame has no light, and what they are worth."""
        from .compiled import without_saturated

        batch = without_saturated(self.geometry, batch)
        counts = np.where(batch.mask, batch.frames, 0) if batch.mask is not None else batch.frames
        values = self.estimated(np.ascontiguousarray(counts, np.float32))
        return self.judged(batch, values) if self.judge == "yes" else self.unjudged(counts, batch, values)

    def summarise(self, dataset: xr.Dataset) -> xr.Dataset:
        if not self.calibrated:
            dataset.attrs["uncalibrated_because"] = self.uncalibrated_because
        return dataset

    def judged(self, batch: Batch, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The values with scale, background, reduced deviance and flags."""
        fitted = self.goodness(batch, values)
        reduced = fitted["deviance"] / fitted["expected"]
        z = (fitted["deviance"] - fitted["expected"]) / np.sqrt(np.maximum(fitted["variance"], 1e-12))
        pixels = batch.frames[0].size if batch.mask is None else batch.mask.sum(axis=(1, 2))
        counts = batch.frames if batch.mask is None else np.where(batch.mask, batch.frames, 0)
        signal = counts.sum(axis=(1, 2), dtype=np.float64) - fitted["background"] * pixels
        few = signal < FEWEST
        usual = reduced <= self._fact("deviance_limit", 1.0)
        flag = few * TOO_FEW + (~few & (np.abs(z) > SIGMA) & ~(usual & (z > 0))) * MISFIT
        low, high = self._fact("scale_range", (0.0, np.inf))
        flag += (~few & ((fitted["scale"] < low / DOSE) | (fitted["scale"] > high * DOSE))) * OTHER_DOSE
        flag += self._outside(values) * OUTSIDE
        if batch.mask is not None:
            flag += (pixels < batch.frames[0].size) * MASKED
        said = {**values, "scale": fitted["scale"], "background": fitted["background"], "reduced_deviance": reduced}
        said |= {"deviance_expected": fitted["expected"], "deviance_variance": fitted["variance"]}
        return {name: np.where(signal < NOTHING, np.nan, value) for name, value in said.items()} | {"flag": flag.astype(np.int32)}

    def unjudged(self, counts: np.ndarray, batch: Batch, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The values alone, NaN where a frame has no light; what the closed form would say of them is NaN."""
        bit = {word: number for number, word in self.flags.items()}
        dark = counts.sum(axis=(1, 2), dtype=np.float64) < NOTHING
        flag = self._outside(values) * bit["outside_range"] + dark * bit["too_few_counts"]
        if batch.mask is not None:
            flag = flag + ~batch.mask.all(axis=(1, 2)) * bit["masked_counts"]
        unknown = np.full(len(batch), np.nan)
        lacking = {q.name: unknown for q in self.extras()} | {"deviance_expected": unknown, "deviance_variance": unknown}
        found = {name: np.where(dark, np.nan, value) for name, value in values.items()}
        return {**lacking, **found, "flag": flag.astype(np.int32)}

    def goodness(self, batch: Batch, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """How well the closed form at these values agrees with the frames (see goodness.py)."""
        from .compiled import tables
        from .goodness import goodness

        rows, columns = batch.frames.shape[1:]
        thickness = np.full(len(batch), self.geometry.thickness_a)
        return goodness(tables(self.geometry, (rows, columns)), batch.frames, batch.mask, {"thickness": thickness, **values})

    def outputs(self, counts: np.ndarray) -> tuple[np.ndarray, ...]:
        """What the trained network says of float32 counts (frame, row, column)."""
        return self.runner(counts)

    @cached_property
    def runner(self) -> Runner:
        """The trained network, ready to run."""
        from braggscope.infer.network import onnx_runner, torch_runner

        return onnx_runner(self._model.graph) if self._model.graph is not None else torch_runner(self.trained_network())

    def trained_network(self) -> nn.Module:
        """The network with the weights of the model. Raises InputError where they are not those of this network."""
        from braggscope.infer.network import load_arrays

        model = self._model
        if model.graph is not None:
            raise InputError(
                f"{model.file.get('model_file', 'the model')} is a graph, and this needs weights; give the .safetensors"
            )
        network = self.network((model.frame_shape[0], model.frame_shape[1]))
        load_arrays(network, model.weights, model.file.get("model_file", "the model"))
        return network.eval()

    def exported(self) -> Model:
        """The model as an ONNX graph, to be run without torch."""
        import torch

        from braggscope.infer.network import export

        frames = torch.zeros((2, *self._model.frame_shape))
        graph = export(self.trained_network(), (frames,), self._model.document())
        return dataclasses.replace(self._model, graph=graph, weights={}, file={})

    def with_network(
        self, network: nn.Module, frame_shape: tuple[int, int], counts: np.ndarray, provenance: Mapping[str, Any], **facts: Any
    ) -> Self:
        """The method with a trained network, which has learned from frames like `counts` what is usual.

        counts: Shape (frame, row, column); those that it was not trained on say more.
        """
        from braggscope.infer.network import state_arrays

        model = Model(
            "nanobeam",
            self.name,
            self.geometry.to_mapping(),
            frame_shape,
            self.options(),
            facts,
            provenance,
            state_arrays(network),
        )
        return dataclasses.replace(self, model=model).usual(counts)

    def usual(self, counts: np.ndarray) -> Self:
        """The method with a model that knows the scale and the deviance of frames like these as usual."""
        values = self.fit(Batch(np.arange(len(counts)), counts))
        good = np.isfinite(values["reduced_deviance"]) & (values["flag"] & TOO_FEW == 0)
        known: dict[str, Any] = {}
        if good.any():
            reduced, scale = values["reduced_deviance"][good], values["scale"][good]
            known["deviance_limit"] = float(np.clip(reduced.mean() + SIGMA * reduced.std(), 1.0, USUAL))
            known["scale_range"] = [float(x) for x in np.quantile(scale, [0.01, 0.99])]
        model = dataclasses.replace(self._model, facts={**self._model.facts, **known})
        return dataclasses.replace(self, model=model)

    def _outside(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Where a quantity is beyond what the network was trained on."""
        outside = np.zeros(len(next(iter(values.values()))), bool)
        for name, (low, high) in self.trained_range().items():
            middle, half = (low + high) / 2, BEYOND * (high - low) / 2
            outside |= ~(np.abs(values[name] - middle) <= half)
        return outside

    def _fact(self, name: str, default: Any) -> Any:
        return default if self.model is None else self.model.facts.get(name, default)

    @property
    def _model(self) -> Model:
        if self.model is None:
            raise InputError(f"method '{self.name}' has no model yet; `braggscope train --method {self.name}` makes one")
        return self.model

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "runner"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
