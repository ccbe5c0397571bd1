"""Compiled refinement: orientation and deviatoric strain of one crystal on the pixels of its spots.

q = U (1 + eps)^-1 B h; the ray of a spot is k = x + a q with a = -2 q_x / |q|^2; row = k_r / k_d and column = k_c / k_d, where
(k_c, k_r, k_d) is the inverse of the detector matrix times k. Derivatives for small turns w about the laboratory axes and
for the strain components (xx, yy, yz, xz, xy; zz = -xx - yy):

    dq/dw_k = e_k x q,   dq/deps_p = -U (1 + eps)^-1 E_p (1 + eps)^-1 B h,
    da = -2 dq_x / |q|^2 + 4 q_x (q . dq) / |q|^4,   dk = da q + a dq,   drow = (dk_r - row dk_d) / k_d.
"""

from __future__ import annotations

import math

import numpy as np

from ..detector import HC
from .kernels import _inlined, compiled, lowest_order

MARGIN = 12.0  # px outside the detector, and the part of the band outside it, within which a spot may come in while refining
WIDER = 0.004
RIDGE = 1e-9  # added to the diagonal of normal matrices scaled to 1: spots of one zone leave a strain undetermined


@_inlined
def spot(vector, lattice, inverse, q):  # type: ignore[no-untyped-def]
    """Row, column and depth where a reflection shows, and the energy of its first order; q is filled. Depth <= 0: it does not."""
    x = lattice[0, 0] * vector[0] + lattice[0, 1] * vector[1] + lattice[0, 2] * vector[2]
    y = lattice[1, 0] * vector[0] + lattice[1, 1] * vector[1] + lattice[1, 2] * vector[2]
    z = lattice[2, 0] * vector[0] + lattice[2, 1] * vector[1] + lattice[2, 2] * vector[2]
    q[0], q[1], q[2] = x, y, z
    row, column, depth, energy = 0.0, 0.0, -1.0, np.inf
    if x < 0:
        square = x * x + y * y + z * z
        energy = -HC * square / (2 * x)
        a = -2 * x / square
        kx, ky, kz = 1 + a * x, a * y, a * z
        depth = inverse[2, 0] * kx + inverse[2, 1] * ky + inverse[2, 2] * kz
        column = (inverse[0, 0] * kx + inverse[0, 1] * ky + inverse[0, 2] * kz) / depth
        row = (inverse[1, 0] * kx + inverse[1, 1] * ky + inverse[1, 2] * kz) / depth
    return row, column, depth, energy


@compiled
def near_detector(lattice, vectors, orders, low, high, inverse, rows, columns):  # type: ignore[no-untyped-def]
    """The reflections that show on the detector, or would after a small change."""
    chosen = np.empty(len(vectors), np.int64)
    count, q = 0, np.empty(3)
    for k in range(len(vectors)):
        row, column, depth, energy = spot(vectors[k], lattice, inverse, q)
        if depth <= 0 or not (-MARGIN < row < rows + MARGIN and -MARGIN < column < columns + MARGIN):
            continue
        if lowest_order(energy, orders[k], low * (1 - WIDER), high * (1 + WIDER)) > 0:
            chosen[count] = k
            count += 1
    return chosen[:count].copy()


@compiled
def shown(chosen, lattice, vectors, orders, low, high, inverse, rows, columns):  # type: ignore[no-untyped-def]
    """Row and column of each chosen reflection and its lowest order in the band; order 0 where it does not show."""
    place, order, q = np.empty((len(chosen), 2)), np.zeros(len(chosen), np.int64), np.empty(3)
    for i in range(len(chosen)):
        k = chosen[i]
        row, column, depth, energy = spot(vectors[k], lattice, inverse, q)
        place[i, 0], place[i, 1] = row, column
        if depth > 0 and -0.5 <= row <= rows - 0.5 and -0.5 <= column <= columns - 0.5:
            order[i] = lowest_order(energy, orders[k], low, high)
    return place, order


@compiled
def bins(peaks, cell):  # type: ignore[no-untyped-def]
    """Peaks by square cells of the detector: first of each cell, next of each peak, corner of the cells; -1 ends a chain."""
    top, left = np.floor(peaks[:, 0].min() / cell), np.floor(peaks[:, 1].min() / cell)
    rows = int(peaks[:, 0].max() / cell - top) + 2
    columns = int(peaks[:, 1].max() / cell - left) + 2
    first, after = np.full((rows, columns), -1, np.int64), np.full(len(peaks), -1, np.int64)
    for p in range(len(peaks)):
        i, j = int(peaks[p, 0] / cell - top), int(peaks[p, 1] / cell - left)
        after[p] = first[i, j]
        first[i, j] = p
    return first, after, top, left


