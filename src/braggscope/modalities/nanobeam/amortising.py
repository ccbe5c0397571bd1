"""What the compact encoder learns: the likelihood estimate of every frame, and how far it is off.

Frames are drawn from the forward model, other ones all the time; frames of a scan may be mixed in. The loss is the Poisson
deviance of the frame at the network's estimate, scale and background at their best (differentiable.py), over that at the truth:
near its minimum, but for a constant, the square of the distance to the likelihood estimate in units of the Cramer-Rao bound,
whatever the dose. Far from it the deviance has no slope to follow, so that the training begins with the squared error itself in
units of a typical bound, and goes over.
The standard deviations are those of a normal distribution of the truth about the estimate, by its likelihood; for frames of
a scan, whose truth nobody knows, the likelihood estimate stands in for it and they are not asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from braggscope.core.errors import InputError
from braggscope.core.source import Source
from braggscope.infer.runtime import ahead

from . import compiled, differentiable
from .compiled import IN_RADIANS
from .pooled import has_light
from .simulated_frames import Frames, Population

VALIDATION_FRAMES = 4096
SCAN_SHARE = 0.5  # of each batch, where there are frames of a scan
MOST_FROM_SCANS, FEWEST_FROM_SCANS = 20_000, 64
HANDOVER = 1 / 3  # of the training, after which the loss is the deviance alone
TYPICAL_PEAK = 7.0  # counts at which the typical bound is taken
ROBUST = 9.0  # squared errors well above this count by their root only
COARSE_SHARE, SPREAD_SHARE = 0.1, 0.2  # of the first stage and of the standard deviations in the loss
SOME_FREE = 5  # parameters of the likelihood: strain, omega, chi, scale, background


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch; made ahead by another thread as they are used."""

    population: Population
    scans: Frames | None
    batch: int
    count: int
    seed: tuple[int, int]
    share: float

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ahead(self[i] for i in range(self.count))

    def __getitem__(self, number: int) -> dict[str, Any]:
        """One of the batches: several processes make only their own."""
        if not 0 <= number < self.count:
            raise IndexError(number)
        from_scans = 0 if self.scans is None else int(SCAN_SHARE * self.batch)
        frames = self.population.draw(self.batch - from_scans, *self.seed, number)
        known = np.ones(len(frames))
        if self.scans is not None:
            which = np.random.default_rng((*self.seed, number, 1)).integers(len(self.scans), size=from_scans)
            frames = joined(frames, self.scans.take(which))
            known = np.concatenate([known, np.zeros(from_scans)])
        return as_batch(frames, known, self.share)


def as_batch(frames: Frames, known: np.ndarray, share: float) -> dict[str, Any]:
    """A batch as the loop passes it on.

    known: 1 where the parameters are the truth, 0 where they are estimates.
    share: Of the squared error in the loss, 1 at the beginning of a training, 0 at its end.
    """
    images = torch.from_numpy(np.ascontiguousarray(frames.images()))
    return {"images": images, **vars(frames), "known": known, "share": np.float64(share)}


def joined(a: Frames, b: Frames) -> Frames:
    """The frames of both."""
    return Frames(*(np.concatenate([x, y]) for x, y in zip(vars(a).values(), vars(b).values(), strict=True)))


