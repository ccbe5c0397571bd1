"""Grains: a table of the grains of a map, and of the boundaries between them with their misorientations.

A grain is a connected region of one label of at least three points. Its mean orientation is that of its points, each as the
equivalent nearest to the mean. Where the map has errors, points with smaller ones weigh more, and the error of the mean is the
root mean square of theirs: neighbouring points share the light of one beam, so that their errors are taken as common, not as
independent.

A boundary is where two grains touch. Its length is the hypotenuse of its edges along y and along x, right for a straight one at
any angle; the number of edges alone is up to 1.41 times too large. Its misorientation is that of the two mean orientations, with
the smallest angle of all equivalents (`misorientation`); a Sigma 3 boundary of a cubic crystal is one within 15 deg / sqrt(3) of
60 deg about [111] (Brandon 1966, Acta Metall. 14, 1479).
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.maps import carried_flag
from braggscope.physics.crystals import Crystal

from ..grain_maps import (
    LEAST,
    ORIENTATION,
    Regions,
    crystal_attribute,
    crystal_of_map,
    labels_of,
    matrices_of,
    regions_of,
    steps_um,
    two_axes,
    whole_or_all,
)  # fmt: skip
from ..indexing.indexed import rotation_vectors
from ..misorientation import axes, from_twin, means, random_mean, smallest

STRAIN = tuple(f"strain_{n}" for n in ("xx", "yy", "zz", "yz", "xz", "xy"))
BRANDON_DEG = 15.0
CUBIC = 24  # rotations of the Laue class m-3m


def grains(
    dataset: xr.Dataset,
    *,
    threshold: Annotated[float, Says("misorientation of a boundary, for a map without grains", unit="deg")] = 5.0,
    least: Annotated[int, Says("points of a grain, at least")] = LEAST,
    material: Annotated[str | None, Says("name or CIF file; left out: that of the map")] = None,
) -> xr.Dataset:
    """Grains of a map and the boundaries between them: area, shape, mean orientation and strain, misorientations, Sigma 3.

    dataset: Map with `grain` or with orientations, of which grains are made.
    Returns `number` (y, x), 0 for none; over grain the label, area, centre, extents, elongation, and, where the map has them,
    mean orientation, spread, strains and fraction; over boundary the two grains, length, misorientation angle and axis and the
    angle to Sigma 3. The largest grain is number 1.
    Raises InputError for a map without grains or without the material that orientations need.
    """
    label = labels_of(dataset, threshold_deg=threshold, material=material)
    steps, (slow, fast) = steps_um(dataset), two_axes(dataset)
    regions = regions_of(label, least=least)
    whole_or_all(regions, False)
    dims = dataset["flag"].dims
    found: dict[str, Any] = {"number": (dims, regions.number.astype(np.int32), _said("1", "number of the grain, largest first"))}
    found |= _shapes(regions, steps, dataset[slow].values, dataset[fast].values)
    found |= _averages(dataset, regions)
    crystal, mean = None, None
    if all(name in dataset for name in ORIENTATION):
        crystal = crystal_of_map(dataset, material)
        mean, table = _orientations(dataset, regions, crystal)
        found |= table
    a, b, length = borders(regions, steps)
    found |= {
        "grain_a": ("boundary", a.astype(float), _said("1", "grain on one side")),
        "grain_b": ("boundary", b.astype(float), _said("1", "grain on the other side")),
        "length": ("boundary", length, _said("um", "length of the boundary, summed over its parts")),
    }
    attrs: dict[str, Any] = {"grains": len(regions), "boundaries": len(a), "boundary_length_um": float(length.sum())}
    if crystal is not None and mean is not None:
        table, more = _misorientations(found, a - 1, b - 1, length, mean, crystal)
        found, attrs = found | table, attrs | more | {"crystal": crystal_attribute(crystal), "material": crystal.name}
    found["flag"] = carried_flag(dataset, {"in_no_grain": regions.number == 0})
    number = ("grain", np.arange(1, len(regions) + 1), {"long_name": "number of the grain"})
    kept = {name: dataset.attrs[name] for name in ("orientation_frame",) if name in dataset.attrs}
    return xr.Dataset(found, {**{n: dataset[n] for n in (slow, fast)}, "grain": number}, attrs | kept)


def borders(regions: Regions, steps: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The grains that touch, the smaller number first, and the length of each boundary, um; shapes (boundary,)."""
    number, pairs, edges = regions.number, [], []
    for axis, step in ((0, (0.0, steps[1])), (1, (steps[0], 0.0))):  # an edge between neighbours along y runs along x
        near, far = (np.moveaxis(number, axis, 0)[part].ravel() for part in (slice(None, -1), slice(1, None)))
        apart = (near != far) & (near > 0) & (far > 0)
        pairs.append(np.sort(np.stack([near[apart], far[apart]], 1), axis=1))
        edges.append(np.tile(step, (apart.sum(), 1)))
    every, which = np.unique(np.concatenate(pairs), axis=0, return_inverse=True)
    total = np.zeros((len(every), 2))
    np.add.at(total, which.ravel(), np.concatenate(edges))
    return every[:, 0], every[:, 1], np.hypot(*total.T)


