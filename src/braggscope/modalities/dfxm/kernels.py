"""Compiled sums over frames and moments of pixels, single-threaded and without the interpreter lock (infer.runtime runs them).

Pixels are worked through in tiles that stay in the cache, so that a stack is read from memory once. Coordinates are in units of
the motor step from the middle of the scan: on a regular grid they are whole or half numbers, the float64 power sums of whole
counts are then exact, and no order of the frames changes a bit of the result.

Symbols: y counts, u coordinate, p pedestal, T = sum(y - p), m mean, w width, t = (u - m) / w, alpha_k = sum (y - p) t^k / T.
"""

from __future__ import annotations

import numpy as np
from numba import njit

TILE = 256  # pixels; what one motor needs of them stays in the first-level cache
ROWS, SPREAD_OF_PEDESTAL, SPREAD_OF_TOTAL = 27, 25, 26  # work space of one motor, see `motor_moments`; the last two of the first
ORDERS = 8  # power sums of each motor; the error bar of the kurtosis needs the eighth
BIG = np.float32(1e30)
U = np.uint64  # indices of this type are not tested for being negative, which lets loops be vectorised
NO_DATA, NO_SIGNAL, NO_BACKGROUND, TRUNCATED, MASKED, SHAPE_UNKNOWN = 1, 2, 4, 8, 16, 32
CUT = np.float32(0.05)  # of the highest bin: a bin at the end of the scan above it means that the peak may be cut
KNOWN = 0.1  # relative error of the width above which skewness and kurtosis, and their errors, mean nothing
CLEAR = 1.9  # widths from the mean to the end of the scan: what a Gaussian cut at 1.5 of its own widths has (7 % lost)
SIGNIFICANT = 5.0  # standard deviations of the total below which there is no peak to speak of

_compiled = njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp", "reassoc"}, error_model="numpy")


@_compiled
def add_frames(frames, weights, bin_of, first, sums, rows, bins, wide):  # type: ignore[no-untyped-def]
    """Add the counts of some frames to the power sums and to the scan bins of a tile of pixels.

    frames: Counts, shape (frame, pixel of the detector).
    weights: Products of coordinates of each frame, shape (term, frame); the number of terms is even.
    bin_of: Scan bin of each frame.
    first: First pixel of the tile.
    sums, bins: Changed in place, shapes (row, pixel) and (bin, pixel).
    rows: Row of each term in `sums`; terms 2 i and 2 i + 1 follow each other.
    wide: Work space for eight frames, float64, shape (8, pixel).
    """
    count, size = frames.shape[0], bins.shape[1]
    for f in range(count):
        row, to = frames[f, first : first + size], bins[bin_of[f]]
        for p in range(size):
            to[p] += bins.dtype.type(row[p])
    v0, v1, v2, v3, v4, v5, v6, v7 = wide[0], wide[1], wide[2], wide[3], wide[4], wide[5], wide[6], wide[7]
    for f in range(0, count - 7, 8):
        for j in range(8):
            row, to = frames[f + j, first : first + size], wide[j]
            for p in range(size):
                to[p] = row[p]
        for k in range(0, len(rows), 2):
            a, b = sums[rows[k]], sums[rows[k] + 1]
            a0, a1, a2, a3 = weights[k, f], weights[k, f + 1], weights[k, f + 2], weights[k, f + 3]
            a4, a5, a6, a7 = weights[k, f + 4], weights[k, f + 5], weights[k, f + 6], weights[k, f + 7]
            b0, b1, b2, b3 = weights[k + 1, f], weights[k + 1, f + 1], weights[k + 1, f + 2], weights[k + 1, f + 3]
            b4, b5, b6, b7 = weights[k + 1, f + 4], weights[k + 1, f + 5], weights[k + 1, f + 6], weights[k + 1, f + 7]
            for p in range(size):
                a[p] += (a0 * v0[p] + a1 * v1[p] + a2 * v2[p] + a3 * v3[p]) + (a4 * v4[p] + a5 * v5[p] + a6 * v6[p] + a7 * v7[p])
                b[p] += (b0 * v0[p] + b1 * v1[p] + b2 * v2[p] + b3 * v3[p]) + (b4 * v4[p] + b5 * v5[p] + b6 * v6[p] + b7 * v7[p])
    for f in range(count - count % 8, count):
        row = frames[f, first : first + size]
        for p in range(size):
            v0[p] = row[p]
        for k in range(len(rows)):
            a, weight = sums[rows[k]], weights[k, f]
            for p in range(size):
                a[p] += weight * v0[p]


