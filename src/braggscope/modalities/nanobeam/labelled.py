"""Frames whose strain and tilts are known, for networks that learn from examples.

They are simulated on a grid of strain, omega and chi or at random, by one of three kernels, or taken from sources with a truth.
Which counts a frame has is decided by the seed, the epoch and its position alone. Compiled code draws them: no torch here.
"""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.source import Source
from braggscope.infer.runtime import in_threads

from .columns import exact
from .geometry import NanobeamGeometry

if TYPE_CHECKING:
    from torch import Tensor

AXES = ("strain", "omega", "chi")
RANGES = (5e-3, 0.05, 0.1)  # of the published networks: strain, omega and chi (degrees) from minus to plus this
GRID = 41  # their grid along each axis
KERNELS = ("closed_form", "box", "gaussian")
LEVELS = 60000  # of stored expected counts up to the peak: steps of 1e-4 counts at a peak of 7
PIECE = 20.0  # a larger mean is drawn in pieces, whose exponential does not underflow
BLOCK = 1024

Renderer = Callable[[np.ndarray], np.ndarray]  # strain, omega, chi (frame, 3), degrees -> expected counts (frame, row, column)


@dataclass(frozen=True)
class Labelled:
    """Frames with their strain, omega and chi.

    stored: Counts, or expected counts in units of `step`, shape (frame, row, column), unsigned integers.
    labels: Strain, omega and chi, degrees, shape (frame, 3), float64.
    step: None where the counts are fixed; else counts are drawn anew whenever they are asked for.
    threshold, saturation: Drawn counts below the one are reported as 0, those above the other as it; 0: there is none.
    """

    stored: np.ndarray
    labels: np.ndarray
    step: float | None = None
    threshold: float = 0.0
    saturation: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, which: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Counts of these frames in an epoch, float32, shape (frame, row, column)."""
        found = self.stored[which].astype(np.float32)
        if self.step is None:
            return found
        counts = drawn(found * np.float32(self.step), which, seed, epoch)
        counts[counts < self.threshold] = 0
        return np.minimum(counts, self.saturation, out=counts) if self.saturation > 0 else counts

    def fixed(self, seed: int) -> Labelled:
        """The same frames with counts drawn once and for all."""
        if self.step is None:
            return self
        kind = np.uint8 if self.stored.max() * self.step < 100 else np.uint16
        result = np.empty(self.stored.shape, kind)
        for start in range(0, len(self), BLOCK):
            result[start : start + BLOCK] = self.counts(np.arange(start, min(start + BLOCK, len(self))), seed, 0)
        return Labelled(result, self.labels)

    def digest(self) -> str:
        """A hash of labels and of what is stored of a thousand frames, to tell data sets apart."""
        some = self.stored[:: max(1, len(self) // 1000)]
        return hashlib.sha256(self.labels.tobytes() + np.ascontiguousarray(some).tobytes() + repr(self.step).encode()).hexdigest()


def simulated(
    render: Renderer,
    frame_shape: tuple[int, int],
    labels: np.ndarray,
    peak: float,
    *,
    threshold: float = 0.0,
    saturation: float = 0.0,
) -> Labelled:
    """Frames at these labels (frame, 3), their counts to be drawn and reported as Labelled says."""
    step = peak / LEVELS
    stored = np.empty((len(labels), *frame_shape), np.uint16)
    for start in range(0, len(labels), BLOCK):
        expected = render(labels[start : start + BLOCK])
        stored[start : start + BLOCK] = np.rint(np.minimum(expected / step, 65535))
    return Labelled(stored, labels, step, threshold, saturation)


def on_grid(grid: int, ranges: tuple[float, float, float] = RANGES) -> np.ndarray:
    """Every strain, omega and chi of a grid, shape (grid^3, 3), chi fastest."""
    axes = [np.linspace(-high, high, grid) for high in ranges]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=-1)


def at_random(count: int, seed: int, ranges: tuple[float, float, float] = RANGES) -> np.ndarray:
    """Strain, omega and chi of `count` frames, uniform over the ranges, shape (count, 3)."""
    return np.random.default_rng((seed, 7)).uniform(-1, 1, (count, 3)) * ranges


def renderer(kernel: str, geometry: NanobeamGeometry, frame_shape: tuple[int, int], peak: float) -> Renderer:
    """Expected counts of frames by a kernel, `peak` in the brightest pixel.

    kernel: "closed_form", with the background of the geometry, or one of published_kernels, without background.
    """
    if kernel == "closed_form":
        return _closed_form(geometry, frame_shape, peak)
    from .published_kernels import PublishedKernel, peak_of_grid

    made = PublishedKernel(kernel, geometry, frame_shape)
    factor = np.float32(peak / peak_of_grid(kernel, geometry, frame_shape, GRID, RANGES))
    return lambda labels: factor * made.frames(*np.asarray(labels, np.float64).T)


def _closed_form(geometry: NanobeamGeometry, frame_shape: tuple[int, int], peak: float) -> Renderer:
    from .compiled import expected, packed, tables

    constant = {"scale": peak - geometry.background, "background": geometry.background, "thickness": geometry.thickness_a}

    def render(labels: np.ndarray) -> np.ndarray:
        rest = {name: np.full(len(labels), max(value, 1e-12)) for name, value in constant.items()}
        return expected(tables(geometry, frame_shape), frame_shape, packed(dict(zip(AXES, labels.T, strict=True)) | rest))

    return render


def from_sources(sources: Sequence[Source]) -> Labelled:
    """The frames of sources that know their truth: simulations, and files of them.

    Raises InputError for a source without a truth and for sources whose frames differ in shape.
    """
    shapes = {tuple(source.frame_shape) for source in sources}
    if len(shapes) > 1:
        raise InputError(
            f"the frames of all sources must have one shape, got {' and '.join(f'{r} x {c}' for r, c in sorted(shapes))}"
        )
    frames, labels = [], []
    for source in sources:
        truth = truth_of(source)
        for batch in source.batches():
            usable = batch.frames if batch.mask is None else np.where(batch.mask, batch.frames, 0)
            frames.append(usable.astype(np.uint16 if usable.max(initial=0) < 65536 else np.uint32))
            labels.append(truth[batch.index])
    return Labelled(np.concatenate(frames), np.concatenate(labels))


def truth_of(source: Source) -> np.ndarray:
    """True strain, omega and chi at each flat position of a source, shape (point, 3). Raises InputError where it has none."""
    truth = getattr(source, "truth", None)
    missing = AXES if truth is None else [name for name in AXES if name not in truth]
    if missing:
        said = source.provenance.get("input_file", "a source")
        raise InputError(
            f"{said} does not say the true {', '.join(missing)} of its frames, from which this method learns; give simulations "
            "(`braggscope simulate`), or no file to train on frames that it simulates itself"
        )
    assert truth is not None
    return np.stack([np.asarray(truth[name].values, np.float64).ravel() for name in AXES], axis=-1)


@dataclass(frozen=True)
class Batches:
    """Training batches of an epoch, in an order of its own: (counts, labels x factors), float32 tensors.

    which: Positions of the frames to learn from.  epoch: 0 keeps their order.
    """

    data: Labelled
    which: np.ndarray
    size: int
    factors: tuple[float, ...]
    seed: int
    epoch: int

    def __post_init__(self) -> None:
        if self.epoch > 0:
            object.__setattr__(self, "which", np.random.default_rng((self.seed, self.epoch)).permutation(self.which))

    def __len__(self) -> int:
        return math.ceil(len(self.which) / self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        import torch

        part = self.which[number * self.size : (number + 1) * self.size]
        labels = (self.data.labels[part] * self.factors).astype(np.float32)
        return torch.from_numpy(self.data.counts(part, self.seed, self.epoch)), torch.from_numpy(labels)


def split(count: int, seed: int, shares: tuple[float, ...] = (0.8, 0.1)) -> list[np.ndarray]:
    """Positions 0 to count in random parts of these shares and a last one of the rest. None of them is empty.

    Raises InputError where there are fewer frames than parts.
    """
    if count < 10:
        raise InputError(f"training needs at least 10 frames, got {count}")
    edges = [0, *(int(count * share) for share in itertools.accumulate(shares)), count]
    order = np.random.default_rng((seed, 8)).permutation(count)
    return [np.sort(order[a:b]) for a, b in itertools.pairwise(edges)]


def drawn(expected: np.ndarray, which: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Poisson counts, float32, of frames with these numbers; the same whatever frames they are drawn with."""
    start = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    flat = np.ascontiguousarray(expected, np.float32).reshape(len(expected), -1)
    counts, numbers = np.empty_like(flat), np.asarray(which, np.uint64)
    in_threads(lambda a, b: draw_frames(flat[a:b], numbers[a:b], start, counts[a:b]), len(flat), smallest=16)
    return counts.reshape(expected.shape)


@exact
def draw_frames(expected, numbers, seed, counts):
    """Poisson counts of frames (frame, pixel) by inversion; random numbers by SplitMix64 (Steele et al. 2014)."""
    for i in range(len(expected)):
        state = np.uint64(seed) ^ (numbers[i] * np.uint64(0xD1342543DE82EF95))
        for j in range(expected.shape[1]):
            left, total = float(expected[i, j]), 0
            while left > 0.0:
                mean = min(left, PIECE)
                left -= mean
                state += np.uint64(0x9E3779B97F4A7C15)
                mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                uniform = float((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) * 1.1102230246251565e-16  # 2^-53
                chance, count = math.exp(-mean), 0
                below = chance
                while uniform > below and count < 200:
                    count += 1
                    chance *= mean / count
                    below += chance
                total += count
            counts[i, j] = total