def _shapes(regions: Regions, steps: tuple[float, float], y: np.ndarray, x: np.ndarray) -> dict[str, Any]:
    """Label, area, centre, extents and elongation of each grain.

    Elongation: ratio of the axes of the ellipse with the same second moments (those of the points' own rectangles included), and
    the angle of its long axis.
    """
    count = len(regions)
    row, column = np.nonzero(regions.number)
    group = regions.number[row, column] - 1
    place = {"y": row * steps[0], "x": column * steps[1]}
    centre = {n: np.bincount(group, v, count) / regions.points for n, v in place.items()}
    off = {n: v - centre[n][group] for n, v in place.items()}
    yy, xx, xy = (np.bincount(group, off[a] * off[b], count) / regions.points for a, b in (("y", "y"), ("x", "x"), ("x", "y")))
    yy, xx = yy + steps[0] ** 2 / 12, xx + steps[1] ** 2 / 12
    middle, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    extent = {n: _extent(group, v, count) + step for (n, v), step in zip(place.items(), steps, strict=True)}
    sign = {"y": np.sign(y[-1] - y[0]) or 1.0, "x": np.sign(x[-1] - x[0]) or 1.0}
    return {
        "label": ("grain", regions.label.astype(float), _said("1", "label of the grain in the map")),
        "points": ("grain", regions.points.astype(float), _said("1", "points of the grain")),
        "area": ("grain", regions.points * steps[0] * steps[1], _said("um^2", "area of the grain")),
        "centre_y": ("grain", y[0] + sign["y"] * centre["y"], _said("um", "mean y of the grain")),
        "centre_x": ("grain", x[0] + sign["x"] * centre["x"], _said("um", "mean x of the grain")),
        "extent_y": ("grain", extent["y"], _said("um", "extent of the grain along y")),
        "extent_x": ("grain", extent["x"], _said("um", "extent of the grain along x")),
        "elongation": ("grain", np.sqrt((middle + half) / (middle - half)), _said("1", "long over short axis of the grain")),
        "long_axis": ("grain", np.rad2deg(np.arctan2(2 * sign["x"] * sign["y"] * xy, xx - yy)) / 2,
                      _said("deg", "direction of the long axis, from x towards y")),
        "cut": ("grain", regions.cut.astype(float), _said("1", "1: the border or missing points may cut the grain")),
    }  # fmt: skip


def _extent(group: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, group, place)
    np.maximum.at(high, group, place)
    return high - low


def _averages(dataset: xr.Dataset, regions: Regions) -> dict[str, Any]:
    """Means of strains and fraction over each grain, weighted by their errors where the map has them, and those of the means."""
    found: dict[str, Any] = {}
    for name in (*STRAIN, "fraction"):
        if name not in dataset:
            continue
        std = dataset[f"{name}_std"].values if f"{name}_std" in dataset else None
        mean, error = _mean(dataset[name].values, std, regions)
        said = str(dataset[name].attrs.get("long_name", name))
        found[f"mean_{name}"] = ("grain", mean, _said(str(dataset[name].attrs.get("units", "1")), f"mean {said}"))
        if std is not None:
            found[f"mean_{name}_std"] = (
                "grain",
                error,
                _said(str(dataset[name].attrs.get("units", "1")), f"standard deviation of mean_{name}"),
            )
    return found