@_compiled
def find_pedestal(bins, table, neighbours, edge, noise, work, flag):  # type: ignore[no-untyped-def]
    """Pedestal of each pixel of a tile: the mean over the scan bins outside its own peak.

    From the lowest bin upwards, bins within 5 standard deviations of it, then those within 3.2 of their mean, belong to the
    background; bins beside one that does not are left out as well, for they may hold a tail. The mean over all bins that stay has
    no bias from choosing low ones. Where none stays, the pedestal lies between the level of darkness and the lowest bins, both
    included: the former is taken, and a third of the distance's root mean square is its error.

    bins: Summed counts, shape (bin, TILE).
    table: For each bin the number of frames and the sums over them of the coordinate terms, float32, shape (1 + term, bin).
    neighbours: Bins beside (or equal to) each bin, shape (bin, neighbour), a multiple of four.
    edge: Whether a bin lies at an end of the scan, shape (bin,).
    noise: Gain, variance of a count at the level of darkness, that level; each detector unit above it adds the gain; float32.
    work: Rows of TILE pixels in one piece, float32. Results: 0 pedestal; 1 frames outside the peak, 0 where there are none;
        2 variance of a count there; 3 variance of the pedestal; from 9 on the sums of the coordinate terms over the frames
        outside the peak. 4 to 8 and, after the terms, two rows for each bin are work space.
    flag: Bits NO_BACKGROUND and TRUNCATED are set, shape (pixel,), at most TILE.
    """
    gain, variance, dark = noise[0], noise[1], noise[2]
    zero, one, tile = np.float32(0.0), np.float32(1.0), U(TILE)
    count, terms = U(len(bins)), U(len(table) - 1)
    means = (U(9) + terms) * tile
    hots = means + count * tile
    for p in range(tile):
        work[p] = BIG
        work[tile + p] = work[U(4) * tile + p] = work[U(5) * tile + p] = work[U(6) * tile + p] = work[U(8) * tile + p] = zero
    for b in range(count):
        inverse = one / table[0, b] if table[0, b] > 0 else zero
        lift, at = zero if table[0, b] > 0 else BIG, means + b * tile
        for p in range(tile):
            value = np.float32(bins[b, p]) * inverse
            work[at + p] = value
            work[p] = value + lift if value + lift < work[p] else work[p]
            work[U(8) * tile + p] = value if value > work[U(8) * tile + p] else work[U(8) * tile + p]
    for p in range(tile):
        excess = work[p] - dark
        work[U(2) * tile + p] = variance + (gain * excess if excess > zero else zero)
        work[U(7) * tile + p] = np.sqrt(work[U(2) * tile + p])
    for b in range(count):
        frames, at = table[0, b], means + b * tile
        allowed = np.float32(5.0) / np.sqrt(frames) if frames > 0 else zero
        for p in range(tile):
            weight = frames if work[at + p] <= work[p] + allowed * work[U(7) * tile + p] else zero
            work[U(4) * tile + p] += weight
            work[U(5) * tile + p] += weight * work[at + p]
    for p in range(tile):
        work[p] = work[U(5) * tile + p] / work[U(4) * tile + p]
        work[U(5) * tile + p] = zero
    for b in range(count):
        allowed, at = np.float32(3.2) / np.sqrt(table[0, b]) if table[0, b] > 0 else BIG, means + b * tile
        mark = hots + b * tile
        for p in range(tile):
            work[mark + p] = zero if work[at + p] <= work[p] + allowed * work[U(7) * tile + p] else one
    for k in range(terms):
        for p in range(tile):
            work[(U(9) + k) * tile + p] = zero
    for b in range(count):
        for n in range(U(0), U(neighbours.shape[1]), U(4)):
            h0, h1 = hots + neighbours[b, n] * tile, hots + neighbours[b, n + U(1)] * tile
            h2, h3, own = hots + neighbours[b, n + U(2)] * tile, hots + neighbours[b, n + U(3)] * tile, hots + b * tile
            for p in range(tile):
                hot = (work[h0 + p] + work[h1 + p]) + (work[h2 + p] + work[h3 + p]) + work[own + p]
                work[U(6) * tile + p] = hot if n == U(0) else work[U(6) * tile + p] + hot
        frames, at = table[0, b], means + b * tile
        t1, t2, t3, t4 = table[1, b], table[2, b], table[3, b], table[4, b]
        for p in range(tile):
            outside = one if work[U(6) * tile + p] == zero else zero
            work[U(6) * tile + p] = outside
            work[tile + p] += outside * frames
            work[U(5) * tile + p] += outside * frames * work[at + p]
            work[U(9) * tile + p] += outside * t1
            work[U(10) * tile + p] += outside * t2
            work[U(11) * tile + p] += outside * t3
            work[U(12) * tile + p] += outside * t4
        for k in range(U(4), terms):
            term, to = table[U(1) + k, b], (U(9) + k) * tile
            for p in range(tile):
                work[to + p] += work[U(6) * tile + p] * term
    for p in range(tile):
        kept, var = work[tile + p], work[U(2) * tile + p]
        low = work[p] if work[p] < dark else dark
        lost = work[p] - low
        work[p] = work[U(5) * tile + p] / kept if kept > zero else low
        work[U(3) * tile + p] = var / kept if kept > zero else lost * lost / np.float32(3.0) + var / work[U(4) * tile + p]
    for p in range(U(len(flag))):
        flag[p] |= 0 if work[tile + p] > zero else NO_BACKGROUND
    for b in range(count):
        if edge[b] and table[0, b] > 0:
            allowed, at = np.float32(3.2) / np.sqrt(table[0, b]), means + b * tile
            for p in range(U(len(flag))):
                excess = work[at + p] - work[p]
                least = max(allowed * work[U(7) * tile + p], CUT * (work[U(8) * tile + p] - work[p]))
                flag[p] |= TRUNCATED if excess > least else 0


