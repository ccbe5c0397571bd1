"""Simulation: a Source whose frames are drawn from a forward model and a noise model.

A simulator is not an abstraction: it is `noise.sample(expected)`. Frame i depends on the seed and on i alone, so that the same
seed gives the same frames in any order and from any worker.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from .batch import Batch, usable
from .geometry import Geometry
from .noise import Noise


@dataclass(frozen=True)
class Simulation:
    """Frames of a phantom (satisfies `Source`).

    expected: Flat positions, shape (frame,), -> expected counts, tensor of shape (frame, row, column).
    truth: What the maps should say, a Dataset over the scan axes or the detector axes, as a map.
    noise: Counts around what is expected; None gives the expectation itself.
    seed: Of the noise.
    label: What was simulated, for the provenance.
    """

    geometry: Geometry | None
    grid: xr.Dataset
    frame_shape: tuple[int, int]
    expected: Callable[[np.ndarray], torch.Tensor]
    truth: xr.Dataset
    noise: Noise | None
    seed: int = 0
    label: str = "simulation"

    @property
    def modality(self) -> str | None:
        """The modality of the geometry."""
        return self.geometry.modality if self.geometry is not None else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each scan axis, slowest first."""
        return tuple(self.grid.sizes[name] for name in self.grid.dims)

    @property
    def provenance(self) -> dict[str, Any]:
        """What was simulated."""
        return {"input_file": self.label, "input_size": 0, "simulation_seed": self.seed}

    def frames(self, index: np.ndarray) -> np.ndarray:
        """Counts at these flat positions, shape (frame, row, column)."""
        mean = self.expected(index)
        if self.noise is None:
            return mean.cpu().numpy()
        draw, threads = self.noise.sample, torch.get_num_threads()
        streams = [_generator(self.seed, int(i)) for i in index]
        if threads == 1 or len(index) == 1:
            return torch.stack([draw(one, stream) for one, stream in zip(mean.cpu(), streams, strict=True)]).numpy()
        torch.set_num_threads(1)  # of each of our threads: torch's own would wait for each other
        try:
            with ThreadPoolExecutor(threads) as pool:
                return torch.stack(list(pool.map(draw, mean.cpu(), streams))).numpy()
        finally:
            torch.set_num_threads(threads)

    def write(self, path: Path) -> None:
        """Write a generic HDF5 scan with its truth (the writer is found by name, as readers are by `core.source`)."""
        importlib.import_module("braggscope.io.nexus").write_scan(self, path)

    def batches(self, size: int | None = None, *, only: np.ndarray | None = None) -> Iterator[Batch]:
        """The frames in grid order (see `Source.batches`)."""
        wanted = np.arange(math.prod(self.shape)) if only is None else np.flatnonzero(only)
        size = size or max(1, 2**24 // math.prod(self.frame_shape))
        for start in range(0, len(wanted), size):
            index = wanted[start : start + size]
            frames = self.frames(index)
            yield Batch(index, frames, mask=usable(frames))


def _generator(seed: int, index: int) -> torch.Generator:
    """The random stream of one frame; the two numbers are mixed so that neighbouring streams share nothing."""
    mixed = np.random.SeedSequence((seed, index)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 31 | int(mixed[1]) >> 1)
