"""Strong beam and weak beams of a scan: where they lie along a motor, which pixels show them, and what each pixel has of them.

The strong beam is where most of the crystal reflects: the peak of the median of the pixels' curves, FLANK of its widths to either
side; of a scan that ends before that on some side, its half maximum. A pixel's light below it (minus), in it and above it (plus)
says where the weight of its curve lies.
"""

from __future__ import annotations

import math
import re

import numpy as np

from braggscope.core.errors import InputError

from .scan_counts import ScanCounts

FLANK = 2.0  # widths of the strong beam's peak from where on light is weak-beam light
HALF = math.sqrt(2 * math.log(2))  # half width at half maximum of a Gaussian, in widths
SIGNIFICANT = 5.0  # standard deviations of the total below which a pixel has no light
FITTED = 2**16  # pixels, at most, on which clusters are sought
SCALE = 3.0  # standard deviations of a dark count at which counts begin to be taken by their logarithm
BEAMS = ("strong", "minus", "plus")


def log_counts(counts: np.ndarray, scale: float) -> np.ndarray:
    """arsinh(y / s): ln(2 y / s) for counts far above s, y / s within the noise, where a logarithm would not exist.

    counts: y, above the level.  scale: s.

    >>> log_counts(np.array([-1.0, 0.0, 1e6]), 10.0).round(3).tolist()
    [-0.1, 0.0, 12.206]
    """
    return np.arcsinh(counts / scale)


def strong_beam(curves: np.ndarray, positions: np.ndarray) -> tuple[float, float]:
    """Mean and width of the peak of the median curve along a motor, in its unit.

    curves: Of pixels that have light, above the level, shape (point, pixel).
    positions: Of the motor, shape (point,); points at the same position are added, those at each end of the scan included.
    """
    places, which = np.unique(positions, return_inverse=True)
    along = np.array([np.bincount(which, curve, len(places)) for curve in curves.T])
    curve = np.median(along / np.maximum(along.sum(axis=1, keepdims=True), 1e-300), axis=0)
    peak = int(curve.argmax())
    below, above = curve[: peak + 1][::-1] < curve[peak] / 2, curve[peak:] < curve[peak] / 2
    reach = [int(side.argmax()) if side.any() else len(side) - 1 for side in (below, above)]
    first, last = max(0, peak - 2 * reach[0]), min(len(places), peak + 2 * reach[1] + 1)
    weight, x = np.maximum(curve[first:last], 0), places[first:last]
    mean = float(weight @ x / weight.sum())
    return mean, max(float(np.sqrt(weight @ (x - mean) ** 2 / weight.sum())), float(np.ptp(places)) / (2 * len(places)))


