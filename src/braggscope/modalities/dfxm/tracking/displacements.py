"""Mean square displacements of tracks with error bars, diffusion and mean velocity.

    msd(n) = mean_k |r_(k+n) - r_k|^2 - 2 tr R

over all pairs n steps apart; the errors R of the places are taken off. Displacements that share steps are correlated: for a
random walk with diffusion S per step (2 x 2), drift v and errors R, the differences of the pairs have, per direction, the
covariance A = G (S min(i, j) + R 1) G^T (G the pairs), and for normal steps

    var msd = (2 / K^2) sum_kl tr(A_kl A_kl) + (4 n^2 / K^2) sum_kl v^T A_kl v,

K the number of pairs: no approximation of that model, gaps included. R is that with the motion blur, which may be negative
(`smoothing`). It is measured on N second differences of all tracks together, and its variance is in those of msd and diffusion:
for second differences of a direction with the covariances c_m, over K of them (normal),

    K var mean(a d_k^2 + b d_k d_(k+1)) = sum_m [2 a^2 c_m^2 + 2 a b c_m (c_(m+1) + c_(m-1)) + b^2 (c_m^2 + c_(m+1) c_(m-1))],

which with a = -1/2, b = -1 is N var R. Diffusion is along one line, msd = 2 D t, as glide is.
"""

from __future__ import annotations

import math

import numpy as np

from .following import Motion
from .smoothing import Places

Array = np.ndarray


def mean_square_displacement(places: Places, motion: Motion, lags: int) -> tuple[Array, Array]:
    """Mean square displacement at 1 to `lags` steps, px^2, and its standard deviation; NaN where there is no pair."""
    value, std = np.full(lags, np.nan), np.full(lags, np.nan)
    known = np.flatnonzero(np.isfinite(places.place).all(1))
    step = np.round(places.steps[known]).astype(int)
    at = {int(s): int(k) for s, k in zip(step, known, strict=True)}
    drift = mean_velocity(places, motion)[0]
    for n in range(1, lags + 1):
        pairs = np.array([(at[s], at[s + n]) for s in at if s + n in at], int).reshape(-1, 2)
        if len(pairs) < 2:
            continue
        moved = places.place[pairs[:, 1]] - places.place[pairs[:, 0]]
        errors = motion.error + motion.blur + places.covariance[pairs]  # (pair, end, 2, 2)
        value[n - 1] = float(((moved**2).sum(1) - np.trace(errors.sum(1), axis1=1, axis2=2)).mean())
        start, stop = places.steps[pairs[:, 0]], places.steps[pairs[:, 1]]
        shared = np.maximum(np.minimum(stop[:, None], stop[None]) - np.maximum(start[:, None], start[None]), 0)
        ends = pairs[:, :, None, None] == pairs.T[None, None]  # (pair, end, end, pair)
        same = ends[:, 0, 0].astype(float) + ends[:, 1, 1] - ends[:, 0, 1] - ends[:, 1, 0]
        error = errors.mean((0, 1))
        s, r, count = motion.diffusion - 3 * motion.blur, error, len(pairs)  # 2 S + 6 R is what was measured
        mix = (shared**2).sum() * np.trace(s @ s) + (same**2).sum() * np.trace(r @ r)
        mix += 2 * (shared * same).sum() * np.trace(s @ r)
        along = n**2 * (shared.sum() * drift @ s @ drift + same.sum() * drift @ r @ drift)
        of_error = 4 * _spread(2 * s + 6 * r, np.trace(s), np.trace(r), -0.5, -1.0) / motion.differences
        std[n - 1] = math.sqrt(max(2 * mix + 4 * along, 0.0) / count**2 + of_error)
    return value, std


def mean_velocity(places: Places, motion: Motion) -> tuple[Array, Array]:
    """Mean velocity from the first to the last place, px per step, and its covariance."""
    known = np.flatnonzero(np.isfinite(places.place).all(1))
    if len(known) < 2:
        return np.full(2, np.nan), np.full((2, 2), np.nan)
    a, b = known[0], known[-1]
    length = float(places.steps[b] - places.steps[a])
    error = 2 * motion.error + places.covariance[a] + places.covariance[b]
    return (places.place[b] - places.place[a]) / length, (motion.diffusion * abs(length) + error) / length**2


def diffusion(places: Places, motion: Motion) -> tuple[float, float]:
    """Diffusion coefficient along one line, length^2 per step, and its standard deviation; NaN from fewer than 4 differences.

    From second differences d_k, in which a steady velocity and most of a changing one falls out, less the errors of the places:
    D = (<d_k^2> - 6 R) / 4. Of the N differences that R is from, a share f is this track's own, R = f R_own + (1 - f) R_others.
    """
    single = np.abs(np.diff(places.steps) - 1) < 0.1
    second = np.diff(places.place, 2, axis=0)[single[1:] & single[:-1]]
    second = second[np.isfinite(second).all(1)]
    count = len(second)
    if count < 4:
        return math.nan, math.nan
    error = float(np.trace(motion.error + motion.blur + places.covariance[np.isfinite(places.place).all(1)].mean(0)))
    square = float((second**2).sum(1).mean())
    walk = max(square - 6 * error, 0.0) / 2
    spread, own = second.T @ second / count, min(count / motion.differences, 1.0)
    variance = _spread(spread, walk, error, 1 + 3 * own, 6 * own) / count
    variance += 36 * _spread(spread, walk, error, -0.5, -1.0) * (1 - own) / motion.differences
    return (square - 6 * error) / 4, math.sqrt(variance) / 4


def _spread(covariance: Array, walk: float, error: float, a: float, b: float) -> float:
    """K times the variance of the mean of a d_k.d_k + b d_k.d_(k+1) over K second differences.

    covariance: Of d_k, (2, 2): 1 over tr(C^2) / tr(C)^2 directions share what it is.  walk, error: Traces of S and R.
    """
    lines = float(np.trace(covariance @ covariance) / np.trace(covariance) ** 2)  # 1 along one line, 1/2 in all directions
    c = np.zeros(11)  # c_m for m from -5 to 5
    c[3:8] = error, -walk - 4 * error, 2 * walk + 6 * error, -walk - 4 * error, error
    here, after, before = c[1:-1], c[2:], c[:-2]
    every = 2 * a**2 * here**2 + 2 * a * b * here * (after + before) + b**2 * (here**2 + after * before)
    return lines * max(float(every.sum()), 0.0)
