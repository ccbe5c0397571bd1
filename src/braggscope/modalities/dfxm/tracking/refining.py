"""Places refined by the forward model: in every frame the images are fitted with all dislocations that are in it.

Images that touch are fitted together, each in the field of all others, which stand where they were found; amplitude and
background of a window are free. The likelihood is that of `dislocations.fit`, whose noise needs photons: with the gain g, a
pedestal P is taken off such that the scatter of the background is that of counting, P = B - var(B) / g, or, where it is larger,
the rest is read-out noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from ..dislocations.fit import Fit, Level, fit
from ..dislocations.model import ImageModel
from .detecting import Detection, noise_of

Array = np.ndarray
MARGIN = 6  # px round an image that is fitted
TOUCH = 2  # px: images nearer than this are fitted together
MOST = 4  # dislocations fitted together
FIRST_STEPS, STEPS = 6, 20  # from every start, and on from the best
STARTS = np.array([[0.0, 0.0], [0.25, -0.3], [-0.25, 0.3]])  # px: the likelihood has narrow maxima where a ray meets the line
FARTHEST = 8.0  # px from where it was expected, beyond which a fit has failed
BEST_CHI2 = 3.0  # per pixel; above, the model does not explain the image
Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Window(ImageModel):
    """A part of the frame of another model, with other dislocations that stand still.

    whole: That model.  box: First and last row and column of the part.  others: Characters and places (in their frames, nm) of
    those that stand still.
    """

    whole: ImageModel
    box: Box
    others: tuple[Sequence[int], Array]

    def image(self, which: Sequence[int], places: Array, *, derivatives: bool = True) -> tuple[Array, Array]:
        """As of the whole model; derivatives by the places of `which` alone."""
        x, y = self.whole.axes_nm
        top, bottom, left, right = self.box
        every = np.concatenate([np.reshape(places, (-1, 2)), self.others[1]])
        kinds = [*which, *self.others[0]]
        image, jacobian = self.whole.at(x[top : bottom + 1], y[left : right + 1], kinds, every, derivatives=derivatives)
        return image, jacobian[: 2 * len(which)]

    def holds(self, which: Sequence[int], places: Array) -> bool:
        """Places are those of the whole frame."""
        return self.whole.holds(which, places)


@dataclass(frozen=True)
class Expected:
    """A dislocation where it is expected in a frame: its character, place in the image (px), and image where it has one."""

    which: int
    place: Array
    seen: Detection | None


@dataclass(frozen=True)
class Refined:
    """Place (px) and covariance (px^2); NaN where the fit failed.  chi2: Per pixel."""

    place: Array
    covariance: Array
    chi2: float


FAILED = Refined(np.full(2, np.nan), np.full((2, 2), np.nan), np.nan)


def refined(model: ImageModel, counts: Array, usable: Array | None, expected: Sequence[Expected], gain: float) -> list[Refined]:
    """The places in one frame, in the order of `expected`; NaN for those without an image, of which only the field counts."""
    places = np.array([one.place for one in expected]).reshape(-1, 2)
    boxes = {n: _box(one.seen, one.place, model.shape) for n, one in enumerate(expected) if one.seen is not None}
    photons, level = in_photons(counts, gain)
    known = np.ones(counts.shape, bool) if usable is None else usable
    found = [FAILED] * len(expected)
    for group in _groups(boxes):
        for n, one in _fitted(model, photons, known, expected, places, group, boxes, level).items():
            found[n] = one
            if np.isfinite(one.place).all():
                places[n] = one.place
    return found


def in_photons(counts: Array, gain: float) -> tuple[Array, Level]:
    """Counts without the pedestal, with the background and noise that go with them; the amplitude is still to be found."""
    background, sigma = noise_of(counts)
    pedestal = max(background - sigma**2 / gain, 0.0)
    readout2 = max(sigma**2 - gain * (background - pedestal), 0.0)
    return counts.astype(float) - pedestal, Level(1.0, background - pedestal, gain, readout2, (True, True, False, False))


def _fitted(
    model: ImageModel, photons: Array, known: Array, expected: Sequence[Expected], places: Array, group: list[int],
    boxes: dict[int, Box], level: Level,
) -> dict[int, Refined]:  # fmt: skip
    """Those of one group, by a joint fit of their window."""
    failed = dict.fromkeys(group, FAILED)
    top, bottom, left, right = box = _around([boxes[n] for n in group])
    rows, columns = slice(top, bottom + 1), slice(left, right + 1)
    usable = known[rows, columns]
    if len(group) > MOST or usable.sum() < 25:
        return failed
    rest = [n for n in range(len(expected)) if n not in group]
    others = [expected[n].which for n in rest], _inner(model, [expected[n].which for n in rest], places[rest])
    window = Window(model.setting, model.characters, usable.shape, model, box, others)
    which = [expected[n].which for n in group]
    counts = photons[rows, columns]
    base = float(np.median(counts[usable]))
    height = max(float(np.percentile(counts[usable], 99)) - base, 1e-3 * abs(base) + 1e-6)
    amplitude, background = height / float(model.optics.weight_nm.sum()), min(base, 1.5 * level.background)
    start = replace(level, amplitude=amplitude, background=background)
    starts = [_inner(model, which, places[group] + off) for off in STARTS]
    best = min((fit(window, counts, usable, which, at, start, FIRST_STEPS) for at in starts), key=lambda f: f.loss)
    one = fit(window, counts, usable, which, best.places, best.level, STEPS)
    at, covariance = _outer(model, one)
    order = _in_order(places[group], at, which)
    good = one.chi2 < BEST_CHI2 and np.isfinite(one.covariance).all()
    for k, n in zip(order, group, strict=True):
        if good and np.linalg.norm(at[k] - places[n]) < FARTHEST:
            failed[n] = Refined(at[k], covariance[k] * max(one.chi2, 1.0), one.chi2)
    return failed


def _inner(model: ImageModel, which: Sequence[int], places: Array) -> Array:
    """Places in the frames of the dislocations, nm, from pixels."""
    if not len(which):
        return np.empty((0, 2))
    middle = (np.array(model.shape) - 1) / 2
    return model.from_image(which, (places - middle) * np.array(model.optics.pitch_nm))


def _outer(model: ImageModel, found: Fit) -> tuple[Array, Array]:
    """Places in pixels with covariances, from a fit."""
    pitch = np.array(model.optics.pitch_nm)
    to_px = model.straight[found.which].to_image() / pitch[:, None]
    at = np.einsum("kij,kj->ki", to_px, found.places) + (np.array(model.shape) - 1) / 2
    own = np.array([found.covariance[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] for k in range(len(found.which))])
    return at, to_px @ own @ to_px.transpose(0, 2, 1)


def _in_order(before: Array, at: Array, which: Sequence[int]) -> list[int]:
    """Which fitted place is whose: dislocations of one character may have changed places in a fit."""
    far = np.linalg.norm(before[:, None] - at[None], axis=-1)
    kinds = np.array(which)
    _, columns = linear_sum_assignment(np.where(kinds[:, None] == kinds[None], far, 1e6))
    return [int(c) for c in columns]


def _box(seen: Detection, place: Array, shape: tuple[int, int]) -> Box:
    """First and last row and column of what is fitted for one dislocation: its image and the line itself."""
    row, column = place
    top, bottom, left, right = seen.box
    limits = (
        (min(top, row) - MARGIN, shape[0]), (max(bottom, row) + MARGIN, shape[0]),
        (min(left, column) - MARGIN, shape[1]), (max(right, column) + MARGIN, shape[1]),
    )  # fmt: skip
    a, b, c, d = (int(np.clip(value, 0, size - 1)) for value, size in limits)
    return a, b, c, d


def _around(boxes: list[Box]) -> Box:
    """The box that holds some boxes."""
    top, bottom, left, right = zip(*boxes, strict=True)
    return min(top), max(bottom), min(left), max(right)


def _groups(boxes: dict[int, Box]) -> list[list[int]]:
    """Dislocations whose images touch, together."""
    touching = np.array([[_touch(a, b) for b in boxes.values()] for a in boxes.values()]).reshape(len(boxes), len(boxes))
    count, label = connected_components(touching)
    numbers = np.array(list(boxes), int)
    return [numbers[label == n].tolist() for n in range(count)]


def _touch(one: Box, other: Box) -> bool:
    """Whether two images, without most of their margins, overlap."""
    inner = 2 * (MARGIN - TOUCH)
    return all(one[i] <= other[i + 1] - inner and other[i] <= one[i + 1] - inner for i in (0, 2))
