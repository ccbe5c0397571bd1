"""The map that multiresolution gives: illumination, mesoscale and edges of an image, or of every frame of a scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.core.maps import empty_map

from .wavelets import Wavelets, filled

FLAGS = {1: "no_data"}
SCALES = ("illumination", "mesoscale", "edges")
DIRECTIONS = ("horizontal", "vertical", "diagonal")


def check_fine(fine: int, wavelets: Wavelets) -> None:
    """Raise InputError where the finest levels are not among the levels."""
    if not 1 <= fine <= wavelets.levels:
        raise InputError(f"option fine must be between 1 and the number of levels, {wavelets.levels}, got {fine}")


def scales_map(
    image: np.ndarray, unit: str, what: str, wavelets: Wavelets, fine: int, variance: np.ndarray | None = None
) -> xr.Dataset:
    """The map of one image: its parts, details by level and direction, and NaN where the image is unknown.

    variance: Of the image's pixels, independent of each other; gives the parts' errors (stationary wavelets).
    """
    check_fine(fine, wavelets)
    unknown = ~np.isfinite(image)
    whole = filled(image.astype(np.float64))
    spread = None if variance is None else wavelets.variances(filled(variance), fine)
    parts, (_, details) = wavelets.three(whole, fine), wavelets.parts(whole)
    details[..., unknown] = np.nan  # in place: they are the largest of all
    coords = {"level": np.arange(1, wavelets.levels + 1), "scale_px": ("level", 2.0 ** np.arange(1, wavelets.levels + 1))}
    data = empty_map((), ("row", "column"), image.shape, coords, FLAGS)
    dims: tuple[str, ...] = ("row", "column")
    _put(data, "image", dims, image.astype(np.float64), unit, what)
    for n, name in enumerate(SCALES):
        _put(data, name, dims, np.where(unknown, np.nan, parts[n]), unit, f"{name} of {what}")
        if spread is not None:
            error = np.where(unknown, np.nan, np.sqrt(spread[n]))
            _put(data, f"{name}_std", dims, error, unit, f"standard deviation of the {name} of {what}")
    for n, direction in enumerate(DIRECTIONS):
        what_at = f"{direction} structures of {what} at each level"
        _put(data, f"detail_{direction}", ("level", *dims), details[:, n], unit, what_at)
    data["flag"].values[unknown] = 1
    data.attrs.update(_facts(wavelets, fine), filled_pixels=int(unknown.sum()))
    return data[[n for n in data.data_vars if n != "flag"] + ["flag"]]


def scales_of_frames(
    frames: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]], grid: xr.Dataset, wavelets: Wavelets, fine: int
) -> xr.Dataset:
    """Root mean square over the frames of each part per pixel, and over the pixels per frame, and what each frame's mean is.

    frames: Flat positions, frames above the level (frame, row, column), and where they are known or None.
    """
    check_fine(fine, wavelets)
    shape, points = tuple(grid.sizes[n] for n in grid.dims), int(np.prod([grid.sizes[n] for n in grid.dims]))
    squares, number = np.zeros((3, *wavelets.frame_shape)), np.zeros(wavelets.frame_shape)
    along = np.full((3, points), np.nan)
    for at, batch, mask in frames:
        for i, position in enumerate(at):
            known = np.ones(wavelets.frame_shape, bool) if mask is None else mask[i]
            if not known.any():
                continue
            power = np.array(wavelets.three(filled(np.where(known, batch[i], np.nan)), fine)) ** 2 * known
            squares += power
            number += known
            along[:, position] = np.sqrt(power.sum(axis=(1, 2)) / known.sum())
    data = empty_map((), ("row", "column"), wavelets.frame_shape, {str(n): c for n, c in grid.coords.items()}, FLAGS)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(number > 0, np.sqrt(squares / number), np.nan)
    for n, name in enumerate(SCALES):
        _put(data, f"{name}_rms", ("row", "column"), mean[n], "count", f"{name}, root mean square over the frames")
        dims = tuple(str(d) for d in grid.dims)
        _put(data, f"{name}_of_frame", dims, along[n].reshape(shape), "count", f"{name}, root mean square over the pixels")
    data["flag"].values[number == 0] = 1
    data.attrs.update(_facts(wavelets, fine), frames_used=int(np.isfinite(along[0]).sum()))
    return data[[n for n in data.data_vars if n != "flag"] + ["flag"]]


def _facts(wavelets: Wavelets, fine: int) -> dict[str, Any]:
    return {"wavelet": wavelets.name, "levels": wavelets.levels, "fine": fine, "transform": wavelets.transform}


def _put(data: xr.Dataset, name: str, dims: tuple[str, ...], values: np.ndarray, unit: str, long_name: str) -> None:
    data[name] = (dims, values, {"units": unit, "long_name": long_name})
