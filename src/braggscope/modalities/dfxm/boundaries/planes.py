"""Planes among points: how many, where, and how well known.

One after the other by MSAC (Torr & Zisserman 2000, Comput. Vis. Image Underst. 78, 138): of the planes through three random
points the one with the least sum of min(r^2, T^2) / s^2, T = 1.96 s, s the scatter that the blur and the layers give at that
slope; it is refitted to its points, with a scatter of its own. It is kept while so many points in so thin a slab are no accident
(a contrario; Moisan & Stival 2004, Int. J. Comput. Vis. 57, 201): NFA = C(n, 3) P(k or more of n) below NFA_MOST. Then all planes
share the points anew, each point to the nearest, and two planes become one where the classification likelihood with the penalty
of Schwarz (BIC) prefers it. The fits are by total least squares; points that two planes could have had are left out of them.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom

from .errors import grouped_covariance
from .points import SIGMA

SAMPLES = 4000  # planes through three points that are tried
TRIED = 2000  # points, at most, that such a plane is measured on
NFA_MOST = 1e-3  # of planes that chance makes in one volume
INSIDE = 3.0  # standard deviations of its scatter within which a point may belong to a plane
WIDEST = 8.0  # times the scatter that blur and layers give: more is no plane
EXTENDED = 4.0  # scatters, at least, of the standard deviation of its points across: less is a line, not a plane
LEAST = 12  # points of a plane
MOST = 20  # planes
PARAMETERS = 5  # of a plane, with its scatter and share


@dataclass(frozen=True)
class Plane:
    """A plane n . (x - centre) = 0.

    axes: Unit vectors u, v in the plane and its normal n, rows, shape (3, 3); u is horizontal, v rises.
    scatter: Standard deviation of its points, um.
    covariance: Of slopes along u and v, and offset (um): the normal errs by -(a u + b v); shape (3, 3).
    """

    axes: np.ndarray
    centre: np.ndarray
    scatter: float
    covariance: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        """Unit normal."""
        return self.axes[2]

    def distance(self, place: np.ndarray) -> np.ndarray:
        """Signed distance of points, um."""
        return (place - self.centre) @ self.axes[2]

    def inside(self, place: np.ndarray) -> np.ndarray:
        """Coordinates u, v of points in the plane, um, shape (point, 2)."""
        return (place - self.centre) @ self.axes[:2].T

    def normal_covariance(self) -> np.ndarray:
        """Covariance of the normal, shape (3, 3)."""
        return self.axes[:2].T @ self.covariance[:2, :2] @ self.axes[:2]


def fitted(place: np.ndarray, weight: np.ndarray, group: np.ndarray | None = None, scatter: float | None = None) -> Plane:
    """The plane of least squared distances, its scatter and, with the groups of points that err together, its covariance.

    scatter: Left out, by the median absolute distance.
    """
    centre = weight @ place / weight.sum()
    away = place - centre
    _, vectors = np.linalg.eigh((weight[:, None] * away).T @ away)
    axes = in_plane_axes(vectors[:, 0])
    residual = away @ axes[2]
    covariance = np.full((3, 3), np.nan)
    if group is not None:
        design = np.column_stack([away @ axes[0], away @ axes[1], np.ones(len(away))])
        covariance = grouped_covariance(design, residual, weight, group)
    return Plane(axes, centre, scatter or SIGMA * float(np.median(np.abs(residual))), covariance)


def in_plane_axes(normal: np.ndarray) -> np.ndarray:
    """Rows u (horizontal), v (rising) and n of a plane, right-handed; n points up, or along +x where it is horizontal."""
    n = normal / np.linalg.norm(normal)
    first = next((c for c in n[::-1] if abs(c) > 1e-6), 1.0)  # its z, else y, else x
    n = n * np.sign(first)
    u = np.cross([0.0, 0.0, 1.0], n)
    u = np.array([1.0, 0.0, 0.0]) - n[0] * n if np.linalg.norm(u) < 1e-6 else u
    u = u / np.linalg.norm(u)
    return np.array([u, np.cross(n, u), n])


def find_planes(
    place: np.ndarray, weight: np.ndarray, sigma: np.ndarray, box: np.ndarray, independent: float, seed: int
) -> list[Plane]:
    """The planes among thinned points.

    sigma: Standard deviation of a point along x, y and z, by blur, pixels and layers, um.
    box: Edges of the volume, um, shape (3,).  independent: Share of the points that are independent of each other.
    """
    random = np.random.default_rng(seed)
    chance = random.uniform(0, box, (4000, 3)) + place.min(axis=0) - 1e-9
    left, found = np.ones(len(place), bool), list[Plane]()
    while len(found) < MOST and left.sum() >= LEAST:
        plane = _msac(place[left], weight[left], sigma, random)
        if plane is None or not _significant(plane, place[left], chance, independent):
            break
        found.append(plane)
        left &= np.abs(plane.distance(place)) > INSIDE * plane.scatter
    found = _shared_out(found, place, weight, sigma)
    while (fewer := _merged(found, place, weight, independent)) is not None:
        found = _shared_out(fewer, place, weight, sigma)
    return found


def assigned(planes: list[Plane], place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the plane of each point from 0 on, -1 for none, and whether no other plane could have it."""
    if not planes:
        return np.full(len(place), -1), np.zeros(len(place), bool)
    away = np.stack([np.abs(p.distance(place)) / p.scatter for p in planes], 1)
    label = np.where(away.min(axis=1) < INSIDE, away.argmin(axis=1), -1)
    return label, (away < INSIDE).sum(axis=1) == 1