def _mean(values: np.ndarray, std: np.ndarray | None, regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and root mean square error of each grain, (grain,); NaN where nothing is known."""
    use = np.isfinite(values) & (regions.number > 0)
    if std is not None:
        use &= np.isfinite(std) & (std > 0)
    group, count = regions.number[use] - 1, len(regions)
    weight = np.ones(use.sum()) if std is None else 1 / std[use] ** 2
    total = np.bincount(group, weight, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(group, weight * values[use], count) / total
        error = np.full(count, np.nan) if std is None else np.sqrt(np.bincount(group, minlength=count) / total)
    return mean, error


def _orientations(dataset: xr.Dataset, regions: Regions, crystal: Crystal) -> tuple[np.ndarray, dict[str, Any]]:
    """Mean orientation of each grain, NaN where none is known, and the columns of the table."""
    u = matrices_of(dataset)
    stds = np.stack(
        [dataset[f"{n}_std"].values if f"{n}_std" in dataset else np.full(u.shape[:2], np.nan) for n in ORIENTATION], -1
    )
    errors = bool(np.isfinite(stds).all(-1).any())
    use = np.isfinite(u).all((-2, -1)) & (regions.number > 0)
    if errors:
        use &= np.isfinite(stds).all(-1) & (stds > 0).any(-1)
    group, count = regions.number[use] - 1, len(regions)
    weight = 1 / (stds[use] ** 2).mean(-1) if errors else np.ones(len(group))
    mean = means(u[use], group, count, crystal.rotations, weight)
    known = np.bincount(group, minlength=count) > 0
    mean[~known] = np.nan
    away = smallest(mean[group], u[use], crystal.rotations)[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.bincount(group, away**2, count) / np.bincount(group, minlength=count))
    vector = np.full((count, 3), np.nan)
    vector[known] = rotation_vectors(mean[known], crystal)
    found: dict[str, Any] = {}
    for i, name in enumerate(ORIENTATION):
        found[f"mean_{name}"] = ("grain", vector[:, i], _said("deg", f"rotation of the mean lattice about {name[-1]}"))
        if errors:
            values = np.where(np.isfinite(stds[..., i]), 0.0, np.nan)
            said = f"standard deviation of a turn of the mean lattice about {name[-1]}"
            found[f"mean_{name}_std"] = ("grain", _mean(values, stds[..., i], regions)[1], _said("deg", said))
    found["spread"] = ("grain", spread, _said("deg", "root mean square misorientation to the mean lattice, noise included"))
    return mean, found


def _misorientations(
    found: dict[str, Any], a: np.ndarray, b: np.ndarray, length: np.ndarray, mean: np.ndarray, crystal: Crystal
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Misorientation of each boundary, and what is to be said of all."""
    between, angle = smallest(mean[a], mean[b], crystal.rotations)
    axis = np.full((len(a), 3), np.nan)
    known = np.isfinite(angle)
    axis[known] = axes(between[known], crystal.rotations)
    table: dict[str, Any] = {"angle": ("boundary", angle, _said("deg", "misorientation angle"))}
    if f"mean_{ORIENTATION[0]}_std" in found:
        table["angle_std"] = ("boundary", _angle_error(found, a, b, mean, between), _said("deg", "standard deviation of angle"))
    for i, n in enumerate("xyz"):
        table[f"axis_{n}"] = ("boundary", axis[:, i], _said("1", f"axis of the misorientation along {n} of the crystal"))
    total = float(length[known].sum())
    attrs: dict[str, Any] = {
        "mean_angle_deg": float(length[known] @ angle[known] / total) if total > 0 else math.nan,
        "mean_angle_of_random_deg": random_mean(crystal.rotations),
    }
    if len(crystal.rotations) == CUBIC:
        off = np.full(len(a), np.nan)
        off[known] = from_twin(between[known], crystal.rotations)
        table["from_sigma_3"] = ("boundary", off, _said("deg", "angle from the Sigma 3 misorientation, 60 deg about [111]"))
        twin = off <= BRANDON_DEG / math.sqrt(3)
        share, number, twins = float(length[twin].sum() / total) if total > 0 else math.nan, int(known.sum()), int(twin.sum())
        attrs |= {
            "sigma_3_of_length": share, "sigma_3_of_boundaries": twins / max(number, 1),
            "sigma_3_of_boundaries_std": math.sqrt((twins + 1) * (number - twins + 1) / (number + 2) ** 2 / (number + 3)),
        }  # fmt: skip
    return table, attrs


def _angle_error(found: dict[str, Any], a: np.ndarray, b: np.ndarray, mean: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Standard deviation of the angle, deg: the errors of the two grains along the axis, in the laboratory.

    At angles of the size of the errors it is that of a component, which an angle is not.
    """
    from scipy.spatial.transform import Rotation

    std = np.stack([found[f"mean_{n}_std"][1] for n in ORIENTATION], -1)
    variance = std[a] ** 2 + std[b] ** 2
    error = np.full(len(a), np.nan)
    known = np.isfinite(between).all((-2, -1))
    vector = Rotation.from_matrix(between[known]).as_rotvec()
    size = np.linalg.norm(vector, axis=1, keepdims=True)
    axis = np.einsum("nij,nj->ni", mean[a][known], vector / np.where(size > 0, size, 1))
    error[known] = np.sqrt(np.where(size[:, 0] > 0, (axis**2 * variance[known]).sum(1), variance[known].mean(1)))
    return error


def _said(unit: str, words: str) -> dict[str, Any]:
    return {"units": unit, "long_name": words}
