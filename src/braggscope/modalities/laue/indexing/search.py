"""Crystals of a pattern one after another: pairs of peaks against pairs of reflections, then a verdict by chance.

Two peaks whose scattering vectors enclose the angle of two bright reflections give an orientation. It is worth as much as the
number of peaks that lie on its reflections. An orientation at random matches on average

    mu = sum over peaks of N(theta) (1 - cos tau) / 2 ~ N tau^2 / 4,

N(theta) the number of reflections that can diffract at the peak's angle and tau the tolerance; the number is that of a Poisson
distribution. The pair fits by itself, so that n matched peaks come by chance with P(X >= n - 2), times the orientations tried.

Chance is not all that can deceive: lattices of different crystals may share directions in part, as wurtzite with a slightly
changed c/a does with diamond. So a grain must show its brightest spots, spots outside of one zone, and no more strain than
crystals bear. What no white-beam pattern tells by directions are cubic crystals of one kind of extinctions from each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from . import kernels
from .catalogue import Catalogue
from .pattern import Pattern
from .refinement import Grain, refined

ANCHORS, PARTNERS = 80, 120  # brightest peaks that are tried in pairs; anchors that gave nothing count
SHRUNK = (1.0, 0.5, 0.25)  # parts of the tolerance at which matches are counted
FALSE = 1e-8  # probability of a grain by chance that is accepted; lattices share directions more often than chance has it
TIMES_CHANCE = 4.0  # a grain explains at least so many times what an orientation at random does
SEEN = 0.3  # and this part of its brightest spots is there
FEWEST = 5  # and so many peaks are matched
OUTSIDE = 2  # of them outside the fullest zone
LARGEST_STRAIN = 2e-3  # deviatoric, any component; half of it
HALF_SEEN = 0.5  # where no more than this part of the brightest spots is there


def log_tail(count: int, mean: float) -> float:
    """Natural logarithm of an upper bound of P(X >= count) for a Poisson distribution, at most 0: its first term times a series.

    P <= exp(-mean) mean^n / n! / (1 - mean / (n + 1)), n = count.

    >>> round(log_tail(8, 0.5), 2)
    -16.59
    """
    if count <= mean or mean <= 0:
        return 0.0 if count <= 0 or mean > 0 else -math.inf
    return min(count * math.log(mean) - mean - math.lgamma(count + 1) - math.log1p(-mean / (count + 1)), 0.0)


def chance_of(pattern: Pattern, catalogue: Catalogue, use: np.ndarray) -> float:
    """Peaks that an orientation at random matches within the catalogue's tolerance, on average."""
    every = kernels.possible(pattern.sines[use], catalogue.lengths, catalogue.orders, catalogue.low, catalogue.high)
    return float(every.sum() * (1 - np.cos(catalogue.tolerance)) / 2)


def grains_in(
    pattern: Pattern,
    catalogue: Catalogue,
    *,
    most: int,
    within: float,
    largest_strain: float = LARGEST_STRAIN,
    use: np.ndarray | None = None,
    anchors: int = ANCHORS,
    false: float = FALSE,
    fewest: int = FEWEST,
) -> Iterator[Grain]:
    """The grains of a material, as they are found: usually those with most spots first.

    most: How many at most.  within: Distance within which spots match, px.
    largest_strain: Crystals that match only with a larger deviatoric strain, by a standard deviation, are others; half of it
        where no more than half of their brightest spots is there.
    use: Peaks that are not explained yet, shape (peak,); those of each grain are struck out.
    anchors: Peaks that may fail to be of a grain before the search ends.
    false: Probability of a grain by chance that is accepted.
    """
    free = np.ones(len(pattern), bool) if use is None else use
    search = free.copy()
    each = kernels.possible(pattern.sines, catalogue.lengths, catalogue.orders, catalogue.low, catalogue.high)
    chances = each * (1 - np.cos(catalogue.tolerance)) / 2
    tried, failed, found = 0, 0, 0
    dull = np.zeros(len(pattern), bool)
    while found < most and failed < anchors:
        left = np.flatnonzero(search & ~dull)
        if len(left) < fewest:
            return
        anchor, alive = left[0], np.flatnonzero(search)
        turn, count = _best_pair(anchor, alive, pattern, catalogue, fewest)
        tried += count
        grain = (
            None
            if turn is None
            else _accepted(turn, pattern, catalogue, search, free, chances, tried, within, largest_strain, false, fewest)
        )
        if grain is None:
            dull[anchor], failed = True, failed + 1
            continue
        free[grain.peaks] = False
        search[grain.peaks] = False
        search &= ~_near(grain, pattern, catalogue)
        found += 1
        yield grain


