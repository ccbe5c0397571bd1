"""Dislocations in a wall: direction and spacing of the parallel lines among the points of a plane.

Found by the periodogram |sum_j w_j exp(2 pi i k . r_j)|^2 of the points over angle and frequency at once (Schuster 1898; what a
Fourier transform of the profiles of 360 rotations shows, without rotating), with the second and third harmonic added at 1/2 and
1/3 of their power, so that neither a harmonic nor half the frequency wins. Frequencies below three periods in the wall are its
outline, those above half of the layers' own an alias of them. Then measured by regression: points are counted to the line they
lie on, and all lines share one direction but have each a place of its own, from which the spacing follows.

Two probabilities: that there are lines (the peak against the power at the same |k| in all directions), and that they are evenly
spaced (Schuster's R^2 = J |mean exp(2 pi i x / d)|^2 of J lines, against lines at random places).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import fft2, fftfreq

from .errors import grouped_covariance, tiles
from .planes import Plane

GRID = 512  # points along a side of the periodogram at least, so that a peak is wider than their distance
PERIODS = 3.0  # in the wall, at least
HARMONICS = 3
NEAR = 0.35  # of a spacing, about a line, within which points are taken to be on it
CERTAIN = 0.9999  # that there are lines; true ones are far above
EVEN = 0.9  # that they are evenly spaced
STEPS = 8  # of the regression


@dataclass(frozen=True)
class Lines:
    """Lines in a plane.

    angle: From u towards v, rad; angle_std.  spacing, spacing_std: um.  phase: Of a line at place 0 across, in spacings.
    lines: How many carry points.  probability: That there are lines.  even: That they are evenly spaced.
    power, frequency: The periodogram over (u, v), relative to its median at the same |k|, and its axes, 1/um.
    peak: (u, v) of its maximum, 1/um.
    """

    angle: float = math.nan
    angle_std: float = math.nan
    spacing: float = math.nan
    spacing_std: float = math.nan
    phase: float = math.nan
    lines: int = 0
    probability: float = 0.0
    even: float = 0.0
    power: np.ndarray | None = None
    frequency: np.ndarray | None = None
    peak: tuple[float, float] = (math.nan, math.nan)

    def across(self, inside: np.ndarray) -> np.ndarray:
        """Places of points across the lines, um."""
        return inside @ np.array([-math.sin(self.angle), math.cos(self.angle)])

    def number(self, inside: np.ndarray) -> np.ndarray:
        """Number of the line that is nearest to each point."""
        return np.rint(self.across(inside) / self.spacing - self.phase).astype(int)

    def groups(self, inside: np.ndarray) -> np.ndarray:
        """Points that err together: those of one line, or of one tile of a wall without lines."""
        return self.number(inside) if self.probability >= CERTAIN else tiles(inside[:, 0], inside[:, 1])


def find_lines(plane: Plane, place: np.ndarray, weight: np.ndarray, blur: float, step: float) -> Lines:
    """The parallel lines among the points of a plane.

    blur: Standard deviation of a point across a line, um.  step: Distance of the layers, um.
    """
    inside = plane.inside(place)
    bounds = _bounds(plane, inside, blur, step)
    power, frequency = periodogram(inside, weight, bounds[1])
    k_u, k_v = np.meshgrid(frequency, frequency, indexing="ij")
    searched = _searched(k_u, k_v, inside, bounds, power.shape)
    if not searched.any():
        return Lines()
    level = _level(power, np.hypot(k_u, k_v), searched)
    relative = np.where(searched, power / level, 0.0)
    best = np.unravel_index(np.argmax(_with_harmonics(power, searched)), power.shape)
    peak = float(k_u[best]), float(k_v[best])
    area = float(np.ptp(inside[:, 0]) * np.ptp(inside[:, 1]))
    trials = max(1.0, area * float(searched.sum()) * float(frequency[1] - frequency[0]) ** 2)
    chance = -math.expm1(trials * math.log1p(-min(math.exp(-float(relative[best])), 1 - 1e-15)))
    found = Lines(probability=1 - chance, power=_centred(relative), frequency=_centred(frequency), peak=peak)
    return found if found.probability < CERTAIN else _measured(found, inside, weight, bounds[1])


def periodogram(inside: np.ndarray, weight: np.ndarray, highest: float) -> tuple[np.ndarray, np.ndarray]:
    """Power of points in a plane over (k_u, k_v), shape (k, k), and the frequencies, 1/um, in the order of an FFT.

    By an image of the points whose pixels are a sixth of the shortest period.
    """
    pixel = 1 / (6 * highest)
    size = max(GRID, 2 ** math.ceil(math.log2(2 * float(np.ptp(inside, axis=0).max()) / pixel + 1)))
    at = np.floor((inside - inside.min(axis=0)) / pixel).astype(int)
    image = np.bincount(at[:, 0] * size + at[:, 1], weight, size * size).reshape(size, size)
    return np.abs(fft2(image)) ** 2, fftfreq(size, pixel)


def _bounds(plane: Plane, inside: np.ndarray, blur: float, step: float) -> tuple[float, float]:
    """Highest frequency along v that the layers allow, and highest of all, 1/um."""
    rise = math.hypot(plane.axes[1, 2], 1e-9) / step  # layers per um along v
    return 0.45 * rise if rise > 1e-3 else math.inf, 1 / (4 * blur)


def _searched(
    k_u: np.ndarray, k_v: np.ndarray, inside: np.ndarray, bounds: tuple[float, float], shape: tuple[int, ...]
) -> np.ndarray:
    """Where a peak may lie: half of the plane, for the other half is the same, without outline and aliases."""
    spread = 12 * np.cov(inside.T)  # squared lengths of a wall of even density
    periods = spread[0, 0] * k_u**2 + 2 * spread[0, 1] * k_u * k_v + spread[1, 1] * k_v**2
    half = (k_u > 0) | ((k_u == 0) & (k_v > 0))
    return half & (periods > PERIODS**2) & (np.abs(k_v) < bounds[0]) & (np.hypot(k_u, k_v) < bounds[1])


def _level(power: np.ndarray, k: np.ndarray, searched: np.ndarray) -> np.ndarray:
    """Mean power at the same |k| in all directions, from the median: of power without a peak that is ln 2 of the mean."""
    edges = np.quantile(k[searched], np.linspace(0, 1, 13))
    ring = np.clip(np.searchsorted(edges, k, side="right") - 1, 0, len(edges) - 2)
    level = np.array([np.median(power[searched & (ring == n)]) if (searched & (ring == n)).any() else np.nan for n in range(12)])
    level = np.where(np.isfinite(level), level, np.nanmedian(level)) / math.log(2)
    return np.maximum(level, 1e-300)[ring]


def _with_harmonics(power: np.ndarray, searched: np.ndarray) -> np.ndarray:
    """The power with that at twice and three times the frequency, half and a third of it, where it was searched; else 0."""
    total = np.where(searched, power, 0.0)
    n = power.shape[0]
    rows, columns = np.nonzero(searched)
    signed = [np.where(i < n // 2, i, i - n) for i in (rows, columns)]
    for times in range(2, HARMONICS + 1):
        at = [times * s for s in signed]
        inside = np.max(np.abs(at), axis=0) < n // 2
        r, c = (np.where(inside, a, 0) % n for a in at)
        known = inside & (searched[r, c] | searched[-r % n, -c % n])
        total[rows, columns] += np.where(known, power[r, c], 0.0) / times
    return total


def _measured(found: Lines, inside: np.ndarray, weight: np.ndarray, highest: float) -> Lines:
    """Direction, spacing and evenness by regression on the lines that the periodogram shows."""
    k = np.array(found.peak)
    spacing = 1 / float(np.linalg.norm(k))
    angle = math.atan2(-k[0], k[1])  # across the lines is (-sin, cos), along k
    turned = replace(found, angle=angle, spacing=spacing, phase=_phase(k, inside, weight) / (2 * math.pi))
    slope_std = math.nan
    for _ in range(STEPS):
        x, s = turned.across(inside), inside @ np.array([math.cos(turned.angle), math.sin(turned.angle)])
        line = turned.number(inside)
        near = np.abs(x / turned.spacing - turned.phase - line) < NEAR
        name, which = np.unique(line[near], return_inverse=True)
        w, x, s = weight[near], x[near], s[near]
        total = np.bincount(which, w)
        x_mean, s_mean = np.bincount(which, w * x) / total, np.bincount(which, w * s) / total
        dx, ds = x - x_mean[which], s - s_mean[which]
        slope = float((w * ds) @ dx / ((w * ds) @ ds))
        slope_std = float(np.sqrt(grouped_covariance(ds[:, None], dx - slope * ds, w, which)[0, 0]))
        held = total > 0.1 * np.median(total)
        if held.sum() < 3:
            break
        places = x_mean - slope * s_mean
        spacing, phase, spacing_std = _spaced(name[held], places[held], s_mean[held], slope_std)
        turned = replace(turned, angle=turned.angle + math.atan(slope), angle_std=slope_std, spacing=spacing, phase=phase,
                         spacing_std=spacing_std, lines=int(held.sum()))  # fmt: skip
    return replace(turned, even=_evenness(turned, inside, weight, name[held], highest), angle=_upwards(turned.angle),
                   phase=turned.phase * (1 if _upwards(turned.angle) == turned.angle else -1))  # fmt: skip


def _upwards(angle: float) -> float:
    """The same direction of a line, between 0 and pi: it rises, as v does."""
    turned = math.remainder(angle, 2 * math.pi)
    return turned if 0 <= turned < math.pi else turned + math.pi if turned < 0 else turned - math.pi


def _phase(k: np.ndarray, inside: np.ndarray, weight: np.ndarray) -> float:
    return float(np.angle(weight @ np.exp(2j * np.pi * inside @ k)))


def _spaced(number: np.ndarray, place: np.ndarray, along: np.ndarray, slope_std: float) -> tuple[float, float, float]:
    """Spacing of the lines, phase in spacings, and standard deviation of the spacing.

    That is from leaving out one line after the other, and from the error of their direction, where the middles of the lines, at
    `along`, lie on a slant.
    """
    n = number - number.mean()
    spacing = float(n @ place / (n @ n))
    start = float(place.mean() - spacing * number.mean())
    residual = place - start - spacing * number
    scatter = grouped_covariance(np.column_stack([n, np.ones(len(n))]), residual, np.ones(len(n)), number)[0, 0]
    return spacing, start / spacing, math.hypot(math.sqrt(scatter), slope_std * float(n @ along) / float(n @ n))


def _evenness(lines: Lines, inside: np.ndarray, weight: np.ndarray, held: np.ndarray, highest: float) -> float:
    """Probability that the lines are evenly spaced: (1 - exp(-R^2))^M, R^2 of the J lines held, M the frequencies searched.

    Every line counts alike, by the phase of its points among multiples of the spacing: neither its length nor its width matters.
    """
    turns = lines.across(inside) / lines.spacing
    line = np.rint(turns - lines.phase).astype(int)
    phasor = [weight[line == n] @ np.exp(2j * np.pi * turns[line == n]) for n in held]
    resultant = float(np.abs(np.mean([p / max(abs(p), 1e-300) for p in phasor])))
    trials = max(1.0, highest * len(held) * lines.spacing)
    return float((1 - math.exp(-len(held) * resultant**2)) ** trials)


def _centred(values: np.ndarray) -> np.ndarray:
    return np.fft.fftshift(values)
