"""Crystals in which a pixel may see two lattices: lamellae with inclined faces, alone and in a deformed crystal.

The microscope looks through a layer as thick as the beam is high. A boundary that is inclined to the line of sight is in the
image as wide as its projection; there a pixel's light comes from both sides, in shares that change linearly across it.
Both lattices reflect where they share the plane (a coherent twin on the plane itself, a domain of a few degrees).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree

from braggscope.core.errors import InputError

from .drawing import Canvas, Crystal, Peak, phantom
from .walls import FLANK, in_walls, weak_light


@phantom
def twins(canvas: Canvas, *, lamellae: int = 3, overlap: float = 0.06, separation: float = 4.0) -> Crystal:
    """A grain with lamellae of a second orientation: two peaks in the pixels where their inclined faces are seen.

    lamellae: How many.
    overlap: Width of a face in the image, as a fraction of the frame.
    separation: Distance of the two peaks, in widths, along one motor or shared by several.
    """
    _positive(lamellae=(lamellae, 50), overlap=(overlap, 0.5), separation=(separation, 20))
    share = _lamellae(canvas, lamellae, overlap)
    light = grain(canvas) * canvas.illumination() * (0.6 + 0.4 * canvas.smooth(0.12))
    width = canvas.widths(1 + 0.2 * canvas.smooth(0.15), 0.08)
    apart = separation * canvas.widths(np.ones(canvas.frame_shape), 0.08) * _shared(canvas)
    bent = _bent(canvas, 0.12)
    matrix, lamella = bent - apart / 2, bent + _bent(canvas, 0.02) + apart / 2
    peaks = (Peak(matrix, width, light * (1 - share)), Peak(lamella, 0.9 * width, 0.85 * light * share))
    return Crystal(peaks, {"lamella": (share, "1", "fraction of the light path in a lamella")})


@phantom
def crystal(canvas: Canvas, *, cells: int = 9, walls: int = 2, strength: float = 4.0, lamellae: int = 1) -> Crystal:
    """A deformed grain with everything: bent, in subgrains, crossed by dislocation walls and by lamellae with inclined faces.

    cells: Number of subgrains.
    walls: Of dislocations, in each of two families.  strength: As in `dislocation_walls`.
    lamellae: Of a second orientation.
    """
    _positive(cells=(cells, 10_000), lamellae=(lamellae, 50))
    random, (y, x) = canvas.random, canvas.position
    tree = cKDTree(random.random((cells, 2)))
    distance, cell = tree.query(
        np.stack([y + 0.02 * np.sin(11 * x), x + 0.02 * np.sin(9 * y)], axis=-1), k=2 if cells > 1 else [1]
    )
    rim = np.exp(-(((distance[..., -1] - distance[..., 0]) / 0.02) ** 2)) if cells > 1 else np.zeros(canvas.frame_shape)
    alone = canvas.widths(np.ones(canvas.frame_shape), 0.08)
    own = alone * (1 + 0.5 * rim)
    tilts = canvas.tilts([0.6 * random.uniform(-1, 1, cells)[cell[..., 0]] for _ in range(canvas.motors)])
    turn, width = in_walls(canvas, own, walls, strength)
    share = _lamellae(canvas, lamellae, 0.05)
    light = grain(canvas) * canvas.illumination() * (0.5 + 0.5 * canvas.smooth(0.1))
    weak = weak_light(turn, width, own)
    bent = _bent(canvas, 0.1)
    other = bent + _bent(canvas, 0.02) + 5 * alone * _shared(canvas)
    peaks = (
        Peak(tilts + bent + turn, width, light * (1 - share) * np.prod(alone / width, axis=0)),
        Peak(other, alone, 0.8 * light * share),
    )
    wall = (weak > 0.5) & (share < 0.5) & (light > 0)
    known = {
        "subgrain": (np.where(light > 0, cell[..., 0], -1).astype(np.int32), "1", "number of the subgrain, -1 outside the grain"),
        "wall": (wall.astype(np.int32), "1", f"whether most light is more than {FLANK:g} widths from the peak without walls"),
        "lamella": (share, "1", "fraction of the light path in a lamella"),
    }
    return Crystal(peaks, known)


def grain(canvas: Canvas) -> np.ndarray:
    """A grain of irregular outline that nearly fills the frame: 1 inside, 0 outside, blurred by a pixel, shape (row, column)."""
    y, x = canvas.position
    angle, radius = np.arctan2(y - 0.5, x - 0.5), np.hypot(y - 0.5, x - 0.5)
    waves = [canvas.random.normal(0, 0.03 / k) * np.cos(k * angle + canvas.random.uniform(0, 6.28)) for k in (2, 3, 4, 5, 7)]
    edge = 0.5 / np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle))) ** 0.6 * 0.86 + np.sum(waves, axis=0)
    inside = np.clip((edge - radius) * min(canvas.frame_shape) / 2 + 0.5, 0, 1)
    return inside


def _lamellae(canvas: Canvas, count: int, overlap: float) -> np.ndarray:
    """Share of the path in lamellae across the frame, parallel to one another, faces so wide; shape (row, column)."""
    random, (y, x) = canvas.random, canvas.position
    angle = random.uniform(0.15, 0.6) * random.choice([-1, 1])
    place = (x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle) + 0.5 + 0.004 * np.sin(14 * y)
    starts = (np.arange(count) + random.uniform(0.2, 0.4, count)) / count
    share = np.zeros(canvas.frame_shape)
    for start, thick in zip(starts, random.uniform(0.25, 0.5, count) / count, strict=True):
        share += np.clip((place - start) / overlap, 0, 1) - np.clip((place - start - thick) / overlap, 0, 1)
    return share


def _bent(canvas: Canvas, size: float) -> np.ndarray:
    """Smooth orientations, so large as a fraction of half the scan, shape (motor, row, column)."""
    fields = [2 * canvas.smooth(0.3) - 1 for _ in range(canvas.motors)]
    return canvas.tilts([size / 0.45 * f for f in fields])


def _shared(canvas: Canvas) -> np.ndarray:
    """A direction along the motors, a unit vector, shape (motor, 1, 1)."""
    vector = (
        canvas.random.choice([-1, 1]) * (0.6 + canvas.random.random(canvas.motors)) * np.array([1.0, -1.0, 1.0])[: canvas.motors]
    )
    return (vector / np.linalg.norm(vector))[:, None, None]


def _positive(**options: tuple[float, float]) -> None:
    for name, (value, high) in options.items():
        if not 0 < value <= high:
            raise InputError(f"option {name} must be positive and at most {high}, got {value}")
