"""Patterns of crystals: spots of an orientation and strain, and frames that mix several of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from braggscope.infer.runtime import in_threads

from . import kernels
from .brightness import Layer
from .geometry import LaueGeometry

TYPICAL = 256  # orientations over which the brightness of a strong reflection is taken


@dataclass(frozen=True, eq=False)
class Spots:
    """Spots of one crystal, in the order of its reflections.

    direction: Number of the reflection's direction in the layer's `reflections`.
    row, column: Places, px from 0.  energy: E1 of the coprime reflection, keV.  intensity: Relative, integrated.
    """

    direction: np.ndarray
    row: np.ndarray
    column: np.ndarray
    energy: np.ndarray
    intensity: np.ndarray


def deformed(orientation: np.ndarray, strain: np.ndarray | None = None) -> np.ndarray:
    """U (1 + strain)^-T, which takes q of the undeformed crystal frame to the laboratory; shapes (..., 3, 3)."""
    if strain is None:
        return np.asarray(orientation, float)
    return np.asarray(orientation @ np.linalg.inv(np.eye(3) + strain).swapaxes(-1, -2))


def spots_of(layer: Layer, orientation: np.ndarray, strain: np.ndarray | None = None, *, margin_px: float = 0.0) -> Spots:
    """The spots that a crystal shows on the detector.

    orientation: U, shape (3, 3).  strain: In the crystal frame, shape (3, 3).
    margin_px: Pixels around the detector within which spots count as on it.
    """
    found = np.empty((len(layer.reflections), 5))
    count = kernels.pattern(deformed(orientation, strain), *layer.arrays, margin_px, found)
    return Spots(found[:count, 0].astype(int), *found[:count, 1:].T)


def strong(layer: Layer) -> float:
    """Relative intensity of a strong reflection: that of the brightest spot of a pattern, median over random orientations."""
    from scipy.spatial.transform import Rotation

    turns = Rotation.random(TYPICAL, rng=np.random.default_rng(0)).as_matrix()
    brightest = [spots_of(layer, u).intensity.max(initial=0.0) for u in turns]
    return float(np.median(brightest))


def brightest_pixel(sigma: float) -> float:
    """Part of a spot that falls into its brightest pixel, the spot in its middle; sigma in px."""
    return math.erf(0.5 / (sigma * math.sqrt(2))) ** 2


@dataclass(frozen=True, eq=False)
class Mixture:
    """Frames of positions that each light several grains.

    spot_start, spots: Of each grain; rows are row, column and intensity at full light, counts.
    start, grain, weight: Position p lights grain[start[p]:start[p + 1]] (from 0) with these weights.
    same: Counts that are in every frame, shape (row, column), float32.
    """

    spot_start: np.ndarray
    spots: np.ndarray
    start: np.ndarray
    grain: np.ndarray
    weight: np.ndarray
    same: np.ndarray
    sigma: float

    def frames(self, index: np.ndarray) -> np.ndarray:
        """Expected counts at flat positions, shape (frame, row, column), float32."""
        made = np.empty((len(index), *self.same.shape), np.float32)
        index = np.asarray(index, np.int64)

        def work(first: int, stop: int) -> None:
            made[first:stop] = self.same
            kernels.draw_mixtures(
                made[first:stop], index[first:stop], self.start, self.grain, self.weight, self.spot_start, self.spots, self.sigma
            )

        in_threads(work, len(index))
        return made


def spot_lists(patterns: Sequence[Spots], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Where each grain's spots start, and row, column and scaled intensity of all, as `Mixture` takes them."""
    start = np.concatenate([[0], np.cumsum([len(one.row) for one in patterns])])
    rows = [np.column_stack([one.row, one.column, scale * one.intensity]) for one in patterns]
    return start.astype(np.int64), np.concatenate([*rows, np.empty((0, 3))])


def spot_image(geometry: LaueGeometry, spots: Spots, scale: float = 1.0) -> np.ndarray:
    """Spots drawn on an empty detector, shape (row, column), float64."""
    frame = np.zeros(geometry.frame_shape)
    work = np.empty((2, int(2 * kernels.REACH * geometry.spot_px) + 4))
    for row, column, intensity in zip(spots.row, spots.column, spots.intensity, strict=True):
        kernels.draw(frame, row, column, scale * intensity, geometry.spot_px, *work)
    return frame
