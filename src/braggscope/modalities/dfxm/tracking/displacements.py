"""Mean square displacements of tracks with error bars, diffusion and mean velocity.

    msd(n) = mean_k |r_(k+n) - r_k|^2 - 2 tr R

over all pairs n steps apart; the errors R of the places are taken off. Displacements that share steps are correlated: for a
random walk with diffusion S per step (2 x 2), drift v and errors R, the differences of the pairs have, per direction, the
covariance A = G (S min(i, j) + R 1) G^T (G the pairs), and for normal steps

    var msd = (2 / K^2) sum_kl tr(A_kl A_kl) + (4 n^2 / K^2) sum_kl v^T A_kl v,

K the number of pairs: no approximation of that model, gaps included. Diffusion is along one line, msd = 2 D t, as glide is.
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
        errors = motion.error + places.covariance[pairs]  # (pair, end, 2, 2)
        value[n - 1] = float(((moved**2).sum(1) - np.trace(errors.sum(1), axis1=1, axis2=2)).mean())
        start, stop = places.steps[pairs[:, 0]], places.steps[pairs[:, 1]]
        shared = np.maximum(np.minimum(stop[:, None], stop[None]) - np.maximum(start[:, None], start[None]), 0)
        ends = pairs[:, :, None, None] == pairs.T[None, None]  # (pair, end, end, pair)
        same = ends[:, 0, 0].astype(float) + ends[:, 1, 1] - ends[:, 0, 1] - ends[:, 1, 0]
        error = errors.mean((0, 1))
        s, r, count = motion.diffusion, error, len(pairs)
        mix = (shared**2).sum() * np.trace(s @ s) + (same**2).sum() * np.trace(r @ r)
        mix += 2 * (shared * same).sum() * np.trace(s @ r)
        along = n**2 * (shared.sum() * drift @ s @ drift + same.sum() * drift @ r @ drift)
        std[n - 1] = math.sqrt(max(2 * mix + 4 * along, 0.0)) / count
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
    D = (<d_k^2> - 6 R) / 4. Their correlations (`smoothing`) give var <d_k^2> = 2 (c_0^2 + 2 c_1^2 + 2 c_2^2) / K along one line.
    """
    middle = np.abs(np.diff(places.steps, 2)) < 0.1 if len(places.steps) > 2 else np.zeros(0, bool)
    second = np.diff(places.place, 2, axis=0)[middle]
    second = second[np.isfinite(second).all(1)]
    count = len(second)
    if count < 4:
        return math.nan, math.nan
    error = float(np.trace(motion.error + places.covariance[np.isfinite(places.place).all(1)].mean(0)))
    square = float((second**2).sum(1).mean())
    walk = max(square - 6 * error, 0.0) / 2
    correlations = np.array([2 * walk + 6 * error, walk + 4 * error, error])
    spread = second.T @ second / count
    lines = float(np.trace(spread @ spread) / np.trace(spread) ** 2)  # 1 along one line, 1/2 in all directions
    variance = 2 * lines * (correlations**2 @ [1, 2, 2]) / count
    return (square - 6 * error) / 4, math.sqrt(variance) / 4
