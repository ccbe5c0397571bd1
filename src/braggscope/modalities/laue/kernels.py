# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)
"""Compiled positions, brightness and drawing of spots; single-threaded, without the interpreter lock (infer.runtime runs them).

The formulas are those of `detector` and `brightness`; `forward` is the same in torch.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .detector import HC

REACH = 5.0  # sigma from the middle of a spot to where it is drawn: 6e-7 of it are left out
_compiled = njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def pattern(orientation, q, family, table, absorption, depth, energy, detector, size, normal, field, margin, spots):
    """Spots of one crystal on the detector; returns their number.

    orientation: Matrix that takes q of the crystal frame to the laboratory, U (1 + strain)^-T, shape (3, 3).
    q, family, table, absorption, depth, energy, detector, size, normal, field: See `brightness.Layer`.
    margin: Pixels around the detector within which spots are also given.
    spots: Filled with direction, row, column, E1 (keV) and intensity, shape (direction, 5).
    """
    count = 0
    first, step, low, high = energy[0], energy[1], energy[2], energy[3]
    last = table.shape[1] - 2
    tilt = 1.0 / -normal[0] if normal[0] < 0 else np.inf
    for i in range(len(q)):
        a, b, c = q[i]
        x = orientation[0, 0] * a + orientation[0, 1] * b + orientation[0, 2] * c
        if x >= 0:
            continue
        y = orientation[1, 0] * a + orientation[1, 1] * b + orientation[1, 2] * c
        z = orientation[2, 0] * a + orientation[2, 1] * b + orientation[2, 2] * c
        square = x * x + y * y + z * z
        e1 = -HC * square / (2 * x)
        if e1 > high:
            continue
        along = -2 * x / square
        ux, uy, uz = 1 + along * x, along * y, along * z
        away = detector[2, 0] * ux + detector[2, 1] * uy + detector[2, 2] * uz
        if away <= 0:
            continue
        column = (detector[0, 0] * ux + detector[0, 1] * uy + detector[0, 2] * uz) / away
        row = (detector[1, 0] * ux + detector[1, 1] * uy + detector[1, 2] * uz) / away
        if not (-margin <= row <= size[0] - 1 + margin and -margin <= column <= size[1] - 1 + margin):
            continue
        leaving = normal[0] * ux + normal[1] * uy + normal[2] * uz
        if leaving <= 0:
            continue
        path = tilt + 1 / leaving
        total = 0.0
        for n in range(max(0, math.ceil(low / e1) - 1), min(family.shape[1], math.floor(high / e1))):
            k = family[i, n]
            if k < 0:
                continue
            place = ((n + 1) * e1 - first) / step
            j = min(max(int(place), 0), last)
            part = place - j
            mu = absorption[0, j] + part * (absorption[0, j + 1] - absorption[0, j])
            over = absorption[1, j] + part * (absorption[1, j + 1] - absorption[1, j])
            deep = -math.expm1(-mu * path * depth[0]) / (mu * path) * math.exp(-over * path * depth[1])
            total += deep * (table[k, j] + part * (table[k, j + 1] - table[k, j]))
        if total > 0:
            spots[count, 0], spots[count, 1], spots[count, 2], spots[count, 3] = i, row, column, e1
            spots[count, 4] = total * (1 - (field[0] * ux + field[1] * uy + field[2] * uz) ** 2)
            count += 1
    return count


@_compiled
def draw(frame, row, column, intensity, sigma, along, across):
    """Add one Gaussian spot, integrated over each pixel, to a frame of shape (row, column).

    along, across: Work space of at least 2 REACH sigma + 3 numbers.
    """
    scale = 1 / (sigma * math.sqrt(2.0))
    reach = REACH * sigma + 0.5
    top, bottom = max(0, math.ceil(row - reach)), min(frame.shape[0] - 1, math.floor(row + reach))
    left, right = max(0, math.ceil(column - reach)), min(frame.shape[1] - 1, math.floor(column + reach))
    if top > bottom or left > right:
        return
    before = math.erf((left - 0.5 - column) * scale)
    for j in range(left, right + 1):
        after = math.erf((j + 0.5 - column) * scale)
        across[j - left] = (after - before) / 2
        before = after
    before = math.erf((top - 0.5 - row) * scale)
    for i in range(top, bottom + 1):
        after = math.erf((i + 0.5 - row) * scale)
        level = intensity * (after - before) / 2
        before = after
        line = frame[i]
        for j in range(left, right + 1):
            line[j] += level * across[j - left]


@_compiled
def draw_mixtures(frames, positions, start, grain, weight, spot_start, spots, sigma):
    """Add the spots of the grains that each position mixes to its frame.

    frames: Shape (frame, row, column), of the flat scan positions `positions`.
    start, grain, weight: Position p lights the grains grain[start[p]:start[p + 1]] with these weights.
    spot_start, spots: Grain g has the spots spots[spot_start[g]:spot_start[g + 1]], each row, column and intensity.
    """
    work = np.empty(int(2 * REACH * sigma) + 4)
    other = np.empty_like(work)
    for f in range(len(positions)):
        p = positions[f]
        for m in range(start[p], start[p + 1]):
            g = grain[m]
            for s in range(spot_start[g], spot_start[g + 1]):
                draw(frames[f], spots[s, 0], spots[s, 1], weight[m] * spots[s, 2], sigma, work, other)
