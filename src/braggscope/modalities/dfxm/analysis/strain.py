"""Axial strain: the change of the spacing of the planes that diffract, along the diffraction vector.

Bragg's law lambda = 2 d sin theta gives d / d_ref - 1 for the reference position of the same motor. Positive is an expansion.

    ccmth     energy scan at fixed 2 theta, lambda = 2 d_Si sin(ccmth):   eps = sin(ccmth) / sin(ccmth_ref) - 1
    energy    the same in keV, lambda = h c / E (also ccmenergy):        eps = E_ref / E - 1
    obpitch   2 theta scan at fixed energy, theta = obpitch / 2:         eps = sin(theta_ref) / sin(theta) - 1

A tilt in the scattering plane moves the peak as a strain does, unless it is scanned along (a mosaicity and strain scan: the mean
over all tilts is used) or integrated over during each exposure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError

from ..carried import (
    carried_flag,
    carried_total,
    geometry_of,
    image_dims,
    in_degrees,
    pixel_attributes,
    still_motors,
    variable,
)  # fmt: skip
from ..geometry import DfxmGeometry

SIGNAL = 5.0  # standard deviations from which the sum over several maps is believed, as in the moments
CHOICES = ("auto", "ccmth", "obpitch", "energy", "ccmenergy")
CUT = 0.1  # share of the largest total that an end of the scan may have
AWAY = ("no_signal", "shape_hidden_by_noise")  # flags of any map away from the peak, whose light is zero within its error

Curve = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]


def strain(
    dataset: list[xr.Dataset],
    *,
    motor: Annotated[str, Says("motor of the energy or the scattering angle", choices=CHOICES)] = "auto",
    reference: Annotated[float | None, Says("position of the motor for the unstrained crystal, in its unit")] = None,
    region: Annotated[
        tuple[int, int, int, int] | None, Says("unstrained region, row start, row stop, column start, column stop")
    ] = None,
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """Axial strain of each pixel from a scan of the energy or of the scattering angle, with its error.

    dataset: One map of a scan over ccmth, obpitch or energy (and other motors); or several maps of the same pixels, each of a
        scan at one standing position of it: the peak is then the mean of these positions weighted with the maps' `total` and
        the steps between them. What one map says of a pixel (`flag`) holds for the strain, but for the lack of signal.
    reference: Without it and without a region, the median of the map is the reference.
    Returns `strain`, its standard deviation (without that of the reference, which shifts all points alike: attribute
    `reference_std`), and the position of the peak.
    Raises InputError where no such motor was scanned, or where the maps do not belong together.
    """
    maps = [dataset] if isinstance(dataset, xr.Dataset) else list(dataset)
    if not maps:
        raise InputError("strain needs at least one map")
    if motor not in CHOICES:
        raise InputError(f"motor must be one of {', '.join(CHOICES)}, got '{motor}'")
    for one in maps:
        image_dims(one)
    peak = _scanned(maps[0], motor) if len(maps) == 1 else _several(maps, motor)
    known = np.isfinite(peak.position)
    if not known.any():
        raise InputError(f"no pixel of the map has a position of {peak.motor}")
    at, how, at_std = _reference(peak, known, reference, region)
    values, slope = MOTORS[peak.motor](peak.position, at)
    result = xr.Dataset({"strain": variable(values, "1", "axial strain along the diffraction vector, positive for expansion")})
    if peak.std is not None:
        result["strain_std"] = variable(np.abs(slope) * peak.std, "1", "standard deviation of strain")
    result[peak.motor] = variable(peak.position, peak.unit, f"position of the peak along {peak.motor}")
    if peak.std is not None:
        result[f"{peak.motor}_std"] = variable(peak.std, peak.unit, f"standard deviation of the position along {peak.motor}")
    result = result.assign(peak.total)
    result["flag"] = carried_flag(maps[0] if len(maps) == 1 else _clean(maps[0]), {"no_strain": ~known, **peak.reasons})
    result.attrs = {"reference": at, "reference_unit": peak.unit, "reference_from": how, **pixel_attributes(maps[0], geometry)}
    if at_std is not None:
        result.attrs["reference_std"] = at_std
    if not any(name in maps[0] for name in geometry_of(maps[0], geometry).goniometer_axes()):
        result.attrs["caution"] = "no rocking motor was scanned along: a tilt that was not integrated over looks like strain"
    return result


@dataclass(frozen=True)
class _Peak:
    """Where the peak of each pixel is along a motor, in its unit; shapes (row, column)."""

    motor: str
    unit: str
    position: np.ndarray
    std: np.ndarray | None
    total: dict[str, xr.DataArray]
    reasons: dict[str, np.ndarray]


def _ccmth(position: np.ndarray, reference: float) -> tuple[np.ndarray, np.ndarray]:
    """Strain and its derivative by the position, per deg."""
    x, at = np.radians(position), math.sin(math.radians(reference))
    return np.sin(x) / at - 1, np.radians(np.cos(x) / at)


def _obpitch(position: np.ndarray, reference: float) -> tuple[np.ndarray, np.ndarray]:
    x, at = np.radians(position / 2), math.sin(math.radians(reference / 2))
    return at / np.sin(x) - 1, np.radians(-at * np.cos(x) / np.sin(x) ** 2 / 2)


def _energy(position: np.ndarray, reference: float) -> tuple[np.ndarray, np.ndarray]:
    return reference / position - 1, -reference / position**2


MOTORS: dict[str, Curve] = {"ccmth": _ccmth, "obpitch": _obpitch, "energy": _energy, "ccmenergy": _energy}


def _scanned(dataset: xr.Dataset, motor: str) -> _Peak:
    """The peak of a scan along such a motor."""
    found = [name for name in MOTORS if name in dataset and motor in ("auto", name)]
    if len(found) != 1:
        wanted = motor if motor != "auto" else ", ".join(MOTORS)
        there = f"has {', '.join(found)}; choose one with motor" if found else f"has none; it has {_variables(dataset)}"
        raise InputError(f"a strain needs a map along {wanted}, or several maps at different positions of it; this map {there}")
    name = found[0]
    std = dataset.get(f"{name}_std")
    energy = "energy" in name
    unit = str(dataset[name].attrs.get("units", "")) if energy else "deg"
    position = np.asarray(dataset[name].values, np.float64) if energy else in_degrees(dataset[name])
    error = None if std is None else np.asarray(std.values, np.float64) if energy else in_degrees(std)
    return _Peak(name, unit or "keV", position, error, carried_total(dataset), {})


def _several(maps: list[xr.Dataset], motor: str) -> _Peak:
    """The mean standing position of a motor over several maps, weighted with their totals T_k and the steps w_k around them.

    x = sum w_k T_k x_k / sum w_k T_k,  Var(x) = sum (w_k (x_k - x))^2 Var(T_k) / (sum w_k T_k)^2. A total that was not measured
    in one of the maps leaves no position; a map without signal has a total of 0.
    """
    name, at = _standing(maps, motor)
    order = np.argsort(at)
    at, maps = at[order], [maps[i] for i in order]
    for one in maps:
        if "total" not in one or one["total"].shape != maps[0]["total"].shape:
            raise InputError("the maps of a strain must each have total, over the same pixels")
    measured = np.stack([np.asarray(one["total"].values, np.float64) for one in maps])
    lost = np.stack([_flagged(one, "no_data") for one in maps])
    missing = (lost | (np.isnan(measured) & ~np.stack([_flagged(one, "no_signal") for one in maps]))).any(0)
    totals = np.nan_to_num(measured)
    x, step, whole = at[:, None, None], _steps(at)[:, None, None], totals.sum(0)
    errors = all("total_std" in one for one in maps)
    variances = np.zeros_like(totals)
    if errors:
        variances = np.where(np.isnan(measured), 0.0, np.stack([one["total_std"].values for one in maps]) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (step * totals).sum(0)
        mean = (step * totals * x).sum(0) / area
        std = np.sqrt(((step * (x - mean)) ** 2 * variances).sum(0)) / area
    whole_std = np.sqrt(variances.sum(0))
    dark = ~missing & (~(whole > SIGNAL * np.nan_to_num(whole_std)) | ~(whole > 0) | ~(area > 0))
    ends = np.maximum(totals[0], totals[-1]) > CUT * totals.max(0)
    mean, std = (np.where(dark | missing, np.nan, image) for image in (mean, std))
    whole, whole_std = (np.where(missing, np.nan, image) for image in (whole, whole_std))
    total = {"total": variable(whole, str(maps[0]["total"].attrs["units"]), "sum of the maps' totals")}
    if errors:
        total["total_std"] = variable(whole_std, str(maps[0]["total"].attrs["units"]), "standard deviation of total")
    reasons = _doubts(maps) | {"no_signal": dark}
    for word, where in (("no_data", missing), ("peak_cut_by_the_end_of_the_scan", ends & ~dark & ~missing)):
        reasons[word] = reasons.get(word, False) | where
    unit = "keV" if "energy" in name else "deg"
    return _Peak(name, unit, mean, std if errors else None, total, reasons)


def _steps(at: np.ndarray) -> np.ndarray:
    """Length that each position stands for, over the mean step: (x_{k+1} - x_{k-1}) / 2, whole steps at the ends."""
    gaps = np.diff(at)
    return (np.append(gaps, gaps[-1]) + np.append(gaps[0], gaps)) / 2 / gaps.mean()


def _words(dataset: xr.Dataset) -> dict[str, int]:
    """The words of a map's flag and their bits."""
    attributes = dataset["flag"].attrs
    return dict(zip(str(attributes["flag_meanings"]).split(), np.atleast_1d(attributes["flag_masks"]).tolist(), strict=True))


