"""The forward model of a geometry as arrays for the compiled kernels, and what runs them on all cores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from braggscope.core.batch import Batch
from braggscope.infer.runtime import in_threads

from . import kernels
from .forward import DEGREE, NanobeamForward, column_terms
from .geometry import NanobeamGeometry
from .pupil import Pupil, pupil

SOFT_PX = 2.0  # blur of the pupil for the first steps of a fit
AGAIN_FROM = (-0.07 * DEGREE, 0.07 * DEGREE)  # omega of further starts, beyond what the first one reaches
FAULTS = kernels.CONVERGED | kernels.AT_BOUND * 0b100111  # state bits; a background that ends at nothing is no fault
MOST_CENSORED = 500  # counts: reports at a saturation from here on are left out by the estimator instead
IN_RADIANS = np.array([1.0, DEGREE, DEGREE])


@dataclass(frozen=True)
class Tables:
    """Arguments of the kernels that a geometry and a frame shape decide; see kernels.fit_frames."""

    optics: np.ndarray
    columns: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    table: np.ndarray
    soft: np.ndarray
    grid: np.ndarray
    threshold: int
    saturation: int
    moments: np.ndarray
    bounds: np.ndarray
    light: float  # sum of transmission times fringe over a frame at zero tilt
    open_area: float  # sum of the transmission over an endless frame


@lru_cache(maxsize=4)
def tables(geometry: NanobeamGeometry, frame_shape: tuple[int, int]) -> Tables:
    """The kernels' arguments for a geometry and frame shape. Kept for reuse."""
    seen, soft = pupil(geometry), soft_pupil(geometry)
    across, along = seen.per_pixel
    terms = column_terms(geometry, frame_shape[1])
    per_pixel, k = 1 / geometry.pixel_angle, geometry.wavevector
    optics = [
        geometry.reciprocal_length,
        -per_pixel / (k * geometry.bragg_sine),
        per_pixel / k,
        k * math.cos(geometry.bragg_angle) * geometry.pixel_angle,
        geometry.rows_px(frame_shape[0])[0],
    ]
    threshold = math.ceil(geometry.threshold) if geometry.threshold > 1 else 0
    saturation = math.ceil(geometry.saturation) if geometry.saturation < MOST_CENSORED else 0
    made = Tables(
        np.array(optics), np.stack([terms["u_rest"], terms["q_rest"]], axis=1), terms["q_spread"], terms["weights"],
        _by_phase(seen), _by_phase(soft), np.array([*seen.origin, along]), threshold, saturation,
        kernels.deviance_moments(threshold, saturation),
        _bounds(), 0.0, float(seen.coefficients.sum()) / (across * along),
    )  # fmt: skip
    rest = expected(made, frame_shape, np.array([[0.0, 0, 0, 0, math.log(1e-12), math.log(geometry.thickness_a)]]))
    return Tables(**{**vars(made), "light": float(rest.sum())})


def soft_pupil(geometry: NanobeamGeometry) -> Pupil:
    """The pupil blurred further, for the first steps of a fit."""
    seen = pupil(geometry)
    blurred = gaussian_filter(seen.coefficients, [SOFT_PX * n for n in seen.per_pixel], mode="constant")
    return Pupil(blurred, seen.origin, seen.per_pixel)


def expected(made: Tables, frame_shape: tuple[int, int], parameters: np.ndarray) -> np.ndarray:
    """Expected counts, float32, shape (frame, row, column).

    parameters: Shape (frame, 6), as in kernels.py.
    """
    frames = np.empty((len(parameters), *frame_shape), np.float32)

    def some(start: int, stop: int) -> None:
        kernels.expected_frames(
            parameters[start:stop],
            made.optics,
            made.columns,
            made.spread,
            made.weights,
            made.table,
            made.grid,
            frames[start:stop],
        )

    in_threads(some, len(frames), smallest=64)
    return frames


