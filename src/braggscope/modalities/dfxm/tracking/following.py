"""Images of dislocations linked into tracks: a Kalman filter with linear motion and Munkres' assignment on predicted places.

State (row, column and their velocities), px and px per step, a step being the median distance of two frames:

    p_(k+1) = p_k + v_k dt + n(0, S |dt|),   v_(k+1) = v_k + n(0, q^2 |dt|),   z_k = p_k + n(0, R),

diffusion S, wandering of the drift q, error of a place R (`smoothing.py` measures them from the tracks). Places that are assigned
have the least sum of Mahalanobis distances and log-determinants (Kuhn 1955, Munkres 1957) within a gate. Where the image of a
track is missing and its prediction lies in a brighter image of another one, the two overlap: both go on by their prediction, held
to the centroid of the common image, until it parts again. A track ends after some frames without an image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from .detecting import Detection

Array = np.ndarray
GATE = 25.0  # of the squared Mahalanobis distance: 5 sigma, P = 4e-6 in two dimensions
CONFIRMED = 3  # images that make a track, of the first so many frames:
PROBATION = 5
REACH = 3.0  # px from an image within which a prediction counts as in it
SHARED = 0.35  # of the light of the fainter one that a common image has beside that of the brighter
LOOSE = 3.0  # px, by which the centroid of a common image is off the mean of its parts
NEAR, BENT = 30.0, 2.0  # px: so near to another one its field moves the centroid of an image by so much
FORGET = 0.2  # weight of a new image in the light of a track


@dataclass(frozen=True)
class Motion:
    """How places move and err from frame to frame, px and steps.

    diffusion: S, (2, 2).  drift: q.  error: R beside the errors of the places themselves, (2, 2).
    blur: What is to be added to R for mean squares, (2, 2), of no definite sign: an exposure over the part e of a step takes
        S e / 6 off it, so that R may be negative there, which the filter cannot have (`smoothing`).
    differences: Second differences from which R was measured; infinite where it is known.
    """

    diffusion: Array
    drift: float
    error: Array
    blur: Array = field(default_factory=lambda: np.zeros((2, 2)))
    differences: float = math.inf

    def transition(self, dt: float) -> tuple[Array, Array]:
        """F and Q over dt steps."""
        f, q = np.eye(4), np.zeros((4, 4))
        f[0, 2] = f[1, 3] = dt
        q[:2, :2] = self.diffusion * abs(dt)
        q[2, 2] = q[3, 3] = self.drift**2 * abs(dt)
        return f, q


FIRST = Motion(0.5 * np.eye(2), 0.2, 0.05 * np.eye(2))


@dataclass
class Track:
    """A dislocation over the frames in which it was followed.

    frames: Their numbers, rising.  seen: The image in each, or None.  shared: Whether that image is another one's too.
    state, covariance: Of the filter at the last frame.  light: Running mean.
    """

    state: Array
    covariance: Array
    light: float
    frames: list[int] = field(default_factory=list)
    seen: list[Detection | None] = field(default_factory=list)
    shared: list[bool] = field(default_factory=list)
    missed: int = 0

    @property
    def hits(self) -> int:
        """Frames with an image of its own."""
        return sum(s is not None and not o for s, o in zip(self.seen, self.shared, strict=True))

    def own(self, whole: float) -> list[Detection | None]:
        """Its images that are not another one's too, at the border those with at least this part of the usual light."""
        lights = [s.light for s, o in zip(self.seen, self.shared, strict=True) if s is not None and not o]
        least = whole * float(np.median(lights)) if lights else 0.0
        return [
            None if s is None or o or (s.border and s.light < least) else s for s, o in zip(self.seen, self.shared, strict=True)
        ]

    def add(self, frame: int, seen: Detection | None, shared: bool) -> None:
        """One more frame."""
        self.frames.append(frame)
        self.seen.append(seen)
        self.shared.append(shared)
        self.missed = 0 if seen is not None else self.missed + 1
        if seen is not None and not shared:
            self.light += FORGET * (seen.light - self.light)

    def trimmed(self, shared: bool) -> Track:
        """Without the frames after its last image of its own, or after its last one where `shared`."""
        seen = [i for i, (s, o) in enumerate(zip(self.seen, self.shared, strict=True)) if s is not None and (shared or not o)]
        end = seen[-1] + 1
        return Track(self.state, self.covariance, self.light, self.frames[:end], self.seen[:end], self.shared[:end])


