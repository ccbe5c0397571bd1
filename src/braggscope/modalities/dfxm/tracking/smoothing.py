"""Tracks smoothed over all their frames, and how dislocations move: what the places say of diffusion, drift and error.

Second differences d_k of the places of a track in a row of equal steps, diffusion S and error R per frame, have the covariances

    <d_k d_k> = 2 S + 6 R,    <d_k d_(k+1)> = -S - 4 R,    so that    R = -(A + 2 B) / 2,    S = (A - 6 R) / 2

(the estimator of Vestergaard, Blainey & Flyvbjerg 2014, Phys. Rev. E 89, 022726, for increments, one difference further so that a
slowly changing drift falls out). The motion blur of an exposure over the part e of a step makes R smaller by S e / 6, so that it
may be negative, and leaves S as it is (Berglund 2010, Phys. Rev. E 82, 011917): mean squares take R as it comes out; the filter
takes an R that is an error, and the S that is then left of A. The wandering q of the drift is the one under which the innovations
of the filter are most likely. The smoother is that of Rauch, Tung & Striebel 1965.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .following import Motion, Track

Array = np.ndarray
DRIFTS = (0.003, 0.01, 0.03, 0.1, 0.3)  # px per step^(3/2)
LEAST = 0.004  # px: of diffusion and error, so that the filter stays open
ENOUGH = 30  # second differences for an estimate
FAR = 5.0  # robust standard deviations beyond which a second difference is a mistake
UNLIKELY = 36.0  # of the squared Mahalanobis distance of a place from the middle of its neighbours
WHOLE = 0.7  # of the usual light of a track: with less at the border, the centroid is not that of the whole image
START = 5.0  # px per step: standard deviation of the velocity before the first frame


@dataclass(frozen=True)
class Places:
    """What is measured of one track: steps (frame,), places (frame, 2), NaN where none, and their covariances (frame, 2, 2)."""

    steps: Array
    place: Array
    covariance: Array


@dataclass(frozen=True)
class Smooth:
    """States (frame, 4) with covariances (frame, 4, 4), and the log-likelihood of the places."""

    state: Array
    covariance: Array
    likelihood: float


def places_of(track: Track, steps: Array, per_length: Array | None = None) -> Places:
    """Places from the images of a track that are its own.

    per_length: Centroid less place of the line over the length of an image (`cores`); None: the centroid is the place.
    """
    off = np.zeros(2) if per_length is None else per_length
    own = track.own(WHOLE)
    place = [np.full(2, np.nan) if s is None else s.place - off * s.length for s in own]
    covariance = [np.zeros((2, 2)) if s is None else s.covariance for s in own]
    return Places(steps[track.frames], np.array(place), np.array(covariance))


def screened(places: Places, motion: Motion) -> Places:
    """With every place that stands far off the middle of its two neighbours as uncertain as it is far off."""
    off = np.full(places.place.shape, np.nan)
    off[1:-1] = places.place[1:-1] - (places.place[:-2] + places.place[2:]) / 2
    spread = motion.diffusion / 2 + 1.5 * (motion.error + places.covariance)
    far = np.nan_to_num(np.einsum("ki,kij,kj->k", off, np.linalg.inv(spread), off))
    largest = far >= np.maximum(np.append(far[1:], 0), np.append(0, far[:-1]))
    outer = np.where((far > UNLIKELY) & largest, 1.0, 0.0)[:, None, None] * np.nan_to_num(off[:, :, None] * off[:, None])
    return replace(places, covariance=places.covariance + outer)


def motion_of(tracks: Sequence[Places], before: Motion) -> Motion:
    """Diffusion, drift and error of all tracks together; `before` where they are too few."""
    own, following = [], []
    for one in tracks:
        even = np.abs(np.diff(one.steps) - np.median(np.diff(one.steps))) < 0.05 if len(one.steps) > 3 else np.zeros(0, bool)
        if not even.size:
            continue
        second = np.diff(one.place, 2, axis=0)
        second[~(even[1:] & even[:-1])] = np.nan
        own.append(second)
        following.append(np.stack([second[:-1], second[1:]], 1))
    every = np.concatenate(own) if own else np.empty((0, 2))
    known = every[np.isfinite(every).all(1)]
    if len(known) < ENOUGH:
        return before
    limit = FAR * 1.4826 * np.median(np.abs(known), axis=0) + 0.1
    known = known[(np.abs(known) < limit).all(1)]
    pairs = np.concatenate(following)
    pairs = pairs[np.isfinite(pairs).all((1, 2)) & (np.abs(np.nan_to_num(pairs)) < limit).all((1, 2))]
    a = known.T @ known / len(known)
    b = pairs[:, 0].T @ pairs[:, 1] / max(len(pairs), 1)
    mean = np.nanmean(np.concatenate([t.covariance[np.isfinite(t.place).all(1)] for t in tracks]), axis=0)
    beside = -(a + b + b.T) / 2 - mean
    error = _at_least(beside)
    diffusion = _at_least((a - 6 * (error + mean)) / 2)
    trials = [Motion(diffusion, q, error, beside - error, len(known)) for q in DRIFTS]
    return max(trials, key=lambda m: sum(smoothed(t, m, back=False).likelihood for t in tracks))


def smoothed(places: Places, motion: Motion, *, back: bool = True) -> Smooth:
    """States of a track given all its places; `back` False gives the filter alone."""
    n = len(places.steps)
    state, covariance = np.zeros((n, 4)), np.zeros((n, 4, 4))
    ahead, spread = np.zeros((n, 4)), np.zeros((n, 4, 4))
    first = int(np.flatnonzero(np.isfinite(places.place).all(1))[0])
    now, p = np.array([*places.place[first], 0.0, 0.0]), np.diag([1e4, 1e4, START**2, START**2])
    likelihood = 0.0
    for k in range(n):
        if k:
            f, q = motion.transition(float(places.steps[k] - places.steps[k - 1]))
            now, p = f @ now, f @ p @ f.T + q
        ahead[k], spread[k] = now, p
        z = places.place[k]
        if np.isfinite(z).all():
            s = p[:2, :2] + motion.error + places.covariance[k]
            off, inverse = z - now[:2], np.linalg.inv(s)
            if k > first:
                likelihood -= 0.5 * float(off @ inverse @ off + np.log(np.linalg.det(s)))
            gain = p[:, :2] @ inverse
            now, p = now + gain @ off, p - gain @ p[:2]
        state[k], covariance[k] = now, p
    for k in range(n - 2, -1, -1) if back else ():
        f, _ = motion.transition(float(places.steps[k + 1] - places.steps[k]))
        gain = np.linalg.solve(spread[k + 1], f @ covariance[k]).T
        state[k] = state[k] + gain @ (state[k + 1] - ahead[k + 1])
        covariance[k] = covariance[k] + gain @ (covariance[k + 1] - spread[k + 1]) @ gain.T
    return Smooth(state, covariance, likelihood)


def _at_least(matrix: Array) -> Array:
    """The nearest symmetric matrix whose variances are not below the least."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, LEAST**2)) @ vectors.T
