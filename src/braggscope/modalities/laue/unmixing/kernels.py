# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)
"""Compiled sums over the pixels of spots; single-threaded, without the interpreter lock (infer.runtime runs them).

Grain g has the spots start[g]:start[g + 1]; spot s has the pixels place[s], flat, with the shares share[s], and the strength[s].
The image of a grain is sum strength share; `weight` is one over the variance of each pixel, 0 where it may not be used.
"""

from __future__ import annotations

from numba import njit

_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath=True)


@_compiled
def draw(image, grain, amount, start, place, share, strength):
    """Add `amount` of the image of a grain."""
    for s in range(start[grain], start[grain + 1]):
        level = amount * strength[s]
        for p in range(place.shape[1]):
            image[place[s, p]] += level * share[s, p]


@_compiled
def count_pairs(near, number, grain, first, other, start):
    """How many pairs `pair_products` finds."""
    count = 0
    for a in range(len(near)):
        for s in range(start[near[a]], start[near[a] + 1]):
            for k in range(first[s], first[s + 1]):
                if other[k] >= s and number[grain[other[k]]] >= 0:
                    count += 1
    return count


@_compiled
def pair_products(near, number, weight, grain, first, other, start, place, share, image, pair, product):
    """The pairs s <= t of spots of the grains `near` that share pixels, and sum share_s share_t weight of each.

    number: Place of each grain in `near`, -1 elsewhere.  grain: Of each spot.
    first, other: Spot s shares pixels with the spots other[first[s]:first[s + 1]], itself among them.
    image: Work space of zeros, shape (pixel,); zeros again afterwards.
    pair, product: Shape (pair, 2) and (pair,).
    """
    i = 0
    for a in range(len(near)):
        for s in range(start[near[a]], start[near[a] + 1]):
            for p in range(place.shape[1]):
                image[place[s, p]] = share[s, p] * weight[place[s, p]]
            for k in range(first[s], first[s + 1]):
                t = other[k]
                if t >= s and number[grain[t]] >= 0:
                    total = 0.0
                    for p in range(place.shape[1]):
                        total += share[t, p] * image[place[t, p]]
                    pair[i, 0], pair[i, 1], product[i] = s, t, total
                    i += 1
            for p in range(place.shape[1]):
                image[place[s, p]] = 0.0


@_compiled
def normal_matrix(pair, product, number, grain, strength, matrix):
    """P^T W P of the grains near a centre, from the pairs of their spots."""
    matrix[:] = 0.0
    for i in range(len(product)):
        s, t = pair[i]
        a, b = number[grain[s]], number[grain[t]]
        value = strength[s] * strength[t] * product[i]
        matrix[a, b] += value
        if t > s:
            matrix[b, a] += value


@_compiled
def projections(near, frame, same, weight, start, place, share, strength, found):
    """P^T W (frame - same) of the grains `near`."""
    for a in range(len(near)):
        total = 0.0
        for s in range(start[near[a]], start[near[a] + 1]):
            own = 0.0
            for p in range(place.shape[1]):
                i = place[s, p]
                own += share[s, p] * weight[i] * (frame[i] - same[i])
            total += strength[s] * own
        found[a] = total


@_compiled
def strengths(near, light, residual, weight, start, place, share, strength, upper, lower):
    """Add to upper and lower of each spot: what its strength is by least squares, all else held, is upper / lower.

    residual: Frame minus the whole model, this spot included.
    """
    for a in range(len(near)):
        w = light[a]
        for s in range(start[near[a]], start[near[a] + 1]):
            off = 0.0
            square = 0.0
            for p in range(place.shape[1]):
                i = place[s, p]
                off += share[s, p] * weight[i] * residual[i]
                square += share[s, p] * share[s, p] * weight[i]
            upper[s] += w * (off + w * strength[s] * square)
            lower[s] += w * w * square


@_compiled
def offsets(near, light, residual, weight, start, place, share, strength, slope, vector, matrix):
    """Add to vector and matrix of each spot: it is off by matrix^-1 vector, px, by least squares to first order.

    slope: Change of `share` when the spot moves a pixel along the rows and along the columns, shape (2, spot, pixel).
    vector, matrix: Shape (spot, 2) and (spot, 2, 2).
    """
    for a in range(len(near)):
        for s in range(start[near[a]], start[near[a] + 1]):
            amount = light[a] * strength[s]
            for p in range(place.shape[1]):
                i = place[s, p]
                down, right = amount * slope[0, s, p], amount * slope[1, s, p]
                vector[s, 0] += weight[i] * down * residual[i]
                vector[s, 1] += weight[i] * right * residual[i]
                matrix[s, 0, 0] += weight[i] * down * down
                matrix[s, 0, 1] += weight[i] * down * right
                matrix[s, 1, 1] += weight[i] * right * right
