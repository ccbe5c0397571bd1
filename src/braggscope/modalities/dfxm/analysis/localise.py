"""Dislocations in images: where, of which character, how many, with the covariance of their places.

Every image is taken for itself. What is not given is inferred from it: background, read-out noise, amplitude, number and
characters (`dislocations/`). Images are indexed [x_lab, y_lab]: rows run along the beam, columns across it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from ..carried import variable
from ..dislocations.characters import characters_of, chosen
from ..dislocations.fit import Fit, Level
from ..dislocations.identify import Found, identified
from ..dislocations.model import ImageModel
from ..dislocations.sampling import Samples, sampled
from ..dislocations.search import start_level
from ..dislocations.setting import PRESETS, Setting, setting_of
from ..geometry import DfxmGeometry

FRAMES = ("dislocation", "image")
FLAGS = {
    1: "no_dislocation", 2: "saturated_or_empty", 4: "number_ambiguous", 8: "character_ambiguous", 16: "outside_the_image",
    32: "not_converged", 64: "image_not_described",
}  # fmt: skip
SURE = 0.95  # probability from which a number or a character is not called ambiguous
MOST = 12  # dislocations in an image: every one more is searched for beside all others
MOST_SATURATED = 0.3  # of the pixels, from which on an image is not fitted
DESCRIBED = 5.0  # standard deviations of the reduced deviance above 1


@dataclasses.dataclass(frozen=True)
class _Image:
    """One image's result; nothing found where it could not be fitted."""

    found: Found | None
    samples: Samples | None
    usable: int
    flag: int


def localise(
    scan: Scan,
    *,
    preset: Annotated[str, Says(f"goniometer, optics, crystal and detector: {', '.join(PRESETS)} or a .toml file")] = "al-002",
    character: Annotated[
        tuple[str, ...],
        Says("character of the dislocation, a number of the published twelve or a slip system; one for each image"),
    ] = (),
    dislocations: Annotated[int | None, Says("their number; left out: inferred, or 1 with a character")] = None,
    most: Annotated[int, Says("most dislocations that are looked for in an image")] = 3,
    background: Annotated[float | None, Says("level of the background; left out: inferred", unit="count")] = None,
    readout: Annotated[float | None, Says("read-out noise; left out: inferred", unit="count")] = None,
    amplitude: Annotated[float | None, Says("counts per nm of depth at full reflection; left out: preset or inferred")] = None,
    frame: Annotated[str, Says("axes of x and y: of each dislocation (x = n x t, y = n), or of the image", choices=FRAMES)] = (
        "dislocation"
    ),
    samples: Annotated[int, Says("samples of the posterior by Markov chains, 0 for none")] = 0,
    seed: Annotated[int, Says("of the Markov chains")] = 0,
) -> xr.Dataset:
    """Places and characters of the dislocations in each image, with covariance and probabilities.

    scan: Images, each by itself.
    Returns a table of dislocations: x, y (nm) with covariance, place in the image, character and its probability; a table of
    images: number of dislocations and its probabilities, levels, reduced deviance, flag.
    Raises InputError for a scan of motors, an unknown preset or character, and for a number of characters that
    does not match the images.
    """
    _check_axes(scan)
    setting = _setting(preset, background, readout, amplitude)
    images = int(np.prod(scan.shape))
    _check(character, images, dislocations, most, samples)
    model = ImageModel(setting, characters_of(setting), scan.frame_shape)
    names = [c.name for c in model.characters]
    wanted = [names.index(c.name) for c in chosen(setting, character)]
    number = dislocations if dislocations is not None else 1 if wanted else None
    results: list[_Image] = [_Image(None, None, 0, 2)] * images
    for at, counts, usable in _images(scan):
        which = None if not wanted else [wanted[at if len(wanted) > 1 else 0]]
        results[at] = _result(model, counts, usable, which, number, most, samples, seed + at)
    return _table(model, results, frame, samples).assign_attrs(_attributes(preset, frame, model))


def document(result: xr.Dataset) -> dict[str, Any]:
    """What `--json` adds: the dislocations of each image, by image."""
    images: list[dict[str, Any]] = [{"dislocations": []} for _ in range(result.sizes["image"])]
    for i in range(result.sizes["dislocation"]):
        row = result.isel(dislocation=i)
        name = str(row["character"].item())
        xx, xy, yy = (float(row[n]) for n in ("x_variance", "xy_covariance", "y_variance"))
        images[int(row["of_image"])]["dislocations"].append(
            {
                "x_nm": float(row["x"]),
                "y_nm": float(row["y"]),
                "covariance_nm2": [[xx, xy], [xy, yy]],
                "character": int(name) if name.isdigit() else name,
                "probability": float(row["probability"]),
            }
        )
    return {"images": images}


