"""Domains: regions of nearly the same lattice, walls of high misorientation around them, and a table of both.

The image is cut along the ridges of the local rotation and put together again across every wall whose misorientation, averaged
over the length of the wall, does not stand above the threshold by two of its standard deviations (`_regions.py`). A bent crystal
without walls is one domain, unless `within` says how far its mean lattices may be apart; noise makes no domains.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import torch
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError

from ..carried import carried_flag, cautions, image_dims, pixel_attributes, variable
from ..geometry import DfxmGeometry
from ..lattice_rotations import DEGREE, ROTATIONS, LatticeRotations, variance_along
from . import _regions
from .orientation import orientation_of


def domains(
    dataset: xr.Dataset,
    strain: xr.Dataset | None = None,
    *,
    threshold: Annotated[float, Says("least misorientation across a wall", unit="deg")] = 0.1,
    within: Annotated[
        float | None, Says("regions whose mean lattices differ by more stay apart without a wall", unit="deg")
    ] = None,
    reach: Annotated[int, Says("distance over which a wall is measured, at least its width", unit="px")] = 4,
    smooth: Annotated[float, Says("standard deviation of the smoothing before walls are looked for", unit="px")] = 1.0,
    smallest: Annotated[int, Says("smaller domains are joined to the neighbour with the lowest wall", unit="px")] = 25,
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """Domains of nearly the same lattice, with a table of them and of the walls between them.

    dataset: Orientation map, or a map with motor positions, of which `orientation` is taken.
    strain: Map of `strain` over the same pixels, for the mean strain of each domain.
    Returns `label` (row, column), 0 for none; per domain its size, centre, mean rotation (without pixels beside another domain)
    and spread; per wall its two domains, misorientation across it and between the mean lattices. The largest domain is number 1.
    """
    image_dims(dataset)
    _check({"threshold": threshold, "within": within, "smooth": smooth}, {"reach": reach, "smallest": smallest})
    lattice_map = orientation_of(dataset, geometry)
    field = LatticeRotations.of(lattice_map)
    known = field.known.numpy()
    if not known.any():
        raise InputError("the map has no pixel with an orientation")
    piece = _regions.pieces(_regions.turning(field, known, smooth), known)
    walls = _regions.walls_between(piece, field, reach)
    flat, pieces = field.flat(), int(piece.max())
    centres = np.vstack([np.zeros(3), flat.means(piece.ravel() - 1, pieces).vectors_from()])
    limit = math.inf if within is None else within
    parent, beside = _regions.merged(walls, np.bincount(piece.ravel()), centres, threshold, limit, smallest)
    label, number = _numbered(parent[piece], known, smallest)
    count = int(label.max())
    means = flat.means(_inner(label).ravel() - 1, count)
    pixel = pixel_attributes(lattice_map, geometry)
    found: dict[str, Any] = {"label": variable(label.astype(np.int32), "1", "number of the domain, largest first (0: none)")}
    found |= _table(label, flat, means, pixel)
    found |= _strains(strain, label, count)
    found |= _wall_table(beside, number, means)
    reasons = {"in_no_domain": known & (label == 0)}
    found["flag"] = carried_flag(lattice_map, reasons)
    coords = {"domain": ("domain", np.arange(1, count + 1), {"long_name": "number of the domain"})}
    result = xr.Dataset(found, coords=coords)
    said = str(lattice_map.attrs.get("caution", ""))
    result.attrs = {"domains": count, "walls": int(result.sizes["wall"]), **pixel, **cautions(said)}
    return result


def _check(positive: dict[str, float | None], whole: dict[str, int]) -> None:
    """Raise InputError for options that cannot be."""
    for name, value in positive.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be positive, got {value:g}")
    for name, pixels in whole.items():
        if pixels < 1:
            raise InputError(f"{name} must be at least 1 pixel, got {pixels}")


def _numbered(region: np.ndarray, known: np.ndarray, smallest: int) -> tuple[np.ndarray, dict[int, int]]:
    """Regions numbered from 1 by falling size, and the number of each; those left too small (islands) are 0."""
    which, sizes = np.unique(region[known], return_counts=True)
    order = np.lexsort((which, -sizes))
    kept = [int(which[i]) for i in order if sizes[i] >= min(smallest, sizes.max())]
    number = {name: i for i, name in enumerate(kept, start=1)}
    table = np.zeros(int(region.max()) + 1, np.int64)
    for name, i in number.items():
        table[name] = i
    return np.where(known, table[region], 0), number


def _inner(label: np.ndarray) -> np.ndarray:
    """The domains without their pixels beside another one, whose lattice may be the other's; whole where nothing else is left."""
    inner = label.copy()
    for axis in (0, 1):
        for near, far in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
            here = (near, slice(None)) if axis == 0 else (slice(None), near)
            there = (far, slice(None)) if axis == 0 else (slice(None), far)
            inner[here] = np.where((label[there] > 0) & (label[there] != label[here]), 0, inner[here])
    gone = np.setdiff1d(label, inner)
    return np.where(np.isin(label, gone), label, inner)


