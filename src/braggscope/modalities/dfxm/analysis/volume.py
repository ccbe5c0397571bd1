"""Volume: the maps of several layers of a sample, registered to each other and stacked.

Each layer is registered to the one before it by normalised cross-correlation of one quantity, missing pixels left out (Padfield
2012, IEEE Trans. Image Process. 21, 2706, as in scikit-image); the shifts add up. Layers are moved by whole pixels, so that no
value, error or flag is interpolated; the shift that was found, to a fraction of a pixel from a parabola through the
correlation around its maximum, is in the coordinates.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError

from ..carried import image_dims, pixel_attributes
from ..geometry import DfxmGeometry
from ._common_pixels import common_pixels

COARSE = 256  # pixels along a side, of the binned images in which the shift is first looked for
OUTSIDE = "outside_this_layer"


def volume(
    layers: list[xr.Dataset],
    *,
    on: Annotated[str, Says("quantity that the layers are registered by; none: they are stacked as they are")] = "total",
    minimum_correlation: Annotated[float, Says("layers that correlate less do not register")] = 0.5,
    overlap: Annotated[float, Says("least share of a layer that must overlap with the next")] = 0.3,
    spacing_um: Annotated[float | None, Says("distance of the layers", unit="um")] = None,
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """Maps of several layers registered to each other and stacked into one of layer, row and column.

    layers: Maps of the same quantities and frame size (orientation, strain, moments ...), in order.
    Returns the quantities that all layers have; per layer `shift_row`, `shift_column` (px, by which its content lies further down
    and to the right than in the first) and `correlation` with the layer before.
    Raises InputError, with the correlation found, where two layers do not register.
    """
    _check(layers, on, minimum_correlation, overlap, spacing_um)
    shifts, correlations = [(0.0, 0.0)], [1.0]
    for number in range(1, len(layers)):
        if on == "none":
            shift, correlation = (0.0, 0.0), math.nan
        else:
            shift, correlation = registered(layers[number - 1][on].values, layers[number][on].values, overlap)
            if not correlation >= minimum_correlation:
                raise InputError(
                    f"layers {number} and {number + 1} do not register by {on}: their correlation is {correlation:.2f} at best "
                    f"(shift {shift[0]:.0f}, {shift[1]:.0f} px), below minimum_correlation {minimum_correlation:g}; "
                    f"leave the layer out, choose another quantity with on, or stack them as they are with on=none"
                )
        shifts.append((shifts[-1][0] + shift[0], shifts[-1][1] + shift[1]))
        correlations.append(correlation)
    stacked = _stacked(layers, [(round(a), round(b)) for a, b in shifts])
    stacked = stacked.assign_coords(_coords(shifts, correlations, spacing_um))
    stacked.attrs = {
        "layers": len(layers),
        "registered_by": on,
        "lowest_correlation": float(np.nanmin(correlations)) if on != "none" else "none",
        **({} if spacing_um is None else {"spacing_um": float(spacing_um)}),
        **_common(layers),
        **pixel_attributes(layers[0], geometry),
    }
    return stacked


def registered(first: np.ndarray, second: np.ndarray, overlap: float = 0.3) -> tuple[tuple[float, float], float]:
    """How far the content of the second image lies further down and to the right than in the first (px), and the correlation.

    Looked for in binned images by masked normalised cross-correlation, then by whole pixels around, then by a parabola.
    The correlation is that of the pixels that both have at the best whole shift; missing pixels are NaN.
    """
    from skimage.registration import phase_cross_correlation

    factor = max(1, math.ceil(max(first.shape) / COARSE))
    a, b = _binned(first, factor), _binned(second, factor)
    masks = np.isfinite(a), np.isfinite(b)
    if min(m.sum() for m in masks) < 9:
        return (0.0, 0.0), 0.0
    moved, _, _ = phase_cross_correlation(
        np.nan_to_num(a), np.nan_to_num(b), reference_mask=masks[0], moving_mask=masks[1], overlap_ratio=overlap
    )
    best = (-round(float(moved[0]) * factor), -round(float(moved[1]) * factor))
    known: dict[tuple[int, int], float] = {}

    def value(shift: tuple[int, int]) -> float:
        if shift not in known:
            known[shift] = _correlation(first, second, shift, overlap)
        return known[shift]

    for step in dict.fromkeys((factor, max(1, factor // 2), 1)):
        while True:
            around = [(best[0] + i * step, best[1] + j * step) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            better = max(around, key=value)
            if value(better) <= value(best):
                break
            best = better
    row, column = (_vertex(value, best, axis) for axis in (0, 1))
    return (best[0] + row, best[1] + column), value(best)


def _correlation(first: np.ndarray, second: np.ndarray, shift: tuple[int, int], overlap: float) -> float:
    """Pearson's correlation of first[i, j] and second[i + shift] where both are known; -1 where too few are."""
    here, there = common_pixels(first.shape, shift)
    a, b = first[here], second[there]
    use = np.isfinite(a) & np.isfinite(b)
    if use.sum() < max(9, overlap * min(np.isfinite(first).sum(), np.isfinite(second).sum())):
        return -1.0
    a, b = a[use] - a[use].mean(), b[use] - b[use].mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else 0.0


