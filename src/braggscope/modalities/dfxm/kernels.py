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
ORDERS = 8  # power sums of each motor; the error bar of the kurtosis needs the eighth
BIG = np.float32(1e30)
NO_DATA, NO_SIGNAL, NO_BACKGROUND, TRUNCATED, MASKED, TOO_NARROW = 1, 2, 4, 8, 16, 32
CUT = np.float32(0.05)  # of the highest bin: a bin at the end of the scan above it means that the peak is cut
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
def find_pedestal(bins, table, neighbours, edge, variance, gain, dark, found, flag):  # type: ignore[no-untyped-def]
    """Pedestal of each pixel of a tile: the mean over the scan bins outside its own peak.

    From the lowest bin upwards, bins within 5 standard deviations of it, then those within 3.2 of their mean, belong to the
    background; bins beside one that does not are left out as well, for they may hold a tail. The mean over all bins that stay has
    no bias from choosing low ones.

    bins: Summed counts, shape (bin, pixel).
    table: For each bin the number of frames and the sums over them of the coordinate terms, float32, shape (1 + term, bin).
    neighbours: Bins beside (or equal to) each bin, shape (bin, neighbour), at least two.
    edge: Whether a bin lies at an end of the scan, shape (bin,).
    variance: Of one count at the level `dark`; each detector unit above adds `gain`.
    found: Result, float32, shape (3 + term, pixel): pedestal, frames outside the peak, variance of a count there; then the
        sums of the coordinate terms over the frames outside the peak.
    flag: Bits NO_BACKGROUND and TRUNCATED are set, shape (pixel,).
    """
    count, size = bins.shape
    zero, one = np.float32(0.0), np.float32(1.0)
    mean, hot, extra = np.empty((count, size), np.float32), np.empty((count, size), np.float32), np.zeros((5, size), np.float32)
    below, deviation, clear, outside, top = extra[0], extra[1], extra[2], extra[3], extra[4]
    level, kept, var = found[0], found[1], found[2]
    for p in range(size):
        level[p] = BIG
        kept[p] = zero
    for b in range(count):
        row, to = bins[b], mean[b]
        inverse = one / table[0, b] if table[0, b] > 0 else zero
        lift = zero if table[0, b] > 0 else BIG
        for p in range(size):
            value = np.float32(row[p]) * inverse
            to[p] = value
            level[p] = value + lift if value + lift < level[p] else level[p]
            top[p] = value if value > top[p] else top[p]
    for p in range(size):
        excess = level[p] - dark
        var[p] = variance + (gain * excess if excess > zero else zero)
        deviation[p] = np.sqrt(var[p])
    for b in range(count):
        row, frames = mean[b], table[0, b]
        allowed = np.float32(5.0) / np.sqrt(frames) if frames > 0 else zero
        for p in range(size):
            weight = frames if row[p] <= level[p] + allowed * deviation[p] else zero
            kept[p] += weight
            below[p] += weight * row[p]
    for p in range(size):
        level[p] = below[p] / kept[p]
        below[p] = zero
    for b in range(count):
        row, mark = mean[b], hot[b]
        allowed = np.float32(3.2) / np.sqrt(table[0, b]) if table[0, b] > 0 else BIG
        for p in range(size):
            mark[p] = zero if row[p] <= level[p] + allowed * deviation[p] else one
        if edge[b]:
            for p in range(size):
                flag[p] |= TRUNCATED if mark[p] * (row[p] - level[p]) > CUT * (top[p] - level[p]) else 0
    found[3:] = zero
    for b in range(count):
        row, frames = mean[b], table[0, b]
        mark, before, after = hot[b], hot[neighbours[b, 0]], hot[neighbours[b, 1]]
        for p in range(size):
            outside[p] = one if mark[p] + before[p] + after[p] == zero else zero
        for i in range(2, neighbours.shape[1]):
            mark = hot[neighbours[b, i]]
            for p in range(size):
                outside[p] = outside[p] if mark[p] == zero else zero
        for p in range(size):
            weight = outside[p] * frames
            clear[p] += weight
            below[p] += weight * row[p]
        for k in range(1, len(table)):
            to, term = found[2 + k], table[k, b]
            for p in range(size):
                to[p] += outside[p] * term
    for p in range(size):
        some = clear[p] > zero
        level[p] = below[p] / clear[p] if some else level[p]
        kept[p] = clear[p] if some else kept[p]
        flag[p] |= 0 if some else NO_BACKGROUND