def _setting(preset: str, background: float | None, readout: float | None, amplitude: float | None) -> Setting:
    """The preset with what is given instead."""
    given = {"background": background, "readout": readout, "amplitude": amplitude}
    return setting_of(preset).replace(**{name: value for name, value in given.items() if value is not None})


def _check_axes(scan: Scan) -> None:
    """Raise InputError for a scan of motors, whose images are not all of one setting."""
    names = [str(name) for name in scan.grid.dims]
    moved = [name for name in names if name in DfxmGeometry().motors()]
    if moved or len(names) > 1:
        what = f"a scan of {' and '.join(moved)}" if moved else f"a grid over {' and '.join(names)}"
        raise InputError(f"localise takes images of one setting, one or a stack of them, not {what}; cut out one image of it")


def _check(character: Sequence[str], images: int, dislocations: int | None, most: int, samples: int) -> None:
    """Raise InputError for options that cannot be."""
    if len(character) not in (0, 1, images):
        raise InputError(f"character must be one for all or one for each of the {images} images, got {len(character)}")
    ranges = (("dislocations", dislocations, 0, MOST), ("most", most, 1, MOST), ("samples", samples, 0, 10**6))
    for name, value, low, high in ranges:
        if value is not None and not low <= value <= high:
            raise InputError(f"{name} must be between {low} and {high}, got {value}")


