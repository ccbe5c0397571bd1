"""How much light each grain has: weighted least squares of a frame by the images of the grains near its position.

The images are those of `spots`. Where a grain is lit is known from the sums; the variances of a frame are those of the nearest
sum, so that all frames about a centre share one normal matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.linalg import cho_factor, cho_solve

from braggscope.infer.runtime import in_threads

from . import kernels
from .spots import Images
from .sums import Sums

LIT = 3.0  # standard deviations above which a grain counts as lit
SEEN = 6.0  # standard deviations from which on a spot should be seen
LIKE = 2.5  # factor between the strength of a spot and what is expected
ALIKE, FEWEST = 0.7, 4  # part and number of the spots that should be seen and are
FARTHEST = 1.0  # px that a spot is moved at once
RIDGE = 1e-6  # of the largest diagonal element


@dataclass(frozen=True, eq=False)
class Lights:
    """Light on the grains at each centre: `near[c]` are those that may have any, `light[c]` how much, `std[c]` its error."""

    near: list[np.ndarray]
    light: list[np.ndarray]
    std: list[np.ndarray]

    def of_grains(self, count: int) -> np.ndarray:
        """Light of each grain at each centre, shape (grain, centre)."""
        full = np.zeros((count, len(self.near)))
        for c, (near, light) in enumerate(zip(self.near, self.light, strict=True)):
            full[near, c] = light
        return full


def lit(sums: Sums, images: Images, seats: np.ndarray) -> list[np.ndarray]:
    """The grains that may be lit at each centre: where their image is seen, connected with their seat, and one step beyond.

    seats: The centre at which each grain was found.
    """
    seen = np.zeros((len(images), len(sums.mean)), bool)
    if not len(images):
        return [np.empty(0, int)] * len(sums.mean)

    def work(first: int, stop: int) -> None:
        every = np.arange(len(images))
        projected, norm = np.empty(len(images)), np.empty(len(images))
        for c in range(first, stop):
            if not np.isfinite(sums.part[c]):
                continue
            weight = weights_at(sums, c) / sums.part[c]
            kernels.projections(every, sums.mean[c], sums.same, weight, *images.arrays, projected)
            own = (images.strength[:, None] * images.share) ** 2 * weight[images.place]
            norm[:] = np.add.reduceat(np.append(own.sum(1), 0.0), images.start[:-1])
            seen[:, c] = projected > LIT * np.sqrt(np.maximum(norm, 1e-12))

    in_threads(work, len(sums.mean))
    square = np.ones((3, 3), bool)
    for g, seat in enumerate(seats):
        where = seen[g].reshape(sums.shape)
        where.flat[seat] = True
        label, _ = ndimage.label(where, square)
        seen[g] = ndimage.binary_dilation(label == label.flat[seat], square).ravel()
    return [np.flatnonzero(seen[:, c]) for c in range(len(sums.mean))]


@dataclass(frozen=True, eq=False)
class Pairs:
    """The spots about each centre that share pixels: what the normal matrices need of the images but for their strengths.

    near: The grains that may be lit about each centre.
    pair: The two spots of each pair, int32, shape (pair, 2).  product: sum share share weight of each, shape (pair,).
    """

    near: list[np.ndarray]
    pair: list[np.ndarray]
    product: list[np.ndarray]

    @classmethod
    def of(cls, sums: Sums, images: Images, near: list[np.ndarray]) -> Pairs:
        pair: list[np.ndarray] = [np.empty((0, 2), np.int32)] * len(near)
        product: list[np.ndarray] = [np.empty(0)] * len(near)
        grain = images.grain

        def work(first: int, stop: int) -> None:
            image = np.zeros(sums.mean.shape[1], np.float32)
            for c in range(first, stop):
                where = near[c], _places(near[c], len(images))
                count = kernels.count_pairs(*where, grain, images.first, images.other, images.start)
                pair[c], product[c] = np.empty((count, 2), np.int32), np.empty(count)
                beside = grain, images.first, images.other, images.start, images.place, images.share
                kernels.pair_products(*where, weights_at(sums, c), *beside, image, pair[c], product[c])

        in_threads(work, len(near))
        return cls(near, pair, product)

    def inverse(self, images: Images, grain: np.ndarray, centre: int) -> np.ndarray:
        """(P^T W P)^-1 of the grains near a centre.

        grain: Of each spot.
        """
        near = self.near[centre]
        matrix = np.empty((len(near), len(near)))
        if not len(near):
            return matrix
        own = self.pair[centre], self.product[centre]
        kernels.normal_matrix(*own, _places(near, len(images)), grain, images.strength, matrix)
        matrix[np.diag_indices(len(near))] += RIDGE * max(float(matrix.diagonal().max()), 1e-12)
        return np.asarray(cho_solve(cho_factor(matrix), np.eye(len(near))))


def _places(near: np.ndarray, count: int) -> np.ndarray:
    """Where each of `count` grains is in `near`, -1 for the others."""
    number = np.full(count, -1)
    number[near] = np.arange(len(near))
    return number


def lights(sums: Sums, images: Images, pairs: Pairs) -> Lights:
    """The light of every grain in every sum."""
    near, grain = pairs.near, images.grain
    light: list[np.ndarray] = [np.empty(0)] * len(near)
    std: list[np.ndarray] = [np.empty(0)] * len(near)

    def work(first: int, stop: int) -> None:
        for c in range(first, stop):
            projected = np.empty(len(near[c]))
            kernels.projections(near[c], sums.mean[c], sums.same, weights_at(sums, c), *images.arrays, projected)
            inverse = pairs.inverse(images, grain, c)
            light[c] = inverse @ projected
            std[c] = np.sqrt(np.diag(inverse) * sums.part[c])

    in_threads(work, len(near))
    return Lights(near, light, std)


def weights_at(sums: Sums | FrameFits, centre: int) -> np.ndarray:
    """One over the variance of each pixel of a frame about a centre, 0 where it may not be used; float32."""
    return sums.weight[centre].astype(np.float32) / np.float32(sums.unit**2)


def residual_at(sums: Sums, images: Images, lights: Lights, centre: int) -> np.ndarray:
    """The sum about a centre without what stands still and the grains, shape (pixel,)."""
    rest = sums.mean[centre] - sums.same
    for g, amount in zip(lights.near[centre], lights.light[centre], strict=True):
        kernels.draw(rest, g, -amount, *images.arrays)
    return np.asarray(rest)


def measured(sums: Sums, images: Images, lights: Lights) -> tuple[np.ndarray, np.ndarray]:
    """The strength of each spot by least squares, all else held, and one over its variance; shape (spot,) each."""
    upper, lower = np.zeros(len(images.at)), np.zeros(len(images.at))
    for c in range(len(sums.mean)):
        if len(lights.near[c]) and np.isfinite(sums.part[c]):
            rest, weight = residual_at(sums, images, lights, c), weights_at(sums, c)
            kernels.strengths(lights.near[c], np.maximum(lights.light[c], 0.0), rest, weight, *images.arrays, upper, lower)
    return upper / np.maximum(lower, 1e-12), lower * sums.frames  # sums that overlap hold as much as the frames


def moved(sums: Sums, images: Images, lights: Lights) -> tuple[np.ndarray, np.ndarray]:
    """How far each spot is from where the images have it, px, and one over its variances; shape (spot, 2) each.

    A spot is moved at most FARTHEST at once; one that is not seen has no precision.
    """
    vector, matrix = np.zeros((len(images.at), 2)), np.zeros((len(images.at), 2, 2))
    for c in range(len(sums.mean)):
        if len(lights.near[c]) and np.isfinite(sums.part[c]):
            rest, weight = residual_at(sums, images, lights, c), weights_at(sums, c)
            amount = np.maximum(lights.light[c], 0.0)
            kernels.offsets(lights.near[c], amount, rest, weight, *images.arrays, images.slope, vector, matrix)
    matrix[:, 1, 0] = matrix[:, 0, 1]
    precision = np.diagonal(matrix, axis1=1, axis2=2) * sums.frames
    ridge = 1e-6 * np.maximum(np.trace(matrix, axis1=1, axis2=2), 1e-12)[:, None, None] * np.eye(2)
    offset = np.linalg.solve(matrix + ridge, vector[:, :, None])[:, :, 0]
    return np.clip(offset, -FARTHEST, FARTHEST), precision


def strengthened(images: Images, strength: np.ndarray, precision: np.ndarray, *, error: float) -> Images:
    """The images with the strengths measured, near the expected ones.

    error: Standard deviation of a strength from the expected one, in parts of it.
    """
    expected = images.expected.astype(float)
    prior = 1 / np.maximum(error * expected, 1e-9) ** 2
    best = (strength * precision + prior * expected) / (precision + prior)
    return images.with_strength(np.clip(best, 0.05 * expected, 5 * expected))


def supported(images: Images, strength: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Which grains are there by the light of their spots: those that should be seen are, about as strong as expected."""
    bright = images.expected * np.sqrt(precision) > SEEN
    right = bright & (strength > images.expected / LIKE) & (strength < images.expected * LIKE)
    seen, alike = (np.bincount(images.grain[which], minlength=len(images)) for which in (bright, right))
    return np.asarray((alike >= FEWEST) & (alike >= ALIKE * seen))


