"""Where boundaries meet: the lines in which their planes cut each other, and the angles between the half-planes there.

Two walls meet where both have points beside the line that their planes share; of each it is seen on which side of the line it
goes on. The angle between two half-planes is that of the normals or its supplement, with its error from those of the normals.
Lines of several pairs that are one within their errors and the spacing of the dislocations are one junction.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from .planes import Plane

BINS = 12  # along the line, to see over how much of it a wall reaches it
PARALLEL = math.sin(math.radians(2.0))  # planes closer than that share no line that is known
ASIDE = 0.15  # share of the points beside the line on the other side from which on a wall goes through
SAME_DEG, SIGMAS = 5.0, 4.0  # between the lines of pairs that are one junction


@dataclass(frozen=True)
class Meeting:
    """Two walls that meet, numbers a and b.

    place, direction: Of the line.  angle, angle_std: Between their half-planes, rad.  through: Whether a wall goes on beyond it.
    length: Over which both walls reach the line, um.
    """

    a: int
    b: int
    place: np.ndarray
    direction: np.ndarray
    angle: float
    angle_std: float
    through: bool
    length: float


def meetings(planes: list[Plane], places: list[np.ndarray], reach: list[float]) -> list[Meeting]:
    """The pairs of walls that meet.

    places: Of the points of each wall, um.  reach: How far from the line a wall may end and still meet the other, um.
    """
    found = [_meeting(planes, places, reach, i, j) for i, j in itertools.combinations(range(len(planes)), 2)]
    return [one for one in found if one is not None]


def _meeting(planes: list[Plane], places: list[np.ndarray], reach: list[float], i: int, j: int) -> Meeting | None:
    """How two walls meet, None where they do not."""
    a, b = planes[i], planes[j]
    direction = np.cross(a.normal, b.normal)
    sine = float(np.linalg.norm(direction))
    if sine < PARALLEL:
        return None
    direction = direction / sine * (np.sign(direction[2]) or 1.0)
    limits = np.array([a.normal @ a.centre, b.normal @ b.centre])
    rows = np.vstack([a.normal, b.normal, direction])
    place = np.linalg.solve(rows, [*limits, direction @ (a.centre + b.centre) / 2])
    sides, along = [], []
    for k in (i, j):
        away = np.cross(direction, planes[k].normal)
        distance, at = (places[k] - place) @ away, (places[k] - place) @ direction
        near = np.abs(distance) < reach[k] + (planes[i].scatter + planes[j].scatter) * 3 / sine
        if near.sum() < 10:
            return None
        along.append(at[near])
        beyond = float((distance > 0).mean())
        sides.append((away if beyond > 0.5 else -away, ASIDE < beyond < 1 - ASIDE))
    shared = _shared(along)
    if shared is None:
        return None
    cosine = float(sides[0][0] @ sides[1][0])
    through = bool(sides[0][1] or sides[1][1])
    angle = math.atan2(float(np.linalg.norm(np.cross(sides[0][0], sides[1][0]))), abs(cosine) if through else cosine)
    return Meeting(i, j, place + shared[0] * direction, direction, angle, _angle_std(a, b, direction), through, shared[1])


def _shared(along: list[np.ndarray]) -> tuple[float, float] | None:
    """Middle and length of the piece of the line that both walls reach; None where that is less than a third of the shorter."""
    low, high = max(x.min() for x in along), min(x.max() for x in along)
    if not high > low:
        return None
    edges = np.linspace(low, high, BINS + 1)
    both = np.all([np.histogram(x, edges)[0] > 0 for x in along], axis=0)
    length = float(both.mean() * (high - low))
    return ((low + high) / 2, length) if length > min(float(np.ptp(x)) for x in along) / 3 else None


def _angle_std(a: Plane, b: Plane, direction: np.ndarray) -> float:
    """Standard deviation of the angle between two planes: of both normals about the line that they share."""
    turns = [np.cross(direction, p.normal) for p in (a, b)]
    return math.sqrt(sum(float(t @ p.normal_covariance() @ t) for t, p in zip(turns, (a, b), strict=True)))


def numbered(found: list[Meeting], reach: float) -> list[int]:
    """Number of the junction of each pair, from 1 on: pairs whose lines are one belong together."""
    number: list[int] = []
    for n, one in enumerate(found):
        beside = [(k, other) for k, other in zip(number, found[:n], strict=True) if {one.a, one.b} & {other.a, other.b}]
        same = [k for k, other in beside if _one_line(one, other, reach)]
        number.append(same[0] if same else max(number, default=0) + 1)
    return number


def _one_line(one: Meeting, other: Meeting, reach: float) -> bool:
    """Whether the lines of two pairs are the same: within `reach` over the length that they share."""
    cross = float(np.linalg.norm(np.cross(one.direction, other.direction)))
    errors = [float(np.nan_to_num(m.angle_std)) / max(math.sin(m.angle), PARALLEL) for m in (one, other)]
    limit = max(math.radians(SAME_DEG), SIGMAS * math.hypot(*errors))
    apart = other.place - one.place
    apart = apart - (apart @ one.direction) * one.direction
    return math.asin(min(1.0, cross)) < limit and float(np.linalg.norm(apart)) < reach
