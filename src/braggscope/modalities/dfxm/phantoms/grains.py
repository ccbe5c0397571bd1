"""The two simplest crystals: a grain in cells with walls between them, and a crystal that is bent."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from .drawing import Canvas, Crystal, Peak, phantom


@phantom
def subgrains(canvas: Canvas) -> Crystal:
    """A deformed grain: cells with small orientation gradients between walls, dark around the grain.

    In the walls the curve is wider and weaker.
    """
    random, (y, x) = canvas.random, canvas.position
    count = 14
    tree = cKDTree(random.random((count, 2)))
    distance, cell = tree.query(np.stack([y + 0.03 * np.sin(9 * x), x + 0.03 * np.sin(8 * y)], axis=-1), k=2)
    wall = np.exp(-(((distance[..., 1] - distance[..., 0]) / 0.04) ** 2))
    inside = ((y - 0.5) / 0.46) ** 2 + ((x - 0.5) / 0.48) ** 2 < 1
    brightness = inside * (1 - 0.5 * wall) * (0.5 + 0.5 * canvas.smooth(0.1))
    orientation = [
        random.uniform(-1, 1, count)[cell[..., 0]] * 0.6 + 0.4 * (random.normal() * (y - 0.5) + random.normal() * (x - 0.5))
        for _ in range(canvas.motors)
    ]
    return Crystal((Peak(canvas.tilts(orientation), canvas.widths(1 + 0.6 * wall), brightness),))


@phantom
def bent_crystal(canvas: Canvas) -> Crystal:
    """A crystal bent about both axes: each motor's peak position changes smoothly over the image."""
    y, x = canvas.position
    slopes = [(1.2, 0.3), (-0.4, 1.1), (0.5, -0.9)][: canvas.motors]
    orientation = [a * (x - 0.5) + b * (y - 0.5) for a, b in slopes]
    brightness = 0.4 + 0.6 * canvas.smooth(0.2)
    return Crystal((Peak(canvas.tilts(orientation), canvas.widths(1 + 0.3 * x), brightness),))
