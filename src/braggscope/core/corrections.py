"""Corrections: frames put right as they are read, so that everything that takes a Scan works on the corrected one unchanged.

Each is a `Frames` around another `Frames`, in the pixels of the recorded frame, so that a region of interest and binning may come
before or after. They hold what was found (an image, a list of shifts); who finds it is a modality's business (core.modality,
`corrections`). Corrected frames are floating point, NaN where a count may not be used: saturation is recognised on the counts
as recorded, by the first wrapper (`Raw`), and a corrected count may be negative without being bad. Nothing is clipped.

What corrections do to the noise of a count with gain g (detector units per photon) and read-out variance r^2:

    dark image D     y - D + level(D): the pattern goes, the level stays, so that counts stay positive and the noise is as it was.
                     The noise of D is the same in all frames of a pixel, and so part of its pedestal.
    flat image f     (y - D) / f + level: a pixel has gain g / f and read-out variance r^2 / f^2.
    counts to photons  (y - offset) / g: gain 1, read-out variance r^2 / g^2.
    shift by a fraction t of a pixel  linear: the variance of a count falls to ((1-t)^2 + t^2) along each axis, and neighbouring
                     pixels share noise (correlation t (1-t) / ((1-t)^2 + t^2)); whole pixels leave the noise as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .batch import usable
from .errors import InputError
from .scan import Frames, Scan

SNAP = 0.02  # pixels; a shift this close to a whole number is taken as one, which leaves the noise as it is
LEAST_FLAT = 0.05  # of the median; a pixel that sees less light than this is masked
INTERPOLATIONS = ("nearest", "linear", "cubic")


class Wrapper:
    """Frames around other frames; a leaf gives `read`."""

    frames: Frames
    marks_unusable: ClassVar[bool] = True  # by NaN

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows and columns."""
        return self.frames.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Single precision, double where the counts need it."""
        return self.frames.dtype

    def wider(self, rows: slice, columns: slice, by: int) -> tuple[slice, slice, tuple[slice, slice]]:
        """Rows and columns with so many more on each side, where there are any, and where the asked ones lie in them."""
        top, left = max(0, rows.start - by), max(0, columns.start - by)
        bottom, right = min(self.shape[1], rows.stop + by), min(self.shape[2], columns.stop + by)
        inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        return slice(top, bottom), slice(left, right), inner


@dataclass(frozen=True)
class Raw(Wrapper):
    """Recorded counts as floating point, NaN where they may not be used (see `core.batch.usable`)."""

    frames: Frames
    saturation: float | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        exact = self.frames.dtype.itemsize <= (4 if self.frames.dtype.kind == "f" else 2)
        return np.dtype(np.float32 if exact else np.float64)

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        counts = self.frames.read(which, rows, columns)
        good = usable(counts, self.saturation)
        values = counts.astype(self.dtype)
        if good is not None:
            values[~good] = np.nan
        return values


@dataclass(frozen=True)
class Scaled(Wrapper):
    """(count - offset) / scale + level; NaN in offset or scale masks a pixel.

    offset, scale: One number, or an image of the recorded frame.
    """

    frames: Frames
    offset: np.ndarray | float = 0.0
    scale: np.ndarray | float = 1.0
    level: float = 0.0

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        values = self.frames.read(which, rows, columns)
        offset, scale = (
            np.asarray(v if np.ndim(v) == 0 else np.asarray(v)[rows, columns], self.dtype) for v in (self.offset, self.scale)
        )
        values -= offset
        values /= scale
        values += self.dtype.type(self.level)
        return values


@dataclass(frozen=True)
class Spikes:
    """How a count that no light can explain stands out from its neighbours.

    A count y is a spike where  y - level > contrast max(n - level, 0) + threshold sqrt(variance + gain max(n - level, 0)),  n the
    second highest of its eight neighbours: an image is never sharper than the optics, a hit is one or two pixels.

    level, variance: Of a count without signal.
    gain: Detector units per photon.
    """

    level: float
    variance: float
    gain: float
    threshold: float
    contrast: float

    def where(self, values: np.ndarray) -> np.ndarray:
        """True at spikes, shape (frame, row, column). NaN is neither a spike nor a neighbour."""
        excess = values - values.dtype.type(self.level)
        faint = np.array(self.threshold * math.sqrt(self.variance), values.dtype)
        found = excess > faint
        side = np.full_like(excess, -np.inf)  # the lower of the two neighbours in the row is at most the second highest of all
        side[:, :, 1:-1] = np.fmin(excess[:, :, :-2], excess[:, :, 2:])
        found &= ~(excess <= self.contrast * side)
        at, row, column = np.nonzero(found)
        padded = np.pad(excess, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        around = [padded[at, row + i, column + j] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
        beside = np.nan_to_num(np.array(around), nan=-np.inf)
        second = np.maximum(np.partition(beside, 6, axis=0)[6], 0) if len(at) else np.zeros(0)
        limit = self.contrast * second + self.threshold * np.sqrt(self.variance + self.gain * second)
        found[at, row, column] = excess[at, row, column] > limit
        return found


@dataclass(frozen=True)
class Unspiked(Wrapper):
    """Counts without the pixels that are always bad and without spikes: masked, or replaced by the median around them.

    bad: True at pixels that are bad in every frame, shape (row, column) of the recorded frame.
    fill: Whether to replace; the replaced counts carry no sign of it.
    """

    frames: Frames
    bad: np.ndarray
    spikes: Spikes
    fill: bool = False

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        wide_rows, wide_columns, inner = self.wider(rows, columns, 2)
        values = self.frames.read(which, wide_rows, wide_columns)
        lost = ~np.isfinite(values)
        values[:, self.bad[wide_rows, wide_columns]] = np.nan
        values[self.spikes.where(values)] = np.nan
        if self.fill:
            _fill(values, ~lost & ~np.isfinite(values))
        return np.ascontiguousarray(values[:, inner[0], inner[1]])


def _fill(values: np.ndarray, where: np.ndarray) -> None:
    """Put the median of the usable ones of the eight neighbours there; NaN stays where there is none."""
    at, row, column = np.nonzero(where)
    if not len(at):
        return
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    around = np.array([padded[at, row + i, column + j] for i in range(3) for j in range(3)])
    some = np.isfinite(around).any(axis=0)
    values[at[some], row[some], column[some]] = np.nanmedian(around[:, some], axis=0)


@dataclass(frozen=True)
class Shifted(Wrapper):
    """Frames moved back by how far each lies off, interpolated between pixels; NaN where nothing was recorded.

    shifts: How far the image of each frame lies down and to the right of its place, in pixels, shape (frame, 2), finite.
    interpolation: "nearest" (whole pixels), "linear" or "cubic" (four points, Keys 1981 with a = -1/2).
    """

    frames: Frames
    shifts: np.ndarray
    interpolation: str = "linear"

    def read(self, which: slice | np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        shifts = self.shifts[which]
        out = np.full((len(shifts), rows.stop - rows.start, columns.stop - columns.start), np.nan, self.dtype)
        if not len(shifts):
            return out
        low, high = np.floor(shifts.min(axis=0)).astype(int) - 1, np.floor(shifts.max(axis=0)).astype(int) + 2
        sides = [
            slice(min(max(s.start + int(a), 0), n), max(min(s.stop + int(b), n), 0))
            for s, a, b, n in zip((rows, columns), low, high, self.shape[1:], strict=True)
        ]
        if any(s.stop <= s.start for s in sides):
            return out
        values = self.frames.read(which, sides[0], sides[1])
        for i, shift in enumerate(shifts):
            along = [_taps(s, self.interpolation) for s in shift]
            window = _window(values[i], [s.start for s in sides], (rows, columns), along)
            out[i] = _weighted(_weighted(window, along[0], 0), along[1], 1)
        return out


def _taps(shift: float, interpolation: str) -> tuple[int, np.ndarray]:
    """Offset of the first pixel that a pixel is made of, and the weights of this and the following ones.

    >>> _taps(1.75, "linear")
    (1, array([0.25, 0.75]))
    """
    whole = math.floor(shift)
    t = shift - whole
    if interpolation == "nearest" or min(t, 1 - t) < SNAP:
        return round(shift), np.ones(1)
    if interpolation == "linear":
        return whole, np.array([1 - t, t])
    weights = [-0.5 * t**3 + t**2 - 0.5 * t, 1.5 * t**3 - 2.5 * t**2 + 1, -1.5 * t**3 + 2 * t**2 + 0.5 * t, 0.5 * (t**3 - t**2)]
    return whole - 1, np.array(weights)


def _window(values: np.ndarray, origin: list[int], asked: tuple[slice, slice], along: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """The pixels that the asked ones are made of, NaN outside the frame."""
    begin = [s.start + first for s, (first, _) in zip(asked, along, strict=True)]
    size = [s.stop - s.start + len(w) - 1 for s, (_, w) in zip(asked, along, strict=True)]
    window = np.full(size, np.nan, values.dtype)
    to, source = [], []
    for b, n, o, there in zip(begin, size, origin, values.shape, strict=True):
        low, high = max(b, o), min(b + n, o + there)
        if high <= low:
            return window
        to.append(slice(low - b, high - b))
        source.append(slice(low - o, high - o))
    window[tuple(to)] = values[tuple(source)]
    return window


def _weighted(values: np.ndarray, along: tuple[int, np.ndarray], axis: int) -> np.ndarray:
    """Weighted sum of neighbours along an axis."""
    weights = along[1]
    length = values.shape[axis] - len(weights) + 1
    parts = [values[(slice(None),) * axis + (slice(k, k + length),)] * values.dtype.type(w) for k, w in enumerate(weights)]
    return sum(parts[1:], parts[0])


def corrected(
    scan: Scan, record: Mapping[str, Any], *, frames: Frames | None = None, positions: Mapping[str, np.ndarray] | None = None
) -> Scan:
    """The scan with other frames or motor positions, and with what was done added to its record.

    record: "name" and plain values.
    """
    changes: dict[str, Any] = {"corrections": (*scan.corrections, record)}
    if frames is not None:
        changes["frames"] = frames
    if positions is not None:
        changes["positions"] = {**scan.positions, **positions}
    return dataclasses.replace(scan, **changes)


def raw(scan: Scan) -> Frames:
    """The frames of a scan with unusable counts marked by NaN, ready for a correction.

    Raises InputError where the scan has none.
    """
    if scan.frames is None:
        raise InputError(f"scan '{scan.name}' of {scan.path} has no image stack: {'; '.join(scan.missing)}")
    return scan.frames if getattr(scan.frames, "marks_unusable", False) else Raw(scan.frames, scan.saturation)


def mean_frame(scan: Scan) -> np.ndarray:
    """Mean of the usable counts of all frames, shape (row, column), float64; NaN where a pixel has none."""
    total, count = np.zeros(scan.frame_shape), np.zeros(scan.frame_shape)
    for batch in scan.batches():
        good = np.ones(batch.frames.shape, bool) if batch.mask is None else batch.mask
        total += batch.frames.sum(axis=0, dtype=np.float64, where=good)
        count += good.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return total / np.where(count > 0, count, np.nan)


def with_dark_and_flat(
    scan: Scan, dark: np.ndarray | None = None, flat: np.ndarray | None = None, record: Mapping[str, Any] | None = None
) -> Scan:
    """The scan less the pattern of a dark image, divided by a flat image; the level of the dark image stays (see above).

    dark, flat: Images of the whole recorded frame, shape (row, column), in detector units; the dark image is taken off the flat
        one too. The flat image is divided by its median, so that counts keep their unit; pixels where it is not above 0.05 of
        that, or where either image is not finite, are masked.
    record: What to say of where they come from.
    Raises InputError where an image has another size, or where more than half of it is unusable.
    """
    frames = raw(scan)
    offset = _image(dark, "dark", frames.shape[1:]) if dark is not None else np.zeros(frames.shape[1:])
    level = float(np.nanmedian(offset))
    facts = {"name": "dark-flat", **(record or {})} | ({"level": level} if dark is not None else {})
    scale: np.ndarray | float = 1.0
    if flat is not None:
        light = _image(flat, "flat", frames.shape[1:]) - offset
        middle = float(np.nanmedian(light))
        with np.errstate(invalid="ignore"):
            scale = np.where(light > LEAST_FLAT * middle, light / middle, np.nan) if middle > 0 else np.full(light.shape, np.nan)
        if np.isfinite(scale).mean() < 0.5:
            lit = f"{100 * np.isfinite(scale).mean():.0f} % of its pixels"
            raise InputError(f"flat must be lit all over, but only {lit} are above {LEAST_FLAT} of its median of {middle:.6g}")
        facts["flat_spread"] = float(np.nanstd(scale))
    facts["masked_pixels"] = int((~np.isfinite(offset * scale)).sum())
    return corrected(scan, facts, frames=Scaled(frames, offset, scale, level))


def _image(values: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A dark or flat image in double precision. Raises InputError where it is no image or does not fit the frames."""
    if values.dtype.kind not in "iufb":
        raise InputError(f"{name} must be an image of real numbers, got an array of {values.dtype}")
    if values.shape != shape:
        got = " x ".join(str(n) for n in values.shape)
        raise InputError(
            f"{name} must be an image of {shape[0]} rows x {shape[1]} columns like the recorded frames of the scan, got {got}"
        )
    if not np.isfinite(values).mean() > 0.5:
        raise InputError(f"{name} must be finite numbers, but more than half of its pixels are not")
    return np.asarray(values, np.float64)
