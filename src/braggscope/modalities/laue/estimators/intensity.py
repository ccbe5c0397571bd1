"""Light of each frame above its background, without a model: a first look at a scan.

Pixels are compared with the median of the frame in units of the spread of its darker half, so that a smooth background of a few
counts does no harm; where it varies by more than the noise, `bright` counts its slopes too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.ndimage import maximum_filter

from braggscope.core.batch import Batch
from braggscope.core.estimator import PerFrame, check_ranges, option
from braggscope.core.maps import Quantity

MASKED, DARK = 2, 4


@dataclass(frozen=True)
class Intensity(PerFrame):
    """Sum and number of the bright pixels of each frame (see the module)."""

    above: float = option(6.0, "standard deviations of the background above which a pixel is bright")

    name: ClassVar[str] = "intensity"
    summary: ClassVar[str] = "light of each frame above its background and number of bright places, without a model"
    calibrated: ClassVar[bool] = False
    uncalibrated_because: ClassVar[str] = "sums over pixels that are chosen by their counts have no simple error"
    flags: ClassVar[Mapping[int, str]] = {MASKED: "masked_counts", DARK: "nothing_bright"}

    def __post_init__(self) -> None:
        check_ranges(self, {"above": (1.0, 1e4)})

    def quantities(self) -> tuple[Quantity, ...]:
        return (
            Quantity("total", "count", "light in bright pixels above the background"),
            Quantity("bright", "1", "bright places: pixels brighter than their neighbours and the threshold"),
            Quantity("brightest", "count", "brightest pixel above the background"),
            Quantity("level", "count", "background, the median of the frame"),
        )

    def summarise(self, dataset: xr.Dataset) -> xr.Dataset:
        return dataset.assign_attrs(uncalibrated_because=self.uncalibrated_because)

    def fit(self, batch: Batch) -> dict[str, np.ndarray]:
        counts = batch.frames.astype(np.float64)
        if batch.mask is not None:
            counts = np.where(batch.mask, counts, np.nan)
        level = np.nanmedian(counts, axis=(1, 2))
        off = np.nan_to_num(counts - level[:, None, None], nan=0.0)
        spread = np.array([np.sqrt(max(float(np.mean(one[one < 0] ** 2)) if (one < 0).any() else 0.0, 1 / 12)) for one in off])
        shines = off > self.above * spread[:, None, None]
        peak = (off == maximum_filter(off, size=(1, 3, 3))) & shines
        flag = np.where(shines.any(axis=(1, 2)), 0, DARK).astype(np.int32)
        if batch.mask is not None:
            flag[~batch.mask.all(axis=(1, 2))] |= MASKED
        return {
            "total": (off * shines).sum(axis=(1, 2)), "bright": peak.sum(axis=(1, 2)).astype(float),
            "brightest": off.max(axis=(1, 2)), "level": level, "flag": flag,
        }  # fmt: skip
