"""The physics branch of DONUT: parameters to frames by the closed form, with gradients, on the CPU or a GPU.

On the CPU the compiled model (differentiable.py); on a GPU NanobeamForward. The published branch is the aliased sum of
published_kernels.py ("gaussian"), whose image does not change between neighbouring tilts and then jumps; it has no gradient to
learn chi from, and is left out here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cache, lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from . import differentiable
from .compiled import Tables, _by_phase, expected, packed, tables
from .forward import DEGREE, NanobeamForward
from .geometry import NanobeamGeometry
from .goodness import goodness_frames
from .pupil import Pupil, pupil

LEAST = 1e-6  # counts
STEPS = 8  # of the fit of scale and background on a GPU


@dataclasses.dataclass(frozen=True)
class PhysicsBranch:
    """Frames and deviances of parameters.

    thickness: Middle and half range of the fourth parameter, angstrom; its value is middle + half p.
    """

    geometry: NanobeamGeometry
    frame_shape: tuple[int, int]
    thickness: tuple[float, float]

    def rendered(self, p: Tensor) -> Tensor:
        """Frames of bounded parameters (frame, 3 or 4) without background, 1 at full light, shape (frame, row, column)."""
        if p.is_cuda:
            values = {**self._values(p), "scale": p.new_ones(len(p)), "background": p.new_zeros(len(p))}
            return _forward(self, 0.0, p.device)(values)
        nuisance = torch.tensor([[0.0, math.log(LEAST)]], dtype=torch.float64).expand(len(p), 2)
        return differentiable.rendered(self._tables(0.0), self.frame_shape, self._packed(p, nuisance))

    def deviance(self, p: Tensor, counts: Tensor, blur: float = 0.0) -> Tensor:
        """Poisson deviance of each frame, scale and background at their best, shape (frame,).

        counts: Shape (frame, row, column); below zero: not used.
        blur: Further blur of the ring, pixels: from far off it shows where to go.
        """
        if p.is_cuda:
            return self._deviance_on_device(p, counts, blur)
        made = self._tables(blur)
        used = counts.detach().clamp(min=0)
        nuisance = torch.stack([used.sum((1, 2)) / made.light, 0.05 * used.mean((1, 2))], dim=1).clamp(min=1e-3).double().log()
        compiled = np.ascontiguousarray(counts.detach().numpy().transpose(0, 2, 1), np.float32)
        return differentiable.profiled_deviance(made, compiled, self._packed(p, nuisance))

    def usual_deviance(self, counts: Tensor) -> Tensor:
        """Deviance that a frame with as many counts has when the model is right, about, shape (frame,)."""
        totals, deviances = usual(self.geometry, self.frame_shape)
        good = counts >= 0
        share = good.double().mean((1, 2)).cpu().numpy()
        seen = (counts * good).sum((1, 2)).double().cpu().numpy() / np.maximum(share, 1e-6)
        found = np.interp(np.log(np.maximum(seen, 1.0)), np.log(totals), deviances) * share
        return torch.from_numpy(found).to(device=counts.device, dtype=torch.float32 if counts.is_cuda else torch.float64)

    def nuisance(self, p: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and background of each frame that fit best, without gradient, shape (frame, 1, 1) each."""
        with torch.no_grad():
            image = self.rendered(p).to(counts.dtype)
            return _profiled(image, counts.clamp(min=0), (counts >= 0).to(counts.dtype))

    def _deviance_on_device(self, p: Tensor, counts: Tensor, blur: float) -> Tensor:
        good, used = (counts >= 0).to(p.dtype), counts.clamp(min=0)
        values = {**self._values(p), "scale": p.new_ones(len(p)), "background": p.new_zeros(len(p))}
        image = _forward(self, blur, p.device)(values)
        scale, background = _profiled(image.detach(), used, good)
        mean = scale * image + background
        return (2 * good * (torch.xlogy(used, used) - used * torch.log(mean) - used + mean)).sum((1, 2))

    def _values(self, p: Tensor) -> dict[str, Tensor]:
        """Named parameters in the units of NanobeamForward."""
        thickness = self._thickness(p) if p.shape[1] > 3 else p.new_full((len(p),), self.geometry.thickness_a)
        return {"strain": p[:, 0] / 100, "omega": p[:, 1] / 10, "chi": p[:, 2] / 5, "thickness": thickness}

    def _thickness(self, p: Tensor) -> Tensor:
        return (self.thickness[0] + self.thickness[1] * p[:, 3]).clamp(min=10.0)

    def _packed(self, p: Tensor, nuisance: Tensor) -> Tensor:
        """Parameters as kernels.py has them, shape (frame, 6), float64."""
        values = {name: value.double() for name, value in self._values(p).items()}
        own = [values["strain"], values["omega"] * DEGREE, values["chi"] * DEGREE]
        return torch.stack([*own, nuisance[:, 0], nuisance[:, 1], values["thickness"].log()], dim=1)

    def _tables(self, blur: float) -> Tables:
        return tables(self.geometry, self.frame_shape) if blur == 0 else blurred(self.geometry, self.frame_shape, blur)


