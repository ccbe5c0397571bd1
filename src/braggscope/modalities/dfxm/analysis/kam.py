"""Kernel average misorientation: how much the lattice of a pixel differs from its neighbours'.

KAM(i) = mean over the neighbours j in the kernel, without i itself and without missing ones, of the misorientation angle of the
lattices i and j (Wright, Nowell & Field 2011, Microsc. Microanal. 17, 316), an angle between lattices and not of motor values.
With errors C of the lattices and a_ij the axis of the misorientation of i and j,

    Var(KAM_i) = [ (sum_j a_ij)^T C_i (sum_j a_ij) + sum_j a_ij^T C_j a_ij ] / N^2

which holds where the misorientations stand out of the noise. Where they do not, the mean of an angle is biased upwards, as an
angle cannot be negative. A KAM that is not above the mean of pure noise by two standard deviations is flagged.

The length of a difference that is noise of covariance S has the square t = tr S on average, with the variance 2 tr S^2. A scaled
chi-squared variable of nu = t^2 / tr S^2 degrees of freedom has the same (Satterthwaite 1946, Biometrics Bull. 2, 110); the
mean of its root is

    sqrt(2 t / nu) Gamma((nu + 1) / 2) / Gamma(nu / 2)

which is sigma sqrt(2 / pi), sigma sqrt(pi / 2) or sigma sqrt(8 / pi) where one, two or three directions have the error sigma.
With unequal errors it is too small by 2 % at most. The lengths to two neighbours j and k are correlated by the noise of the pixel
i that they share, by f_j f_k with f_j = tr C_i / tr (C_i + C_j), to lowest order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError

from ..carried import carried_flag, cautions, image_dims, pixel_attributes, variable
from ..geometry import DfxmGeometry
from ..lattice_rotations import DEGREE, LatticeRotations, variance_along
from ._common_pixels import common_pixels
from .orientation import orientation_of

DOUBT = 2.0  # standard deviations that the KAM must stand above the mean of pure noise: some 95 % of pure noise does not
BAND = 2**18  # pixels of the bands of rows that are done one after the other: some 100 MB


def kam(
    dataset: xr.Dataset,
    *,
    size: Annotated[int, Says("width of the kernel, odd", unit="px")] = 3,
    kernel: Annotated[
        str, Says("pixels of the kernel: all, or those within size // 2 steps", choices=("square", "diamond"))
    ] = "square",
    max_angle: Annotated[float | None, Says("neighbours further away than this are left out", unit="deg")] = None,
    neighbours: Annotated[int, Says("least number of neighbours; a pixel with fewer has no value")] = 1,
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """Kernel average misorientation of each pixel, an angle between lattices, with its error.

    dataset: Orientation map, or a map with motor positions, of which `orientation` is taken.
    Returns `kam` (deg), its standard deviation, and `kam_neighbours`, how many were averaged.
    """
    image_dims(dataset)
    offsets = _offsets(size, kernel)
    if max_angle is not None and not max_angle > 0:
        raise InputError(f"max_angle must be positive, got {max_angle:g}")
    if not 1 <= neighbours <= len(offsets):
        raise InputError(f"neighbours must be between 1 and the {len(offsets)} of the kernel, got {neighbours}")
    lattice_map = orientation_of(dataset, geometry)
    field = LatticeRotations.of(lattice_map)
    rows, columns = field.known.shape
    found = np.full((4, rows, columns), np.nan)
    for start, stop, top, bottom in _bands(rows, columns, size // 2):
        part = _average(field[top:bottom], offsets, math.inf if max_angle is None else max_angle * DEGREE)
        found[:, start:stop] = part.numpy()[:, start - top : stop - top]
    mean, std, noise, count = found
    enough = count >= neighbours
    mean, std = np.where(enough, mean / DEGREE, np.nan), np.where(enough, std / DEGREE, np.nan)
    result = xr.Dataset({"kam": variable(mean, "deg", "mean misorientation to the neighbours")})
    if field.covariance is not None:
        result["kam_std"] = variable(std, "deg", "standard deviation of kam")
    result["kam_neighbours"] = variable(count, "1", "neighbours averaged")
    hidden = np.isfinite(mean) & (mean < noise / DEGREE)
    reasons = {"no_neighbours": field.known.numpy() & ~enough, "misorientation_hidden_by_noise": hidden}
    result["flag"] = carried_flag(lattice_map, reasons)
    result.attrs = {**pixel_attributes(lattice_map, geometry), **cautions(str(lattice_map.attrs.get("caution", "")))}
    return result


def _offsets(size: int, kernel: str) -> list[tuple[int, int]]:
    """Steps to the neighbours, without the centre."""
    if size < 3 or size % 2 == 0:
        raise InputError(f"size must be an odd number of pixels from 3, got {size}")
    if kernel not in ("square", "diamond"):
        raise InputError(f"kernel must be square or diamond, got '{kernel}'")
    reach = range(-(size // 2), size // 2 + 1)
    every = [(i, j) for i in reach for j in reach if (i, j) != (0, 0)]
    return [(i, j) for i, j in every if kernel == "square" or abs(i) + abs(j) <= size // 2]


def _bands(rows: int, columns: int, halo: int) -> Iterator[tuple[int, int, int, int]]:
    """Bands of rows: start and stop, and the same with the rows around that the kernel reaches."""
    height = max(1, BAND // columns)
    for start in range(0, rows, height):
        stop = min(start + height, rows)
        yield start, stop, max(0, start - halo), min(rows, stop + halo)


def _average(field: LatticeRotations, offsets: list[tuple[int, int]], most: float) -> Tensor:
    """Mean misorientation, its standard deviation, what noise alone seldom exceeds (rad) and the neighbours; (4, row, column)."""
    shape = field.known.shape
    total, count, variance, noise, apart, shared = (torch.zeros(shape, dtype=torch.float64) for _ in range(6))
    axes = torch.zeros((*shape, 3), dtype=torch.float64)
    for step in offsets:
        here, there = common_pixels(tuple(shape), step)
        vector = field[here].to(field[there])
        angle = vector.norm(dim=-1)
        use = torch.isfinite(angle) & (angle <= most)
        total[here] += torch.where(use, angle, 0.0)
        count[here] += use
        if field.covariance is None:
            continue
        unit = vector / torch.where(angle > 0, angle, 1.0)[..., None]
        axes[here] += torch.where(use[..., None], unit, 0.0)
        theirs = field.covariance[there]
        variance[here] += torch.where(use, variance_along(vector, theirs), 0.0)
        mean, std, share = _pure_noise(field.covariance[here], theirs)
        noise[here] += torch.where(use, mean, 0.0)
        apart[here] += torch.where(use, std**2 * (1 - share**2), 0.0)
        shared[here] += torch.where(use, std * share, 0.0)
    if field.covariance is not None:
        variance += torch.where(count > 0, (axes[..., None, :] @ field.covariance @ axes[..., None])[..., 0, 0], 0.0)
    many = torch.where(count > 0, count, 1.0)
    known = field.known & (count > 0)
    values = [torch.where(known, v, math.nan) for v in (total / many, variance.sqrt() / many)]
    most_by_noise = (noise + DOUBT * torch.sqrt(apart + shared**2)) / many
    return torch.stack([*values, most_by_noise, torch.where(field.known, count, 0.0)])


def _pure_noise(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean length and its standard deviation (rad) of the difference of two noises, and the first's share f of its variance.

    one, other: Covariances, rad^2, shape (..., 3, 3).
    """
    both = one + other
    square = both.diagonal(dim1=-2, dim2=-1).sum(-1)
    some = torch.where(square > 0, square, 1.0)
    freedom = some**2 / torch.where(square > 0, (both**2).sum((-2, -1)), 1.0)
    ratio = torch.exp(torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2)) * torch.sqrt(2 / freedom)
    mean, std = ratio * square.sqrt(), torch.sqrt((1 - ratio**2).clamp(min=0) * square)
    return mean, std, one.diagonal(dim1=-2, dim2=-1).sum(-1) / some
