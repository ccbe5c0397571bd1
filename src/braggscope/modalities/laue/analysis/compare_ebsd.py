"""Comparison of a grain map with one of EBSD, or with any other grain map of the same area.

The map of EBSD is laid over the map by its boundaries alone (`registration`): no orientation is used, so that the agreement of
orientations afterwards is a test. Then, at the points of the map that both have:

- adjusted Rand index of the labels (Hubert & Arabie 1985, J. Classif. 2, 193), 1 for the same grains; its error by drawing grains
  of EBSD. It is 0 for points labelled at random, but not for a map that has nothing to do with EBSD, since grains that lie
  anywhere overlap: `rand_index_by_chance` is that of the map against EBSD shifted by more than two grains, round the edges;
- pairs of neighbouring points with a boundary of EBSD between them that have one in the map, and the other way; beside each the
  part that would have one by chance;
- misorientations, after the turn between the frames of the two maps: the one that the largest number of grain pairs agree on,
  found from the grains alone (each pair and each operation of the Laue class gives a candidate), then averaged over those within
  three medians.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.maps import carried_flag
from braggscope.physics.crystals import Crystal

from ..grain_maps import ORIENTATION, crystal_of_map, labels_of, matrices_of, regions_of, steps_um
from ..misorientation import angles, means
from ..registration import Labelled, registered, sampled
from .two_point import two_point

DRAWS = 200
SHIFTS = 20
VOTERS = 12  # grain pairs that propose a turn between the frames
FEWEST_PAIRS = 4
FEWEST_POINTS = 50  # that both maps have; fewer can be laid over each other in any way
FEW_GRAINS = 10  # of EBSD, below which a registration by boundaries is in doubt
HARDLY = 1.3  # times the correlation of the next best turn, below which the registration is in doubt


def compare_ebsd(
    dataset: xr.Dataset,
    ebsd: xr.Dataset,
    *,
    turns: Annotated[tuple[float, ...], Says("turns to try, from x towards y", unit="deg")] = (0.0, 90.0, 180.0, 270.0),
    within: Annotated[float, Says("how far from these turns to search", unit="deg")] = 5.0,
    scale: Annotated[float, Says("lengths in the map of EBSD over those in the map")] = 1.0,
    scale_within: Annotated[float, Says("how far from this scale to search, relative")] = 0.03,
    mirror: Annotated[bool, Says("the map of EBSD is mirrored (x reversed)")] = False,
    threshold: Annotated[float, Says("misorientation of a boundary, for maps without grains", unit="deg")] = 5.0,
    material: Annotated[str | None, Says("name or CIF file; left out: that of the map")] = None,
) -> xr.Dataset:
    """Agreement of a grain map with one of EBSD: registration, adjusted Rand index, boundaries, misorientations, sizes.

    dataset: Map with `grain` or orientations.
    ebsd: File .ang or .ctf, or another map.
    Returns over the points of the map `number` and `ebsd_number` (labels) and `misorientation` (deg); over map, for both on
    their common points, the number of grains, grain size and FWHM; as attributes the registration (`turn_deg`, `scale`,
    `shift_x_um` ..., `correlation`), `rand_index`, `boundaries_found`, `boundaries_right` and the median misorientation.
    Raises InputError where a map has no grains, for a search that cannot be, and where the maps do not overlap or have too few
    points in common.
    """
    _check(turns, within, scale, scale_within)
    one, other = (Labelled(labels_of(m, threshold_deg=threshold, material=material), steps_um(m)) for m in (dataset, ebsd))
    placed, score, next_best = registered(
        one, other, turns_deg=turns, within_deg=within, scale=scale, scale_within=scale_within, mirror=mirror
    )
    if score <= -1:
        raise InputError("the two maps do not overlap by half of the smaller one at any turn tried; check scale and turns")
    places = placed.places(*one.places)
    theirs = sampled(other.label, other, *places, fill=0)
    common = (one.label > 0) & (theirs > 0)
    if common.sum() < FEWEST_POINTS:
        raise InputError(
            f"only {common.sum()} points are in a grain of both maps; to lay one over the other takes {FEWEST_POINTS} or more, "
            "in several grains"
        )
    dims = dataset["flag"].dims
    found: dict[str, Any] = {
        "number": (dims, one.label.astype(np.int32), _said("1", "label of the grain in the map")),
        "ebsd_number": (dims, theirs.astype(np.int32), _said("1", "label of the grain in the map of EBSD, there")),
    }
    attrs: dict[str, Any] = {
        "turn_deg": float((placed.turn_deg + 180) % 360 - 180), "scale": placed.scale, "mirror": int(placed.mirror),
        "shift_x_um": float(placed.shift_um[1]), "shift_y_um": float(placed.shift_um[0]), "correlation": score,
        "correlation_of_next_turn": next_best, "points_in_common": int(common.sum()),
    }  # fmt: skip
    ours, theirs = np.where(common, one.label, 0), np.where(common, theirs, 0)
    attrs |= _agreement(ours, theirs, np.random.default_rng(0))
    said = []
    if score < HARDLY * next_best:
        said.append(
            f"the registration is in doubt: boundaries agree hardly better than at another turn ({score:.2f}, {next_best:.2f})"
        )
    if (many := len(np.unique(theirs[theirs > 0]))) < FEW_GRAINS:
        said.append(f"the registration is in doubt: it rests on the boundaries of {many} grains")
    if all(name in m for name in ORIENTATION for m in (dataset, ebsd)):
        crystal = crystal_of_map(dataset, material)
        turned = sampled(matrices_of(ebsd), other, *places, fill=math.nan)
        angle, more = _misorientations(matrices_of(dataset), turned, ours, theirs, crystal)
        found["misorientation"] = (dims, angle, _said("deg", "misorientation of the two maps, frames turned to agree"))
        attrs |= more
        if "frame_turn_deg" not in more:
            said.append("too few grains are the same in both maps to compare their orientations")
    found |= _sizes(ours, theirs, one.steps)
    found["flag"] = carried_flag(dataset, {"not_in_both_maps": ~common})
    if said:
        attrs["caution"] = "; ".join(said)
    coords = {n: dataset[n] for n in dims} | {"map": ("map", ["this", "ebsd"])}
    return xr.Dataset(found, coords, attrs)


def rand_index(table: np.ndarray) -> np.ndarray:
    """Adjusted Rand index of two labellings from how many points have each pair of labels, shape (..., label, other label).

    (sum of pairs together in both - expected) / (mean of pairs together in each - expected).
    """

    def pairs(n: np.ndarray) -> np.ndarray:
        return n * (n - 1) / 2

    both, rows, columns = pairs(table).sum((-2, -1)), pairs(table.sum(-1)).sum(-1), pairs(table.sum(-2)).sum(-1)
    expected = rows * columns / np.maximum(pairs(table.sum((-2, -1))), 1)
    mean = (rows + columns) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean == expected, 1.0, (both - expected) / (mean - expected))


def _check(turns: tuple[float, ...], within: float, scale: float, scale_within: float) -> None:
    """Raise InputError for a search that cannot be."""
    if not turns or not np.isfinite(turns).all():
        raise InputError(f"turns must be angles in degrees, got {turns}")
    for name, value, most in (("within", within, 45.0), ("scale_within", scale_within, 0.5)):
        if not 0 <= value <= most:
            raise InputError(f"{name} must be between 0 and {most:g}, got {value:g}")
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"scale must be positive, got {scale:g}")


def _agreement(ours: np.ndarray, theirs: np.ndarray, random: np.random.Generator) -> dict[str, float]:
    """Rand index and boundaries of labels on common points (0 elsewhere)."""
    there = ours > 0
    table = _table(theirs[there], ours[there])
    drawn, shifted = [], []
    for shift in _elsewhere(ours, random):
        moved = np.roll(theirs, shift, (0, 1))
        both = there & (moved > 0)
        shifted.append(float(rand_index(_table(moved[both], ours[both]))))
    for weight in random.multinomial(len(table), np.full(len(table), 1 / len(table)), DRAWS):
        drawn.append(float(rand_index(np.repeat(table, weight, axis=0))))
    found = {"rand_index": float(rand_index(table)), "rand_index_std": float(np.std(drawn)),
             "rand_index_by_chance": float(np.mean(shifted)) if shifted else math.nan}  # fmt: skip
    mine, real = (_crossed(label)[_paired(ours)] for label in (ours, theirs))
    for name, of, near in (("found", real, mine), ("right", mine, real)):
        found[f"boundaries_{name}"] = float(near[of].mean()) if of.any() else math.nan
        found[f"boundaries_{name}_by_chance"] = float(near.mean()) if near.size else math.nan
    return found


def _table(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How many points have each pair of labels."""
    a, b = (np.unique(v, return_inverse=True)[1] for v in (one, other))
    table = np.zeros((a.max(initial=0) + 1, b.max(initial=0) + 1))
    np.add.at(table, (a, b), 1)
    return table


