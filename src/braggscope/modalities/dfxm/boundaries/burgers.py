"""Burgers vectors of walls by Frank's rule.

Frank's equation for one row of parallel dislocations, V x w = b (N . V) with N = n x t / d for every V in the wall (Hirth &
Lothe 1982, sec. 19-2), has one solution: the lattice turns about the lines, w = theta t, and |b| = theta d along n: the Burgers
vector lies along the normal of the wall. Measured are n, t and d; theta where it is given, else it follows from each candidate,
theta = |b| / d.

Candidates are the Burgers vectors of the structure. Their probability is that of the angle between b and n and of the angle
between the lines and those of edge dislocations, b x m, over the slip planes m that hold b: each Gaussian, of the measured error
and the `tolerance` by which real walls deviate from such a wall; and, with a given theta, of the length theta d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError
from braggscope.physics.slip_systems import SlipSystem, slip_systems

LENGTH_TOLERANCE = 0.1  # of theta d, relative: dislocations that do not shine, or shine as one
SKEW = 1e-3  # of a matrix that is to be a rotation


@dataclass(frozen=True)
class Candidate:
    """A Burgers vector of the structure, crystal axes, in lattice parameters; its name; and the normals of its slip planes."""

    name: str
    burgers: np.ndarray
    planes: np.ndarray

    @property
    def length(self) -> float:
        """|b| in lattice parameters."""
        return float(np.linalg.norm(self.burgers))


def candidates(structure: str, c_over_a: float | None = None) -> list[Candidate]:
    """The Burgers vectors of a structure, each once. Raises InputError for hcp without a ratio c/a."""
    try:
        systems = slip_systems(structure, c_over_a=c_over_a)
    except ValueError as error:
        raise InputError(str(error)) from None
    grouped: dict[tuple[float, ...], list[SlipSystem]] = {}
    for one in systems:
        grouped.setdefault(tuple(np.round(one.burgers, 9)), []).append(one)
    return [
        Candidate(_direction(s[0], structure), np.array(s[0].burgers), np.array([o.normal for o in s])) for s in grouped.values()
    ]


def crystal_orientation(values: tuple[float, ...]) -> np.ndarray:
    """Rotation from Cartesian crystal axes to the laboratory: 3 Euler angles (Bunge, deg), or 9 numbers of U by rows.

    U may be scaled as a whole, as U B of a cubic crystal is. Raises InputError for others.

    >>> crystal_orientation((90.0, 0.0, 0.0)).round().astype(int).tolist()  # the crystal's x along the laboratory's y
    [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    """
    if len(values) == 3 and np.isfinite(values).all():
        return np.asarray(Rotation.from_euler("ZXZ", values, degrees=True).as_matrix())
    if len(values) != 9 or not np.isfinite(values).all():
        raise InputError(f"orientation must be 3 Euler angles or the 9 finite numbers of a matrix, got {len(values)} numbers")
    matrix = np.reshape(values, (3, 3))
    scale = np.cbrt(np.linalg.det(matrix))
    if not scale > 0 or np.abs((matrix / scale) @ (matrix / scale).T - np.eye(3)).max() > SKEW:
        raise InputError("orientation must be a rotation, or a multiple of one: its rows must be perpendicular and of one length")
    u, _, v = np.linalg.svd(matrix / scale)
    return np.asarray(u @ v)


def probabilities(
    normal: np.ndarray, normal_std: float, line: np.ndarray, line_std: float, among: list[Candidate], *, tolerance: float,
    length: float = math.nan, length_std: float = math.nan,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Probability of each candidate, and the angle between it and the normal, rad; shapes (candidate,).

    normal, line: Unit vectors in crystal axes; line NaN where it is not known.  Errors and tolerance: rad.
    length: theta d in lattice parameters, NaN where theta is not known.
    """
    logs, angles = [], []
    for one in among:
        b = one.burgers / one.length
        angle = _angle(normal, b)
        log = -0.5 * angle**2 / (normal_std**2 + tolerance**2)
        if np.isfinite(line).all():
            edges = np.array([_angle(line, np.cross(b, m)) for m in one.planes])
            of_planes = -0.5 * edges**2 / (line_std**2 + tolerance**2)
            log += np.logaddexp.reduce(of_planes) - math.log(len(edges))
        if math.isfinite(length):
            spread = math.hypot(np.nan_to_num(length_std), LENGTH_TOLERANCE * one.length)
            log -= 0.5 * ((length - one.length) / spread) ** 2 + math.log(spread)
        logs.append(log)
        angles.append(angle)
    weights = np.exp(np.array(logs) - max(logs))
    return weights / weights.sum(), np.array(angles)


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between two axes, which have no sign, rad."""
    return math.atan2(float(np.linalg.norm(np.cross(a, b))), abs(float(a @ b)))


def _direction(system: SlipSystem, structure: str) -> str:
    """The Burgers vector as one writes it: "1/2 [1-10]"."""
    indices = system.name[: system.name.index("]") + 1]
    return ("1/3 " if structure == "hcp" else "1/2 ") + indices