def _best_pair(
    anchor: int, alive: np.ndarray, pattern: Pattern, catalogue: Catalogue, fewest: int
) -> tuple[np.ndarray | None, int]:
    """The orientation that explains most of the peaks alive, and how many were tried."""
    at = int(np.searchsorted(alive, anchor))
    partners = np.delete(np.arange(min(len(alive), PARTNERS)), at) if at < PARTNERS else np.arange(PARTNERS)
    best = np.full((3, 3), np.nan)
    score, tried = kernels.best_of_anchor(
        at, partners, pattern.directions[alive], pattern.sines[alive], catalogue.tolerance, *catalogue.pairs, *catalogue.lookup,
        fewest - 1, np.empty(len(alive)), np.empty((3, 3)), best,
    )  # fmt: skip
    return (best, tried) if score > 0 else (None, tried)


def _accepted(
    turn: np.ndarray, pattern: Pattern, catalogue: Catalogue, search: np.ndarray, free: np.ndarray, chances: np.ndarray,
    tried: int, within: float, largest_strain: float, false: float, fewest: int,
) -> Grain | None:  # fmt: skip
    """The grain refined, unless it may be chance."""
    rigid = refined(turn, pattern, catalogue, use=search, within=within, strain=False)
    if rigid is None:
        return None
    squares = np.empty(int(search.sum()))
    kernels.matched(
        rigid.turn, pattern.directions[search], pattern.sines[search], catalogue.tolerance, *catalogue.lookup, squares
    )
    mean = float(chances[search].sum())
    within_parts = [int((squares < (part * catalogue.tolerance) ** 2).sum()) for part in SHRUNK]
    odds = min(log_tail(n - 2, mean * part**2) for n, part in zip(within_parts, SHRUNK, strict=True))
    odds = min(odds + np.log(max(tried, 1) * len(SHRUNK)), 0.0)
    count = int((squares < np.inf).sum())
    if odds > np.log(false) or count < max(fewest, TIMES_CHANCE * mean):
        return None
    grain = refined(rigid.turn, pattern, catalogue, use=free, within=within)
    if grain is None or grain.matched < max(fewest, TIMES_CHANCE * mean) or grain.seen < SEEN:
        return None
    strain, std = np.abs(grain.strain), np.sqrt(np.diag(grain.covariance)[3:])
    bearable = largest_strain if grain.seen > HALF_SEEN else largest_strain / 2
    if (strain - std > bearable).any() or _outside_zone(grain.hkl) < OUTSIDE:
        return None
    return replace(grain, chance=mean, odds=odds)


def _near(grain: Grain, pattern: Pattern, catalogue: Catalogue) -> np.ndarray:
    """Peaks within the tolerance of a spot of the grain: parts of it that are turned a little, no grains of their own."""
    squares = np.empty(len(pattern))
    kernels.matched(grain.turn, pattern.directions, pattern.sines, catalogue.tolerance, *catalogue.lookup, squares)
    return np.asarray(squares < np.inf)


def _outside_zone(hkl: np.ndarray) -> int:
    """Peaks outside the zone with most peaks."""
    zones = np.cross(hkl[:, None], hkl[None])[np.triu_indices(len(hkl), 1)]
    zones = np.unique(zones[zones.any(1)], axis=0)
    return int(len(hkl) - ((zones @ hkl.T) == 0).sum(1).max(initial=0))
