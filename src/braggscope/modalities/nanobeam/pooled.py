"""Frames of several sources together, to learn from without labels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.source import Source

if TYPE_CHECKING:
    from torch import Tensor

FEWEST = 64
NOTHING = 30  # counts in a frame; with fewer there is nothing to learn from
SEPARATE = 0.1  # share of the frames that validation takes


def pooled(sources: Sequence[Source], most: int = 0) -> np.ndarray:
    """Counts of all sources, -1 where they may not be used, shape (frame, row, column), int16 or int32.

    most: Frames to take at most, spread evenly over all of them; 0: all.
    Frames without light are left out. Raises InputError where fewer than FEWEST are left, or shapes differ.
    """
    shapes = {tuple(source.frame_shape) for source in sources}
    if len(shapes) > 1:
        raise InputError(
            f"the frames of all sources must have one shape, got {' and '.join(f'{r} x {c}' for r, c in sorted(shapes))}"
        )
    total = sum(math.prod(source.shape) for source in sources)
    share = 1.0 if most == 0 else min(1.0, most / max(total, 1))
    parts = []
    for source in sources:
        points = math.prod(source.shape)
        only = np.zeros(points, bool)
        only[np.linspace(0, points - 1, max(1, round(share * points))).astype(int)] = True
        for batch in source.batches(only=only):
            counts = np.rint(batch.frames) if batch.frames.dtype.kind == "f" else batch.frames
            used = counts if batch.mask is None else np.where(batch.mask, counts, -1)
            parts.append(used.astype(np.int16 if used.max(initial=0) < 2**15 else np.int32))
    count, lit = sum(len(part) for part in parts), [part[has_light(part)] for part in parts]
    if sum(len(part) for part in lit) < FEWEST:
        dark = f", {count - sum(len(part) for part in lit)} of them with fewer than {NOTHING} counts" if count >= FEWEST else ""
        raise InputError(f"training needs at least {FEWEST} frames, got {count}{dark}")
    return np.concatenate(lit)


def has_light(counts: np.ndarray) -> np.ndarray:
    """Which frames (frame, row, column) have anything to learn from; counts below zero are not used."""
    return np.maximum(counts, 0).sum((1, 2), dtype=np.float64) >= NOTHING


def digest(counts: np.ndarray) -> str:
    """A hash of the frames."""
    return hashlib.sha256(np.ascontiguousarray(counts).data).hexdigest()


@dataclass(frozen=True)
class Batches:
    """Batches {"counts": float32 (frame, row, column), -1 where not used; "progress": share of the training that is over}.

    which: Positions of the frames; they are put into an order of the epoch's own.  epoch: 0 keeps their order.
    """

    counts: np.ndarray
    which: np.ndarray
    size: int
    seed: int
    epoch: int
    epochs: int

    def __post_init__(self) -> None:
        if self.epoch > 0:
            object.__setattr__(self, "which", np.random.default_rng((self.seed, self.epoch)).permutation(self.which))

    def __len__(self) -> int:
        whole, rest = divmod(len(self.which), self.size)
        return whole + (rest > 1)  # one frame alone has no statistics to normalise a batch by

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> dict[str, Tensor | np.ndarray]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        import torch

        part = self.which[number * self.size : (number + 1) * self.size]
        progress = 1.0 if self.epoch == 0 else (self.epoch - 1 + number / len(self)) / self.epochs
        return {"counts": torch.from_numpy(self.counts[part].astype(np.float32)), "progress": np.array(progress)}
