"""Grain reference orientation deviation: the misorientation of each pixel to the mean lattice of its grain, domain or a pixel.

GROD(i) = misorientation angle of lattice i and the reference lattice (Wright, Nowell & Field 2011, Microsc. Microanal. 17, 316).
The mean lattice is that from which its members are turned by no rotation on average. Standard deviation: of the pixel along the
axis of the misorientation; that of the mean is added (its correlation with the pixel, one part in its number, is left out).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError

from ..carried import carried_flag, cautions, image_dims, pixel_attributes, variable
from ..geometry import DfxmGeometry
from ..lattice_rotations import DEGREE, LatticeRotations, variance_along
from .orientation import orientation_of


def grod(
    dataset: xr.Dataset,
    domains: xr.Dataset | None = None,
    *,
    reference_pixel: Annotated[
        tuple[int, int] | None, Says("row and column of the reference lattice, instead of the mean")
    ] = None,
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """Misorientation of each pixel to the mean lattice of its domain or of the whole grain, or to a pixel's.

    dataset: Orientation map, or a map with motor positions, of which `orientation` is taken.
    domains: Map of `domains` over the same pixels; without it all pixels are one grain.
    Returns `grod` (deg) and its standard deviation.
    """
    image_dims(dataset)
    lattice_map = orientation_of(dataset, geometry)
    field = LatticeRotations.of(lattice_map)
    known = field.known.numpy()
    label = np.where(known, 0, -1) if domains is None else _labels(domains, known.shape)
    flat = field.flat()
    if reference_pixel is not None:
        if domains is not None:
            raise InputError("grod takes domains or reference_pixel, not both; leave one of them out")
        mean = _pixel(field, known, reference_pixel)
        label = np.where(known, 0, -1)
    else:
        mean = flat.means(label.ravel(), max(1, int(label.max(initial=0)) + 1))
    member = np.flatnonzero((label.ravel() >= 0) & known.ravel())
    reference = mean[torch.from_numpy(label.ravel()[member])]
    vector = reference.to(flat[torch.from_numpy(member)])
    values, std = (np.full(known.size, np.nan) for _ in range(2))
    values[member] = vector.norm(dim=-1).numpy() / DEGREE
    result = xr.Dataset({"grod": variable(values.reshape(known.shape), "deg", "misorientation to the reference lattice")})
    if flat.covariance is not None:
        both = flat.covariance[torch.from_numpy(member)]
        if reference.covariance is not None:
            both = both + reference.covariance
        std[member] = variance_along(vector, both).sqrt().numpy() / DEGREE
        result["grod_std"] = variable(std.reshape(known.shape), "deg", "standard deviation of grod")
    result["flag"] = carried_flag(lattice_map, {"in_no_domain": known & (label < 0)})
    result.attrs = {**pixel_attributes(lattice_map, geometry), **cautions(str(lattice_map.attrs.get("caution", "")))}
    return result


def _labels(domains: xr.Dataset, shape: tuple[int, ...]) -> np.ndarray:
    """The domain of each pixel from 0, -1 for none."""
    if "label" not in domains or domains["label"].shape != shape:
        raise InputError(f"domains must be a map of `domains` over the same {shape[0]} x {shape[1]} pixels")
    return np.asarray(domains["label"].values, np.int64) - 1


def _pixel(field: LatticeRotations, known: np.ndarray, pixel: tuple[int, int]) -> LatticeRotations:
    """The lattice of one pixel, as a row of one."""
    row, column = pixel
    if not (0 <= row < known.shape[0] and 0 <= column < known.shape[1] and known[row, column]):
        raise InputError(f"reference_pixel must be a pixel with an orientation, got row {row}, column {column} of {known.shape}")
    return field[row, column : column + 1]
