"""The truth of a phantom's scan, under the names that the methods of the map give.

Two methods look at the same curves and must not be told contradicting truths:

total, M_skewness, M_kurtosis, M_N_covariance   moments of the whole curve over the scan; NaN where there is no light
pedestal, background                            the level under the peak, detector units
M, M_width                                      mean and width of the curve over the scan and, but for what the ends of the
                                                scan cut and uneven places shift, centre and width of its Gaussian; NaN
                                                where there are two peaks
amplitude                                       height of the Gaussian, detector units; NaN where there is not one peak
peaks                                           number of peaks in the pixel
M_1, M_width_1, amplitude_1                     centre, width and height of the Gaussian itself, the higher one of two
strain                                          in scans of ccmth or obpitch, from M by Bragg's law, against the middle of the
                                                scan, which is the attribute strain_reference_deg

and in phantoms that have pixels with two peaks

M_2, M_width_2, amplitude_2                     of the lower Gaussian; NaN where there is none
M_all, M_width_all                              mean and width of the sum of both

Widths contain the resolution of the instrument, and positions are those of the motors. What else a phantom knows (`wall`, the
number of a grain ...) comes under its own name.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from braggscope.core.noise import Noise

from .scan import ScanAxes

if TYPE_CHECKING:
    from .drawing import Crystal, Peak

Found = dict[str, tuple[np.ndarray, str, str]]  # name -> values (row, column), unit, long name
FAINT = 1e-9  # of the brightest peak: less is no peak


def truth_of(
    crystal: Crystal,
    peaks: tuple[Peak, ...],
    expected: Callable[[np.ndarray], torch.Tensor],
    mesh: Mapping[str, np.ndarray],
    scan: ScanAxes,
    noise: Noise,
    dark: np.ndarray,
) -> xr.Dataset:
    """What the maps of a scan should say (see the table above).

    peaks: As the instrument sees them: widths with its resolution, brightness in photons.
    expected: Photons at these points, without the dark current.
    mesh: Place of each motor at each point, from the middle of the scan.
    dark: Photons of the dark current, shape (row, column).
    """
    found = _moments(expected, mesh, scan, noise)
    level = noise.offset + noise.gain * dark
    found["pedestal"] = (level, "count", "level under the peak")
    found["background"] = (level, "count", "level under the peak")
    heights = np.array([noise.gain * one.brightness for one in peaks])
    there = heights > FAINT * heights.max()
    count = there.sum(axis=0)
    found["peaks"] = (count, "1", "number of peaks")
    order = np.argsort(-heights, axis=0, kind="stable")
    if (count > 1).any():
        for name in (n for motor in scan.names for n in (motor, f"{motor}_width")):
            values, unit, long_name = found[name]
            found[f"{name}_all"] = (values, unit, f"{long_name} of all peaks")
            found[name] = (np.where(count > 1, np.nan, values), unit, f"{long_name}, where there is one peak")
    for rank in range(max(1, int(count.max()))):
        found |= _one(rank, order, peaks, heights, there, scan)
    found["amplitude"] = (np.where(count == 1, heights.max(axis=0), np.nan), "count", "height of the peak, where there is one")
    strained, reference = _strain(found, scan)
    found |= strained | dict(crystal.known)
    attributes = reference | {f"resolution_{n}_deg": r for n, r in zip(scan.names, scan.resolution, strict=True) if r}
    variables = {n: (("row", "column"), v, {"units": unit, "long_name": f"true {text}"}) for n, (v, unit, text) in found.items()}
    return xr.Dataset(variables, attrs=attributes)


def _strain(found: Found, scan: ScanAxes) -> tuple[Found, dict[str, float]]:
    """Axial strain d / d0 - 1 by Bragg's law, lambda = 2 d sin theta, and the position that means none.

    The monochromator at ccmth sends lambda = 2 d_Si sin(ccmth) into a fixed scattering angle; at a fixed energy the objective at
    obpitch sees theta = obpitch / 2. One of both must be scanned.
    """
    spacing = {"ccmth": lambda x: np.sin(np.radians(x)), "obpitch": lambda x: 1 / np.sin(np.radians(x) / 2)}
    scanned = [name for name in scan.names if name in spacing]
    if len(scanned) != 1:
        return {}, {}
    name, middle = scanned[0], scan.middle[scan.names.index(scanned[0])]
    strain = spacing[name](found[name][0]) / spacing[name](middle) - 1
    return {"strain": (strain, "1", "axial strain, positive for expansion")}, {"strain_reference_deg": middle}


def _one(rank: int, order: np.ndarray, peaks: tuple[Peak, ...], heights: np.ndarray, there: np.ndarray, scan: ScanAxes) -> Found:
    """Centre, width and height of the peak of this rank by height."""

    def pick(values: np.ndarray) -> np.ndarray:
        chosen, seen = (np.take_along_axis(v, order[rank : rank + 1], axis=0)[0] for v in (values, there))
        return np.where(seen, chosen, np.nan)

    said, found = (
        f"of peak {rank + 1} by height",
        {f"amplitude_{rank + 1}": (pick(heights), "count", f"height of peak {rank + 1}")},
    )
    for i, (name, middle) in enumerate(zip(scan.names, scan.middle, strict=True)):
        found[f"{name}_{rank + 1}"] = (
            middle + pick(np.array([p.centre[i] for p in peaks])),
            "deg",
            f"centre along {name} {said}",
        )
        found[f"{name}_width_{rank + 1}"] = (pick(np.array([p.width[i] for p in peaks])), "deg", f"width along {name} {said}")
    return found


def _moments(
    expected: Callable[[np.ndarray], torch.Tensor], mesh: Mapping[str, np.ndarray], scan: ScanAxes, noise: Noise
) -> Found:
    """Moments of the expected curves over the points of the scan."""
    names, points = list(mesh), len(next(iter(mesh.values())))
    origin = {n: float(v.mean()) for n, v in mesh.items()}
    pairs = list(itertools.combinations(names, 2))
    sums: dict[Any, Any] = {}
    for start in range(0, points, 16):
        index = np.arange(start, min(start + 16, points))
        counts = expected(index).double().numpy()
        u = {n: mesh[n][index] - origin[n] for n in names}
        powers = {(n, k): u[n] ** k for n, k in itertools.product(names, range(5))} | {(a, b): u[a] * u[b] for a, b in pairs}
        for key, weight in powers.items():
            sums[key] = sums.get(key, 0) + np.tensordot(weight, counts, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = sums[names[0], 0]
        found: Found = {"total": (noise.gain * total, "count", "sum of the counts above the pedestal")}
        means = {n: sums[n, 1] / total for n in names}
        for n, middle in zip(names, scan.middle, strict=True):
            m, (s2, s3, s4) = means[n], (sums[n, k] / total for k in (2, 3, 4))
            width = np.sqrt(s2 - m**2)
            found[n] = (middle + origin[n] + m, "deg", f"mean position along {n}")
            found[f"{n}_width"] = (width, "deg", f"width along {n}")
            found[f"{n}_skewness"] = ((s3 - 3 * m * s2 + 2 * m**3) / width**3, "1", f"skewness along {n}")
            kurtosis = (s4 - 4 * m * s3 + 6 * m**2 * s2 - 3 * m**4) / width**4 - 3
            found[f"{n}_kurtosis"] = (kurtosis, "1", f"excess kurtosis along {n}")
        for a, b in pairs:
            covariance = sums[a, b] / total - means[a] * means[b]
            found[f"{a}_{b}_covariance"] = (covariance, "deg^2", f"covariance of {a} and {b}")
    return found
