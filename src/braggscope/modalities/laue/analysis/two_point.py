"""Two-point correlation of grains: how likely two points a distance apart lie in the same grain.

    P(d) = pairs of points d apart with the same label / pairs of points d apart with a label

(Torquato 2002, Random Heterogeneous Materials, sec. 2.4, for labels). FWHM is twice the distance at which P is 0.5, interpolated
between the points of the scan. P is taken on the points of the scan; in a direction between them it is interpolated linearly
among the four nearest displacements, which is wider than the truth by a little at the first steps.

Errors are those of a finite number of grains: a bootstrap that draws grains (all pairs of points whose first point is in a grain,
together), since points of one grain are no independent witnesses (Efron & Tibshirani 1993, sec. 8).
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError

from ..grain_maps import labels_of, steps_um

HALF = 0.5
DRAWS = 400  # of the bootstrap: its standard deviation is known to 3.5 %
FEW = 10  # pairs of points, below which a distance has no value
SIDE = 25  # displacements of the picture in two dimensions along each half axis, at most
FLAGS = {1: "never_below_half", 2: "few_grains"}
FEW_GRAINS = 10


def two_point(
    dataset: xr.Dataset,
    *,
    direction_deg: Annotated[tuple[float, ...], Says("further directions, from x towards y", unit="deg")] = (),
    reach: Annotated[float | None, Says("largest distance; left out: some grain sizes, half the map at most", unit="um")] = None,
    threshold: Annotated[float, Says("misorientation of a boundary, for a map without grains", unit="deg")] = 5.0,
    material: Annotated[str | None, Says("name or CIF file; left out: that of the map")] = None,
    seed: Annotated[int, Says("of the bootstrap")] = 0,
) -> xr.Dataset:
    """Probability that two points lie in the same grain, against their distance along x, y and other directions, with FWHM.

    dataset: Map with `grain`, or with orientations, of which grains are made.
    Returns over distance `along_x`, `along_y`, `along_30deg` ..., over direction `fwhm`, and `same_grain` over displacements in
    the plane; as attributes `anisotropy` (FWHM along x over that along y) with its error. The standard deviations are those of a
    finite number of grains.
    Raises InputError for a map without grains or without steps, and for a reach below a step.
    """
    label = labels_of(dataset, threshold_deg=threshold, material=material)
    dy, dx = steps_um(dataset)
    most = _reach(label, (dy, dx), reach)
    names = {"x": 0.0, "y": 90.0} | {f"{angle:g}deg": float(angle) for angle in direction_deg}
    distance = np.arange(0, math.floor(most / min(dy, dx) + 1e-9) + 1) * min(dy, dx)
    places = {n: _displacements(distance, angle, (dy, dx)) for n, angle in names.items()}
    lags = np.unique(np.concatenate([lag.reshape(-1, 2) for lag, _ in places.values()]), axis=0)
    same, pairs = pair_counts(label, lags)
    drawn = _drawn(same, pairs, label, np.random.default_rng(seed))
    row = {tuple(lag): i for i, lag in enumerate(lags.tolist())}
    columns: dict[str, Any] = {}
    widths, replicas = [], []
    for name, (lag, weight) in places.items():
        at = np.array([row[tuple(one)] for one in lag.reshape(-1, 2).tolist()]).reshape(weight.shape)
        curve, curves = ((p[..., at] * weight).sum(-1) for p in (_ratio(same.sum(1), pairs.sum(1)), drawn))
        columns[f"along_{name}"] = ("distance", curve, _said("1", f"probability of the same grain along {name}"))
        columns[f"along_{name}_std"] = ("distance", curves.std(0), _said("1", f"standard deviation of along_{name}"))
        columns[f"pairs_{name}"] = ("distance", pairs.sum(1)[at].min(-1), _said("1", f"pairs of points along {name}"))
        widths.append(full_width(distance, curve))
        replicas.append([full_width(distance, one) for one in curves])
    table = _directions(list(names.values()), np.array(widths), np.array(replicas), len(np.unique(label[label > 0])))
    length = {"units": "um", "long_name": "distance between the two points"}
    made = xr.Dataset(
        columns | table | _plane(label, (dy, dx), most), {"distance": ("distance", distance, length), "direction": list(names)}
    )
    made.attrs = _summary(np.array(widths), np.array(replicas)) | {"grains": len(np.unique(label[label > 0]))}
    return made


def pair_counts(label: np.ndarray, lags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of points with the same label, and with any, for each displacement and label of the first point.

    label: 0 for none, shape (y, x).  lags: Displacements (rows, columns), whole numbers, shape (lag, 2).
    Returns: Shapes (lag, label).
    """
    which = np.unique(label, return_inverse=True)[1].reshape(label.shape) + (1 if label.min() > 0 else 0)
    count = int(which.max()) + 1
    same, pairs = np.zeros((len(lags), count)), np.zeros((len(lags), count))
    for i, (a, b) in enumerate(lags):
        near, far = which[_shifted(-a, -b)], which[_shifted(a, b)]
        there = (near > 0) & (far > 0)
        pairs[i] = np.bincount(near[there], minlength=count)
        same[i] = np.bincount(near[there & (near == far)], minlength=count)
    return same[:, 1:], pairs[:, 1:]


def full_width(distance: np.ndarray, probability: np.ndarray) -> float:
    """Twice the distance at which a falling curve is 0.5, interpolated; NaN where it never is.

    >>> full_width(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.75, 0.25]))
    3.0
    """
    below = np.flatnonzero(probability < HALF)
    if not below.size or below[0] == 0:
        return math.nan
    i = below[0]
    high, low = probability[i - 1], probability[i]
    return float(2 * (distance[i - 1] + (distance[i] - distance[i - 1]) * (high - HALF) / (high - low)))


