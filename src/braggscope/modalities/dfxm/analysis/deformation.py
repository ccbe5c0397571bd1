"""The deformation gradient from maps of three or more reflections in oblique geometry.

Diffraction vectors of every pixel (`oblique`) -> one grid in the sample plane (`sample_plane`, `registering`) -> F by weighted
regression, exact for any size of strain and rotation -> Biot strain, lattice rotation, dislocation density (`deforming`).
Henningsson et al. 2025 (arXiv:2503.22022); Detlefs et al. 2025 (J. Appl. Cryst. 58, 1439).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError, one_of
from braggscope.core.maps import Quantity, empty_map
from braggscope.physics.deformation import biot_strain, lattice_rotation, propagated, strain_and_rotation_jacobian

from ..geometry import DfxmGeometry
from ..oblique.component_names import COMPONENTS, STRAINS
from ..oblique.deforming import FEW, FLAT, SOME, Circuit, Drawn, Fitted, Plane, Seen, density, drawn, fitted
from ..oblique.reflections import ReflectionSet, read_reflections
from ..oblique.registering import registered
from ..oblique.sample_plane import View, common_grid, interpolation, plane_axes, view
from ..oblique.vectors import observed

DISAGREE, DOUBTFUL = 8, 16
MEANINGS = {
    FEW: "fewer_than_three_reflections",
    FLAT: "reflections_left_lie_in_a_plane",
    SOME: "some_reflections_missing",
    DISAGREE: "reflections_disagree",
    DOUBTFUL: "doubtful_in_a_reflection",
}
UNLIKELY = 1e-6  # probability of a chi-square below which reflections disagree
FRAMES, REFERENCES, COMPARED = ("sample", "crystal"), ("settings", "mean"), ("total", "bending", "none")
INTERPOLATIONS = ("cubic", "linear")


def deformation(
    maps: list[xr.Dataset],
    *,
    reflections: Annotated[Path, Says("TOML file of the reflections, in the order of the maps, like examples/dfxm_al113.toml")],
    reference: Annotated[
        str, Says("unstrained lattice: as the settings say, or the mean of the map", choices=REFERENCES)
    ] = "settings",
    frame: Annotated[str, Says("axes of all tensors and vectors", choices=FRAMES)] = "sample",
    register: Annotated[str, Says("what the images are aligned by", choices=COMPARED)] = "total",
    least_correlation: Annotated[float, Says("of an aligned image with the first, below which maps do not register")] = 0.3,
    step_um: Annotated[float, Says("distance of places in the sample; 0: a camera pixel there", unit="um")] = 0.0,
    interpolation: Annotated[str, Says("between the pixels of a map", choices=INTERPOLATIONS)] = "cubic",
    circuit_um: Annotated[
        tuple[float, float, float, float] | None, Says("x start, x stop, y start, y stop of a Burgers circuit", unit="um")
    ] = None,
    circuit_width_um: Annotated[float, Says("of the frame of circuits, inwards, whose mean is taken", unit="um")] = 0.0,
    covariance: Annotated[bool, Says("also give the covariances between the components of F")] = False,
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """Deformation gradient, strain, rotation and dislocation density from maps of three or more reflections.

    Each map has the peak positions of two motors of the goniometer and of obpitch, ccmth or energy, with standard deviations
    (a scan over these three motors mapped by `moments` or `peakfit`).
    Raises InputError for maps and reflections that do not fit together, and for maps that do not register.
    """
    _check_words(reference=reference, frame=frame, register=register, interpolation=interpolation)
    _check_numbers(least_correlation, circuit_um, step_um=step_um, circuit_width_um=circuit_width_um)
    chosen = read_reflections(reflections, geometry)
    seen, plane, notes = _arranged(maps, chosen, frame, register, least_correlation, step_um)
    usable = [one.usable for one in seen]

    def parts(rows: slice) -> list[Drawn]:
        return [drawn(s, u, plane, rows, chosen.instrument, interpolation == "cubic") for s, u in zip(seen, usable, strict=True)]

    q0 = chosen.reference_vectors() @ plane.frame.T
    if reference == "mean":
        q0 = _mean_vectors(parts, plane, q0)
    path = None
    if circuit_um is not None:
        path = Circuit.around(tuple(circuit_um), circuit_width_um, plane, [one.map["flag"].size for one in seen])
    dataset = _empty(plane, frame, covariance)
    for rows, needed in plane.bands():
        drawn_parts = parts(needed)
        fit = fitted(drawn_parts, q0)
        keep = np.zeros((needed.stop - needed.start, len(plane.x)), bool)
        keep[rows.start - needed.start : rows.stop - needed.start] = True
        alpha = density(fit, drawn_parts, plane, len(keep))
        _fill(dataset, rows, keep.ravel(), fit, alpha)
        _mark_doubtful(dataset, rows, keep.ravel(), seen, drawn_parts)
        if path is not None:
            path.add(fit, drawn_parts, plane, needed, keep.ravel())
    dataset.attrs.update(notes, reference=reference, frame=frame, condition_number=chosen.condition())
    if path is not None:
        dataset.attrs.update(_burgers(path, seen, chosen, plane))
    return _finished(dataset, len(seen))


def _check_words(**given: str) -> None:
    """Raise InputError for a word that an option cannot have."""
    allowed = {"reference": REFERENCES, "frame": FRAMES, "register": COMPARED, "interpolation": INTERPOLATIONS}
    for name, word in given.items():
        if word not in allowed[name]:
            raise one_of(f"{name} of deformation", str(word), list(allowed[name]))


def _check_numbers(least: float, circuit: tuple[float, ...] | None, **lengths: float) -> None:
    """Raise InputError for a number that an option cannot have."""
    for name, value in lengths.items():
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise InputError(f"{name} must be a length from 0 on, got {value}")
    if not isinstance(least, int | float) or not -1 <= least <= 1:
        raise InputError(f"least_correlation must be between -1 and 1, got {least}")
    if circuit is not None and (not isinstance(circuit, tuple | list) or len(circuit) != 4):
        raise InputError(f"circuit_um must be four lengths: x start, x stop, y start, y stop, got {circuit}")


def _arranged(
    maps: list[xr.Dataset], chosen: ReflectionSet, frame: str, register: str, least: float, step_um: float
) -> tuple[list[Seen], Plane, dict[str, float | str]]:
    """The maps with their views of the plane after registration, the grid, and what was found about it."""
    if len(maps) != len(chosen.reflections):
        raise InputError(
            f"there are {len(maps)} maps for {len(chosen.reflections)} reflections; each needs its own, in the same order"
        )
    instrument = chosen.instrument
    normal = np.mean([r.lit_plane(instrument) for r in chosen.reflections], axis=0)
    axes = plane_axes(normal)
    seen = []
    for number, (one, reflection) in enumerate(zip(maps, chosen.reflections, strict=True), start=1):
        found = observed(one, instrument, f"map {number} ({reflection.name})")
        if one[found.strain].dims != ("row", "column"):
            raise InputError(f"map {number} ({reflection.name}) must have dimensions row, column, got {one[found.strain].dims}")
        rows, columns = one[found.strain].shape
        seen.append(Seen(one, reflection, found, view(reflection, instrument, axes, (rows, columns))))
    assert instrument.pixel_um and instrument.magnification
    step = step_um or instrument.pixel_um / instrument.magnification
    x, y = common_grid([s.view for s in seen], step)
    turn = np.eye(3) if frame == "sample" else chosen.orientation.T
    plane = Plane(x, y, turn, axes @ turn.T)
    return _aligned(seen, plane, chosen, register, least)


def _aligned(
    seen: list[Seen], plane: Plane, chosen: ReflectionSet, register: str, least: float
) -> tuple[list[Seen], Plane, dict[str, float | str]]:
    """The maps with corrected views."""
    notes: dict[str, float | str] = {"registered_by": register}
    if register == "none":
        return seen, plane, notes

    def image(number: int, view: View) -> np.ndarray:
        return _image(seen[number], view, plane, chosen.instrument, register, number)

    names = [s.reflection.name for s in seen]
    words = "the total" if register == "total" else "the bending of the lattice"
    views, shifts, reached = registered([s.view for s in seen], image, plane.step, names, least, words)
    for number, (shift, value) in enumerate(zip(shifts, reached, strict=True), start=1):
        if number > 1:
            notes[f"shift_{number}_x_um"], notes[f"shift_{number}_y_um"] = (round(float(v), 6) for v in shift)
            notes[f"correlation_{number}"] = round(float(value), 6)
    return [Seen(s.map, s.reflection, s.observed, v) for s, v in zip(seen, views, strict=True)], plane, notes


def _image(seen: Seen, view: View, plane: Plane, instrument: DfxmGeometry, register: str, number: int) -> np.ndarray:
    """What is compared between maps, on the grid: the total, or how much the diffraction vector changes from place to place."""
    x, y = np.meshgrid(plane.x, plane.y)
    if register == "total":
        if "total" not in seen.map:
            raise InputError(
                f"map {number + 1} ({seen.reflection.name}) has no total to register by; take register=bending or none"
            )
        values = seen.map["total"].values.reshape(-1, 1)
        usable = np.isfinite(seen.map["total"].values)
    else:
        usable = seen.usable
        values, _ = seen.vectors(np.arange(usable.size), instrument, plane.frame)
    weights, good = interpolation(view, x.ravel(), y.ravel(), usable, cubic=False)
    at = np.where(good[:, None], weights @ np.nan_to_num(values), np.nan).reshape(*x.shape, -1)
    if register == "total":
        return at[..., 0]
    return np.sqrt(sum((np.gradient(at, axis=axis) ** 2).sum(-1) for axis in (0, 1)))


def _mean_vectors(parts, plane: Plane, q0: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Mean diffraction vector of each reflection over the places that all of them see."""
    total, count = np.zeros_like(q0), 0
    for rows, _ in plane.bands():
        band = parts(rows)
        everywhere = np.logical_and.reduce([p.good for p in band])
        total += np.array([p.places()[0][everywhere].sum(axis=0) for p in band])
        count += int(everywhere.sum())
    if not count:
        raise InputError("no place is seen by all reflections, so that there is no mean lattice; take reference=settings")
    return total / count