def follow(
    every: Sequence[list[Detection] | None],
    steps: Array,
    motion: Motion,
    jump: float,
    patience: int,
    frame_shape: tuple[int, int],
) -> list[Track]:
    """Tracks through the images of all frames.

    every: The images of each frame, None where there is no frame.  steps: Place of each frame on the axis, in steps.
    jump: Largest move from one frame to the next, px.  patience: Frames without an image after which a track ends.
    """
    active: list[Track] = []
    ended: list[Track] = []
    last: float | None = None
    for frame, seen in enumerate(every):
        if seen is None:
            continue
        dt = 1.0 if last is None else float(steps[frame] - last)
        last = float(steps[frame])
        for track in active:
            f, q = motion.transition(dt)
            track.state, track.covariance = f @ track.state, f @ track.covariance @ f.T + q
        _advance(active, seen, frame, motion, jump)
        left = [t for t in active if t.missed > patience or _outside(t, frame_shape) or _unconfirmed(t)]
        ended += [t for t in left if t.hits >= CONFIRMED]
        active = [t for t in active if all(t is not other for other in left)]
    found = [t.trimmed(False) for t in ended] + [t.trimmed(True) for t in active if t.hits >= CONFIRMED]
    return sorted(found, key=lambda t: (t.frames[0], t.seen[0].place[0]))  # type: ignore[union-attr]


def follow_twice(
    every: Sequence[list[Detection] | None], steps: Array, jump: float, patience: int, frame_shape: tuple[int, int]
) -> list[Track]:
    """`follow` with common values, then with the motion that the tracks of the first time show."""
    from .smoothing import motion_of, places_of

    tracks = follow(every, steps, FIRST, jump, patience, frame_shape)
    motion = motion_of([places_of(one, steps) for one in tracks], FIRST)
    return follow(every, steps, motion, jump, patience, frame_shape)


def usual_jump(every: Sequence[list[Detection] | None]) -> float:
    """A move from frame to frame that hardly any image exceeds, px: from distances to the nearest image of the next frame."""
    seen = [np.array([d.place for d in one]) for one in every if one]
    moves = [np.linalg.norm(a[:, None] - b[None], axis=-1).min(1) for a, b in itertools.pairwise(seen)]
    apart = [np.sort(np.linalg.norm(a[:, None] - a[None], axis=-1), 1)[:, 1] for a in seen if len(a) > 1]
    if not moves:
        return 10.0
    usual = 2.0 * float(np.percentile(np.concatenate(moves), 90)) + 3.0
    return min(usual, max(float(np.median(np.concatenate(apart))) / 2, 3.0)) if apart else usual


def _advance(active: list[Track], seen: list[Detection], frame: int, motion: Motion, jump: float) -> None:
    """One frame: assignment, common images, updates and new tracks."""
    errors = _errors(seen, motion)
    owner = _assigned(active, seen, errors, jump)
    members: dict[int, list[int]] = {d: [t] for t, d in owner.items()}
    for t, track in enumerate(active):
        if t not in owner and (d := _inside(track, seen)) is not None:
            members.setdefault(d, []).append(t)
    done = set()
    for d, group in members.items():
        light = np.array([active[t].light for t in group])
        if len(group) > 1 and seen[d].light > light.max() + SHARED * (light.sum() - light.max()):
            _update_together([active[t] for t in group], seen[d], errors[d])
            done |= set(group)
            for t in group:
                active[t].add(frame, seen[d], True)
        else:
            own = [t for t in group if owner.get(t) == d] or group[:1]
            _update(active[own[0]], seen[d], errors[d])
            active[own[0]].add(frame, seen[d], owner.get(own[0]) != d)
            done.add(own[0])
    for t, track in enumerate(active):
        if t not in done:
            track.add(frame, None, False)
    active += [_new(one, frame, motion, jump) for d, one in enumerate(seen) if d not in members]


