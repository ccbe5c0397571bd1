"""Fits of spots by two-dimensional Gaussians with inclination, each with its nearest neighbours in the same fit. Compiled.

    counts = background + sum_k amplitude_k exp(-|u|^2 / 2),  u_1 = (row - row_k) / s_1,  u_2 = (column - column_k) / s_2 - c u_1

with the variance V = V_tile + gain (counts - level), by Levenberg-Marquardt steps (infer.peak_kernels). A box around the spot is
fitted. Up to two other maxima in the box have parameters of their own; pixels that are nearer to still others are left out. A
spot that proves wide is fitted again in a box of twice the size. Saturated and masked pixels carry no weight.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from braggscope.infer.peak_kernels import GAUSSIAN, Space, climb, compiled, compiled_small, covariance, workspace

from .background import DEAD

SATURATED, MASKED, OVERLAPPING, FAILED, SHARP, BORDER = 1, 2, 4, 8, 16, 32
FLAGS = {
    SATURATED: "saturated", MASKED: "masked_pixels_in_the_spot", OVERLAPPING: "overlaps_another_spot",
    FAILED: "fit_failed_place_is_centroid", SHARP: "sharper_than_a_spot", BORDER: "cut_by_the_border",
}  # fmt: skip
PARAMETERS = 7  # background; amplitude, row, column, ln s_1, ln s_2, c
EACH = PARAMETERS - 1
TOGETHER = 3  # spots in a fit
STEPS = 30
SMALLEST, SHARPEST = 0.25, 0.4  # px: a sigma's lower bound; below the second no optics can have made the spot
CROSS = 8.0  # bound of c
WANDERS = 2.0  # px that a centre may move from its maximum, or half of sigma
CHI2, USED, FLAG, CENTRE_ROW, CENTRE_COLUMN, SUM, CONTRAST = range(7)
ABOUT = 7
NINE = math.sqrt(1 / 9 + 1 / 18)  # standard deviation of a contrast for counts of one
KNOWN = 2.0  # standard deviations of its amplitude that a fit must have


class Box(NamedTuple):
    """A box around a spot and the room to fit in it.

    half: Half of its side without the middle pixel.  x: Rows and columns from the middle, shape (2, point).
    """

    half: int
    x: np.ndarray
    counts: np.ndarray
    valid: np.ndarray
    theta: np.ndarray
    bounds: np.ndarray
    found: np.ndarray
    space: Space


def box(half: int) -> Box:
    """A box of 2 half + 1 pixels a side; points are added without weight up to a multiple of 16."""
    place = np.arange(-half, half + 1.0)
    x = np.stack([axis.ravel() for axis in np.meshgrid(place, place, indexing="ij")])
    x = np.ascontiguousarray(np.pad(x, ((0, 0), (0, -x.shape[1] % 16)), mode="edge"))
    size, points = 1 + TOGETHER * EACH, x.shape[1]
    room = workspace(size, 2, points)
    return Box(half, x, np.zeros(points), np.zeros(points), np.zeros(size), np.zeros((2, size)), np.zeros((size, size)), room)


@compiled_small
def _neighbours(rows, columns, i, reach, near):  # type: ignore[no-untyped-def]
    """List the maxima within reach of one along rows and columns, nearest first; how many."""
    count = 0
    for way in (-1, 1):
        j = i + way
        while 0 <= j < len(rows) and abs(rows[j] - rows[i]) <= reach:
            if abs(columns[j] - columns[i]) <= reach:
                if count == len(near):
                    break
                k, far = count, (rows[j] - rows[i]) ** 2 + (columns[j] - columns[i]) ** 2
                while k > 0 and (rows[near[k - 1]] - rows[i]) ** 2 + (columns[near[k - 1]] - columns[i]) ** 2 > far:
                    near[k] = near[k - 1]
                    k -= 1
                near[k] = j
                count += 1
            j += way
    return count


@compiled_small
def _gather(counts, saturation, row, column, level, sigma, box):  # type: ignore[no-untyped-def]
    """Take the counts in a box; flags of its pixels, and how many may be used."""
    half, flag, used, k = box.half, 0, 0, 0
    for r in range(row - half, row + half + 1):
        for c in range(column - half, column + half + 1):
            box.valid[k], box.counts[k] = 0.0, level
            close = abs(r - row) <= 2 and abs(c - column) <= 2
            if r < 0 or c < 0 or r >= counts.shape[0] or c >= counts.shape[1]:
                flag |= BORDER if close else 0
            else:
                v = counts[r, c]
                if v >= saturation:
                    flag |= SATURATED if close else 0
                    box.counts[k] = v
                elif v != v or (v == 0.0 and level > DEAD * sigma):
                    flag |= MASKED if close else 0
                else:
                    box.valid[k], box.counts[k] = 1.0, v
                    used += 1
            k += 1
    for i in range(k, len(box.valid)):
        box.valid[i], box.counts[i] = 0.0, level
    return flag, used


@compiled_small
def _moments(level, box):  # type: ignore[no-untyped-def]
    """Sum of light, centroid and mean second moment within 2 px of the middle of a box, from what is above the level."""
    side, total, by_row, by_column, square = 2 * box.half + 1, 0.0, 0.0, 0.0, 0.0
    for r in range(-2, 3):
        for c in range(-2, 3):
            light = max(box.counts[(r + box.half) * side + c + box.half] - level, 0.0)
            total += light
            by_row += light * r
            by_column += light * c
            square += light * (r * r + c * c)
    if total <= 0.0:
        return 0.0, 0.0, 0.0, 1.0
    return total, by_row / total, by_column / total, 0.5 * square / total


@compiled_small
def _start(box, level, sigma, rows, columns, i, near, joint, spread):  # type: ignore[no-untyped-def]
    """Starting values and bounds of a spot and the next ones."""
    side, half, brightest = 2 * box.half + 1, box.half, 0.0
    for k in range(len(box.counts)):
        brightest = max(brightest, box.counts[k])
    span = max(brightest - level, 5 * sigma)
    box.theta[0], box.bounds[0, 0], box.bounds[1, 0] = level, level - 0.5 * span - 5 * sigma, level + span
    for k in range(joint + 1):
        which = i if k == 0 else near[k - 1]
        r, c, at = rows[which] - rows[i], columns[which] - columns[i], 1 + EACH * k
        box.theta[at] = max(box.counts[(r + half) * side + c + half] - level, sigma)
        box.theta[at + 1], box.theta[at + 2] = r, c
        box.theta[at + 3] = box.theta[at + 4] = math.log(spread)
        box.theta[at + 5] = 0.0
        sharp, broad = math.log(SMALLEST), math.log(float(half))
        low = (0.0, float(r - half), float(c - half), sharp, sharp, -CROSS)
        high = (50 * span, float(r + half), float(c + half), broad, broad, CROSS)
        for a in range(EACH):
            box.bounds[0, at + a], box.bounds[1, at + a] = low[a], high[a]


@compiled_small
def _leave_to_others(rows, columns, i, near, joint, count, box):  # type: ignore[no-untyped-def]
    """Take the weight from pixels that are nearer to a maximum outside of the fit than to any in it; the pixels left."""
    used = 0
    for k in range(len(box.valid)):
        if box.valid[k] == 0.0:
            continue
        r, c = box.x[0, k], box.x[1, k]
        own = r * r + c * c
        for n in range(count):
            far = (r - rows[near[n]] + rows[i]) ** 2 + (c - columns[near[n]] + columns[i]) ** 2
            if n < joint:
                own = min(own, far)
            elif far < own:
                box.valid[k] = 0.0
                break
        used += box.valid[k] > 0.0
    return used


@compiled_small
def _mean_of_nine(box, r, c):  # type: ignore[no-untyped-def]
    """Mean of 3 x 3 counts of a box around a place from its middle."""
    side, total = 2 * box.half + 1, 0.0
    for i in range(r - 1, r + 2):
        for j in range(c - 1, c + 2):
            total += box.counts[(i + box.half) * side + j + box.half]
    return total / 9


@compiled_small
def _contrast(box):  # type: ignore[no-untyped-def]
    """How far the middle of a box is above the mean of two opposite places at its border, in that direction where it is least.

    An edge or a ramp of the background has none.
    """
    far, middle, least = box.half - 1, _mean_of_nine(box, 0, 0), math.inf
    for r, c in ((0, far), (far, 0), (far, far), (far, -far)):
        least = min(least, middle - 0.5 * (_mean_of_nine(box, r, c) + _mean_of_nine(box, -r, -c)))
    return least


@compiled
def _climbed(box, peaks, noise):  # type: ignore[no-untyped-def]
    """Fit so many spots; chi-square and whether it converged."""
    return climb(
        box.theta, box.counts, box.valid, box.x, 1, peaks, GAUSSIAN, box.bounds, noise, STEPS, math.inf, box.space
    )  # fmt: skip


@compiled_small
def _fit(counts, saturation, gain, rows, columns, i, level, sigma, near, box):  # type: ignore[no-untyped-def]
    """Fit the spot of one maximum in a box; chi-square, pixels used, flag, larger sigma, sum, centroid, contrast."""
    flag, used = _gather(counts, saturation, rows[i], columns[i], level, sigma, box)
    total, row, column, square = _moments(level, box)
    count = _neighbours(rows, columns, i, 2 * box.half, near)
    joint = 0
    while joint < min(count, TOGETHER - 1):
        r, c = rows[near[joint]] - rows[i], columns[near[joint]] - columns[i]
        if max(abs(r), abs(c)) >= box.half or r * r + c * c > (0.25 * box.half + 5.0) ** 2:
            break
        joint += 1
    flag |= OVERLAPPING if joint else 0
    if count > joint:
        used = _leave_to_others(rows, columns, i, near, joint, count, box)
    size = 1 + EACH * (joint + 1)
    contrast = _contrast(box) / (NINE * sigma)
    if used < size + 3:
        return 0.0, used, flag | FAILED, 0.0, total, row, column, contrast
    _start(box, level, sigma, rows, columns, i, near, joint, min(max(math.sqrt(square), 0.6), 1.6))
    chi2, _ = _climbed(box, joint + 1, (gain, sigma * sigma, level))
    covariance(box.space.info, box.space.free, size, box.space.root, box.found)
    chi2 /= max(used - size, 1)
    wide = max(math.exp(box.theta[4]), math.exp(box.theta[5]) * math.sqrt(1 + box.theta[6] ** 2))
    away = max(abs(box.theta[2]), abs(box.theta[3]))
    known = box.theta[1] > KNOWN * math.sqrt(max(chi2, 1.0) * box.found[1, 1])  # NaN is not
    if not known or away > max(WANDERS, 0.5 * wide) or wide > 0.95 * box.half:
        flag |= FAILED
    return chi2, used, flag, wide, total, row, column, contrast


@compiled
def fit_spots(  # type: ignore[no-untyped-def]
    counts, saturation, gain, rows, columns, level, sigma, start, stop, small, large, near, values, errors, about
):
    """Fit the spots of maxima start to stop.

    counts: Shape (row, column), NaN where a count may not be used.  saturation: Smallest count that means an overflow.
    gain: Variance per count of light.  rows, columns: Of all maxima, rows rising.  level, sigma: Of the background at each.
    small, large: Boxes of the first fit and of wide spots.  near: Room for indices of neighbours.
    values: Filled with the parameters, places from the maximum, shape (spot, 7).  errors: Their covariance, shape (spot, 7, 7).
    about: Filled, shape (spot, 7): reduced chi-square, pixels used, flag, centroid from the maximum, sum of light within
        2 px, contrast to the surroundings in standard deviations.
    """
    for i in range(start, stop):
        box = small
        chi2, used, flag, wide, total, row, column, contrast = _fit(
            counts, saturation, gain, rows, columns, i, level[i], sigma[i], near, small
        )  # fmt: skip
        if large.half > small.half and wide > 0.4 * small.half:
            box = large
            chi2, used, flag, wide, total, row, column, contrast = _fit(
                counts, saturation, gain, rows, columns, i, level[i], sigma[i], near, large
            )  # fmt: skip
        about[i, CHI2], about[i, USED], about[i, FLAG] = chi2, used, flag
        about[i, CENTRE_ROW], about[i, CENTRE_COLUMN], about[i, SUM], about[i, CONTRAST] = row, column, total, contrast
        for a in range(PARAMETERS):
            values[i, a] = box.theta[a]
            for b in range(PARAMETERS):
                errors[i, a, b] = box.found[a, b]
