"""Slip systems of fcc, bcc and hcp crystals.

Frame: Cartesian crystal axes. Cubic: x, y, z along a, b, c. Hexagonal: x along a_1 = [2-1-10]/3, z along c, and a_2 at 120
degrees from a_1 towards y. Burgers vectors are in units of the lattice parameter a. A system and the one with both b and n
reversed are the same; listed are the signs with the fewest negative indices, and of these those that begin with a positive one.

Families (Hirth & Lothe 1982, ch. 9 and 11; hcp: Yoo 1981, Metall. Trans. A 12, 409): fcc {111}<110>/2; bcc {110}, {112}, {123}
<111>/2; hcp basal, prismatic and pyramidal <a>/3, pyramidal <c+a>/3 of the first and second order.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Vector = tuple[float, float, float]
Indices = tuple[int, ...]

CUBIC: dict[str, list[tuple[Indices, Indices]]] = {
    "fcc": [((1, 1, 1), (1, 1, 0))],
    "bcc": [((1, 1, 0), (1, 1, 1)), ((1, 1, 2), (1, 1, 1)), ((1, 2, 3), (1, 1, 1))],
}
"""Plane and direction of each family."""
HEXAGONAL: list[tuple[Indices, Indices]] = [
    ((0, 0, 0, 1), (1, 1, -2, 0)),  # basal <a>
    ((1, 0, -1, 0), (1, 1, -2, 0)),  # prismatic <a>
    ((1, 0, -1, 1), (1, 1, -2, 0)),  # pyramidal <a>
    ((1, 0, -1, 1), (1, 1, -2, 3)),  # pyramidal <c+a>, first order
    ((1, 1, -2, 2), (1, 1, -2, 3)),  # pyramidal <c+a>, second order
]
STRUCTURES = (*CUBIC, "hcp")
CHARACTERS = {"screw": 0.0, "edge": 90.0}
WRITTEN = re.compile(r"(?:a?\s*(\d+)?\s*/\s*(\d+))?\s*\[([^\]]*)\]\s*\(([^)]*)\)")


@dataclass(frozen=True)
class SlipSystem:
    """A Burgers vector and a plane that holds it.

    name: In Miller indices, "[110](1-11)"; four-index for hcp, "[11-20](0001)".
    burgers: Cartesian crystal axes, in units of the lattice parameter a.
    normal: Of the slip plane, Cartesian crystal axes, of length 1.
    """

    name: str
    burgers: Vector
    normal: Vector


def slip_systems(structure: str, *, c_over_a: float | None = None) -> list[SlipSystem]:
    """The slip systems of a structure: 12 of fcc, 48 of bcc ({110}, {112}, {123}), 30 of hcp.

    structure: "fcc", "bcc" or "hcp".
    c_over_a: Ratio of the lattice parameters; hcp needs it, the cubic structures make no use of it.
    Raises ValueError for another structure and for hcp without a positive ratio.

    >>> [s.name for s in slip_systems("fcc")][:3]
    ['[01-1](111)', '[1-10](111)', '[10-1](111)']
    """
    if structure not in STRUCTURES:
        raise ValueError(f"structure must be one of {', '.join(STRUCTURES)}, got '{structure}'")
    if structure == "hcp":
        if c_over_a is None or not 0 < c_over_a < math.inf:
            raise ValueError(f"hcp needs a positive c_over_a (1.587 for titanium), got {c_over_a}")
        return [hexagonal_system(d, p, c_over_a) for family in HEXAGONAL for p, d in _members(*family)]
    return [_cubic_system(d, p, 0.5) for family in CUBIC[structure] for p, d in _members(*family)]


def slip_system(text: str) -> SlipSystem:
    """A slip system of a cubic crystal as it is written, "[110](1-11)", "a/6 [11-2](111)" or "[1 1 0](1 -1 1)".

    Without a factor, <110> and <111> are halves of lattice translations, and other directions are taken as they stand.
    Raises ValueError for what cannot be read, and for a direction that does not lie in the plane.

    >>> slip_system("[110](1-11)").burgers
    (0.5, 0.5, 0.0)
    """
    found = WRITTEN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"a slip system must be written like [110](1-11), got '{text}'")
    above, below, direction, plane = found.groups()
    d, p = miller_indices(direction), miller_indices(plane)
    if len(d) != 3 or len(p) != 3:
        raise ValueError(f"a cubic slip system has three indices each, got '{text}'")
    if sum(a * b for a, b in zip(d, p, strict=True)) != 0:
        raise ValueError(f"{miller_text(d, '[]')} does not lie in the plane {miller_text(p, '()')}")
    usual = 0.5 if sorted(map(abs, d)) in ([0, 1, 1], [1, 1, 1]) else 1.0
    return _cubic_system(d, p, usual if below is None else int(above or 1) / int(below))


def hexagonal_system(direction: Indices, plane: Indices, c_over_a: float) -> SlipSystem:
    """The system of the Burgers vector [uvtw]/3 in the plane (hkil) of a hexagonal crystal (four-index notation)."""
    axes = hexagonal_axes(c_over_a)
    burgers = np.array(direction) @ axes / 3
    name = miller_text(direction, "[]") + miller_text(plane, "()")
    return SlipSystem(name, _plain(burgers), _plain(_unit(hexagonal_plane(plane, c_over_a))))


def hexagonal_axes(c_over_a: float) -> np.ndarray:
    """Rows a_1, a_2, a_3, c in units of a, shape (4, 3)."""
    half, root = 0.5, math.sqrt(3) / 2
    return np.array([[1, 0, 0], [-half, root, 0], [-half, -root, 0], [0, 0, c_over_a]])


def hexagonal_plane(plane: Sequence[float], c_over_a: float) -> np.ndarray:
    """The reciprocal lattice vector (hkil) in units of 1/a, without 2 pi: 2/3 (h a_1 + k a_2 + i a_3) + l c / c^2; shape (3,)."""
    return np.array(plane) * [2 / 3, 2 / 3, 2 / 3, 1 / c_over_a**2] @ hexagonal_axes(c_over_a)


def edge_line(system: SlipSystem) -> Vector:
    """The line direction t = b x n / |b| of the edge dislocation, so that b, n, t are right-handed as in `dislocation_frame`.

    >>> edge_line(slip_system("[110](1-11)"))  # [1 -1 -2], of length 1
    (0.40824..., -0.40824..., -0.81649...)
    """
    return line_direction(system, 90.0)


def line_direction(system: SlipSystem, character_deg: float) -> Vector:
    """The line in the slip plane at this angle to the Burgers vector, t = cos(a) b + sin(a) b x n (b of length 1).

    character_deg: 0 for a screw, 90 for an edge dislocation; the signs tell the two mixed lines of one angle apart.
    """
    b, n, angle = _unit(np.array(system.burgers)), np.array(system.normal), math.radians(character_deg)
    return _plain(math.cos(angle) * b + math.sin(angle) * np.cross(b, n))


def line_directions(system: SlipSystem, kinds: Sequence[str] = ("screw", "edge")) -> dict[str, Vector]:
    """Line directions by kind: "screw", "edge", or the angle to the Burgers vector in degrees, "60", "-60".

    Raises ValueError for another word.

    >>> line_directions(slip_system("[110](1-11)"), ["screw", "60"])["60"]  # along [10-1]
    (0.7071..., 0.0, -0.7071...)
    """
    return {kind: line_direction(system, character_angle(kind)) for kind in kinds}


def character_angle(kind: str) -> float:
    """The angle between line and Burgers vector that a word says, in degrees. Raises ValueError where it says none."""
    try:
        angle = CHARACTERS[kind] if kind in CHARACTERS else float(kind)
    except ValueError:
        angle = math.nan
    if not math.isfinite(angle):
        raise ValueError(f"the kind of a line must be screw, edge or an angle in degrees, got '{kind}'")
    return angle


def miller_indices(text: str) -> Indices:
    """Indices as they are written: without separators one digit each, "-1-11", else any, "1 -1 12".

    Raises ValueError for anything else than three or four integers that are not all 0, and for four, h + k + i, that do not add
    up to 0.

    >>> miller_indices("-1-11"), miller_indices("10-12")
    ((-1, -1, 1), (1, 0, -1, 2))
    """
    words = re.split(r"[\s,]+", text.strip()) if re.search(r"[\s,]", text.strip()) else re.findall(r"[+-]?\d|\S", text)
    try:
        found = tuple(int(word) for word in words)
    except ValueError:
        found = ()
    if len(found) not in (3, 4) or not any(found) or (len(found) == 4 and found[0] + found[1] + found[2]):
        raise ValueError(f"Miller indices must be three integers like -1-11, or four like 10-12, got '{text}'")
    return found


def miller_text(indices: Sequence[int], brackets: str = "") -> str:
    """Indices as one writes them; with spaces where one has two digits.

    >>> miller_text((1, -1, 1), "()"), miller_text((10, 0, 2))
    ('(1-11)', '10 0 2')
    """
    plain = (" " if any(abs(i) > 9 for i in indices) else "").join(map(str, indices))
    return brackets[:1] + plain + brackets[1:]


def _cubic_system(direction: Indices, plane: Indices, factor: float) -> SlipSystem:
    name = miller_text(direction, "[]") + miller_text(plane, "()")
    return SlipSystem(name, _plain(factor * np.array(direction)), _plain(_unit(np.array(plane, float))))


def _members(plane: Indices, direction: Indices) -> list[tuple[Indices, Indices]]:
    """The pairs of a family whose direction lies in the plane (Miller indices, or all four: their products add up to 0)."""
    pairs = itertools.product(_equivalent(plane), _equivalent(direction))
    return [(p, d) for p, d in pairs if sum(a * b for a, b in zip(p, d, strict=True)) == 0]


def _equivalent(indices: Indices) -> list[Indices]:
    """The equivalent indices by the cubic (three) or hexagonal (four) symmetry, one of each pair of opposites."""
    if len(indices) == 3:
        signs = list(itertools.product((1, -1), repeat=3))
        every = {
            tuple(s * i for s, i in zip(sign, order, strict=True)) for order in itertools.permutations(indices) for sign in signs
        }
    else:
        every = {
            (*(s * i for i in order), e * indices[3])
            for order in itertools.permutations(indices[:3])
            for s, e in itertools.product((1, -1), repeat=2)
        }
    return sorted({_shown(one) for one in every}, key=lambda one: (_negative(one), one))


def _shown(indices: Indices) -> Indices:
    """Of the indices and their opposite the one with fewer negative ones, else the one that begins with a positive one."""
    other = tuple(-i for i in indices)
    return min((indices, other), key=lambda one: (_negative(one), [-i for i in one]))


def _negative(indices: Indices) -> int:
    return sum(1 for i in indices if i < 0)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _plain(vector: np.ndarray) -> Vector:
    """Three floats; what rounding left of a zero is 0."""
    x, y, z = (float(v) if abs(v) > 1e-15 else 0.0 for v in vector)
    return x, y, z