@dataclass(frozen=True, eq=False)
class FrameFits:
    """What fitting the light of single frames needs: the grains about each centre, and their normal matrix.

    weight: unit^2 over the variance of each pixel about each centre, float16, shape (centre, pixel).
    unit: Counts of one photon, about.
    near: The grains that may be lit about each centre.  inverse: (P^T W P)^-1 of each.
    """

    images: Images
    same: np.ndarray
    weight: np.ndarray
    unit: float
    near: list[np.ndarray]
    inverse: list[np.ndarray]

    @classmethod
    def of(cls, sums: Sums, images: Images, near: list[np.ndarray]) -> FrameFits:
        inverse: list[np.ndarray] = [np.empty((0, 0))] * len(near)
        pairs, grain = Pairs.of(sums, images, near), images.grain

        def work(first: int, stop: int) -> None:
            for c in range(first, stop):
                inverse[c] = pairs.inverse(images, grain, c)

        in_threads(work, len(near))
        return cls(images, sums.same, sums.weight, sums.unit, near, inverse)

    def light(self, frames: np.ndarray, mask: np.ndarray | None, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Light on each grain and its variance, shape (frame, grain); 0 and inf where it may have none.

        frames: Shape (frame, row, column).  mask: Pixels that may be used, or None.  centre: Nearest to each frame.
        """
        found = np.zeros((len(frames), len(self.images)))
        variance = np.full(found.shape, np.inf)

        def work(first: int, stop: int) -> None:
            for k in range(first, stop):
                frame, c = frames[k].ravel().astype(np.float32), centre[k]
                if mask is not None:
                    frame = np.where(mask[k].ravel(), frame, self.same)
                projected, near = np.empty(len(self.near[c])), self.near[c]
                kernels.projections(near, frame, self.same, weights_at(self, c), *self.images.arrays, projected)
                found[k, near] = self.inverse[c] @ projected
                variance[k, near] = np.diag(self.inverse[c])

        in_threads(work, len(frames))
        return found, variance
