"""CANON: a convolutional autoencoder of the patterns, and clusters of its features (Song et al., Acta Cryst. A 75, 876 (2019)).

Each frame, without what stands still, becomes a picture of cells, in each the brightest pixel; 256 latent features as
published, their layers are ours (grains/autoencoder.py). Patterns of a beam that is larger than the grains change gradually
from one position to the next, so that clusters are about as large as `apart` says, not as the grains are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from braggscope.core.batch import Batch
from braggscope.core.estimator import State, option

from ..grains.artificial import brightest_in_cells, cells
from ..grains.reducing import Reducing

SCALES = ("sqrt", "log", "linear")


@dataclass(frozen=True)
class Canon(Reducing):
    """Clusters of patterns by an autoencoder (see the module)."""

    scale: str = option("sqrt", "of the counts; sqrt makes their noise even", choices=SCALES, stage="training")

    name: ClassVar[str] = "canon"
    summary: ClassVar[str] = "like patterns by a convolutional autoencoder and clusters of its features, without indexing"

    def kept(self, frame_shape: tuple[int, int]) -> dict[str, np.ndarray]:
        return {"picture": np.zeros(cells(frame_shape, self.side)[1], np.float32)}

    def fit(self, batch: Batch) -> dict[str, np.ndarray]:
        """The picture of each frame, counts above what stands still, and flag 0."""
        picture = brightest_in_cells(batch, self._still, self.threshold, self.side)
        return {"picture": picture, "flag": np.zeros(len(batch), np.int32)}

    def pictures(self, state: State, shape: tuple[int, ...], frame_shape: tuple[int, int]) -> np.ndarray:
        counts = state["picture"]
        if self.scale == "linear":
            return np.asarray(counts / np.maximum(counts.max((1, 2), keepdims=True), 1e-6))
        return np.sqrt(counts) if self.scale == "sqrt" else np.log1p(counts)
