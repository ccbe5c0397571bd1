"""Compiled loops of indexing: peaks against the reflections of an orientation, and the other way round.

Directions are unit vectors; those of peaks in the laboratory (`geometry`), those of reflections in the crystal frame. A peak
whose scattering vector has the direction s diffracts a reflection of length |q| at E = hc |q| / (2 sin theta), sin theta = -s_x.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ..detector import HC

GLANCE, ENOUGH = 100, 3
"""An orientation is tried with so many of the brightest peaks first, and with all where enough, the pair included, match."""

compiled = njit(cache=True, nogil=True, error_model="numpy")
_inlined = njit(inline="always", error_model="numpy")


@_inlined
def lowest_order(e1, orders, low, high):  # type: ignore[no-untyped-def]
    """The lowest order n with n e1 in the band that is not absent (bit n - 1 of orders is set); 0 for none."""
    found = 0
    n = max(1, math.ceil(low / e1))
    while n * e1 <= high and n <= 63:
        if (orders >> (n - 1)) & 1:
            found = n
            break
        n += 1
    return found


@_inlined
def cell_of(x, y, z, edge):  # type: ignore[no-untyped-def]
    """The cell of a direction among those of a cube's faces, each divided into edge x edge."""
    ax, ay, az = abs(x), abs(y), abs(z)
    if ax >= ay and ax >= az:
        face, d, u, v = (0 if x > 0 else 1), ax, y, z
    elif ay >= az:
        face, d, u, v = (2 if y > 0 else 3), ay, x, z
    else:
        face, d, u, v = (4 if z > 0 else 5), az, x, y
    i = min(int((u / d + 1) * 0.5 * edge), edge - 1)
    j = min(int((v / d + 1) * 0.5 * edge), edge - 1)
    return (face * edge + i) * edge + j


@compiled
def cells(directions, tolerance, edge):  # type: ignore[no-untyped-def]
    """Which reflections lie in or within a tolerance of each cell: starts, shape (cell + 1,), and reflections.

    directions: Shape (reflection, 3).  tolerance: Radians.
    """
    start = np.zeros(6 * edge * edge + 1, np.int32)
    members = np.zeros(1, np.int32)
    for filling in range(2):
        at = start[:-1].copy()
        for k in range(len(directions)):
            for face in range(6):
                axis, sign = face // 2, 1 - 2 * (face % 2)
                d = sign * directions[k, axis]
                if d <= 0.3:
                    continue
                u = directions[k, 1 if axis == 0 else 0] / d
                v = directions[k, 1 if axis == 2 else 2] / d
                reach = 1.01 * tolerance * (1 + u * u + v * v)
                if abs(u) > 1 + reach or abs(v) > 1 + reach:
                    continue
                i0, i1 = int(max((u - reach + 1) * 0.5 * edge, 0)), int(min((u + reach + 1) * 0.5 * edge, edge - 1))
                j0, j1 = int(max((v - reach + 1) * 0.5 * edge, 0)), int(min((v + reach + 1) * 0.5 * edge, edge - 1))
                for i in range(i0, i1 + 1):
                    for j in range(j0, j1 + 1):
                        cell = (face * edge + i) * edge + j
                        if filling == 0:
                            start[cell + 1] += 1
                        else:
                            members[at[cell]] = k
                            at[cell] += 1
        if filling == 0:
            start = np.cumsum(start).astype(np.int32)
            members = np.zeros(max(start[-1], 1), np.int32)
    return start, members


