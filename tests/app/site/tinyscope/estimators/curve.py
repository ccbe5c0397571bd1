"""Largest count of a pixel over the scan."""

import dataclasses
from typing import ClassVar

import numpy as np

from braggscope.core.estimator import PerPixel, option
from braggscope.core.maps import Quantity


@dataclasses.dataclass(frozen=True)
class Curve(PerPixel):
    """Largest count of each pixel."""

    name: ClassVar[str] = "curve"
    summary: ClassVar[str] = "largest count of each pixel's curve"
    calibrated: ClassVar[bool] = False
    uncalibrated_because: ClassVar[str] = "a maximum has no simple error"
    factor: float = option(1.0, "multiplies the result")

    def quantities(self):
        return (Quantity("highest", "count", "largest count of the pixel"),)

    def fit(self, block, motors):
        highest = np.where(block.mask, block.curves, 0).max(axis=1)
        return {"highest": self.factor * highest, "flag": np.zeros(len(block), np.int32)}