@_compiled
def motor_moments(work, points, unit):  # type: ignore[no-untyped-def]
    """Mean, width, skewness and excess kurtosis of a tile of pixels along one motor, each with its standard deviation.

    A quantity q has the derivative q'(t) / T by the count at coordinate t, a polynomial in t:
    mean w t; width w (t^2 - 1) / 2; skewness t^3 - 1.5 s t^2 - 3 t + s / 2; kurtosis t^4 - 2 k t^2 - 4 s t + k
    (k before 3 is subtracted). The variance is then, with A = sum q' over all frames and O over the n frames outside the peak,
    gain <q'^2> / T + var (sum q'^2 - 2 A O / n + A^2 / n) / T^2: counting, read-out and the error of the pedestal.

    work: Rows of TILE pixels in one piece, for the compiler to see that they are apart: 0 to 7 power sums of the counts of orders
        1 to 8; 8 pedestal; 9 its variance over that of a count (1 / n, or 0 where it is given); 10 variance of a count; 11 n;
        12 T; 13 to 16 power sums over the frames outside the peak, orders 1 to 4; 17 to 24 the result, quantity and standard
        deviation in turn.
    points: Power sums of the coordinates of all frames, orders 0 to 8.
    unit: Gain, what one coordinate unit is, and where zero is, in motor units.
    """
    gain, scale, origin = unit[0], unit[1], unit[2]
    n0 = points[0]
    for p in range(TILE):
        level, free, var = work[8 * TILE + p], work[9 * TILE + p], work[10 * TILE + p]
        frames, inverse = work[11 * TILE + p], 1.0 / work[12 * TILE + p]
        s1, s2 = (work[0 * TILE + p] - level * points[1]) * inverse, (work[1 * TILE + p] - level * points[2]) * inverse
        s3, s4 = (work[2 * TILE + p] - level * points[3]) * inverse, (work[3 * TILE + p] - level * points[4]) * inverse
        s5, s6 = (work[4 * TILE + p] - level * points[5]) * inverse, (work[5 * TILE + p] - level * points[6]) * inverse
        s7, s8 = (work[6 * TILE + p] - level * points[7]) * inverse, (work[7 * TILE + p] - level * points[8]) * inverse
        _, c2, c3, c4, c5, c6, _, c8 = _about(s1, 1.0, s1, s2, s3, s4, s5, s6, s7, s8)
        q1, q2, q3, q4, q5, q6, _, q8 = _about(
            s1, n0, points[1], points[2], points[3], points[4], points[5], points[6], points[7], points[8]
        )
        o1, o2, o3, o4 = _about4(s1, frames, work[13 * TILE + p], work[14 * TILE + p], work[15 * TILE + p], work[16 * TILE + p])
        mean_var = inverse * (gain * max(0.0, c2) + var * inverse * _read(q2, q1, o1, free))
        w = np.sqrt(c2)
        r = 1.0 / w
        r2, r3, r4 = r * r, r * r * r, r * r * r * r
        c5, c6, c8 = c5 * r4 * r, c6 * r4 * r2, c8 * r4 * r4
        s, k = c3 * r3, c4 * r4
        q1, q2, q3, q4, q5, q6, q8 = q1 * r, q2 * r2, q3 * r3, q4 * r4, q5 * r4 * r, q6 * r4 * r2, q8 * r4 * r4
        o1, o2, o3, o4 = o1 * r, o2 * r2, o3 * r3, o4 * r4

        a0, a1, a2 = 0.5 * s, -3.0, -1.5 * s
        b3, b2, b1 = 2 * (a0 + a1 * a2), a1 * a1 + 2 * a0 * a2, 2 * a0 * a1
        skew2 = c6 + 2 * a2 * c5 + (a2 * a2 + 2 * a1) * k + b3 * s + b2 + a0 * a0
        skew2_all = q6 + 2 * a2 * q5 + (a2 * a2 + 2 * a1) * q4 + b3 * q3 + b2 * q2 + b1 * q1 + a0 * a0 * n0
        skew_all, skew_out = q3 + a2 * q2 + a1 * q1 + a0 * n0, o3 + a2 * o2 + a1 * o1 + a0 * frames

        e0, e1, e2 = k, -4.0 * s, -2.0 * k
        f3, f2, f1 = 2 * e1 * e2, e1 * e1 + 2 * e0 * e2, 2 * e0 * e1
        kurt2 = c8 + 2 * e2 * c6 + 2 * e1 * c5 + (e2 * e2 + 2 * e0) * k + f3 * s + f2 + e0 * e0
        kurt2_all = q8 + 2 * e2 * q6 + 2 * e1 * q5 + (e2 * e2 + 2 * e0) * q4 + f3 * q3 + f2 * q2 + f1 * q1 + e0 * e0 * n0
        kurt_all, kurt_out = q4 + e2 * q2 + e1 * q1 + e0 * n0, o4 + e2 * o2 + e1 * o1 + e0 * frames

        gain_t, var_t, size = gain * inverse, var * inverse * inverse, abs(scale) * w
        work[17 * TILE + p] = origin + scale * s1
        work[18 * TILE + p] = abs(scale) * np.sqrt(mean_var)
        work[19 * TILE + p] = size
        work[20 * TILE + p] = (
            0.5 * size * np.sqrt(gain_t * max(0.0, k - 1.0) + var_t * _read(q4 - 2 * q2 + n0, q2 - n0, o2 - frames, free))
        )
        work[21 * TILE + p] = s * np.sign(scale)
        work[22 * TILE + p] = np.sqrt(gain_t * max(0.0, skew2) + var_t * _read(skew2_all, skew_all, skew_out, free))
        work[23 * TILE + p] = k - 3.0
        work[24 * TILE + p] = np.sqrt(gain_t * max(0.0, kurt2) + var_t * _read(kurt2_all, kurt_all, kurt_out, free))


