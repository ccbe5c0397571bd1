"""The detector from the spots of an unstrained crystal: distance, foot of the normal, two tilts, together with the orientation.

A crystal of known shape fixes all five parameters of the detector, since the beam fixes the laboratory. A strain of the crystal
cannot be told from a changed detector and is taken to be zero. Wrong parameters change angles between scattering vectors by about
their relative error: the search goes through tolerances, and spots are matched within a distance that shrinks from tens of pixels
to one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from braggscope.physics.crystals import Crystal

from ..detector import detector_matrix, spots
from ..geometry import LaueGeometry
from . import kernels, refining_kernels
from .catalogue import Catalogue, catalogue_of
from .pattern import Pattern, pattern_of

FIELDS = ("distance_mm", "xcen_px", "ycen_px", "xbet_deg", "xgam_deg")
TOLERANCES_DEG = (0.1, 0.3, 0.6, 1.0)
ANCHORS, PARTNERS = 12, 40
LIMITS = (30.0, 20.0, 12.0, 8.0, 5.0, 3.0, 2.0, 1.5)  # px within which spots match, before the last
ROUNDS = 4  # within the last
BRIGHTER = 1.3  # predicted spots that are looked at, the brightest, for each peak


@dataclass(frozen=True, eq=False)
class Detector:
    """A calibrated detector.

    geometry: With the parameters found.  uncertainty: One standard deviation of each.  turn: U of the crystal.
    residuals: Distances of matched peaks from their prediction, px.  peaks: How many there are.
    """

    geometry: LaueGeometry
    uncertainty: dict[str, float]
    turn: np.ndarray
    residuals: np.ndarray
    peaks: int


def detector_of(
    places: np.ndarray,
    intensity: np.ndarray,
    geometry: LaueGeometry,
    crystal: Crystal,
    *,
    free: Sequence[str] = FIELDS,
    within: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Detector | None:
    """The detector that explains most of the peaks of a crystal; None where none explains more than a few.

    places: Row and column, px, shape (peak, 2).  intensity: Shape (peak,).
    geometry: Where to start: about 1 % of the distance, 20 px and 1 deg are near enough.
    """
    best: Detector | None = None
    for step, tolerance in enumerate(TOLERANCES_DEG):
        pattern = pattern_of(places[:, 0], places[:, 1], intensity, geometry)
        catalogue = catalogue_of(crystal, geometry, tolerance_deg=tolerance)
        start = _orientation(pattern, catalogue)
        found = None if start is None else _adjusted(start, pattern, catalogue, geometry, free, within)
        if found is not None and (best is None or _better(found, best)):
            best = found
        if progress is not None:
            progress(step + 1, len(TOLERANCES_DEG))
        if best is not None and len(best.residuals) > 0.7 * len(pattern):
            break
    return best if best is not None and len(best.residuals) >= 2 * (len(free) + 3) else None


def _better(one: Detector, other: Detector) -> bool:
    return (len(one.residuals), -one.residuals.mean()) > (len(other.residuals), -other.residuals.mean())


def _orientation(pattern: Pattern, catalogue: Catalogue) -> np.ndarray | None:
    """The orientation that explains most peaks within the catalogue's tolerance."""
    best, turn = 0.0, None
    for anchor in range(min(ANCHORS, len(pattern))):
        partners = np.delete(np.arange(min(len(pattern), PARTNERS)), anchor)
        found = np.empty((3, 3))
        score, _ = kernels.best_of_anchor(
            anchor, partners, pattern.directions, pattern.sines, catalogue.tolerance, *catalogue.pairs, *catalogue.lookup,
            4, np.empty(len(pattern)), np.empty((3, 3)), found,
        )  # fmt: skip
        if score > best:
            best, turn = score, found
    return turn