def _elsewhere(label: np.ndarray, random: np.random.Generator) -> list[tuple[int, int]]:
    """Shifts by more than two grains along both axes; none where the map is too small."""
    least = math.ceil(2 * math.sqrt((label > 0).sum() / len(np.unique(label[label > 0]))))
    if min(label.shape) <= 2 * least:
        return []
    return [tuple(int(random.integers(least, n - least + 1)) for n in label.shape) for _ in range(SHIFTS)]  # type: ignore[misc]


def _crossed(label: np.ndarray) -> np.ndarray:
    """Whether neighbouring points, along y and then along x, have different labels, flat."""
    return np.concatenate([(label[1:] != label[:-1]).ravel(), (label[:, 1:] != label[:, :-1]).ravel()])


def _paired(label: np.ndarray) -> np.ndarray:
    """Whether neighbouring points, in the same order, both have a label."""
    return np.concatenate([((label[1:] > 0) & (label[:-1] > 0)).ravel(), ((label[:, 1:] > 0) & (label[:, :-1] > 0)).ravel()])


def _misorientations(
    ours_u: np.ndarray, theirs_u: np.ndarray, ours: np.ndarray, theirs: np.ndarray, crystal: Crystal
) -> tuple[np.ndarray, dict[str, Any]]:
    """Misorientation at each point and what is to be said of it, after the turn between the frames."""
    known = (ours > 0) & np.isfinite(ours_u).all((-2, -1)) & np.isfinite(theirs_u).all((-2, -1))
    angle = np.full(ours.shape, np.nan)
    pairs = _same_grains(ours, theirs, known)
    if len(pairs) < FEWEST_PAIRS:
        return angle, {}
    u, v = (np.empty((len(pairs), 3, 3)) for _ in range(2))
    for i, where in enumerate(pairs):
        for mean, of in ((u, ours_u), (v, theirs_u)):
            mean[i] = means(of[where], np.zeros(where.sum(), int), 1, crystal.rotations, np.ones(where.sum()))[0]
    turn = frame_turn(u, v, crystal.rotations)
    angle[known] = angles(ours_u[known], turn @ theirs_u[known], crystal.rotations)
    away = angles(u, turn @ v, crystal.rotations)
    vector = np.rad2deg(Rotation.from_matrix(turn).as_rotvec())
    return angle, {
        "frame_turn_deg": " ".join(f"{c:.5g}" for c in vector), "same_grains": len(pairs),
        "median_misorientation_of_grains_deg": float(np.median(away)),
        "median_misorientation_deg": float(np.median(angle[known])),
    }  # fmt: skip