@_compiled
def _read(squares, everywhere, outside, free):  # type: ignore[no-untyped-def]
    """sum q'^2 - 2 A O / n + A^2 / n, which is not negative."""
    return max(0.0, squares - 2 * everywhere * outside * free + everywhere * everywhere * free)


@_compiled
def _about(m, s0, s1, s2, s3, s4, s5, s6, s7, s8):  # type: ignore[no-untyped-def]
    """Moments 1 to 8 about m from those about zero: eight times multiplied by (u - m)."""
    s8, s7, s6, s5 = s8 - m * s7, s7 - m * s6, s6 - m * s5, s5 - m * s4
    s4, s3, s2, s1 = s4 - m * s3, s3 - m * s2, s2 - m * s1, s1 - m * s0
    s8, s7, s6, s5, s4, s3, s2 = s8 - m * s7, s7 - m * s6, s6 - m * s5, s5 - m * s4, s4 - m * s3, s3 - m * s2, s2 - m * s1
    s8, s7, s6, s5, s4, s3 = s8 - m * s7, s7 - m * s6, s6 - m * s5, s5 - m * s4, s4 - m * s3, s3 - m * s2
    s8, s7, s6, s5, s4 = s8 - m * s7, s7 - m * s6, s6 - m * s5, s5 - m * s4, s4 - m * s3
    s8, s7, s6, s5 = s8 - m * s7, s7 - m * s6, s6 - m * s5, s5 - m * s4
    s8, s7, s6 = s8 - m * s7, s7 - m * s6, s6 - m * s5
    s8, s7 = s8 - m * s7, s7 - m * s6
    return s1, s2, s3, s4, s5, s6, s7, s8 - m * s7


