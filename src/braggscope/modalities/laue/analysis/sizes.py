"""Grain sizes: lengths of grains along x and y, and roots of their areas, with distributions fitted to them.

A grain is a connected region of one label of at least three points. A length along x is that of an intercept: points of one
grain in a row, times the step; a line through the map meets large grains more often, so that intercepts are weighted by size, as
everywhere in stereology (ASTM E112). The grain size is the root of the mean area.

The border of a map cuts grains, which makes the mean area too small by about the share of cut ones over two; `planimetric_um`
counts those for one half (Jeffries' method, ASTM E112 sec. 11): root of the area of all over (inside + at the border / 2). A map
that is few grains wide needs it; `whole` leaves cut grains out instead, which prefers small ones.

Intercepts of one grain in neighbouring rows are of nearly the same length: the errors of their mean and variance are from the
scatter between grains (clusters, Cochran 1977, Sampling Techniques, sec. 6.3 and 9A), not between intercepts.

Sizes are whole numbers n of steps. The Gaussian and the log-normal distribution of the length l = n step are fitted as the
probability between n - 1/2 and n + 1/2, the Poisson distribution as that of n, all given n >= 1, by maximum likelihood; so their
values of Akaike's criterion compare (Burnham & Anderson 2002, sec. 2.2 and 2.9.1 for the weights). Whether a distribution fits
at all is tested by Kolmogorov-Smirnov's distance against samples drawn from the fit and fitted in turn (Lilliefors 1967).
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError

from ..distributions import MODELS, fitted, p_value
from ..grain_maps import Regions, labels_of, regions_of, steps_um, whole_or_all

MEASURES = ("along_x", "along_y", "by_area")
FLAGS = {1: "too_few_to_fit", 2: "none_fits"}
FEWEST = 8  # sizes, from which on a distribution is fitted
UNLIKELY = 0.05


def sizes(
    dataset: xr.Dataset,
    *,
    whole: Annotated[bool, Says("leave out grains that the border of the map or missing points cut")] = False,
    threshold: Annotated[float, Says("misorientation of a boundary, for a map without grains", unit="deg")] = 5.0,
    material: Annotated[str | None, Says("name or CIF file; left out: that of the map")] = None,
    draws: Annotated[int, Says("samples drawn to test a fit; 0: none")] = 99,
    seed: Annotated[int, Says("of these samples")] = 0,
) -> xr.Dataset:
    """Distribution of grain sizes along x, along y and by area: mean, variance, and which distribution describes it.

    dataset: Map with `grain`, or with orientations, of which grains are made.
    Returns over measure number, mean, variance and the preferred distribution; over fit the parameters, `aic`, weight, `ks` and
    `p_value` of each; over size the histograms. Attributes: `grain_size_um` (root of the mean area), its error, `grains`.
    Raises InputError for a map without grains of three points.
    """
    if draws < 0:
        raise InputError(f"draws must be 0 or more, got {draws}")
    label = labels_of(dataset, threshold_deg=threshold, material=material)
    dy, dx = steps_um(dataset)
    regions = regions_of(label)
    use = whole_or_all(regions, whole)
    points = regions.points[use]
    cuts = {"along_x": intercepts(regions, 1, whole), "along_y": intercepts(regions, 0, whole)}
    lengths = {name: length for name, (length, _) in cuts.items()} | {"by_area": np.sqrt(points)}
    grains = {name: grain for name, (_, grain) in cuts.items()} | {"by_area": np.arange(len(points))}
    steps = {"along_x": dx, "along_y": dy, "by_area": math.sqrt(dx * dy)}
    random = np.random.default_rng(seed)
    fits = [_fits(name, lengths[name], steps[name], draws, random) for name in MEASURES]
    made = xr.Dataset(_measures(lengths, grains, steps, fits) | _fit_table(fits) | _histograms(lengths, steps))
    made = made.assign_coords(measure=("measure", list(MEASURES)))
    area = points * dx * dy
    size = math.sqrt(area.mean())
    error = size * area.std(ddof=1) / area.mean() / math.sqrt(len(area)) / 2 if len(area) > 1 else math.nan
    made.attrs = {
        "grain_size_um": size,
        "planimetric_um": math.sqrt(regions.points.sum() * dx * dy / (len(regions) - regions.at_border.sum() / 2)),
        "grain_size_um_std": error, "grain_size_points": math.sqrt(points.mean()), "grains": int(use.sum()),
        "in_no_grain": int((regions.number == 0).sum()),
    }  # fmt: skip
    return made


def intercepts(regions: Regions, axis: int, whole: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Lengths in points of the intercepts along an axis, and the region that each is of.

    whole: Without those that end at the border of the map or at points without grain.
    """
    lines = np.moveaxis(regions.number, axis, 1)
    padded = np.pad(lines, ((0, 0), (1, 1)), constant_values=0).ravel()
    ends = np.flatnonzero(np.diff(padded) != 0) + 1
    first, after = ends[:-1], ends[1:]
    inside = padded[first] > 0
    if whole:
        inside &= (padded[first - 1] > 0) & (padded[after] > 0)
    return (after - first)[inside], padded[first][inside]