def _images(scan: Scan) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Flat position, counts and what of them may be used; counts below zero may."""
    for batch in scan.batches():
        top = scan.saturation
        if top is None and batch.frames.dtype.kind == "u":
            top = float(np.iinfo(batch.frames.dtype).max)
        for at, frame in zip(batch.index, batch.frames, strict=True):
            counts = np.asarray(frame, np.float64)
            usable = np.isfinite(counts) if top is None else np.isfinite(counts) & (counts < top)
            yield int(at), np.where(usable, counts, 0.0), usable


def _result(
    model: ImageModel,
    counts: np.ndarray,
    usable: np.ndarray,
    which: list[int] | None,
    number: int | None,
    most: int,
    samples: int,
    seed: int,
) -> _Image:
    """What one image shows."""
    if usable.mean() < 1 - MOST_SATURATED or np.ptp(counts[usable]) == 0:
        return _Image(None, None, int(usable.sum()), 2)
    level = start_level(model, counts, usable)
    least, largest = (0, most) if number is None else (number, number)
    found = identified(model, counts, usable, level, most=largest, least=least, which=which)
    drawn = sampled(model, counts, usable, found.fit, samples, seed) if samples and found.fit.which else None
    return _Image(found, drawn, int(usable.sum()), _flag(model, found, int(usable.sum())))


def _flag(model: ImageModel, found: Found, pixels: int) -> int:
    best = found.fit
    outside = model.to_image(best.which, _mean(best)) if best.which else np.zeros((0, 2))
    reasons = {
        1: not best.which or found.none > 0.5 or _nowhere(model, best),
        4: found.number.max() < SURE or 1 - SURE < found.none < SURE,
        8: bool((found.probability < SURE).any()),
        16: bool((np.abs(outside) > np.array(model.shape) * model.optics.pitch_nm / 2).any()),
        32: not best.converged,
        64: best.chi2 > 1 + DESCRIBED * math.sqrt(2 / pixels),
    }
    return sum(bit for bit, holds in reasons.items() if holds)


def _nowhere(model: ImageModel, best: Fit) -> bool:
    """Whether the image tells less of a place, in every direction, than that it is in the field."""
    places = (best.covariance[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] for k in range(len(best.which)))
    least = [float(np.linalg.eigvalsh(one)[0]) if np.isfinite(one).all() else math.inf for one in places]
    return max(least, default=0.0) > float(model.field_nm.max()) ** 2


def _mean(best: Fit) -> np.ndarray:
    return best.mean if best.mean is not None else best.places


def _table(model: ImageModel, results: Sequence[_Image], frame: str, samples: int) -> xr.Dataset:
    """The tables of dislocations and of images."""
    rows, drawn = [], []
    for at, one in enumerate(results):
        if one.found is None:
            continue
        best = one.found.fit
        places = _mean(best)
        turn = model.straight[best.which].to_image() if best.which else np.zeros((0, 2, 2))
        for k, which in enumerate(best.which):
            covariance = best.covariance[2 * k : 2 * k + 2, 2 * k : 2 * k + 2]
            in_image = turn[k] @ places[k]
            if frame == "image":
                covariance = turn[k] @ covariance @ turn[k].T
            x, y = in_image if frame == "image" else places[k]
            rows.append((at, x, y, *covariance[np.triu_indices(2)], *in_image, which, one.found.probability[k]))
            if one.samples is not None:
                taken = one.samples.places[:samples, k]
                drawn.append(taken @ turn[k].T if frame == "image" else taken)
    of_image, x, y, xx, xy, yy, image_x, image_y, kind, probability = np.array(rows, float).reshape(-1, 10).T
    names = np.array([model.characters[int(i)].name for i in kind], dtype="U64")
    columns = {
        "of_image": (of_image.astype(np.int32), "1", "number of the image, from 0"),
        "x": (x, "nm", f"x in the frame of the {frame}"),
        "x_std": (np.sqrt(xx), "nm", "standard deviation of x"),
        "y": (y, "nm", f"y in the frame of the {frame}"),
        "y_std": (np.sqrt(yy), "nm", "standard deviation of y"),
        "character": (names, "", "character: number of the published twelve, or slip system and line"),
        "probability": (probability, "1", "probability of the character, the other dislocations as they are"),
        "image_x": (image_x, "nm", "x along the beam at z = 0, from the middle of the image"),
        "image_y": (image_y, "nm", "y across the beam, from the middle of the image"),
        "x_variance": (xx, "nm^2", "variance of x"),
        "xy_covariance": (xy, "nm^2", "covariance of x and y"),
        "y_variance": (yy, "nm^2", "variance of y"),
    }
    found = {name: variable(values, unit, text, ("dislocation",)) for name, (values, unit, text) in columns.items()}
    if drawn:
        for i, axis in enumerate("xy"):
            chains = np.array([d[:, i] for d in drawn])
            found[f"{axis}_sample"] = variable(chains, "nm", f"samples of {axis}", ("dislocation", "sample"))
    return xr.Dataset({**found, **_of_images(results)}, coords={"dislocation": np.arange(len(rows))})


def _of_images(results: Sequence[_Image]) -> dict[str, xr.DataArray]:
    """Number, levels and goodness of each image."""
    nan_level = Level(math.nan, math.nan, math.nan, math.nan)
    fits = [None if one.found is None else one.found.fit for one in results]
    levels = [nan_level if f is None else f.level for f in fits]
    columns = {
        "number": ([math.nan if f is None else len(f.which) for f in fits], "1", "dislocations in the image"),
        "number_probability": ([_of(o, lambda f: f.number.max()) for o in results], "1", "probability of this number"),
        "none_probability": ([_of(o, lambda f: f.none) for o in results], "1", "probability of none, with a number given too"),
        "background": ([v.background for v in levels], "count", "background"),
        "amplitude": ([v.amplitude if f and f.which else math.nan for v, f in zip(levels, fits, strict=True)], "count/nm",
                      "counts per nm of depth at full reflection"),
        "readout": ([math.sqrt(v.readout2) if v.readout2 >= 0 else math.nan for v in levels], "count", "read-out noise"),
        "reduced_deviance": ([math.nan if f is None else f.chi2 for f in fits], "1", "squared standard residual per pixel"),
    }  # fmt: skip
    found = {name: variable(np.array(v, float), unit, text, ("image",)) for name, (v, unit, text) in columns.items()}
    flag = variable(
        np.array([one.flag for one in results], np.int32), "", "why an image is missing or doubtful (0 = good)", ("image",)
    )
    del flag.attrs["units"]
    flag.attrs |= {"flag_masks": np.array(list(FLAGS), np.int32), "flag_meanings": " ".join(FLAGS.values())}
    return {**found, "flag": flag}


def _of(one: _Image, value: Any) -> float:
    return math.nan if one.found is None else float(value(one.found))


def _attributes(preset: str, frame: str, model: ImageModel) -> dict[str, Any]:
    along, across = model.optics.pitch_nm
    rows, columns = model.shape
    return {
        "preset": preset,
        "frame": frame,
        "image_rows": rows,
        "image_columns": columns,
        "pitch_x_nm": along,
        "pitch_y_nm": across,
    }