@dataclass(frozen=True)
class Learning:
    """The loss of the encoder for a population of frames."""

    population: Population

    @cached_property
    def units(self) -> Tensor:
        """Half the ranges, radians."""
        return torch.from_numpy(np.array(self.population.units) * IN_RADIANS)

    @cached_property
    def typical(self) -> Tensor:
        """Standard deviations at TYPICAL_PEAK without tilt, in units of half the ranges."""
        p = np.array([[0, 0, 0, np.log(TYPICAL_PEAK), np.log(0.01 * TYPICAL_PEAK), np.log(self.population.thickness)]])
        made = self.population.made
        frame = compiled.expected(made, self.population.frame_shape, p)
        covariance = compiled.described_at(made, frame, None, p, SOME_FREE)["covariance"][0]
        return torch.from_numpy(np.sqrt(np.diag(covariance)[:3])) / self.units

    def loss(self, network: torch.nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What is minimised, and its parts."""
        estimate, log_std, coarse = (x.double().cpu() for x in network(batch["images"]))
        truth = torch.from_numpy(batch["parameters"])
        share = float(batch["share"])
        scale = self.typical * torch.sqrt(TYPICAL_PEAK / truth[:, 3:4].exp())
        target = truth[:, :3] / self.units
        total = torch.zeros((), dtype=torch.float64)
        if share > 0:
            total = total + share * _robust((((estimate - target) / scale) ** 2).sum(1)).mean()
        if share < 1:
            total = total + (1 - share) * _robust(self.excess(estimate, batch)).mean()
        found = _robust((((coarse - target) / scale) ** 2).sum(1)).mean()
        known = torch.from_numpy(batch["known"])
        error = (estimate - target).detach()
        spread = ((0.5 * error**2 * torch.exp(-2 * log_std) + log_std).sum(1) * known).sum() / known.sum()
        return {"loss": total + COARSE_SHARE * found + SPREAD_SHARE * spread, "first_stage": found, "spread": spread}

    def excess(self, estimate: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Deviance at the estimate over that at the given parameters, shape (frame,)."""
        rest = torch.from_numpy(batch["parameters"][:, 3:])
        parameters = torch.cat([estimate * self.units, rest], dim=1)
        found = differentiable.profiled_deviance(self.population.made, batch["counts"], parameters)
        return found - torch.from_numpy(batch["deviance"])

    def validation(self, seed: int, batch: int, most: int) -> list[dict[str, Any]]:
        """Batches that are always the same, with the standard deviations of the likelihood estimate of each frame."""
        frames = self.population.draw(min(VALIDATION_FRAMES, most), seed, 0)
        images, made = frames.images(), self.population.made
        fitted = compiled.fit(made, images, None, SOME_FREE, self.population.thickness, start=frames.parameters)
        stds = np.sqrt(np.einsum("fii->fi", fitted["covariance"])[:, :3])
        made_of = [slice(a, a + batch) for a in range(0, len(frames), batch)]
        return [{**as_batch(frames.take(s), np.ones(len(stds[s])), 0.0), "stds": stds[s]} for s in made_of]

    def validate(self, network: torch.nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The loss, the mean square error over the bound of each parameter and the mean square of z."""
        estimate, log_std, _ = (x.double().cpu() for x in network(batch["images"]))
        error = estimate - torch.from_numpy(batch["parameters"][:, :3]) / self.units
        over = (error * self.units / torch.from_numpy(batch["stds"])) ** 2
        z = (error / log_std.exp()) ** 2
        names = {f"{n}_over_bound_squared": over[:, i].mean() for i, n in enumerate(("strain", "omega", "chi"))}
        return {**self.loss(network, batch), **names, "z_squared": z.mean()}


def _robust(squared: Tensor) -> Tensor:
    """A squared error, or excess deviance, that grows only as its root when it is large; near 0 it is itself."""
    return 2 * ROBUST * (torch.sqrt(1 + squared.clamp(min=-0.9 * ROBUST) / ROBUST) - 1)


def frames_of(sources: Sequence[Source], population: Population, thickness: float) -> Frames | None:
    """Frames of scans with their likelihood estimates, spread evenly over the scans; None without scans.

    Raises InputError where too few of them can be fitted.
    """
    if not sources:
        return None
    parts, seen = [], 0
    for source in sources:
        total = int(np.prod(source.shape))
        only = np.zeros(total, bool)
        only[np.unique(np.linspace(0, total - 1, min(total, MOST_FROM_SCANS // len(sources))).astype(int))] = True
        for batch in source.batches(only=only):
            seen += len(batch)
            fitted = compiled.fit(population.made, batch.frames, batch.mask, SOME_FREE, thickness)
            counts = compiled.transposed(batch.frames, batch.mask)
            good = np.flatnonzero((fitted["state"] & compiled.FAULTS == 1) & has_light(counts))
            counts = counts[good]
            deviance, parameters, _ = differentiable.profile(population.made, counts, fitted["parameters"][good])
            parts.append(Frames(counts, parameters, deviance))
    usable = sum(len(part) for part in parts)
    if usable < FEWEST_FROM_SCANS:
        raise InputError(
            f"training needs at least {FEWEST_FROM_SCANS} frames that can be fitted, got {usable} of {seen}; without a scan the "
            "method trains on simulated frames alone"
        )
    pooled = parts[0]
    for part in parts[1:]:
        pooled = joined(pooled, part)
    return pooled


def digest(frames: Frames) -> str:
    """A hash of the frames."""
    return hashlib.sha256(np.ascontiguousarray(frames.counts).tobytes()).hexdigest()
