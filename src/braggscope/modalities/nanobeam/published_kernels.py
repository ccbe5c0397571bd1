"""The two published simulators, with their aliasing, so that published numbers can be reproduced. Not for anything else.

Both sum over a pupil with two samples per pixel, which is coarser than what they sum:

- "box" (Luo et al., Sci. Rep. 15, 21736 (2025); code of NanobeamNN): a hard box of +-5e-4 1/angstrom in q_x and q_y, which is
  +-2.5 pixels along a row and +-0.67 along a column; a focal length 0.7 % longer than the zone plate's; the tilts without their
  factor 1 / (1 + strain), as in the training set. All frames are scaled together: the brightest pixel of the grid is the peak.
- "gaussian" (Luo et al., npj Comput. Mater. 11, 380 (2025); code of DONUT): exp(-q^2 / s^2) with s a tenth of a pixel. Each
  frame is scaled to the peak by itself.

Both alias: a chi map comes out in stairs, and a frame hardly has a gradient by chi. Signs are those of forward.py. With the pupil
on a grid (v, u) the sum is exactly  rows (row, v) . pupil (v, u) . columns (u, column):  three small matrices.
There is no background, and blur, ring scale and beam centre of the geometry are not known to these kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

import numpy as np

from braggscope.core.errors import InputError, one_of

from .geometry import NanobeamGeometry, published

KERNELS = ("box", "gaussian")
HC = 12.398  # keV angstrom, as in both codes
BOX = 5e-4  # 1/angstrom
BOX_FOCAL_MM = 21.874  # of the published zone plate, whose diameter x outermost zone / wavelength is 21.728
SAMPLES = 2  # of the pupil per pixel
BLOCK = 256  # frames multiplied at a time, so that they stay in the cache
UNKNOWN = ("source_px", "centre_row_px", "centre_column_px", "ring_scale", "pupil_file")  # geometry fields these kernels lack


@dataclass(frozen=True)
class PublishedKernel:
    """A published sum over the pupil (see the module)."""

    name: str
    geometry: NanobeamGeometry
    frame_shape: tuple[int, int]

    def __post_init__(self) -> None:
        if self.name not in KERNELS:
            raise one_of("kernel", self.name, ["closed_form", *KERNELS])
        default = {f.name: f.default for f in fields(NanobeamGeometry)}
        for name in UNKNOWN:
            if (value := getattr(self.geometry, name)) != default[name]:
                raise InputError(f"kernel '{self.name}' knows no {name}, which is {value} in the geometry; leave it out")

    @property
    def wavevector(self) -> float:
        """k, 1/angstrom, with the constant of the published codes."""
        return 2 * math.pi * self.geometry.energy_kev / HC

    @property
    def bragg_angle(self) -> float:
        """alpha, radians."""
        return math.asin(HC / self.geometry.energy_kev * self.geometry.order / (2 * self.geometry.lattice_a))

    @property
    def ring_px(self) -> tuple[float, float]:
        """Inner and outer radius of the ring of light, pixels."""
        geometry = self.geometry
        focal = geometry.zone_plate_um * geometry.outer_zone_nm / (HC / geometry.energy_kev) * 1e-2  # mm
        if self.name == "box":
            focal *= BOX_FOCAL_MM / published().focal_length_mm
        inner, outer = (1e-3 * size / 2 / focal / geometry.pixel_angle for size in (geometry.stop_um, geometry.zone_plate_um))
        return inner, outer

    @cached_property
    def pupil_px(self) -> np.ndarray:
        """Pupil samples of one axis, pixels, shape (sample,); those further out are dark."""
        half = math.ceil(SAMPLES * self.ring_px[1])
        return (np.arange(2 * half) - (2 * half - 1) / 2) / SAMPLES

    @cached_property
    def open(self) -> np.ndarray:
        """1 where the pupil lets light through, shape (v, u)."""
        radius = np.hypot(self.pupil_px[:, None], self.pupil_px)
        return ((radius < self.ring_px[1]) & (radius > self.ring_px[0])).astype(float)

    def columns(self, strain: np.ndarray, omega: np.ndarray) -> np.ndarray:
        """Rod along the plane times fringe, shape (frame, column, u), float32; strain and omega (radians): shape (frame,)."""
        k, alpha, angle, thickness = self.wavevector, self.bragg_angle, self.geometry.pixel_angle, self.geometry.thickness_a
        x = (np.arange(self.frame_shape[1]) - (self.frame_shape[1] - 1) / 2) * angle
        gamma = (np.arcsin(x) if self.name == "box" else np.arctan(x)) + alpha
        u = self.pupil_px * angle * k
        bragg = 4 * math.pi / (HC / self.geometry.energy_kev) * math.sin(alpha)
        strained = (bragg / (1 + strain))[:, None, None]
        tilted = (bragg if self.name == "box" else strained) * omega[:, None, None]
        qx = (k * (math.cos(alpha) - np.cos(gamma)))[:, None] + u * math.sin(alpha) + tilted
        qz = (k * (np.sin(gamma) + math.sin(alpha)))[:, None] - u * math.cos(alpha) - strained
        return (self._rod(qx) * thickness * np.sinc(thickness * qz / (2 * math.pi)) ** 2).astype(np.float32)

    def rows(self, strain: np.ndarray, chi: np.ndarray) -> np.ndarray:
        """Rod across the plane times the open pupil, shape (frame, row, u), float32; arguments as in `columns`."""
        k, angle = self.wavevector, self.geometry.pixel_angle
        y = (np.arange(self.frame_shape[0]) - (self.frame_shape[0] - 1) / 2) * angle * k
        bragg = 4 * math.pi / (HC / self.geometry.energy_kev) * math.sin(self.bragg_angle)
        tilted = (bragg if self.name == "box" else bragg / (1 + strain)) * chi
        return (self._rod(y[:, None] + tilted[:, None, None] - self.pupil_px * angle * k) @ self.open).astype(np.float32)

    def _rod(self, q: np.ndarray) -> np.ndarray:
        """The crystal's rod in the plane of the film, at q from its middle."""
        if self.name == "box":
            return (np.abs(q) < BOX).astype(float)
        return np.exp(-((q / (self.wavevector * self.geometry.pixel_angle / 10)) ** 2))

    def frames(self, strain: np.ndarray, omega: np.ndarray, chi: np.ndarray) -> np.ndarray:
        """Intensities, float32, shape (frame, row, column); "gaussian" with 1 in the brightest pixel of each frame.

        strain, omega, chi: Shape (frame,); tilts in degrees. Matrices that frames share are made once.
        """
        along, which_along = np.unique(np.stack([strain, omega], axis=-1), axis=0, return_inverse=True)
        same = np.zeros_like(strain) if self.name == "box" else strain  # of which the rows do not know the strain
        across, which_across = np.unique(np.stack([same, chi], axis=-1), axis=0, return_inverse=True)
        columns = self.columns(along[:, 0], np.radians(along[:, 1])).swapaxes(1, 2)
        rows = self.rows(across[:, 0], np.radians(across[:, 1]))
        result = np.empty((len(strain), *self.frame_shape), np.float32)
        for start in range(0, len(strain), BLOCK):
            part = slice(start, start + BLOCK)
            np.matmul(rows[which_across[part]], columns[which_along[part]], out=result[part])
        if self.name == "gaussian":
            result /= np.maximum(result.max((1, 2), keepdims=True), 1e-30)
        return result

    def brightest(self, grid: int, ranges: tuple[float, float, float]) -> float:
        """The brightest pixel of all frames of a grid of strain, omega and chi, without making them.

        A frame is its rows times its columns, and few rows differ, since the sum is aliased.
        ranges: Largest strain, omega and chi (degrees).
        """
        if self.name == "gaussian":
            return 1.0
        strain, omega, chi = (np.linspace(-high, high, grid) for high in ranges)
        rows = np.unique(self.rows(np.zeros(grid), np.radians(chi)).reshape(-1, len(self.pupil_px)), axis=0)
        return max(
            float((self.columns(np.full(grid, one), np.radians(omega)).reshape(-1, len(self.pupil_px)) @ rows.T).max())
            for one in strain
        )


@lru_cache(maxsize=8)
def peak_of_grid(
    name: str, geometry: NanobeamGeometry, frame_shape: tuple[int, int], grid: int, ranges: tuple[float, float, float]
) -> float:
    """`PublishedKernel.brightest`, kept for reuse."""
    return PublishedKernel(name, geometry, frame_shape).brightest(grid, ranges)