@_compiled
def motor_moments(work, points, unit):  # type: ignore[no-untyped-def]
    """Mean, width, skewness and excess kurtosis of a tile of pixels along one motor, each with its standard deviation.

    A quantity q has the derivative q'(t) / T by the count at coordinate t, a polynomial in t:
    mean w t; width w (t^2 - 1) / 2; skewness t^3 - 1.5 s t^2 - 3 t + s / 2; kurtosis t^4 - 2 k t^2 - 4 s t + k
    (k before 3 is subtracted). The variance is then, with A = sum q' over all frames and O over the n frames outside the peak,
    gain <q'^2> / T + var (sum q'^2 - 2 A O / n + A^2 / n) / T^2: counting, read-out and the error of the pedestal.

    work: Rows of TILE pixels in one piece, for the compiler to see that they are apart: 0 to 7 power sums of the counts of orders
        1 to 8; 8 pedestal; 9 1 / n, or 0 where the pedestal is given; 10 variance of a count; 11 n; 12 T; 13 to 16 power sums
        over the frames outside the peak, orders 1 to 4; 17 to 24 the result, quantity and standard deviation in turn.
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
    work = np.zeros((25 * motors + 7 * len(pairs), TILE))
    rows = np.empty(8 * motors + 4 * len(pairs), np.int64)
    for k in range(8 * motors):
        rows[k] = k // 8 * 25 + k % 8
    for k in range(4 * len(pairs)):
        rows[8 * motors + k] = 25 * motors + k // 4 * 7 + k % 4
    wide, found = np.empty((8, TILE)), np.zeros((3 + terms, TILE), np.float32)
    scan = np.zeros((count, TILE), bins.dtype)
    flat = work.reshape(work.size)
    frame_count, gain = points[0, 0], noise[0]
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        for k in range(len(rows)):
            to = work[rows[k]]
            to[:] = 0.0
            if sums.shape[1]:
                to[:size] = sums[k, first : first + size]
        for b in range(count):
            scan[b] = 0
            if sums.shape[1]:
                scan[b, :size] = bins[b, first : first + size]
        add_frames(frames, weights, bin_of, first, work, rows, scan[:, :size], wide)
        level, free, var, kept, total = work[8], work[9], work[10], work[11], work[12]
        total[:] = 0.0
        for b in range(count):
            row = scan[b]
            for p in range(TILE):
                total[p] += row[p]
        if np.isnan(given):
            find_pedestal(
                scan[:, :size], table, neighbours, edge, np.float32(noise[1]), np.float32(gain), np.float32(noise[2]),
                found[:, :size], flag[first : first + size],
            )  # fmt: skip
            for p in range(TILE):
                level[p], var[p], kept[p] = found[0, p], found[2, p], found[1, p]
                free[p] = 1.0 / kept[p]
        else:
            level[:], var[:], kept[:], free[:] = given, noise[1], 0.0, 0.0
        for p in range(TILE):
            total[p] -= frame_count * level[p]
        spread = wide[0]
        for p in range(TILE):
            spread[p] = np.sqrt(gain * max(0.0, total[p]) + var[p] * frame_count * abs(frame_count * free[p] - 1.0))
        for p in range(size):
            out[0, first + p], out[1, first + p] = level[p], np.sqrt(var[p] * free[p])
            out[2, first + p], out[3, first + p] = total[p], spread[p]
        for motor in range(motors):
            at = 25 * motor
            if motor:
                work[at + 8 : at + 13] = work[8:13]
            for k in range(4):
                work[at + 13 + k] = found[3 + 4 * motor + k]
            unit = np.array([gain, units[motor, 0], units[motor, 1]])
            motor_moments(flat[at * TILE : (at + 25) * TILE], points[motor], unit)
            out[4 + 8 * motor : 12 + 8 * motor, first : first + size] = work[at + 17 : at + 25, :size]
        for i in range(len(pairs)):
            x, y, at = int(pairs[i, 0]), int(pairs[i, 1]), 25 * motors + 7 * i
            work[at + 4] = found[3 + 4 * motors + i]
            s = pairs[i]
            sizes = (s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10])
            pair_moments(work, 25 * x, 25 * y, at, sizes, gain, units[x, 0] * units[y, 0])
            out[4 + 8 * motors + 2 * i, first : first + size] = work[at + 5, :size]
            out[5 + 8 * motors + 2 * i, first : first + size] = work[at + 6, :size]
        for p in range(size):
            if not total[p] > SIGNIFICANT * spread[p]:
                flag[first + p] |= NO_SIGNAL


@_compiled
def blank(out, flag, motors, start, stop):  # type: ignore[no-untyped-def]
    """Set to NaN what cannot be known: the moments of pixels without signal, the shape of peaks narrower than the noise."""
    for p in range(start, stop):
        if flag[p] & NO_SIGNAL:
            flag[p] &= ~(TRUNCATED | NO_BACKGROUND)
            for k in range(4, len(out)):
                out[k, p] = np.nan
        else:
            for motor in range(motors):
                at = 4 + 8 * motor
                if not out[at + 2, p] > 0.0:
                    flag[p] |= TOO_NARROW
                    for k in range(at + 2, at + 8):
                        out[k, p] = np.nan