@_compiled
def _about4(m, s0, s1, s2, s3, s4):  # type: ignore[no-untyped-def]
    """The same up to the fourth."""
    s4, s3, s2, s1 = s4 - m * s3, s3 - m * s2, s2 - m * s1, s1 - m * s0
    s4, s3, s2 = s4 - m * s3, s3 - m * s2, s2 - m * s1
    s4, s3 = s4 - m * s3, s3 - m * s2
    return s1, s2, s3, s4 - m * s3


@_compiled
def pair_moments(work, x, y, at, sizes, gain, scale):  # type: ignore[no-untyped-def]
    """Covariance of two motors and its standard deviation, for a tile of pixels; see `motor_moments`.

    With z the distance from the mean, q' = z_x z_y - covariance.

    work: Shape (row, TILE): the rows of motor x from row x on, of motor y from row y on; from row `at` on the sums of the counts
        times xy, x2y, xy2, x2y2, the sum of xy over the frames outside the peak, and the two results.
    sizes: Sums over all frames of 1, x, y, x2, y2, xy, x2y, xy2, x2y2.
    """
    n, nx, ny, nxx, nyy, nxy, nxxy, nxyy, nxxyy = sizes
    for p in range(TILE):
        level, free, var, frames = work[x + 8, p], work[x + 9, p], work[x + 10, p], work[x + 11, p]
        inverse = 1.0 / work[x + 12, p]
        mx, my = (work[x, p] - level * nx) * inverse, (work[y, p] - level * ny) * inverse
        xx, yy = (work[x + 1, p] - level * nxx) * inverse, (work[y + 1, p] - level * nyy) * inverse
        xy, xxy = (work[at, p] - level * nxy) * inverse, (work[at + 1, p] - level * nxxy) * inverse
        xyy, xxyy = (work[at + 2, p] - level * nxyy) * inverse, (work[at + 3, p] - level * nxxyy) * inverse
        c = xy - mx * my
        square = _square(mx, my, 1.0, mx, my, xx, yy, xy, xxy, xyy, xxyy) - c * c
        all_xy = nxy - my * nx - mx * ny + n * mx * my
        squares = _square(mx, my, n, nx, ny, nxx, nyy, nxy, nxxy, nxyy, nxxyy) - 2 * c * all_xy + c * c * n
        out = work[at + 4, p] - my * work[x + 13, p] - mx * work[y + 13, p] + frames * (mx * my - c)
        work[at + 5, p] = scale * c
        work[at + 6, p] = abs(scale) * np.sqrt(
            gain * inverse * max(0.0, square) + var * inverse * inverse * _read(squares, all_xy - c * n, out, free)
        )


@_compiled
def _square(mx, my, n, x, y, xx, yy, xy, xxy, xyy, xxyy):  # type: ignore[no-untyped-def]
    """Sum of (x - mx)^2 (y - my)^2 from the sums of the products."""
    mixed = xxyy - 2 * my * xxy - 2 * mx * xyy + my * my * xx + mx * mx * yy + 4 * mx * my * xy
    return mixed - 2 * mx * my * my * x - 2 * mx * mx * my * y + n * mx * mx * my * my


