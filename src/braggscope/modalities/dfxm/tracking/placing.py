"""Places of the dislocations of all tracks: from their images, by the forward model, or by fits of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.source import Source

from ..dislocations.model import ImageModel
from .cores import centroid_per_length, character_of
from .detecting import Detection, Detector
from .following import FIRST, Motion, Track
from .movie import usable_frames
from .refining import FAILED, Expected, Refined, in_photons, refined
from .smoothing import Places, motion_of, places_of, screened, smoothed
from .tables import Followed

Array = np.ndarray
ENOUGH_LIGHT = 0.25  # of the usual light of a track
ALONE = 40.0  # px to the next image: so far apart the character of a dislocation is told


def placed(
    scan: Source, tracks: Sequence[Track], steps: Array, detector: Detector, model: ImageModel | None, refine: bool, gain: float
) -> tuple[list[Followed], Motion, list[str]]:
    """Tracks with measured and smoothed places, the motion of all of them, and the character of each.

    model: None leaves the centroids of the images.  gain: Detector units per photon.
    Raises InputError where no character of the model could be seen.
    """
    if model is None:
        places = [places_of(one, steps) for one in tracks]
        return *_smooth(tracks, places, [np.zeros((2, 2))] * len(tracks)), [""] * len(tracks)
    known = [centroid_per_length(model.setting, one, detector) for one in model.characters]
    ratios, errors = np.array([r for r, _ in known]), np.array([e for _, e in known])
    if not np.isfinite(errors).any():
        raise InputError("no character given has an image in the setting of the preset; give others, or another preset")
    kinds = characters_of_tracks(scan, tracks, model, ratios, gain)
    places = [places_of(one, steps, ratios[kind]) for one, kind in zip(tracks, kinds, strict=True)]
    shared = [errors[k] ** 2 * np.outer(ratios[k], ratios[k]) / (ratios[k] @ ratios[k]) for k in kinds]
    names = [model.characters[k].name for k in kinds]
    followed, motion = _smooth(tracks, places, shared)
    if refine:
        fitted = refined_places(scan, followed, kinds, model, gain)
        failed = [~np.isfinite(f.place).all(1) & [s is not None for s in t.seen] for f, t in zip(fitted, tracks, strict=True)]
        some = [bool(np.isfinite(f.place).all(1).any()) for f in fitted]  # where all fits failed, the images are left
        places = [f if fits else p for f, p, fits in zip(fitted, places, some, strict=True)]
        shared = [np.zeros((2, 2)) if fits else one for one, fits in zip(shared, some, strict=True)]
        followed, motion = _smooth(tracks, places, shared, failed)
    return followed, motion, names


def characters_of_tracks(scan: Source, tracks: Sequence[Track], model: ImageModel, ratios: Array, gain: float) -> list[int]:
    """The character of each track, from its brightest image with no other near; the most common one where there is none."""
    seen = np.flatnonzero(np.isfinite(ratios).all(1))
    if len(seen) == 1:
        return [int(seen[0])] * len(tracks)
    chosen = {n: best for n, one in enumerate(tracks) if (best := _alone(one, tracks)) is not None}
    only = np.zeros(int(np.prod(scan.shape)), bool)
    only[[frame for frame, _ in chosen.values()]] = True
    found: dict[int, int] = {}
    for index, counts, _ in usable_frames(scan, only):
        photons, level = in_photons(counts, gain)
        for n, (frame, image) in chosen.items():
            if frame == index:
                found[n] = character_of(model, photons, image, ratios, level)
    usual = Counter(found.values()).most_common(1)[0][0] if found else int(seen[0])
    return [found.get(n, usual) for n in range(len(tracks))]


def _alone(track: Track, tracks: Sequence[Track]) -> tuple[int, Detection] | None:
    """Frame and image, the brightest of a track among those that have no neighbour."""
    best: tuple[int, Detection] | None = None
    for frame, image, shared in zip(track.frames, track.seen, track.shared, strict=True):
        if image is None or shared or image.border or (best is not None and image.light <= best[1].light):
            continue
        others = [t.seen[t.frames.index(frame)] for t in tracks if t is not track and frame in t.frames]
        if all(o is None or np.linalg.norm(o.place - image.place) > ALONE for o in others):
            best = frame, image
    return best


def refined_places(
    scan: Source, followed: Sequence[Followed], kinds: Sequence[int], model: ImageModel, gain: float
) -> list[Places]:
    """Places by fits of every frame, NaN where one failed."""
    found = {(n, k): FAILED for n, one in enumerate(followed) for k in range(len(one.track.frames))}
    parts = [_imaged(one.track) for one in followed]
    where = [{frame: k for k, frame in enumerate(one.track.frames)} for one in followed]
    for index, counts, usable in usable_frames(scan):
        here = [(n, at[index]) for n, at in enumerate(where) if index in at]
        images = [parts[n][k] for n, k in here]
        places = [followed[n].smooth.state[k, :2] for n, k in here]
        expected = [Expected(kinds[n], at, image) for (n, _), at, image in zip(here, places, images, strict=True)]
        found |= dict(zip(here, refined(model, np.asarray(counts, float), usable, expected, gain), strict=True))
    return [_places(one.places.steps, [found[n, k] for k in range(len(one.track.frames))]) for n, one in enumerate(followed)]


def _imaged(track: Track) -> list[Detection | None]:
    """Images of a track that can be fitted: common ones too, and those cut off by the border with enough light."""
    own = track.own(ENOUGH_LIGHT)
    return [seen if shared else one for seen, shared, one in zip(track.seen, track.shared, own, strict=True)]


def _places(steps: Array, each: Sequence[Refined]) -> Places:
    covariance = np.array([one.covariance for one in each])
    return Places(steps, np.array([one.place for one in each]), np.where(np.isfinite(covariance), covariance, 0.0))


def _smooth(
    tracks: Sequence[Track], places: Sequence[Places], systematic: Sequence[Array], failed: Sequence[Array] | None = None
) -> tuple[list[Followed], Motion]:
    """Smoothed tracks and the motion that they show."""
    motion = motion_of(places, FIRST)
    failed = failed if failed is not None else [np.zeros(len(one.frames), bool) for one in tracks]
    smooth = [smoothed(screened(one, motion), motion) for one in places]
    return [Followed(*one) for one in zip(tracks, places, smooth, systematic, failed, strict=True)], motion
