"""Orientations that are known of a scan, against which a pattern is matched at once; and equal orientations merged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from braggscope.physics.crystals import Crystal

from . import refining_kernels
from .catalogue import Catalogue
from .pattern import Pattern
from .search import log_tail

BRIGHTEST = 40  # spots of an orientation that are looked for
LEAST = 3  # that must be there
WIDEST = 4.0
FALSE = 1e-3  # probability by chance that is accepted, all known orientations together


@dataclass(frozen=True, eq=False)
class Known:
    """Orientations of a crystal and where their brightest spots show on a detector.

    turns: U, shape (orientation, 3, 3).
    start, spots: Row and column of the spots of each, as `refining_kernels.votes` takes them.
    """

    turns: np.ndarray
    start: np.ndarray
    spots: np.ndarray

    def __len__(self) -> int:
        return len(self.turns)

    def best(self, pattern: Pattern, use: np.ndarray, within: float) -> int | None:
        """The orientation most of whose spots are there, of equal ones the brightest; None where chance would do as much."""
        if not len(self) or len(pattern) < LEAST:
            return None
        count, light = np.empty(len(self), np.int64), np.empty(len(self))
        cell = max(within, 4.0)
        hashed = refining_kernels.bins(pattern.places, cell)
        refining_kernels.votes(self.start, self.spots, pattern.places, pattern.light, use, within, *hashed, cell, count, light)
        best = int(np.lexsort((light, count))[-1])
        density = int(use.sum()) * math.pi * within**2 / (pattern.rows * pattern.columns)
        mean = float(self.start[best + 1] - self.start[best]) * density
        sure = log_tail(int(count[best]), mean) + math.log(len(self)) < math.log(FALSE)
        return best if sure and count[best] >= LEAST else None

    def with_more(self, turns: Sequence[np.ndarray], catalogue: Catalogue, pattern: Pattern) -> Known:
        """These and further orientations; the detector is that of a pattern."""
        lists = [_brightest(turn, catalogue, pattern) for turn in turns]
        ends = self.start[-1] + np.cumsum([len(one) for one in lists], dtype=np.int64)
        return Known(
            np.concatenate([self.turns, *(t[None] for t in turns)]),
            np.concatenate([self.start, ends]),
            np.concatenate([self.spots, *lists]),
        )


def nothing_known() -> Known:
    """No orientation."""
    return Known(np.empty((0, 3, 3)), np.zeros(1, np.int64), np.empty((0, 2)))


def misorientations(turn: np.ndarray, turns: np.ndarray, crystal: Crystal) -> np.ndarray:
    """Smallest angle, degrees, from one orientation to others among their equivalents; (3, 3), (..., 3, 3) -> (...,)."""
    equivalent = (turn @ crystal.rotations).reshape(len(crystal.rotations), 9)
    nearest = equivalent[(turns.reshape(-1, 9) @ equivalent.T).argmax(1)]
    apart = np.linalg.norm(turns.reshape(-1, 9) - nearest, axis=1)  # 2 sqrt(2) sin(angle / 2), accurate for small angles
    return np.rad2deg(2 * np.arcsin(np.clip(apart / np.sqrt(8), 0, 1))).reshape(turns.shape[:-2])


def merged(
    turns: np.ndarray, weight: np.ndarray, crystal: Crystal, within_deg: float, error_deg: np.ndarray | float = 0.0
) -> np.ndarray:
    """Number, from 0, of the group of each orientation: those within an angle of the heaviest not yet in a group, and so on.

    turns: Shape (orientation, 3, 3).  weight: Shape (orientation,).
    error_deg: Standard deviations; orientations are in one group where they differ by less than the angle or, up to WIDEST
        times the angle, than twice the error of their difference.
    """
    error = np.broadcast_to(np.nan_to_num(error_deg), len(turns))
    group = np.full(len(turns), -1)
    order = np.lexsort((np.arange(len(turns)), -weight))
    number = 0
    for one in order:
        if group[one] >= 0:
            continue
        open_ = np.flatnonzero(group < 0)
        limit = np.clip(2 * np.hypot(error[one], error[open_]), within_deg, WIDEST * within_deg)
        group[open_[misorientations(turns[one], turns[open_], crystal) < limit]] = number
        group[one] = number
        number += 1
    return group


def _brightest(turn: np.ndarray, catalogue: Catalogue, pattern: Pattern) -> np.ndarray:
    """Row and column of the brightest spots of an orientation, shape (spot, 2)."""
    lattice = np.ascontiguousarray(turn)
    crystal = (catalogue.reflections.q, catalogue.orders, catalogue.low, catalogue.high)
    on = (pattern.inverse, pattern.rows, pattern.columns)
    chosen = refining_kernels.near_detector(lattice, *crystal, *on)
    place, order = refining_kernels.shown(chosen, lattice, *crystal, *on)
    strength = np.where(order > 0, catalogue.reflections.strength[chosen, np.maximum(order, 1) - 1], -1.0)
    best = np.argsort(-strength, kind="stable")[:BRIGHTEST]
    return place[best[strength[best] > 0]]
