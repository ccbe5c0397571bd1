"""One to three peaks fitted to the rocking curve of every pixel, over one to three motors, with covariance and goodness of fit.

The model, the estimate and the choice of the number of peaks are in ../peaks/; what the flags mean
is in ../README.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr

from braggscope.core.batch import PixelBlock
from braggscope.core.errors import InputError
from braggscope.core.estimator import PerPixel, State, motor_positions, option
from braggscope.core.maps import Quantity
from braggscope.core.source import Source
from braggscope.infer.peak_kernels import GAUSSIAN, LORENTZIAN, PSEUDO_VOIGT, per_peak
from braggscope.infer.runtime import in_threads

from ..peaks import search
from ..peaks.table import Layout, describe, stronger_first
from ..photon_transfer import DetectorNoise, believed, gain_from, sampled_curves

_, NO_DATA, NO_SIGNAL, OUTSIDE, NARROW, WIDE, UNCONVERGED, AMBIGUOUS, MASKED, UNDESCRIBED = (1 << k for k in range(10))
FLAGS = {
    MASKED: "some_counts_masked",
    UNDESCRIBED: "curve_not_described_by_the_peaks",
    AMBIGUOUS: "number_of_peaks_ambiguous",
    WIDE: "wider_than_the_scan",
    NARROW: "width_below_the_step",
    OUTSIDE: "centre_outside_the_scan",
    UNCONVERGED: "not_converged",
    NO_SIGNAL: "no_signal",
    NO_DATA: "no_data",
}
SHAPES = {"gaussian": GAUSSIAN, "lorentzian": LORENTZIAN, "pseudo_voigt": PSEUDO_VOIGT}
SIGNIFICANT = 5.0  # standard deviations of the amplitude below which there is no peak to speak of
SURE = 0.95  # probability of the number of peaks below which it is called ambiguous
DESCRIBED, BEYOND = 1.5, 5.0  # reduced deviance that is tolerated, and standard deviations by which noise may exceed 1
APART = 1.0  # mean widths that two peaks must lie apart, or which counts are whose is called ambiguous
PIECE = 2048  # pixels described together


@dataclass(frozen=True)
class PeakFit(PerPixel):
    """Centre, width and amplitude of one to three peaks, and the background, by quasi-likelihood of each pixel's curve.

    After `prepare`: names and units of the motors, lengths of the scan's axes, and the detector's noise.
    """

    shape: str = option("gaussian", "of a peak; over several motors only gaussian", choices=tuple(SHAPES))
    peaks: int = option(1, "1 to 3: most peaks in a pixel, of which the evidence chooses")
    background: str = option("constant", "linear: with a slope along each motor", choices=("constant", "linear"))
    gain: str | float = option(
        "auto", "detector units per photon: from the scatter of the scan, or a value", unit="count", choices=("auto", "VALUE")
    )
    readout: str | float = option(
        "auto", "standard deviation of a count without signal: from the scan, or a value", unit="count", choices=("auto", "VALUE")
    )
    motors: tuple[tuple[str, str], ...] = ()
    lengths: tuple[int, ...] = ()
    noise: DetectorNoise | None = None

    name: ClassVar[str] = "peakfit"
    summary: ClassVar[str] = "one to three peaks fitted to each pixel's rocking curve, with covariance and goodness of fit"
    calibrated: ClassVar[bool] = True
    flags: ClassVar[Mapping[int, str]] = FLAGS

    def __post_init__(self) -> None:
        """Raise InputError for a number that an option cannot have."""
        if not 1 <= self.peaks <= 3:
            raise InputError(f"option peaks must be 1, 2 or 3, got {self.peaks}")
        for name, low in (("gain", 0.0), ("readout", -1e-300)):
            value = getattr(self, name)
            if value != "auto" and not (math.isfinite(float(value)) and float(value) > low):
                raise InputError(f"option {name} must be auto or a {'positive ' if low == 0 else ''}number, got {value}")

    def prepare(self, source: Source) -> Self:
        """Name the motors, measure the detector's noise on some frames. Raises InputError for a scan without peaks to fit."""
        motors = tuple((str(n), str(source.grid[n].attrs.get("units", ""))) for n in source.grid.dims)
        self._check(source, [name for name, _ in motors])
        return dataclasses.replace(self, motors=motors, lengths=source.shape, noise=_noise(source, self.gain, self.readout))

    def _check(self, source: Source, names: list[str]) -> None:
        if not 1 <= len(names) <= 3:
            raise InputError(f"method 'peakfit' needs a scan over one to three motors, got {len(names)} axes")
        for name, values in motor_positions(source).items():
            if len(np.unique(values)) < 3:
                raise InputError(
                    f"method 'peakfit' needs at least 3 positions of each motor, the scan has {len(np.unique(values))} of {name}"
                )
        if len(names) > 1 and self.shape != "gaussian":
            raise InputError(f"option shape must be gaussian for a scan over {len(names)} motors, got '{self.shape}'")
        least = self._layout(len(names)).base + self._layout(len(names)).each
        if math.prod(source.shape) <= least:
            raise InputError(
                f"method 'peakfit' needs more than {least} points for one peak, the scan has {math.prod(source.shape)}"
            )

    def _layout(self, motors: int) -> Layout:
        return Layout(motors, 1 + (motors if self.background == "linear" else 0), per_peak(motors, SHAPES[self.shape]))

    def quantities(self) -> tuple[Quantity, ...]:
        found: list[Quantity] = []
        names, pairs = [n for n, _ in self.motors], self._layout(len(self.motors)).pairs
        for k in range(self.peaks):
            end, which = (
                ("", "the peak" if self.peaks == 1 else "the strongest peak") if k == 0 else (f"_{k + 1}", f"peak {k + 1}")
            )
            for name, unit in self.motors:
                found.append(Quantity(f"{name}{end}", unit, f"centre of {which} along {name}"))
            for name, unit in self.motors:
                found.append(Quantity(f"{name}_width{end}", unit, f"width (sigma) of {which} along {name}"))
            found.append(Quantity(f"amplitude{end}", "count", f"height of {which} above the background"))
            for i, j in pairs:
                unit = _product(self.motors[i][1], self.motors[j][1])
                found.append(Quantity(f"{names[i]}_{names[j]}_covariance{end}", unit, f"covariance of {names[i]} and {names[j]}"))
            if self.shape == "pseudo_voigt":
                found.append(Quantity(f"mixing{end}", "1", f"Lorentzian part of {which}"))
        found.append(Quantity("background", "count", "level under the peak, in the middle of the scan"))
        if self.background == "linear":
            found += [Quantity(f"{n}_slope", _per(u), f"slope of the background along {n}") for n, u in self.motors]
        return tuple(found)

    def extras(self) -> tuple[Quantity, ...]:
        fit = Quantity("reduced_deviance", "1", "deviance over its expectation")
        names, pairs = [n for n, _ in self.motors], self._layout(len(self.motors)).pairs
        shared = tuple(
            Quantity(f"{a}_{b}_error_correlation{end}", "1", f"correlation of the errors of {a}{end} and {b}{end}")
            for end in ("", "_2", "_3")[: self.peaks]
            for a, b in ((names[i], names[j]) for i, j in pairs)
        )
        if self.peaks == 1:
            return (*shared, fit)
        return (
            *shared,
            Quantity("peaks", "1", "number of peaks with the largest evidence"),
            Quantity("peaks_probability", "1", "probability of that number"),
            fit,
        )

    def init(self, source: Source) -> State:
        if self.noise is None:
            raise InputError("method 'peakfit' must see the scan first: call prepare(source)")
        freedom = np.zeros(math.prod(source.frame_shape))
        return {**super().init(source), "freedom": freedom}

    def fit(self, block: PixelBlock, motors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert self.noise is not None
        x, scale, middle = _in_steps(motors, self.lengths)
        layout = self._layout(len(motors))
        noise = (self.noise.gain, self.noise.variance, self.noise.level)
        out = {q.name: np.full(len(block), np.nan) for q in self._all()}
        out |= {"flag": np.zeros(len(block), np.int32), "freedom": np.zeros(len(block))}

        x = search.padded(x)
        lengths, shape, prior = np.array(self.lengths), SHAPES[self.shape], search.log_prior(x)

        def work(start: int, stop: int) -> None:
            rooms = search.rooms(x, layout.base, shape, self.peaks)
            for a in range(start, stop, PIECE):
                some = slice(a, min(a + PIECE, stop))
                values = np.empty((some.stop - a, layout.base + layout.each * self.peaks))
                errors, about = np.empty((*values.shape, values.shape[1])), np.empty((len(values), 8))
                scan = (block.curves[some], block.mask[some], x, lengths, layout.base, shape)
                search.fit_one(*scan, noise, values, errors, about, *rooms)
                if self.peaks > 1:
                    search.add_peaks(*scan, self.peaks, noise, prior, values, errors, about, *rooms)
                self._describe(values, errors, about, layout, (x, scale, middle), {n: v[some] for n, v in out.items()})

        in_threads(work, len(block), smallest=256)
        return out

    def _describe(
        self, values: np.ndarray, errors: np.ndarray, about: np.ndarray, layout: Layout, scan: Any, out: dict[str, np.ndarray]
    ) -> None:
        """Fill quantities and flags of some pixels."""
        assert self.noise is not None
        x, scale, middle = scan
        values, errors = stronger_first(values, errors, layout)
        peaks = describe(values, errors, layout, scale, middle)
        with np.errstate(invalid="ignore"):
            spread = np.sqrt(np.diagonal(errors, axis1=1, axis2=2))
        flag = np.where(about[:, 4] == search.EMPTY, NO_DATA, 0) | np.where(about[:, 5] < math.prod(self.lengths), MASKED, 0)
        flag |= np.where(about[:, 4] == search.UNCONVERGED, UNCONVERGED, 0)
        for k, one in enumerate(peaks):
            flag |= np.where(flag & NO_DATA, 0, _doubts(one, x, scale, middle))
            self._put(one, "" if k == 0 else f"_{k + 1}", out)
        out["background"][:], out["background_std"][:] = values[:, 0], spread[:, 0]
        for d in range(layout.base - 1):
            name = f"{self.motors[d][0]}_slope"
            out[name][:], out[f"{name}_std"][:] = values[:, 1 + d] / scale[d], spread[:, 1 + d] / abs(scale[d])
        with np.errstate(invalid="ignore", divide="ignore"):
            out["reduced_deviance"][:] = about[:, 2] / about[:, 3]
            tolerated = np.maximum(DESCRIBED, 1 + BEYOND * np.sqrt(2 / about[:, 3]))
            if gain_from(self.noise, self.gain) != "assumed":  # else what the noise leaves is not known
                flag |= np.where(out["reduced_deviance"] > tolerated, UNDESCRIBED, 0)
        flag &= np.where(flag & NO_SIGNAL, ~(UNCONVERGED | UNDESCRIBED), -1)
        if self.peaks > 1:
            out["peaks"][:], out["peaks_probability"][:] = np.where(flag & NO_DATA, np.nan, about[:, 0]), about[:, 1]
            unclear = (about[:, 1] < SURE) | _too_close(peaks)
            flag |= np.where(unclear & ~np.isnan(about[:, 1]), AMBIGUOUS, 0)
        for name, variable in out.items():
            if name not in ("flag", "freedom", "reduced_deviance", "background", "background_std", "amplitude", "amplitude_std"):
                variable[(flag & NO_SIGNAL) != 0] = np.nan
        out["flag"][:], out["freedom"][:] = flag, about[:, 3]

    def _put(self, one: Mapping[str, np.ndarray], end: str, out: dict[str, np.ndarray]) -> None:
        """One peak under the names of the map."""
        names = [n for n, _ in self.motors]
        for i, name in enumerate(names):
            for what, word in (("centre", name), ("width", f"{name}_width")):
                out[f"{word}{end}"][:], out[f"{word}{end}_std"][:] = one[what][:, i], one[f"{what}_std"][:, i]
        for n, (i, j) in enumerate(self._layout(len(names)).pairs):
            word = f"{names[i]}_{names[j]}_covariance{end}"
            out[word][:], out[f"{word}_std"][:] = one["covariance"][:, n], one["covariance_std"][:, n]
            out[f"{names[i]}_{names[j]}_error_correlation{end}"][:] = one["correlation"][:, n]
        for what in ("amplitude", "mixing"):
            if what in one:
                out[f"{what}{end}"][:], out[f"{what}{end}_std"][:] = one[what], one[f"{what}_std"]

    def result(self, state: State) -> xr.Dataset:
        assert self.noise is not None
        dataset = super().result(state)
        fitted = np.isfinite(state["reduced_deviance"]) & ((state["flag"] & (NO_SIGNAL | UNCONVERGED)) == 0)
        freedom = float(state["freedom"][fitted].sum())
        dataset.attrs.update(
            gain=self.noise.gain, gain_from=gain_from(self.noise, self.gain), readout=math.sqrt(self.noise.variance)
        )
        if freedom:
            misfit = float((state["reduced_deviance"] * state["freedom"])[fitted].sum() / freedom)
            dataset.attrs.update(reduced_deviance=misfit, reduced_deviance_std=math.sqrt(2 / freedom))
        return dataset


def _doubts(one: Mapping[str, np.ndarray], x: np.ndarray, scale: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """What is doubtful about one peak of each pixel; nothing where the peak is not there."""
    low, high = np.sort([x.min(axis=1) * scale + middle, x.max(axis=1) * scale + middle], axis=0)
    there, tiny = np.isfinite(one["amplitude"]), 1e-9 * (high - low)
    with np.errstate(invalid="ignore"):
        weak = ~(one["amplitude"] > SIGNIFICANT * one["amplitude_std"])
        flag = np.where(weak, NO_SIGNAL, 0)
        outside = (one["centre"] < low - tiny) | (one["centre"] > high + tiny)
        flag |= np.where(~weak & outside.any(axis=1), OUTSIDE, 0)
        flag |= np.where(~weak & (one["width"] <= np.abs(scale)).any(axis=1), NARROW, 0)
        flag |= np.where(~weak & (one["width"] > high - low).any(axis=1), WIDE, 0)
    return np.where(there, flag, 0)


def _too_close(peaks: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Whether two peaks of a pixel lie so close that they cannot be told which counts are whose."""
    close = np.zeros(len(peaks[0]["amplitude"]), bool)
    for a, one in enumerate(peaks):
        for other in peaks[a + 1 :]:
            with np.errstate(invalid="ignore"):
                far = (((one["centre"] - other["centre"]) / (0.5 * (one["width"] + other["width"]))) ** 2).sum(axis=1)
                close |= far < APART**2
    return close


def _in_steps(motors: Mapping[str, np.ndarray], lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates in mean steps from the middle (motor, point), motor units per step, and the middle of each motor."""
    low = np.array([values.min() for values in motors.values()])
    high = np.array([values.max() for values in motors.values()])
    scale, middle = (high - low) / (np.array(lengths) - 1), (high + low) / 2
    return np.array([(v - m) / s for v, m, s in zip(motors.values(), middle, scale, strict=True)]), scale, middle


def _noise(source: Source, gain: str | float, readout: str | float) -> DetectorNoise:
    """The detector's noise from the curves of some pixels over whole lines of the fast motor, spread over the slow ones."""
    curves = sampled_curves(source)
    found = curves.noise()
    noise = believed(found, gain, readout, whole=curves.whole)
    # at the darkest level of the scan there may be light, which scatters more than the read-out alone that was given
    return dataclasses.replace(noise, variance=max(noise.variance, found.variance if math.isfinite(found.variance) else 0.0))


def _product(a: str, b: str) -> str:
    """Unit of a product."""
    return f"{a}^2" if a and a == b else " ".join(dict.fromkeys(u for u in (a, b) if u))


def _per(unit: str) -> str:
    """Unit of a slope of counts."""
    return f"count/{unit}" if unit else "count"
