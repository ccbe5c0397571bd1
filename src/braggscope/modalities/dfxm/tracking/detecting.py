"""Images of dislocations in one frame: where they are, how bright and how sure.

After Gonzalez et al. 2020: the horizontal detail of level 3 of the stationary wavelet transform (Daubechies 4), less its
median, above a threshold in its standard deviations (from the median absolute deviation), without small objects, closed; then
the dark half by fast marching from the darkest place of the 25 x 25 window round each bright one, where that stands out of the
noise at all: a weak-beam image has no dark half. The detail is the projection on the wavelets, not their coefficients: those are
the same for the threshold but shifted by half a wavelet. A place is the centroid of bright and dark part together,

    r = sum w |I - B| r / sum w |I - B|,

B the median of the window outside, w the joint mask smoothed by a Gaussian. Its covariance is that of the scatter of the
background and of counting, var(I) = var(B) + g (I - B) with the gain g. Where that is not known, g = var(B) / B, at most 1, which
is right for a background of photons alone: with a pedestal it is too small, and so are the errors of bright images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from ..separating.wavelets import Wavelets, filled

Array = np.ndarray
WAVELET, LEVEL = "db4", 3
HALF_WINDOW = 12  # px: the window of 25 x 25
CERTAIN = 1.6  # thresholds that the brightest place of an image is above: noise of the level 3 detail reaches 5 sigma at times
SMOOTH = 1.0  # px, of the joint mask
OWN = 0.15  # of the largest detail of an image, below which pixels are not of it
LOBE = 0.08  # of the height, and of the light, of a brighter one nearby
LEAST_LIGHT = 6.0  # standard deviations
BLOCK = 32  # px, of the first approximation of the background
EIGHT = np.ones((3, 3), bool)
GROWN = 2  # px by which the mask of the detail is widened, since the detail is narrower than the image
PAD = 8  # px round an image in which the background is measured
DARK_COST = 8.0  # px of travel at full darkness
MAD = 1.4826


@dataclass(frozen=True)
class Detection:
    """The image of a dislocation, or of several that overlap.

    place: Row and column of the centroid, px.  covariance: Of that, px^2, (2, 2).
    light: Counts above the background, those that the dark half lacks added, and its standard deviation.
    length: Root mean square extent along its longest axis, px.
    box: First and last row and column of the bright part.  pixels: Of the bright part, (pixel, 2).
    dark: Whether it has a dark half.  border: Whether it touches the border of the frame or unusable pixels.
    """

    place: Array
    covariance: Array
    light: float
    light_std: float
    length: float
    box: tuple[int, int, int, int]
    pixels: Array = field(repr=False)
    dark: bool = False
    border: bool = False


@dataclass(frozen=True)
class Detector:
    """Finds the images of dislocations in frames of one shape.

    threshold: Standard deviations of the detail.  smallest: px, of an image.  gain: Detector units per photon, if known.
    """

    wavelets: Wavelets
    threshold: float
    smallest: int
    gain: float | None = None

    @classmethod
    def of(cls, frame_shape: tuple[int, int], threshold: float, smallest: int, gain: float | None = None) -> Detector:
        """Raises InputError for frames that are too small for the wavelet."""
        return cls(Wavelets.fitting(WAVELET, LEVEL, "stationary", frame_shape), threshold, smallest, gain)

    def found(self, frame: Array, usable: Array | None = None) -> list[Detection]:
        """The images in a frame of counts, shape (row, column); `usable` is False where a count may not be used."""
        counts = np.asarray(frame, np.float32)
        if usable is not None:
            if usable.mean() < 0.5:
                return []
            counts = filled(np.where(usable, counts, np.nan)).astype(np.float32)
        noise = noise_of(counts)
        label, count = self._bright(counts, usable, noise[1])
        boxes = ndimage.find_objects(label)
        every = [_measured(counts, usable, label, n + 1, boxes[n], noise, self.threshold, self.gain) for n in range(count)]
        lobes = _beside(np.array([one.place for one in every]).reshape(-1, 2), np.array([one.light for one in every]))
        return [one for one, lobe in zip(every, lobes, strict=True) if one.light > LEAST_LIGHT * one.light_std and not lobe]

    def _bright(self, counts: Array, usable: Array | None, noise: float) -> tuple[Array, int]:
        """Numbered bright parts."""
        detail = self.wavelets.horizontal(counts)
        detail -= np.median(detail[::3, ::3])
        sigma = MAD * float(np.median(np.abs(detail[::3, ::3])))
        above = detail > self.threshold * max(sigma, 1e-6)
        if usable is not None:
            above &= usable
        above = ndimage.binary_closing(above) | above
        label, count = ndimage.label(above, EIGHT)
        if not count:
            return label, 0
        top = _tops(detail, label, count)
        label, count = ndimage.label((label > 0) & (detail > OWN * top[label]), EIGHT)  # images that only their feet join
        top = _tops(detail, label, count)
        size = np.bincount(label.ravel(), minlength=count + 1)
        kept = (size >= self.smallest) & (top > CERTAIN * self.threshold * sigma)
        kept[0] = False
        at = np.flatnonzero(label)
        part = label.ravel()[at]
        row, column = np.divmod(at, label.shape[1])
        above_level = counts.ravel()[at] - _levels(counts)[row // BLOCK, column // BLOCK]
        total, *sums = (np.bincount(part, w, count + 1) for w in (None, row, column, above_level))
        middle = np.stack(sums[:2], 1) / np.maximum(total, 1)[:, None]
        light = sums[2]
        kept[kept] = light[kept] > LEAST_LIGHT / 2 * noise * np.sqrt(total[kept])
        kept[kept] = ~(_beside(middle[kept], top[kept]) | _beside(middle[kept], light[kept]))
        number = np.where(kept, np.cumsum(kept), 0)
        return number[label], int(kept.sum())


def _levels(counts: Array) -> Array:
    """Medians of blocks of the frame: the background to a first approximation, shape (block, block)."""
    rows, columns = counts.shape
    some = np.pad(counts[::2, ::2], [(0, -(-n // BLOCK) * BLOCK // 2 - (n + 1) // 2) for n in (rows, columns)], mode="symmetric")
    half = BLOCK // 2
    return np.median(some.reshape(some.shape[0] // half, half, some.shape[1] // half, half), axis=(1, 3))


def _tops(detail: Array, label: Array, count: int) -> Array:
    """Largest value of the detail in each part, shape (count + 1,); 0 for none."""
    top, at = np.zeros(count + 1), np.flatnonzero(label)
    np.maximum.at(top, label.ravel()[at], detail.ravel()[at])
    top[0] = 0
    return top


def _beside(middle: Array, height: Array) -> Array:
    """Which are the side lobes that the wavelet gives to a much brighter one nearby."""
    near = np.linalg.norm(middle[:, None] - middle[None], axis=-1) < 2.5 * HALF_WINDOW
    return height < LOBE * np.where(near, height[None], 0).max(1, initial=0)


def noise_of(counts: Array) -> tuple[float, float]:
    """Level of the dark part of a frame and the standard deviation of its pixels, from differences of neighbours."""
    some = counts[::3, :-1:3]
    level = float(np.median(some))
    sigma = MAD * float(np.median(np.abs(some - counts[::3, 1::3][:, : some.shape[1]]))) / np.sqrt(2)
    return level, max(sigma, 1e-6)


def _measured(
    counts: Array, usable: Array | None, label: Array, number: int, box: tuple[slice, slice], noise: tuple[float, float],
    limit: float, gain: float | None,
) -> Detection:  # fmt: skip
    """Centroid, covariance and light of one bright part with its dark half."""
    rows, columns = (slice(max(s.start - PAD, 0), s.stop + PAD) for s in box)
    part, own = counts[rows, columns].astype(float), label[rows, columns] == number
    others = (label[rows, columns] > 0) & ~own
    mask = ndimage.binary_dilation(own, iterations=GROWN) & ~others
    outside = ~mask & ~ndimage.binary_dilation(others, iterations=GROWN)
    base = float(np.median(part[outside])) if outside.sum() > 20 else noise[0]
    light = part - base
    i, j = (np.arange(s.start, s.start + n) for s, n in zip((rows, columns), part.shape, strict=True))
    bright = own * np.maximum(light, noise[1])
    middle = np.array([bright.sum(1) @ i, bright.sum(0) @ j]) / bright.sum()
    dark = _dark_half(counts, middle, base, noise[1], limit)
    weight = ndimage.gaussian_filter(mask.astype(float), SMOOTH) * ~others
    if dark is not None:
        rows, columns, part, weight = _joined(counts, (rows, columns), weight, dark)
        light = np.abs(part - base)
        i, j = (np.arange(s.start, s.start + n) for s, n in zip((rows, columns), part.shape, strict=True))
    share = weight * light
    total = max(float(share.sum()), noise[1])
    place = np.array([share.sum(1) @ i, share.sum(0) @ j]) / total
    slope = noise[1] ** 2 / max(base, noise[1] ** 2) if gain is None else gain
    variance = weight**2 * np.maximum(noise[1] ** 2 + slope * (part - base), 0.2 * noise[1] ** 2)
    away = np.stack(np.meshgrid(i - place[0], j - place[1], indexing="ij"))
    covariance = np.einsum("iab,jab,ab->ij", away, away, variance) / total**2
    spread = np.einsum("iab,jab,ab->ij", away, away, np.maximum(share, 0)) / max(float(np.maximum(share, 0).sum()), 1e-9)
    edge = box[0].start <= 1 or box[1].start <= 1 or box[0].stop >= counts.shape[0] - 1 or box[1].stop >= counts.shape[1] - 1
    if usable is not None:
        edge = edge or not usable[box[0], box[1]].all()
    pixels = np.argwhere(label[box] == number) + np.array([box[0].start, box[1].start])
    return Detection(
        place, covariance, float(share.sum()), float(np.sqrt(variance.sum())),
        float(np.sqrt(np.linalg.eigvalsh(spread)[-1])),
        (box[0].start, box[0].stop - 1, box[1].start, box[1].stop - 1), pixels, dark is not None, bool(edge),
    )  # fmt: skip


def _dark_half(counts: Array, middle: Array, base: float, sigma: float, limit: float) -> tuple[slice, slice, Array] | None:
    """Rows, columns and mask of the dark half in the window round a bright centroid; None where nothing is dark.

    Fast marching from the darkest place: the cost of a pixel grows as it is less dark.
    """
    from skimage.graph import MCP_Geometric

    rows, columns = (slice(max(round(m) - HALF_WINDOW, 0), round(m) + HALF_WINDOW + 1) for m in middle)
    depth = base - ndimage.gaussian_filter(counts[rows, columns].astype(float), SMOOTH)
    if depth.size == 0 or depth.max() < 1.5 * limit * sigma / (2 * np.sqrt(np.pi) * SMOOTH):  # noise of the smoothed window
        return None
    start = np.unravel_index(int(depth.argmax()), depth.shape)
    costs, _ = MCP_Geometric(1 / np.clip(depth / depth.max(), 0.02, 1)).find_costs([start])
    return rows, columns, (costs < DARK_COST) & (depth > 0.3 * depth.max())


def _joined(
    counts: Array, part: tuple[slice, slice], weight: Array, dark: tuple[slice, slice, Array]
) -> tuple[slice, slice, Array, Array]:
    """The window and weights that hold the bright and the dark half."""
    rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(part, dark[:2], strict=True))
    both = np.zeros(counts[rows, columns].shape)
    at = part[0].start - rows.start, part[1].start - columns.start
    both[at[0] : at[0] + weight.shape[0], at[1] : at[1] + weight.shape[1]] = weight
    soft = ndimage.gaussian_filter(np.pad(dark[2].astype(float), 2), SMOOTH)[2:-2, 2:-2]
    at = dark[0].start - rows.start, dark[1].start - columns.start
    view = both[at[0] : at[0] + soft.shape[0], at[1] : at[1] + soft.shape[1]]
    np.maximum(view, soft, out=view)
    return rows, columns, counts[rows, columns].astype(float), both