def _flagged(dataset: xr.Dataset, word: str) -> np.ndarray:
    """Where a map's flag says this word, shape (row, column)."""
    return np.asarray(dataset["flag"].values & _words(dataset).get(word, 0)) != 0


def _doubts(maps: list[xr.Dataset]) -> dict[str, np.ndarray]:
    """Each word of the maps' flags and where any of them says it, without those that are normal away from the peak."""
    words = {word: None for one in maps for word in _words(one) if word not in AWAY}  # a dict keeps the order
    return {word: np.any([_flagged(one, word) for one in maps], axis=0) for word in words}


def _standing(maps: list[xr.Dataset], motor: str) -> tuple[str, np.ndarray]:
    """The motor that stood elsewhere in each map, and where."""
    stood = [still_motors(one) for one in maps]
    common = [n for n in MOTORS if motor in ("auto", n) and all(n in one for one in stood)]
    moved = [n for n in common if len({one[n] for one in stood}) > 1]
    if not moved:
        wanted = motor if motor != "auto" else ", ".join(MOTORS)
        raise InputError(
            f"{len(maps)} maps give a strain where {wanted} stood elsewhere in each; here it did not, or they do not say"
        )
    name = moved[0]
    at = np.array([one[name] for one in stood])
    if len(at) < 3 or len(np.unique(at)) < len(at):
        listed = ", ".join(f"{value:g}" for value in np.sort(at))
        raise InputError(f"a strain needs maps at three or more different positions of {name}, each once, got {listed}")
    return name, at


