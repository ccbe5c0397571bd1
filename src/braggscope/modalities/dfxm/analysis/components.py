"""Components of a scan: a few rocking curves whose mixture every pixel is (blind source separation).

Every pixel's curve is taken as a sum of a few common ones, y = A s: the curves A belong to parts of the crystal that rock
together, the maps s say how much of each a pixel sees (Garriga et al. 2023, J. Synchrotron Rad. 30, 527). The methods:

- pca: orthogonal curves of the largest variance about each pixel's mean; signed, no physical sources.
- nica: maps that are independent and not negative (non_negative_independent). Its curves and maps are not cut: what stays
  negative is said in the attributes, and curves @ maps rebuilds the data to the noise.
- nmf: curves and maps that are not negative (non_negative_factors).
- nica_nmf: nmf that starts from nica.

The noise of the detector is known from the scan (photon transfer). It weights the frames, says how many components stand out, and
gives every map and curve its error by counting.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.estimator import motor_positions
from braggscope.core.maps import Quantity, empty_map
from braggscope.core.scan import Scan

from ..carried import cautions, gain_caution

METHODS = ("nica_nmf", "nmf", "nica", "pca")
CRITERIA = ("auto", "noise", "share", "minka")
FLAGS = {1: "no_data", 2: "no_signal", 4: "some_counts_masked", 8: "not_described_by_the_components"}
SIGNIFICANT = 5.0  # standard deviations


def components(
    scan: Scan,
    *,
    method: Annotated[str, Says("how the sources are told apart", choices=METHODS)] = "nica_nmf",
    count: Annotated[int, Says("number of components; 0: by the criterion, at most `most`")] = 0,
    criterion: Annotated[
        str,
        Says(
            "how many: those above the known noise, a share of what is above it, or Minka's evidence; auto: noise, and share "
            "where that is more than `most`",
            choices=CRITERIA,
        ),
    ] = "auto",
    share: Annotated[float, Says("part of what is above the noise to be explained, for criterion share", unit="1")] = 0.95,
    most: Annotated[int, Says("most components that a criterion may choose")] = 6,
    pedestal: Annotated[str, Says("level without light: auto (darkest common level), none, or a value", unit="count")] = "auto",
    gain: Annotated[
        str, Says("detector units per photon: auto (from the scatter of the scan) or a value", unit="count")
    ] = "auto",
    readout: Annotated[str, Says("standard deviation of a count without light: auto or a value", unit="count")] = "auto",
    iterations: Annotated[int, Says("most rounds of nmf")] = 500,
    tolerance: Annotated[float, Says("change of a curve, of its maximum, at which nmf is at rest", unit="1")] = 1e-3,
) -> xr.Dataset:
    """Separate the rocking curves of all pixels into a few common ones and their maps, with error bars.

    Returns: `mixing` (component, row, column) in counts and `curve` (component, scan axes) with sum 1, strongest component first
    (pca: curves of unit norm, and `mean`); `M_mean` and `M_width` of each curve per motor M (pca: of the squared curve); `part`
    of each component; `eigenvalue`, `rest` and `explained` for each candidate count; `residual` (root mean square) and
    `reduced_deviance` per pixel. Errors are those of counting, of a map at given curves and of a curve at given maps: what the
    sources are mixed with each other is not in them.

    Raises InputError where an option is out of range, there are fewer frames than components, or nothing stands out of the noise.
    """
    from ..separating.component_count import chosen_count, mean_variance, noise_of_weakest, scree
    from ..separating.scan_counts import ScanCounts
    from ..separating.separated import fill_masked, principal, sources

    _check(method, criterion, count, most, share, iterations, tolerance)
    counts = ScanCounts(scan, pedestal=pedestal, gain=gain, readout=readout)
    if counts.good == 0:
        raise InputError(f"components need pixels without masked counts in all frames; scan '{scan.name}' has none")
    if counts.points < 3:
        raise InputError(f"components need at least 3 frames, scan '{scan.name}' has {counts.points}")
    gram, sums = counts.gram()
    if counts.noise.gain_from == "assumed":
        counts.noise = noise_of_weakest(gram, sums, counts.good, counts.noise)
    found = scree(gram, sums, counts.good, counts.noise, centred=method == "pca")
    variance = mean_variance(sums, counts.good, counts.noise)
    by_criterion, by = chosen_count(criterion, found, counts, variance, share, most)
    number = _number(scan, count, by_criterion, most, len(found.eigenvalue), found.edge, float(found.eigenvalue[0]))
    if method == "pca":
        result = principal(counts, gram, number)
    else:
        result = sources(counts, gram, sums, method, number, found.count, iterations, tolerance)
    squares, deviance = counts.misfit(result.design, result.values)
    used = np.full(counts.pixels, counts.points)
    fill_masked(counts, result, squares, deviance, used)
    dataset = _dataset(scan, counts, result, found, method)
    _add_misfit(dataset, counts, result, squares, deviance, used)
    chosen = "given" if count else by if by_criterion <= most else f"{by}, limited by most"
    dataset.attrs.update(
        separation=method, count=number, count_by=chosen, count_above_noise=found.count, noise_edge=found.edge,
        explained_above_noise=float(found.share[number - 1]),
        gain=counts.noise.gain, gain_from=counts.noise.gain_from, readout=float(np.sqrt(counts.noise.variance)),
        level=counts.noise.level, frames_used=counts.points, iterations=result.iterations,
        converged="yes" if result.converged else "no", **_wholes(counts, result, gram, squares, deviance, used),
        **cautions(_left_out(number, found.count), _cut(dataset, scan, method), gain_caution(counts.noise.gain_from)),
    )  # fmt: skip
    return dataset


def _left_out(number: int, above_noise: int) -> str:
    """What is said of directions that stand out of the noise and are not among the components."""
    more = above_noise - number
    return f"{more} more direction{'s' * (more > 1)} of the scan stand{'s' * (more == 1)} out of the noise" if more > 0 else ""


def _cut(dataset: xr.Dataset, scan: Scan, method: str) -> str:
    """What is said of curves that are above half their maximum at an end of the scan."""
    if method == "pca":
        return ""
    curve, cut = dataset["curve"], set()
    for name in map(str, scan.grid.dims):
        ends = curve.isel({name: [0, -1]}).max(dim=[n for n in curve.dims if n != "component"])
        cut |= {int(k) for k in curve["component"].values[(ends > 0.5 * curve.max(dim=curve.dims[1:])).values]}
    which = ", ".join(map(str, sorted(cut)))
    return f"the end of the scan cuts the curve of component {which}: mean and width are of what was seen" if cut else ""


def _check(method: str, criterion: str, count: int, most: int, share: float, iterations: int, tolerance: float) -> None:
    """Raise InputError for an option out of its range."""
    for name, word, words in (("method", method, METHODS), ("criterion", criterion, CRITERIA)):
        if word not in words:
            raise InputError(f"option {name} must be one of {', '.join(words)}, got '{word}'")
    for name, value, low in (("count", count, 0), ("most", most, 1), ("iterations", iterations, 1)):
        if value < low:
            raise InputError(f"option {name} must be at least {low}, got {value}")
    for name, part in (("share", share), ("tolerance", tolerance)):
        if not 0 < part < 1:
            raise InputError(f"option {name} must be between 0 and 1, got {part:g}")


def _number(scan: Scan, count: int, by_criterion: int, most: int, available: int, edge: float, largest: float) -> int:
    """The number of components, as given or by the criterion."""
    if count > available:
        raise InputError(
            f"option count must be at most {available}, the directions that the frames of scan '{scan.name}' have, got {count}"
        )
    if count:
        return count
    if by_criterion == 0:
        raise InputError(
            f"scan '{scan.name}' has no component that stands out of the noise (the strongest direction is {largest:.3g} times "
            f"the noise, {edge:.3g} is the limit); give the option count to separate it all the same"
        )
    return min(by_criterion, most, available)


def _dataset(scan: Scan, counts: Any, result: Any, found: Any, method: str) -> xr.Dataset:
    """Maps, curves, moments of the curves and scree as a map dataset."""
    number, (rows, columns) = result.curves.shape[1], counts.frame_shape
    noise = counts.noise
    coords: dict[str, Any] = {str(n): c for n, c in scan.grid.coords.items()}
    coords |= {"component": np.arange(1, number + 1), "candidate": np.arange(1, len(found.eigenvalue) + 1)}
    dataset = empty_map((), ("row", "column"), (rows, columns), coords, FLAGS)
    flag = dataset["flag"]
    data = xr.Dataset(coords=dataset.coords)
    dims, shape = ("component", "row", "column"), (number, rows, columns)
    signed = "score" if method == "pca" else "counts"
    _put(
        data,
        "mixing",
        dims,
        result.maps.reshape(shape),
        "count",
        f"{signed} of each component",
    )
    deviation = np.sqrt(result.map_variance(noise.gain, noise.variance)).reshape(shape)
    _put(
        data,
        "mixing_std",
        dims,
        deviation,
        "count",
        f"standard deviation of {signed} of each component by counting at these curves",
    )
    if result.mean is not None:
        _put(data, "mean", dims[1:], result.mean.reshape(shape[1:]), "count", "mean count above the level")
    curve_std = np.sqrt(result.curve_variance(noise.gain, noise.variance))
    axes = ("component", *(str(n) for n in scan.grid.dims))
    what = "rocking curve of each component"
    _put(data, "curve", axes, _on_grid(result.curves, counts.seen, scan.shape), "1", what)
    _put(
        data,
        "curve_std",
        axes,
        _on_grid(curve_std, counts.seen, scan.shape),
        "1",
        f"standard deviation of {what} by counting at these maps",
    )
    _moments(data, scan, counts.seen, result.curves, curve_std, method)
    kind = "variance" if method == "pca" else "counts"
    weight = (result.maps[:, ~counts.masked] ** 2).sum(axis=1) if method == "pca" else result.maps[:, ~counts.masked].sum(axis=1)
    _put(data, "part", ("component",), weight / weight.sum(), "1", f"part of the {kind} that the components explain")
    _put(data, "eigenvalue", ("candidate",), found.eigenvalue, "1", "mean square along each direction in units of the noise")
    _put(data, "rest", ("candidate",), found.rest, "1", "mean square left with so many components in units of the noise")
    _put(data, "explained", ("candidate",), found.share, "1", "part of what is above the noise that so many components explain")
    data["flag"] = flag
    return data


def _put(data: xr.Dataset, name: str, dims: tuple[str, ...], values: np.ndarray, unit: str, long_name: str) -> None:
    data[name] = (dims, values, {"units": unit, "long_name": long_name})


def _on_grid(curves: np.ndarray, seen: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Curves on the whole grid, NaN at points without a frame, shape (component, scan axes)."""
    out = np.full((curves.shape[1], len(seen)), np.nan)
    out[:, seen] = curves.T
    return out.reshape(-1, *shape)