def _quantities(frame: str, covariance: bool) -> list[Quantity]:
    """The quantities of the map."""
    found = [Quantity(f"F_{c}", "1", f"deformation gradient, component {c} in the {frame} frame") for c in COMPONENTS]
    found += [Quantity(f"strain_{c}", "1", f"Biot strain, component {c} in the {frame} frame") for c in STRAINS]
    found += [Quantity(f"rotation_{c}", "deg", f"lattice rotation about {c} of the {frame} frame") for c in "xyz"]
    found += [
        Quantity(f"dislocation_density_{c}", "1/um", f"Burgers vector per area of the lit plane, along {c} of the {frame} frame")
        for c in "xyz"
    ]
    stds = [q.std() for q in found]
    if covariance:
        stds += [
            Quantity(f"F_{a}_{b}_covariance", "1", f"covariance of the components {a} and {b} of the deformation gradient")
            for i, a in enumerate(COMPONENTS)
            for b in COMPONENTS[i + 1 :]
        ]
    return [*found, *stds, Quantity("reduced_deviance", "1", "chi-square of the regression per degree of freedom")]


def _empty(plane: Plane, frame: str, covariance: bool) -> xr.Dataset:
    """A map of NaN over the plane."""
    coords = {n: ((n,), v, {"units": "um"}) for n, v in (("y", plane.y), ("x", plane.x))}
    return empty_map(_quantities(frame, covariance), ("y", "x"), (len(plane.y), len(plane.x)), coords, MEANINGS)


