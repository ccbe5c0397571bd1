"""Strong beam and weak beams of a scan by Gram-Schmidt: a scan of N frames becomes three images.

After Huang, Coffee & Dresselhaus-Marais 2023 (Integr. Mater. Manuf. Innov. 12, 83): the logarithm of the counts above the offset;
the mean rocking curves of three regions, where the crystal is in its strong beam and where it shines on either flank
(dislocations); orthogonalised in that order; and the curve of every pixel projected on them. There the regions were drawn by
hand; here they are the clusters of the pixels by where the weight of their curves lies.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.estimator import motor_positions
from braggscope.core.maps import empty_map
from braggscope.core.scan import Scan

from ..carried import cautions, gain_caution

FLAGS = {1: "no_data", 2: "no_signal", 4: "some_counts_masked"}
THIN, HELD = 0.3, 0.5  # most of the lit pixels that walls are, least of the squares that the images hold, before it is said


def gram_schmidt(
    scan: Scan,
    *,
    strong: Annotated[str, Says("region of the strong beam, ROW:ROW,COLUMN:COLUMN, stops not included; auto: found")] = "auto",
    minus: Annotated[str, Says("region of the weak beam at low positions, as `strong`")] = "auto",
    plus: Annotated[str, Says("region of the weak beam at high positions, as `strong`")] = "auto",
    motor: Annotated[str, Says("motor along which the weak beams lie on either side; the scan's fastest if empty")] = "",
    threshold: Annotated[
        str, Says("weak angle of a wall: half (of its light is weak-beam light), otsu, or a value", unit="deg")
    ] = "half",
    pedestal: Annotated[str, Says("level without light: auto (darkest common level), none, or a value", unit="count")] = "auto",
    gain: Annotated[
        str, Says("detector units per photon: auto (from the scatter of the scan) or a value", unit="count")
    ] = "auto",
    readout: Annotated[str, Says("standard deviation of a count without light: auto or a value", unit="count")] = "auto",
) -> xr.Dataset:
    """Reduce a scan to its strong-beam and two weak-beam images, and find the dislocation walls in them.

    Returns: `strong`, `weak_minus`, `weak_plus`: arsinh counts along each orthonormal profile; `weak`: their angle, 0 for strong
    beam alone to 90 deg for weak beams alone; `wall`: 1 where it is above the threshold; `region`: 1 strong, 2 minus, 3 plus,
    0 none; `profile` and `direction` (beam, scan axes): mean arsinh counts of the regions, and the orthonormal ones.

    Raises InputError where regions lie outside the frame, only some of them are given, or the scan has no weak beam on some side.
    """
    from ..separating.beams import SCALE, half_light, orthonormal, profiles, projections, weak_angle
    from ..separating.scan_counts import ScanCounts

    given = _given_threshold(threshold)
    counts = ScanCounts(scan, pedestal=pedestal, gain=gain, readout=readout)
    along = _positions(scan, motor)[counts.seen]
    total, region, facts = _regions(scan, counts, along, (strong, minus, plus))
    scale = SCALE * math.sqrt(counts.noise.variance)
    logs, plain = profiles(counts, np.where(counts.masked, -1, region), scale)
    directions = orthonormal(logs)
    images, variances, squares = projections(counts, directions, scale)
    _fill_masked(counts, directions, scale, images, variances)
    lit = _lit(total, counts)
    good = lit & ~counts.masked
    half = half_light(plain, directions, scale, float(np.median(total[good])))
    weak = weak_angle(*images)
    limit = half if given is None else given
    if threshold == "otsu":
        from skimage.filters import threshold_otsu

        limit = float(threshold_otsu(weak[good]))
    dataset = _dataset(scan, counts, images, variances, weak, lit, limit, region)
    _add_profiles(dataset, scan, counts.seen, logs, directions)
    kept = float((images[:, good] ** 2).sum() / max(float(squares[good].sum()), 1e-300))
    dataset.attrs.update(
        threshold_deg=limit, threshold_from=threshold if threshold in ("half", "otsu") else "given", half_light_deg=half,
        frames_used=counts.points, size_reduction=counts.points / 3, kept_of_the_squares=kept,
        wall_fraction=float(dataset["wall"].values[lit.reshape(counts.frame_shape)].mean()), log_scale=scale,
        gain=counts.noise.gain, gain_from=counts.noise.gain_from, readout=math.sqrt(counts.noise.variance),
        level=counts.noise.level, **facts,
    )  # fmt: skip
    dataset.attrs.update(cautions(*_doubts(float(dataset.attrs["wall_fraction"]), kept), gain_caution(counts.noise.gain_from)))
    return dataset


def _doubts(walls: float, kept: float) -> tuple[str, str]:
    """What is said where the three images are no picture of thin walls."""
    bent = f"{walls:.0%} of the lit pixels count as walls: the images show how the crystal bends, not thin walls"
    poor = f"the three images hold only {kept:.0%} of the squares of the scan"
    return bent if walls > THIN else "", poor if kept < HELD else ""


def _given_threshold(word: str) -> float | None:
    """The angle that the option gives, None where it says how to find one."""
    if word in ("half", "otsu"):
        return None
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if 0 < value < 90:
        return value
    raise InputError(f"option threshold must be half, otsu or an angle between 0 and 90 deg, got '{word}'")


def _positions(scan: Scan, motor: str) -> np.ndarray:
    """Positions of the motor that tells the two sides apart, in even steps of its axis, shape (point of the grid,)."""
    motors = list(motor_positions(scan))
    if motor and motor not in motors:
        raise InputError(f"option motor must be one of the scan's motors {', '.join(motors)}, got '{motor}'")
    name = motor or motors[-1]
    axis = [str(n) for n in scan.grid.dims].index(name)
    shape = [1] * len(scan.shape)
    shape[axis] = -1
    return np.broadcast_to(scan.grid[name].values.reshape(shape), scan.shape).ravel().astype(np.float64)


def _lit(total: np.ndarray, counts: Any) -> np.ndarray:
    """Pixels whose total stands out of the noise."""
    from ..separating.beams import SIGNIFICANT

    noise = counts.noise
    return total > SIGNIFICANT * np.sqrt(noise.gain * np.maximum(total, 0) + counts.points * noise.variance)


def _regions(
    scan: Scan, counts: Any, along: np.ndarray, boxes: tuple[str, str, str]
) -> tuple[np.ndarray, np.ndarray, dict[str, float | str]]:
    """Total of each pixel, its region (0 strong, 1 minus, 2 plus, -1 none), and where the strong beam lies if it was sought."""
    from ..separating.beams import BEAMS, clusters, flanks, given_regions, strong_beam

    if "auto" in boxes and set(boxes) != {"auto"}:
        raise InputError("regions strong, minus and plus must all be given or none of them, for they belong together")
    if counts.points < 3:
        raise InputError(f"gram_schmidt needs at least 3 frames, scan '{scan.name}' has {counts.points}")
    if "auto" not in boxes:
        return counts.project(np.ones((1, counts.points)))[0], given_regions(boxes, counts.frame_shape), {}
    total = counts.project(np.ones((1, counts.points)))[0]
    lit = _lit(total, counts) & ~counts.masked
    bright = counts.sample[:, np.isfinite(counts.sample).all(axis=0)]
    bright = bright[:, _lit(bright.sum(axis=0), counts)]
    if not lit.any() or not bright.shape[1]:
        raise InputError(f"scan '{scan.name}' has no pixel whose light stands out of the noise: no strong beam to be found")
    centre, width = strong_beam(bright, along)
    reach, sides = flanks(centre, width, along)
    words = "half maximum" if reach < 1.5 * width else "2 widths"
    for name, side in zip(("below", "above"), sides, strict=True):
        if not side.any():
            raise InputError(
                f"scan '{scan.name}' has no point {name} the half maximum of its strong beam, {centre:.6g} +- {reach:.3g}: no "
                f"weak beam there; give the options strong, minus and plus as ROW:ROW,COLUMN:COLUMN, or another motor"
            )
    light = counts.project(np.array(sides, float)) / np.maximum(total, 1e-300)
    region = clusters(light, lit)
    for number, name in enumerate(BEAMS):
        if not (region == number).any():
            raise InputError(f"no pixel of scan '{scan.name}' has its weight in the {name} beam; give the regions by hand")
    return total, region, {"strong_centre": centre, "strong_width": width, "strong_half_range": reach, "strong_range_from": words}


def _fill_masked(counts: Any, directions: np.ndarray, scale: float, images: np.ndarray, variances: np.ndarray) -> None:
    """Images of masked pixels by least squares over the points they have, in place; NaN where those are too few."""
    from ..separating.beams import log_counts

    for which, curves in counts.masked_curves():
        for pixel, curve in zip(which, curves.T, strict=True):
            known = np.isfinite(curve)
            images[:, pixel], variances[:, pixel] = np.nan, np.nan
            if known.sum() < 3 or np.linalg.matrix_rank(directions[:, known]) < 3:
                continue
            inverse = np.linalg.pinv(directions[:, known].T)
            y = curve[known]
            images[:, pixel] = inverse @ log_counts(y, scale)
            noise = (counts.noise.gain * np.maximum(y, 0) + counts.noise.variance) / (y**2 + scale**2)
            variances[:, pixel] = inverse**2 @ noise


def _dataset(
    scan: Scan, counts: Any, images: np.ndarray, variances: np.ndarray, weak: np.ndarray, lit: np.ndarray, limit: float,
    region: np.ndarray,
) -> xr.Dataset:  # fmt: skip
    """Images, angle, walls, regions and flags as a map."""
    shape, dims = counts.frame_shape, ("row", "column")
    coords = {str(n): c for n, c in scan.grid.coords.items()} | {"beam": ["strong", "minus", "plus"]}
    data = empty_map((), dims, shape, coords, FLAGS)
    lost = ~np.isfinite(images).all(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        sine, cosine = np.sin(np.radians(weak)), np.cos(np.radians(weak))
        radius = np.hypot(np.hypot(np.maximum(images[1], 0), np.maximum(images[2], 0)), images[0])
        spread = np.degrees(np.sqrt(sine**2 * variances[0] + cosine**2 * np.maximum(variances[1], variances[2])) / radius)
    names = {"strong": "strong beam", "weak_minus": "weak beam at low positions", "weak_plus": "weak beam at high positions"}
    angle, wall = np.where(lit & ~lost, weak, np.nan), lit & ~lost & (np.nan_to_num(weak) > limit)
    entries: list[tuple[str, np.ndarray, str, str]] = [
        ("weak", angle, "deg", "angle from the strong beam (0) to the weak beams (90)"),
        ("weak_std", np.where(lit & ~lost, spread, np.nan), "deg", "standard deviation of that angle by counting"),
        ("wall", wall.astype(np.int32), "1", "whether more than the threshold of the light is weak-beam light"),
        ("region", (region + 1).astype(np.int32), "1", "region: 1 strong, 2 minus, 3 plus, 0 none"),
    ]
    for n, (name, what) in enumerate(names.items()):
        entries.append((name, images[n], "1", f"arsinh counts along the {what}"))
        entries.append((f"{name}_std", np.sqrt(variances[n]), "1", f"standard deviation of that along the {what}"))
    for name, values, unit, long_name in entries:
        data[name] = (dims, values.reshape(shape), {"units": unit, "long_name": long_name})
    data["flag"].values[...] = (1 * lost + 2 * (~lit & ~lost) + 4 * counts.masked).reshape(shape)
    return data[[*(name for name, *_ in entries), "flag"]].assign_coords(data.coords)


def _add_profiles(dataset: xr.Dataset, scan: Scan, seen: np.ndarray, logs: np.ndarray, directions: np.ndarray) -> None:
    """Profiles of the regions and their orthonormal directions on the whole grid, NaN at points without a frame."""
    dims = ("beam", *(str(n) for n in scan.grid.dims))
    for name, curves, what in (
        ("profile", logs, "mean arsinh counts of each region"),
        ("direction", directions, "profile made orthonormal to those before it"),
    ):
        values = np.full((3, len(seen)), np.nan)
        values[:, seen] = curves
        dataset[name] = (dims, values.reshape(3, *scan.shape), {"units": "1", "long_name": what})
