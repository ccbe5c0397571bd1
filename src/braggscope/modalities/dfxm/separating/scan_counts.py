"""Counts of a scan above the detector's level, seen by linear algebra, by frames or by pixels, never whole in memory.

Everything here reads the scan again, by frames where it can and by blocks of pixels where it must, unless its counts fit into
`KEPT_BYTES` as they were recorded; then they are kept. Arrays have the points with frames only, in order of the grid.

Symbols: y_np count at point n in pixel p above the level, D_n its mean variance over the pixels, P number of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.estimator import motor_positions
from braggscope.core.scan import Scan

KEPT_BYTES = 256 * 2**20  # a scan up to this size is read once
TILE = 2**17  # counts worked on together: 1 MB of float64 stays in the second-level cache
SAMPLE = 4096  # pixels, spread over the frame, whose curves tell the noise of the detector and where the strong beam is
SAMPLE_COUNTS = 2**24  # but not more counts than this
ROUNDING = 1 / 12  # variance of a whole count


@dataclass(frozen=True)
class CountNoise:
    """Variance of a count: gain (expected count above the level) + variance.

    gain: Detector units per photon.  gain_std: Its standard deviation, NaN where it was given or assumed.
    variance: Of a count at the level, detector units squared.  level: Detector units.
    gain_from: "given", "photon transfer" or "assumed".
    """

    gain: float
    gain_std: float
    variance: float
    level: float
    gain_from: str


class ScanCounts:
    """The counts of a scan above the level, for linear algebra over points and pixels.

    seen: Whether a point of the grid takes part, shape (point of the grid,). Points without a frame, and those where more than
        half of the pixels are masked, do not.
    masked: Pixels with some masked counts at the points seen, shape (pixel,). They stay out of all sums.
    noise: Level and variance of the counts.  sample: Curves of some pixels above the level, shape (point, pixel).
    """

    def __init__(self, scan: Scan, *, pedestal: str = "auto", gain: str = "auto", readout: str = "auto") -> None:
        self.scan = scan
        self.frame_shape = scan.frame_shape
        self.pixels = math.prod(scan.frame_shape)
        self._kept: np.ndarray | None = None
        sample = self._open()
        self.noise = _noise(scan, sample, pedestal=pedestal, gain=gain, readout=readout)
        self.sample = sample[self.seen] - self.noise.level

    @property
    def points(self) -> int:
        """Number of points seen."""
        return int(self.seen.sum())

    @property
    def good(self) -> int:
        """Number of pixels without masked counts."""
        return int((~self.masked).sum())

    def tiles(self) -> Iterator[tuple[np.ndarray, slice, np.ndarray]]:
        """Points (among those seen), pixels, and their counts above the level with 0 in masked pixels, until all have come."""
        for at, frames in self.recorded():
            size = self._tile(len(at))
            for start in range(0, self.pixels, size):
                where = slice(start, min(start + size, self.pixels))
                yield at, where, self._above(frames[:, where], where)

    def gram(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums over pixels of y_n y_m, shape (point, point), and of y_n, shape (point,)."""
        from braggscope.infer.runtime import single_threaded_torch

        products, sums = np.zeros((self.points, self.points)), np.zeros(self.points)
        with single_threaded_torch():  # products end before other threads have started, or found a free processor
            for where, curves in self._blocks():
                tile = self._above(curves, where)
                products += _product(tile, tile.T)
                sums += tile.sum(axis=1)
        return (products + products.T) / 2, sums

    def project(self, matrix: np.ndarray) -> np.ndarray:
        """matrix @ y, for a matrix of shape (k, point); shape (k, pixel). Masked pixels give 0."""
        out = np.zeros((len(matrix), self.pixels))

        def work(at: np.ndarray, where: slice, tile: np.ndarray) -> None:
            out[:, where] += _product(matrix[:, at], tile)

        self.over(work)
        return out

    def misfit(self, curves: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums over points of (y - m)^2 and of (y - m)^2 / V, where m = curves @ maps and V is the variance at m; shape (pixel,).

        curves: Shape (point, k).  maps: Shape (k, pixel).
        """
        squares, deviance = np.zeros(self.pixels), np.zeros(self.pixels)
        gain, variance = self.noise.gain, self.noise.variance

        def work(at: np.ndarray, where: slice, tile: np.ndarray) -> None:
            expected = _product(curves[at], maps[:, where])
            tile -= expected
            tile *= tile
            squares[where] += tile.sum(axis=0)
            np.maximum(expected, 0, out=expected)
            expected *= gain
            expected += variance
            tile /= expected
            deviance[where] += tile.sum(axis=0)

        self.over(work)
        return squares, deviance

    def masked_curves(self, most: int = 2**16) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Masked pixels, `most` at a time, and their curves above the level with NaN where masked, shape (point, pixel)."""
        which = np.flatnonzero(self.masked)
        place = np.cumsum(self.seen) - 1
        for start in range(0, len(which), most):
            some = which[start : start + most]
            curves = np.full((self.points, len(some)), np.nan)
            for at, frames, mask in _once(self.scan):
                use = self.seen[at]
                values = frames[use][:, some] - self.noise.level
                curves[place[at[use]]] = values if mask is None else np.where(mask[use][:, some], values, np.nan)
            yield some, curves

    def _above(self, counts: np.ndarray, where: slice) -> np.ndarray:
        """Counts of these pixels above the level, 0 in masked pixels, float64."""
        values = np.empty(counts.shape)
        np.subtract(counts, self.noise.level, out=values, dtype=np.float64, casting="unsafe")
        if self._some_masked:
            values[:, self.masked[where]] = 0
        return values

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of pixels with their counts at the points seen, shape (point, pixel), as recorded."""
        if self._kept is not None:
            size = self._tile(self.points)
            for start in range(0, self.pixels, size):
                where = slice(start, min(start + size, self.pixels))
                yield where, self._kept[:, where]
            return
        for block in self.scan.pixels():
            curves = block.curves if self.seen.all() else block.curves[:, self.seen]
            size = self._tile(self.points)
            for start in range(0, len(block), size):
                part = curves[start : start + size]
                first = int(block.index[start])
                yield slice(first, first + len(part)), np.ascontiguousarray(part.T)

    def over(self, work: Callable[[np.ndarray, slice, np.ndarray], None]) -> None:
        """Call work(points, pixels, their counts above the level) on tiles that cover all, on all threads.

        Tiles that are worked on at the same time have different pixels; the points of a pixel come in order of acquisition.
        """
        from braggscope.infer.runtime import in_threads, single_threaded_torch

        with single_threaded_torch():
            for at, frames in self.recorded():
                size = self._tile(len(at))

                def tiles(first: int, last: int, at: np.ndarray = at, frames: np.ndarray = frames, size: int = size) -> None:
                    for start in range(first * size, min(last * size, self.pixels), size):
                        where = slice(start, min(start + size, self.pixels))
                        work(at, where, self._above(frames[:, where], where))

                in_threads(tiles, -(-self.pixels // size))

    def recorded(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions among the points seen and frames as recorded, shape (frame, pixel)."""
        if self._kept is not None:
            yield np.arange(self.points), self._kept
            return
        place = np.cumsum(self.seen) - 1
        for at, frames, _ in _once(self.scan):
            use = self.seen[at]
            if use.any():
                yield place[at[use]], frames if use.all() else frames[use]

    def _tile(self, points: int) -> int:
        """Pixels worked on together with so many points: as many as the cache holds, and enough for a product to pay."""
        return max(256, TILE // max(1, points))

    def _open(self) -> np.ndarray:
        """One pass: which points and pixels take part; keeps the counts where they are few. Gives the curves of a sample."""
        from ..photon_transfer import chosen_counts

        points = math.prod(self.scan.shape)
        chosen = np.unique(np.linspace(0, self.pixels - 1, min(SAMPLE, SAMPLE_COUNTS // points + 1, self.pixels)).astype(int))
        sample = np.full((points, len(chosen)), np.nan, np.float32)
        self.seen = np.zeros(points, bool)
        lost = np.zeros(self.pixels, np.int32)
        kept: list[tuple[np.ndarray, np.ndarray]] | None = []
        size = 0
        for at, frames, mask in _once(self.scan):
            self.seen[at] = True
            sample[at] = chosen_counts(frames, mask, chosen)
            if mask is not None:
                empty = mask.sum(axis=1) < self.pixels / 2
                self.seen[at[empty]] = False
                lost += (~mask[~empty]).sum(axis=0, dtype=np.int32)
            size += frames.nbytes
            kept = None if kept is None or size > KEPT_BYTES else [*kept, (at, frames)]
        self.masked = lost > 0
        self._some_masked = bool(self.masked.any())
        if not self.seen.any():
            raise InputError(f"scan '{self.scan.name}' of {self.scan.path} has no usable frame")
        if kept is not None:
            self._kept = _in_grid_order(kept, self.seen)
        return sample


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b by torch."""
    import torch

    return (torch.from_numpy(np.ascontiguousarray(a)) @ torch.from_numpy(b)).numpy()


def _once(scan: Scan) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Batches as (position, frames (frame, pixel), mask or None); a point that comes twice is used once."""
    used = np.zeros(math.prod(scan.shape), bool)
    for batch in scan.batches():
        new = ~used[batch.index]
        new[np.setdiff1d(np.arange(len(batch)), np.unique(batch.index, return_index=True)[1])] = False
        batch = batch if new.all() else batch.take(new)
        used[batch.index] = True
        if len(batch):
            yield _flat(batch)


def _flat(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    frames = batch.frames.reshape(len(batch), -1)
    return batch.index, frames, None if batch.mask is None else batch.mask.reshape(frames.shape)


def _in_grid_order(kept: list[tuple[np.ndarray, np.ndarray]], seen: np.ndarray) -> np.ndarray:
    """The counts at the points seen, in order of the grid, shape (point, pixel), as recorded."""
    at = np.concatenate([index for index, _ in kept])
    place = np.cumsum(seen) - 1
    if len(kept) == 1 and seen[at].all() and np.array_equal(place[at], np.arange(len(at))):
        return kept[0][1]
    counts = np.empty((int(seen.sum()), kept[0][1].shape[1]), kept[0][1].dtype)
    for index, frames in kept:
        counts[place[index[seen[index]]]] = frames[seen[index]]
    return counts


def _noise(scan: Scan, sample: np.ndarray, *, pedestal: str, gain: str, readout: str) -> CountNoise:
    """Level, gain and variance as the options say, else from the scatter of the scan; gain 1 where it does not show."""
    from ..photon_transfer import believed, detector_noise, gain_from

    given = _number("pedestal", pedestal, ("auto", "none"))
    _number("gain", gain, ("auto",), above=0.0)
    _number("readout", readout, ("auto",), least=0.0)
    fast = list(motor_positions(scan).values())[-1]
    found = believed(detector_noise(sample, scan.shape[-1], fast), gain, readout, whole=True)
    level = 0.0 if pedestal == "none" else found.level if given is None else given
    variance = found.variance
    if readout == "auto":  # what light of the dark level scatters is counted with the signal where the level is lower
        variance -= found.gain * max(0.0, found.level - level)
    source = gain_from(found, gain)
    gain_std = found.gain_std if source == "photon transfer" else math.nan
    return CountNoise(found.gain, gain_std, max(variance, ROUNDING), float(level), source)


def _number(name: str, value: str, words: tuple[str, ...], *, least: float = -math.inf, above: float = -math.inf) -> float | None:
    """The number that an option gives, None for one of its words."""
    if value in words:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= least and number > above):
        kind = "a positive number" if above == 0 else "a number >= 0" if least == 0 else "a number"
        raise InputError(f"option {name} must be {', '.join(words)} or {kind}, got '{value}'")
    return number
