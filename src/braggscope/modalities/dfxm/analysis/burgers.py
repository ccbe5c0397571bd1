"""The Burgers vector of a dislocation from the tilts around it in one reflection, and the shapes of the rocking curves.

Over two motors each pixel's curve has a mean (rock, roll). Around a line these tilts fall as 1/r with a pattern that depends on
line and Burgers vector (`dislocations.tilts`). Every character of the setting is fitted to the pixels of a ring about the core,
weighted with their errors; in a second pass without those whose rays pass the line of the first pass's best one too closely. With
its place and the background free, chi^2 of each, with the Burgers vector of the lattice, gives its evidence, and a free factor
the amplitude. What the line of the best one says of b without the lattice is given as well.

Where the model does not explain the tilts to their errors (extent of pixels, coarse scans of a resolution with sharp edges), all
errors are scaled by the root of the best chi^2 per degree of freedom, and `misfit` says so. `none_probability` is that of the
background alone, half of all beforehand.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import xarray as xr
from scipy.ndimage import uniform_filter
from scipy.special import expit, logsumexp

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.infer.runtime import single_threaded_torch

from ..carried import (
    TO_DEGREES,
    carried_flag,
    cautions,
    error_covariance,
    geometry_of,
    image_dims,
    in_degrees,
    pixel_attributes,
    variable,
)
from ..dislocations.characters import Character, characters_of, chosen
from ..dislocations.curve_shapes import shape_map, shapes_of
from ..dislocations.resolution import fixed_optics
from ..dislocations.setting import Setting, setting_of
from ..dislocations.tilts import (
    COARSE,
    Fitted,
    Ring,
    background_chi2,
    fitted,
    free_burgers,
    log_evidence,
    modelled,
    nearest,
    ring,
)
from ..geometry import DfxmGeometry

INNER, OUTER = 1.5, 12.0  # radii of the ring in pixels, of their longer side
LEAST = 12  # pixels that a fit needs
LIKELY = 0.9  # probability below which the best character is called doubtful
NONE = 0.05  # probability of no dislocation from which on it is spoken of
FAR = 0.2  # of the amplitude from 1, from which on it is no Burgers vector of the lattice


def burgers(
    dataset: xr.Dataset,
    *,
    preset: Annotated[str, Says("reflection, crystal and slip systems: al-002, al-002-legacy or a TOML file")] = "al-002",
    lines: Annotated[
        str, Says("kinds of line of all slip systems, 'edge screw 60 -60'; left out, the setting's characters")
    ] = "",
    characters: Annotated[tuple[str, ...], Says("names or numbers of those to try; left out, all")] = (),
    centre: Annotated[
        tuple[float, float] | None, Says("row and column of the core; left out, where the tilt changes most")
    ] = None,
    radius_nm: Annotated[tuple[float, float] | None, Says("inner and outer radius of the ring", unit="nm")] = None,
    background: Annotated[str, Says("of the crystal without the dislocation", choices=("constant", "linear"))] = "constant",
    motors: Annotated[tuple[str, str] | None, Says("rocking and rolling motor; left out, by the goniometer")] = None,
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """Burgers vector of a dislocation by the tilts around it, with the probability of every character, and shapes of the curves.

    dataset: Map with the position `M` of the peak along a rocking and a rolling motor and their errors (`moments`, `peakfit`).
    Returns per character chi2, probability, amplitude (1: the lattice's Burgers vector, negative: its opposite) and place, NaN
    where the search for it did not end; `none_probability`, that there is no dislocation; the
    tilts, those of the best character and what is left; and for each pixel the shape of its curve (`covariance_angle`,
    `covariance_excess`, `covariance_ratio`, `covariance_class`).
    Raises InputError where two such motors, their errors or pixels are missing.

    The goniometer's rolling axis is taken to be perpendicular to the diffraction vector.
    """
    image_dims(dataset)
    setting = _setting(preset, lines)
    candidates = chosen(setting, characters) if characters else _one_sign(characters_of(setting))
    names, signs = _motors(dataset, geometry_of(dataset, geometry), motors)
    tilt, covariance, usable = _tilts(dataset, names, signs)
    pixel = pixel_attributes(dataset, geometry)
    pitch = _pitch(pixel, setting)
    inner, outer = radius_nm or (INNER * max(pitch), OUTER * max(pitch))
    if not 0 < inner < outer < math.inf:
        raise InputError(f"radius_nm must be two rising lengths, got {inner:g} and {outer:g}")
    at = _centre(tilt, usable, pitch) if centre is None else _inside(centre, usable.shape)
    with single_threaded_torch():
        found, picked, used, at = _found(
            setting, candidates, tilt, covariance, usable, at, pitch, inner, outer, centre is None, background == "linear"
        )
        return _result(dataset, setting, picked, found, tilt, used, at, pitch, names, pixel)


def _found(
    setting: Setting, candidates: list[Character], tilt: np.ndarray, covariance: np.ndarray, usable: np.ndarray,
    at: tuple[float, float], pitch: tuple[float, float], inner: float, outer: float, move: bool, linear: bool,
) -> tuple[list[Fitted], Ring, np.ndarray, tuple[float, float]]:  # fmt: skip
    """Every character fitted to the ring about the line that a first pass finds; the ring, its pixels and its centre."""
    reach = inner + np.array(pitch)

    def about(at: tuple[float, float], line: Character | None) -> tuple[Ring, np.ndarray]:
        place, used = _around(at, usable, pitch, inner, outer, setting, line)
        return ring(setting, place[used], tilt[used], covariance[used], reach, linear=linear), used

    picked, _ = about(at, None)
    first = min(fitted(picked[:: max(1, len(picked.place) // COARSE)], candidates), key=lambda one: one.chi2)
    if move:
        at = _inside_of(at + first.place / pitch, usable.shape)
    picked, used = about(at, first.character)
    return fitted(picked, candidates), picked, used, at


def _setting(preset: str, lines: str) -> Setting:
    setting = setting_of(preset)
    return setting.replace(characters=lines) if lines else setting


def _one_sign(characters: list[Character]) -> list[Character]:
    """One of each pair of opposite Burgers vectors: the amplitude has the sign."""
    return [one for one in characters if not one.name.startswith("-")]


def _motors(
    dataset: xr.Dataset, geometry: DfxmGeometry, given: tuple[str, str] | None
) -> tuple[tuple[str, str], tuple[float, float]]:
    """The rocking and the rolling motor and the signs of their angles, positive about -y and about +x (`dislocations.optics`)."""
    axes = {n: axis for n, axis in geometry.goniometer_axes().items() if n in dataset}
    found = []
    for index, (which, name) in enumerate(zip((1, 0), ("rocking", "rolling"), strict=True)):
        able = [n for n, axis in axes.items() if abs(axis[which]) == 1]
        wanted = given[index] if given else able[0] if able else ""
        if wanted not in able:
            raise InputError(
                f"burgers needs the peak along a {name} motor (about {'xyz'[which]}); the map has {', '.join(able) or 'none'}"
                + (f", not '{wanted}'" if given else "")
            )
        found.append((wanted, (-1 if which == 1 else 1) * axes[wanted][which]))
    return (found[0][0], found[1][0]), (found[0][1], found[1][1])


def _tilts(dataset: xr.Dataset, names: tuple[str, str], signs: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rock and roll, rad (row, column, 2), their errors' covariance, and where both are good."""
    if lacking := [f"{n}_std" for n in names if f"{n}_std" not in dataset]:
        raise InputError(f"burgers weighs with errors, and the map lacks {', '.join(lacking)}")
    radians = [math.radians(TO_DEGREES[str(dataset[n].attrs.get("units", ""))]) * s for n, s in zip(names, signs, strict=True)]
    tilt = np.stack([np.radians(in_degrees(dataset[n])) * s for n, s in zip(names, signs, strict=True)], -1)
    std = [dataset[f"{n}_std"].values.astype(float) * abs(r) for n, r in zip(names, radians, strict=True)]
    shared = error_covariance(dataset, *names) * radians[0] * radians[1]
    covariance = np.stack([np.stack([std[0] ** 2, shared], -1), np.stack([shared, std[1] ** 2], -1)], -2)
    finite = np.isfinite(tilt).all(-1) & np.isfinite(covariance).all((-1, -2)) & (std[0] > 0) & (std[1] > 0)
    good = finite & (dataset["flag"].values == 0)
    usable = good if good.sum() >= max(LEAST, finite.sum() / 2) else finite
    if usable.sum() < LEAST:
        raise InputError(f"burgers needs at least {LEAST} pixels with both positions and errors, the map has {int(usable.sum())}")
    return tilt, covariance, usable


def _pitch(pixel: dict[str, float], setting: Setting) -> tuple[float, float]:
    """Of the pixels along rows and columns in the sample, nm: of the map, else of the setting."""
    if len(pixel) == 2:
        return 1000 * pixel["pixel_row_um"], 1000 * pixel["pixel_column_um"]
    return fixed_optics(setting.replace(conventions="exact")).pitch_nm


def _centre(tilt: np.ndarray, usable: np.ndarray, pitch: tuple[float, float]) -> tuple[float, float]:
    """Where the tilts change most from pixel to pixel: the middle of the largest gradient, of a mean over 3 x 3 pixels."""
    known = np.where(usable[..., None], tilt - np.median(tilt[usable], axis=0), 0.0)
    change = np.zeros(usable.shape)
    for component in range(2):
        for axis, step in enumerate(pitch):
            if usable.shape[axis] > 2:
                change += (np.gradient(known[..., component], axis=axis) / step) ** 2
    smooth = uniform_filter(change, 3, mode="nearest")
    row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
    near = [slice(max(0, i - 2), i + 3) for i in (row, column)]
    weight = smooth[near[0], near[1]]
    rows, columns = (np.arange(*s.indices(n)) for s, n in zip(near, usable.shape, strict=True))
    if not weight.sum():
        return float(row), float(column)
    return float((weight.sum(1) @ rows) / weight.sum()), float((weight.sum(0) @ columns) / weight.sum())


def _inside_of(centre: np.ndarray, shape: tuple[int, ...]) -> tuple[float, float]:
    """The nearest place inside a map."""
    row, column = (float(np.clip(c, 0, n - 1)) for c, n in zip(centre, shape, strict=True))
    return row, column


def _inside(centre: tuple[float, float], shape: tuple[int, ...]) -> tuple[float, float]:
    if not all(0 <= c <= n - 1 for c, n in zip(centre, shape, strict=True)):
        raise InputError(f"centre must be a pixel of the {shape[0]} x {shape[1]} of the map, got {centre[0]:g}, {centre[1]:g}")
    return centre


def _around(
    at: tuple[float, float], usable: np.ndarray, pitch: tuple[float, float], inner: float, outer: float, setting: Setting,
    line: Character | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Places of the pixels from the centre, nm (row, column, 2), and which are in the ring.

    line: A first guess of it: pixels whose rays pass it nearer than the inner radius are left out, else those near the centre.
    """
    rows, columns = np.indices(usable.shape)
    place = np.stack([(rows - at[0]) * pitch[0], (columns - at[1]) * pitch[1]], -1)
    optics = fixed_optics(setting.replace(conventions="exact"))
    along = place[..., :1] + optics.depth_nm * optics.tilt
    near = np.sqrt(along**2 + place[..., 1:] ** 2 + optics.depth_nm**2).min(-1) if line is None else nearest(setting, place, line)
    used = usable & (near >= inner) & (np.hypot(*np.moveaxis(place, -1, 0)) <= outer)
    if used.sum() < LEAST:
        raise InputError(f"the ring holds {int(used.sum())} good pixels, at least {LEAST} are needed: widen radius_nm")
    return place, used


def _result(
    dataset: xr.Dataset, setting: Setting, at: Ring, found: list[Fitted], tilt: np.ndarray, used: np.ndarray,
    centre: tuple[float, float], pitch: tuple[float, float], names: tuple[str, str], pixel: dict[str, float],
) -> xr.Dataset:  # fmt: skip
    """Maps of tilts and curve shapes, the table of characters, best first, and what the best one says."""
    freedom = max(1, at.tilt.size - 2 - at.background.shape[-1])
    alone = background_chi2(at)
    scale2 = max(1.0, min(alone, *(one.chi2 for one in found)) / freedom)
    evidence = log_evidence(at, found, scale2)
    none = float(expit(-alone / (2 * scale2) - logsumexp(evidence) + math.log(len(found))))
    order = np.argsort(-evidence, kind="stable")
    probability = np.exp(evidence - evidence.max())
    probability = (probability / probability.sum())[order]
    sorted_ = [found[k] for k in order]
    best = sorted_[0]
    model = np.full((*used.shape, 2), np.nan)
    model[used] = modelled(at, best)
    maps = {}
    for k, name in enumerate(("rock", "roll")):
        shift = np.median(tilt[used][:, k])
        maps[name] = variable(np.degrees(tilt[..., k] - shift), "deg", f"tilt by {names[k]}, from the median of the ring")
        maps[f"{name}_model"] = variable(np.degrees(model[..., k] - shift), "deg", f"{name} of the best character, in the ring")
    degrees = [TO_DEGREES[str(dataset[n].attrs.get("units", ""))] for n in names]
    shapes = shapes_of(dataset, names, (degrees[0], degrees[1]))
    if shapes is not None:
        maps |= shape_map(shapes, names)
    maps["flag"] = carried_flag(dataset, {"outside_the_ring": ~used})
    table = _table(sorted_, probability, scale2, freedom, centre, pitch)
    free, spread = free_burgers(at, best)
    result = xr.Dataset({**maps, **table}, coords={"character": ("character", [one.character.label for one in sorted_])})
    error = np.sqrt(scale2 * np.diagonal(spread))
    result.attrs = {
        "best": best.character.label,
        "probability_of_best": float(probability[0]),
        "none_probability": none,
        "burgers_nm": _words(_lattice_burgers(setting, best)),
        "free_burgers_nm": _words(free),
        "free_burgers_std_nm": _words(error),
        "amplitude_of_best": best.amplitude,
        "amplitude_of_best_std": best.amplitude_std * math.sqrt(scale2),
        "misfit": scale2,
        "pixels_in_ring": int(used.sum()),
        **pixel,
        **cautions(*_doubts(best, float(probability[0]), none, scale2), str(dataset.attrs.get("caution", ""))),
    }
    return result


def _doubts(best: Fitted, probability: float, none: float, scale2: float) -> list[str]:
    """What is to be said of the best character."""
    off, error = abs(abs(best.amplitude) - 1), best.amplitude_std * math.sqrt(scale2)
    doubts = {
        f"that there is no dislocation has a probability of {none:.2g}": none > NONE,
        f"the best character has a probability of {probability:.2f} only": probability < LIKELY,
        f"the tilts are {abs(best.amplitude):.2g} times those of a Burgers vector of the lattice: no dislocation, not one alone, "
        "or steps of the scan too coarse": off > max(FAR, 3 * error),
        "the search for the place of the best character did not end": not best.converged,
        f"the tilts scatter {math.sqrt(scale2):.2g} times as much as their errors say; errors were scaled": scale2 > 1.5,
    }
    return [words for words, holds in doubts.items() if holds]


def _table(
    found: list[Fitted],
    probability: np.ndarray,
    scale2: float,
    freedom: int,
    centre: tuple[float, float],
    pitch: tuple[float, float],
) -> dict[str, xr.DataArray]:
    """One row for each character."""
    ended = np.array([one.converged for one in found])
    places = np.where(ended[:, None], np.array([one.place for one in found]) / pitch + centre, np.nan)
    errors = np.sqrt(np.array([np.diagonal(one.place_covariance) for one in found]) * scale2) / pitch
    errors[~ended] = np.nan
    columns = {
        "probability": (probability, "1", "probability of the character, each being alike beforehand"),
        "reduced_chi2": (np.array([one.chi2 for one in found]) / freedom, "1", "chi^2 per degree of freedom, by counting alone"),
        "amplitude": (
            np.where(ended, [one.amplitude for one in found], np.nan),
            "1",
            "Burgers vector over that of the lattice, free",
        ),
        "amplitude_std": (
            np.sqrt(scale2) * np.where(ended, [one.amplitude_std for one in found], np.nan),
            "1",
            "standard deviation of amplitude",
        ),
        "line_row": (places[:, 0], "px", "row where the line crosses the middle of the beam"),
        "line_row_std": (errors[:, 0], "px", "standard deviation of line_row"),
        "line_column": (places[:, 1], "px", "column where the line crosses the middle of the beam"),
        "line_column_std": (errors[:, 1], "px", "standard deviation of line_column"),
    }
    return {name: variable(values, unit, text, ("character",)) for name, (values, unit, text) in columns.items()}


def _lattice_burgers(setting: Setting, one: Fitted) -> np.ndarray:
    """Of the lattice, with the sign of the amplitude, nm along Cartesian crystal axes."""
    b = np.array(one.character.burgers) * setting.lattice_a / 10
    if setting.burgers_nm is not None:
        b *= setting.burgers_nm / np.linalg.norm(b)
    return math.copysign(1.0, one.amplitude) * b


def _words(vector: np.ndarray) -> str:
    return " ".join(f"{v:.6g}" for v in vector)