def _fill(dataset: xr.Dataset, rows: slice, keep: np.ndarray, fit: Fitted, alpha: tuple[np.ndarray, np.ndarray]) -> None:
    """Put the places of a band into the map."""
    from scipy.stats import chi2

    good = keep & np.isfinite(fit.f).all(axis=(1, 2))
    f, cov = torch.from_numpy(fit.f[good]), torch.from_numpy(fit.covariance[good])
    by_strain, by_rotation = strain_and_rotation_jacobian(f)
    e, turn = biot_strain(f), torch.rad2deg(lattice_rotation(f))
    found = {f"F_{c}": (f.flatten(1)[:, i], cov[:, i, i].sqrt()) for i, c in enumerate(COMPONENTS)}
    std = propagated(by_strain, cov)
    found |= {f"strain_{c}": (e[:, "xyz".index(c[0]), "xyz".index(c[1])], std[:, i]) for i, c in enumerate(STRAINS)}
    std = torch.rad2deg(propagated(by_rotation, cov))
    found |= {f"rotation_{c}": (turn[:, i], std[:, i]) for i, c in enumerate("xyz")}
    values = {n: v.numpy() for n, pair in found.items() for n, v in ((n, pair[0]), (f"{n}_std", pair[1]))}
    for i, a in enumerate(COMPONENTS):
        for j in range(i + 1, 9):
            values[f"F_{a}_{COMPONENTS[j]}_covariance"] = cov[:, i, j].numpy()
    freedom = fit.freedom[good]
    with np.errstate(divide="ignore", invalid="ignore"):
        values["reduced_deviance"] = np.where(freedom > 0, fit.chi_square[good] / freedom, np.nan)
    for i, c in enumerate("xyz"):
        for name, array in ((f"dislocation_density_{c}", alpha[0]), (f"dislocation_density_{c}_std", alpha[1])):
            values[name] = array[good, i]
    for name, value in values.items():
        if name in dataset:
            _place(dataset[name], rows, good[keep], value)
    flag = fit.flag.copy()
    flag[good] |= np.where((freedom > 0) & (chi2.sf(fit.chi_square[good], np.maximum(freedom, 1)) < UNLIKELY), DISAGREE, 0)
    dataset["flag"].values[rows] |= flag[keep].reshape(-1, dataset.sizes["x"])


