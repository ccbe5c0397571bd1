"""Indexing: the conventional map, the grain that explains most spots of each pattern.

As XMAS and its kin map: peaks, orientation, deviatoric strain, position by position. Here sums of neighbouring frames at some
places are searched in full first (`prepare`), and the orientations found there, equal ones merged, are what every frame is
matched against before it is searched itself. Where the beam is larger than the grains a pattern mixes several; the map says which
one explains most peaks, so that grains look as large as the beam.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.estimator import PerFrame, check_ranges, option
from braggscope.core.maps import Quantity
from braggscope.core.source import Source
from braggscope.infer.runtime import in_threads

from ..geometry import LaueGeometry
from ..indexing.catalogue import Catalogue, catalogue_of
from ..indexing.indexed import rotation_vectors
from ..indexing.known import LEAST, Known, merged, misorientations, nothing_known
from ..indexing.pattern import Pattern, pattern_of
from ..indexing.refinement import COMPONENTS, Grain, refined
from ..indexing.search import FEWEST, grains_in
from ..peaks.search import Search, find_spots
from ..reflections import material

NO_PEAKS, NOT_INDEXED, NO_STRAIN = 2, 4, 8
STANDING = 0.6  # part of the sampled frames in which the spots of a substrate are seen at one place
SAMPLES_TO_STAND = 8
SMEARED = 0.35  # of the beam's footprint along the scan: frames this near are added up for the full search
FALSE = 1e-4  # probability by chance of a grain that is accepted in a frame
EACH = 6  # grains that are searched for in a sampled frame, beside those known
DARK, LONE = 12, 6  # anchors that may fail in a sampled frame, and in a frame that nothing known explains


@dataclasses.dataclass(frozen=True)
class Indexing(PerFrame):
    """The dominant grain at each position, by peaks, orientation search and refinement."""

    name: ClassVar[str] = "indexing"
    summary: ClassVar[str] = "the grain that explains most spots of each pattern: orientation, deviatoric strain"
    per_frame: ClassVar[bool] = False  # grains are numbered over the whole scan
    prepares_on_scan: ClassVar[bool] = True
    calibrated: ClassVar[bool] = False
    uncalibrated_because: ClassVar[str] = (
        "where grains are smaller than the beam the dominant one is a choice, whose error the fit does not know; "
        "orientation_error is that of the fit"
    )
    flags: ClassVar[dict[int, str]] = {NO_PEAKS: "too_few_peaks", NOT_INDEXED: "not_indexed", NO_STRAIN: "strain_unknown"}

    material: str = option("", "name or CIF file of the grains' crystal; left out: that of the geometry")
    threshold: float = option(5.0, "least significance of a peak, in standard deviations")
    within: float = option(1.0, "distance within which a peak belongs to a spot", unit="px")
    same_within: float = option(0.3, "orientations nearer than this, or than twice their error, are one grain", unit="deg")
    sample: int = option(600, "places that are searched in full to know the orientations of the scan")
    known: Known = dataclasses.field(default_factory=nothing_known, repr=False)
    standing: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 2)), repr=False)

    def __post_init__(self) -> None:
        check_ranges(self, {"threshold": (2, 1e6), "within": (0.1, 50), "same_within": (0.01, 10), "sample": (0, 1_000_000)})

    def quantities(self) -> tuple[Quantity, ...]:
        turns = (Quantity(f"orientation_{a}", "deg", f"rotation vector of the crystal along {a}") for a in "xyz")
        strains = (Quantity(f"strain_{c}", "1", f"deviatoric strain {c} in the crystal frame") for c in COMPONENTS)
        return (
            Quantity("grain", "1", "number of the grain, largest first (0: none)"),
            *turns,
            *strains,
            Quantity("matched", "1", "peaks that the grain explains"),
            Quantity("predicted", "1", "spots that the grain would show"),
            Quantity("peaks", "1", "peaks of the pattern"),
            Quantity("mean_px", "px", "mean distance of the peaks from their prediction"),
            Quantity("orientation_error", "deg", "standard deviation of the orientation by the fit, all axes together"),
        )

    def check_source(self, source: Source) -> None:
        self._instrument.check_frames(source.frame_shape)

    def prepare(self, source: Source) -> Indexing:
        """Orientations of a part of the frames, and the spots that a substrate shows in most of them."""
        self.check_source(source)
        ready = dataclasses.replace(self, geometry=self._on(source.frame_shape))
        patterns = [ready._patterns(batch)[0] for batch in _added(source, self.sample, self._near(source))]
        if self._instrument.substrate:
            ready = dataclasses.replace(ready, standing=ready._substrate(patterns))
            patterns = [ready._cleaned(one) for one in patterns]
        return dataclasses.replace(ready, known=ready._orientations(patterns))

    def facts(self) -> dict[str, Any]:
        return {"known_orientations": len(self.known), "standing_spots": len(self.standing)}

    def fit(self, batch: Batch) -> dict[str, np.ndarray]:
        names = [q.name for q in self.quantities()]
        found = {name: np.full(len(batch), np.nan) for name in names}
        found["flag"] = np.zeros(len(batch), np.int32)
        patterns = self._patterns(batch)

        def work(start: int, stop: int) -> None:
            for i in range(start, stop):
                self._point(patterns[i], found, i)

        in_threads(work, len(batch))
        return found

    def summarise(self, dataset: xr.Dataset) -> xr.Dataset:
        """Grains numbered by size: positions whose orientations are equal within `same_within` or their errors."""
        vectors = np.stack([dataset[f"orientation_{a}"].values for a in "xyz"], -1).reshape(-1, 3)
        there = np.flatnonzero(np.isfinite(vectors).all(1))
        label = np.where(dataset["flag"].values.ravel() & 1, np.nan, 0.0)
        count = 0
        if len(there):
            turns = Rotation.from_rotvec(np.deg2rad(vectors[there])).as_matrix()
            matched, error = (dataset[n].values.ravel()[there] for n in ("matched", "orientation_error"))
            group = merged(turns, matched, self._catalogue.crystal, self.same_within, error)
            sizes = np.bincount(group)
            number = np.empty(len(sizes), int)
            number[np.argsort(-sizes, kind="stable")] = np.arange(1, len(sizes) + 1)
            label[there], count = number[group], len(sizes)
        dataset["grain"].values[...] = label.reshape(dataset["grain"].shape)
        dataset.attrs |= {"grains": count, "uncalibrated_because": self.uncalibrated_because}
        return dataset

    @property
    def _instrument(self) -> LaueGeometry:
        if not isinstance(self.geometry, LaueGeometry):
            raise InputError("indexing needs a geometry: the calibration of the detector")
        return self.geometry

    @cached_property
    def _catalogue(self) -> Catalogue:
        name = self.material or self._instrument.material
        if not name:
            raise InputError("the material is not stated; give it in the geometry or as the option material")
        here = self._pattern(np.empty((0, 2)), np.empty(0))
        tolerance = max(0.1, np.rad2deg(1.5 * self.within * here.radians_per_px))
        return catalogue_of(material(name), self._instrument, tolerance_deg=float(tolerance))

    def _on(self, frame_shape: tuple[int, int]) -> LaueGeometry:
        return self._instrument.replace(rows=frame_shape[0], columns=frame_shape[1])

    def _pattern(self, places: np.ndarray, light: np.ndarray, stds: np.ndarray | None = None) -> Pattern:
        """Peaks as a pattern: places and their standard deviations of shape (peak, 2)."""
        errors = {} if stds is None else {"row_std": stds[:, 0], "column_std": stds[:, 1]}
        return pattern_of(places[:, 0], places[:, 1], light, self._instrument, **errors)

    def _patterns(self, batch: Batch) -> list[Pattern]:
        """The peaks of each frame without those of the substrate."""
        found: list[Any] = [None] * len(batch)
        how = Search(threshold=self.threshold)

        def work(start: int, stop: int) -> None:
            for i in range(start, stop):
                spots = find_spots(batch.frames[i], None if batch.mask is None else batch.mask[i], how=how, threads=False)
                places = np.stack([spots.rows, spots.columns], 1) + np.nan_to_num(spots.values[:, 2:4])
                with np.errstate(invalid="ignore"):
                    std = np.sqrt(np.diagonal(spots.errors, axis1=1, axis2=2)[:, 2:4])
                found[i] = self._cleaned(self._pattern(places, spots.significance, std))

        in_threads(work, len(batch))
        return found

    def _near(self, source: Source) -> int:
        """How many frames along the last axis of the scan are under nearly the same light."""
        axis = source.grid[list(source.grid.dims)[-1]]
        step = float(np.median(np.abs(np.diff(axis.values)))) if axis.size > 1 else np.inf
        if axis.attrs.get("units") not in ("um", "micron", "µm") or not 0 < step < np.inf:
            return 1
        return max(1, min(int(SMEARED * self._instrument.beam_um / step), axis.size))

    def _substrate(self, patterns: list[Pattern]) -> np.ndarray:
        """Places of the substrate's spots: those that stand still and are of one crystal of it, shape (spot, 2)."""
        places = _standing(patterns, self.within)
        still = self._pattern(places, -np.arange(len(places), dtype=float))
        tolerance = float(np.rad2deg(self._catalogue.tolerance))
        crystal = catalogue_of(material(self._instrument.substrate, "substrate"), self._instrument, tolerance_deg=tolerance)
        found = next(grains_in(still, crystal, most=1, within=self.within), None)
        return np.empty((0, 2)) if found is None else still.places[found.peaks]

    def _cleaned(self, pattern: Pattern) -> Pattern:
        """A pattern without the spots of the substrate."""
        if not len(self.standing):
            return pattern
        moving = _apart(pattern.places, self.standing, self.within)
        return self._pattern(pattern.places[moving], pattern.light[moving], np.sqrt(pattern.variance[moving]))

    def _orientations(self, patterns: list[Pattern]) -> Known:
        """The orientations in some patterns, each once."""
        known, crystal = nothing_known(), self._catalogue.crystal
        for pattern in patterns:
            use = np.ones(len(pattern), bool)
            for _ in range(3 * EACH):
                grain = self._of_known(known, pattern, use)
                if grain is None:
                    break
                use[grain.peaks] = False
            new = list(self._searched(pattern, use, EACH, DARK))
            fresh = [
                g.turn for g in new if not len(known) or misorientations(g.turn, known.turns, crystal).min() > self.same_within
            ]
            if fresh:
                known = known.with_more(fresh, self._catalogue, pattern)
        return known

    def _of_known(self, known: Known, pattern: Pattern, use: np.ndarray) -> Grain | None:
        """The grain of the known orientation that explains most, refined."""
        best = known.best(pattern, use, self.within)
        if best is None:
            return None
        grain = refined(known.turns[best], pattern, self._catalogue, use=use, within=self.within)
        return grain if grain is not None and grain.matched >= LEAST else None

    def _searched(self, pattern: Pattern, use: np.ndarray, most: int, anchors: int) -> Iterator[Grain]:
        return grains_in(pattern, self._catalogue, most=most, within=self.within, use=use, anchors=anchors, false=FALSE)

    def _point(self, pattern: Pattern, found: dict[str, np.ndarray], i: int) -> None:
        """One position of the map."""
        found["grain"][i], found["matched"][i], found["peaks"][i] = 0, 0, len(pattern)
        if len(pattern) < FEWEST:
            found["flag"][i] = NO_PEAKS
            return
        use = np.ones(len(pattern), bool)
        grain = self._of_known(self.known, pattern, use) or next(self._searched(pattern, use, 1, LONE), None)
        if grain is None:
            found["flag"][i] = NOT_INDEXED
            return
        vector = rotation_vectors(grain.turn, self._catalogue.crystal)
        values = dict(zip(("orientation_x", "orientation_y", "orientation_z"), vector, strict=True))
        values |= {f"strain_{c}": v for c, v in zip(COMPONENTS, grain.strain, strict=True)}
        values |= {"matched": grain.matched, "predicted": grain.predicted, "mean_px": grain.residuals.mean()}
        values["orientation_error"] = np.rad2deg(np.sqrt(np.trace(grain.covariance[:3, :3])))
        for name, value in values.items():
            found[name][i] = value
        found["flag"][i] = 0 if np.isfinite(grain.strain).all() else NO_STRAIN