def _same_grains(ours: np.ndarray, theirs: np.ndarray, known: np.ndarray) -> list[np.ndarray]:
    """Points of pairs of grains that are the same, each the other's largest overlap, of three points or more; largest first."""
    a, b = ours[known], theirs[known]
    pairs, count = np.unique(np.stack([a, b], 1), axis=0, return_counts=True)
    best = [{}, {}]  # type: list[dict[int, int]]
    for i in np.argsort(-count, kind="stable"):
        for side in (0, 1):
            best[side].setdefault(int(pairs[i, side]), int(i))
    same = [i for i in best[0].values() if best[1][int(pairs[i, 1])] == i and count[i] >= 3]
    return [known & (ours == pairs[i, 0]) & (theirs == pairs[i, 1]) for i in sorted(same, key=lambda i: -count[i])]


def frame_turn(u: np.ndarray, v: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """The turn R for which R V is U for as many grains as can be, shape (3, 3).

    u, v: Orientations of the same grains in two frames, shape (grain, 3, 3), the most trusted first.
    """
    candidates = np.concatenate([u[i] @ rotations @ v[i].T for i in range(min(VOTERS, len(u)))])
    turn = candidates[np.argmin([np.median(angles(u, one @ v, rotations)) for one in candidates])]
    for _ in range(3):
        away = angles(u, turn @ v, rotations)
        good = away <= 3 * np.median(away) + 1e-9
        between = np.einsum("nij,sjk,nlk->nsil", u[good], rotations, v[good])  # U S V^T: each an estimate of R
        best = np.einsum("nsij,ij->ns", between, turn).argmax(1)
        left, _, right = np.linalg.svd(between[np.arange(len(best)), best].sum(0))
        turn = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    return turn


def _sizes(ours: np.ndarray, theirs: np.ndarray, steps: tuple[float, float]) -> dict[str, Any]:
    """Grains, grain size and FWHM of both maps on their common points."""
    rows = []
    for label in (ours, theirs):
        points = regions_of(label).points
        axes = {n: (n, step * np.arange(size), {"units": "um"}) for n, step, size in zip("yx", steps, label.shape, strict=True)}
        width = two_point(xr.Dataset({"grain": (("y", "x"), label), "flag": (("y", "x"), np.where(label > 0, 0, 1))}, axes)).attrs
        size = math.sqrt(points.mean() * math.prod(steps)) if len(points) else math.nan
        rows.append(
            [
                len(points),
                size,
                *(width[n] for n in ("fwhm_x_um", "fwhm_x_um_std", "fwhm_y_um", "fwhm_y_um_std", "anisotropy", "anisotropy_std")),
            ]
        )
    said = {
        "grains": ("1", "grains of three points or more"), "grain_size": ("um", "root of the mean area"),
        "fwhm_x": ("um", "FWHM of the two-point correlation along x"), "fwhm_x_std": ("um", "standard deviation of fwhm_x"),
        "fwhm_y": ("um", "FWHM of the two-point correlation along y"), "fwhm_y_std": ("um", "standard deviation of fwhm_y"),
        "anisotropy": ("1", "FWHM along x over that along y"), "anisotropy_std": ("1", "standard deviation of anisotropy"),
    }  # fmt: skip
    return {n: ("map", np.array(column, float), _said(*said[n])) for n, column in zip(said, zip(*rows, strict=True), strict=True)}


def _said(unit: str, words: str) -> dict[str, Any]:
    return {"units": unit, "long_name": words}
