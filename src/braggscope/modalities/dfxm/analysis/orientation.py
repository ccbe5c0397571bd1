"""Orientation: the lattice rotation of each pixel, from the motor positions at which its rocking curve peaks.

A volume diffracts into the objective when the goniometer brings its diffraction vector onto q, the bisector of the beams. If
that happens at the motor positions m, its vector is Gamma(m)^-1 q in the sample, and with the goniometer at the reference r

    g = Gamma(r) Gamma(m)^-1 q,    Gamma = R_1(m_1) R_2(m_2) ...    (outermost axis first)
    q = (-sin theta, 0, cos theta)

in the laboratory (x along the beam, z upwards). The rotation vector is the shortest that takes q to g: a rotation about g is not
seen by one reflection, and is zero here. A motor difference is not a rotation of the lattice: the axes of the inner motors stand
where the outer ones have brought them, also those that did not move during the scan, and a turn about an axis that makes an
angle a with q tilts the vector by only sin(a) of it (chi: cos theta).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.physics import rotations

from ..carried import (
    TO_DEGREES,
    carried_flag,
    carried_total,
    cautions,
    error_covariance,
    geometry_of,
    image_dims,
    in_degrees,
    pixel_attributes,
    still_motors,
    variable,
)  # fmt: skip
from ..geometry import DfxmGeometry
from ..lattice_rotations import DEGREE, PAIRS, ROTATIONS

STEP = 1e-4  # rad, of the central differences: error and rounding are below 1e-8 of the derivative
CHUNK = 2**17  # pixels at once: some 50 MB of matrices


def orientation(
    dataset: xr.Dataset,
    *,
    reference_pixel: Annotated[tuple[int, int] | None, Says("row and column of the reference lattice; else the median")] = None,
    still: Annotated[tuple[str, ...], Says("motors that stood still and that the map does not know, NAME=DEGREES")] = (),
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """Lattice rotation of each pixel from the motor positions of its peak, with error bars.

    dataset: Map with the position `M` of the peak along each motor M (by `moments` or `peakfit`).
    Returns the rotation vector `rotation_x`, `rotation_y`, `rotation_z` (deg, laboratory at the reference position), the angle
    `tilt`, errors and covariances. The part of the rotation about the diffraction vector (attribute `unseen_axis`) is zero.
    Raises InputError where the scattering angle or every rotation motor is missing.

    The errors follow from `M_std` and the correlation that the errors of two motors have by the fit or by counting
    (carried.error_covariance). That of the reference is left out. Where one rotation was scanned, the tilt about the axis
    `unscanned_axis` is unknown and taken as zero, and `caution` says so.
    """
    image_dims(dataset)
    geometry = geometry_of(dataset, geometry)
    axes = geometry.goniometer_axes()
    moving = [name for name in axes if name in dataset]
    two_theta = _two_theta(geometry)
    if not moving:
        wanted = ", ".join(axes)
        raise InputError(f"an orientation needs peak positions of a motor that turns the sample ({wanted}); the map has none")
    positions = {name: in_degrees(dataset[name]) for name in moving}
    known = np.logical_and.reduce([np.isfinite(values) for values in positions.values()])
    at = _reference(dataset, positions, known, reference_pixel)
    stood = still_motors(dataset, still)
    fixed = {name: stood.get(name, 0.0) for name in axes if name not in moving}
    vector, slopes = _vectors({n: p[known] for n, p in positions.items()}, at, fixed, axes, two_theta)
    covariance = _covariance(dataset, moving, known, slopes)
    result = _result(dataset, known, vector, covariance)
    result.attrs = {
        "two_theta_deg": float(geometry.two_theta_deg or 0.0),
        "unseen_axis": " ".join(f"{x:.17g}" for x in rotations.scattering_direction(two_theta).tolist()),
        **{f"reference_{name}": value for name, value in at.items()},
        **{f"still_{name}": value for name, value in fixed.items() if name in stood},
        **pixel_attributes(dataset, geometry),
    }
    if len(moving) == 1 and known.any():
        result.attrs |= _one_rotation(moving[0], slopes[0].mean(axis=0), two_theta)
    if absent := [name for name in fixed if name not in stood]:
        result.attrs["taken_as_zero"] = " ".join(absent)
    return result


def orientation_of(dataset: xr.Dataset, geometry: DfxmGeometry | None = None) -> xr.Dataset:
    """An orientation map as it is; of a map with motor positions, its `orientation`."""
    return dataset if ROTATIONS[0] in dataset else orientation(dataset, geometry=geometry)


def _one_rotation(name: str, slope: np.ndarray, two_theta: Tensor) -> dict[str, str]:
    """What is to be said where only one rotation was scanned: about which axis the tilt is unknown."""
    axis = np.cross(rotations.scattering_direction(two_theta).numpy(), slope)
    axis = axis / np.linalg.norm(axis)
    said = f"only {name} was scanned: the tilt about the unscanned axis is unknown and taken as zero"
    return {"unscanned_axis": " ".join(f"{x:.17g}" for x in axis), **cautions(said)}


def _two_theta(geometry: DfxmGeometry) -> Tensor:
    """The scattering angle, radians."""
    if geometry.two_theta_deg is None:
        raise InputError("an orientation needs two_theta_deg, which neither the map nor a geometry file gives")
    return torch.tensor(math.radians(geometry.two_theta_deg), dtype=torch.float64)


def _reference(
    dataset: xr.Dataset, positions: Mapping[str, np.ndarray], known: np.ndarray, pixel: tuple[int, int] | None
) -> dict[str, float]:
    """Motor positions of the reference, deg: those of a pixel, else medians over the good points (over all, if none is)."""
    if pixel is not None:
        row, column = pixel
        inside = 0 <= row < known.shape[0] and 0 <= column < known.shape[1]
        if not inside or not known[row, column]:
            raise InputError(f"reference_pixel must be a pixel with a value, got row {row}, column {column} of {known.shape}")
        return {name: float(values[row, column]) for name, values in positions.items()}
    good = known & (dataset["flag"].values == 0)
    chosen = good if good.any() else known
    if not chosen.any():
        raise InputError(f"the map has no pixel with a position of {', '.join(positions)}")
    return {name: float(np.median(values[chosen])) for name, values in positions.items()}


def _vectors(
    positions: Mapping[str, np.ndarray], at: Mapping[str, float], fixed: Mapping[str, float],
    axes: Mapping[str, tuple[float, float, float]], two_theta: Tensor,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Rotation vectors, shape (pixel, 3), and their derivatives by the motors, shape (motor, pixel, 3), deg/deg."""
    q = rotations.scattering_direction(two_theta)

    def turn(angles: Mapping[str, Tensor]) -> Tensor:
        values = [angles[n] if n in angles else torch.tensor(fixed[n] * DEGREE, dtype=torch.float64) for n in axes]
        return rotations.goniometer(list(axes.values()), values)

    reference = turn({name: torch.tensor(value * DEGREE, dtype=torch.float64) for name, value in at.items()})

    def vector(angles: Mapping[str, Tensor]) -> Tensor:
        return rotations.rotation_between(q, (reference @ turn(angles).transpose(-1, -2)) @ q)

    count = len(next(iter(positions.values())))
    found, slopes = np.empty((count, 3)), np.empty((len(positions), count, 3))
    for start in range(0, count, CHUNK):
        part = slice(start, start + CHUNK)
        angles = {name: torch.from_numpy(values[part] * DEGREE) for name, values in positions.items()}
        found[part] = vector(angles).numpy() / DEGREE
        for i, name in enumerate(positions):
            after, before = (vector({**angles, name: angles[name] + s * STEP}) for s in (1, -1))
            slopes[i, part] = (after - before).numpy() / (2 * STEP)
    return found, slopes