@cache
def blurred(geometry: NanobeamGeometry, frame_shape: tuple[int, int], blur: float) -> Tables:
    """Tables of a ring that is blurred further, pixels. Kept for reuse."""
    made = tables(geometry, frame_shape)
    wide = _blurred_pupil(geometry, blur)
    return dataclasses.replace(made, table=_by_phase(wide), grid=np.array([*wide.origin, wide.per_pixel[1]]))


@cache
def usual(geometry: NanobeamGeometry, frame_shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Counts of frames at zero tilt from weak to bright, rising, and their expected deviances."""
    made, light = tables(geometry, frame_shape), np.geomspace(0.02, 1e5, 48)
    same = np.ones_like(light)
    dark = {"background": max(geometry.background, LEAST) * same, "thickness": geometry.thickness_a * same}
    parameters = packed({"strain": 0 * same, "omega": 0 * same, "chi": 0 * same, "scale": light, **dark})
    frames = expected(made, frame_shape, parameters)
    result = np.zeros((len(light), 4))
    goodness_frames(
        np.ascontiguousarray(frames.transpose(0, 2, 1)), parameters, made.optics, made.columns, made.spread, made.weights,
        made.table, made.grid, made.threshold, made.saturation, made.moments, result,
    )  # fmt: skip
    return frames.sum((1, 2), dtype=np.float64), result[:, 1]


@lru_cache(maxsize=4)
def _forward(branch: PhysicsBranch, blur: float, device: torch.device) -> NanobeamForward:
    wide = _blurred_pupil(branch.geometry, blur) if blur else None
    return NanobeamForward(branch.geometry, branch.frame_shape, pupil_table=wide).to(device=device, dtype=torch.float32)


def _blurred_pupil(geometry: NanobeamGeometry, blur: float) -> Pupil:
    """The pupil with room for a wider blur around it."""
    seen = pupil(geometry)
    room = [math.ceil(3 * blur) * n for n in seen.per_pixel]
    coefficients = np.pad(np.asarray(seen.coefficients), [(n, n) for n in room])
    origin = (seen.origin[0] - room[0] / seen.per_pixel[0], seen.origin[1] - room[1] / seen.per_pixel[1])
    return Pupil(gaussian_filter(coefficients, [blur * n for n in seen.per_pixel], mode="constant"), origin, seen.per_pixel)


def _profiled(image: Tensor, used: Tensor, good: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and background (frame, 1, 1) at which Poisson counts are likeliest, by Fisher steps."""
    total = (good * image).sum((1, 2)).clamp(min=LEAST)
    scale, background = (used.sum((1, 2)) / total).clamp(min=LEAST), (0.05 * used.mean((1, 2))).clamp(min=1e-3)
    for _ in range(STEPS):
        mean = scale[:, None, None] * image + background[:, None, None]
        slope, weight = good * (used / mean - 1), good / mean
        s0, s1 = (slope * image).sum((1, 2)), slope.sum((1, 2))
        a, b, d = (weight * image**2).sum((1, 2)), (weight * image).sum((1, 2)), weight.sum((1, 2))
        det = (a * d - b * b).clamp(min=1e-12)
        scale = torch.maximum(scale + (d * s0 - b * s1) / det, scale / 4).clamp(min=LEAST)
        background = torch.maximum(background + (a * s1 - b * s0) / det, background / 4).clamp(min=LEAST)
    return scale[:, None, None], background[:, None, None]


def in_map_units(p: np.ndarray, thickness: tuple[float, float]) -> Mapping[str, np.ndarray]:
    """Bounded parameters (frame, 3 or 4) as quantities of a map."""
    values = {"strain": p[:, 0] / 100, "omega": p[:, 1] / 10, "chi": p[:, 2] / 5}
    return values if p.shape[1] == 3 else {**values, "thickness": thickness[0] + thickness[1] * p[:, 3]}
