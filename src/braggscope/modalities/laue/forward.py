"""Expected counts of the pattern of one crystal, differentiable in orientation and strain.

Laboratory frame and signs of README.md. With U = exp([w]x) U0 and q = U (1 + strain)^-T B h,

    counts(row, column) = background + scale sum over h of I(h) / I_strong * Gaussian at the spot of h, integrated over the pixel

I as in `brightness`. `kernels` is the same compiled. The strain's components are in the crystal frame; the trace of a strain
moves no spot and shows only in the energies. Where a reflection leaves the band the counts jump, which no derivative sees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from braggscope.core.forward import Forward, Param
from braggscope.physics.rotations import cross_matrix

from .brightness import Layer, layer
from .detector import HC, spots
from .geometry import LaueGeometry
from .patterns import strong
from .reflections import material
from .spectrum import polarisation

DEGREE = math.pi / 180
TURN_DEG, STRAIN = 2.0, 0.02  # farthest from the reference that the parameters reach
REACH_DEG = 10.0  # about the detector, from where a ray can come onto it by such a turn (twice as far, about three axes)
ROTATION = ("orientation_x", "orientation_y", "orientation_z")
STRAINS = ("strain_xx", "strain_yy", "strain_zz", "strain_yz", "strain_xz", "strain_xy")
_PLACE = ((0, 5, 4), (5, 1, 3), (4, 3, 2))  # of the components in the tensor


class LauePattern(Forward):
    """Expected counts (..., row, column) of one crystal's pattern; parameters as in `params`.

    `scale` is the number of counts in the spot of a strong reflection (`patterns.strong`).
    """

    params: ClassVar[Mapping[str, Param]] = {
        **{f"orientation_{a}": Param("deg", -TURN_DEG, TURN_DEG, f"rotation about {a} from the reference") for a in "xyz"},
        **{n: Param("1", -STRAIN, STRAIN, f"strain {n[-2:]} in the crystal frame") for n in STRAINS},
        "scale": Param("count", 1e-3, 1e12, "counts in the spot of a strong reflection"),
        "background": Param("count", 0.0, 1e9, "expected background per pixel"),
    }

    reference: Tensor
    q: Tensor
    family: Tensor
    table: Tensor
    absorption: Tensor
    detector: Tensor
    normal: Tensor
    field: Tensor

    def __init__(self, geometry: LaueGeometry, orientation: np.ndarray, *, crystal: Layer | None = None):
        """The model of a crystal near a reference.

        orientation: U of the reference, shape (3, 3).
        crystal: Its layer; by default one of the geometry's material and thickness.
        """
        super().__init__()
        own = crystal or layer(geometry, material(geometry.material), thickness_um=geometry.thickness_um)
        self.geometry, self.frame_shape, self.sigma = geometry, geometry.frame_shape, geometry.spot_px
        self.energy, self.depth = tuple(own.energy.tolist()), tuple(own.depth.tolist())
        near = _near(own, geometry, orientation)
        values = {
            "reference": orientation, "q": own.reflections.q[near], "table": own.table / strong(own),
            "absorption": own.absorption, "detector": own.detector, "normal": own.normal, "field": own.field,
        }  # fmt: skip
        for name, value in values.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float64))
        self.register_buffer("family", torch.as_tensor(own.family[near], dtype=torch.int64))

    def forward(self, params: Mapping[str, Tensor]) -> Tensor:
        """Expected counts, shape (..., row, column)."""
        row, column, intensity = self.spots(params)
        scale, background = params["scale"], params["background"]
        along, across = (_shares(at, size, self.sigma) for at, size in zip((row, column), self.frame_shape, strict=True))
        light = (intensity[..., None] * along).mT @ across
        return scale[..., None, None] * light + background[..., None, None]

    def spots(self, params: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Row and column (px) and relative intensity of every direction near the detector, 0 where none is; (..., spot)."""
        x, y, z = _times(self.deformed(params)[..., None, :, :], self._like("q", params)).unbind(-1)
        onward = x < 0
        x = torch.where(onward, x, -torch.ones_like(x))
        square = x**2 + y**2 + z**2
        along = -2 * x / square
        ray = torch.stack([1 + along * x, along * y, along * z], -1)
        column, row, away = _times(self._like("detector", params), ray).unbind(-1)
        towards = onward & (away > 0)
        away = torch.where(towards, away, torch.ones_like(away))
        intensity = self._brightness(-HC * square / (2 * x), ray, params)
        return row / away, column / away, torch.where(towards, intensity, torch.zeros_like(intensity))

    def deformed(self, params: Mapping[str, Tensor]) -> Tensor:
        """exp([w]x) U0 (1 + strain)^-T, shape (..., 3, 3)."""
        vector = torch.stack(torch.broadcast_tensors(*(params[n] * DEGREE for n in ROTATION)), -1)
        components = torch.broadcast_tensors(*(params[n] for n in STRAINS))
        strain = torch.stack([torch.stack([components[i] for i in line], -1) for line in _PLACE], -2)
        stretch = torch.eye(3, dtype=strain.dtype, device=strain.device) + strain
        a, b, c = stretch.unbind(-2)
        cofactors = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -1)
        inverse = cofactors / (a * cofactors[..., 0]).sum(-1)[..., None, None]  # of a symmetric matrix: symmetric
        turned = _product(_turn(vector), self._like("reference", params))
        return _product(turned, inverse)

    def _brightness(self, e1: Tensor, ray: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Sum over the harmonics, of the coprime reflections' energies e1 (..., spot), keV, and rays (..., spot, 3)."""
        normal = self._like("normal", params)
        leaving = (ray * normal).sum(-1)
        path = (-1 / normal[0] + 1 / torch.where(leaving > 0, leaving, torch.ones_like(leaving)))[..., None]
        first, step, low, high = self.energy
        energy = e1[..., None] * torch.arange(1, self.family.shape[1] + 1, dtype=e1.dtype, device=e1.device)
        shown = (energy >= low) & (energy <= high) & (self.family >= 0) & (leaving > 0)[..., None]
        place = (torch.where(shown, energy, torch.full_like(energy, low)) - first) / step
        at = place.detach().floor().long().clamp(0, self.table.shape[1] - 2)
        part, table, absorption = place - at, self._like("table", params), self._like("absorption", params)
        family = self.family.clamp(min=0)
        strength = torch.lerp(table[family, at], table[family, at + 1], part)
        mu, over = (torch.lerp(one[at], one[at + 1], part) for one in absorption)
        deep = -torch.expm1(-mu * path * self.depth[0]) / (mu * path) * torch.exp(-over * path * self.depth[1])
        total = torch.where(shown, strength * deep, torch.zeros_like(strength)).sum(-1)
        return total * polarisation(ray, self._like("field", params))

    def _like(self, name: str, params: Mapping[str, Tensor]) -> Tensor:
        some = params["scale"]
        return getattr(self, name).to(device=some.device, dtype=some.dtype)


def _near(own: Layer, geometry: LaueGeometry, orientation: np.ndarray) -> np.ndarray:
    """Directions that can show a spot within reach of the reference."""
    row, column, energy = spots(own.detector, own.reflections.q @ orientation.T)
    margin = 2 * math.tan(math.radians(REACH_DEG)) * geometry.distance_mm * 1e3 / geometry.pixel_um
    rows, columns = geometry.frame_shape
    inside = (np.abs(row - (rows - 1) / 2) < rows / 2 + margin) & (np.abs(column - (columns - 1) / 2) < columns / 2 + margin)
    return np.flatnonzero(inside & (energy < 1.2 * geometry.energy_high_kev))


def _turn(vector: Tensor) -> Tensor:
    """exp([w]x) of rotation vectors (..., 3) up to a radian, radians; with derivatives also at zero.

    1 + f K + g K^2 with f = sin(a) / a and g = (1 - cos(a)) / a^2 as series in a^2.
    """
    k, square = cross_matrix(vector), (vector**2).sum(-1)[..., None, None]
    sine, versine = torch.zeros_like(square), torch.zeros_like(square)
    for n in range(7, -1, -1):
        sine = 1 / math.factorial(2 * n + 1) - square * sine
        versine = 1 / math.factorial(2 * n + 2) - square * versine
    return torch.eye(3, dtype=k.dtype, device=k.device) + sine * k + versine * _product(k, k)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product of small matrices, summed in one order whatever the leading shape."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def _times(a: Tensor, vector: Tensor) -> Tensor:
    """Matrix times vector, in the same way."""
    return (a * vector[..., None, :]).sum(-1)


def _shares(at: Tensor, size: int, sigma: float) -> Tensor:
    """Part of each Gaussian about `at` that falls into each pixel along one axis, shape (..., spot, pixel)."""
    edges = torch.arange(size + 1, dtype=at.dtype, device=at.device) - 0.5
    return torch.erf((edges - at[..., None]) / (sigma * math.sqrt(2))).diff(dim=-1) / 2


def example() -> tuple[LauePattern, dict[str, Tensor]]:
    """A window of a film's detector with a few spots of gold, not square, and two points to try it at."""
    from .geometry import film

    geometry = film().replace(rows=48, columns=40, pixel_um=3000.0, xcen_px=20.0, ycen_px=26.0)
    values = {
        **{n: [0.3, -0.5][:: 1 - 2 * (i % 2)] for i, n in enumerate(ROTATION)},
        **{n: [(2 + i) * 1e-4, (i - 4) * 2e-4] for i, n in enumerate(STRAINS)},
        "scale": [800.0, 3000.0],
        "background": [2.0, 0.5],
    }
    orientation = np.array([[2.0, -1.0, 2.0], [2.0, 2.0, -1.0], [-1.0, 2.0, 2.0]]) / 3
    return LauePattern(geometry, orientation), {n: torch.tensor(v, dtype=torch.float64) for n, v in values.items()}