@compiled
def paired(place, order, peaks, use, within, first, after, top, left, cell):  # type: ignore[no-untyped-def]
    """The peak of each predicted spot, one to one: each the nearest of the other among those within a distance; -1 for none.

    within: At most `cell`.
    """
    partner = np.full(len(place), -1, np.int64)
    owner, distance = np.full(len(peaks), -1, np.int64), np.full(len(peaks), np.inf)
    for i in range(len(place)):
        if order[i] == 0:
            continue
        row, column = place[i, 0], place[i, 1]
        ci, cj = math.floor(row / cell - top), math.floor(column / cell - left)
        best, nearest = -1, within * within
        for a in range(max(ci - 1, 0), min(ci + 2, first.shape[0])):
            for b in range(max(cj - 1, 0), min(cj + 2, first.shape[1])):
                p = first[a, b]
                while p >= 0:
                    if use[p]:
                        square = (peaks[p, 0] - row) ** 2 + (peaks[p, 1] - column) ** 2
                        if square <= nearest:
                            best, nearest = p, square
                    p = after[p]
        if best >= 0 and nearest < distance[best]:
            if owner[best] >= 0:
                partner[owner[best]] = -1
            owner[best], distance[best], partner[i] = i, nearest, best
    return partner


@_inlined
def strained(turn, strain, lattice, stretch):  # type: ignore[no-untyped-def]
    """U (1 + eps)^-1 into `lattice` and (1 + eps)^-1 into `stretch`."""
    xx, yy, yz, xz, xy = 1 + strain[0], 1 + strain[1], strain[2], strain[3], strain[4]
    zz = 1 - strain[0] - strain[1]
    a, b, c = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    d, e, f = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * a + xy * b + xz * c
    stretch[0, 0], stretch[0, 1], stretch[0, 2] = a / determinant, b / determinant, c / determinant
    stretch[1, 0], stretch[1, 1], stretch[1, 2] = b / determinant, d / determinant, e / determinant
    stretch[2, 0], stretch[2, 1], stretch[2, 2] = c / determinant, e / determinant, f / determinant
    for i in range(3):
        for j in range(3):
            lattice[i, j] = turn[i, 0] * stretch[0, j] + turn[i, 1] * stretch[1, j] + turn[i, 2] * stretch[2, j]


@compiled
def derivatives(vector, lattice, stretch, inverse, jacobian):  # type: ignore[no-untyped-def]
    """Row and column of a spot, and into `jacobian` (2, 8) their derivatives by three turns, in rad, and five strains."""
    q, dq, s = np.empty(3), np.zeros((8, 3)), np.empty(3)
    row, column, depth, _ = spot(vector, lattice, inverse, q)
    square = q[0] * q[0] + q[1] * q[1] + q[2] * q[2]
    a = -2 * q[0] / square
    dq[0, 1], dq[0, 2] = -q[2], q[1]
    dq[1, 0], dq[1, 2] = q[2], -q[0]
    dq[2, 0], dq[2, 1] = -q[1], q[0]
    for i in range(3):
        s[i] = stretch[i, 0] * vector[0] + stretch[i, 1] * vector[1] + stretch[i, 2] * vector[2]
    for i in range(3):
        dq[3, i] = -lattice[i, 0] * s[0] + lattice[i, 2] * s[2]
        dq[4, i] = -lattice[i, 1] * s[1] + lattice[i, 2] * s[2]
        dq[5, i] = -lattice[i, 1] * s[2] - lattice[i, 2] * s[1]
        dq[6, i] = -lattice[i, 0] * s[2] - lattice[i, 2] * s[0]
        dq[7, i] = -lattice[i, 0] * s[1] - lattice[i, 1] * s[0]
    for p in range(8):
        along = q[0] * dq[p, 0] + q[1] * dq[p, 1] + q[2] * dq[p, 2]
        da = -2 * dq[p, 0] / square + 4 * q[0] * along / (square * square)
        kx, ky, kz = da * q[0] + a * dq[p, 0], da * q[1] + a * dq[p, 1], da * q[2] + a * dq[p, 2]
        d = inverse[2, 0] * kx + inverse[2, 1] * ky + inverse[2, 2] * kz
        jacobian[0, p] = (inverse[1, 0] * kx + inverse[1, 1] * ky + inverse[1, 2] * kz - row * d) / depth
        jacobian[1, p] = (inverse[0, 0] * kx + inverse[0, 1] * ky + inverse[0, 2] * kz - column * d) / depth
    return row, column