def _reference(
    peak: _Peak, known: np.ndarray, reference: float | None, region: tuple[int, int, int, int] | None
) -> tuple[float, str, float | None]:
    """The reference position, where it comes from, and its standard deviation where it can be told."""
    if reference is not None and region is not None:
        raise InputError("strain takes reference or region, not both; leave one of them out")
    if reference is not None:
        if not (math.isfinite(reference) and reference > 0):
            raise InputError(f"reference must be a positive position of {peak.motor} in {peak.unit}, got {reference:g}")
        return float(reference), "given", None
    chosen = known
    if region is not None:
        top, bottom, left, right = region
        rows, columns = known.shape
        if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):
            raise InputError(f"region must lie inside the map of {rows} rows x {columns} columns, got {region}")
        chosen = np.zeros_like(known)
        chosen[top:bottom, left:right] = known[top:bottom, left:right]
        if not chosen.any():
            raise InputError(f"the region {region} has no pixel with a position of {peak.motor}")
    values = peak.position[chosen]
    middle, many = float(np.median(values)), len(values)
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    where = "the map" if region is None else "the region"
    return middle, f"median of {many} points of {where}", spread * math.sqrt(math.pi / 2 / many)


def _clean(dataset: xr.Dataset) -> xr.Dataset:
    """The map with no flag set: those that hold for all of several maps are added (`_doubts`)."""
    return dataset.assign(flag=xr.zeros_like(dataset["flag"], dtype=np.int32).assign_attrs(dataset["flag"].attrs))


def _variables(dataset: xr.Dataset) -> str:
    names = [str(n) for n in dataset.data_vars if n != "flag" and not str(n).endswith("_std")]
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
