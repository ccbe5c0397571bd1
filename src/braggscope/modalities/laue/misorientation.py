"""Misorientations of crystals: the smallest rotation between two lattices, its distribution for random ones, means, twins.

U takes the crystal frame to the laboratory (or the sample). Two lattices U_a and U_b differ by U_a^T U_b in the crystal frame of
a; of all equivalents S_i U_a^T U_b S_j with S of the Laue class the misorientation is that with the smallest angle w,
cos w = (trace - 1) / 2 (Grimmer 1974, Acta Cryst. A 30, 685). The angle is the same for U_a^T U_b S_j alone.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

CHUNK = 2**15  # pairs at once: some 60 MB of matrices of cubic crystals
AXES = 20000  # directions of the misorientation axis over which the random distribution is averaged


def smallest(u: np.ndarray, v: np.ndarray, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rotation U^T V S of each pair that has the smallest angle: its matrix, in the crystal frame of u, and the angle, deg.

    u, v: Orientations, shapes (..., 3, 3) that broadcast.  rotations: S of the Laue class, shape (operation, 3, 3).
    Returns shapes (..., 3, 3) and (...,); NaN where an orientation is.
    """
    u, v = np.broadcast_arrays(u, v)
    shape, u, v = u.shape[:-2], u.reshape(-1, 3, 3), v.reshape(-1, 3, 3)
    found, angle = np.empty(u.shape), np.empty(len(u))
    for first in range(0, len(u), CHUNK):
        part = slice(first, first + CHUNK)
        between = u[part].transpose(0, 2, 1) @ v[part]
        traces = np.einsum("nij,sji->ns", between, rotations)
        best = np.where(np.isfinite(traces), traces, -1).argmax(1)
        found[part] = between @ rotations[best]
        angle[part] = _angle(found[part])
    return found.reshape(*shape, 3, 3), angle.reshape(shape)


def angles(u: np.ndarray, v: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Misorientation angle of each pair, deg; arguments as in `smallest`."""
    return smallest(u, v, rotations)[1]


def axes(between: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Unit axes of misorientations in the crystal frame, of all equivalents the same one; shape (..., 3, 3) -> (..., 3).

    The axis n and its images S n and -S n are equivalent; taken is the one highest up z, then along x, then y.
    """
    vector = Rotation.from_matrix(between.reshape(-1, 3, 3)).as_rotvec()
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    axis = vector / np.where(length > 0, length, 1)
    images = np.einsum("sij,nj->nsi", np.concatenate([rotations, -rotations]), axis).round(9)
    order = np.lexsort((images[..., 1], images[..., 0], images[..., 2]), axis=-1)[:, -1]
    return images[np.arange(len(images)), order].reshape(*between.shape[:-2], 3)


def random_density(angle_deg: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Probability density, per degree, of the misorientation angle of random pairs (of cubic crystals: Mackenzie 1958).

    p(w) = N (1 - cos w) / 180 f(w): the density of rotation angles, times the part f of axes n on which w is the smallest of
    all N equivalents: |n . a| tan(w/2) <= tan(alpha/4) for each operation by alpha about a (the cell of Rodrigues' space about
    0). Mackenzie 1958, Biometrika 45, 229; Morawiec 2004, Orientations and Rotations, sec. 7. f is averaged over 20 000 axes.
    """
    operations = Rotation.from_matrix(rotations).as_rotvec()
    turn = np.linalg.norm(operations, axis=1)
    about, turn = operations[turn > 1e-6] / turn[turn > 1e-6, None], turn[turn > 1e-6]
    i = np.arange(AXES) + 0.5  # a spiral of even density
    z, azimuth = 1 - 2 * i / AXES, np.pi * (1 + 5**0.5) * i
    n = np.stack([np.sqrt(1 - z**2) * np.cos(azimuth), np.sqrt(1 - z**2) * np.sin(azimuth), z], 1)
    nearest = (np.abs(n @ about.T) / np.tan(turn / 4)).max(1) if len(about) else np.zeros(AXES)
    largest = np.sort(2 * np.arctan2(1.0, nearest))
    w = np.deg2rad(np.asarray(angle_deg, float))
    inside = 1 - np.searchsorted(largest, w) / AXES
    return np.asarray(len(rotations) * (1 - np.cos(w)) / 180 * inside)


def random_mean(rotations: np.ndarray) -> float:
    """Mean misorientation angle of random pairs, deg.

    >>> from braggscope.physics.crystals import crystal_of
    >>> round(random_mean(crystal_of("Au").rotations), 1)  # Mackenzie & Thomson 1957: 40 deg 44'
    40.7
    """
    middle = np.arange(0.05, 180, 0.1)
    density = random_density(middle, rotations)
    return float(middle @ density / density.sum())


def means(u: np.ndarray, group: np.ndarray, count: int, rotations: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The mean orientation of each group, shape (group, 3, 3).

    Every member is taken as the equivalent nearest to the mean; then the rotation nearest to the weighted sum of matrices
    (Moakher 2002, SIAM J. Matrix Anal. Appl. 24, 1).

    u: Orientations, shape (member, 3, 3).  group: Number of each member's group, from 0.  weight: Of each member.
    """
    mean = np.tile(np.eye(3), (count, 1, 1))
    mean[group[::-1]] = u[::-1]  # the first member of each
    for _ in range(3):
        near = mean[group] @ smallest(mean[group], u, rotations)[0]
        total = np.zeros((count, 3, 3))
        np.add.at(total, group, weight[:, None, None] * near)
        left, _, right = np.linalg.svd(total)
        left[..., -1] *= np.sign(np.linalg.det(left @ right))[:, None]
        mean = left @ right
    return mean


def from_twin(between: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Angle of misorientations from the twin of cubic crystals, Sigma 3: 60 deg about [111]; deg, shape (..., 3, 3) -> (...,).

    The nearest of all equivalents S_i T S_j, found as that of S_i T.
    """
    twin = Rotation.from_rotvec(np.deg2rad(60) * np.ones(3) / np.sqrt(3)).as_matrix()
    return np.min([angles(s @ twin, between, rotations) for s in rotations], axis=0)


def _angle(rotation: np.ndarray) -> np.ndarray:
    """Angle of rotations, deg, accurate for small ones; shape (..., 3, 3) -> (...,).

    |R - 1| = sqrt(8) sin(w / 2) for the root of the sum of squares.
    """
    chord = np.linalg.norm(rotation - np.eye(3), axis=(-2, -1)) / np.sqrt(8)
    return np.asarray(np.rad2deg(2 * np.arcsin(np.minimum(chord, 1))))