@_compiled
def fold(frames, weights, bin_of, sums, bins, start, stop):  # type: ignore[no-untyped-def]
    """Add the counts of some frames to the sums of pixels start to stop."""
    wide, rows = np.empty((8, TILE)), np.arange(len(sums))
    for first in range(start, stop, TILE):
        last = min(first + TILE, stop)
        add_frames(frames, weights, bin_of, first, sums[:, first:last], rows, bins[:, first:last], wide)


@_compiled
def moments(  # type: ignore[no-untyped-def]
    frames, weights, bin_of, sums, bins, table, neighbours, edge, points, pairs, given, noise, units, start, stop, out, flag
):
    """The quantities of pixels start to stop, from the sums so far and from frames that are not in them yet.

    frames, weights, bin_of: See `add_frames`; frames that are in no sum yet (there may be none).
    sums, bins: Sums so far, shapes (term, pixel) and (bin, pixel), or of no pixel where there are none yet.
    table, neighbours, edge: See `find_pedestal`.
    points: Power sums of the coordinates of all frames, shape (motor, 9).
    pairs: For each pair of motors their numbers and the sums that `pair_moments` needs, shape (pair, 11).
    given: The pedestal, or NaN to find it.
    noise: Gain, variance of a count at the level of darkness, that level; float64.
    units: Step and middle of each motor, shape (motor, 2).
    out: Result, shape (quantity, pixel): pedestal, total, the moments of each motor, covariances, each with its std.
    flag: Bits are added, shape (pixel,).
    """
    motors, count = len(points), len(edge)
    terms = len(table) - 1
    work = np.zeros((ROWS * motors + 7 * len(pairs), TILE))
    rows = np.empty(8 * motors + 4 * len(pairs), np.int64)
    for k in range(8 * motors):
        rows[k] = k // 8 * ROWS + k % 8
    for k in range(4 * len(pairs)):
        rows[8 * motors + k] = ROWS * motors + k // 4 * 7 + k % 4
    wide, room = np.empty((8, TILE)), np.zeros((9 + terms + 2 * count) * TILE, np.float32)
    found, single = room.reshape(len(room) // TILE, TILE), noise.astype(np.float32)
    scan = np.zeros((count, TILE), bins.dtype)
    flat = work.reshape(work.size)
    frame_count, gain = points[0, 0], noise[0]
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        for k in range(len(rows)):
            to = work[rows[k]]
            if sums.shape[1]:
                _copy(to[:size], sums[k, first : first + size])
            else:
                _fill(to, 0.0)
        for b in range(count):
            if sums.shape[1]:
                _copy(scan[b, :size], bins[b, first : first + size])
            else:
                _fill(scan[b], 0)
        add_frames(frames, weights, bin_of, first, work, rows, scan[:, :size], wide)
        _fill(work[12], 0.0)
        for b in range(count):
            _add(work[12], scan[b])
        if np.isnan(given):
            find_pedestal(scan, table, neighbours, edge, single, room, flag[first : first + size])
        else:
            for k, value in enumerate((given, 0.0, noise[1], 0.0)):
                _fill(found[k], np.float32(value))
        _signal(flat, room, given, frame_count, gain, flag[first : first + size])
        for k, row in enumerate((8, SPREAD_OF_PEDESTAL, 12, SPREAD_OF_TOTAL)):
            _copy(out[k, first : first + size], work[row, :size])
        for motor in range(motors):
            at = ROWS * motor
            for row in range(8, 13):
                if motor:
                    _copy(work[at + row], work[row])
            for k in range(4):
                _copy(work[at + 13 + k], found[9 + 4 * motor + k])
            unit = np.array([gain, units[motor, 0], units[motor, 1]])
            motor_moments(flat[at * TILE : (at + ROWS) * TILE], points[motor], unit)
            for k in range(8):
                _copy(out[4 + 8 * motor + k, first : first + size], work[at + 17 + k, :size])
        for i in range(len(pairs)):
            x, y, at = int(pairs[i, 0]), int(pairs[i, 1]), ROWS * motors + 7 * i
            _copy(work[at + 4], found[9 + 4 * motors + i])
            s = pairs[i]
            sizes = (s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10])
            pair_moments(work, ROWS * x, ROWS * y, at, sizes, gain, units[x, 0] * units[y, 0])
            for k in range(2):
                _copy(out[4 + 8 * motors + 2 * i + k, first : first + size], work[at + 5 + k, :size])