def _table(
    label: np.ndarray, flat: LatticeRotations, means: LatticeRotations, pixel: dict[str, float]
) -> dict[str, xr.DataArray]:
    """Size, centre, mean rotation and spread of each domain."""
    count, where = int(label.max()), label.ravel()
    member = np.flatnonzero(where)
    group = where[member] - 1
    size = np.bincount(group, minlength=count)
    rows, columns = np.unravel_index(member, label.shape)
    found = {"size": variable(size.astype(float), "px", "pixels of the domain", ("domain",))}
    if len(pixel) == 2:
        area = size * pixel["pixel_row_um"] * pixel["pixel_column_um"]
        found["area"] = variable(area, "um^2", "area of the domain in the sample", ("domain",))
    for name, place in (("centre_row", rows), ("centre_column", columns)):
        mean = np.bincount(group, place, count) / size
        found[name] = variable(mean, "px", f"mean {name.removeprefix('centre_')} of the domain", ("domain",))
    vector = means.vectors_from()
    for i, name in enumerate(ROTATIONS):
        found[f"mean_{name}"] = variable(vector[:, i], "deg", f"{name} of the mean lattice", ("domain",))
        if means.covariance is not None:
            std = means.covariance[:, i, i].sqrt().numpy() / DEGREE
            found[f"mean_{name}_std"] = variable(std, "deg", f"standard deviation of mean_{name}", ("domain",))
    away = means[torch.from_numpy(group)].to(flat[torch.from_numpy(member)]).norm(dim=-1).numpy() / DEGREE
    spread = np.sqrt(np.bincount(group, away**2, count) / size)
    found["spread"] = variable(spread, "deg", "root mean square misorientation to the mean lattice, noise included", ("domain",))
    if flat.covariance is not None:
        trace = flat.covariance[torch.from_numpy(member)].diagonal(dim1=-2, dim2=-1).sum(-1).numpy() / DEGREE**2
        noise = np.sqrt(np.bincount(group, trace, count) / size)
        found["spread_by_noise"] = variable(noise, "deg", "what the errors of the pixels alone would make of spread", ("domain",))
    return found


def _strains(strain: xr.Dataset | None, label: np.ndarray, count: int) -> dict[str, xr.DataArray]:
    """Mean strain of each domain and its error, where there is a strain map; pixels with smaller errors weigh more."""
    if strain is None:
        return {}
    if "strain" not in strain or strain["strain"].shape != label.shape:
        raise InputError(f"strain must be a map of `strain` over the same {label.shape[0]} x {label.shape[1]} pixels")
    values = strain["strain"].values
    error = strain["strain_std"].values if "strain_std" in strain else np.ones_like(values)
    use = np.isfinite(values) & (error > 0) & (label > 0)
    group, weight = label[use] - 1, 1 / error[use] ** 2
    total = np.bincount(group, weight, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, std = np.bincount(group, weight * values[use], count) / total, 1 / np.sqrt(total)
    mean, std = np.where(total > 0, mean, np.nan), np.where(total > 0, std, np.nan)
    found = {"mean_strain": variable(mean, "1", "mean axial strain, weighted with its errors", ("domain",))}
    if "strain_std" in strain:
        found["mean_strain_std"] = variable(std, "1", "standard deviation of mean_strain", ("domain",))
    return found


def _wall_table(
    beside: list[dict[int, _regions.Wall]], number: dict[int, int], means: LatticeRotations
) -> dict[str, xr.DataArray]:
    """The walls: their two domains, pairs of pixels, misorientation across, and that of the mean lattices."""
    rows = []
    for a, i in number.items():
        for b, wall in beside[a].items():
            if b in number and i < number[b]:
                rows.append((i, number[b], wall.pairs, wall.angle, wall.std))
    table = np.array(sorted(rows), float).reshape(-1, 5)
    one, other = (means[torch.from_numpy(table[:, k].astype(np.int64) - 1)] for k in (0, 1))
    between = one.to(other)
    across = {
        "wall_domain_a": (table[:, 0], "1", "domain on one side"),
        "wall_domain_b": (table[:, 1], "1", "domain on the other side"),
        "wall_pairs": (table[:, 2], "1", "pairs of pixels across the wall"),
        "wall_step": (table[:, 3], "deg", "mean misorientation across the wall"),
        "wall_misorientation": (between.norm(dim=-1).numpy() / DEGREE, "deg", "misorientation of the two mean lattices"),
    }
    if one.covariance is not None and other.covariance is not None:
        std = variance_along(between, one.covariance + other.covariance).sqrt().numpy() / DEGREE
        across["wall_step_std"] = (table[:, 4], "deg", "standard deviation of wall_step")
        across["wall_misorientation_std"] = (std, "deg", "standard deviation of wall_misorientation")
    return {name: variable(values, unit, text, ("wall",)) for name, (values, unit, text) in across.items()}
