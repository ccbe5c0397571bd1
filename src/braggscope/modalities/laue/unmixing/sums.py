"""Sums of the frames under the beam: one about each centre of a coarse grid, weighted with the beam's footprint.

A grain smaller than the beam shows in every frame whose beam reaches it, so that frames added with the weights of the footprint
have its spots as strong as they come. With k the weights of the frames, the mean sum k d / sum k has the variance
m sum k^2 / (sum k)^2 of Poisson counts of mean m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.source import Source
from braggscope.infer.runtime import in_threads

from ..peaks.background import Background, background
from .count_noise import CountNoise

FWHM = 2 * math.sqrt(2 * math.log(2))
APART = 0.7  # standard deviations of the footprint between centres
REACH = 3.0  # standard deviations up to which frames count
BACKGROUND = 20.0  # percentile over the centres: most of the time no grain's spot is on a pixel
SAMPLED = 16  # frames that tell the noise, evenly over the scan
PIXELS = 1 << 14  # of the frames that are added at a time


@dataclass(frozen=True, eq=False)
class Sums:
    """Means of the frames about centres.

    y, x: Of the centres, um, shape (cy,), (cx,).
    mean: Shape (cy * cx, row * column), float32, counts of a frame.
    part: sum k^2 / (sum k)^2, shape (cy * cx,); inf where no frame was.
    same: The background with what stands still, shape (row * column,).
    weight: unit^2 over the variance of each pixel of a frame about a centre, 0 where it may not be used; float16, shape
        (cy * cx, row * column).
    unit: Counts of one photon, about.
    frames: How many there were for each centre.
    frame_shape: Rows and columns.
    """

    y: np.ndarray
    x: np.ndarray
    mean: np.ndarray
    part: np.ndarray
    same: np.ndarray
    weight: np.ndarray
    unit: float
    frames: float
    frame_shape: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.y), len(self.x)

    def nearest(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The centre nearest to places, um."""
        i, j = (np.abs(at[:, None] - own).argmin(1) for at, own in ((y, self.y), (x, self.x)))
        return np.asarray(i * len(self.x) + j)


def summed(source: Source, y: np.ndarray, x: np.ndarray, sigma_um: tuple[float, float]) -> Sums:
    """The sums of a scan.

    y, x: Places of the flat positions of the scan, um, shape (position,).  sigma_um: Of the footprint along y and x.
    Raises InputError where no frame has a count that may be used.
    """
    along_y, along_x = _centres(y, APART * sigma_um[0]), _centres(x, APART * sigma_um[1])
    centre_y, centre_x = (c.ravel() for c in np.meshgrid(along_y, along_x, indexing="ij"))
    pixels = math.prod(source.frame_shape)
    total = np.zeros((len(centre_y), pixels), np.float32)
    weight, square, good = np.zeros(len(centre_y)), np.zeros(len(centre_y)), np.ones(pixels, bool)
    frames, positions = 0, math.prod(source.shape)
    grounds: list[Background] = []
    sampled = np.unique(np.linspace(0, positions - 1, min(SAMPLED, positions)).astype(int))
    for batch in source.batches():
        if batch.mask is not None:
            somewhere = np.asarray(batch.mask.any((1, 2)))  # a frame that counts nowhere is none
            good &= batch.mask[somewhere].all(0).ravel()
            batch = batch.take(somewhere)
        if not len(batch):
            continue
        frames += len(batch)
        for i in np.flatnonzero(np.isin(batch.index, sampled)):
            use = True if batch.mask is None else batch.mask[i]
            frame = np.where(use, batch.frames[i].astype(np.float32), np.float32(np.nan))
            grounds.append(background(frame, in_threads, whole=batch.frames.dtype.kind in "ui"))
        near, k = _weights(batch, y, x, centre_y, centre_x, sigma_um)
        weight[near] += k.sum(1)
        square[near] += (k**2).sum(1)
        _add(total, near, k, batch.frames.reshape(len(batch), -1))
    if not frames:
        raise InputError("the scan has no frame with counts that are not saturated or masked; nothing is left to tell grains by")
    there = weight > 0
    total[there] /= weight[there, None].astype(np.float32)
    part = np.full(len(weight), np.inf)
    part[there] = square[there] / weight[there] ** 2
    total[:, ~good] = 0
    noise = CountNoise.of(grounds)
    same = _standing(total[there], part[there], noise)
    weight = weights(total, same, good, noise)
    return Sums(along_y, along_x, total, part, same, weight, noise.gain, frames / len(total), source.frame_shape)


def weights(mean: np.ndarray, same: np.ndarray, good: np.ndarray, noise: CountNoise) -> np.ndarray:
    """gain^2 over the variance of a frame about each centre, 0 where a pixel is not good; float16, as `mean` in shape."""
    made = np.zeros(mean.shape, np.float16)
    for own, weight in zip(mean, made, strict=True):
        np.divide(noise.gain**2, noise.variance(np.maximum(own, same)), out=weight, where=good, casting="unsafe")
    return made


def _centres(at: np.ndarray, apart: float) -> np.ndarray:
    """Evenly from the first to the last place."""
    low, high = float(at.min()), float(at.max())
    return np.linspace(low, high, max(1, math.ceil((high - low) / apart) + 1))


def _weights(
    batch: Batch, y: np.ndarray, x: np.ndarray, cy: np.ndarray, cx: np.ndarray, sigma: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Centres that the frames of a batch reach, and the weights, shape (centre, frame)."""
    far = ((y[batch.index] - cy[:, None]) / sigma[0]) ** 2 + ((x[batch.index] - cx[:, None]) / sigma[1]) ** 2
    near = np.flatnonzero((far < REACH**2).any(1))
    far = far[near]
    return near, np.where(far < REACH**2, np.exp(-far / 2), 0.0)


def _add(total: np.ndarray, near: np.ndarray, k: np.ndarray, frames: np.ndarray) -> None:
    """total[near] += k @ frames, some pixels at a time."""
    weights = k.astype(np.float32)

    def work(start: int, stop: int) -> None:
        for first in range(start * PIXELS, min(stop * PIXELS, total.shape[1]), PIXELS):
            part = slice(first, min(first + PIXELS, total.shape[1]))
            total[near, part] += weights @ np.nan_to_num(frames[:, part].astype(np.float32), copy=False)

    in_threads(work, math.ceil(total.shape[1] / PIXELS))


def _standing(mean: np.ndarray, part: np.ndarray, noise: CountNoise) -> np.ndarray:
    """The part that every sum has: of each pixel the mean of those near the percentile, shape (pixel,)."""
    same = np.empty(mean.shape[1], np.float32)

    def work(start: int, stop: int) -> None:
        for first in range(start * PIXELS, min(stop * PIXELS, len(same)), PIXELS):
            own = mean[:, first : first + PIXELS]
            low = np.percentile(own, BACKGROUND, axis=0)
            reach = 2.5 * np.sqrt(noise.variance(low) * np.median(part))
            same[first : first + PIXELS] = np.mean(own, axis=0, where=own < low + reach)

    in_threads(work, math.ceil(len(same) / PIXELS))
    return same
