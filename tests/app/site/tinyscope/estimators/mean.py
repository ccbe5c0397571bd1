"""Mean count of a frame."""

import dataclasses
import time
from typing import ClassVar

import numpy as np

from braggscope.core.batch import Batch
from braggscope.core.estimator import PerFrame, option
from braggscope.core.maps import Quantity


@dataclasses.dataclass(frozen=True)
class Mean(PerFrame):
    """Mean count, with its Poisson error; a batch may take `pause` seconds, and position `fails_at` may break it."""

    name: ClassVar[str] = "mean"
    summary: ClassVar[str] = "mean count per pixel"
    calibrated: ClassVar[bool] = True
    flags: ClassVar = {2: "dark"}
    pause: float = option(0.0, "time that a batch takes", unit="s")
    fails_at: int = option(-1, "position at which the method breaks")

    def quantities(self):
        return (Quantity("level", "count", "mean count per pixel"),)

    def fit(self, batch: Batch):
        time.sleep(self.pause)
        if self.fails_at in batch.index:
            raise ArithmeticError("broken on purpose")
        use = np.ones(batch.frames.shape, bool) if batch.mask is None else batch.mask
        pixels = use.sum(axis=(1, 2))
        total = np.where(use, batch.frames, 0).sum(axis=(1, 2), dtype=float)
        flag = np.where(total < 1, 2, 0)
        return {"level": total / pixels, "level_std": np.sqrt(np.maximum(total, 1)) / pixels, "flag": flag}

    def summarise(self, dataset):
        return dataset.assign_attrs(reduced_deviance=1.01)
