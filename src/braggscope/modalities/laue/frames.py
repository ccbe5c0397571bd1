"""Frames: detectors and orientations of other programs, taken to the laboratory of this one and back.

Here: the laboratory of LaueTools, x along the beam, z up, y = z cross x; pixels are rows and columns from 0; q = UB h with
|q| = 1/d in 1/angstrom. The crystal frame has x along a* and z along c.

- APS 34-ID: X outboard, Y up, Z along the beam, so that (x, y, z) = (Z, X, Y); q carries 2 pi, in 1/nm.
- pyFAI: 1 up, 2 to the right as the beam flies, 3 along it, so that (x, y, z) = (3, -2, 1).
- XMAS: the sample's surface, turned back by 40 deg - xbet / 2 about its X, then (x, y, z) = (Y, X, -Z).
- orix: the passive rotation from the sample to the crystal; crystal frame with x along a and z along c*.

A flat detector is one matrix M, pixel (row, column) at M (column, row, 1) (`detector.detector_matrix`). LaueTools' five
parameters describe those whose normal has no part along y: any other becomes one by a turn of the laboratory about the beam,
which the geometry keeps as `roll_deg`. Everything measured with such a geometry (rays, q, U) is in the turned laboratory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.physics.crystals import Crystal

from .detector import detector_matrix
from .geometry import LaueGeometry

FROM_APS = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
"""Takes vectors of the APS 34-ID laboratory to this one."""
FROM_PYFAI = np.array([[0.0, 0, 1], [0, -1, 0], [1, 0, 0]])
"""Takes vectors (1, 2, 3) of pyFAI to this laboratory."""
TWO_PI_PER_NM = 2 * np.pi * 10
"""One 1/angstrom without 2 pi in 1/nm with it."""
XMAS_TILT_DEG = 40.0
"""The tilt of the sample of XMAS' sample frame, as LaueTools reads it."""
SQUARE = 1e-6
"""How much the sides of a pixel may differ, and how far they may be from a right angle (radians)."""


