"""Gain and noise of the detector from the scatter of a scan's own counts (photon transfer, Janesick 2007, ch. 5).

The variance of a count grows with its mean as V = V0 + gain (mean - pedestal) + c (mean - pedestal)^2: V0 is what the detector
and the diffuse background give, the gain (detector units per detected photon) is the slope at low signal, and the last term takes
up what is no photon noise, the curvature of the rocking curve between neighbouring points and a flickering beam.

The scatter is measured on the curves of some pixels by sixth differences along the fast motor,
(1, -6, 15, -20, 15, -6, 1) / sqrt(924), or the like at uneven positions: peaks wider than about two steps leave them close to
zero. They are sorted by the mean of the same seven points with the squares of these weights, which is where the noise comes from
(its correlation with the difference, 0.11, changes the variance by one per cent).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from braggscope.core.estimator import motor_positions
from braggscope.core.source import Source

DIFFERENCE = np.array([1.0, -6.0, 15.0, -20.0, 15.0, -6.0, 1.0]) / np.sqrt(924.0)
SPAN = len(DIFFERENCE)
MEAN_SPREAD = float(np.sqrt(np.sum(DIFFERENCE**4)))  # of the weighted mean, in standard deviations of a count
ENOUGH = 40  # differences in a class of signal; their variance is then known to 22 %
SURE = 8.0  # standard deviations of the gain above zero; below, sharp peaks may pass for noise
CLASSES = 60  # of signal, each 2^(1/3) times the one before, from one standard deviation of a dark count
DARK_WINDOWS = 2**14  # looked at to find the dark level
SAMPLE = 4096  # pixels whose curves tell the noise of the detector
SAMPLE_COUNTS = 2**22  # but not more counts than this
FRAMES = 512  # whose counts tell it, about


@dataclass(frozen=True)
class DetectorNoise:
    """How counts of a scan scatter.

    gain: Detector units per photon; NaN where it does not stand out.
    gain_std: Its standard deviation; NaN where it was not measured.
    level: Detector units of the darkest common level, where `variance` holds.
    variance: Of a count at that level, detector units squared; NaN where it was not measured.
    """

    gain: float
    gain_std: float
    level: float
    variance: float


@dataclass(frozen=True)
class SampledCurves:
    """Curves of some pixels over whole lines of the fast motor.

    counts: Shape (point, pixel), float32, NaN where there is none; points in grid order.
    fast: Points along the fast motor.  positions: Of the fast motor at each point, shape (point,).
    whole: Whether counts were recorded as whole numbers.
    """

    counts: np.ndarray
    fast: int
    positions: np.ndarray
    whole: bool

    def noise(self) -> DetectorNoise:
        """Gain and dark noise of the detector, as these curves scatter."""
        return detector_noise(self.counts, self.fast, self.positions)


def sampled_curves(
    source: Source, *, frames: int | None = FRAMES, pixels: np.ndarray | None = None, size: int | None = None
) -> SampledCurves:
    """The curves of some pixels over whole lines of the fast motor, spread over the slow ones.

    frames: About how many are read; None for all.
    pixels: Flat positions in the frame; by default those of `sample_pixels`.
    size: Most frames read at a time (see `Source.batches`).
    """
    fast, lines = source.shape[-1], math.prod(source.shape[:-1])
    count = lines if frames is None else max(1, min(lines, -(-frames // fast)))
    taken = np.zeros(lines, bool)
    taken[np.linspace(0, lines - 1, count).round().astype(int)] = True
    only = np.repeat(taken, fast)
    pixels = sample_pixels(*source.frame_shape, int(only.sum())) if pixels is None else pixels
    counts, whole = np.full((int(only.sum()), len(pixels)), np.nan, np.float32), True
    place = np.cumsum(only) - 1
    for batch in source.batches(size, only=None if only.all() else only):
        counts[place[batch.index]] = chosen_counts(batch.frames, batch.mask, pixels)
        whole = whole and batch.frames.dtype.kind == "u"
    return SampledCurves(counts, fast, list(motor_positions(source).values())[-1][only], whole)


def chosen_counts(frames: np.ndarray, mask: np.ndarray | None, pixels: np.ndarray) -> np.ndarray:
    """Counts of some pixels (flat positions), NaN where the mask is False, shape (frame, pixel), float32."""
    counts = frames.reshape(len(frames), -1)[:, pixels].astype(np.float32)
    if mask is not None:
        counts[~mask.reshape(len(mask), -1)[:, pixels]] = np.nan
    return counts


def detector_noise(curves: np.ndarray, fast: int, positions: np.ndarray) -> DetectorNoise:
    """Gain and dark noise from the curves of some pixels.

    curves: Counts, shape (point, pixel), NaN where there is none; points in grid order.
    fast: Points along the fast motor; below seven nothing can be measured.
    positions: Of the fast motor at each point, in any unit, shape (point,).
    """
    squares, means = _windows(np.ascontiguousarray(curves, np.float32), fast, _differences(positions, fast))
    dark = _dark(squares, means)
    if dark is None:
        finite = curves[np.isfinite(curves)]
        return DetectorNoise(np.nan, np.nan, float(finite.min()) if finite.size else 0.0, np.nan)
    level, variance = dark
    count, signal, square = _classes(squares, means, level, max(1.0, np.sqrt(variance)))
    gain, gain_std = _slope(count, signal, square, variance)
    return DetectorNoise(gain if gain > SURE * gain_std else np.nan, gain_std, level, variance)


def sample_pixels(rows: int, columns: int, points: int) -> np.ndarray:
    """Flat positions of the pixels whose curves tell the noise: pieces of rows spread over the detector.

    points: Of the scan, each of which gives a count per pixel.
    """
    wanted = max(64, min(SAMPLE, SAMPLE_COUNTS // points))
    chosen = max(1, min(rows, wanted // columns)) if columns <= wanted else 1
    at = (np.arange(chosen) * 2 + 1) * rows // (2 * chosen)
    return (at[:, None] * columns + np.arange(min(columns, wanted))).ravel()


def believed(
    found: DetectorNoise, gain: str | float = "auto", readout: str | float = "auto", *, whole: bool = False
) -> DetectorNoise:
    """What to take: the gain and read-out noise that are given, else what was found; gain 1 and no noise where it does not show.

    gain, readout: "auto" or a value.  whole: Whether counts are rounded to whole numbers, which alone is a variance of 1/12.
    """
    measured = math.isfinite(found.gain)
    taken = float(gain) if gain != "auto" else found.gain if measured else 1.0
    variance = float(readout) ** 2 if readout != "auto" else found.variance if math.isfinite(found.variance) else 0.0
    if readout == "auto" and whole:
        variance = max(variance, 1 / 12)
    return DetectorNoise(taken, found.gain_std if measured else math.nan, found.level, variance)


def gain_from(noise: DetectorNoise, gain: str | float) -> str:
    """Where the gain in use comes from, in a word for the provenance."""
    return "given" if gain != "auto" else "photon transfer" if math.isfinite(noise.gain_std) else "assumed"


def _differences(positions: np.ndarray, fast: int) -> np.ndarray:
    """Sixth divided differences at the measured positions, normalised to unit scatter, float32, shape (window, 7).

    They vanish on polynomials of degree 5 in the position, evenly spaced or not; `DIFFERENCE` where they are evenly spaced, and
    where two positions coincide.
    """
    rows = positions.reshape(-1, fast)
    if fast < SPAN:
        return np.zeros((0, SPAN), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(rows, SPAN, axis=1).reshape(-1, SPAN)
    apart = windows[:, :, None] - windows[:, None, :] + np.eye(SPAN)
    product = apart.prod(axis=2)
    weights = 1 / np.where(product == 0, np.inf, product)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True)) + 1e-300
    weights *= np.sign(weights[:, :1]) + (weights[:, :1] == 0)
    return np.where((product == 0).any(axis=1, keepdims=True), DIFFERENCE, weights).astype(np.float32)


def _windows(curves: np.ndarray, fast: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared sixth differences and the matching means, shape (window, pixel)."""
    span, lines = weights.shape[1], curves.reshape(-1, fast, curves.shape[1])
    count = max(0, fast - span + 1)
    each = weights.reshape(len(lines), count, span)
    squares = np.zeros((len(lines), count, curves.shape[1]), np.float32)
    means = np.zeros_like(squares)
    for k in range(span):
        weight, counts = each[:, :, k, None], lines[:, k : k + count]
        squares += weight * counts
        means += weight**2 * counts
    np.square(squares, out=squares)
    return squares.reshape(-1, curves.shape[1]), means.reshape(-1, curves.shape[1])