def _covariance(dataset: xr.Dataset, moving: list[str], known: np.ndarray, slopes: np.ndarray) -> np.ndarray | None:
    """Covariance of the rotation vectors, deg^2, shape (pixel, 3, 3); None where the map has no error of some motor."""
    if any(f"{name}_std" not in dataset for name in moving):
        return None
    stds = [in_degrees(dataset[f"{name}_std"])[known] for name in moving]
    degrees = [TO_DEGREES[str(dataset[f"{name}_std"].attrs.get("units", ""))] for name in moving]
    total = np.zeros((slopes.shape[1], 3, 3))
    for i, name in enumerate(moving):
        for j, other in enumerate(moving):
            if i == j:
                total += (stds[i] ** 2)[:, None, None] * slopes[i][:, :, None] * slopes[i][:, None, :]
            else:
                shared = error_covariance(dataset, name, other)[known] * degrees[i] * degrees[j]
                total += shared[:, None, None] * slopes[i][:, :, None] * slopes[j][:, None, :]
    return total


def _result(dataset: xr.Dataset, known: np.ndarray, vector: np.ndarray, covariance: np.ndarray | None) -> xr.Dataset:
    """The map of rotation vectors, tilt, errors and flags."""

    def image(values: np.ndarray) -> np.ndarray:
        whole = np.full(known.shape, np.nan)
        whole[known] = values
        return whole

    tilt = np.linalg.norm(vector, axis=-1)
    found: dict[str, Any] = {}
    for i, name in enumerate(ROTATIONS):
        found[name] = variable(image(vector[:, i]), "deg", f"lattice rotation about {name[-1]} of the laboratory")
        if covariance is not None:
            std = np.sqrt(covariance[:, i, i])
            found[f"{name}_std"] = variable(image(std), "deg", f"standard deviation of {name}")
    found["tilt"] = variable(image(tilt), "deg", "angle of the diffraction vector to the reference")
    if covariance is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            along = np.einsum("pi,pij,pj->p", vector, covariance, vector) / tilt**2
        std = np.sqrt(np.where(tilt > 0, along, np.trace(covariance, axis1=1, axis2=2) / 2))
        found["tilt_std"] = variable(image(std), "deg", "standard deviation of the tilt")
        for i, j in PAIRS:
            name = f"{ROTATIONS[i]}_{ROTATIONS[j]}_covariance"
            label = f"covariance of the errors of {ROTATIONS[i]} and {ROTATIONS[j]}"
            found[name] = variable(image(covariance[:, i, j]), "deg^2", label)
    found |= carried_total(dataset)
    found["flag"] = carried_flag(dataset, {"no_orientation": ~known})
    return xr.Dataset(found)
