"""What `canon` and `piml` share: each position becomes a small picture, an encoder its coordinates, clusters of these the grains.

A leaf says what of a frame is kept (`fit`) and how the pictures are made of what was kept of all frames (`pictures`). The
autoencoder learns on the pictures of the scan that is mapped, without labels; the principal components of its features are the
reduced space. The first three are the colours of the map; pairwise distances in it make clusters (`clusters`), and connected
regions of a cluster are the grains.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import xarray as xr

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.estimator import State, check_disjoint, check_ranges, option
from braggscope.core.learned import Learned, Report, Training, ending
from braggscope.core.maps import Quantity
from braggscope.core.model import Model
from braggscope.core.source import Source

from ..geometry import LaueGeometry
from .artificial import cells
from .clusters import clusters, colours, regions
from .standing import Standing, standing

if TYPE_CHECKING:
    from braggscope.infer.network import Runner

    from .autoencoder import Reducer

DARK = 2
COLOURS = ("red", "green", "blue")
VALIDATED = 8  # every such picture tells how well the autoencoder does
FEWEST = 8  # pictures with light, from which something can be learned


@dataclasses.dataclass(frozen=True)
class Reducing(Learned):
    """The base of a method that maps grains by reduced pictures (see the module)."""

    calibrated: ClassVar[bool] = False
    uncalibrated_because: ClassVar[str] = "a cluster has no standard deviation; how fine the map is follows from `apart`"
    per_frame: ClassVar[bool] = False  # clusters are those of the whole scan
    prepares_on_scan: ClassVar[bool] = True
    flags: ClassVar[Mapping[int, str]] = {DARK: "no_peaks"}

    threshold: float = option(6.0, "least height of a peak, in standard deviations of its pixel", stage="training")
    remove: bool = option(True, "remove what stands still: substrate, fluorescence, hot pixels", stage="training")
    quantile: float = option(0.5, "of a pixel's counts through the scan that stands still", stage="training")
    side: int = option(48, "cells along the longer side of a picture, at most", stage="training")
    features: int = option(256, "latent features; published: 256", stage="training")
    components: int = option(32, "principal components of the features in which distances are taken", stage="training")
    epochs: int = option(12, "epochs of training", stage="training")
    batch: int = option(64, "pictures of a training step", stage="training")
    learning_rate: float = option(1e-3, "highest learning rate", stage="training")
    apart: float = option(0.5, "mean distance of two clusters at least, as a share of that of unrelated patterns")
    still: Standing | None = dataclasses.field(default=None, repr=False, kw_only=True, compare=False)

    def __post_init__(self) -> None:
        ranges = {
            "threshold": (2, 1e6), "quantile": (0.01, 0.99), "side": (8, 1024), "features": (3, 65536),
            "components": (1, self.features), "epochs": (1, 100_000), "batch": (2, 65536), "learning_rate": (1e-7, 1.0),
            "apart": (1e-3, 10),
        }  # fmt: skip
        check_ranges(self, ranges)

    @abc.abstractmethod
    def kept(self, frame_shape: tuple[int, int]) -> dict[str, np.ndarray]:
        """What `fit` gives of one frame where there is none, by name."""

    @abc.abstractmethod
    def pictures(self, state: State, shape: tuple[int, ...], frame_shape: tuple[int, int]) -> np.ndarray:
        """The picture of each position, float32 (position, row, column); 0 where nothing was seen.

        shape: Of the scan, one or two axes.
        """

    def quantities(self) -> tuple[Quantity, ...]:
        shades = (Quantity(n, "1", f"{n} of the pattern's colour, principal component {i + 1}") for i, n in enumerate(COLOURS))
        return (
            Quantity("grain", "1", "number of the grain, a connected region of one cluster, largest first (0: none)"),
            *shades,
            Quantity("cluster", "1", "number of the cluster of like patterns (0: none)"),
            Quantity("peaks", "1", "cells of the picture with light"),
        )

    def check_source(self, source: Source) -> None:
        if isinstance(self.geometry, LaueGeometry):
            self.geometry.check_frames(source.frame_shape)
        if len(source.shape) > 2:
            raise InputError(f"method {self.name} maps scans over one or two axes, got {len(source.shape)}")
        super().check_source(source)

    def prepare(self, source: Source) -> Self:
        """Learn what stands still in the scan and, where there is no model yet, the autoencoder."""
        return super(Reducing, dataclasses.replace(self, still=self._standing(source))).prepare(source)

    def init(self, source: Source) -> State:
        still = self.still or self._standing(source)
        points = math.prod(source.shape)
        own = {name: np.repeat(value[None], points, 0) for name, value in self.kept(source.frame_shape).items()}
        return {**super().init(source), **own, "still_level": still.level, "still_noise": still.noise}

    def update(self, state: State, batch: Batch) -> State:
        knowing = dataclasses.replace(self, still=Standing(state["still_level"], state["still_noise"]))
        return super(Reducing, knowing).update(state, batch)

    def merge(self, a: State, b: State) -> State:
        check_disjoint(a, b)
        fixed = [name for name in a if name.startswith(("grid_", "still_"))]
        new = {n: b["seen"].reshape(-1, *[1] * (v.ndim - 1)) for n, v in a.items() if n not in fixed}
        return {name: np.where(new[name], b[name], value) if name in new else value for name, value in a.items()}

    def result(self, state: State) -> xr.Dataset:
        dataset = super().result(state)
        shape, seen = dataset["flag"].shape, state["seen"]
        images = self.pictures(state, shape, state["still_level"].shape)
        lit = seen & images.any((1, 2))
        cluster, shades = np.zeros(len(seen), int), np.zeros((len(seen), len(COLOURS)))
        if lit.any():
            (places,) = self.runner(images[lit] / np.float32(self._model.facts["unit"]))
            cluster[lit], shades[lit] = clusters(places[:, : self.components], self.apart), colours(places)
        values = {"cluster": cluster, "peaks": (images > 0).sum((1, 2)), "grain": regions(cluster.reshape(shape)).ravel()}
        values |= dict(zip(COLOURS, shades.T, strict=True))
        for name, value in values.items():
            dataset[name].values[...] = np.where(seen, value, np.nan).reshape(shape)
        for name in COLOURS:
            dataset[name].values[(seen & ~lit).reshape(shape)] = np.nan
        dataset["flag"].values[(seen & ~lit).reshape(shape)] |= DARK
        found = {"grains": int(dataset["grain"].max()) if seen.any() else 0, "clusters": int(cluster.max(initial=0))}
        return dataset.assign_attrs(found | {"uncalibrated_because": self.uncalibrated_because})

    def train(self, sources: Sequence[Source], training: Training) -> Iterator[Report]:
        """Train the autoencoder on the pictures of all positions of the sources."""
        import torch

        from braggscope.infer.runtime import single_threaded_torch
        from braggscope.infer.train import train

        from .autoencoder import Autoencoder

        images, frame_shape = self._learned_from(sources)
        unit = float(np.median(images.max((1, 2))))
        images /= np.float32(unit)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            network = Autoencoder((images.shape[1], images.shape[2]), self.features)
        task = self._task(network, torch.from_numpy(images), frame_shape, training)

        def finished(last: Report) -> Reducing:
            return self._with_network(network, images, unit, frame_shape)

        with single_threaded_torch():  # the layers are small: torch's own threads would wait for each other
            yield from ending(train(task, training), finished)

    def exported(self) -> Model:
        """The model with encoder and components as an ONNX graph."""
        import torch

        from braggscope.infer.network import export

        pictures = torch.zeros((2, *cells(self._model.frame_shape, self.side)[1]))
        graph = export(self._network(), (pictures,), self._model.document())
        return dataclasses.replace(self._model, graph=graph, weights={}, file={})

    @cached_property
    def runner(self) -> Runner:
        """Pictures to coordinates, ready to run."""
        from braggscope.infer.network import onnx_runner, torch_runner

        return onnx_runner(self._model.graph) if self._model.graph is not None else torch_runner(self._network())

    def _network(self) -> Reducer:
        from braggscope.infer.network import load_arrays

        from .autoencoder import Encoder, Reducer

        size = cells(self._model.frame_shape, self.side)[1]
        network = Reducer(Encoder(size, self.features), self.features, self._axes)
        load_arrays(network, self._model.weights, self._model.file.get("model_file", "the model"))
        return network.eval()

    def _learned_from(self, sources: Sequence[Source]) -> tuple[np.ndarray, tuple[int, int]]:
        """Pictures with light of all positions of the sources, and the shape of the frames."""
        if not sources:
            raise InputError(f"method {self.name} learns from frames; give at least one scan or simulation")
        shapes = {tuple(source.frame_shape) for source in sources}
        if len(shapes) > 1:
            listed = " and ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
            raise InputError(f"the frames of the sources have different shapes, {listed}; train on one of them")
        parts = []
        for source in sources:
            state = self.init(source)
            for batch in source.batches():
                state = self.update(state, batch)
            images = self.pictures(state, source.shape, source.frame_shape)
            parts.append(images[images.any((1, 2))])
        images = np.concatenate(parts)
        if len(images) < FEWEST:
            raise InputError(
                f"training needs at least {FEWEST} patterns with peaks, got {len(images)}; a lower threshold, or "
                "remove=false where the grains are as large as the scan, would do"
            )
        return images, (sources[0].frame_shape[0], sources[0].frame_shape[1])

    def _task(self, network: Any, images: Any, frame_shape: tuple[int, int], training: Training) -> Any:
        import torch

        from braggscope.infer.schedules import one_cycle
        from braggscope.infer.train import Task

        from .autoencoder import reconstruction_loss

        def batches(epoch: int) -> list[Any]:
            order = np.random.default_rng((training.seed, epoch)).permutation(len(images))
            return [images[order[a : a + self.batch]] for a in range(0, len(order), self.batch)]

        held = images[::VALIDATED]
        return Task(
            network=network,
            batches=batches,
            loss=lambda net, made: {"loss": reconstruction_loss(net(made), made)},
            validation=lambda: held.split(self.batch),
            optimiser=lambda net: torch.optim.AdamW(net.parameters(), lr=self.learning_rate),
            schedule=one_cycle,
            epochs=training.epochs(self.epochs),
            config={"method": self.name, "options": self.options(), "frame_shape": frame_shape},
            data_hash=hashlib.sha256(images.numpy().tobytes()).hexdigest(),
        )

    def _with_network(self, network: Any, images: np.ndarray, unit: float, frame_shape: tuple[int, int]) -> Reducing:
        """The method with the trained encoder and the principal components of its features."""
        import torch

        from braggscope.infer.network import state_arrays, torch_runner

        from .autoencoder import Reducer

        (features,) = torch_runner(network.encoder)(images)
        axes, middle, explained = _principal(features, self._axes)
        reducer = Reducer(network.encoder, self.features, self._axes)
        with torch.no_grad():
            reducer.project.weight.copy_(torch.from_numpy(axes))
            reducer.project.bias.copy_(torch.from_numpy(-axes @ middle))
        known = {"unit": unit, "pictures": len(images), "explained": explained}
        geometry = self.geometry.to_mapping() if self.geometry is not None else {}
        weights = state_arrays(reducer)
        return dataclasses.replace(
            self, model=Model("laue", self.name, geometry, frame_shape, self.options(), known, {}, weights)
        )

    def _standing(self, source: Source) -> Standing:
        self.check_source(source)
        return standing(source, quantile=self.quantile, remove=self.remove)

    @property
    def _axes(self) -> int:
        """Principal components that are kept."""
        return max(self.components, len(COLOURS))

    @property
    def _still(self) -> Standing:
        if self.still is None:
            raise InputError(f"method '{self.name}' must see the scan first: prepare(source)")
        return self.still

    @property
    def _model(self) -> Model:
        if self.model is None:
            raise InputError(f"method '{self.name}' has no model yet; `braggscope train --method {self.name}` makes one")
        return self.model

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "runner"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)


def _principal(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Directions of largest variance, float32 (component, feature), the mean, and the share of the variance along each.

    The largest entry of a direction is positive, so that the sign does not depend on the library.
    """
    middle = features.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(features - middle, rowvar=False))
    axes = vectors[:, ::-1][:, :count].T
    axes *= np.sign(axes[np.arange(count), np.abs(axes).argmax(1)])[:, None]
    share = values[::-1][:count] / max(values.sum(), 1e-30)
    return axes.astype(np.float32), middle.astype(np.float32), [float(one) for one in share]
