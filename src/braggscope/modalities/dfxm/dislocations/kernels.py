"""Compiled images of straight dislocations with their derivatives by the places; equal to the model in `imaging.py`.

q_1 = c . (F^-T q - q - offset) - centre with F = 1 + sum_k D_k^T H(x_k) D_k and c = `along`. With v = F^-T q and u = F^-1 c,
d(F^-T) = -F^-T dF^T F^-T gives dq_1 = -v^T dF u = -(D v)^T dH (D u).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from scipy.special import ndtr

REACH = 5.0  # standard deviations beyond which the edge of the resolution is flat: p is 3e-7 of its largest value
TAIL_POINTS = 1024
SMALL = 3e-4  # distortions below are taken to second order: what is left out is below 3e-11
TINY = 1e-12  # nm^2, so that a ray through the very line is not divided by zero


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _distortion(px, py, k_edge, k_screw, two_nu, yy_sign):  # type: ignore[no-untyped-def]
    """H_xx, H_xy, H_yx, H_yy, H_zx, H_zy of a dislocation in its frame (physics.dislocations), and 1 / r^2."""
    xx, yy = px * px, py * py
    r2 = xx + yy + TINY
    inverse = 1 / r2
    ke, ks = k_edge * inverse * inverse, k_screw * inverse
    nn = 3 * xx + yy - two_nu * r2
    return (
        -ke * py * nn, ke * px * nn, -ke * px * (xx + 3 * yy - two_nu * r2), ke * py * (xx - yy + yy_sign * two_nu * r2),
        -ks * py, ks * px, inverse,
    )  # fmt: skip


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _cofactors(h, turn):  # type: ignore[no-untyped-def]
    """Cofactors and determinant of F = 1 + sum_k D_k^T H_k D_k, the last column of each H being zero."""
    f00, f01, f02, f10, f11, f12, f20, f21, f22 = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0
    for k in range(h.shape[0]):
        t00, t01, t02 = turn[k, 0, 0], turn[k, 0, 1], turn[k, 0, 2]
        t10, t11, t12 = turn[k, 1, 0], turn[k, 1, 1], turn[k, 1, 2]
        t20, t21, t22 = turn[k, 2, 0], turn[k, 2, 1], turn[k, 2, 2]
        l0, l1 = t00 * h[k, 0] + t10 * h[k, 2] + t20 * h[k, 4], t00 * h[k, 1] + t10 * h[k, 3] + t20 * h[k, 5]
        f00, f01, f02 = f00 + l0 * t00 + l1 * t10, f01 + l0 * t01 + l1 * t11, f02 + l0 * t02 + l1 * t12
        l0, l1 = t01 * h[k, 0] + t11 * h[k, 2] + t21 * h[k, 4], t01 * h[k, 1] + t11 * h[k, 3] + t21 * h[k, 5]
        f10, f11, f12 = f10 + l0 * t00 + l1 * t10, f11 + l0 * t01 + l1 * t11, f12 + l0 * t02 + l1 * t12
        l0, l1 = t02 * h[k, 0] + t12 * h[k, 2] + t22 * h[k, 4], t02 * h[k, 1] + t12 * h[k, 3] + t22 * h[k, 5]
        f20, f21, f22 = f20 + l0 * t00 + l1 * t10, f21 + l0 * t01 + l1 * t11, f22 + l0 * t02 + l1 * t12
    c00, c01, c02 = f11 * f22 - f12 * f21, f12 * f20 - f10 * f22, f10 * f21 - f11 * f20
    c10, c11, c12 = f02 * f21 - f01 * f22, f00 * f22 - f02 * f20, f01 * f20 - f00 * f21
    c20, c21, c22 = f01 * f12 - f02 * f11, f02 * f10 - f00 * f12, f00 * f11 - f01 * f10
    return c00, c01, c02, c10, c11, c12, c20, c21, c22, f00 * c00 + f01 * c01 + f02 * c02


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _transmitted(q_1, half_width, sigma, tail):  # type: ignore[no-untyped-def]
    """p(q_1): a box convolved with a Gaussian, 1 inside; by cubic interpolation of the tail of the normal distribution."""
    t = (abs(q_1) - half_width) / sigma
    if t >= REACH:
        return 0.0
    if t <= -REACH:
        return 1.0
    value = _tail(t, tail)
    other = (abs(q_1) + half_width) / sigma
    if other < REACH:  # a box not much wider than the Gaussian
        value -= _tail(other, tail)
    return value


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _tail(t, tail):  # type: ignore[no-untyped-def]
    """P(normal > t) for |t| < REACH from values and slopes (times the step) at even steps; error below 1e-10."""
    at = (t + REACH) * ((TAIL_POINTS - 1) / (2 * REACH))
    i = int(at)
    f = at - i
    a, b, c, d = tail[i, 0], tail[i, 1], tail[i + 1, 0], tail[i + 1, 1]
    return a + f * (b + f * (3 * (c - a) - 2 * b - d + f * (2 * (a - c) + b + d)))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def image_and_jacobian(  # type: ignore[no-untyped-def]
    x, y, depth, weight, tilt, project, turn, edge, screw, poisson, yy_sign, place, q, offset, along, centre, half_width, sigma,
    tail, image, jacobian,
):  # fmt: skip
    """Sum over the beam of p(q_1), into `image` (row, column), and its derivatives by the places into `jacobian`.

    x, y: Of rows and columns in the laboratory, nm.  depth, weight: Quadrature.  project: First two rows of D Gamma^T, shape
    (dislocation, 2, 3).  turn: D, dislocation <- sample, (dislocation, 3, 3).  edge, screw: Parts of the Burgers vectors, nm.
    place: In the frame of each dislocation, nm, (dislocation, 2).  jacobian: (2 dislocation, row, column), or of length 0.
    """
    count = place.shape[0]
    differentiate = jacobian.shape[0] > 0
    k_edge, k_screw = edge / (4 * math.pi * (1 - poisson)), screw / (2 * math.pi)
    near, far = half_width - REACH * sigma, half_width + REACH * sigma
    root, peak = 1 / (math.sqrt(2.0) * sigma), 1 / (math.sqrt(2 * math.pi) * sigma)
    level = along[0] * q[0] + along[1] * q[1] + along[2] * q[2]
    base = level + along[0] * offset[0] + along[1] * offset[1] + along[2] * offset[2] + centre
    two_nu = 2 * poisson
    reach = count * (4 * np.abs(k_edge) + np.abs(k_screw)) ** 2  # bounds |H|^2 r^2, of all together by Cauchy and Schwarz
    h, p, w, z = np.empty((count, 6)), np.empty((count, 3)), np.empty((count, 3)), np.empty((count, 3))
    for k in range(count):  # D q and D c
        for a in range(3):
            w[k, a] = turn[k, a, 0] * q[0] + turn[k, a, 1] * q[1] + turn[k, a, 2] * q[2]
            z[k, a] = turn[k, a, 0] * along[0] + turn[k, a, 1] * along[1] + turn[k, a, 2] * along[2]
    for i in range(x.shape[0]):
        for j in range(y.shape[0]):
            total = 0.0
            for a in range(jacobian.shape[0]):
                jacobian[a, i, j] = 0.0
            for m in range(depth.shape[0]):
                rx, ry, rz = x[i] + depth[m] * tilt, y[j], depth[m]
                a0, a1, a2, b0, b1, b2, size = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0  # a = H c and b = H^T q, in the sample
                for k in range(count):
                    px = project[k, 0, 0] * rx + project[k, 0, 1] * ry + project[k, 0, 2] * rz - place[k, 0]
                    py = project[k, 1, 0] * rx + project[k, 1, 1] * ry + project[k, 1, 2] * rz - place[k, 1]
                    h00, h01, h10, h11, h20, h21, inverse = _distortion(px, py, k_edge[k], k_screw[k], two_nu, yy_sign)
                    h[k, 0], h[k, 1], h[k, 2], h[k, 3], h[k, 4], h[k, 5] = h00, h01, h10, h11, h20, h21
                    p[k, 0], p[k, 1], p[k, 2] = px, py, inverse
                    g0, g1, g2 = h00 * z[k, 0] + h01 * z[k, 1], h10 * z[k, 0] + h11 * z[k, 1], h20 * z[k, 0] + h21 * z[k, 1]
                    e0 = h00 * w[k, 0] + h10 * w[k, 1] + h20 * w[k, 2]
                    e1 = h01 * w[k, 0] + h11 * w[k, 1] + h21 * w[k, 2]
                    a0 += turn[k, 0, 0] * g0 + turn[k, 1, 0] * g1 + turn[k, 2, 0] * g2
                    a1 += turn[k, 0, 1] * g0 + turn[k, 1, 1] * g1 + turn[k, 2, 1] * g2
                    a2 += turn[k, 0, 2] * g0 + turn[k, 1, 2] * g1 + turn[k, 2, 2] * g2
                    b0 += turn[k, 0, 0] * e0 + turn[k, 1, 0] * e1
                    b1 += turn[k, 0, 1] * e0 + turn[k, 1, 1] * e1
                    b2 += turn[k, 0, 2] * e0 + turn[k, 1, 2] * e1
                    size += reach[k] * inverse
                if size < SMALL * SMALL:  # to second order: v = q - b + ..., u = c - a + ...
                    s = level - base - along[0] * b0 - along[1] * b1 - along[2] * b2 + a0 * b0 + a1 * b1 + a2 * b2
                    apart = abs(s)
                    if apart >= far:
                        continue
                    total += weight[m] * _transmitted(s, half_width, sigma, tail)
                    if not differentiate or apart <= near:
                        continue
                    v0, v1, v2, u0, u1, u2 = q[0] - b0, q[1] - b1, q[2] - b2, along[0] - a0, along[1] - a1, along[2] - a2
                else:
                    c00, c01, c02, c10, c11, c12, c20, c21, c22, determinant = _cofactors(h, turn)
                    over = 1 / determinant
                    # v = F^-T q: F^-T is the matrix of cofactors over the determinant
                    v0 = (c00 * q[0] + c01 * q[1] + c02 * q[2]) * over
                    v1 = (c10 * q[0] + c11 * q[1] + c12 * q[2]) * over
                    v2 = (c20 * q[0] + c21 * q[1] + c22 * q[2]) * over
                    s = along[0] * v0 + along[1] * v1 + along[2] * v2 - base
                    total += weight[m] * _transmitted(s, half_width, sigma, tail)
                    if not differentiate or abs(s) >= far or abs(s) <= near:
                        continue
                    u0 = (c00 * along[0] + c10 * along[1] + c20 * along[2]) * over
                    u1 = (c01 * along[0] + c11 * along[1] + c21 * along[2]) * over
                    u2 = (c02 * along[0] + c12 * along[1] + c22 * along[2]) * over
                low, high = (half_width - s) * root, (half_width + s) * root
                slope = weight[m] * peak * (math.exp(-high * high) - math.exp(-low * low))  # dp/dq_1
                for k in range(count):
                    by_x, by_y = _slopes(p[k], k_edge[k], k_screw[k], two_nu, yy_sign, turn[k], v0, v1, v2, u0, u1, u2)
                    jacobian[2 * k, i, j] += slope * by_x
                    jacobian[2 * k + 1, i, j] += slope * by_y
            image[i, j] = total


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _slopes(p, k_edge, k_screw, two_nu, yy_sign, turn, v0, v1, v2, u0, u1, u2):  # type: ignore[no-untyped-def]
    """Derivatives of q_1 by the place of one dislocation: (D v)^T (dH/dx_k) (D u), the sign of dq_1 and of -place cancelling."""
    px, py, inverse = p[0], p[1], p[2]
    xx, yy = px * px, py * py
    r2 = xx + yy
    ke, ks = k_edge * inverse * inverse, k_screw * inverse
    nn, mm, pp = 3 * xx + yy - two_nu * r2, xx + 3 * yy - two_nu * r2, xx - yy + yy_sign * two_nu * r2
    w0 = turn[0, 0] * v0 + turn[0, 1] * v1 + turn[0, 2] * v2
    w1 = turn[1, 0] * v0 + turn[1, 1] * v1 + turn[1, 2] * v2
    w2 = turn[2, 0] * v0 + turn[2, 1] * v1 + turn[2, 2] * v2
    z0 = turn[0, 0] * u0 + turn[0, 1] * u1 + turn[0, 2] * u2
    z1 = turn[1, 0] * u0 + turn[1, 1] * u1 + turn[1, 2] * u2
    fx, fy = 4 * px * inverse, 4 * py * inverse  # of 1/r^4: d(1/r^4)/dx = -fx / r^4
    nx, ny = (6 - 2 * two_nu) * px, (2 - 2 * two_nu) * py
    mx, my = (2 - 2 * two_nu) * px, (6 - 2 * two_nu) * py
    qx, qy = (2 + 2 * yy_sign * two_nu) * px, (-2 + 2 * yy_sign * two_nu) * py
    by_x = w0 * ke * (-py * (nx - nn * fx) * z0 + (nn + px * (nx - nn * fx)) * z1)
    by_x += w1 * ke * (-(mm + px * (mx - mm * fx)) * z0 + py * (qx - pp * fx) * z1)
    by_x += w2 * ks * (py * fx / 2 * z0 + (1 - px * fx / 2) * z1)
    by_y = w0 * ke * (-(nn + py * (ny - nn * fy)) * z0 + px * (ny - nn * fy) * z1)
    by_y += w1 * ke * (-px * (my - mm * fy) * z0 + (pp + py * (qy - pp * fy)) * z1)
    by_y += w2 * ks * (-(1 - py * fy / 2) * z0 - px * fy / 2 * z1)
    return by_x, by_y


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def rays_near(x, y, depth, tilt, project, place, radius):  # type: ignore[no-untyped-def]
    """The rays that pass a line nearer than a radius: rows, columns and depths by number, in the order of the pixels."""
    found = [(0, 0, 0) for _ in range(0)]
    for i in range(x.shape[0]):
        for j in range(y.shape[0]):
            for m in range(depth.shape[0]):
                rx, ry, rz = x[i] + depth[m] * tilt, y[j], depth[m]
                px = project[0, 0] * rx + project[0, 1] * ry + project[0, 2] * rz - place[0]
                py = project[1, 0] * rx + project[1, 1] * ry + project[1, 2] * rz - place[1]
                if px * px + py * py < radius * radius:
                    found.append((i, j, m))
    return found


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def bright(ray, weight, project, turn, edge, screw, poisson, yy_sign, place, q, offset, along, centre, half_width, sigma, tail):  # type: ignore[no-untyped-def]
    """p(q_1) times the weight of single rays, shape (set of places, ray).

    ray: Points x, y, z in the laboratory, nm, (ray, 3).  place: (set of places, dislocation, 2); the rest as above.
    """
    sets, count = place.shape[0], place.shape[1]
    k_edge, k_screw = edge / (4 * math.pi * (1 - poisson)), screw / (2 * math.pi)
    base = centre
    for a in range(3):
        base += along[a] * (q[a] + offset[a])
    h, found = np.empty((count, 6)), np.empty((sets, ray.shape[0]))
    for n in range(ray.shape[0]):
        for t in range(sets):
            for k in range(count):
                px = project[k, 0, 0] * ray[n, 0] + project[k, 0, 1] * ray[n, 1] + project[k, 0, 2] * ray[n, 2] - place[t, k, 0]
                py = project[k, 1, 0] * ray[n, 0] + project[k, 1, 1] * ray[n, 1] + project[k, 1, 2] * ray[n, 2] - place[t, k, 1]
                h00, h01, h10, h11, h20, h21, _ = _distortion(px, py, k_edge[k], k_screw[k], 2 * poisson, yy_sign)
                h[k, 0], h[k, 1], h[k, 2], h[k, 3], h[k, 4], h[k, 5] = h00, h01, h10, h11, h20, h21
            c00, c01, c02, c10, c11, c12, c20, c21, c22, determinant = _cofactors(h, turn)
            s = along[0] * (c00 * q[0] + c01 * q[1] + c02 * q[2]) + along[1] * (c10 * q[0] + c11 * q[1] + c12 * q[2])
            s = (s + along[2] * (c20 * q[0] + c21 * q[1] + c22 * q[2])) / determinant - base
            found[t, n] = weight[n] * _transmitted(s, half_width, sigma, tail)
    return found


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def first_order(x, y, depth, tilt, project, turn, edge, screw, poisson, yy_sign, place, q, along):  # type: ignore[no-untyped-def]
    """-c . H^T q of all dislocations at every ray, the change of q_1 to first order; shape (row, column, depth)."""
    count = place.shape[0]
    k_edge, k_screw = edge / (4 * math.pi * (1 - poisson)), screw / (2 * math.pi)
    found = np.zeros((x.shape[0], y.shape[0], depth.shape[0]))
    for k in range(count):
        w0 = turn[k, 0, 0] * q[0] + turn[k, 0, 1] * q[1] + turn[k, 0, 2] * q[2]
        w1 = turn[k, 1, 0] * q[0] + turn[k, 1, 1] * q[1] + turn[k, 1, 2] * q[2]
        w2 = turn[k, 2, 0] * q[0] + turn[k, 2, 1] * q[1] + turn[k, 2, 2] * q[2]
        z0 = turn[k, 0, 0] * along[0] + turn[k, 0, 1] * along[1] + turn[k, 0, 2] * along[2]
        z1 = turn[k, 1, 0] * along[0] + turn[k, 1, 1] * along[1] + turn[k, 1, 2] * along[2]
        for i in range(x.shape[0]):
            for j in range(y.shape[0]):
                for m in range(depth.shape[0]):
                    rx, ry, rz = x[i] + depth[m] * tilt, y[j], depth[m]
                    px = project[k, 0, 0] * rx + project[k, 0, 1] * ry + project[k, 0, 2] * rz - place[k, 0]
                    py = project[k, 1, 0] * rx + project[k, 1, 1] * ry + project[k, 1, 2] * rz - place[k, 1]
                    h00, h01, h10, h11, h20, h21, _ = _distortion(px, py, k_edge[k], k_screw[k], 2 * poisson, yy_sign)
                    found[i, j, m] -= w0 * (h00 * z0 + h01 * z1) + w1 * (h10 * z0 + h11 * z1) + w2 * (h20 * z0 + h21 * z1)
    return found


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def misfits(here, moved, step, weight, counts, inverse, amplitude, background, half_width, sigma, tail):  # type: ignore[no-untyped-def]
    """chi^2 of one dislocation more at every `step`-th pixel, shape (rows / step, columns / step), over every `step`-th pixel.

    here: q_1 at every ray without it, (row, column, depth).  moved: Its change of q_1 for a place in the middle, over
    (2 row - 1, 2 column - 1, depth).  weight: Of the depths.  counts, inverse: (row, column), and one over the variance.
    """
    rows, columns, depths = here.shape
    found = np.zeros(((rows + step - 1) // step, (columns + step - 1) // step))
    for a in range(found.shape[0]):
        for b in range(found.shape[1]):
            total = 0.0
            for i in range(0, rows, step):
                for j in range(0, columns, step):
                    mean = 0.0
                    for m in range(depths):
                        q_1 = here[i, j, m] + moved[i - a * step + rows - 1, j - b * step + columns - 1, m]
                        mean += weight[m] * _transmitted(q_1, half_width, sigma, tail)
                    residual = counts[i, j] - amplitude * mean - background
                    total += residual * residual * inverse[i, j]
            found[a, b] = total
    return found


def tail_of_the_normal() -> np.ndarray:
    """Values of P(normal > t) and slopes times the step, for `_tail`; shape (TAIL_POINTS, 2)."""
    t = np.linspace(-REACH, REACH, TAIL_POINTS)
    slope = -np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi) * (t[1] - t[0])
    return np.stack([ndtr(-t), slope], -1)


TAIL = tail_of_the_normal()


def empty(shape: tuple[int, int], dislocations: int, derivatives: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Where the kernel writes an image of this shape and its derivatives."""
    return np.empty(shape), np.empty((2 * dislocations if derivatives else 0, *shape))