def about_beam(angle_deg: float) -> np.ndarray:
    """The rotation about x, the beam, right-handed, shape (3, 3)."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])


def unturned_matrix(geometry: LaueGeometry) -> np.ndarray:
    """The matrix of the detector, mm, in the laboratory whose z is up, whatever the roll of the geometry; shape (3, 3)."""
    return about_beam(-geometry.roll_deg) @ detector_matrix(geometry)


def flipped_rows(matrix: np.ndarray, rows: int) -> np.ndarray:
    """The matrix of the same detector whose images are turned upside down: row r becomes rows - 1 - r."""
    return np.asarray(matrix) @ np.array([[1.0, 0, 0], [0, -1, rows - 1], [0, 0, 1]])


def geometry_of(matrix: np.ndarray, **values: Any) -> LaueGeometry:
    """The geometry of a flat detector from its matrix: the five LaueTools parameters, the pixel and the roll.

    matrix: M in mm, pixel (row, column) at M (column, row, 1), in the laboratory whose z is up, shape (3, 3).
    values: Further fields of the geometry (rows, columns, energies ...).
    Raises InputError for pixels that are not square, for a detector seen from its back (mirrored images), and for a plane
    through the sample.

    The normal n = column x row lies at roll about the beam from the plane of x and z; then xbet = atan2(n_x, n_z), and xgam
    turns the rows: column / p = -cos(xgam) y - sin(xgam) (cos(xbet) x - sin(xbet) z).
    """
    column, row, origin = np.asarray(matrix, float).T
    pixel = float(np.sqrt(np.linalg.norm(column) * np.linalg.norm(row)))
    if pixel == 0 or abs(np.linalg.norm(column) - np.linalg.norm(row)) > SQUARE * pixel or abs(column @ row) > SQUARE * pixel**2:
        raise InputError(
            f"the pixels of the detector must be square, got {1e3 * np.linalg.norm(column):g} um along a row and "
            f"{1e3 * np.linalg.norm(row):g} um along a column; rebin the images to square pixels"
        )
    normal = np.cross(column, row) / pixel**2
    if not (distance := float(origin @ normal)) > 0:
        raise InputError(
            "the rows and columns of this detector run left-handed as seen from the sample (a mirrored image), which the five "
            "LaueTools parameters cannot say; turn the images upside down and give the calibration of those"
        )
    across = np.hypot(normal[1], normal[2])
    roll = np.arctan2(normal[1], normal[2]) if across > 1e-12 else 0.0  # the beam along the normal: any roll would do
    turned = about_beam(np.rad2deg(roll)) @ column / pixel
    tilt = np.arctan2(normal[0], across)
    along_b = np.array([np.cos(tilt), 0.0, -np.sin(tilt)])
    foot = distance * normal - origin
    return LaueGeometry.from_mapping(
        {
            "distance_mm": distance,
            "xcen_px": float(foot @ column) / pixel**2 + 1,
            "ycen_px": float(foot @ row) / pixel**2 + 1,
            "xbet_deg": float(np.rad2deg(tilt)),
            "xgam_deg": float(-np.rad2deg(np.arctan2(turned @ along_b, -turned[1]))),
            "pixel_um": pixel * 1e3,
            "roll_deg": float(np.rad2deg(roll)),
            **{name: value for name, value in values.items() if value is not None},
        }
    )


def rotation_of(ub: np.ndarray, crystal: Crystal) -> np.ndarray:
    """The orientation U next to UB B^-1, its polar rotation: U with UB = U (1 + eps)^-1 B, eps symmetric; shape (..., 3, 3)."""
    left, _, right = np.linalg.svd(np.asarray(ub) @ np.linalg.inv(crystal.b_matrix))
    return np.asarray(left @ right)


def ub_from_aps(lattice: np.ndarray, *, roll_deg: float = 0.0) -> np.ndarray:
    """UB in 1/angstrom from the reciprocal lattice of an APS 34-ID index file.

    lattice: Columns a*, b*, c* in 1/nm with 2 pi, APS laboratory, shape (..., 3, 3).
    roll_deg: That of the geometry with which UB is to be used.
    """
    return about_beam(roll_deg) @ FROM_APS @ np.asarray(lattice) / TWO_PI_PER_NM


def ub_to_aps(ub: np.ndarray, *, roll_deg: float = 0.0) -> np.ndarray:
    """The inverse of `ub_from_aps`: columns a*, b*, c* in 1/nm with 2 pi, APS laboratory, shape (..., 3, 3)."""
    return FROM_APS.T @ about_beam(-roll_deg) @ np.asarray(ub) * TWO_PI_PER_NM


def from_xmas(xbet_deg: float, *, tilt_deg: float = XMAS_TILT_DEG) -> np.ndarray:
    """Takes vectors of XMAS' sample frame to this laboratory, shape (3, 3).

    As LaueTools reads XMAS' files: a turn about X by the tilt of the sample less half of xbet, then (x, y, z) = (Y, X, -Z).
    """
    return np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]]) @ about_beam(-(tilt_deg - xbet_deg / 2))


def sample_axes(tilt_deg: float) -> np.ndarray:
    """The axes of the sample as rows: x uphill along the beam, y that of the laboratory, z the normal of the surface.

    Takes vectors of the laboratory to the sample frame; shape (3, 3).
    """
    c, s = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
    return np.array([[c, 0.0, s], [0, 1, 0], [-s, 0, c]])


def surface_axes(geometry: LaueGeometry) -> np.ndarray:
    """The axes of the sample of a geometry (`sample_axes`) in its laboratory, which may be turned about the beam; rows."""
    return sample_axes(geometry.sample_tilt_deg) @ about_beam(-geometry.roll_deg)


def crystal_axes(crystal: Crystal) -> np.ndarray:
    """Takes vectors of this crystal frame (x along a*, z along c) to that of orix (x along a, z along c*); shape (3, 3)."""
    a = np.linalg.inv(crystal.b_matrix)[0]
    c_star = crystal.b_matrix[:, 2]
    x, z = a / np.linalg.norm(a), c_star / np.linalg.norm(c_star)
    return np.stack([x, np.cross(z, x), z])


def passive(u: np.ndarray, crystal: Crystal, *, sample: np.ndarray | None = None) -> np.ndarray:
    """The matrix of orix and EBSD: components in the sample to components in the crystal, shape (..., 3, 3).

    u: Orientation, crystal frame of this program to laboratory, shape (..., 3, 3).
    sample: Laboratory to sample (`sample_axes`); the laboratory itself where left out.
    """
    frame = np.eye(3) if sample is None else np.asarray(sample)
    return np.asarray(crystal_axes(crystal) @ np.swapaxes(frame @ np.asarray(u), -1, -2))


def from_passive(matrix: np.ndarray, crystal: Crystal, *, sample: np.ndarray | None = None) -> np.ndarray:
    """The inverse of `passive`."""
    frame = np.eye(3) if sample is None else np.asarray(sample)
    return np.asarray(frame.T @ np.swapaxes(np.asarray(matrix), -1, -2) @ crystal_axes(crystal))


def bunge(u: np.ndarray, crystal: Crystal, *, sample: np.ndarray | None = None) -> np.ndarray:
    """The Euler angles phi1, Phi, phi2 of Bunge, degrees, of orientations as in `passive`, shape (..., 3).

    g = Z(phi2) X(Phi) Z(phi1), each a passive rotation; Phi from 0 to 180, the others from 0 to 360. Where Phi is 0 or 180
    only their sum or difference counts, and phi2 is 0.
    """
    g = passive(u, crystal, sample=sample)
    sine = np.hypot(g[..., 2, 0], g[..., 2, 1])
    plain = sine > 1e-9
    first = np.where(plain, np.arctan2(g[..., 2, 0], -g[..., 2, 1]), np.arctan2(g[..., 0, 1], g[..., 0, 0]))
    second = np.where(plain, np.arctan2(g[..., 0, 2], g[..., 1, 2]), 0.0)
    return np.stack([np.rad2deg(first) % 360, np.rad2deg(np.arctan2(sine, g[..., 2, 2])), np.rad2deg(second) % 360], -1)


def to_orix(u: np.ndarray, crystal: Crystal, *, sample: np.ndarray | None = None) -> Any:
    """Orientations of orix (sample to crystal) with the symmetry of the crystal, from orientations as in `passive`."""
    from orix.quaternion import Orientation
    from orix.quaternion.symmetry import get_point_group

    group = get_point_group(crystal.space_group_number, proper=False)
    return Orientation.from_matrix(passive(u, crystal, sample=sample), symmetry=group)


def from_orix(orientations: Any, crystal: Crystal, *, sample: np.ndarray | None = None) -> np.ndarray:
    """The orientations U of this program from those of orix, the inverse of `to_orix`; shape (..., 3, 3)."""
    return from_passive(orientations.to_matrix(), crystal, sample=sample)