@compiled
def improved(turn, strain, free, chosen, partner, vectors, inverse, peaks, variance, soft, covariance):  # type: ignore[no-untyped-def]
    """One Gauss-Newton step on paired spots; turn and strain are changed. Returns chi-square before it and the largest change.

    free: 3 for the orientation alone, 8 with strain.  variance: Of peaks' rows and columns, px^2, shape (peak, 2).
    soft: Distance, px, at which Tukey's biweight becomes 0; infinite for plain least squares.
    covariance: Filled with the inverse of the normal matrix.
    """
    lattice, stretch, jacobian = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 8))
    strained(turn, strain, lattice, stretch)
    normal, gradient, chi2 = np.zeros((free, free)), np.zeros(free), 0.0
    for i in range(len(chosen)):
        p = partner[i]
        if p < 0:
            continue
        row, column = derivatives(vectors[chosen[i]], lattice, stretch, inverse, jacobian)
        off = peaks[p, 0] - row, peaks[p, 1] - column
        part = max(1 - (off[0] ** 2 + off[1] ** 2) / (soft * soft), 0.0) ** 2
        for d in range(2):
            weight = part / variance[p, d]
            chi2 += weight * off[d] ** 2
            for m in range(free):
                gradient[m] += weight * jacobian[d, m] * off[d]
                for n in range(m + 1):
                    normal[m, n] += weight * jacobian[d, m] * jacobian[d, n]
    scale = np.empty(free)
    for m in range(free):
        if not normal[m, m] > 0:
            return chi2, np.inf
        scale[m] = 1 / math.sqrt(normal[m, m])
    for m in range(free):
        for n in range(m + 1):
            normal[m, n] *= scale[m] * scale[n]
            normal[n, m] = normal[m, n]
        normal[m, m] += RIDGE
    inverse_normal = np.linalg.inv(normal)
    for m in range(free):
        for n in range(free):
            inverse_normal[m, n] *= scale[m] * scale[n]
    change = inverse_normal @ gradient
    covariance[:free, :free] = inverse_normal
    turned(turn, change)
    for m in range(5):
        if free == 8:
            strain[m] += change[3 + m]
    return chi2, np.abs(change).max()


@_inlined
def turned(turn, w):  # type: ignore[no-untyped-def]
    """The orientation after a small turn w about the laboratory axes (Rodrigues), in place."""
    angle = math.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
    if angle > 0:
        s, c = math.sin(angle) / angle, (1 - math.cos(angle)) / (angle * angle)
        for j in range(3):
            x, y, z = turn[0, j], turn[1, j], turn[2, j]
            ax, ay, az = w[1] * z - w[2] * y, w[2] * x - w[0] * z, w[0] * y - w[1] * x
            bx, by, bz = w[1] * az - w[2] * ay, w[2] * ax - w[0] * az, w[0] * ay - w[1] * ax
            turn[0, j], turn[1, j], turn[2, j] = x + s * ax + c * bx, y + s * ay + c * by, z + s * az + c * bz


@compiled
def refine(  # type: ignore[no-untyped-def]
    turn, strain, frees, limits, softs, vectors, orders, low, high, inverse, rows, columns,
    peaks, variance, use, first, after, top, left, cell, covariance,
):  # fmt: skip
    """Match and improve in turn, once for each of `limits`; turn and strain are changed.

    frees: Parameters of each round, 3 or 8; 8 becomes 3 where fewer than six spots are matched.
    limits: Distance within which spots match, px, each at most `cell`.  softs: Biweight distances; infinite for plain fits.
    Returns chosen reflections, their order (0: does not show), place and peak (-1), the parameters free at last (0: too few spots
    were matched), and chi-square at the end.
    """
    lattice, stretch = np.empty((3, 3)), np.empty((3, 3))
    strained(turn, strain, lattice, stretch)
    chosen = near_detector(lattice, vectors, orders, low, high, inverse, rows, columns)
    free = 0
    for r in range(len(limits)):
        place, order = shown(chosen, lattice, vectors, orders, low, high, inverse, rows, columns)
        partner = paired(place, order, peaks, use, limits[r], first, after, top, left, cell)
        count = (partner >= 0).sum()
        free = 0
        if count < 3:
            break
        free = frees[r] if count >= 6 else 3
        if free == 3:
            strain[:] = 0
        _, change = improved(turn, strain, free, chosen, partner, vectors, inverse, peaks, variance, softs[r], covariance)
        if not change < 0.05:  # radians or strain: lost
            free = 0
            break
        strained(turn, strain, lattice, stretch)
    place, order = shown(chosen, lattice, vectors, orders, low, high, inverse, rows, columns)
    partner = paired(place, order, peaks, use, limits[-1], first, after, top, left, cell)
    chi2 = 0.0
    for i in range(len(chosen)):
        p = partner[i]
        if p >= 0:
            chi2 += (peaks[p, 0] - place[i, 0]) ** 2 / variance[p, 0] + (peaks[p, 1] - place[i, 1]) ** 2 / variance[p, 1]
    return chosen, order, place, partner, free, chi2


@compiled
def votes(start, spots, peaks, light, use, within, first, after, top, left, cell, count, found):  # type: ignore[no-untyped-def]
    """How many spots of each known orientation have a peak within a distance; into `count`, shape (orientation,);
    the light of those peaks into `found`.

    start: Of each orientation among the spots, shape (orientation + 1,).  spots: Row and column, shape (spot, 2).
    """
    limit = within * within
    for g in range(len(start) - 1):
        count[g], found[g] = 0, 0.0
        for s in range(start[g], start[g + 1]):
            row, column = spots[s, 0], spots[s, 1]
            ci, cj = math.floor(row / cell - top), math.floor(column / cell - left)
            near = False
            for a in range(max(ci - 1, 0), min(ci + 2, first.shape[0])):
                for b in range(max(cj - 1, 0), min(cj + 2, first.shape[1])):
                    p = first[a, b]
                    while p >= 0 and not near:
                        near = use[p] and (peaks[p, 0] - row) ** 2 + (peaks[p, 1] - column) ** 2 <= limit
                        if near:
                            found[g] += light[p]
                        p = after[p]
            count[g] += near