def packed(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Named parameters in the units of NanobeamForward.params as the kernels take them, shape (frame, 6)."""
    columns = np.stack([np.asarray(values[name], np.float64) for name in NanobeamForward.params], axis=-1)
    columns[:, :3] *= IN_RADIANS
    columns[:, 3:] = np.log(columns[:, 3:])
    return columns


def without_saturated(geometry: NanobeamGeometry, batch: Batch) -> Batch:
    """The batch without the reports at a saturation that is too high to be taken for "that or more" (MOST_CENSORED)."""
    top = geometry.saturation
    if top < MOST_CENSORED or not (batch.frames >= top).any():
        return batch
    good = batch.frames < top
    return replace(batch, mask=good if batch.mask is None else good & batch.mask)


def transposed(frames: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Counts as the kernels take them: float32, shape (frame, column, row), -1 where they may not be used."""
    counts = frames.transpose(0, 2, 1).astype(np.float32, order="C")
    if mask is not None:
        counts[~mask.transpose(0, 2, 1)] = -1
    return counts


def fit(
    made: Tables,
    frames: np.ndarray,
    mask: np.ndarray | None,
    free: int,
    thickness: float,
    *,
    start: np.ndarray | None = None,
    steps: int = kernels.MAX_STEPS,
) -> dict[str, np.ndarray]:
    """Fit frames by the compiled kernel; each frame's result depends on nothing but the frame (and its start).

    free: 5, or 6 with the thickness.
    thickness: Of the film, or where its fit starts, angstrom.
    start: A good start of each frame, shape (frame, 6), from which `steps` should do. Frames for which they do not are fitted
        from the beginning.
    Returns parameters (frame, 6), covariance (frame, 6, 6), goodness (frame, 4) and state (frame,) as in kernels.fit_frames.
    """
    count = len(frames)
    results = {
        "parameters": np.zeros((count, 6)),
        "covariance": np.full((count, 6, 6), np.nan),
        "goodness": np.zeros((count, 4)),
        "state": np.zeros(count, np.int64),
    }

    def some(first: int, last: int) -> None:
        counts = transposed(frames[first:last], None if mask is None else mask[first:last])
        part = {name: value[first:last] for name, value in results.items()}
        if start is None:
            _fit_afresh(made, counts, part, free, thickness)
            return
        part["parameters"][:] = start[first:last]
        _fit_from(made, counts, part, free, soft_steps=0, most_steps=steps)
        lost = np.flatnonzero(part["state"] & FAULTS != kernels.CONVERGED)
        if len(lost):
            again = {name: value[lost].copy() for name, value in part.items()}
            _fit_afresh(made, counts[lost], again, free, thickness)
            for name, value in part.items():
                value[lost] = again[name]

    in_threads(some, count, smallest=16)
    return results


def described_at(
    made: Tables, frames: np.ndarray, mask: np.ndarray | None, parameters: np.ndarray, free: int
) -> dict[str, np.ndarray]:
    """What `fit` says of given estimates, shape (frame, 6), none of which is moved; all frames count as converged."""
    count = len(frames)
    results = {
        "parameters": parameters.copy(),
        "covariance": np.full((count, 6, 6), np.nan),
        "goodness": np.zeros((count, 4)),
        "state": np.zeros(count, np.int64),
    }

    def some(first: int, last: int) -> None:
        counts = transposed(frames[first:last], None if mask is None else mask[first:last])
        _fit_from(made, counts, {name: value[first:last] for name, value in results.items()}, free, soft_steps=0, most_steps=0)

    in_threads(some, count, smallest=16)
    results["state"] |= kernels.CONVERGED
    return results


def _fit_afresh(made: Tables, counts: np.ndarray, part: Mapping[str, np.ndarray], free: int, thickness: float) -> None:
    """Fit frames of which nothing is known."""
    kernels.start_frames(counts, made.light, made.optics, thickness, part["parameters"])
    _fit_from(made, counts, part, free)
    _try_again(made, counts, part, free, thickness)


def _fit_from(
    made: Tables,
    counts: np.ndarray,
    part: Mapping[str, np.ndarray],
    free: int,
    *,
    soft_steps: int = kernels.SOFT_STEPS,
    most_steps: int = kernels.MAX_STEPS,
) -> None:
    kernels.fit_frames(
        counts, part["parameters"], free, made.bounds, made.optics, made.columns, made.spread, made.weights,
        made.table, made.soft, made.grid, made.threshold, made.saturation, made.moments,
            soft_steps, most_steps, part["covariance"], part["goodness"], part["state"],
    )  # fmt: skip


def _try_again(made: Tables, counts: np.ndarray, part: Mapping[str, np.ndarray], free: int, thickness: float) -> None:
    """Fit frames that did not converge inside the bounds from tilted starts too, and keep the better fit of each."""
    lost = np.flatnonzero(part["state"] & FAULTS != kernels.CONVERGED)
    for omega in AGAIN_FROM if len(lost) else ():
        again = {name: value[lost].copy() for name, value in part.items()}
        kernels.start_frames(counts[lost], made.light, made.optics, thickness, again["parameters"])
        again["parameters"][:, kernels.OMEGA] = omega
        _fit_from(made, counts[lost], again, free)
        sound, before = (p["state"] & FAULTS == kernels.CONVERGED for p in (again, {"state": part["state"][lost]}))
        closer = again["goodness"][:, 0] < part["goodness"][lost, 0]
        better = (sound & ~before) | (sound & closer) | (~before & (again["state"] & kernels.CONVERGED > 0) & closer)
        for name, value in part.items():
            value[lost[better]] = again[name][better]


def _by_phase(seen: Pupil) -> np.ndarray:
    """Spline coefficients as the kernels take them: float32, shape (u knot, phase, v knot // phases)."""
    phases = seen.per_pixel[0]
    whole = -(-seen.coefficients.shape[0] // phases)
    padded = np.zeros((whole * phases, seen.coefficients.shape[1]), np.float32)
    padded[: len(seen.coefficients)] = seen.coefficients
    return np.ascontiguousarray(padded.reshape(whole, phases, -1).transpose(2, 1, 0))


def _bounds() -> np.ndarray:
    """Range of each parameter as the kernels take it, shape (6, 2)."""
    low = packed({name: np.array([p.low]) for name, p in NanobeamForward.params.items()})
    high = packed({name: np.array([p.high]) for name, p in NanobeamForward.params.items()})
    return np.concatenate([low, high]).T.copy()
