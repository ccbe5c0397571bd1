"""Registration of two maps of grains: the turn, scale, shift and mirror that lay the boundaries of one over those of the other.

Boundaries are blurred to a part of a grain, so that those near each other count, and compared by their normalised correlation. A
search over turns and scales takes the best shift of each by masked phase correlation (Padfield 2012, IEEE Trans. Image Process.
21, 2706; scikit-image), the best few are refined together in shift, turn and scale by the simplex method.

A point at p (um, from the middle of the one map) lies at t + s R(a) M p in the other (from its middle), R a turn from x towards
y and M the mirror x -> -x, where there is one. Left out: shear and distortion, which maps of EBSD at high tilt have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.optimize import minimize

BLUR = 0.15  # of a grain size
TRIED = 4  # placements that are refined
APART_DEG = 20.0  # turn between placements that are different ones
LARGEST = 160  # points along a side of the images of the search
LEAST_OVERLAP = 0.5  # of the smaller map


@dataclass(frozen=True)
class Placement:
    """Where points of one map lie in another (see the module).

    shift_um: t along y and x.  turn_deg: a.  scale: s.  mirror: Whether x is reversed first.
    """

    shift_um: tuple[float, float]
    turn_deg: float
    scale: float
    mirror: bool

    def places(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in the other map of points of the one, um from the middles; shapes broadcast."""
        angle, x = math.radians(self.turn_deg), -x if self.mirror else x
        c, s = self.scale * math.cos(angle), self.scale * math.sin(angle)
        return self.shift_um[0] + s * x + c * y, self.shift_um[1] + c * x - s * y