def _error_of_mean(values: np.ndarray, group: np.ndarray) -> float:
    """Standard deviation of the mean of values that are alike within a group; the mean is a ratio of sums over groups."""
    own = np.unique(group, return_inverse=True)[1]
    many = own.max() + 1
    if many < 2:
        return math.nan
    away = np.bincount(own, values - values.mean())
    return math.sqrt(many / (many - 1) * (away**2).sum()) / len(values)


def _fits(name: str, size: np.ndarray, step: float, draws: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """The rows of one measure in the table of fits."""
    counts = np.bincount(np.maximum(np.rint(size).astype(int), 1))
    rows = []
    for model in MODELS:
        row: dict[str, Any] = {"of": name, "distribution": model, "flag": 0}
        if counts.sum() < FEWEST or (counts > 0).sum() < 2:
            rows.append(row | dict.fromkeys(("location", "width", "aic", "ks", "p_value"), math.nan) | {"flag": 1})
            continue
        fit = fitted(model, counts)
        p = p_value(fit, counts, draws, random) if draws else math.nan
        scale = 1.0 if model == "Poisson" else step
        location, width = (fit.parameters[0] + math.log(step), fit.parameters[1]) if model == "log-normal" else (
            scale * fit.parameters[0], scale * fit.parameters[1])  # fmt: skip
        rows.append(row | {"location": location, "width": width, "aic": fit.aic, "ks": fit.distance(counts), "p_value": p})
    aic = np.array([r["aic"] for r in rows])
    weight = np.exp(-(aic - np.nanmin(aic)) / 2) if np.isfinite(aic).any() else np.full(len(rows), np.nan)
    return [
        r | {"weight": w} for r, w in zip(rows, weight / np.nansum(weight) if np.isfinite(weight).any() else weight, strict=True)
    ]


def _measures(
    lengths: dict[str, np.ndarray], grains: dict[str, np.ndarray], steps: dict[str, float], fits: list[list[dict[str, Any]]]
) -> dict[str, Any]:
    """Mean and variance of each measure, the preferred distribution, and the flags."""
    count, mean, mean_std, variance, variance_std = np.full((5, len(MEASURES)), np.nan)
    preferred, flag = [], np.zeros(len(MEASURES), np.int32)
    for i, name in enumerate(MEASURES):
        size = lengths[name] * steps[name]
        count[i] = len(size)
        if len(size) > 1:
            mean[i], variance[i] = size.mean(), size.var(ddof=1)
            mean_std[i] = _error_of_mean(size, grains[name])
            variance_std[i] = _error_of_mean((size - mean[i]) ** 2, grains[name])
        elif len(size):
            mean[i] = size[0]
        if fits[i][0]["flag"]:
            preferred.append("none")
            flag[i] = 1
        else:
            preferred.append(str(min(fits[i], key=lambda r: r["aic"])["distribution"]))
            flag[i] = 2 if all(r["p_value"] < UNLIKELY for r in fits[i]) else 0
    about = {"long_name": "why a distribution is doubtful (0 = good)", "flag_masks": np.array(list(FLAGS), np.int32)}
    return {
        "count": ("measure", count, _said("1", "intercepts, or grains")),
        "mean": ("measure", mean, _said("um", "mean size")),
        "mean_std": ("measure", mean_std, _said("um", "standard deviation of mean")),
        "variance": ("measure", variance, _said("um^2", "variance of the sizes")),
        "variance_std": ("measure", variance_std, _said("um^2", "standard deviation of variance")),
        "preferred": ("measure", np.array(preferred), _said("", "distribution with the lowest aic")),
        "flag": ("measure", flag, about | {"flag_meanings": " ".join(FLAGS.values())}),
    }


def _fit_table(fits: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """The fits, one a row."""
    rows = [row for group in fits for row in group]
    columns = {
        "of": ("", "measure"), "distribution": ("", "distribution"),
        "location": ("um", "mean of the Gaussian (um), of the logarithm of um (1), of points (1)"),
        "width": ("um", "standard deviation of the Gaussian (um), of the logarithm (1), of points (1)"),
        "aic": ("1", "Akaike's criterion"), "weight": ("1", "Akaike weight among the three"),
        "ks": ("1", "Kolmogorov-Smirnov distance"), "p_value": ("1", "part of samples of the fit that are farther from theirs"),
    }  # fmt: skip
    return {f"fit_{n}": ("fit", np.array([r[n] for r in rows]), _said(*said)) for n, said in columns.items()}


def _histograms(lengths: dict[str, np.ndarray], steps: dict[str, float]) -> dict[str, Any]:
    """How many sizes there are of each number of points."""
    points = {n: np.maximum(np.rint(v).astype(int), 1) for n, v in lengths.items()}
    most = max((int(v.max()) for v in points.values() if len(v)), default=1)
    found: dict[str, Any] = {"points": ("size", np.arange(1, most + 1), _said("1", "points"))}
    for name, values in points.items():
        found[f"number_{name}"] = ("size", np.bincount(values, minlength=most + 1)[1:].astype(float), _said("1", f"sizes {name}"))
        found[f"step_{name}"] = ((), steps[name], _said("um", f"length of a point {name}"))
    return found


def _said(unit: str, words: str) -> dict[str, Any]:
    return {"units": unit, "long_name": words}
