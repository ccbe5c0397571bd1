"""The place of a dislocation from its image: the forward model says where the line is beside the centroid of its light.

The field of a straight dislocation falls as 1/r, so that an image that another field or another rocking angle makes larger keeps
its shape: the way from the line to the centroid grows with the length of the image. The ratio is measured on images of one
dislocation by the same detector, at rocking angles around that of the setting and at places within a pixel.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..dislocations.characters import Character
from ..dislocations.fit import Level, fit
from ..dislocations.model import ImageModel
from ..dislocations.setting import Setting
from .detecting import Detection, Detector

Array = np.ndarray
FRAME = 160  # px a side
TILTS_RAD = (-1.5e-5, 0.0, 2e-5)
PLACES = ((0.0, 0.0), (0.3, -0.4), (-0.2, 0.4))  # px
AROUND = 12  # px round an image in which characters are compared
STEPS = 15
PEAK, BACKGROUND, SEED = 1000.0, 50.0, 0


def centroid_per_length(setting: Setting, character: Character, detector: Detector) -> tuple[Array, float]:
    """Centroid less place of the line over the length of the image (row, column), and the root mean square error of that, px.

    NaN where the detector sees nothing of this character.
    """
    finder = Detector.of((FRAME, FRAME), detector.threshold, detector.smallest)
    random = np.random.default_rng(SEED)
    offs, lengths = [], []
    for tilt in TILTS_RAD:
        model = ImageModel(setting.replace(phi_deg=setting.phi_deg + math.degrees(tilt)), [character], (FRAME, FRAME))
        for place in PLACES:
            at = np.array([place]) * model.optics.pitch_nm
            light, _ = model.image([0], model.from_image([0], at), derivatives=False)
            expected = PEAK * light / model.optics.weight_nm.sum() + BACKGROUND
            found = finder.found(random.poisson(expected).astype(np.float32))
            if found:
                best = max(found, key=lambda one: one.light)
                offs.append(best.place - place - (FRAME - 1) / 2)
                lengths.append(best.length)
    if not offs:
        return np.full(2, np.nan), math.nan
    off, length = np.array(offs), np.array(lengths)
    ratio = length @ off / (length @ length)
    return ratio, float(np.sqrt(((off - length[:, None] * ratio) ** 2).sum(1).mean()))


def character_of(model: ImageModel, counts: Array, seen: Detection, ratios: Array, level: Level) -> int:
    """The character whose image explains that of one dislocation best, as its number in the model.

    counts: Photons and background of the frame.  ratios: `centroid_per_length` of each character, (character, 2).
    level: Background, gain and read-out noise; the amplitude is that of the image.
    """
    top, bottom, left, right = (int(v) for v in seen.box)
    rows, columns = (slice(max(a - AROUND, 0), b + AROUND + 1) for a, b in ((top, bottom), (left, right)))
    part = counts[rows, columns]
    corner = np.array([rows.start, columns.start])
    small = ImageModel(model.setting, model.characters, part.shape)
    pitch, middle = np.array(small.optics.pitch_nm), (np.array(part.shape) - 1) / 2
    amplitude = max(float(np.percentile(part, 99)) - level.background, 1e-6) / float(small.optics.weight_nm.sum())
    start = replace(level, amplitude=amplitude, free=(True, True, False, False))
    losses = np.full(len(ratios), np.inf)
    for n in np.flatnonzero(np.isfinite(ratios).all(1)).tolist():
        place = small.from_image([n], (seen.place - ratios[n] * seen.length - corner - middle)[None] * pitch)
        losses[n] = fit(small, part, np.ones(part.shape, bool), [n], place, start, STEPS).loss
    return int(losses.argmin())