@dataclass(frozen=True, eq=False)
class Labelled:
    """A map of labels: 0 for none, shape (y, x), and its steps, um."""

    label: np.ndarray
    steps: tuple[float, float]

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """y as a column and x as a row, um from the middle."""
        y, x = (step * (np.arange(n) - (n - 1) / 2) for n, step in zip(self.label.shape, self.steps, strict=True))
        return y[:, None], x[None]

    @property
    def grain_size(self) -> float:
        """Root of the mean area of a label, um."""
        return math.sqrt((self.label > 0).sum() * math.prod(self.steps) / len(np.unique(self.label[self.label > 0])))

    def indices(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Fractional rows and columns of places, shape (2, ...)."""
        return np.stack([v / step + (n - 1) / 2 for v, step, n in zip((y, x), self.steps, self.label.shape, strict=True)])


def registered(
    one: Labelled,
    other: Labelled,
    *,
    turns_deg: Sequence[float],
    within_deg: float,
    scale: float,
    scale_within: float,
    mirror: bool,
) -> tuple[Placement, float, float]:
    """How the one map lies in the other, the correlation of the boundaries, and that of the best placement turned otherwise.

    turns_deg: Turns around which to search.  within_deg: How far.  scale: Expected.  scale_within: Relative, how far from it.
    Returns NaN as the last value where no other turn was tried.
    """
    blur = BLUR * min(one.grain_size, other.grain_size / scale)
    images = [_boundaries(each, blur * s) for each, s in ((one, 1.0), (other, scale))]
    found = []
    for base in turns_deg:
        best: list[tuple[float, Placement]] = []
        for turn in base + _spaced(within_deg, math.degrees(blur / (max(_spans(one)) / 2))):
            for factor in scale * (1 + _spaced(scale_within, blur / (max(_spans(one)) / 2))):
                shift = _best_shift(one, other, images, turn, factor, mirror)
                placed = Placement(shift, float(turn), float(factor), mirror)
                best.append((_agreement(one, other, images, placed), placed))
        best.sort(key=lambda pair: -pair[0])
        found += [_refined(one, other, images, placed, scale_within > 0, within_deg > 0) for _, placed in best[:TRIED]]
    score, chosen = max(found, key=lambda pair: pair[0])
    rest = [s for s, p in found if abs((p.turn_deg - chosen.turn_deg + 180) % 360 - 180) > APART_DEG]
    return chosen, score, max(rest, default=math.nan)


def sampled(values: np.ndarray, other: Labelled, y: np.ndarray, x: np.ndarray, fill: float) -> np.ndarray:
    """Values of the other map at places, each from the nearest point; `fill` outside.

    values: Shape (y, x, ...).
    """
    index = np.rint(other.indices(y, x)).astype(int)
    inside = np.logical_and.reduce([(i >= 0) & (i < n) for i, n in zip(index, other.label.shape, strict=True)])
    found = values[np.where(inside, index[0], 0), np.where(inside, index[1], 0)].copy()
    found[~inside] = fill
    return found


def edges(label: np.ndarray) -> np.ndarray:
    """Points with a neighbour of another label along y or x, both with one, shape (y, x)."""
    found = np.zeros(label.shape, bool)
    for axis in (0, 1):
        here, line = np.moveaxis(found, axis, 0), np.moveaxis(label, axis, 0)
        apart = (line[1:] != line[:-1]) & (line[1:] > 0) & (line[:-1] > 0)
        here[1:] |= apart
        here[:-1] |= apart
    return found


def _boundaries(one: Labelled, blur: float) -> tuple[np.ndarray, np.ndarray]:
    """Blurred boundaries and the points where they are known."""
    known = (one.label > 0).astype(float)
    sigma = [max(blur / step, 0.5) for step in one.steps]
    share = gaussian_filter(known, sigma, mode="constant")
    return gaussian_filter(edges(one.label).astype(float), sigma, mode="constant") / np.maximum(share, 1e-9), known


def _spans(one: Labelled) -> tuple[float, ...]:
    return tuple(n * step for n, step in zip(one.label.shape, one.steps, strict=True))


def _spaced(within: float, step: float) -> np.ndarray:
    """Values from -within to within, evenly, at most twice a step apart; 0 among them."""
    count = math.ceil(within / (2 * step) - 1e-9)
    return np.linspace(-within, within, 2 * count + 1) if count else np.zeros(1)


def _best_shift(
    one: Labelled, other: Labelled, images: Sequence[tuple[np.ndarray, np.ndarray]], turn: float, scale: float, mirror: bool
) -> tuple[float, float]:
    """The shift, um in the other map, for a turn and scale: phase correlation on a common grid along the axes of the other."""
    from skimage.registration import phase_cross_correlation

    placed = Placement((0.0, 0.0), turn, scale, mirror)
    tall, wide = (span / 2 for span in _spans(one))
    corners = np.abs(placed.places(np.array([tall, tall]), np.array([wide, -wide])))  # the other two are opposite
    half = [max(float(c.max()), s / 2) for c, s in zip(corners, _spans(other), strict=True)]
    pixel = max(min(*one.steps, *other.steps) * scale, 2 * max(half) / LARGEST)
    y, x = (np.arange(-(n := math.ceil(h / pixel)), n + 1) * pixel for h in half)
    y, x = y[:, None], x[None]
    back = Placement((0.0, 0.0), turn if mirror else -turn, 1 / scale, mirror)  # a mirror undoes itself and reverses turns
    pictures, masks = [], []
    for each, (image, known), places in ((other, images[1], (y, x)), (one, images[0], back.places(y, x))):
        index = each.indices(*np.broadcast_arrays(*places))
        pictures.append(map_coordinates(image, index, order=1, cval=0.0))
        masks.append(map_coordinates(known, index, order=0, cval=0.0) > 0.5)
    if not all(mask.any() for mask in masks):
        return 0.0, 0.0
    shift = phase_cross_correlation(*pictures, reference_mask=masks[0], moving_mask=masks[1], overlap_ratio=LEAST_OVERLAP)[0]
    return float(shift[0] * pixel), float(shift[1] * pixel)


def _agreement(one: Labelled, other: Labelled, images: Sequence[tuple[np.ndarray, np.ndarray]], placed: Placement) -> float:
    """Normalised correlation of the blurred boundaries over the points in common; -1 where too few are."""
    index = other.indices(*placed.places(*one.places))
    there = map_coordinates(images[1][0], index, order=1, cval=np.nan)
    common = (one.label > 0) & np.isfinite(there)
    least = LEAST_OVERLAP * min(
        (one.label > 0).sum(), (other.label > 0).sum() * math.prod(other.steps) / placed.scale**2 / math.prod(one.steps)
    )
    if common.sum() < max(least, 3):
        return -1.0
    a, b = images[0][0][common], there[common]
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / math.sqrt(max((a @ a) * (b @ b), 1e-300)))


def _refined(
    one: Labelled, other: Labelled, images: Sequence[tuple[np.ndarray, np.ndarray]], start: Placement, scaled: bool, turned: bool
) -> tuple[float, Placement]:
    """The placement of the best agreement near another one."""
    size = one.grain_size
    arm = max(_spans(one)) / 2  # a turn or a scale moves the edge by this much
    free = [True, True, turned, scaled]
    units = np.array([size, size, size / arm, size / arm]) / 4

    def moved(p: np.ndarray) -> Placement:
        step = np.zeros(4)
        step[free] = p
        dy, dx, turn, grown = step * units
        y, x = start.shift_um
        return Placement((y + dy, x + dx), start.turn_deg + math.degrees(turn), start.scale * math.exp(grown), start.mirror)

    corners = np.vstack([np.zeros(sum(free)), np.eye(sum(free))])
    best = minimize(
        lambda p: -_agreement(one, other, images, moved(p)), corners[0], method="Nelder-Mead",
        options={"initial_simplex": corners, "xatol": 1e-2, "fatol": 1e-5, "maxiter": 300},
    )  # fmt: skip
    return -float(best.fun), moved(best.x)
