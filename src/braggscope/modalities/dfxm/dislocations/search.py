"""Where a dislocation may be: the likelihood of every place of the field at once.

The image of a straight dislocation moves with it without change, so that all places on the grid of pixels are tried by
correlation of the counts with one larger image: for each, amplitude and background are fitted by weighted least squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from .fit import Fit, Level, fit, loss
from .model import ImageModel

Array = np.ndarray


@dataclass(frozen=True)
class Candidate:
    """A place to start from: character, place in the image (nm) and fall of chi^2 against the background alone."""

    which: int
    place: Array
    fall: float


def start_level(model: ImageModel, counts: Array, usable: Array) -> Level:
    """Background and read-out noise of the darkest part of an image, and what the setting says of them."""
    setting = model.setting
    values = np.sort(counts[usable])
    level = np.median(values)
    for _ in range(20):
        below = values[values <= level]
        spread = max(1.4826 * float(np.median(level - below)), 1e-9)
        new = float(np.median(values[np.abs(values - level) < 3 * spread]))
        if abs(new - level) < 1e-3 * spread:
            break
        level = new
    background = setting.background if setting.background is not None else level
    gain = setting.gain or 1.0
    noise2 = spread**2 - gain * max(background, 0.0)
    readout2 = setting.readout**2 if setting.readout is not None else max(noise2, 0.05 * spread**2)
    free = (setting.amplitude is None, setting.background is None, setting.gain is None, setting.readout is None)
    amplitude = setting.amplitude if setting.amplitude is not None else _first_amplitude(model, values, background)
    return Level(amplitude, background, gain, readout2, free)


def _first_amplitude(model: ImageModel, values: Array, background: float) -> float:
    """As if the brightest pixels were at full reflection."""
    top = float(values[-max(len(values) // 500, 1) :].mean())
    return max(top - background, 1e-3 * abs(background), 1e-9) / float(model.optics.weight_nm.sum())


def candidates(
    model: ImageModel, counts: Array, usable: Array, level: Level, which: range | list[int], most: int = 4
) -> list[Candidate]:
    """The best places of each character, best first."""
    smooth = ndimage.uniform_filter(np.where(usable, counts, level.background), 3)
    weight = usable / (level.gain * np.maximum(smooth, level.background) + level.readout2)
    found: list[Candidate] = []
    for one in which:
        fall = _falls(model, counts, weight, level, one)
        peaks = (fall == ndimage.maximum_filter(fall, 5)) & (fall > 0)
        places = np.argwhere(peaks)
        order = np.argsort(fall[peaks])[::-1][:most]
        x, y = model.axes_nm
        found += [Candidate(one, np.array([x[i], y[j]]), float(fall[i, j])) for i, j in places[order]]
    return sorted(found, key=lambda c: -c.fall)


def _falls(model: ImageModel, counts: Array, weight: Array, level: Level, which: int) -> Array:
    """Fall of chi^2 for a dislocation at each pixel, shape (x, y)."""
    spectra, size = _templates(model, which)
    n, m = model.shape

    def correlated(field: Array, spectrum: Array) -> Array:
        """sum_p field(p) T(p - s) for every pixel s; T has its middle at (n - 1, m - 1)."""
        whole = fft.irfft2(fft.rfft2(field, size) * spectrum, size)
        return whole[n - 1 : 2 * n - 1, m - 1 : 2 * m - 1]

    s_w, s_d, s_dd = weight.sum(), (weight * counts).sum(), (weight * counts**2).sum()
    s_t, s_tt, s_dt = (
        correlated(field, spectrum)
        for field, spectrum in ((weight, spectra[0]), (weight, spectra[1]), (weight * counts, spectra[0]))
    )
    if not level.free[1]:
        s_dt, s_d0 = s_dt - level.background * s_t, 0.0
        cross, own, alone = s_dt, s_tt, s_dd - 2 * level.background * s_d + level.background**2 * s_w
    else:
        cross, own, alone = s_dt - s_d * s_t / s_w, s_tt - s_t**2 / s_w, 0.0
    del alone
    own = np.maximum(own, 1e-9 * s_tt.max())
    amplitude = level.amplitude if not level.free[0] else np.maximum(cross / own, 0.0)
    return 2 * amplitude * cross - amplitude**2 * own


def _templates(model: ImageModel, which: int) -> tuple[tuple[Array, Array], tuple[int, int]]:
    """Spectra of the image of a dislocation in the middle and of its square, mirrored for correlation; kept with the model."""
    kept = model.__dict__.setdefault("_templates", {})
    if which not in kept:
        (n, m), pitch = model.shape, model.optics.pitch_nm
        x, y = (np.arange(-(k - 1), k) * p for k, p in zip((n, m), pitch, strict=True))
        image = model.at(x, y, [which], np.zeros((1, 2)), derivatives=False)[0][::-1, ::-1]
        size = (fft.next_fast_len(3 * n - 2, real=True), fft.next_fast_len(3 * m - 2, real=True))
        kept[which] = (fft.rfft2(image, size), fft.rfft2(image**2, size)), size
    return kept[which]


FINER = 5  # places tried per pixel along y (and, by its size, along x) round a candidate
TRIED = 3  # of these, fits
COARSE_STEPS = 8


def located(model: ImageModel, counts: Array, usable: Array, level: Level, which: range | list[int], most: int = 3) -> list[Fit]:
    """Fits of one dislocation of each character, each from its best starts; the best first."""
    best: dict[int, Fit] = {}
    found = candidates(model, counts, usable, level, which, most)
    for one in which:
        own = [c for c in found if c.which == one]
        starts = [place for c in own if c.fall > 0.3 * own[0].fall for place in _finer(model, counts, usable, level, c)]
        fits = [fit(model, counts, usable, [one], place, level) for place in starts]
        if fits:
            best[one] = min(fits, key=lambda f: f.loss)
    return sorted(best.values(), key=lambda f: f.loss)


def _finer(model: ImageModel, counts: Array, usable: Array, level: Level, candidate: Candidate) -> list[Array]:
    """The best places on a grid finer than the pixels round a candidate, in the frame of the dislocation."""
    along_x, along_y = (np.arange(FINER) / FINER * 2 - 1 + 1 / FINER for _ in range(2))
    x, y = (a * p * 0.75 for a, p in zip((along_x, along_y), model.optics.pitch_nm, strict=True))
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2) + candidate.place
    places = model.from_image([candidate.which] * len(grid), grid)
    losses = [loss(model, counts, usable, [candidate.which], place, level) for place in places]
    return [places[i] for i in np.argsort(losses)[:TRIED]]