def flanks(centre: float, width: float, positions: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Half the range of the strong beam, in the motor's unit, and which points lie below and above it.

    FLANK widths, or what is within half of the peak's maximum where the scan does not reach beyond that on both sides.
    """
    for reach in (FLANK * width, HALF * width):
        sides = [positions < centre - reach, positions > centre + reach]
        if all(side.any() for side in sides):
            break
    return reach, sides


def clusters(light: np.ndarray, lit: np.ndarray) -> np.ndarray:
    """Region of each pixel, 0 strong, 1 minus, 2 plus and -1 without light, by k-means on where its light lies.

    light: Parts of the light below and above the strong beam, shape (2, pixel).  lit: Whether it has light, shape (pixel,).
    """
    from sklearn.cluster import KMeans

    start = np.array([[0.0, 0.0], [0.8, 0.0], [0.0, 0.8]])
    points = np.clip(light[:, lit].T, 0, 1)
    model = KMeans(3, init=start, n_init=1).fit(points[:: max(1, len(points) // FITTED)])
    region = np.full(light.shape[1], -1)
    region[lit] = model.predict(points)
    return region


def given_regions(boxes: tuple[str, str, str], frame_shape: tuple[int, int]) -> np.ndarray:
    """Region of each pixel (as in `clusters`) from boxes "ROW:ROW,COLUMN:COLUMN", stops not included; a later box wins."""
    region = np.full(frame_shape, -1)
    for number, (name, box) in enumerate(zip(BEAMS, boxes, strict=True)):
        found = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+)", box.replace(" ", ""))
        if found is None:
            raise InputError(f"region {name} must be START:STOP,START:STOP of rows and columns, got '{box}'")
        top, bottom, left, right = map(int, found.groups())
        if not (top < bottom <= frame_shape[0] and left < right <= frame_shape[1]):
            size = f"{frame_shape[0]} rows x {frame_shape[1]} columns"
            raise InputError(f"region {name} must lie inside the frame of {size} as START:STOP,START:STOP, got '{box}'")
        region[top:bottom, left:right] = number
    return region.ravel()


def profiles(counts: ScanCounts, region: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the logarithmic counts, and of the counts, over the pixels of each region, shape (region, point) each."""
    logs, plain = np.zeros((3, counts.points)), np.zeros((3, counts.points))
    members = np.array([region == k for k in range(3)], float)
    members /= np.maximum(members.sum(axis=1, keepdims=True), 1)
    for at, where, tile in counts.tiles():
        plain[:, at] += members[:, where] @ tile.T
        logs[:, at] += members[:, where] @ log_counts(tile, scale).T
    return logs, plain


def orthonormal(vectors: np.ndarray) -> np.ndarray:
    """Gram-Schmidt: unit vectors of the rows, each less its projection on those before it.

    Raises InputError where one of them is a sum of the others.
    """
    found: list[np.ndarray] = []
    for name, vector in zip(BEAMS, vectors, strict=True):
        rest = vector - sum((e * (e @ vector) for e in found), np.zeros_like(vector))
        length = float(np.linalg.norm(rest))
        if not length > 1e-6 * float(np.linalg.norm(vectors)):
            raise InputError(f"the rocking profile of region {name} does not differ from those before it; give other regions")
        found.append(rest / length)
    return np.array(found)


def projections(counts: ScanCounts, directions: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithmic counts of each pixel along each direction and the variance of that, shape (direction, pixel), and their square.

    The variance is that of the counts, gain y + variance, times the squared slope of the logarithm, 1 / (y^2 + s^2).
    """
    along, squares = np.zeros((2, len(directions), counts.pixels)), np.zeros(counts.pixels)
    noise = counts.noise
    weights = directions**2

    def work(at: np.ndarray, where: slice, tile: np.ndarray) -> None:
        logs = log_counts(tile, scale)
        along[0][:, where] += directions[:, at] @ logs
        squares[where] += (logs**2).sum(axis=0)
        logs[...] = (noise.gain * np.maximum(tile, 0) + noise.variance) / (tile**2 + scale**2)
        along[1][:, where] += weights[:, at] @ logs

    counts.over(work)
    return along[0], along[1], squares


def weak_angle(strong: np.ndarray, minus: np.ndarray, plus: np.ndarray) -> np.ndarray:
    """Angle between the strong beam and what a pixel has of the weak ones, deg: 0 strong beam alone, 90 weak beams alone."""
    return np.degrees(np.arctan2(np.hypot(np.maximum(minus, 0), np.maximum(plus, 0)), np.maximum(strong, 0)))


def half_light(plain: np.ndarray, directions: np.ndarray, scale: float, total: float) -> float:
    """Angle of a pixel that has half of its light from the strong beam and half from a weak one, mean over both sides, deg.

    plain: Mean curve of each region, shape (region, point).  total: Counts of the pixel.
    """
    light = np.maximum(plain, 0) / np.maximum(plain, 0).sum(axis=1, keepdims=True)
    mixed = [directions @ log_counts(total * (light[0] + light[side]) / 2, scale) for side in (1, 2)]
    return float(np.mean([weak_angle(*one) for one in mixed]))