def _adjusted(
    turn: np.ndarray, pattern: Pattern, catalogue: Catalogue, geometry: LaueGeometry, free: Sequence[str], within: float
) -> Detector | None:
    """Detector and orientation by matching and least squares in turn."""
    values = np.array([getattr(geometry, name) for name in FIELDS])
    which = [FIELDS.index(name) for name in free]
    limits = [*(limit for limit in LIMITS if limit > within), *[within] * ROUNDS]
    fit = None
    for limit in limits:
        last = limit == within
        hkl, peaks = _matches(turn, values, pattern, catalogue, geometry, limit)
        if len(peaks) < len(free) + 3:
            return None
        q = hkl @ catalogue.crystal.b_matrix.T
        fit = _fit(turn, values, which, q, pattern.places[peaks], geometry.pixel_um, np.inf if last else limit / 3)
        turn = Rotation.from_rotvec(fit.x[:3]).as_matrix() @ turn
        values[which] = values[which] + fit.x[3:]
    hkl, peaks = _matches(turn, values, pattern, catalogue, geometry, within)
    if fit is None or len(peaks) < len(free) + 3:
        return None
    off = _predicted(turn, values, hkl @ catalogue.crystal.b_matrix.T, geometry.pixel_um) - pattern.places[peaks]
    freedom = max(off.size - len(fit.x), 1)
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * (off**2).sum() / freedom
    stds = np.sqrt(np.diag(covariance))[3:]
    found = geometry.replace(**{name: float(value) for name, value in zip(FIELDS, values, strict=True)})
    return Detector(found, dict(zip(free, map(float, stds), strict=True)), turn, np.hypot(*off.T), len(pattern))


def _matches(
    turn: np.ndarray, values: np.ndarray, pattern: Pattern, catalogue: Catalogue, geometry: LaueGeometry, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and peaks of the spots matched within a distance; only spots as bright as the peaks may be are looked at."""
    inverse = np.linalg.inv(detector_matrix([*values, geometry.pixel_um]))
    crystal = (catalogue.reflections.q, catalogue.orders, catalogue.low, catalogue.high)
    on = (inverse, pattern.rows, pattern.columns)
    chosen = refining_kernels.near_detector(np.ascontiguousarray(turn), *crystal, *on)
    place, order = refining_kernels.shown(chosen, np.ascontiguousarray(turn), *crystal, *on)
    strength = np.where(order > 0, catalogue.reflections.strength[chosen, np.maximum(order, 1) - 1], -1.0)
    bright = np.argsort(-strength, kind="stable")[: int(BRIGHTER * len(pattern)) if limit > 3 else len(chosen)]
    bright = bright[order[bright] > 0]
    everything = np.ones(len(pattern), bool)
    cell = limit * 1.0001
    partner = refining_kernels.paired(
        place[bright], order[bright], pattern.places, everything, limit, *refining_kernels.bins(pattern.places, cell), cell
    )
    matched = partner >= 0
    return catalogue.reflections.hkl[chosen[bright[matched]]], partner[matched]


def _predicted(turn: np.ndarray, values: np.ndarray, q: np.ndarray, pixel_um: float) -> np.ndarray:
    """Row and column of reflections, shape (reflection, 2)."""
    row, column, _ = spots(np.linalg.inv(detector_matrix([*values, pixel_um])), q @ turn.T)
    return np.stack([row, column], 1)


def _fit(turn: np.ndarray, values: np.ndarray, which: list[int], q: np.ndarray, places: np.ndarray, pixel_um: float, soft: float):  # type: ignore[no-untyped-def]
    """Small turn and changes of the free parameters by least squares, with soft loss beyond a distance."""

    def residuals(x: np.ndarray) -> np.ndarray:
        changed = values.copy()
        changed[which] += x[3:]
        return np.nan_to_num(
            _predicted(Rotation.from_rotvec(x[:3]).as_matrix() @ turn, changed, q, pixel_um) - places, nan=1e3
        ).ravel()

    loss: dict[str, Any] = {} if np.isinf(soft) else {"loss": "soft_l1", "f_scale": soft}
    scale = np.concatenate([np.full(3, 1e-3), np.array([0.1, 1, 1, 0.1, 0.1])[which]])
    return least_squares(residuals, np.zeros(3 + len(which)), x_scale=scale, **loss)