def _moments(data: xr.Dataset, scan: Scan, seen: np.ndarray, curves: np.ndarray, curve_std: np.ndarray, method: str) -> None:
    """Mean and width of each component's curve along each motor, with errors of first order; NaN where the moment is not one."""
    weight, slope = (curves**2, 2 * np.abs(curves)) if method == "pca" else (curves, np.ones_like(curves))
    total = weight.sum(axis=0)
    of = "squared curve" if method == "pca" else "curve"
    for name, positions in motor_positions(scan).items():
        x = positions[seen][:, None]
        unit = str(scan.grid[name].attrs.get("units", ""))
        mean = (weight * x).sum(axis=0) / total
        second = (weight * (x - mean) ** 2).sum(axis=0) / total
        with np.errstate(invalid="ignore", divide="ignore"):
            width = np.sqrt(np.where(second > 0, second, np.nan))
            mean_std = np.sqrt((((x - mean) * slope * curve_std) ** 2).sum(axis=0)) / total
            width_std = np.sqrt(((((x - mean) ** 2 - second) * slope * curve_std) ** 2).sum(axis=0)) / (2 * width * total)
        for quantity, value, error in (
            (Quantity(f"{name}_mean", unit, f"mean {name} of each component's {of}"), mean, mean_std),
            (
                Quantity(f"{name}_width", unit, f"root of the second central moment along {name} of each component's {of}"),
                width,
                width_std,
            ),
        ):
            for q, v in ((quantity, value), (quantity.std(), error)):
                _put(data, q.name, ("component",), v, q.unit, q.long_name)