def expected_scatter(normal: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Standard deviation of points about planes with these normals, shape (..., 3) -> (...)."""
    return np.sqrt(normal**2 @ sigma**2)


def _msac(place: np.ndarray, weight: np.ndarray, sigma: np.ndarray, random: np.random.Generator) -> Plane | None:
    """The best plane of those through three random points, refitted to its points."""
    corners = place[np.array([random.choice(len(place), 3, replace=False) for _ in range(SAMPLES)])]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    usable = length > 1e-9 * max(float(length.max()), 1e-300)
    normals, corners = normals[usable] / length[usable, None], corners[usable]
    some = random.choice(len(place), min(len(place), TRIED), replace=False)
    away = normals @ place[some].T - np.einsum("si,si->s", normals, corners[:, 0])[:, None]
    cost = np.minimum((away / expected_scatter(normals, sigma)[:, None]) ** 2, 1.96**2).sum(axis=1)
    best = [_refitted(normals[i], corners[i, 0], place, weight, sigma) for i in np.argsort(cost)[:5]]
    known = [p for p in best if p is not None]
    return min(known, key=lambda p: np.minimum((p.distance(place) / p.scatter) ** 2, 1.96**2).sum()) if known else None


def _refitted(normal: np.ndarray, centre: np.ndarray, place: np.ndarray, weight: np.ndarray, sigma: np.ndarray) -> Plane | None:
    """A plane fitted to its points, with its scatter from them, until both stay; None where no plane stays."""
    plane = Plane(in_plane_axes(normal), centre, float(expected_scatter(normal, sigma)), np.zeros((3, 3)))
    for _ in range(15):
        near = np.abs(plane.distance(place)) < INSIDE * plane.scatter
        if near.sum() < LEAST:
            return None
        plane = _bounded(fitted(place[near], weight[near]), sigma)
    return plane


def _bounded(plane: Plane, sigma: np.ndarray) -> Plane:
    """The plane with a scatter not below half of what blur and layers give, nor above WIDEST of it."""
    usual = float(expected_scatter(plane.normal, sigma))
    return Plane(plane.axes, plane.centre, float(np.clip(plane.scatter, usual / 2, WIDEST * usual)), plane.covariance)


def _significant(plane: Plane, place: np.ndarray, chance: np.ndarray, independent: float) -> bool:
    """Whether so many points in the slab of a plane are no accident, and spread over it rather than along a line."""
    near = np.abs(plane.distance(place)) < INSIDE * plane.scatter
    volume = max(float((np.abs(plane.distance(chance)) < INSIDE * plane.scatter).mean()), 1 / len(chance))
    n, k = independent * len(place), independent * near.sum()
    if n < 4 or near.sum() < LEAST or _spread(plane, place[near])[0] < EXTENDED * plane.scatter:
        return False
    triples = gammaln(n + 1) - gammaln(4) - gammaln(n - 2)
    return float(triples + binom.logsf(math.floor(k) - 1, math.ceil(n), volume)) < math.log(NFA_MOST)


def _spread(plane: Plane, place: np.ndarray) -> np.ndarray:
    """Standard deviations of points along the two main directions in the plane, um, the smaller first."""
    return np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(plane.inside(place).T)), 0))


def _shared_out(planes: list[Plane], place: np.ndarray, weight: np.ndarray, sigma: np.ndarray) -> list[Plane]:
    """All planes fitted to the points that are theirs alone, until nothing moves; those that are left too few points go."""
    before = np.full(len(place), -2)
    for _ in range(30):
        label, alone = assigned(planes, place)
        mine = [(label == k) & alone for k in range(len(planes))]
        planes = [_bounded(fitted(place[m], weight[m]), sigma) for m in mine if m.sum() >= LEAST]
        if np.array_equal(label, before):
            break
        before = label
    return planes


def _merged(planes: list[Plane], place: np.ndarray, weight: np.ndarray, independent: float) -> list[Plane] | None:
    """The planes with the two that are most likely one made one; None where all are better apart.

    Classification likelihood of a plane with n_k points: n_k [ln n_k - ln s_k - ln A_k], A_k the area of its points, s_k scatter.
    """
    label, _ = assigned(planes, place)

    def gain(members: np.ndarray) -> tuple[float, Plane]:
        plane = fitted(place[members], weight[members])
        s = max(float(np.sqrt(np.mean(plane.distance(place[members]) ** 2))), 1e-6)
        area = max(float(np.prod(_spread(plane, place[members]))), 1e-12)
        n = independent * members.sum()
        return n * (math.log(n) - math.log(s) - math.log(area)), plane

    best: tuple[float, int, int, Plane] | None = None
    for i, j in itertools.combinations(range(len(planes)), 2):
        a, b = label == i, label == j
        if min(a.sum(), b.sum()) < 3:
            continue
        joint, plane = gain(a | b)
        better = joint - gain(a)[0] - gain(b)[0] + 0.5 * PARAMETERS * math.log(independent * len(place))
        if better > 0 and (best is None or better > best[0]):
            best = better, i, j, plane
    if best is None:
        return None
    return [p for k, p in enumerate(planes) if k not in best[1:3]] + [best[3]]
