"""Pixels and rays: where on the detector a ray ends, and which way a pixel lies.

Laboratory frame of LaueTools (`geometry`). Arithmetic alone, so that arrays of numpy and tensors of torch of any shape pass.
Pixels here are rows and columns from 0, as everywhere in this program; LaueTools' X and Y are column + 1 and row + 1.

With x1 = (X - xcen) p, y1 = (Y - ycen) p, g = -xgam, b = xbet: xa = cos g x1 - sin g y1, ya = sin g x1 + cos g y1 and the pixel
is at (dd sin b + ya cos b, -xa, dd cos b - ya sin b) (LaueTools, Micha et al.; checked against its files).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .geometry import LaueGeometry

HC = 12.398419843
"""Planck's constant times the speed of light, keV angstrom (CODATA 2018); LaueTools has 12.398."""


def detector_matrix(values: LaueGeometry | Sequence[float]) -> np.ndarray:
    """The matrix M of a flat detector, mm: pixel (row, column) is at M (column, row, 1) in the laboratory frame, shape (3, 3).

    values: The geometry, or distance mm, xcen, ycen, xbet, xgam in degrees and pixel in um.
    """
    if isinstance(values, LaueGeometry):
        g = values
        values = (g.distance_mm, g.xcen_px, g.ycen_px, g.xbet_deg, g.xgam_deg, g.pixel_um)
    distance, xcen, ycen, xbet, xgam, pixel_um = values
    pixel, turn, tilt = pixel_um / 1e3, -np.deg2rad(xgam), np.deg2rad(xbet)
    along_a, along_b = np.array([0.0, -1.0, 0.0]), np.array([np.cos(tilt), 0.0, -np.sin(tilt)])
    column = pixel * (np.cos(turn) * along_a + np.sin(turn) * along_b)
    row = pixel * (-np.sin(turn) * along_a + np.cos(turn) * along_b)
    normal = np.array([np.sin(tilt), 0.0, np.cos(tilt)])
    return np.stack([column, row, distance * normal - (xcen - 1) * column - (ycen - 1) * row], axis=1)


def rays(matrix: Any, row: Any, column: Any) -> tuple[Any, Any, Any]:
    """Vectors from the sample to pixels, mm: three components, each of the shape of row and column."""
    return tuple(m[0] * column + m[1] * row + m[2] for m in matrix)


def pixels(inverse: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any, Any]:
    """Where rays along (x, y, z) meet the detector: row, column, and a third value that is positive for rays towards it.

    inverse: The inverse of `detector_matrix`.
    """
    column, row, depth = (m[0] * x + m[1] * y + m[2] * z for m in inverse)
    return row / depth, column / depth, depth


def scattering_directions(matrix: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Unit vectors of the scattering vectors q of spots, (k_out - k_in) / |k_out - k_in|, shape (..., 3)."""
    out = np.stack(rays(matrix, np.asarray(row, float), np.asarray(column, float)), axis=-1)
    out /= np.linalg.norm(out, axis=-1, keepdims=True)
    q = out - np.array([1.0, 0.0, 0.0])
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def two_theta_chi(matrix: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The angles of LaueTools, degrees: 2 theta = acos(u_x) and chi = atan2(u_y, u_z), u the unit ray of a pixel."""
    x, y, z = rays(matrix, np.asarray(row, float), np.asarray(column, float))
    return np.rad2deg(np.arctan2(np.hypot(y, z), x)), np.rad2deg(np.arctan2(y, z))


def spots(inverse: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where scattering vectors show and at which energy: row, column, energy in keV, each of shape (...,); NaN off the plane.

    q: |q| = 1/d in 1/angstrom, laboratory frame, shape (..., 3). E = hc |q|^2 / (-2 q_x); the ray is x - 2 (x.q^) q^.
    """
    square = (q**2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = np.where(q[..., 0] < 0, -HC * square / (2 * q[..., 0]), np.nan)
        along = -2 * q[..., 0] / square
        row, column, depth = pixels(inverse, 1 + along * q[..., 0], along * q[..., 1], along * q[..., 2])
    there = (depth > 0) & np.isfinite(energy)
    return np.where(there, row, np.nan), np.where(there, column, np.nan), energy