def _place(variable: xr.DataArray, rows: slice, where: np.ndarray, values: np.ndarray) -> None:
    """Set the points of some rows of a map variable."""
    block = variable.values[rows]
    block[where.reshape(block.shape)] = values


def _mark_doubtful(dataset: xr.Dataset, rows: slice, keep: np.ndarray, seen: list[Seen], parts: list[Drawn]) -> None:
    """Flag places that draw on a pixel which its own map calls doubtful."""
    for one, part in zip(seen, parts, strict=True):
        bad = (one.map["flag"].values.ravel()[part.pixels] != 0).astype(float)
        if bad.any():
            touched = (abs(part.weights) @ bad)[keep] > 0
            dataset["flag"].values[rows] |= np.where(touched.reshape(-1, dataset.sizes["x"]), DOUBTFUL, 0).astype(np.int32)


def _burgers(path: Circuit, seen: list[Seen], chosen: ReflectionSet, plane: Plane) -> dict[str, float]:
    """The Burgers vector that the circuit encloses, nm, with its standard deviation."""
    if not np.isfinite(path.total).all():
        raise InputError(
            "the Burgers circuit runs through places without a deformation, which fewer than three maps see; choose a smaller "
            "circuit_um, or another: the field that all cameras share may be a turned square"
        )
    std = path.std(seen, chosen.instrument, plane)
    found = {}
    for i, c in enumerate("xyz"):
        found[f"burgers_{c}_nm"], found[f"burgers_{c}_nm_std"] = 1e3 * float(path.total[i]), 1e3 * float(std[i])
    return found


def _finished(dataset: xr.Dataset, maps: int) -> xr.Dataset:
    """With the deviance over all places; without it where three reflections leave nothing over to tell."""
    if maps == 3:
        return dataset.drop_vars("reduced_deviance")
    values = dataset["reduced_deviance"].values
    if np.isfinite(values).any():
        dataset.attrs["reduced_deviance"] = float(np.nanmean(values))
    return dataset
