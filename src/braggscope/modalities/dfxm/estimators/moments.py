"""Moments of every pixel's rocking curve over one to three motors, with error bars, in one pass over the frames.

Sums that can be added in any order are kept for each pixel: power sums of the motor coordinates weighted with the counts, and
the counts in some coarse bins of the scan. At the end the pedestal is found in the bins outside the pixel's own peak, and taken
off the power sums, which are linear in it. The noise of the detector comes from the curves of some pixels.
The formulas are in ../README.md, the inner loops in ../kernels.py.

The newest batch of frames waits in the state as it came (it must not be overwritten by its owner) and is summed together with
the next, or in `result`: each pass over the sums then serves many frames.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.estimator import Estimator, State, check_disjoint, fresh, motor_positions, option
from braggscope.core.maps import Quantity, empty_map
from braggscope.core.source import Source
from braggscope.infer.runtime import in_threads

from .. import kernels
from ..photon_transfer import DetectorNoise, believed, detector_noise, gain_from, sample_pixels

FLAGS = {
    kernels.NO_DATA: "no_data",
    kernels.NO_SIGNAL: "no_signal",
    kernels.NO_BACKGROUND: "no_background_outside_the_peak",
    kernels.TRUNCATED: "peak_cut_by_the_end_of_the_scan",
    kernels.MASKED: "some_counts_masked",
    kernels.SHAPE_UNKNOWN: "shape_hidden_by_noise",
}
BINS = {1: 16, 2: 6, 3: 4}  # along each of so many motors
BESIDE = {1: (2, 2), 2: (1, 2), 3: (1, 1)}  # bins beside the peak left out of the background: along one motor, along all together
WAITING = 16  # frames up to which small batches are gathered before they are summed; more would cost more to copy than it saves
UNEVEN = 0.2  # steps: root mean square deviation of positions from equal steps, above which means are wrong


@dataclass(frozen=True)
class Moments(Estimator):
    """Total, mean position, width, skewness, kurtosis and covariance of each pixel's rocking curve above its pedestal."""

    pedestal: str | float = option(
        "auto", "level under the peak: found per pixel outside its peak, none, or a value", unit="count",
        choices=("auto", "none", "VALUE"),
    )  # fmt: skip
    gain: str | float = option(
        "auto", "detector units per photon: from the scatter of the scan, or a value", unit="count", choices=("auto", "VALUE")
    )
    readout: str | float = option(
        "auto", "standard deviation of a count without signal: from the scan, or a value", unit="count", choices=("auto", "VALUE")
    )

    name: ClassVar[str] = "moments"
    summary: ClassVar[str] = (
        "total, mean, width, skewness, kurtosis and covariance of each pixel's rocking curve, with error bars"
    )
    per_frame: ClassVar[bool] = False
    calibrated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise InputError for a word or number that an option cannot have."""
        for name, words, low in (
            ("pedestal", ("auto", "none"), -math.inf),
            ("gain", ("auto",), 0.0),
            ("readout", ("auto",), 0.0),
        ):
            value = getattr(self, name)
            known = value in words if isinstance(value, str) else math.isfinite(value) and value >= low
            if not known or (name == "gain" and value == 0):
                wanted = "a number" if name == "pedestal" else "a positive number" if name == "gain" else "a number >= 0"
                raise InputError(f"option {name} must be {', '.join(words)} or {wanted}, got {value!r}")

    def init(self, source: Source) -> State:
        _check(source)
        rows, columns = source.frame_shape
        points, pixels = math.prod(source.shape), rows * columns
        units = {str(n): str(source.grid[n].attrs.get("units", "")) for n in source.grid.dims}
        positions = motor_positions(source)
        chosen = sample_pixels(rows, columns, points)
        return {
            "seen": np.zeros(points, bool),
            "grid_shape": np.array(source.shape),
            "frame_shape": np.array([rows, columns]),
            **{f"motor{i}:{n}:{units[n]}": positions[n] for i, n in enumerate(positions)},
            "sample_pixels": chosen,
            "sample": np.full((points, len(chosen)), np.nan, np.float32),
            "masked_point": np.zeros(0, np.int32),
            "masked_pixel": np.zeros(0, np.int64),
            "waiting_index": np.zeros(0, np.int64),
            "waiting": np.zeros((0, pixels), np.uint16),
        }

    def update(self, state: State, batch: Batch) -> State:
        batch = fresh(state, batch)
        if not len(batch):
            return state
        frames = _native(batch.frames.reshape(len(batch), -1))
        mask = None if batch.mask is None else batch.mask.reshape(frames.shape)
        if mask is not None:
            frames = np.where(mask, frames, frames.dtype.type(0))
            at, pixel = np.nonzero(~mask)
            state["masked_point"] = np.concatenate([state["masked_point"], batch.index[at].astype(np.int32)])
            state["masked_pixel"] = np.concatenate([state["masked_pixel"], pixel])
        chosen = np.take(frames, state["sample_pixels"], axis=1).astype(np.float32)
        state["sample"][batch.index] = chosen if mask is None else np.where(mask[:, state["sample_pixels"]], chosen, np.nan)
        waiting = state["waiting"]
        if _may_wait(waiting, frames):
            state["waiting"] = np.concatenate([waiting, frames])
            state["waiting_index"] = np.concatenate([state["waiting_index"], batch.index])
            return state
        _fold(state)
        state["waiting"], state["waiting_index"] = np.ascontiguousarray(frames), batch.index.copy()
        return state

    def merge(self, a: State, b: State) -> State:
        check_disjoint(a, b)
        a, b = dict(a), dict(b)
        for state in (a, b):
            if "sums" in state:
                state["sums"], state["bins"] = state["sums"].copy(), state["bins"].copy()
            _fold(state)
        merged = {**a, "seen": a["seen"] | b["seen"], "sample": np.where(np.isnan(a["sample"]), b["sample"], a["sample"])}
        for name in ("masked_point", "masked_pixel"):
            merged[name] = np.concatenate([a[name], b[name]])
        for name in ("sums", "bins"):
            if name in a and name in b:
                merged[name] = a[name] + b[name]
            elif name in b:
                merged[name] = b[name]
        return merged

    def result(self, state: State) -> xr.Dataset:
        scan = _ScanSums.of(state)
        noise = self._noise(state, scan)
        quantities = _quantities(scan)
        pixels = math.prod(state["frame_shape"])
        out, flag = np.empty((2 * len(quantities), pixels)), np.zeros(pixels, np.int32)
        given = math.nan if self.pedestal == "auto" else 0.0 if self.pedestal == "none" else float(self.pedestal)
        values = np.array([noise.gain, noise.variance, noise.level])
        frames, sums, bins = state["waiting"], state.get("sums"), state.get("bins")
        if sums is None or bins is None:
            sums, bins = np.zeros((scan.terms, 0)), np.zeros((scan.bins, 0), _bin_type(frames))
        if bins.dtype == np.float64 and frames.dtype == np.uint16:
            frames = frames.astype(np.float64)
        where = state["waiting_index"]
        weights, bin_of = scan.weights(where), scan.bin_of[where]
        pieces = scan.pieces(state["seen"])

        def work(start: int, stop: int) -> None:
            kernels.moments(frames, weights, bin_of, sums, bins, *pieces, given, values, scan.units, start, stop, out, flag)
            kernels.blank(out, flag, scan.ends, start, stop)

        in_threads(work, pixels, smallest=4 * kernels.TILE)
        if len(state["masked_pixel"]):
            self._masked_pixels(state, scan, given, values, out, flag)
        dataset = _dataset(quantities, out, flag, (int(state["frame_shape"][0]), int(state["frame_shape"][1])))
        dataset.attrs.update(
            gain=noise.gain,
            gain_from=gain_from(noise, self.gain),
            readout=math.sqrt(noise.variance),
            frames_used=int(state["seen"].sum()),
        )
        return dataset

    def _noise(self, state: State, scan: _ScanSums) -> DetectorNoise:
        """Gain and dark noise as the options say, else as the scan shows; gain 1 and no noise where it does not."""
        if self.gain != "auto" and self.readout != "auto" and self.pedestal != "auto":
            return DetectorNoise(float(self.gain), math.nan, float(-math.inf), float(self.readout) ** 2)
        found = detector_noise(state["sample"], int(state["grid_shape"][-1]), scan.coordinates[-1])
        noise = believed(found, self.gain, self.readout, whole=_whole_counts(state))
        gain, level, variance = noise.gain, noise.level, noise.variance
        if self.pedestal != "auto" and self.readout == "auto":
            given = 0.0 if self.pedestal == "none" else float(self.pedestal)
            variance = max(0.0, variance - gain * max(0.0, level - given))
        return DetectorNoise(gain, noise.gain_std, level, variance)

    def _masked_pixels(
        self, state: State, scan: _ScanSums, given: float, noise: np.ndarray, out: np.ndarray, flag: np.ndarray
    ) -> None:
        """Do the pixels with masked counts again, each as if the scan lacked those frames; alike ones together."""
        folded = dict(state)
        if "sums" in folded:
            folded["sums"], folded["bins"] = folded["sums"].copy(), folded["bins"].copy()
        _fold(folded)
        for points, pixels in _alike(state["masked_point"], state["masked_pixel"]):
            seen = state["seen"].copy()
            seen[points] = False
            if not seen.any():
                out[:, pixels], flag[pixels] = np.nan, kernels.NO_DATA
                continue
            part, bits = np.empty((len(out), len(pixels))), np.zeros(len(pixels), np.int32)
            none, weights, bin_of = np.zeros((0, len(pixels)), np.float64), np.zeros((scan.terms, 0)), np.zeros(0, np.int64)
            sums, bins = folded["sums"][:, pixels], folded["bins"][:, pixels].astype(np.float64)
            kernels.moments(
                none, weights, bin_of, sums, bins, *scan.pieces(seen), given, noise, scan.units, 0, len(pixels), part, bits
            )
            kernels.blank(part, bits, scan.ends, 0, len(pixels))
            out[:, pixels], flag[pixels] = part, bits | kernels.MASKED


def _check(source: Source) -> None:
    """Raise InputError for a scan whose points do not stand for equal parts of the peaks.

    A mean over points leans to where these lie close: positions uneven by 0.2 steps (root mean square) shift it by about 0.08
    steps, for peaks of three steps (standard deviation).
    """
    if not 1 <= len(source.shape) <= 3:
        raise InputError(f"method 'moments' needs a scan over one to three motors, got {len(source.shape)} axes")
    for axis, (name, values) in enumerate(motor_positions(source).items()):
        different, count = len(np.unique(values)), source.shape[axis]
        if min(different, count) < 2:
            raise InputError(
                f"method 'moments' needs at least 2 positions of each motor, the scan has {min(different, count)} of {name}"
            )
        lines = np.moveaxis(values.reshape(source.shape), axis, -1)
        place = np.arange(count) - (count - 1) / 2
        step = float((lines.mean(axis=tuple(range(lines.ndim - 1))) @ place) / (place @ place))
        uneven = float(np.std(lines - step * place)) / abs(step) if step else math.inf
        if uneven > UNEVEN:
            raise InputError(
                f"method 'moments' needs evenly spaced positions, those of {name} are off by {uneven:.2g} steps (root mean "
                "square): its means would lean to where points lie close; use --method peakfit"
            )


@dataclass(frozen=True)
class _ScanSums:
    """What the motors alone decide: coordinates, bins and sums over frames.

    names, unit_names: Of the motors, slowest first.
    coordinates: In steps from the middle of the scan, shape (motor, point).
    units: Step and middle of each motor, in its unit, shape (motor, 2).
    bin_of: Scan bin of each point; neighbours, edge: of each bin (see kernels.find_pedestal).
    """

    names: tuple[str, ...]
    unit_names: tuple[str, ...]
    coordinates: np.ndarray
    units: np.ndarray
    bin_of: np.ndarray
    neighbours: np.ndarray
    edge: np.ndarray

    @classmethod
    def of(cls, state: State) -> _ScanSums:
        """From the motor positions and the grid in a state."""
        keys = sorted(k for k in state if k.startswith("motor"))
        names, unit_names = zip(*((k.split(":")[1], k.split(":", 2)[2]) for k in keys), strict=True)
        shape = tuple(int(n) for n in state["grid_shape"])
        coordinates, units = zip(*(_in_steps(state[k], shape[i]) for i, k in enumerate(keys)), strict=True)
        bin_of, neighbours, edge = _scan_bins(shape)
        return cls(names, unit_names, np.array(coordinates), np.array(units), bin_of, neighbours, edge)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Each pair of motors."""
        return list(itertools.combinations(range(len(self.names)), 2))

    @property
    def ends(self) -> np.ndarray:
        """Lowest and highest position of each motor, in its unit, shape (motor, 2)."""
        reach = np.array([self.coordinates.min(axis=1), self.coordinates.max(axis=1)]).T
        return reach * self.units[:, :1] + self.units[:, 1:]

    @property
    def terms(self) -> int:
        """Power sums kept for a pixel."""
        return kernels.ORDERS * len(self.names) + 4 * len(self.pairs)

    @property
    def bins(self) -> int:
        """Bins of the scan."""
        return len(self.edge)

    def weights(self, where: np.ndarray) -> np.ndarray:
        """Products of the coordinates at these points, shape (term, point): orders 1 to 8 of each motor, then those of pairs."""
        u = self.coordinates[:, where]
        alone = [x**k for x in u for k in range(1, kernels.ORDERS + 1)]
        mixed = [z for i, j in self.pairs for z in (u[i] * u[j], u[i] ** 2 * u[j], u[i] * u[j] ** 2, u[i] ** 2 * u[j] ** 2)]
        return np.array(alone + mixed).reshape(self.terms, len(where))

    def pieces(self, seen: np.ndarray) -> tuple[Any, ...]:
        """Table, neighbours, edge, points and pairs for kernels.moments, summed over the points seen."""
        where = np.flatnonzero(seen)
        weights, motors = self.weights(where), len(self.names)
        low = [weights[8 * m + k] for m in range(motors) for k in range(4)] + [
            weights[8 * motors + 4 * i] for i in range(len(self.pairs))
        ]
        table = np.array([np.bincount(self.bin_of[where], row, self.bins) for row in [np.ones(len(where)), *low]])
        sums = weights.sum(axis=1)
        points = np.array([[len(where), *sums[8 * m : 8 * m + 8]] for m in range(motors)])
        pairs = np.array(
            [
                [i, j, len(where), sums[8 * i], sums[8 * j], sums[8 * i + 1], sums[8 * j + 1], *sums[8 * motors + 4 * n :][:4]]
                for n, (i, j) in enumerate(self.pairs)
            ]
        ).reshape(len(self.pairs), 11)
        return table.astype(np.float32), self.neighbours, self.edge, points, pairs


