"""Moments of each frame: its total, its centre of mass and sums over regions, with counting errors.

No model: nothing is fitted and no background is subtracted, so the centre of mass of a weak frame is drawn towards the middle
of the frame. Rows and columns count from 0 at the centre of the first pixel. Counts that may not be used (dead, saturated) are
left out and the frame is flagged, since every sum is then too small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.estimator import PerFrame, option
from braggscope.core.maps import Quantity
from braggscope.core.source import Source

MASKED, TOO_FEW = 2, 4
FEWEST = 20  # counts below which the normal approximation behind the standard deviations fails


@dataclass(frozen=True)
class Moments(PerFrame):
    """Total, centre of mass and region sums of each frame (see the module)."""

    name: ClassVar[str] = "moments"
    summary: ClassVar[str] = "total, centre of mass and region sums of each frame, without a model"
    calibrated: ClassVar[bool] = True
    flags: ClassVar[Mapping[int, str]] = {MASKED: "masked_counts", TOO_FEW: "too_few_counts"}

    regions: str = option(
        "halves", "regions to sum: none, halves, quadrants, or rectangles as ROW:ROW,COLUMN:COLUMN separated by semicolons"
    )

    def quantities(self) -> tuple[Quantity, ...]:
        sums = tuple(Quantity(name, "count", f"counts in region {name}") for name in _region_names(self.regions))
        return (
            Quantity("total", "count", "counts in the frame"),
            Quantity("row", "px", "centre of mass along rows, background included"),
            Quantity("column", "px", "centre of mass along columns, background included"),
            *sums,
        )

    def check_source(self, source: Source) -> None:
        _regions(self.regions, source.frame_shape)

    def fit(self, batch: Batch) -> dict[str, np.ndarray]:
        """Moments and their standard deviations by Poisson statistics: Var(sum of w n) = sum of w^2 n.

        For a mean m = sum(n x) / sum(n) this gives Var(m) = sum(n (x - m)^2) / sum(n)^2.
        """
        counts = batch.frames if batch.mask is None else np.where(batch.mask, batch.frames, 0)
        over_columns, over_rows = counts.sum(2, dtype=np.float64), counts.sum(1, dtype=np.float64)
        total = over_columns.sum(1)
        flag = np.where(total < FEWEST, TOO_FEW, 0).astype(np.int32)
        if batch.mask is not None:
            flag[~batch.mask.all(axis=(1, 2))] |= MASKED
        values = {"total": total, "total_std": np.sqrt(total), "flag": flag}
        for name, profile in (("row", over_columns), ("column", over_rows)):
            values[name], values[f"{name}_std"] = _centre(profile, total)
        for name, (rows, columns) in _regions(self.regions, counts.shape[1:]).items():
            values[name] = counts[:, rows, columns].sum(axis=(1, 2), dtype=np.float64)
            values[f"{name}_std"] = np.sqrt(values[name])
        return values


def _centre(profile: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean position of profiles (frame, position) and its standard deviation; NaN where there are no counts."""
    position = np.arange(profile.shape[1], dtype=np.float64)
    some = np.where(total > 0, total, np.nan)
    mean = (profile * position).sum(1) / some
    variance = (profile * (position - mean[:, None]) ** 2).sum(1) / some**2
    return mean, np.sqrt(variance)


def _region_names(regions: str) -> list[str]:
    words = {"none": [], "halves": ["top", "bottom", "left", "right"]}
    words["quadrants"] = ["top_left", "top_right", "bottom_left", "bottom_right"]
    return words.get(regions, [f"region_{i + 1}" for i in range(len(regions.split(";")))])


def _regions(regions: str, frame_shape: tuple[int, ...]) -> dict[str, tuple[slice, slice]]:
    """Rows and columns of each region by name. Raises InputError for a rectangle that cannot be read or is outside.

    Halves and quadrants leave out the middle row or column of an odd frame.
    """
    rows, columns = frame_shape
    top, bottom, everywhere = slice(0, rows // 2), slice(rows - rows // 2, rows), slice(None)
    left, right = slice(0, columns // 2), slice(columns - columns // 2, columns)
    names = _region_names(regions)
    if regions == "none":
        return {}
    if regions == "halves":
        parts = [(top, everywhere), (bottom, everywhere), (everywhere, left), (everywhere, right)]
    elif regions == "quadrants":
        parts = [(top, left), (top, right), (bottom, left), (bottom, right)]
    else:
        parts = [_rectangle(words, rows, columns) for words in regions.split(";")]
    return dict(zip(names, parts, strict=True))


def _rectangle(words: str, rows: int, columns: int) -> tuple[slice, slice]:
    try:
        (top, bottom), (left, right) = ([int(x) for x in edge.split(":")] for edge in words.split(","))
    except ValueError:
        raise InputError(
            f"option regions must be none, halves, quadrants or rectangles like 0:32,0:64;32:64,0:64, got '{words}'"
        ) from None
    if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):
        raise InputError(f"option regions: {words.strip()} must lie inside the frame of {rows} rows x {columns} columns")
    return slice(top, bottom), slice(left, right)
