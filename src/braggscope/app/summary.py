"""A map in a few numbers: how many points, which flags, the median of each quantity and of its standard deviation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from braggscope.core.maps import flag_counts, quantity_names
from braggscope.core.modality import modalities

from .texts import row, shape_text

MISFIT = 5.0  # standard deviations above 1 at which the reduced deviance of a scan cannot be chance
MATTERS = 0.01  # of deviance above 1: below, the stated errors still hold however sure the misfit is
MOST = 0.5  # of the points
DOUBTS = {
    "peak_cut_by_the_end_of_the_scan": "most peaks are cut by the end of the scan: their means lie too near its middle, their "
    "widths are too small; a longer scan would help",
    "no_background_outside_the_peak": "most peaks fill the scan, so that the pedestal is the darkest level of the image",
}  # what a flag means for the map where most points carry it


def summarise(dataset: xr.Dataset) -> dict[str, Any]:
    """The numbers of a map.

    The median and the spread (half the distance of the 16th and the 84th percentile: for a normal distribution its standard
    deviation) are of the good points, or of all that have a value where most of those are flagged.
    """
    attrs = dataset.attrs
    flags = flag_counts(dataset)
    points, over = counted(dataset)
    kinds = ("planned", "used", "lost")
    numbers = {f"{u}_{c}": int(attrs[f"{u}_{c}"]) for u in ("frames", "pixels") for c in kinds if f"{u}_{c}" in attrs}
    return {
        "modality": attrs.get("modality"),
        "method": attrs.get("method"),
        "complete": bool(attrs.get("complete", 1)),
        "shape": {str(name): size for name, size in dataset["flag"].sizes.items()},
        "points": int(dataset["flag"].size),
        "good": flags.pop("good"),
        "flags": {word: count for word, count in flags.items() if count},
        **numbers,
        "masked_counts": int(attrs.get("masked_counts", 0)),
        "masked_frames": int(attrs.get("masked_frames", 0)),
        "over": over,
        "quantities": {name: quantity_summary(dataset, name, points) for name in quantity_names(dataset)},
        "reduced_deviance": _number(attrs.get("reduced_deviance")),
        "reduced_deviance_std": _number(attrs.get("reduced_deviance_std")),
        "uncalibrated_because": attrs.get("uncalibrated_because"),
        "gain_from": attrs.get("gain_from"),
        "seconds": _number(attrs.get("seconds")),
    }


def table(summary: dict[str, Any]) -> str:
    """The numbers of a map as text for a terminal."""
    flagged = ", ".join(f"{word} {count}" for word, count in summary["flags"].items()) or "none"
    lines = [
        f"{summary['modality']} map by {summary['method']}, {shape_text(summary['shape'])}"
        + ("" if summary["complete"] else " (NOT FINISHED)"),
        row("points", f"{summary['points']}, good {summary['good']}; flags: {flagged}"),
    ]
    lines += [f"  {line}" for line in remarks(summary)]
    if summary["reduced_deviance"] is not None:
        std = f" +- {summary['reduced_deviance_std']:.2g}" if summary["reduced_deviance_std"] is not None else ""
        lines.append(f"  reduced deviance of the whole scan {summary['reduced_deviance']:.4f}{std} (1: as expected)")
    lines += table_of(summary["quantities"], summary["over"])
    return "\n".join(lines)


def table_of(quantities: dict[str, dict[str, Any]], over: str) -> list[str]:
    """The lines of a table of quantities, the first of which says over which points they are."""
    lines = ["", f"  over {over}:", f"  {'quantity':24}{'unit':>10}{'median':>13}{'spread':>13}{'typical std':>13}"]
    for name, q in quantities.items():
        numbers = "".join(f"{_text(q[key]):>13}" for key in ("median", "spread", "median_std"))
        lines.append(f"  {name:24}{q['unit']:>10}{numbers}")
    return lines


def remarks(summary: dict[str, Any]) -> list[str]:
    """Sentences on what a reader of the map must know: lost frames, masked counts, misfit, missing error bars."""
    said = []
    for unit in ("frames", "pixels"):
        if summary.get(f"{unit}_lost"):
            was = "not read yet" if not summary["complete"] else "lost"
            said.append(f"{summary[f'{unit}_lost']} of {summary[f'{unit}_planned']} {unit} {was}")
    if summary["masked_counts"]:
        frames = summary["masked_frames"]
        said.append(f"{summary['masked_counts']} counts in {frames} frames masked (NaN, negative or saturated)")
    if misfit(summary) > MISFIT and summary["reduced_deviance"] > 1 + MATTERS:
        kind = modalities().get(summary["modality"])
        hint = f" ({kind.misfit_hint})" if kind is not None and kind.misfit_hint else ""
        follows = (
            "the method's estimates are not the best ones, or the geometry is not that of the frames"
            if summary["uncalibrated_because"]
            else f"errors beyond the stated ones must be expected{hint}"
        )
        said.append(
            f"the model does not explain the frames: the reduced deviance of the whole scan is {misfit(summary):.0f} standard "
            f"deviations above 1; {follows}"
        )
    for word, meaning in DOUBTS.items():
        if summary["flags"].get(word, 0) > MOST * summary["points"]:
            said.append(meaning)
    if summary["gain_from"] == "assumed":
        said.append(
            "the detector gain could not be measured and was taken as 1: give it with --option gain=VALUE for right errors"
        )
    if summary["complete"] and summary["quantities"] and all(q["median"] is None for q in summary["quantities"].values()):
        said.append("nothing could be mapped: no point has a value")
    if summary["uncalibrated_because"]:
        said.append(f"no standard deviations: {summary['uncalibrated_because']}")
    return said


def misfit(summary: dict[str, Any]) -> float:
    """By how many of its standard deviations the reduced deviance of the scan is above 1; 0 where it has none."""
    deviance, std = summary["reduced_deviance"], summary["reduced_deviance_std"]
    return (deviance - 1) / std if deviance is not None and std else 0.0


def counted(dataset: xr.Dataset) -> tuple[np.ndarray, str]:
    """The points whose values are summarised, and what they are: the good ones, unless those are the exception.

    The first quantity over the points tells: in a map of an analysis others come before it, over components or levels.
    """
    flag = dataset["flag"]
    good = flag.values == 0
    first = next((n for n in quantity_names(dataset) if dataset[n].dims == flag.dims), None)
    valued = np.zeros(flag.shape, bool) if first is None else np.isfinite(dataset[first].values)
    if 2 * np.count_nonzero(good & valued) < np.count_nonzero(valued):
        return valued, "all points with a value, most of which are flagged"
    return good, "good points"


def quantity_summary(dataset: xr.Dataset, name: str, points: np.ndarray) -> dict[str, Any]:
    """Unit, median, spread and typical error of one quantity over some points (see `counted`)."""
    variable, std = dataset[name], dataset.get(f"{name}_std")
    chosen = xr.DataArray(points, dims=dataset["flag"].dims)
    number = variable.dtype.kind in "iufb"
    low, middle, high = _percentiles(variable, chosen) if number else np.full(3, np.nan)
    return {
        "unit": str(variable.attrs["units"]),
        "long_name": str(variable.attrs["long_name"]),
        "median": _number(middle),
        "spread": _number((high - low) / 2),
        "median_std": None if std is None else _number(_percentiles(std, chosen)[1]),
    }


def _percentiles(variable: xr.DataArray, points: xr.DataArray) -> np.ndarray:
    """16th, 50th and 84th percentile of the finite values at these points; NaN without any.

    A quantity over more dimensions (a component, a level) is taken at the points all along them; one over others, as a whole.
    """
    finite = xr.DataArray(np.isfinite(variable.values), dims=variable.dims)
    if set(points.dims) <= set(variable.dims) and all(variable.sizes[d] == points.sizes[d] for d in points.dims):
        finite = finite & points
    values = variable.transpose(*finite.dims).values[finite.values]
    return np.percentile(values, [16, 50, 84]) if values.size else np.full(3, np.nan)


def _number(value: Any) -> float | None:
    """A number that JSON can hold; None for NaN and infinities."""
    if value is None or isinstance(value, str) or not math.isfinite(float(value)):
        return None
    return float(value)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
