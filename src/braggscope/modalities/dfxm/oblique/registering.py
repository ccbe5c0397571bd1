"""How far the images of one plane of the sample, seen by several cameras, are shifted against the first.

The geometry has been taken out (`sample_plane`); what is left is a shift in the plane: by the centring of the frames and drift.
It is measured by cross-correlation to a hundredth of a point (Guizar-Sicairos et al. 2008, Opt. Lett. 33, 156, in scikit-image)
and the correlation that is reached is what tells whether two maps show the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from braggscope.core.errors import InputError

from .sample_plane import View

ROUNDS = 4
SUBDIVISIONS = 100
CLIP = (1.0, 99.0)  # percentiles


def registered(
    views: list[View], image: Callable[[int, View], np.ndarray], step_um: float, names: list[str], least: float, by: str
) -> tuple[list[View], np.ndarray, np.ndarray]:
    """Views corrected by the measured shifts, the shifts (x, y) in um, and the correlation of each image with the first.

    image: Number of a map and its view -> its image on the common grid, shape (y, x), NaN where there is none.
    names: Of the maps, least: correlation that is needed, by: what is compared; for the InputError where it is not reached.
    """
    first = image(0, views[0])
    corrected, shifts, reached = [views[0]], np.zeros((len(views), 2)), np.ones(len(views))
    for number in range(1, len(views)):
        seen = views[number]
        for _ in range(ROUNDS):
            dy, dx = _shift(first, image(number, seen))
            moved = np.array([dx, dy]) * step_um
            shifts[number] += moved
            seen = seen.moved(*moved)
            if np.hypot(dx, dy) < 1 / SUBDIVISIONS:
                break
        reached[number] = correlation(first, image(number, seen))
        if not reached[number] >= least:
            raise InputError(
                f"map {number + 1} ({names[number]}) does not register onto map 1 ({names[0]}): {by} correlates by "
                f"{reached[number]:.2f} after the best shift, {least:g} is needed; check the order of the maps, eta_deg, at and "
                "flip of the reflections"
            )
        corrected.append(seen)
    return corrected, shifts, reached


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two images where both are; NaN where that are fewer than 25 points or one is flat."""
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 25 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return float("nan")
    return float(np.corrcoef(a[both], b[both])[0, 1])


def _shift(first: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """How far features of the other image lie from those of the first, in points (y, x); 0 where they share no points."""
    from skimage.registration import phase_cross_correlation

    both = np.isfinite(first) & np.isfinite(other)
    if both.sum() < 25:
        return 0.0, 0.0
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in first.shape))
    # a few pixels that one reflection alone sees dark, a dislocation's core, must not decide
    clipped = [np.clip(one, *np.percentile(one[both], CLIP)) for one in (first, other)]
    flat = [np.where(both, one - one[both].mean(), 0.0) * taper for one in clipped]
    shift = phase_cross_correlation(flat[0], flat[1], upsample_factor=SUBDIVISIONS, normalization=None)[0]
    return -float(shift[0]), -float(shift[1])
