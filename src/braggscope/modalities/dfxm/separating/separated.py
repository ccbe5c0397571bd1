"""What a separation of a scan is, by each method: curves, maps, their errors, and what they leave.

Symbols: y counts above the level (point, pixel), A curves (point, component), s maps (component, pixel), D_n mean variance of
frame n, m a mean per pixel (principal components only): y = m + A s + noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .component_count import mean_variance
from .scan_counts import ScanCounts

ROOM = 16  # directions, at most, that non-negative factors see, where the noise leaves more than the components
ROOM_BYTES = 400 * 2**20  # and of their coordinates


@dataclass(frozen=True)
class Separation:
    """curves: A, shape (point, component); sum 1, so that a map is a number of counts; for principal components unit norm.

    maps: s, shape (component, pixel).  mean: m, shape (pixel,), or None.
    unmix: The linear map from y to s, without the bounds of non-negative least squares, shape (component, point).
    weight: 1 / D_n, or 1, of the least squares, shape (point,).
    """

    curves: np.ndarray
    maps: np.ndarray
    mean: np.ndarray | None
    unmix: np.ndarray
    weight: np.ndarray
    bounded: bool
    iterations: int
    converged: bool

    @property
    def design(self) -> np.ndarray:
        """Curves, with a constant one in front where there is a mean, shape (point, component [+ 1])."""
        return self.curves if self.mean is None else np.insert(self.curves, 0, 1.0, axis=1)

    @property
    def values(self) -> np.ndarray:
        """Maps, with the mean in front where there is one."""
        return self.maps if self.mean is None else np.insert(self.maps, 0, self.mean, axis=0)

    def map_variance(self, gain: float, variance: float) -> np.ndarray:
        """Of the maps by counting and read-out at these curves, shape (component, pixel); V = gain (m + A s) + variance."""
        squares = self.unmix**2
        found = gain * ((squares @ self.design) @ self.values)
        return np.maximum(found, 0) + variance * squares.sum(axis=1)[:, None]

    def curve_variance(self, gain: float, variance: float) -> np.ndarray:
        """Of the curves by counting and read-out at these maps, shape (point, component)."""
        through = np.linalg.pinv(self.maps @ self.maps.T) @ self.maps
        through **= 2
        found = gain * (self.design @ (self.values @ through.T))
        return np.maximum(found, 0) + variance * through.sum(axis=1)


def principal(counts: ScanCounts, gram: np.ndarray, count: int) -> Separation:
    """Principal components of the curves less their own mean over the points, as scikit-learn and darfix have them."""
    n = len(gram)
    centre = np.eye(n) - 1 / n
    _, vectors = np.linalg.eigh(centre @ gram @ centre)
    curves = vectors[:, ::-1][:, :count]
    curves = curves * np.sign(curves[np.abs(curves).argmax(axis=0), np.arange(count)])
    values = counts.project(np.vstack([np.full((1, n), 1 / n), curves.T]))
    return Separation(curves, values[1:], values[0], curves.T @ centre, np.ones(n), False, 1, True)


def sources(
    counts: ScanCounts, gram: np.ndarray, sums: np.ndarray, method: str, count: int, found: int, iterations: int, tolerance: float
) -> Separation:
    """NICA, NMF, or NMF that starts from NICA, on frames divided by the root of their mean variance.

    found: Directions that stand out of the noise: non-negative factors see as many, if there is room.
    """
    from .separation import first_factors, non_negative_factors, non_negative_independent, non_negative_maps

    root = np.sqrt(mean_variance(sums, counts.good, counts.noise))
    squares, vectors = np.linalg.eigh(gram / np.outer(root, root))
    directions = count if method == "nica" else max(count, min(found, ROOM, ROOM_BYTES // (8 * counts.pixels), len(gram)))
    basis = np.ascontiguousarray(vectors[:, ::-1][:, :directions])
    z = counts.project(basis.T / root)
    good = np.ascontiguousarray(z[:, ~counts.masked]) if counts.masked.any() else z
    if method == "nmf":
        start, steps = first_factors(basis, squares[::-1], good, count), 0
    else:
        start, steps, converged = non_negative_independent(basis[:, :count], good[:count])
    if method == "nica":
        curves = start
    else:
        start = np.maximum(start, 1e-3 * np.abs(start).max(axis=0))
        curves, more, converged = non_negative_factors(basis, good, start, iterations=iterations, tolerance=tolerance)
        steps += more
    del z, good
    inverse = np.linalg.pinv(curves)
    if method == "nica":
        maps = counts.project(inverse / root)
    else:
        maps = non_negative_maps(counts.project(curves.T / root), curves.T @ curves)
    unmix, curves = inverse / root, curves * root[:, None]
    scale = curves.sum(axis=0)
    scale = np.where(np.abs(scale) > 1e-12 * np.abs(curves).sum(axis=0), scale, 1.0)
    curves, maps, unmix = curves / scale, maps * scale[:, None], unmix * scale[:, None]
    order = np.argsort(-np.abs(maps).sum(axis=1), kind="stable")
    return Separation(
        curves[:, order], maps[order], None, unmix[order], 1 / root**2, method != "nica", steps, converged
    )  # fmt: skip


def fill_masked(counts: ScanCounts, found: Separation, squares: np.ndarray, deviance: np.ndarray, used: np.ndarray) -> None:
    """Maps of the masked pixels by least squares over the points they have; changes maps, mean, misfits and points used."""
    from scipy.optimize import nnls

    design, gain, variance = found.design, counts.noise.gain, counts.noise.variance
    for which, curves in counts.masked_curves():
        for pixel, curve in zip(which, curves.T, strict=True):
            known = np.isfinite(curve)
            used[pixel] = known.sum()
            if used[pixel] < design.shape[1]:
                values, rest = np.full(design.shape[1], np.nan), np.full(1, np.nan)
            else:
                scale = np.sqrt(found.weight[known])
                part, target = design[known] * scale[:, None], curve[known] * scale
                values = nnls(part, target)[0] if found.bounded else np.linalg.lstsq(part, target)[0]
                rest = (curve[known] - design[known] @ values) ** 2
            expected = design[known] @ values
            squares[pixel] = rest.sum()
            deviance[pixel] = (rest / (gain * np.maximum(expected, 0) + variance)).sum()
            if found.mean is not None:
                found.mean[pixel], values = values[0], values[1:]
            found.maps[:, pixel] = values
