"""One crystal in a pattern: orientation and deviatoric strain with covariance, spots matched to peaks one to one.

q = U (1 + eps)^-T B h. A white beam tells directions only, so that a crystal larger as a whole gives the same pattern: the trace
of eps cannot be had and is 0 by convention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..detector import HC
from . import refining_kernels as kernels
from .catalogue import Catalogue
from .pattern import Pattern

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
OF_FREE = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [-1, -1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1.0]])
"""The six components of a strain without trace from the five free ones."""
ROUNDS = 5  # of matching and fitting within the last distance
UNKNOWN = 5e-3
"""A strain whose standard deviation is larger is not known from the peaks: the crystal is taken as unstrained."""


@dataclass(frozen=True, eq=False)
class Grain:
    """A crystal found in a pattern.

    turn: U, crystal frame to laboratory, shape (3, 3).  strain: eps in the crystal frame, its trace 0, components as COMPONENTS.
    covariance: Of three small turns about the laboratory axes, rad, and the six strains, shape (9, 9); NaN where it is not known.
    peaks: Peaks (of the Pattern) that are matched.  hkl: Lowest harmonic in the band, shape (peak, 3).  energy: keV, its.
    offsets: Peak minus prediction, row and column, px, shape (peak, 2).  deviations: Angle between the scattering vectors, rad.
    predicted: Spots that the crystal would show on the detector in the band.
    seen: Part of its brightest predicted spots, as many as are matched, at which there is a peak.
    chance: Peaks that an orientation at random would match within the tolerance of the search, on average.
    odds: Natural logarithm of the probability that the search finds as much by chance; at most 0.
    material: Name of the crystal.
    """

    turn: np.ndarray
    strain: np.ndarray
    covariance: np.ndarray
    peaks: np.ndarray
    hkl: np.ndarray
    energy: np.ndarray
    offsets: np.ndarray
    deviations: np.ndarray
    predicted: int
    seen: float
    material: str = ""
    chance: float = np.nan
    odds: float = np.nan

    @property
    def matched(self) -> int:
        return len(self.peaks)

    @property
    def residuals(self) -> np.ndarray:
        """Distance of each matched peak from its prediction, px."""
        return np.asarray(np.hypot(*self.offsets.T))

    @property
    def rms_deg(self) -> float:
        return float(np.rad2deg(np.sqrt(np.mean(self.deviations**2)))) if len(self.peaks) else np.nan


def refined(
    turn: np.ndarray,
    pattern: Pattern,
    catalogue: Catalogue,
    *,
    use: np.ndarray,
    within: float,
    strain: bool = True,
) -> Grain | None:
    """The crystal near an orientation, or None where fewer than three of its spots are there.

    Matching and least squares take turns while the distance within which they match shrinks from the catalogue's tolerance to
    `within`; Tukey's biweight keeps wrong matches from pulling until the last rounds, which are plain least squares. The variance
    of a place is that of its peak plus one common to all, such that the residuals are explained; so the covariance is scaled.

    turn: U to start from.  use: Which peaks may be matched, shape (peak,).  within: px.
    """
    wide = max(catalogue.tolerance / pattern.radians_per_px, within)
    middle = max(within, wide / 2)
    limits = np.array([wide, wide, wide, middle, within, *[within] * ROUNDS])
    softs = np.array([np.inf, wide, wide, middle, within, *[np.inf] * ROUNDS])
    frees = np.array([3, 3, *[8 if strain else 3] * (3 + ROUNDS)])
    turn, free_strain, covariance = np.array(turn), np.zeros(5), np.full((8, 8), np.nan)
    cell = wide * 1.0001
    of_crystal = (catalogue.reflections.q, catalogue.orders, catalogue.low, catalogue.high)
    on_detector = (pattern.inverse, pattern.rows, pattern.columns, pattern.places)
    hashed = (*kernels.bins(pattern.places, cell), cell)
    rounds: tuple[np.ndarray, ...] = (frees, limits, softs)
    variance = pattern.variance
    for last in (not pattern.weighted, True):
        found = kernels.refine(turn, free_strain, *rounds, *of_crystal, *on_detector, variance, use, *hashed, covariance)
        if last:
            break
        variance = pattern.variance + _common_variance(found, pattern)
        rounds = tuple(one[-ROUNDS:] for one in rounds)
    chosen, order, place, partner, free, chi2 = found
    if free == 0:
        return None
    there, matched = order > 0, partner >= 0
    peaks = partner[matched]
    freedom = 2 * len(peaks) - free
    full = np.full((9, 9), np.nan)
    if freedom > 0:
        transform = np.zeros((9, 8))
        transform[:3, :3], transform[3:, 3:] = np.eye(3), OF_FREE
        scaled = covariance * chi2 / freedom
        full = transform @ scaled @ transform.T if free == 8 else full
        full[:3, :3] = scaled[:3, :3]
    if free == 8 and not np.diag(full)[3:].max() < UNKNOWN**2:
        return refined(turn, pattern, catalogue, use=use, within=within, strain=False)
    q = catalogue.reflections.q[chosen[matched]] @ (turn @ _stretch(free_strain)).T
    unit = q / np.linalg.norm(q, axis=1, keepdims=True)
    n = order[matched]
    return Grain(
        turn, OF_FREE @ free_strain if free == 8 else np.full(6, np.nan), full, peaks,
        catalogue.reflections.hkl[chosen[matched]] * n[:, None],
        -HC * (q**2).sum(1) / (2 * q[:, 0]) * n,
        pattern.places[peaks] - place[matched],
        np.linalg.norm(unit - pattern.directions[peaks], axis=1),
        int(there.sum()), _seen(catalogue, pattern, chosen, order, place, len(peaks), wide, hashed), catalogue.crystal.name,
    )  # fmt: skip


def _stretch(strain: np.ndarray) -> np.ndarray:
    """(1 + eps)^-1 of five free strains."""
    xx, yy, zz, yz, xz, xy = OF_FREE @ strain
    return np.linalg.inv(np.eye(3) + np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))


def _common_variance(found: tuple[Any, ...], pattern: Pattern) -> float:
    """The variance t, px^2, that with those of the peaks explains the residuals: sum r^2 / (s^2 + t) = degrees of freedom.

    Mandel & Paule 1970, Anal. Chem. 42, 1194; 0 where the peaks' own suffice. By bisection.
    """
    _, _, place, partner, free, _ = found
    matched = partner >= 0
    peaks = partner[matched]
    squares, own, freedom = (pattern.places[peaks] - place[matched]) ** 2, pattern.variance[peaks], 2 * len(peaks) - free
    low, high = 0.0, float(squares.sum() / max(freedom, 1))
    if freedom <= 0 or (squares / own).sum() <= freedom:
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if (squares / (own + middle)).sum() > freedom else (low, middle)
    return high


def _seen(
    catalogue: Catalogue, pattern: Pattern, chosen: np.ndarray, order: np.ndarray, place: np.ndarray,
    count: int, within: float, hashed: tuple[Any, ...],
) -> float:  # fmt: skip
    """Part of the brightest predicted spots at which there is a peak, whatever it belongs to."""
    there = np.flatnonzero(order > 0)
    strength = catalogue.reflections.strength[chosen[there], order[there] - 1]
    brightest = there[np.argsort(-strength, kind="stable")[: max(count, 1)]]
    everything = np.ones(len(pattern), bool)
    partner = kernels.paired(place[brightest], order[brightest], pattern.places, everything, within, *hashed)
    return float((partner >= 0).mean()) if len(partner) else 0.0
