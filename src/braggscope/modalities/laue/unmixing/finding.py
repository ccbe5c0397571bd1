"""The grains of a scan, found in its sums: peaks that are strongest at one centre, indexed about it, and what is left again.

A spot of a grain is strongest in the sum about the grain. So of the peaks of all sums those are kept that are larger than at the
neighbouring centres, and the grains are indexed from the peaks about one place at a time, where few mix. Then the images of all
grains known are fitted to the sums and taken away, and the rest is searched again, each time for less certain grains; those whose
spots are not as strong as they should be are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braggscope.physics.crystals import Crystal

from ..brightness import Layer
from ..geometry import LaueGeometry
from ..indexing.catalogue import Catalogue
from ..indexing.known import misorientations
from ..indexing.pattern import Pattern, pattern_of
from ..indexing.refinement import Grain, refined
from ..indexing.search import grains_in
from .lighting import Lights, Pairs, lights, lit, measured, moved, strengthened, supported
from .peaks import Peaks, block, peaks_left, strongest
from .spots import Images, images_of
from .sums import Sums

SEARCHES = ((1e-8, 5), (1e-4, 5), (1e-2, 5), (1.0, 4), (1.0, 4))
"""Probability of a false grain that is accepted before its light is looked at, and spots that it must have, at least: of a search
and of those in what it left."""
EACH = 20  # grains that are searched for about a centre
FITS, STRENGTHS = 2, 2  # of orientations, and of light and strengths in turns
WORST = 0.5  # px: standard deviation of the place of a spot that is used to refine its grain
WITHIN = 2.0  # px between such a place and its prediction
STRAIN_KNOWN = 5e-4
"""Standard deviation of the strain from which on it is taken as 0: with few spots it trades against the orientation, which then
leaves the spots that are seen where they are, but not the others."""
NEIGHBOURS = 3  # centres within which equal orientations are one grain


@dataclass(frozen=True, eq=False)
class Found:
    """Grains and their light.

    turns, strains: U and strain in the crystal frame, NaN where it is not known, shape (grain, 3, 3).
    error_deg: Of the orientation, all axes together.
    matched: Spots from which each is known.
    """

    crystal: Crystal
    turns: np.ndarray
    strains: np.ndarray
    error_deg: np.ndarray
    matched: np.ndarray
    images: Images
    lights: Lights


@dataclass(frozen=True, eq=False)
class Finding:
    """What is searched, and how.

    threshold: Standard deviations of a peak.  within: Of matching peaks to spots, px.
    same_deg: Orientations nearer than this, at neighbouring centres, are one grain.
    error: Standard deviation of the strengths of spots from the expected ones, in parts.
    """

    sums: Sums
    geometry: LaueGeometry
    layer: Layer
    catalogue: Catalogue
    threshold: float
    within: float
    same_deg: float
    error: float

    def grains(self) -> Found:
        """The grains of the scan."""
        known: list[_Seated] = []
        fit = self._fitted(known)
        for false, fewest in SEARCHES:
            left = peaks_left(self.sums, fit.images, fit.lights, self.geometry.spot_px, self.threshold)
            before = len(known)
            for one in self._indexed(strongest(left, self.sums.shape), false, fewest):
                if self._is_new(one, known):
                    known.append(one)
            if len(known) == before:
                continue
            fit = self._fitted(known)
            known = [one for one, there in zip(fit.grains, fit.there, strict=True) if there]
            if not fit.there.all():
                fit = self._fitted(known)
                known = fit.grains
        return self._found(fit)

    def _found(self, fit: _Fit) -> Found:
        covariance = np.array([np.trace(one.grain.covariance[:3, :3]) for one in fit.grains])
        matched = np.array([one.grain.matched for one in fit.grains], int)
        turns, strains = _tensors(fit.grains, unknown=np.nan)
        error = np.rad2deg(np.sqrt(covariance))
        return Found(self.catalogue.crystal, turns, strains, error, matched, fit.images, fit.lights)

    def _fitted(self, grains: list[_Seated]) -> _Fit:
        """Light, strengths of the spots, and orientations of some grains, and which of them their spots support."""
        if not grains:
            nothing = [np.empty(0)] * len(self.sums.mean)
            images = images_of(self.layer, *_tensors(grains), self.geometry.spot_px)
            return _Fit(grains, images, Lights([np.empty(0, int)] * len(nothing), nothing, nothing), np.empty(0, bool))
        for fit in range(FITS + 1):
            images = images_of(self.layer, *_tensors(grains), self.geometry.spot_px)
            if fit == 0:
                near = lit(self.sums, images, np.array([one.seat for one in grains]))
            pairs = Pairs.of(self.sums, images, near)
            for _ in range(STRENGTHS):
                strength, precision = measured(self.sums, images, lights(self.sums, images, pairs))
                images = strengthened(images, strength, precision, error=self.error)
            light = lights(self.sums, images, pairs)
            if fit < FITS:
                grains = self._moved(images, light, grains)
        return _Fit(grains, images, light, supported(images, strength, precision))

    def _moved(self, images: Images, light: Lights, grains: list[_Seated]) -> list[_Seated]:
        """The grains refined by where their spots are in the sums."""
        offset, precision = moved(self.sums, images, light)
        better = []
        for g, one in enumerate(grains):
            own = np.arange(images.start[g], images.start[g + 1])
            own = own[(precision[own] > 1 / WORST**2).all(1)]
            at, std = images.at[own] + offset[own], 1 / np.sqrt(precision[own])
            errors = {"row_std": std[:, 0], "column_std": std[:, 1]}
            pattern = pattern_of(at[:, 0], at[:, 1], images.strength[own], self.geometry, **errors)
            again = self._refined(one.grain, pattern, WITHIN)
            better.append(one if again is None or again.matched < len(own) / 2 else _Seated(again, one.seat))
        return better

    def _indexed(self, peaks: Peaks, false: float, fewest: int) -> list[_Seated]:
        """Grains from the peaks about each centre in turn, the richest first; peaks explained are not used again."""
        left = np.ones(len(peaks.at), bool)
        count = np.bincount(peaks.centre, minlength=len(self.sums.mean))
        found = []
        for centre in np.argsort(-count, kind="stable"):
            own = self._about(int(centre), peaks, left)
            pattern = self._pattern(peaks, own)
            for grain in grains_in(pattern, self.catalogue, most=EACH, within=self.within, false=false, fewest=fewest):
                explained = own[pattern.order[grain.peaks]]
                seat = _middle(peaks.centre[explained], self.sums.shape)
                around = self._about(seat, peaks, left)
                wider = self._pattern(peaks, around)
                again = self._refined(grain, wider, self.within)
                if again is not None and again.matched >= grain.matched:
                    grain, explained = again, around[wider.order[again.peaks]]
                left[explained] = False
                found.append(_Seated(grain, seat))
        return found

    def _about(self, centre: int, peaks: Peaks, left: np.ndarray) -> np.ndarray:
        """The peaks left at a centre and around it."""
        return np.flatnonzero(left & np.isin(peaks.centre, block(centre, self.sums.shape)))

    def _pattern(self, peaks: Peaks, which: np.ndarray) -> Pattern:
        return pattern_of(peaks.at[which, 0], peaks.at[which, 1], peaks.height[which], self.geometry)

    def _refined(self, grain: Grain, pattern: Pattern, within: float) -> Grain | None:
        """A grain from a pattern: strained where its strain is well known from it, else rigid."""
        if len(pattern) < 3:
            return None
        use = np.ones(len(pattern), bool)
        found = refined(grain.turn, pattern, self.catalogue, use=use, within=within)
        if found is None or np.sqrt(np.diag(found.covariance)[3:]).max() < STRAIN_KNOWN:
            return found
        return refined(grain.turn, pattern, self.catalogue, use=use, within=within, strain=False)

    def _is_new(self, one: _Seated, known: list[_Seated]) -> bool:
        """Whether no grain of this orientation is known nearby."""
        i, j = np.divmod(np.array([k.seat for k in known], int), self.sums.shape[1])
        a, b = divmod(one.seat, self.sums.shape[1])
        near = np.flatnonzero(np.maximum(abs(i - a), abs(j - b)) <= NEIGHBOURS)
        if not len(near):
            return True
        turns = np.array([known[k].grain.turn for k in near])
        return bool(misorientations(one.grain.turn, turns, self.catalogue.crystal).min() > self.same_deg)


@dataclass(frozen=True, eq=False)
class _Seated:
    """A grain and the centre at which it was found."""

    grain: Grain
    seat: int


@dataclass(frozen=True, eq=False)
class _Fit:
    """Grains, their images and light, and which of them their spots support."""

    grains: list[_Seated]
    images: Images
    lights: Lights
    there: np.ndarray


def _tensors(grains: list[_Seated], unknown: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """U and strain, `unknown` where that is unknown, of grains; shape (grain, 3, 3) each."""
    turns = np.array([one.grain.turn for one in grains]).reshape(-1, 3, 3)
    strains = np.nan_to_num([one.grain.strain for one in grains], nan=unknown).reshape(-1, 6)
    return turns, strains[:, [[0, 5, 4], [5, 1, 3], [4, 3, 2]]]


def _middle(centres: np.ndarray, shape: tuple[int, int]) -> int:
    """The centre in the middle of some."""
    i, j = np.divmod(centres, shape[1])
    return int(np.rint(np.median(i)) * shape[1] + np.rint(np.median(j)))