@_compiled
def _signal(work, found, given, frames, gain, flag):  # type: ignore[no-untyped-def]
    """Rows 8 to 12 of `motor_moments` and the errors of pedestal and total, from the pedestal found and the sum of the counts.

    work: As in `motor_moments`, in whose row 12 the sum of the counts is replaced by that above the pedestal.
    found: As in `find_pedestal`.  given: The pedestal, or NaN.  flag: Bit NO_SIGNAL is set.
    """
    t = U(TILE)
    for p in range(t):
        level = given if given == given else np.float64(found[p])  # NaN where it was to be found
        kept, var, doubt = np.float64(found[t + p]), found[U(2) * t + p], found[U(3) * t + p]
        free = doubt / var if var > 0.0 else 0.0
        total = work[U(12) * t + p] - frames * level
        work[U(8) * t + p], work[U(9) * t + p], work[U(10) * t + p], work[U(11) * t + p] = level, free, var, kept
        work[U(12) * t + p] = total
        counting = gain * (total if total > 0.0 else 0.0) + var * frames
        work[U(SPREAD_OF_PEDESTAL) * t + p] = np.sqrt(np.float64(doubt))
        # a scan that is background throughout has no total by construction, which is no knowledge of it
        work[U(SPREAD_OF_TOTAL) * t + p] = np.sqrt(
            counting + (var * frames * free * (frames - 2.0 * kept) if kept < frames else 0.0)
        )
        # doubt about the pedestal of a peak that fills the scan is no doubt that there is a peak; where all is background, the
        # total is what rounding left of zero, and has no spread by construction
        certain = kept == 0.0 or kept >= frames
        found[U(4) * t + p] = counting if certain else counting + var * frames * free * (frames - 2.0 * kept)
    for p in range(U(len(flag))):
        total, variance = work[U(12) * t + p], found[U(4) * t + p]
        flag[p] |= 0 if total > 0.0 and total * total > SIGNIFICANT * SIGNIFICANT * variance else NO_SIGNAL


@_compiled
def _copy(to, values):  # type: ignore[no-untyped-def]
    for p in range(len(to)):
        to[p] = values[p]


@_compiled
def _add(to, values):  # type: ignore[no-untyped-def]
    for p in range(len(to)):
        to[p] += values[p]


@_compiled
def _fill(to, value):  # type: ignore[no-untyped-def]
    for p in range(len(to)):
        to[p] = value


@_compiled
def blank(out, flag, ends, start, stop):  # type: ignore[no-untyped-def]
    """Set to NaN what cannot be known: the moments of pixels without signal, the shape of peaks that the noise hides.

    A peak that has counts in the outermost bins, which are coarse, is cut only if its mean is near an end of the scan.

    ends: Lowest and highest position of each motor, in its unit, shape (motor, 2).
    """
    for p in range(start, stop):
        if flag[p] & NO_SIGNAL:
            flag[p] &= ~(TRUNCATED | NO_BACKGROUND)
            for k in range(4, len(out)):
                out[k, p] = np.nan
        else:
            clear = True
            for motor in range(len(ends)):
                at = 4 + 8 * motor
                room = min(out[at, p] - ends[motor, 0], ends[motor, 1] - out[at, p])
                clear &= room > CLEAR * out[at + 2, p]
                possible = out[at + 6, p] > out[at + 4, p] ** 2 - 2.01  # Pearson 1916; equal to - 2 for two positions
                if not (out[at + 2, p] * KNOWN > out[at + 3, p] and possible):
                    flag[p] |= SHAPE_UNKNOWN
                    for k in range(at + 4 if out[at + 2, p] > 0.0 else at + 2, at + 8):
                        out[k, p] = np.nan
            if clear:
                flag[p] &= ~TRUNCATED
