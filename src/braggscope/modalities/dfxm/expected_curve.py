"""The rocking curve that the values of a map stand for, to be looked at beside the counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_PEAKS = 3
LORENTZIAN_HALF = 2 * math.log(2)  # (half width at half maximum of a Gaussian of width 1)^2


def expected_curve(values: Mapping[str, float], axes: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> np.ndarray | None:
    """Expected counts, shape of the scan: the fitted peaks, or the Gaussian that has the moments of the map.

    values: Of the map's variables at the pixel.  axes: Positions of each motor along its axis.  options: Of the method.
    None where the pixel has no peak, or the map no such values.
    """
    level = values.get("background", values.get("pedestal", math.nan))
    mesh = dict(zip(axes, np.meshgrid(*axes.values(), indexing="ij"), strict=True))
    peaks = [_peak(values, mesh, "" if k == 1 else f"_{k}", options) for k in range(1, 1 + MOST_PEAKS)]
    if peaks[0] is None and math.isfinite(total := values.get("total", math.nan)):
        cell = math.prod(abs(float(x[-1] - x[0])) / (len(x) - 1) for x in axes.values() if len(x) > 1)
        peaks[0] = _peak({**values, "amplitude": total * cell / _volume(values, list(axes))}, mesh, "", {})
    if peaks[0] is None or not math.isfinite(level):
        return None
    slopes = {name: values.get(f"{name}_slope", 0.0) for name in axes}
    slope = sum(s * (mesh[name] - (axes[name].min() + axes[name].max()) / 2) for name, s in slopes.items() if math.isfinite(s))
    return np.asarray(level + slope + sum(peak for peak in peaks if peak is not None))


def _spread(values: Mapping[str, float], names: list[str], end: str) -> np.ndarray:
    """Covariance matrix of a peak over the motors; NaN where something is missing."""
    spread = np.diag([values.get(f"{name}_width{end}", math.nan) ** 2 for name in names])
    for i, a in enumerate(names):
        for j in range(i + 1, len(names)):
            spread[i, j] = spread[j, i] = values.get(f"{a}_{names[j]}_covariance{end}", math.nan)
    return spread


def _volume(values: Mapping[str, float], names: list[str]) -> float:
    """Integral over the motors of a Gaussian of height 1."""
    with np.errstate(invalid="ignore"):
        return math.sqrt(2 * math.pi) ** len(names) * float(np.sqrt(np.linalg.det(_spread(values, names, ""))))


def _peak(values: Mapping[str, float], mesh: Mapping[str, np.ndarray], end: str, options: Mapping[str, Any]) -> np.ndarray | None:
    """One peak without the level under it; None where it is not there."""
    names = list(mesh)
    centre = np.array([values.get(f"{name}{end}", math.nan) for name in names])
    height, spread = values.get(f"amplitude{end}", math.nan), _spread(values, names, end)
    if not (math.isfinite(height) and np.isfinite(centre).all() and np.isfinite(spread).all()):
        return None
    if np.linalg.eigvalsh(spread).min() <= 0:
        return None
    away = np.stack(list(mesh.values()), axis=-1) - centre
    square = np.einsum("...i,ij,...j->...", away, np.linalg.inv(spread), away)
    lorentzian = {"gaussian": 0.0, "lorentzian": 1.0}.get(str(options.get("shape", "gaussian")), values.get(f"mixing{end}", 0.0))
    return np.asarray(height * ((1 - lorentzian) * np.exp(-square / 2) + lorentzian / (1 + square / LORENTZIAN_HALF)))