def _in_steps(positions: np.ndarray, count: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Coordinates in mean steps from the middle of the scan; exactly whole or half numbers where the positions are regular."""
    low, high = float(positions.min()), float(positions.max())
    step, middle = (high - low) / max(1, count - 1) or 1.0, (low + high) / 2
    u = (positions - middle) / step
    halves = np.round(2 * u) / 2
    return (halves if np.abs(u - halves).max() < 1e-6 else u), (step, middle)


def _scan_bins(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bin of each point, the bins beside each bin, and whether it lies at an end of the scan."""
    counts = [max(1, min(BINS[len(shape)], n // 2)) for n in shape]
    along = [np.arange(n) * c // n for n, c in zip(shape, counts, strict=True)]
    bin_of = np.ravel_multi_index(np.meshgrid(*along, indexing="ij"), counts).ravel()
    cells = np.array(list(np.ndindex(*counts)))
    reach, far = BESIDE[len(shape)]
    every = itertools.product(range(-reach, reach + 1), repeat=len(shape))
    offsets = np.array([step for step in every if sum(map(abs, step)) <= far])
    beside = np.clip(cells[:, None] + offsets[offsets.any(axis=1)], 0, np.array(counts) - 1)
    neighbours = np.ravel_multi_index(tuple(np.moveaxis(beside, -1, 0)), counts)
    neighbours = np.pad(neighbours, ((0, 0), (0, -neighbours.shape[1] % 4)), mode="edge")  # the kernel takes four at a time
    edge = ((cells == 0) | (cells == np.array(counts) - 1)).any(axis=1)
    return bin_of.astype(np.int64), neighbours.astype(np.uint64), edge


def _native(frames: np.ndarray) -> np.ndarray:
    """Counts in one of the types that the kernels are compiled for: uint16, float32, float64."""
    if frames.dtype in (np.dtype(np.uint8), np.dtype(">u2")):
        return frames.astype(np.uint16)
    if frames.dtype in (np.dtype(np.uint16), np.dtype(np.float32), np.dtype(np.float64)):
        return frames
    return frames.astype(np.float64)


def _bin_type(frames: np.ndarray) -> Any:
    """Exact for sums of these counts."""
    return np.uint32 if frames.dtype == np.uint16 else np.float64


def _may_wait(waiting: np.ndarray, frames: np.ndarray) -> bool:
    """Whether new frames can join those that wait already."""
    return len(waiting) > 0 and waiting.dtype == frames.dtype and len(waiting) + len(frames) <= WAITING


def _whole_counts(state: State) -> bool:
    """Whether all counts so far came as unsigned integers."""
    return state["waiting"].dtype == np.uint16 and ("bins" not in state or state["bins"].dtype == np.uint32)


def _fold(state: State) -> None:
    """Add the waiting frames to the sums of a state, in place."""
    frames, where = state["waiting"], state["waiting_index"]
    if not len(frames):
        return
    scan = _ScanSums.of(state)
    if "sums" not in state:
        state["sums"] = np.zeros((scan.terms, frames.shape[1]))
        state["bins"] = np.zeros((scan.bins, frames.shape[1]), _bin_type(frames))
    if frames.dtype != np.uint16 and state["bins"].dtype == np.uint32:
        state["bins"] = state["bins"].astype(np.float64)
    if frames.dtype == np.uint16 and state["bins"].dtype == np.float64:
        frames = frames.astype(np.float64)
    weights, bin_of, sums, bins = scan.weights(where), scan.bin_of[where], state["sums"], state["bins"]
    in_threads(lambda start, stop: kernels.fold(frames, weights, bin_of, sums, bins, start, stop), frames.shape[1], smallest=4096)
    state["waiting"], state["waiting_index"] = frames[:0], where[:0]


def _alike(points: np.ndarray, pixels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Groups of pixels that lack the same points: (points, pixels) each."""
    order = np.lexsort((points, pixels))
    points, pixels = points[order], pixels[order]
    which, starts = np.unique(pixels, return_index=True)
    groups: dict[bytes, tuple[np.ndarray, list[int]]] = {}
    for pixel, lacking in zip(which, np.split(points, starts[1:]), strict=True):
        groups.setdefault(lacking.tobytes(), (lacking, []))[1].append(int(pixel))
    return [(lacking, np.array(members)) for lacking, members in groups.values()]


def _quantities(scan: _ScanSums) -> list[Quantity]:
    """The quantities in the order of the kernel's results."""
    found = [
        Quantity("pedestal", "count", "level under the peak"),
        Quantity("total", "count", "sum of the counts above the pedestal"),
    ]
    for name, unit in zip(scan.names, scan.unit_names, strict=True):
        found += [
            Quantity(name, unit, f"mean position of the peak along {name}"),
            Quantity(f"{name}_width", unit, f"root of the second central moment along {name}"),
            Quantity(f"{name}_skewness", "1", f"skewness along {name}"),
            Quantity(f"{name}_kurtosis", "1", f"excess kurtosis along {name} (0 for a Gaussian)"),
        ]
    for i, j in scan.pairs:
        unit = " ".join(dict.fromkeys((scan.unit_names[i], scan.unit_names[j])))
        unit = f"{unit}^2" if unit and scan.unit_names[i] == scan.unit_names[j] else unit
        found.append(
            Quantity(f"{scan.names[i]}_{scan.names[j]}_covariance", unit, f"covariance of {scan.names[i]} and {scan.names[j]}")
        )
    return found


def _dataset(quantities: list[Quantity], out: np.ndarray, flag: np.ndarray, shape: tuple[int, int]) -> xr.Dataset:
    """The map: motors first, so that a viewer opens on the first motor's mean."""
    dims = ("row", "column")
    dataset = empty_map((), dims, (1, 1), {}, FLAGS)
    attributes = dataset["flag"].attrs
    variables: dict[str, Any] = {}
    for i in [*range(2, len(quantities)), 1, 0]:
        for n, q in enumerate((quantities[i], quantities[i].std())):
            variables[q.name] = (dims, out[2 * i + n].reshape(shape), {"units": q.unit, "long_name": q.long_name})
    return xr.Dataset({**variables, "flag": (dims, flag.reshape(shape), attributes)})
