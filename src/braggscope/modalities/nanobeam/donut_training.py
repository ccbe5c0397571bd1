"""What DONUT learns from what: frames, losses, optimiser (see estimators/donut.py for the recipes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from braggscope.core.learned import Training
from braggscope.core.source import Source
from braggscope.infer.schedules import one_cycle
from braggscope.infer.train import Task

from .compiled import tables
from .networks.donut import Decoder, Donut
from .physics_branch import PhysicsBranch
from .pooled import SEPARATE, Batches, digest, pooled

if TYPE_CHECKING:
    from .estimators.donut import DonutMethod

BLURS = ((0.5, 6.0), (1.0, 2.0))  # share of the warming until which the ring is blurred by this many pixels
LINEAR = 30.0  # excess deviance up to which the robust loss is linear; beyond, it grows as the root
OFFSET = 0.05  # counts added to the decoder's frame, so that the deviance of a dark pixel is finite
CLIP = 1.0


@dataclass(frozen=True)
class Prepared:
    """A training that can begin.

    counts: All frames.  validation: Positions of those kept apart.  peak: Counts of the brightest pixel.
    """

    task: Task
    network: Donut
    counts: np.ndarray
    validation: np.ndarray
    peak: float


def prepared(method: DonutMethod, sources: Sequence[Source], training: Training) -> Prepared:
    """Frames, network and losses of a training."""
    plan, counts = method.plan(), pooled(sources, method.frames)
    frame_shape = (counts.shape[1], counts.shape[2])
    order = np.random.default_rng((training.seed, 9)).permutation(len(counts))
    apart = int(SEPARATE * len(counts))
    validation, learned = np.sort(order[:apart]), np.sort(order[apart:])
    peak = method.peak or typical_peak(method, counts)
    branch = PhysicsBranch(method.geometry, frame_shape, (method.thickness_middle, method.thickness_half))
    warming = method.warming if method.recipe == "robust" and training.start is None else 0.0
    learning = Learning(branch, plan, peak, warming)
    network = full_network(method, frame_shape, plan["decoder_weight"] > 0, training.seed)
    size, epochs = int(plan["batch"]), training.epochs(int(plan["epochs"]))
    task = Task(
        network=network,
        batches=lambda epoch: Batches(counts, learned, size, training.seed, epoch, epochs),
        loss=learning.loss,
        validation=lambda: Batches(counts, validation, size, training.seed, 0, epochs),
        optimiser=lambda net: optimiser(net, plan["rate"], plan["decoder_rate"]),
        epochs=epochs,
        schedule=one_cycle if method.recipe == "robust" else None,
        clip=CLIP if method.recipe == "robust" else None,
        config={**method.options(), "passes": 0, "geometry": method.geometry.to_mapping()},
        data_hash=digest(counts),
    )
    return Prepared(task, network, counts, validation, peak)


def full_network(method: DonutMethod, frame_shape: tuple[int, int], decoder: bool, seed: int) -> Donut:
    """Encoder and decoder with random weights that the seed decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = method.network(frame_shape).encoder
        assert isinstance(encoder, nn.Module)
        behind = Decoder(frame_shape, method.parameters, method.dropout, method.decoder) if decoder else None
        network = Donut(encoder, behind)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on a CPU
    return network


def optimiser(network: nn.Module, rate: float, decoder_rate: float) -> torch.optim.Optimizer:
    """AdamW, with a rate of its own for the decoder."""
    assert isinstance(network, Donut)
    groups: list[dict[str, Any]] = [{"params": list(network.encoder.parameters()), "lr": rate}]
    if network.decoder is not None:
        groups.append({"params": list(network.decoder.parameters()), "lr": decoder_rate})
    return torch.optim.AdamW(groups, lr=rate)


def typical_peak(method: DonutMethod, counts: np.ndarray) -> float:
    """Counts of the brightest pixel that the total of a typical frame means."""
    made = tables(method.geometry, (counts.shape[1], counts.shape[2]))
    used = np.maximum(counts, 0)
    dark = method.geometry.background * counts[0].size
    return float(max(np.median(used.sum((1, 2), dtype=np.float64) - dark) / made.light, 1e-3))


@dataclass(frozen=True)
class Learning:
    """The losses of a recipe."""

    branch: PhysicsBranch
    plan: Mapping[str, Any]
    peak: float
    warming: float

    def loss(self, network: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Loss of the physics and, where there is one, of the decoder, and their weighted sum."""
        counts = batch["counts"]
        frames = counts.clamp(min=0)
        parameters, first, again = network(frames)
        physics = self.physics(parameters.float(), counts, float(batch["progress"]))
        total = self.plan["physics_weight"] * physics
        if len(first):
            total = total + self.plan["physics_weight"] * self.physics(first.float(), counts, float(batch["progress"]))
        if not len(again):
            return {"loss": total, "physics": physics}
        decoded = self.decoded(again.float(), counts)
        return {"loss": total + self.plan["decoder_weight"] * decoded, "physics": physics, "decoder": decoded}

    def physics(self, parameters: Tensor, counts: Tensor, progress: float) -> Tensor:
        """How far the modelled frames are from the counts."""
        if self.plan["loss"] == "poisson":
            deviance = self.branch.deviance(parameters, counts, self.blur(progress))
            return robust(deviance - self.branch.usual_deviance(counts), LINEAR).mean() / LINEAR
        image = self.branch.rendered(parameters)
        if self.plan["normalise"] == "maximum":
            image = image / image.amax((1, 2), keepdim=True).clamp(min=1e-6) * self.peak
        else:
            scale, background = self.branch.nuisance(parameters, counts)
            image = scale * image + background
        return self.difference(image, counts)

    def decoded(self, again: Tensor, counts: Tensor) -> Tensor:
        """How far the decoder's frames are from the counts."""
        if self.plan["loss"] != "poisson":
            return self.difference(again, counts)
        mean, used = again + OFFSET, counts.clamp(min=0)
        return (2 * (counts >= 0) * (torch.xlogy(used, used) - used * torch.log(mean) - used + mean)).mean()

    def difference(self, image: Tensor, counts: Tensor) -> Tensor:
        """Mean absolute difference, or smooth L1, over the pixels that may be used."""
        good = counts >= 0
        kind = functional.l1_loss if self.plan["loss"] == "mae" else functional.smooth_l1_loss
        return kind(image[good], counts[good])

    def blur(self, progress: float) -> float:
        """Blur of the ring at this share of the training, pixels."""
        for until, blur in BLURS:
            if progress < until * self.warming:
                return blur
        return 0.0


def robust(excess: Tensor, linear: float) -> Tensor:
    """An excess deviance that grows only as its root when it is large, so that bad frames do not decide alone."""
    root = 2 * linear * (torch.sqrt(1 + excess.clamp(min=0) / linear) - 1)
    return torch.where(excess > 0, root, excess)
