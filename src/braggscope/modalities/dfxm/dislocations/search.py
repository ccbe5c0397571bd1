"""Where a dislocation may be: the likelihood of every place of the field at once.

The image of a straight dislocation moves with it without change, so that all places on the grid of pixels are tried by
correlation of the counts with one larger image: for each, amplitude and background are fitted by weighted least squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft, ndimage

from . import kernels
from .fit import Fit, Level, fit, loss_of
from .model import ImageModel
from .nearby import SPREAD, Nearby

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
    told = setting.background_in_mean or setting.background is not None  # else in the variance alone, as the read-out noise is
    free = (setting.amplitude is None, setting.background is None, setting.gain is None, setting.readout is None and told)
    amplitude = setting.amplitude if setting.amplitude is not None else _first_amplitude(model, values, background)
    return Level(amplitude, background, gain, readout2, free)


def _first_amplitude(model: ImageModel, values: Array, background: float) -> float:
    """As if the brightest pixels were at full reflection."""
    top = float(values[-max(len(values) // 500, 1) :].mean())
    return max(top - background, 1e-3 * abs(background), 1e-9) / float(model.optics.weight_nm.sum())


def candidates(
    model: ImageModel,
    counts: Array,
    usable: Array,
    level: Level,
    which: range | list[int],
    most: int = 4,
) -> list[Candidate]:
    """The best places of one dislocation of each character, best first."""
    weight = usable / _variance(counts, usable, level)
    falls = {one: _falls(model, counts, weight, level, one) for one in which}
    return _peaks(model, falls, model.axes_nm, most)


def candidates_beside(
    model: ImageModel,
    counts: Array,
    usable: Array,
    level: Level,
    others: Sequence[int],
    places: Array,
    which: Sequence[int],
    most: int,
) -> list[Candidate]:
    """The best places of one dislocation of each character beside others, whose distortions add to its own; best first.

    Every second pixel is tried, and compared in every second pixel, with distortions to first order.
    """
    inverse = usable / _variance(counts, usable, level)
    here = model.undistorted + model.change(*model.axes_nm, others, places)
    o = model.optics
    scan = (o.weight_nm, counts, inverse, level.amplitude, level.background, o.half_width, o.sigma, kernels.TAIL)
    x, y = (axis[::STEP] for axis in model.axes_nm)
    falls = {one: -kernels.misfits(here, _moved(model, one), STEP, *scan) for one in which}
    return _peaks(model, falls, (x, y), most)


def _variance(counts: Array, usable: Array, level: Level) -> Array:
    """Of the counts, from their neighbourhood."""
    smooth = ndimage.uniform_filter(np.where(usable, counts, level.background), 3)
    return np.maximum(level.gain * np.maximum(smooth, level.background) + level.readout2, level.least_variance)


def _peaks(model: ImageModel, falls: dict[int, Array], axes: tuple[Array, Array], most: int) -> list[Candidate]:
    found: list[Candidate] = []
    for one, fall in falls.items():
        peaks = fall == ndimage.maximum_filter(fall, 5)
        order = np.argsort(fall[peaks])[::-1][:most]
        found += [Candidate(one, np.array([axes[0][i], axes[1][j]]), float(fall[i, j])) for i, j in np.argwhere(peaks)[order]]
    return sorted(found, key=lambda c: -c.fall)


def _moved(model: ImageModel, which: int) -> Array:
    """Change of q_1 by a dislocation in the middle, over twice the image; kept with the model."""
    kept = model.__dict__.setdefault("_changes", {})
    if which not in kept:
        x, y = (np.arange(-(k - 1), k) * p for k, p in zip(model.shape, model.optics.pitch_nm, strict=True))
        kept[which] = model.change(x, y, [which], np.zeros((1, 2)))
    return kept[which]


def _falls(model: ImageModel, counts: Array, weight: Array, level: Level, which: int) -> Array:
    """Fall of chi^2 for a dislocation at each pixel, shape (x, y)."""
    spectra, size = _templates(model, which)
    n, m = model.shape

    def correlated(field: Array, spectrum: Array) -> Array:
        """sum_p field(p) T(p - s) for every pixel s; T has its middle at (n - 1, m - 1)."""
        whole = fft.irfft2(fft.rfft2(field, size) * spectrum, size)
        return whole[n - 1 : 2 * n - 1, m - 1 : 2 * m - 1]

    s_w, s_d = weight.sum(), (weight * counts).sum()
    s_t, s_tt, s_dt = (
        correlated(field, spectrum)
        for field, spectrum in ((weight, spectra[0]), (weight, spectra[1]), (weight * counts, spectra[0]))
    )
    if level.free[1]:
        cross, own = s_dt - s_d * s_t / s_w, s_tt - s_t**2 / s_w
    else:
        cross, own = s_dt - level.background * s_t, s_tt
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


STEP = 2  # pixels between places beside other dislocations
FINER = 6  # places tried along each axis round a candidate, over one and a half pixels
TRIED = 2  # of these, fits
FEW = 6  # steps from every start
BEHIND = 10.0  # log-likelihood after these below the best one of the same character, from which on a start is left
SAME_NM = 0.3  # apart, within which two are one
FOLLOWED = 5  # starts that are followed further
ENDED = 3  # of these, where they were coarse, to the end with every pixel
RIVALS = 0.8  # of the best fall: further candidates that are tried
CLIMBS = 6  # times that a higher maximum is looked for around the last one
ABOUT_NM, TRIED_ABOUT = 40.0, 450  # half the side of the square in which it is, and the points there at which it is sought
HIGHER, WORTH = 0.2, 2.0  # log-likelihood: what is a higher maximum, and how far below the last one points are still tried
CLOSE = 100.0  # log-likelihood below the best fit, from which on a character is not climbed for


def located(model: ImageModel, counts: Array, usable: Array, level: Level, which: range | list[int], most: int = 3) -> list[Fit]:
    """Fits of one dislocation of each character that comes near the best, each from its best starts; the best first."""
    found = candidates(model, counts, usable, level, which, most)
    starts: list[Start] = []
    for one in which:
        own = [c for c in found if c.which == one]
        if not own:  # levels that tell nothing of any place
            continue
        least = own[0].fall - (1 - RIVALS) * abs(own[0].fall)  # below 0 where no place explains more than the background does
        rivals = [c for c in own if c.fall >= least]
        begun = sorted((at for c in rivals for at in _finer(model, counts, usable, level, c)), key=lambda start: start[0])
        starts += [((one,), np.reshape(place, (1, 2)), own_level) for _, place, own_level in begun[:TRIED]]
    fits = followed(model, counts, usable, starts)
    best = {f.which: f for f in reversed(fits) if f.loss < fits[0].loss + CLOSE}
    rest = [f for f in fits if f is not best.get(f.which)]
    return sorted([*(climbed(model, counts, usable, f) for f in best.values()), *rest], key=lambda f: f.loss)


def climbed(model: ImageModel, counts: Array, usable: Array, found: Fit) -> Fit:
    """The highest maximum about a fit, from ripple to ripple of the likelihood (`nearby`)."""
    for _ in range(CLIMBS):
        before = found.loss
        for k in range(len(found.which)):
            starts = _higher(model, counts, usable, found, k)
            tried = [fit(model, counts, usable, found.which, at, found.level, FEW) for at in starts]
            best = min(tried, key=lambda f: f.loss, default=found)
            if best.loss < found.loss - HIGHER:
                found = fit(model, counts, usable, best.which, best.places, best.level)
        if found.loss > before - HIGHER:
            break
    return found


def _higher(model: ImageModel, counts: Array, usable: Array, found: Fit, k: int) -> list[Array]:
    """Places with dislocation k where the likelihood may be higher, apart from each other and from the fit; the best first."""
    about = Nearby.of(model, counts, usable, found, k)
    grid = found.places[k] + ABOUT_NM * SPREAD[:TRIED_ABOUT]
    losses = about.losses(grid)
    taken = [found.places[k]]
    for i in np.argsort(losses):
        if losses[i] > about.at_fit + WORTH or len(taken) > TRIED + 1:
            break
        if min(np.hypot(*(grid[i] - at)) for at in taken) > ABOUT_NM / 15:
            taken.append(grid[i])
    places = np.repeat(found.places[None], len(taken) - 1, 0)
    places[:, k] = np.reshape(taken[1:], (-1, 2))
    return list(places)


Start = tuple[tuple[int, ...], Array, Level]
"""Characters, places and levels to start a fit from."""


def followed(model: ImageModel, counts: Array, usable: Array, starts: Sequence[Start], *, coarse: bool = False) -> list[Fit]:
    """Fits from the best of many starts, the best first: a few steps from every start, and all of them from the best.

    coarse: With every second pixel at first.
    """
    first, few, known = model, counts, usable
    if coarse:
        first, few, known = model.coarse, counts[::2, ::2], usable[::2, ::2]
    begun = sorted((fit(first, few, known, *start, steps=FEW) for start in starts), key=lambda f: f.loss)
    begun = (begun if coarse else _promising(begun))[:FOLLOWED]
    if coarse:
        begun = sorted((fit(first, few, known, f.which, f.places, f.level) for f in begun), key=lambda f: f.loss)[:ENDED]
    return sorted((fit(model, counts, usable, f.which, f.places, f.level) for f in begun), key=lambda f: f.loss)


def _promising(begun: Sequence[Fit]) -> list[Fit]:
    """Those that may still become the best of their characters, each place once; the best first."""
    kept: list[Fit] = []
    for one in begun:
        better = [f for f in kept if f.which == one.which]
        if not better or (
            one.loss < better[0].loss + BEHIND and min(np.abs(f.places - one.places).max() for f in better) > SAME_NM
        ):
            kept.append(one)
    return kept


def _finer(model: ImageModel, counts: Array, usable: Array, level: Level, at: Candidate) -> list[tuple[float, Array, Level]]:
    """Loss in every second pixel, place in the frame of the dislocation, and levels, on a grid finer than the pixels round it."""
    steps = (np.arange(FINER) - (FINER - 1) / 2) * 1.5 / FINER
    x, y = (steps * pitch for pitch in model.optics.pitch_nm)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2) + at.place
    some, few, known = model.coarse, counts[::2, ::2], usable[::2, ::2]
    weight = (usable / _variance(counts, usable, level))[::2, ::2]
    places = model.from_image([at.which] * len(grid), grid)
    images = np.array([some.image([at.which], one, derivatives=False)[0] for one in places])
    levels = _levelled(few, weight, level, images)
    return [(loss_of(some, few, known, *each), place, each[1]) for place, *each in zip(places, images, levels, strict=True)]


def _levelled(counts: Array, weight: Array, level: Level, images: Array) -> list[Level]:
    """Amplitude and background, where they are free, by weighted least squares of each of some images, shape (image, x, y)."""
    flat, w, d = images.reshape(len(images), -1), weight.ravel(), counts.ravel()
    told = np.ones(len(images), bool)
    amplitude, background = np.full((2, len(images)), [[level.amplitude], [level.background]])
    mean = (flat @ w / w.sum())[:, None] if level.free[1] else 0.0  # what a background takes up
    about = d - (w @ d / w.sum() if level.free[1] else level.background)
    if level.free[0]:
        own, whole = (flat - mean) ** 2 @ w, flat**2 @ w
        told = own > 1e-13 * whole
        amplitude[told] = ((flat - mean) @ (w * about))[told] / own[told]
    if level.free[1]:
        background[told] = ((d - amplitude[:, None] * flat) @ w / w.sum())[told]
    least = level.amplitude / 3
    both = zip(amplitude.tolist(), background.tolist(), strict=True)
    return [replace(level, amplitude=max(a, least), background=b) for a, b in both]