def _vertex(value: Any, best: tuple[int, int], axis: int) -> float:
    """Where the parabola through the maximum and its neighbours along an axis has its top, within half a pixel."""
    step = (1, 0) if axis == 0 else (0, 1)
    before, middle, after = (value((best[0] + s * step[0], best[1] + s * step[1])) for s in (-1, 0, 1))
    curvature = before - 2 * middle + after
    if before <= -1 or after <= -1 or curvature >= 0:
        return 0.0
    return float(np.clip((before - after) / (2 * curvature), -0.5, 0.5))


def _stacked(layers: list[xr.Dataset], shifts: list[tuple[int, int]]) -> xr.Dataset:
    """The common quantities over (layer, row, column), each layer moved back by its whole shift, on a frame that holds all."""
    rows, columns = layers[0]["flag"].shape
    top, left = (min(-s[axis] for s in shifts) for axis in (0, 1))
    height, width = (n + max(-s[axis] for s in shifts) - low for axis, n, low in ((0, rows, top), (1, columns, left)))
    masks, words = _flag_words(layers)
    places = [(slice(-s[0] - top, -s[0] - top + rows), slice(-s[1] - left, -s[1] - left + columns)) for s in shifts]
    found: dict[str, Any] = {}
    for name in (str(n) for n in layers[0].data_vars if all(n in one for one in layers) and n != "flag"):
        if layers[0][name].dims != ("row", "column"):
            continue
        values = np.full((len(layers), height, width), np.nan)
        for n, place in enumerate(places):
            values[n][place] = layers[n][name].values
        found[name] = (("layer", "row", "column"), values, dict(layers[0][name].attrs))
    flag = np.full((len(layers), height, width), masks[OUTSIDE], np.int32)
    for n, place in enumerate(places):
        flag[n][place] = _translated(layers[n]["flag"], masks)
    attributes = {
        "long_name": "why a point is missing or doubtful (0 = good)",
        "flag_masks": np.array(list(masks.values()), np.int32),
        "flag_meanings": " ".join(words),
    }
    found["flag"] = (("layer", "row", "column"), flag, attributes)
    at = {"row": np.arange(height) + top, "column": np.arange(width) + left}
    return xr.Dataset(found, coords={name: (name, values, {"units": "px"}) for name, values in at.items()})


def _flag_words(layers: list[xr.Dataset]) -> tuple[dict[str, int], list[str]]:
    """A bit for every reason that any layer knows."""
    words = list(dict.fromkeys(w for one in layers for w in [*str(one["flag"].attrs["flag_meanings"]).split()]))
    words.append(OUTSIDE)
    return {word: 1 << i for i, word in enumerate(words)}, words


def _translated(flag: xr.DataArray, masks: dict[str, int]) -> np.ndarray:
    """The flags of one layer on the bits of the volume."""
    values = np.zeros(flag.shape, np.int32)
    for bit, word in zip(np.atleast_1d(flag.attrs["flag_masks"]), str(flag.attrs["flag_meanings"]).split(), strict=True):
        values[(flag.values & int(bit)) != 0] |= masks[word]
    return values


def _coords(shifts: list[tuple[float, float]], correlations: list[float], spacing_um: float | None) -> dict[str, Any]:
    """The layers' places, shifts and correlations."""
    unit = "um" if spacing_um is not None else "1"
    at = np.arange(len(shifts)) * (spacing_um or 1.0)
    table = {"shift_row": [s[0] for s in shifts], "shift_column": [s[1] for s in shifts]}
    return {
        "layer": ("layer", at, {"units": unit, "long_name": "place of the layer"}),
        **{name: ("layer", np.array(v), {"units": "px", "long_name": f"{name} to the first layer"}) for name, v in table.items()},
        "correlation": ("layer", np.array(correlations), {"units": "1", "long_name": "correlation with the layer before"}),
    }


def _common(layers: list[xr.Dataset]) -> dict[str, Any]:
    """Attributes that tell how to read orientations, where all layers agree in them."""
    names = ("unseen_axis", "two_theta_deg")
    return {n: layers[0].attrs[n] for n in names if n in layers[0].attrs and len({str(one.attrs.get(n)) for one in layers}) == 1}


def _check(layers: list[xr.Dataset], on: str, minimum: float, overlap: float, spacing_um: float | None) -> None:
    """Raise InputError for layers or options that do not go together."""
    if len(layers) < 2:
        raise InputError(f"a volume needs two or more layers, got {len(layers)}")
    for number, one in enumerate(layers, start=1):
        image_dims(one)
        if one["flag"].shape != layers[0]["flag"].shape:
            shapes = " pixels and layer 1 ".join(" x ".join(map(str, m["flag"].shape)) for m in (one, layers[0]))
            raise InputError(f"layer {number} has {shapes}; they must be alike")
        if on != "none" and on not in one:
            raise InputError(f"layer {number} has no {on} to register by; choose another of its quantities with on, or none")
    if spacing_um is not None and not (math.isfinite(spacing_um) and spacing_um > 0):
        raise InputError(f"spacing_um must be positive, got {spacing_um:g}")
    for name, value in (("minimum_correlation", minimum), ("overlap", overlap)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} must be between 0 and 1, got {value:g}")


def _binned(values: np.ndarray, factor: int) -> np.ndarray:
    """Means over factor x factor pixels, of those that are known."""
    rows, columns = (n // factor for n in values.shape)
    cut = values[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    known = np.isfinite(cut)
    count = known.sum(axis=(1, 3))
    total = np.where(known, cut, 0.0).sum(axis=(1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
