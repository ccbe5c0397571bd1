"""PIML: artificial patterns of the peaks that are strongest in their neighbourhood, then CANON (Chan, Huang, Tamura & Chen 2025).

    1. what stands still through the scan, the substrate, is removed                                    (grains/standing.py)
    2. of each pattern the peaks are found                                                                  (grains/peaks.py)
    3. peaks below 80 % of i_max, the highest peak in the patterns within one step, are blocked        (grains/artificial.py)
    4. what is left of the neighbourhood is pooled to one artificial pattern
    5. convolutional autoencoder with 256 features; principal components, of which three are red, green and blue; clusters

How patterns are pooled is not published: `pooling` offers the choices; nor is it whether i_max is that of the pattern or of
each reflection: `mask`. The default is the literal reading, pooled by the maximum, which leaves no position without a peak where
a neighbour has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from braggscope.core.batch import Batch
from braggscope.core.estimator import State, check_ranges, option

from ..grains.artificial import BLOCKING, POOLINGS, blocked, blocked_by_reflection, pictures, pooled
from ..grains.peaks import strongest_peaks
from ..grains.reducing import Reducing

MOST = 64  # peaks of a pattern that are kept, the strongest first


@dataclass(frozen=True)
class Piml(Reducing):
    """Clusters of artificial patterns by an autoencoder (see the module)."""

    share: float = option(0.8, "of i_max below which a peak is blocked; published: 0.8", stage="training")
    radius: float = option(1.0, "of the neighbourhood, in scan steps; published: 1", stage="training")
    mask: str = option("pattern", "i_max of all peaks, or of each reflection", choices=BLOCKING, stage="training")
    pooling: str = option("max", "of the patterns of a neighbourhood", choices=POOLINGS, stage="training")

    name: ClassVar[str] = "piml"
    summary: ClassVar[str] = "peaks strongest in their neighbourhood, pooled, an autoencoder and clusters, without indexing"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"share": (0.0, 1.0), "radius": (0.0, 10.0)})

    def kept(self, frame_shape: tuple[int, int]) -> dict[str, np.ndarray]:
        return {"place": np.full(MOST, -1, np.int32), "light": np.zeros(MOST, np.float32)}

    def fit(self, batch: Batch) -> dict[str, np.ndarray]:
        """Places and light of the strongest peaks, and flag 0."""
        place, light = strongest_peaks(batch, self._still, threshold=self.threshold, most=MOST)
        return {"place": place, "light": light, "flag": np.zeros(len(batch), np.int32)}

    def pictures(self, state: State, shape: tuple[int, ...], frame_shape: tuple[int, int]) -> np.ndarray:
        scan = (1, *shape)[-2:]
        place, light = (state[name].reshape(*scan, MOST) for name in ("place", "light"))
        if self.mask == "pattern":
            left = blocked(light, self.radius, self.share)
        else:
            left = blocked_by_reflection(place, light, frame_shape[1], self.radius, self.share)
        made = pooled(pictures(place, left, frame_shape, self.side), state["seen"].reshape(scan), self.radius, self.pooling)
        return made.reshape(-1, *made.shape[2:])
