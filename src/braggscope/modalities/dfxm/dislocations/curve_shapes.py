"""The shape of two-dimensional rocking curves: what the crystal adds to the covariance of a pixel's curve, and its class.

A pixel looks along a ray on which the lattice tilts, so that its curve over two motors is that of the instrument, C_0, drawn out
along the direction in which the tilt changes. With E = C - C_0 (C_0: the median over the map, since most of a map is far from
any dislocation), lambda_1 >= lambda_2 its eigenvalues and psi the direction of the first from the first motor towards the second,

    psi = atan2(2 E_12, E_11 - E_22) / 2,    lambda = (E_11 + E_22) / 2 +- sqrt((E_11 - E_22)^2 / 4 + E_12^2)

Class 0: no excess above its error. 1, 2: drawn out along the first or the second motor alone, within 22.5 deg. 3, 4: along both,
with equal or opposite signs. The classes
are this program's own; they describe curves, and characters are told by the tilts (`tilts`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..carried import variable

Array = np.ndarray
DOUBT = 3.0  # standard deviations above which an excess is believed


@dataclass(frozen=True)
class Shapes:
    """Excess covariance of every pixel. values: E_11, E_22, E_12, deg^2, shape (3, row, column); std alike, NaN if not known."""

    values: Array
    std: Array


def shapes_of(dataset: xr.Dataset, motors: tuple[str, str], degrees: tuple[float, float]) -> Shapes | None:
    """From widths and covariance (or correlation) of two motors; None where the map has none.

    degrees: Degrees in the unit of each motor.
    """
    a, b = motors
    pair = next(
        (
            f"{x}_{y}"
            for x, y in itertools.permutations(motors)
            if f"{x}_{y}_covariance" in dataset or f"{x}_{y}_correlation" in dataset
        ),
        None,
    )
    if pair is None or f"{a}_width" not in dataset or f"{b}_width" not in dataset:
        return None
    widths = [dataset[f"{n}_width"].values.astype(float) * d for n, d in zip(motors, degrees, strict=True)]
    errors = [_std(dataset, f"{n}_width") * d for n, d in zip(motors, degrees, strict=True)]
    if f"{pair}_covariance" in dataset:
        shared = dataset[f"{pair}_covariance"].values * degrees[0] * degrees[1]
        error = _std(dataset, f"{pair}_covariance") * degrees[0] * degrees[1]
    else:
        shared = dataset[f"{pair}_correlation"].values * widths[0] * widths[1]
        error = _std(dataset, f"{pair}_correlation") * widths[0] * widths[1]
    values = np.stack([widths[0] ** 2, widths[1] ** 2, shared])
    std = np.stack([2 * widths[0] * errors[0], 2 * widths[1] * errors[1], error])
    good = (dataset["flag"].values == 0) & np.isfinite(values).all(axis=0)
    middle = np.median(values[:, good], axis=1) if good.any() else np.zeros(3)
    return Shapes(values - middle[:, None, None], std)


def shape_map(shapes: Shapes, motors: tuple[str, str]) -> dict[str, xr.DataArray]:
    """Angle, length, ratio and class of the excess, with the errors that follow to first order."""
    (aa, bb, ab), (s_aa, s_bb, s_ab) = shapes.values, shapes.std
    half, root = (aa - bb) / 2, np.hypot((aa - bb) / 2, ab)
    with np.errstate(divide="ignore", invalid="ignore"):
        angle = np.degrees(np.arctan2(ab, half) / 2)
        angle_std = np.degrees(np.sqrt((half * s_ab) ** 2 + (ab / 2) ** 2 * (s_aa**2 + s_bb**2)) / (2 * root**2))
        large, small = (aa + bb) / 2 + root, (aa + bb) / 2 - root
        up, along = half / root, ab / root
        slopes = [np.array([(1 + k * up) / 2, (1 - k * up) / 2, k * along]) for k in (1, -1)]
        std = np.stack([s_aa, s_bb, s_ab])
        large_std = np.sqrt(((slopes[0] * std) ** 2).sum(0))
        ratio = small / large
        ratio_std = np.sqrt((((slopes[1] - ratio * slopes[0]) * std) ** 2).sum(0)) / np.abs(large)
        shown = large > (DOUBT * large_std if np.isfinite(large_std).any() else 0)
    kind = np.where(shown, _class(angle), 0)
    about = f"principal direction of the curve's excess covariance, from {motors[0]} towards {motors[1]}"
    return {
        "covariance_angle": variable(np.where(shown, angle, np.nan), "deg", about),
        "covariance_angle_std": variable(np.where(shown, angle_std, np.nan), "deg", "standard deviation of covariance_angle"),
        "covariance_excess": variable(large, "deg^2", "largest eigenvalue of the curve's excess covariance"),
        "covariance_excess_std": variable(large_std, "deg^2", "standard deviation of covariance_excess"),
        "covariance_ratio": variable(
            np.where(shown, ratio, np.nan), "1", "smaller over larger eigenvalue of the excess covariance"
        ),
        "covariance_ratio_std": variable(np.where(shown, ratio_std, np.nan), "1", "standard deviation of covariance_ratio"),
        "covariance_class": variable(
            kind.astype(np.int32), "1", f"0 none, 1 along {motors[0]}, 2 along {motors[1]}, 3 both alike, 4 both opposite"
        ),
    }


def _class(angle: Array) -> Array:
    """1 to 4 by direction, deg from -90 to 90."""
    return np.select([np.abs(angle) <= 22.5, np.abs(angle) >= 67.5, angle > 0], [1, 2, 3], 4)


def _std(dataset: xr.Dataset, name: str) -> Array:
    known = f"{name}_std" in dataset
    return dataset[f"{name}_std"].values.astype(float) if known else np.full(dataset[name].shape, np.nan)
