"""The lit plane of the sample as each reflection's camera sees it, and maps brought onto one grid in it.

The camera stands perpendicular to the diffracted beam k. Its columns run along c = z x k (normalised; +y for eta = 0), its rows
along r = -(k x c), downwards, both turned by `roll_deg` about k and then mirrored as `flip` says. The middle of a frame looks at
the origin of the sample plane, but for a shift that is measured. Plane coordinates x, y in um: along the sample's x projected
into the plane, and along normal x that; they are the sample's own x and y where its z is perpendicular to the sheet of light.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from braggscope.core.errors import InputError

from ..geometry import DfxmGeometry
from .reflections import Reflection

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True)
class View:
    """How a camera sees the sample plane.

    project: (row, column) per um of (x, y), shape (2, 2).
    centre: (row, column) of the origin.
    frame_shape: Rows and columns.
    """

    project: np.ndarray
    centre: np.ndarray
    frame_shape: tuple[int, int]

    def pixels(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns at which places of the plane are seen."""
        found = self.project @ np.stack([np.ravel(x), np.ravel(y)]) + self.centre[:, None]
        return found[0].reshape(np.shape(x)), found[1].reshape(np.shape(x))

    def places(self, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places (x, y) that pixels look at, um."""
        away = np.stack([np.ravel(row), np.ravel(column)]) - self.centre[:, None]
        found = np.linalg.solve(self.project, away)
        return found[0].reshape(np.shape(row)), found[1].reshape(np.shape(row))

    def moved(self, x: float, y: float) -> View:
        """The view of a sample that has moved by this much in its plane, um."""
        return dataclasses.replace(self, centre=self.centre + self.project @ np.array([x, y]))


def plane_axes(normal: np.ndarray) -> np.ndarray:
    """Unit vectors along x and y of the plane and along its normal, in the sample frame, rows of shape (3, 3)."""
    n = normal / np.linalg.norm(normal)
    first = np.array([1.0, 0.0, 0.0]) - n[0] * n
    if np.linalg.norm(first) < 1e-3:
        raise InputError("the lit plane is perpendicular to the sample's x axis; turn the sample frame by 90 deg")
    first /= np.linalg.norm(first)
    return np.array([first, np.cross(n, first), n])


def diffracted_beam(reflection: Reflection) -> np.ndarray:
    """Unit vector along the diffracted beam in the laboratory."""
    two_theta, eta = math.radians(reflection.two_theta_deg), math.radians(reflection.eta_deg)
    up = math.sin(two_theta)
    return np.array([math.cos(two_theta), -math.sin(eta) * up, math.cos(eta) * up])


def camera_axes(reflection: Reflection) -> np.ndarray:
    """Unit vectors along rows and columns (rising) in the laboratory, shape (2, 3)."""
    k = diffracted_beam(reflection)
    column = np.cross([0.0, 0.0, 1.0], k)
    column /= np.linalg.norm(column)
    row = -np.cross(k, column)
    angle = math.radians(reflection.roll_deg)
    turned_row, turned_column = (v * math.cos(angle) + np.cross(k, v) * math.sin(angle) for v in (row, column))
    flip = reflection.flip
    return np.array([-turned_row if flip in ("rows", "both") else turned_row,
                     -turned_column if flip in ("columns", "both") else turned_column])  # fmt: skip


def view(reflection: Reflection, instrument: DfxmGeometry, axes: np.ndarray, frame_shape: tuple[int, int]) -> View:
    """The view of a reflection.  axes: As from `plane_axes`. Raises InputError where pixel size or magnification is not known."""
    for name in ("pixel_um", "magnification"):
        if getattr(instrument, name) is None:
            raise InputError(
                f"where a pixel looks in the sample needs {name}, which the geometry does not give; "
                f"give a file with {name} by --geometry FILE"
            )
    assert instrument.pixel_um and instrument.magnification
    per_um = instrument.magnification / instrument.pixel_um
    project = per_um * camera_axes(reflection) @ reflection.rotation(instrument) @ axes[:2].T
    if abs(np.linalg.det(project)) < 1e-3 * per_um**2:
        raise InputError(f"reflection {reflection.name} leaves along the lit plane: its camera sees the plane edge on")
    return View(project, np.array([(n - 1) / 2 for n in frame_shape]), frame_shape)


def common_grid(views: list[View], step_um: float, least: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """x and y (um) of the smallest grid that holds all places which at least three cameras see.

    Raises InputError where these are fewer than 5 x 5.
    """
    corners = []
    for one in views:
        rows, columns = (n - 1 for n in one.frame_shape)
        corners.append(np.array(one.places(np.array([0, 0, rows, rows]), np.array([0, columns, 0, columns]))))
    high = np.max(corners, axis=(0, 2))
    low = np.min(corners, axis=(0, 2))
    x, y = (middle + step_um * _centred(extent, step_um) for middle, extent in zip((low + high) / 2, high - low, strict=True))
    seen = np.zeros((len(y), len(x)), int)
    for one in views:
        row, column = one.pixels(*np.meshgrid(x, y))
        seen += (row >= 0) & (row <= one.frame_shape[0] - 1) & (column >= 0) & (column <= one.frame_shape[1] - 1)
    across, up = (np.flatnonzero((seen >= least).any(axis=axis)) for axis in (0, 1))
    if min(len(across), len(up)) < 5:
        raise InputError(f"the frames of the reflections share no field of 5 x 5 points of {step_um:g} um in the sample")
    return x[across[0] : across[-1] + 1], y[up[0] : up[-1] + 1]


def _centred(extent: float, step: float) -> np.ndarray:
    """Whole numbers around 0 that span an extent."""
    half = int(extent / step / 2)
    return np.arange(-half, half + 1)


def interpolation(
    seen: View, x: np.ndarray, y: np.ndarray, usable: np.ndarray, *, cubic: bool = True
) -> tuple[csr_array, np.ndarray]:
    """Weights of a map's pixels at places of the plane, and where all pixels needed are usable.

    x, y: Flat, um.  usable: Of the map, shape (row, column).
    cubic: Cubic convolution (Keys 1981, IEEE Trans. ASSP 29, 1153, a = -1/2), exact for second-order polynomials; else bilinear.
    Returns a sparse matrix (place, pixel), and booleans (place,); rows where these are False are empty.
    """
    from scipy.sparse import csr_array

    rows, columns = seen.frame_shape
    (at_row, row_weights), (at_column, column_weights) = (_taps(position, cubic) for position in seen.pixels(x, y))
    weights = (row_weights[:, :, None] * column_weights[:, None, :]).reshape(len(x), -1)
    inside = (at_row.min(axis=1) >= 0) & (at_row.max(axis=1) < rows) & (at_column.min(axis=1) >= 0)
    inside &= at_column.max(axis=1) < columns
    pixels = np.clip(at_row, 0, rows - 1)[:, :, None] * columns + np.clip(at_column, 0, columns - 1)[:, None, :]
    pixels = pixels.reshape(len(x), -1)
    good = inside & (usable.ravel()[pixels] | (weights == 0)).all(axis=1)
    weights[~good] = 0.0
    starts = np.arange(len(x) + 1) * weights.shape[1]
    matrix = csr_array((weights.ravel(), pixels.ravel(), starts), shape=(len(x), rows * columns))
    matrix.eliminate_zeros()
    matrix.sum_duplicates()
    return matrix, good


def _taps(position: np.ndarray, cubic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixels along one axis around each position and their weights, shape (place, tap); where the weight is 0, the nearest."""
    nearest = np.round(position)
    position = np.where(np.abs(position - nearest) < 1e-9, nearest, position)
    base = np.floor(position)
    t = position - base
    if cubic:
        taps = base[:, None] + np.arange(-1, 3)
        weights = np.stack(
            [(-t + 2 * t**2 - t**3) / 2, (2 - 5 * t**2 + 3 * t**3) / 2, (t + 4 * t**2 - 3 * t**3) / 2, (t**3 - t**2) / 2], axis=1
        )
    else:
        taps, weights = base[:, None] + np.arange(2), np.stack([1 - t, t], axis=1)
    taps = np.where(weights == 0, base[:, None], taps)
    return taps.astype(np.int64), weights