def _added(source: Source, places: int, near: int) -> Iterator[Batch]:
    """Sums of `near` neighbouring frames at some places over the scan, each as a batch of one frame."""
    size = int(np.prod(source.shape))
    if not places:
        return
    starts = np.unique(np.linspace(0, max(size - near, 0), min(places, size)).astype(int))
    group = np.full(size, -1)
    for number, start in enumerate(starts):
        own = slice(start, min(start + near, size))
        group[own] = np.where(group[own] < 0, number, group[own])
    left = np.bincount(group[group >= 0], minlength=len(starts))
    sums: dict[int, np.ndarray] = {}
    for batch in source.batches(only=group >= 0):
        for i, at in enumerate(batch.index):
            number = int(group[at])
            frame = batch.frames[i].astype(np.float32)
            if batch.mask is not None:
                frame[~batch.mask[i]] = np.nan
            sums[number] = frame if number not in sums else sums[number] + frame
            left[number] -= 1
            if left[number] == 0:
                yield Batch(np.array([starts[number]]), sums.pop(number)[None])
    for number, frame in sums.items():  # of frames that were lost
        yield Batch(np.array([starts[number]]), frame[None])


def _standing(patterns: list[Pattern], within: float) -> np.ndarray:
    """Which peaks of the richest pattern most others have at the same place, shape (spot, 2)."""
    from scipy.spatial import cKDTree

    if len(patterns) < SAMPLES_TO_STAND:
        return np.empty((0, 2))
    richest = max(patterns, key=len).places
    seen = np.zeros(len(richest))
    for tree in (cKDTree(one.places) for one in patterns if len(one)):
        seen += np.isfinite(tree.query(richest, distance_upper_bound=within)[0])
    return richest[seen > STANDING * len(patterns)]


def _apart(places: np.ndarray, others: np.ndarray, within: float) -> np.ndarray:
    """Which places are farther than a distance from all of others."""
    from scipy.spatial import cKDTree

    if not len(others) or not len(places):
        return np.ones(len(places), bool)
    return np.asarray(~np.isfinite(cKDTree(others).query(places, distance_upper_bound=within)[0]))