def _add_misfit(
    dataset: xr.Dataset, counts: Any, result: Any, squares: np.ndarray, deviance: np.ndarray, used: np.ndarray
) -> None:
    """Residual, reduced deviance and flags per pixel."""
    shape = counts.frame_shape
    free = used - result.design.shape[1]
    lost = ~np.isfinite(result.values).all(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.where(lost, np.nan, np.sqrt(squares / np.maximum(used, 1)))
        reduced = np.where(lost | (free < 1), np.nan, deviance / free)
        limit = 1 + SIGNIFICANT * np.sqrt(2 / np.maximum(free, 1))
    noise = counts.noise
    level = result.values[0] * len(result.curves) if result.mean is not None else result.maps.sum(axis=0)
    dark = level < SIGNIFICANT * np.sqrt(noise.gain * np.maximum(level, 0) + noise.variance * counts.points)
    _put(
        dataset, "residual", ("row", "column"), residual.reshape(shape), "count", "root mean square of what the components leave"
    )
    _put(dataset, "reduced_deviance", ("row", "column"), reduced.reshape(shape), "1", "deviance over its expectation")
    flag = 1 * lost + 2 * (dark & ~lost) + 4 * counts.masked + 8 * (reduced > limit)
    dataset["flag"].values[...] = flag.reshape(shape)
    dataset["mixing"].values[:, lost.reshape(shape)] = np.nan
    dataset["mixing_std"].values[:, lost.reshape(shape)] = np.nan


def _wholes(
    counts: Any, result: Any, gram: np.ndarray, squares: np.ndarray, deviance: np.ndarray, used: np.ndarray
) -> dict[str, float]:
    """Of the whole scan: reduced deviance, what is left of the counts, and what is negative of maps and curves (by squares)."""
    good = ~counts.masked
    maps, curves = result.maps[:, good], result.curves
    return {
        "reduced_deviance": float(deviance[good].sum() / max(1, (used[good] - result.design.shape[1]).sum())),
        "relative_residual": float(np.sqrt(squares[good].sum() / max(float(np.trace(gram)), 1e-300))),
        "negative_part_of_maps": float((np.minimum(maps, 0) ** 2).sum() / max(float((maps**2).sum()), 1e-300)),
        "negative_part_of_curves": float((np.minimum(curves, 0) ** 2).sum() / (curves**2).sum()),
    }
