"""Dislocation walls: a crystal in its strong beam, crossed by rows of dislocations that light up on the flanks.

A dislocation turns the lattice by b x / (2 pi r^2) at a distance r, x of it along the normal of its wall (the rotation of an
edge dislocation whose Burgers vector is that normal; Hirth & Lothe 1982, sec. 3-4). Here its core is softened, r^2 + a^2, and
the field is screened beyond 2 a by its neighbours, so that a wall has no misorientation far away. On one side of a wall the
rocking curve moves to one flank, on the other side to the other, and in the core, where the rotation changes within a pixel's
view, it is broad: what a weak-beam image shows (Huang et al. 2023; Yildirim et al. 2023).
Left out: extinction, the strain field outside the image plane, single dislocations between the walls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from braggscope.core.errors import InputError

from .drawing import Canvas, Crystal, Peak, phantom

SPACING = 1.7  # of the dislocations in a wall, core radii: a beaded line
VIEW = 0.45  # standard deviation of what a pixel sees of the field, core radii
REACH = 5.0  # core radii after which the screened field is taken as zero, e^-6 of itself
FLANK = 2.0  # widths of the matrix's peak from where on light is weak-beam light


@dataclass(frozen=True)
class Dislocation:
    """A line that pierces the image at (row, column), in pixels; unit normal of its wall; turn of the lattice per motor."""

    row: float
    column: float
    normal: tuple[float, float]
    turn: np.ndarray


@phantom
def dislocation_walls(canvas: Canvas, *, walls: int = 3, strength: float = 4.5) -> Crystal:
    """A crystal in its strong beam, crossed by two families of dislocation walls that shine on the flanks of its rocking curve.

    walls: In each of the two families.
    strength: Largest turn of the lattice beside a wall, in widths of the matrix's peak.
    """
    own = canvas.widths(np.ones(canvas.frame_shape), 0.09)
    y, x = canvas.position
    bent = [0.3 * (canvas.random.normal() * (y - 0.5) + canvas.random.normal() * (x - 0.5)) for _ in range(canvas.motors)]
    turn, width = in_walls(canvas, own, walls, strength)
    centre = np.array(bent) * own + turn
    weak = weak_light(centre, width, own)
    brightness = canvas.illumination() * (0.7 + 0.3 * canvas.smooth(0.2)) * np.prod(own / width, axis=0)
    known = {
        "wall": ((weak > 0.5).astype(np.int32), "1", "whether most of the pixel's light is weak-beam light"),
        "weak_light": (weak, "1", f"fraction of the light more than {FLANK:g} widths of the matrix from its peak"),
    }
    return Crystal((Peak(centre, width, brightness),), known)


def in_walls(canvas: Canvas, own: np.ndarray, walls: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Shift and width of the peaks that the field of such walls gives to peaks of width `own`, shape (motor, row, column).

    Raises InputError where the options cannot be.
    """
    for name, value, high in (("walls", walls, 100), ("strength", strength, 100)):
        if not 0 < value <= high:
            raise InputError(f"option {name} must be positive and at most {high}, got {value}")
    core = max(1.2, 0.012 * min(canvas.frame_shape))
    lines = [
        line
        for angle in (canvas.random.uniform(0.1, 0.5), canvas.random.uniform(1.6, 2.2))
        for place in (np.arange(walls) + canvas.random.uniform(0.25, 0.75, walls)) / walls
        for line in _wall(canvas, angle, place, core, strength)
    ]
    turn = np.zeros(own.shape)
    for one in lines:
        _add(turn, one, core)
    seen = [np.hypot(*np.gradient(t)) if min(t.shape) > 1 else np.zeros_like(t) for t in turn]
    return turn * own, own * np.sqrt(1 + (VIEW * core * np.array(seen)) ** 2)


def weak_light(centre: np.ndarray, width: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Fraction of the light farther than `FLANK` widths of the matrix from its peak (at zero), taking the motors one by one."""
    inside = ndtr((FLANK * own - centre) / width) - ndtr((-FLANK * own - centre) / width)
    return 1 - np.prod(inside, axis=0)


def _wall(canvas: Canvas, angle: float, place: float, core: float, strength: float) -> list[Dislocation]:
    """The dislocations of one wavy wall across the frame, with gaps."""
    random, size = canvas.random, np.array(canvas.frame_shape, float)
    along, normal = np.array([math.sin(angle), math.cos(angle)]), np.array([math.cos(angle), -math.sin(angle)])
    length = float(np.hypot(*size))
    t = np.arange(-length / 2, length / 2, SPACING * core)
    t = t + random.normal(0, 0.12 * SPACING * core, len(t))
    waves = [random.normal(0, 0.012) * np.sin(k * math.pi * t / length + random.uniform(0, 6.28)) for k in (2, 3, 5, 9)]
    reach = float(np.abs(normal) @ size)
    points = size / 2 + (place - 0.5) * reach * normal + t[:, None] * along + length * np.sum(waves, axis=0)[:, None] * normal
    strong = random.uniform(0.75, 1.15) * strength * random.choice([-1, 1]) * _direction(random, canvas.motors)
    gaps = np.sin(random.uniform(4, 9) * t / length + random.uniform(0, 6.28)) > -0.85
    seen = ((points > -REACH * core) & (points < size + REACH * core)).all(axis=1) & gaps
    return [Dislocation(p[0], p[1], (normal[0], normal[1]), random.uniform(0.85, 1.15) * strong) for p in points[seen]]


def _direction(random: np.random.Generator, motors: int) -> np.ndarray:
    """Along which motors a wall turns the lattice, a unit vector; along the last of three, the strain, a third as much."""
    vector = random.normal(size=motors) * [1, 1, 0.3][:motors]
    return np.ones(1) if motors == 1 else vector / np.linalg.norm(vector)


def _add(turn: np.ndarray, one: Dislocation, core: float) -> None:
    """Add the field of a dislocation, largest about 1, to the frame, in place."""
    rows, columns = (
        slice(max(0, int(at - REACH * core)), max(0, min(n, int(at + REACH * core) + 1)))
        for at, n in zip((one.row, one.column), turn.shape[1:], strict=True)
    )
    y, x = np.mgrid[rows, columns] + 0.5 - np.array([one.row, one.column])[:, None, None]
    square = y**2 + x**2
    field = 2 * core * (y * one.normal[0] + x * one.normal[1]) / (square + core**2) * np.exp(-square / (2 * core) ** 2)
    turn[:, rows, columns] += one.turn[:, None, None] * field
