"""Tracks as a map: places and velocities over track and axis, a table of the tracks, and mean square displacements over lags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from ..carried import variable
from .displacements import diffusion, mean_square_displacement, mean_velocity
from .following import Motion, Track
from .movie import Axis
from .smoothing import Places, Smooth

Array = np.ndarray
FLAGS = {1: "not_followed_then", 2: "overlapped", 4: "no_image", 8: "refinement_failed", 16: "no_frame", 32: "at_the_border"}
TRACK_FLAGS = {1: "overlapped", 2: "left_the_field", 4: "too_short"}
EDGE = 14.0  # px from the border within which a track that ends has left
NAMES = ("row", "column")


@dataclass(frozen=True)
class Followed:
    """One track with what is known of it.

    places: Measured.  smooth: States given all of them.  systematic: Covariance of an error that all places of a track share.
    failed: Frames of the track in which the refinement failed.
    """

    track: Track
    places: Places
    smooth: Smooth
    systematic: Array
    failed: Array


@dataclass(frozen=True)
class Scale:
    """Size of a pixel along rows and columns in the sample, and its unit: nm, or px where it is not known."""

    size: Array
    unit: str


def scaled(places: Places, motion: Motion, scale: Scale) -> tuple[Places, Motion]:
    """Places and motion in the unit of the scale instead of pixels."""
    s = scale.size
    both = np.outer(s, s)
    moved = replace(motion, diffusion=motion.diffusion * both, error=motion.error * both, blur=motion.blur * both)
    return replace(places, place=places.place * s, covariance=places.covariance * both), moved


def tracks_map(followed: Sequence[Followed], motion: Motion, axis: Axis, shape: tuple[int, int], scale: Scale, present: Array,
               shortest: int, lags: int) -> xr.Dataset:  # fmt: skip
    """All of them as one Dataset.

    shape: Of the frames.  present: Whether there is a usable frame.  shortest: Frames below which a track is too short.
    """
    coords = {
        "track": ("track", np.arange(1, len(followed) + 1), {"long_name": "number of the track, by its first frame"}),
        axis.name: (axis.name, axis.values, {"units": axis.unit}),
    }
    found = _places(followed, axis, shape, scale)
    found["flag"] = _flag(followed, axis, present)
    found |= _table(followed, motion, axis, shape, scale, shortest)
    msd, lag = _msd(followed, motion, axis, scale, lags)
    coords["lag"] = ("lag", lag, {"units": axis.unit, "long_name": f"change of {axis.name} between two places"})
    return xr.Dataset(found | msd, coords=coords)


def _places(followed: Sequence[Followed], axis: Axis, shape: tuple[int, int], scale: Scale) -> dict[str, xr.DataArray]:
    """Smoothed and measured places and velocities, (track, axis)."""
    dims, size = ("track", axis.name), (len(followed), len(axis.values))
    state, spread = np.full((*size, 4), np.nan), np.full((*size, 4), np.nan)
    measured, error = np.full((*size, 2), np.nan), np.full((*size, 2), np.nan)
    light, sign = np.full(size, np.nan), np.sign(axis.values[-1] - axis.values[0])
    for n, one in enumerate(followed):
        at = one.track.frames
        state[n, at] = one.smooth.state
        variance = np.diagonal(one.smooth.covariance, axis1=1, axis2=2).copy()
        variance[:, :2] += np.diag(one.systematic)
        spread[n, at] = np.sqrt(variance)
        measured[n, at] = one.places.place
        error[n, at] = np.sqrt(np.diagonal(one.places.covariance, axis1=1, axis2=2) + np.diag(one.systematic))
        light[n, at] = [np.nan if s is None or o else s.light for s, o in zip(one.track.seen, one.track.shared, strict=True)]
    error[~np.isfinite(measured)] = np.nan
    per = f"/{axis.unit}" if axis.unit else ""
    rate = sign / axis.step
    columns: dict[str, tuple[Array, Array, str, str]] = {}
    for i, name in enumerate(NAMES):
        columns[name] = state[..., i], spread[..., i], "px", f"{name} of the dislocation, smoothed"
    for i, (name, middle) in enumerate(zip(("x_nm", "y_nm"), (np.array(shape) - 1) / 2, strict=True)):
        if scale.unit == "nm":
            along = "along the beam (rows)" if i == 0 else "across the beam (columns)"
            values = (state[..., i] - middle) * scale.size[i]
            columns[name] = values, spread[..., i] * scale.size[i], "nm", f"place {along} from the middle of the frame, smoothed"
    for i, name in enumerate(NAMES):
        size_i = scale.size[i] * rate
        text = f"velocity along {name}s"
        columns[f"velocity_{name}"] = state[..., 2 + i] * size_i, spread[..., 2 + i] * abs(size_i), scale.unit + per, text
    for i, name in enumerate(NAMES):
        columns[f"measured_{name}"] = measured[..., i], error[..., i], "px", f"{name} as measured in the frame alone"
    arrays = {}
    for name, (values, std, unit, text) in columns.items():
        arrays[name] = variable(values, unit, text, dims)
        arrays[f"{name}_std"] = variable(std, unit, f"standard deviation of {name}", dims)
    arrays["light"] = variable(light, "count", "counts of the image above the background", dims)
    return arrays


def _flag(followed: Sequence[Followed], axis: Axis, present: Array) -> xr.DataArray:
    """Why a place is missing or doubtful."""
    flag = np.ones((len(followed), len(axis.values)), np.int32)
    for n, one in enumerate(followed):
        at, t = np.array(one.track.frames), one.track
        flag[n, at] = 2 * np.array(t.shared) + 4 * np.array([s is None for s in t.seen]) + 8 * one.failed
        flag[n, at] |= 32 * np.array([s is not None and s.border for s in t.seen])
        inside = np.arange(at[0], at[-1] + 1)
        flag[n, inside[~present[inside]]] = 16
    attributes = {
        "long_name": "why a place is missing or doubtful (0 = good)",
        "flag_masks": np.array(list(FLAGS), np.int32),
        "flag_meanings": " ".join(FLAGS.values()),
    }
    return xr.DataArray(flag, dims=("track", axis.name), attrs=attributes)


def _table(followed: Sequence[Followed], motion: Motion, axis: Axis, shape: tuple[int, int], scale: Scale,
           shortest: int) -> dict[str, xr.DataArray]:  # fmt: skip
    """One row a track."""
    per, sign = f"/{axis.unit}" if axis.unit else "", np.sign(axis.values[-1] - axis.values[0])
    first = np.array([axis.values[one.track.frames[0]] for one in followed])
    last = np.array([axis.values[one.track.frames[-1]] for one in followed])
    moving = [scaled(one.places, motion, scale) for one in followed]
    velocity = [mean_velocity(*m) for m in moving]
    mean = np.array([v for v, _ in velocity]) * sign / axis.step
    mean_std = np.sqrt(np.array([np.diag(c) for _, c in velocity])) / axis.step
    spread = np.array([diffusion(*m) for m in moving]) / axis.step
    flags = np.array([_track_flag(one.track, len(axis.values), shape, shortest) for one in followed], np.int32)
    columns = {
        "birth": (first, axis.unit, f"{axis.name} of the first image"),
        "death": (last, axis.unit, f"{axis.name} of the last image"),
        "length": (np.array([float(len(one.track.frames)) for one in followed]), "1", "frames from birth to death"),
        "mean_velocity_row": (mean[:, 0], scale.unit + per, "mean velocity along rows"),
        "mean_velocity_row_std": (mean_std[:, 0], scale.unit + per, "standard deviation of mean_velocity_row"),
        "mean_velocity_column": (mean[:, 1], scale.unit + per, "mean velocity along columns"),
        "mean_velocity_column_std": (mean_std[:, 1], scale.unit + per, "standard deviation of mean_velocity_column"),
        "diffusion": (spread[:, 0], f"{scale.unit}^2{per}", "diffusion coefficient along a line, the mean velocity taken off"),
        "diffusion_std": (spread[:, 1], f"{scale.unit}^2{per}", "standard deviation of diffusion"),
    }
    found = {name: variable(values, unit, text, ("track",)) for name, (values, unit, text) in columns.items()}
    found["track_flag"] = variable(flags, "1", "what is to be known of a track (0 = nothing)", ("track",))
    found["track_flag"].attrs |= {
        "flag_masks": np.array(list(TRACK_FLAGS), np.int32), "flag_meanings": " ".join(TRACK_FLAGS.values())
    }  # fmt: skip
    return found


def _track_flag(track: Track, frames: int, shape: tuple[int, int], shortest: int) -> int:
    """Overlapped, left the field, too short."""
    end = track.seen[-1]
    assert end is not None
    place, state = end.place, track.state
    near = (np.minimum(place, np.array(shape) - 1 - place) < EDGE) & ((place < np.array(shape) / 2) == (state[2:] < 0))
    left = track.frames[-1] < frames - 1 and (end.border or near.any())
    return any(track.shared) * 1 + bool(left) * 2 + (len(track.frames) < shortest) * 4


def _msd(followed: Sequence[Followed], motion: Motion, axis: Axis, scale: Scale,
         lags: int) -> tuple[dict[str, xr.DataArray], Array]:  # fmt: skip
    """Mean square displacements, (track, lag)."""
    lags = max(min(lags, len(axis.values) - 1), 1)
    every = [mean_square_displacement(*scaled(one.places, motion, scale), lags) for one in followed]
    unit = f"{scale.unit}^2"
    text = "mean square displacement, errors of the places taken off"
    return {
        "msd": variable(np.array([v for v, _ in every]), unit, text, ("track", "lag")),
        "msd_std": variable(np.array([s for _, s in every]), unit, "standard deviation of msd", ("track", "lag")),
    }, axis.step * np.arange(1, lags + 1)  # fmt: skip