def _errors(seen: list[Detection], motion: Motion) -> Array:
    """Covariances of the places of images, larger where another is near; shape (image, 2, 2)."""
    places = np.array([one.place for one in seen]).reshape(-1, 2)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    bent = BENT**2 * np.eye(2) * ((apart < NEAR).sum(1) > 1)[:, None, None]
    return np.array([one.covariance for one in seen]).reshape(-1, 2, 2) + motion.error + bent


def _assigned(active: list[Track], seen: list[Detection], errors: Array, jump: float) -> dict[int, int]:
    """Image of each track that has one."""
    if not active or not seen:
        return {}
    cost = np.full((len(active), len(seen)), 1e6)
    places = np.array([one.place for one in seen])
    for t, track in enumerate(active):
        for d in np.flatnonzero(np.linalg.norm(places - track.state[:2], axis=1) < jump * (2 + track.missed)):
            spread = track.covariance[:2, :2] + errors[d]
            off = places[d] - track.state[:2]
            distance = off @ np.linalg.solve(spread, off)
            if distance < GATE:
                cost[t, d] = distance + np.log(np.linalg.det(spread))
    rows, columns = linear_sum_assignment(cost)
    return {int(t): int(d) for t, d in zip(rows, columns, strict=True) if cost[t, d] < 1e5}


def _inside(track: Track, seen: list[Detection]) -> int | None:
    """The image in which the prediction of a track lies."""
    at = track.state[:2]
    for d, one in enumerate(seen):
        top, bottom, left, right = one.box
        if not (top - REACH <= at[0] <= bottom + REACH and left - REACH <= at[1] <= right + REACH):
            continue
        if np.abs(one.pixels - at).max(1).min() <= REACH:
            return d
    return None


def _update(track: Track, seen: Detection, error: Array) -> None:
    """The filter's update by an image of its own."""
    gain = track.covariance[:, :2] @ np.linalg.inv(track.covariance[:2, :2] + error)
    track.state = track.state + gain @ (seen.place - track.state[:2])
    track.covariance = track.covariance - gain @ track.covariance[:2]


def _update_together(group: list[Track], seen: Detection, error: Array) -> None:
    """The update of tracks by the centroid of their common image, z = sum w p, w by their light."""
    weight = np.array([max(t.light, 1e-9) for t in group])
    weight /= weight.sum()
    off = seen.place - sum(w * t.state[:2] for w, t in zip(weight, group, strict=True))
    spread = sum(w**2 * t.covariance[:2, :2] for w, t in zip(weight, group, strict=True))
    inverse = np.linalg.inv(spread + error + LOOSE**2 * np.eye(2))
    for w, track in zip(weight, group, strict=True):
        gain = w * track.covariance[:, :2] @ inverse
        track.state = track.state + gain @ off
        track.covariance = track.covariance - w * gain @ track.covariance[:2]


def _new(seen: Detection, frame: int, motion: Motion, jump: float) -> Track:
    """A track that begins with an image."""
    covariance = np.diag([0.0, 0.0, (jump / 2) ** 2, (jump / 2) ** 2])
    covariance[:2, :2] = motion.error + seen.covariance
    track = Track(np.array([*seen.place, 0.0, 0.0]), covariance, seen.light)
    track.add(frame, seen, False)
    return track


def _outside(track: Track, frame_shape: tuple[int, int]) -> bool:
    """Whether the prediction is beyond the border of the frame."""
    return bool((track.state[:2] < -1).any() or (track.state[:2] > np.array(frame_shape)).any()) and track.seen[-1] is None


def _unconfirmed(track: Track) -> bool:
    """Whether it had its chance and is none."""
    return len(track.frames) >= PROBATION and track.hits < CONFIRMED
