"""From fitted parameters (infer/peak_kernels.py) to quantities: positions, widths, covariances, amplitudes and their errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """Which parameter is which (see infer/peak_kernels.py).

    motors: Number of scan motors.  base: Parameters before the first peak.  each: Parameters of a peak.
    """

    motors: int
    base: int
    each: int

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Motors (i, j), i < j, of each c of a peak, in order."""
        return [(i, j) for j in range(1, self.motors) for i in range(j)]

    @property
    def mixing(self) -> bool:
        """Whether the last parameter of a peak is the Lorentzian part of a pseudo-Voigt."""
        return self.motors == 1 and self.each > 3

    def peaks(self, parameters: int) -> int:
        """How many peaks so many parameters describe."""
        return (parameters - self.base) // self.each


def stronger_first(values: np.ndarray, errors: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The same with the peaks of each pixel in order of their volume, the largest first.

    values: Shape (pixel, parameter).  errors: Shape (pixel, parameter, parameter). NaN for peaks that are not there.
    """
    count = layout.peaks(values.shape[1])
    if count == 1:
        return values, errors
    peaks = values[:, layout.base :].reshape(len(values), count, layout.each)
    with np.errstate(divide="ignore", invalid="ignore"):
        volume = np.log(peaks[..., 0]) + peaks[..., 1 + layout.motors : 1 + 2 * layout.motors].sum(-1)
        if layout.mixing:  # a Lorentzian has 1.476 times the area of the Gaussian of the same height and width
            volume += np.log1p((math.sqrt(math.pi * math.log(2)) - 1) * peaks[..., 3])
    order = np.argsort(np.where(np.isnan(volume), np.inf, -volume), axis=1, kind="stable")
    within = layout.base + order[..., None] * layout.each + np.arange(layout.each)
    base = np.broadcast_to(np.arange(layout.base), (len(values), layout.base))
    index = np.concatenate([base, within.reshape(len(values), -1)], axis=1)
    values = np.take_along_axis(values, index, 1)
    errors = np.take_along_axis(np.take_along_axis(errors, index[:, :, None], 1), index[:, None, :], 2)
    return values, errors


def spread(logs: np.ndarray, cross: np.ndarray, pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Covariance of a peak over the motors, and its derivatives by ln s and c.

    With t = s^-1 (x - m) and u = (1 - c) t, c strictly lower triangular: S = s M M^T s with M = (1 - c)^-1, so that
    dS / d ln s_e = E_e S + S E_e and, with dM = M E M, dS / d c_ji = s (M E_ji M M^T + transposed) s.

    logs: Shape (pixel, motor).  cross: Shape (pixel, pair).  Returns shapes (pixel, motor, motor) and
    (pixel, motor + pair, motor, motor).
    """
    motors = logs.shape[1]
    s = np.exp(logs)
    unit = np.zeros((len(logs), motors, motors))
    for n, (i, j) in enumerate(pairs):
        unit[:, j, i] = cross[:, n]
    m = np.linalg.inv(np.eye(motors) - unit)
    inner = m @ m.transpose(0, 2, 1)
    outer = s[:, :, None] * s[:, None, :]
    total = outer * inner
    slopes = np.zeros((len(logs), motors + len(pairs), motors, motors))
    for e in range(motors):
        slopes[:, e, e, :] += total[:, e, :]
        slopes[:, e, :, e] += total[:, :, e]
    for n, (i, j) in enumerate(pairs):
        half = m[:, :, j, None] * inner[:, i, None, :]  # M E_ji (M M^T)
        slopes[:, motors + n] = outer * (half + half.transpose(0, 2, 1))
    return total, slopes


def describe(
    values: np.ndarray, errors: np.ndarray, layout: Layout, scale: np.ndarray, middle: np.ndarray
) -> list[dict[str, np.ndarray]]:
    """Each peak in motor units: `amplitude`, `centre`, `width` (pixel, motor), `covariance` (pixel, pair), and `mixing` if any.

    Each has its `..._std` beside it; over several motors `correlation` (pixel, pair) is that of the errors of the centres.

    scale: Motor units per step, of either sign; middle: of the scan; shapes (motor,).
    """
    motors, found = layout.motors, []
    variances = np.diagonal(errors, axis1=1, axis2=2)
    for k in range(layout.peaks(values.shape[1])):
        at = layout.base + k * layout.each
        place, logs = slice(at + 1, at + 1 + motors), slice(at + 1 + motors, at + 1 + 2 * motors)
        with np.errstate(invalid="ignore"):
            one = {
                "amplitude": values[:, at],
                "amplitude_std": np.sqrt(variances[:, at]),
                "centre": values[:, place] * scale + middle,
                "centre_std": np.sqrt(variances[:, place]) * np.abs(scale),
            }
            if motors == 1:
                width = np.exp(values[:, logs])
                one |= {"width": width * np.abs(scale), "width_std": width * np.sqrt(variances[:, logs]) * np.abs(scale)}
                if layout.mixing:
                    one |= {"mixing": values[:, at + 3], "mixing_std": np.sqrt(variances[:, at + 3])}
            else:
                one |= _shape(values, errors, layout, at, scale) | {
                    "correlation": _correlation(errors[:, place, place], layout, scale)
                }
        found.append(one)
    return found


def _correlation(errors: np.ndarray, layout: Layout, scale: np.ndarray) -> np.ndarray:
    """Correlation of the errors of two centres, shape (pixel, pair)."""
    found = [errors[:, i, j] / np.sqrt(errors[:, i, i] * errors[:, j, j]) * np.sign(scale[i] * scale[j]) for i, j in layout.pairs]
    return np.stack(found, axis=-1)


def _shape(values: np.ndarray, errors: np.ndarray, layout: Layout, at: int, scale: np.ndarray) -> dict[str, np.ndarray]:
    """Widths and covariances of one peak over several motors."""
    motors, pairs = layout.motors, layout.pairs
    first, last = at + 1 + motors, at + layout.each
    total, slopes = spread(values[:, first : first + motors], values[:, first + motors : last], pairs)
    part = errors[:, first:last, first:last]
    width = np.sqrt(np.diagonal(total, axis1=1, axis2=2))
    by_width = np.diagonal(slopes, axis1=2, axis2=3) / (2 * width[:, None, :])  # (pixel, parameter, motor)
    by_pair = np.stack([slopes[:, :, i, j] for i, j in pairs], axis=-1)
    mixed = np.array([scale[i] * scale[j] for i, j in pairs])
    return {
        "width": width * np.abs(scale),
        "width_std": np.sqrt(np.einsum("pam,pab,pbm->pm", by_width, part, by_width)) * np.abs(scale),
        "covariance": np.stack([total[:, i, j] for i, j in pairs], axis=-1) * mixed,
        "covariance_std": np.sqrt(np.einsum("pam,pab,pbm->pm", by_pair, part, by_pair)) * np.abs(mixed),
    }