@compiled
def matched(turn, peaks, sines, tolerance, directions, lengths, orders, low, high, edge, start, members, squares):  # type: ignore[no-untyped-def]
    """How many peaks lie on a reflection of an orientation that shows in the band; their squared distances into `squares`, rad^2.

    turn: U.  peaks: Shape (peak, 3).  sines: sin theta of the peaks.  squares: Filled; infinite where none is near.
    """
    count = 0
    limit = tolerance * tolerance
    for p in range(len(peaks)):
        sx, sy, sz = peaks[p, 0], peaks[p, 1], peaks[p, 2]
        x = turn[0, 0] * sx + turn[1, 0] * sy + turn[2, 0] * sz
        y = turn[0, 1] * sx + turn[1, 1] * sy + turn[2, 1] * sz
        z = turn[0, 2] * sx + turn[1, 2] * sy + turn[2, 2] * sz
        cell = cell_of(x, y, z, edge)
        nearest = np.inf
        for m in range(start[cell], start[cell + 1]):
            k = members[m]
            dx, dy, dz = x - directions[k, 0], y - directions[k, 1], z - directions[k, 2]
            square = dx * dx + dy * dy + dz * dz
            if square >= limit or square >= nearest:
                continue
            if lowest_order(HC * lengths[k] / (2 * sines[p]), orders[k], low, high) > 0:
                nearest = square
        squares[p] = nearest
        if nearest < np.inf:
            count += 1
    return count


@compiled
def best_of_anchor(  # type: ignore[no-untyped-def]
    anchor, partners, peaks, sines, tolerance, pair_angle, pair_first, pair_second, pair_frame,
    directions, lengths, orders, low, high, edge, start, members, least, squares, turn, best_turn,
):  # fmt: skip
    """The orientation, among those in which an anchor peak and a partner are low-index reflections, that explains most.

    The score of an orientation is the sum over matched peaks of 1 - (distance / tolerance)^2. Returns the best score and the
    number of orientations tried; the orientation goes into `best_turn`.

    pair_angle: Angles of pairs of reflections, rising; pair_first, pair_second: the reflections; pair_frame: right-handed frames
    with x along the first and z normal to both, shape (pair, 3, 3), rows the axes.
    """
    best, tried = 0.0, 0
    some = peaks[:GLANCE], sines[:GLANCE]
    ax, ay, az = peaks[anchor, 0], peaks[anchor, 1], peaks[anchor, 2]
    for j in partners:
        bx, by, bz = peaks[j, 0], peaks[j, 1], peaks[j, 2]
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        sine = math.sqrt(nx * nx + ny * ny + nz * nz)
        angle = math.atan2(sine, ax * bx + ay * by + az * bz)
        if angle < pair_angle[0] - tolerance:
            continue
        nx, ny, nz = nx / sine, ny / sine, nz / sine
        mx, my, mz = ny * az - nz * ay, nz * ax - nx * az, nx * ay - ny * ax
        k = np.searchsorted(pair_angle, angle - tolerance)
        while k < len(pair_angle) and pair_angle[k] <= angle + tolerance:
            first, second, frame = pair_first[k], pair_second[k], pair_frame[k]
            k += 1
            if lowest_order(HC * lengths[first] / (2 * sines[anchor]), orders[first], low, high) == 0:
                continue
            if lowest_order(HC * lengths[second] / (2 * sines[j]), orders[second], low, high) == 0:
                continue
            for c in range(3):
                turn[0, c] = ax * frame[0, c] + mx * frame[1, c] + nx * frame[2, c]
                turn[1, c] = ay * frame[0, c] + my * frame[1, c] + ny * frame[2, c]
                turn[2, c] = az * frame[0, c] + mz * frame[1, c] + nz * frame[2, c]
            tried += 1
            if len(peaks) > GLANCE:
                count = matched(
                    turn, some[0], some[1], tolerance, directions, lengths, orders, low, high, edge, start, members, squares
                )
                if count < ENOUGH:
                    continue
            count = matched(turn, peaks, sines, tolerance, directions, lengths, orders, low, high, edge, start, members, squares)
            if count < least or count <= best:
                continue
            score = 0.0
            for p in range(len(peaks)):
                if squares[p] < np.inf:
                    score += 1 - squares[p] / (tolerance * tolerance)
            if score > best:
                best = score
                best_turn[:] = turn
    return best, tried


@compiled
def possible(sines, lengths, orders, low, high):  # type: ignore[no-untyped-def]
    """How many reflections can diffract in the band at each sin(theta), shape (peak,)."""
    count = np.zeros(len(sines), np.int64)
    for p in range(len(sines)):
        for k in range(len(lengths)):
            if lowest_order(HC * lengths[k] / (2 * sines[p]), orders[k], low, high) > 0:
                count[p] += 1
    return count