def _reach(label: np.ndarray, steps: tuple[float, float], reach: float | None) -> float:
    """The largest distance, um."""
    spans = [n * step for n, step in zip(label.shape, steps, strict=True) if n > 1]
    if reach is not None:
        if not (np.isfinite(reach) and reach >= min(steps)):
            raise InputError(f"reach must be at least a step of the map ({min(steps):g} um), got {reach:g}")
        return min(reach, max(spans) - min(steps))
    size = math.sqrt(steps[0] * steps[1] * (label > 0).sum() / len(np.unique(label[label > 0])))
    return max(min(5 * size, max(spans) / 2), min(steps))


def _displacements(distance: np.ndarray, angle_deg: float, steps: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Displacements in points around each distance, shape (distance, 4, 2), and their weights, (distance, 4)."""
    angle = math.radians(angle_deg)
    exact = np.stack([distance * math.sin(angle) / steps[0], distance * math.cos(angle) / steps[1]], -1).round(9)
    low = np.floor(exact).astype(int)
    part = exact - low
    lags = np.stack([low + corner for corner in ((0, 0), (0, 1), (1, 0), (1, 1))], 1)
    weight = np.stack([np.prod(np.where(corner, part, 1 - part), -1) for corner in ((0, 0), (0, 1), (1, 0), (1, 1))], 1)
    return np.where(weight[..., None] > 0, lags, low[:, None]), weight


def _shifted(a: int, b: int) -> tuple[slice, slice]:
    """The part of a map that has a partner on the other side of a displacement."""
    return tuple(slice(max(n, 0), min(n, 0) or None) for n in (int(a), int(b)))  # type: ignore[return-value]


def _ratio(same: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """P; NaN where there are few pairs."""
    return np.where(pairs >= FEW, same / np.maximum(pairs, 1), np.nan)


def _drawn(same: np.ndarray, pairs: np.ndarray, label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """P of maps whose grains are drawn from those there are, shape (draw, lag)."""
    count = same.shape[1]
    weight = random.multinomial(count, np.full(count, 1 / count), DRAWS).astype(float)
    return _ratio(weight @ same.T, weight @ pairs.T)


def _directions(
    angles: list[float], widths: np.ndarray, replicas: np.ndarray, grains: int
) -> dict[str, tuple[str, Any, dict[str, Any]]]:
    """The table of widths."""
    flag = np.where(np.isfinite(widths), 0, 1) | (2 if grains < FEW_GRAINS else 0)
    about = {"long_name": "why a width is missing or doubtful (0 = good)", "flag_masks": np.array(list(FLAGS), np.int32)}
    return {
        "angle": ("direction", np.array(angles), _said("deg", "direction, from x towards y")),
        "fwhm": ("direction", widths, _said("um", "full width at half maximum of the correlation")),
        "fwhm_std": ("direction", _spread(replicas), _said("um", "standard deviation of fwhm")),
        "flag": ("direction", flag.astype(np.int32), about | {"flag_meanings": " ".join(FLAGS.values())}),
    }


def _summary(widths: np.ndarray, replicas: np.ndarray) -> dict[str, float | str]:
    """Widths along x and y, and their ratio, with errors."""
    with np.errstate(invalid="ignore"):
        ratio, drawn = widths[0] / widths[1], replicas[0] / replicas[1]
    found: dict[str, float | str] = {"fwhm_x_um": widths[0], "fwhm_x_um_std": float(_spread(replicas[:1])[0]),
             "fwhm_y_um": widths[1], "fwhm_y_um_std": float(_spread(replicas[1:2])[0]),
             "anisotropy": float(ratio), "anisotropy_std": float(_spread(drawn[None])[0])}  # fmt: skip
    if not np.isfinite(widths).all():
        found["caution"] = "the probability does not fall to 0.5 within the reach in every direction: give a larger reach"
    return found


def _spread(replicas: np.ndarray) -> np.ndarray:
    """Standard deviation of each row over its finite values; NaN where fewer than nine in ten are finite."""
    return np.array([np.std(r[np.isfinite(r)]) if np.isfinite(r).mean() >= 0.9 else np.nan for r in replicas])


def _plane(label: np.ndarray, steps: tuple[float, float], most: float) -> dict[str, Any]:
    """P over displacements in the plane, for the picture; every n-th displacement where there are many."""
    axes = []
    for size, step in zip(label.shape, steps, strict=True):
        side = min(int(most / step), size - 1)
        every = max(1, -(-side // SIDE))
        axes.append(every * np.arange(-(side // every), side // every + 1))
    lags = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    half = lags[: len(lags) // 2 + 1]  # the other half is the same
    found = []
    for a, b in half:
        near, far = label[_shifted(-a, -b)], label[_shifted(a, b)]
        there = (near > 0) & (far > 0)
        found.append(_ratio((there & (near == far)).sum(), there.sum()))
    values = np.concatenate([found, found[:-1][::-1]]).reshape(len(axes[0]), len(axes[1]))
    coords = {
        n: (n, a * s, _said("um", f"displacement along {n[-1]}")) for n, a, s in zip(("lag_y", "lag_x"), axes, steps, strict=True)
    }
    return {"same_grain": xr.DataArray(values, coords, ("lag_y", "lag_x"), attrs=_said("1", "probability of the same grain"))}


def _said(unit: str, words: str) -> dict[str, Any]:
    return {"units": unit, "long_name": words}
