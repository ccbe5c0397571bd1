"""Which dislocations a reflection shows, before the experiment, and which reflections tell Burgers vectors apart.

A reflection g sees the component of the displacement along it. About a straight line t of an isotropic crystal that is (Hirth &
Lothe 1982, eqs 3-2, 3-45 and 3-46), with the edge part b_e = b - (b.t) t and phi from b_e,

    g.u = 1/(2 pi) { g.b phi + [g.b_e sin 2 phi / 4 + g.(b x t) ((1 - 2 nu) ln r / 2 + cos 2 phi / 4)] / (1 - nu) }

A dislocation with g.b = 0 shows the residual contrast of its edge part, and none where g.b_e and g.(b x t) are 0 too (Williams &
Carter 2009, ch. 27). In an anisotropic crystal that is exact only for lines perpendicular to a mirror plane; `deviation` says
how much is left in others.

Vectors are in Cartesian crystal axes (`physics.slip_systems`), b in units of a and g in 1/a, so that g.b is a whole number for
perfect dislocations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.maps import Quantity, empty_map
from braggscope.physics import slip_systems as slip
from braggscope.physics.anisotropic_dislocations import anisotropic_dislocation
from braggscope.physics.dislocations import dislocation_frame, mixed_dislocation, perpendicular
from braggscope.physics.elasticity import CRYSTALS, crystal_stiffness

from ..carried import variable

FLAGS = {1: "residual_contrast_only", 2: "invisible"}
DIMS = ("reflection", "dislocation")
ZERO = 1e-9  # of products of Miller indices, which are far larger or 0
AROUND = 180  # directions about the line over which the deviation is averaged
LARGEST_SET = 6  # reflections of which every choice is tried


def visibility(
    *,
    reflections: Annotated[tuple[str, ...], Says("Miller indices of each, 111 -1-11 002, for hcp 10-10 0002")],
    structure: Annotated[str, Says("crystal structure", choices=slip.STRUCTURES)] = "fcc",
    c_over_a: Annotated[float | None, Says("ratio of the lattice parameters, for hcp")] = None,
    systems: Annotated[tuple[str, ...], Says("slip systems, [110](1-11); left out, all of the structure")] = (),
    characters: Annotated[tuple[str, ...], Says("kinds of line: screw, edge, or its angle to b in degrees")] = ("screw", "edge"),
    lattice_nm: Annotated[float | None, Says("lattice parameter a, to give `deviation` as well", unit="nm")] = None,
    distance_nm: Annotated[float, Says("distance from the line of `deviation`", unit="nm")] = 100.0,
    poisson: Annotated[float, Says("Poisson's ratio for `deviation`")] = 0.33,
    crystal: Annotated[str | None, Says("elastic constants instead of isotropic ones", choices=tuple(sorted(CRYSTALS)))] = None,
) -> xr.Dataset:
    """Visibility g.b and g.(b x t) of dislocations in reflections, and the fewest reflections that tell Burgers vectors apart.

    Returns, of each reflection and dislocation, `gb`, `gbe` (g.b_e) and `gbt` (g.(b x t), t of length 1), and, where
    lattice_nm is given, `deviation`, the root mean square over directions of |dq|/q at the distance, which falls as its
    inverse. The flag says what is invisible and what shows residual contrast alone. Of each dislocation, `gb_in_order` has
    g.b of the reflections in words.

    Raises InputError for indices and systems that cannot be read, and for reflections that the structure extinguishes.
    """
    named = {_shown(g): _vector(g, structure, c_over_a) for g in _indices(reflections, structure)}
    lines = _dislocations(_systems(structure, c_over_a, systems), characters)
    burgers, line = (np.array([one[k] for one in lines.values()]) for k in (0, 1))
    table = _table(list(named), np.array(list(named.values())), list(lines), burgers, line)
    if lattice_nm is not None:
        _check_lengths(lattice_nm, distance_nm, poisson)
        seen = _deviation(np.array(list(named.values())), lattice_nm * burgers, line, distance_nm, poisson, crystal)
        table["deviation"] = variable(seen, "deg", f"|dq|/q at {distance_nm:g} nm, rms over directions", DIMS)
    return table.assign_attrs(**_telling_apart(list(named), table["gb"].values, list(lines)))


def _indices(words: Sequence[str], structure: str) -> list[slip.Indices]:
    """Miller indices of each word, four for hcp. Raises InputError, also for a reflection without intensity."""
    if not words:
        raise InputError("reflections must name at least one, like 111")
    found = []
    for word in words:
        try:
            g = slip.miller_indices(word)
        except ValueError as error:
            raise InputError(f"reflections: {error}") from None
        if structure == "hcp" and len(g) == 3:
            g = (g[0], g[1], -g[0] - g[1], g[2])
        if len(g) != (4 if structure == "hcp" else 3):
            raise InputError(f"reflections: {structure} has three Miller indices, got '{word}'")
        if why := _extinct(g, structure):
            raise InputError(f"reflections: {structure} has no reflection {word}; {why}")
        found.append(g)
    return list(dict.fromkeys(found))


def _extinct(g: slip.Indices, structure: str) -> str:
    """Why a reflection has no intensity; empty where it has."""
    if structure == "fcc" and len({i % 2 for i in g}) > 1:
        return "the indices must be all even or all odd"
    if structure == "bcc" and sum(g) % 2:
        return "the indices must add up to an even number"
    if structure == "hcp" and (g[0] - g[1]) % 3 == 0 and g[3] % 2:
        return "l must be even where h - k is a multiple of 3"
    return ""


def _shown(g: slip.Indices) -> str:
    return slip.miller_text(g)


def _vector(g: slip.Indices, structure: str, c_over_a: float | None) -> np.ndarray:
    """The reciprocal lattice vector in units of 1/a."""
    if structure != "hcp":
        return np.array(g, float)
    if c_over_a is None:
        raise InputError("c_over_a is needed for hcp, such as 1.587 for titanium")
    return slip.hexagonal_plane(g, c_over_a)


def _systems(structure: str, c_over_a: float | None, words: Sequence[str]) -> list[slip.SlipSystem]:
    """The slip systems that are asked for."""
    try:
        every = slip.slip_systems(structure, c_over_a=c_over_a)
    except ValueError as error:
        raise InputError(str(error)) from None
    if not words:
        return every
    if structure != "hcp":
        try:
            return [slip.slip_system(word) for word in words]
        except ValueError as error:
            raise InputError(f"systems: {error}") from None
    known = {one.name: one for one in every}
    for word in words:
        if word not in known:
            raise InputError(f"systems: hcp has no slip system '{word}'; it has {', '.join(known)}")
    return [known[word] for word in words]


def _dislocations(systems: Sequence[slip.SlipSystem], kinds: Sequence[str]) -> dict[str, tuple[slip.Vector, slip.Vector]]:
    """Burgers vector and line of each kind in each system, by name; screws of one Burgers vector are one, whatever the plane."""
    found: dict[str, tuple[slip.Vector, slip.Vector]] = {}
    for system in systems:
        try:
            lines = slip.line_directions(system, kinds)
        except ValueError as error:
            raise InputError(f"characters: {error}") from None
        for kind, line in lines.items():
            screw = slip.character_angle(kind) == 0
            place = _burgers_name(system.name) if screw else system.name
            found[f"{place} {kind if kind in slip.CHARACTERS else f'{kind} deg'}"] = (system.burgers, line)
    if not found:
        raise InputError("characters must name at least one, like edge")
    order = list(dict.fromkeys(_burgers_name(name) for name in found))
    return dict(sorted(found.items(), key=lambda one: order.index(_burgers_name(one[0]))))


def _burgers_name(name: str) -> str:
    """[110] of "[110](1-11) edge"."""
    return name[: name.index("]") + 1]


def _table(reflections: list[str], g: np.ndarray, names: list[str], burgers: np.ndarray, line: np.ndarray) -> xr.Dataset:
    """The products, the flags, and what each dislocation comes to."""
    edge = burgers - (burgers * line).sum(1, keepdims=True) * line
    products = {"gb": g @ burgers.T, "gbe": g @ edge.T, "gbt": g @ np.cross(burgers, line).T}
    products = {name: np.where(np.abs(values) < ZERO, 0.0, values) for name, values in products.items()}
    quantities = [
        Quantity("gb", "1", "g.b"),
        Quantity("gbe", "1", "g.b_e, b_e the edge part of b"),
        Quantity("gbt", "1", "g.(b x t)"),
    ]
    shape = products["gb"].shape
    found = empty_map(quantities, DIMS, shape, {"reflection": reflections, "dislocation": names}, FLAGS)
    for name, values in products.items():
        found[name].values[:] = values
    hidden, rest = products["gb"] == 0, (products["gbe"] != 0) | (products["gbt"] != 0)
    found["flag"].values[:] = np.where(hidden, np.where(rest, 1, 2), 0)
    in_order = np.array([" ".join(f"{value:g}" for value in column) for column in products["gb"].T])
    found["gb_in_order"] = variable(in_order, "1", "g.b of the reflections in order", ("dislocation",))
    for code, name, text in ((0, "visible_in", "reflections that show it"), (2, "invisible_in", "reflections that do not")):
        words = [", ".join(r for r, f in zip(reflections, column, strict=True) if f == code) for column in found["flag"].values.T]
        found[name] = variable(np.array([w or "none" for w in words]), "", text, ("dislocation",))
    return found


def _check_lengths(lattice_nm: float, distance_nm: float, poisson: float) -> None:
    for name, value in (("lattice_nm", lattice_nm), ("distance_nm", distance_nm)):
        if not 0 < value < math.inf:
            raise InputError(f"{name} must be positive, got {value:g}")
    if not -1 < poisson < 0.5:
        raise InputError(f"poisson must be between -1 and 0.5, got {poisson:g}")


def _deviation(
    g: np.ndarray, burgers_nm: np.ndarray, line: np.ndarray, distance_nm: float, poisson: float, crystal: str | None
) -> np.ndarray:
    """Root mean square of |H^T g|/|g| on a circle about each line, deg, shape (reflection, dislocation)."""
    w = torch.arange(AROUND, dtype=torch.float64) * (2 * math.pi / AROUND)
    directions = torch.from_numpy(g / np.linalg.norm(g, axis=1, keepdims=True))
    found = []
    for b, t in zip(torch.from_numpy(burgers_nm), torch.from_numpy(line), strict=True):
        x, y, _ = dislocation_frame(perpendicular(t), t)
        points = distance_nm * (w.cos()[:, None] * x + w.sin()[:, None] * y)
        if crystal:
            h = anisotropic_dislocation(points, b, t, crystal_stiffness(crystal))
        else:
            h = mixed_dislocation(points, b, t, poisson)
        found.append(torch.einsum("pij,gi->gpj", h, directions).square().sum(-1).mean(-1).sqrt())
    return np.degrees(torch.stack(found, 1).numpy())


def _telling_apart(reflections: list[str], gb: np.ndarray, names: list[str]) -> dict[str, str | int]:
    """Groups of Burgers vectors that have g.b = 0 in the same reflections, and the fewest reflections that make as many."""
    vectors = {_burgers_name(name): gb[:, k] != 0 for k, name in enumerate(names)}
    patterns = np.array(list(vectors.values()))
    kinds = len(np.unique(patterns, axis=0))
    found: dict[str, str | int] = {"burgers_vectors": len(vectors), "groups_by_g_b_0": kinds}
    if kinds > 1:
        chosen = _fewest(patterns, kinds)
        found["fewest_reflections"] = ", ".join(reflections[i] for i in chosen) if chosen else f"more than {LARGEST_SET}"
    alike: dict[tuple[bool, ...], list[str]] = {}
    for name, pattern in vectors.items():
        alike.setdefault(tuple(pattern), []).append(name)
    if groups := [" ".join(group) for group in alike.values() if len(group) > 1]:
        found["not_told_apart"] = "; ".join(groups)
    return found


def _fewest(patterns: np.ndarray, kinds: int) -> tuple[int, ...]:
    """The first smallest choice of columns that leaves as many different rows as all columns do."""
    count = patterns.shape[1]
    for size in range(math.ceil(math.log2(kinds)), min(count, LARGEST_SET) + 1):
        for which in itertools.combinations(range(count), size):
            if len(np.unique(patterns[:, which], axis=0)) == kinds:
                return which
    return ()