def _dark(squares: np.ndarray, means: np.ndarray) -> tuple[float, float] | None:
    """Level and variance without signal: of the windows that lie within 2 standard deviations of the lowest common level.

    Windows are chosen by their mean, which leaves their scatter unbiased. None where there are no windows.
    """
    stride = max(1, means.size // DARK_WINDOWS) | 1  # odd, so that all columns take part
    values, level_of = squares.ravel()[::stride].astype(np.float64), means.ravel()[::stride].astype(np.float64)
    finite = np.isfinite(level_of)
    values, level_of = values[finite], level_of[finite]
    if len(values) < ENOUGH:
        return None
    level = np.partition(level_of, len(level_of) // 10)[len(level_of) // 10]
    dark = level_of <= level
    for _ in range(5):
        dark = level_of <= level + 2 * MEAN_SPREAD * np.sqrt(values[dark].mean())
        level = np.median(level_of[dark])
    return float(level), float(squares[means <= level].mean(dtype=np.float64))  # the lower half, clear of weak tails


def _classes(squares: np.ndarray, means: np.ndarray, level: float, first: float) -> np.ndarray:
    """Number of windows, mean signal and mean square in each class of signal, shape (3, class)."""
    bright = means > level + first  # NaN is not
    signal = means[bright] - np.float32(level)
    index = np.minimum(3 * np.log2(signal * np.float32(1 / first)), CLASSES - 1).astype(np.intp)
    return np.stack([np.bincount(index, weights, CLASSES) for weights in (None, signal, squares[bright])])


def _slope(count: np.ndarray, signal: np.ndarray, square: np.ndarray, variance: float) -> tuple[float, float]:
    """Slope of the variance with the signal, and its standard deviation, by weighted least squares over classes of signal."""
    enough = count >= ENOUGH
    if enough.sum() < 4:
        return 0.0, math.nan
    count = count[enough]
    x, y = signal[enough] / count, square[enough] / count
    fitted = np.maximum(y, variance)
    for _ in range(4):
        weight = np.sqrt(count / 2) / np.maximum(fitted, 1e-30)
        design = np.stack([x, x**2], axis=1) * weight[:, None]
        found, _ = nnls(design, (y - variance) * weight)
        fitted = variance + found[0] * x + found[1] * x**2
    error = np.sqrt(np.linalg.pinv(design.T @ design)[0, 0])
    error *= np.sqrt(max(1.0, np.mean(((y - fitted) * weight) ** 2)))
    return float(found[0]), float(error)
