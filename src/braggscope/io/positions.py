"""Where frames belong: scan commands, measured motor positions and grids.

A frame is recorded at a point of a grid of motor positions; its flat position counts through the grid in C order, slowest
motor first. What is planned comes from the scan's command ("fscan2d chi -0.5 0.08 26 diffry 7 0.06 37"), what was reached from
the measured positions. Where both are there, the command gives the grid and the measured positions tell in which direction the
fast motor ran on each line; where there is no command, the grid is found from the measured positions alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.scan import Axis


@dataclass(frozen=True)
class Plan:
    """What a scan was to do.

    axes: Planned axes, slowest first.
    zigzag: Whether the fast motor runs back on odd lines.
    relative: Whether the planned positions count from where the motors stood before.
    follows: Motors that move together with one of the axes: name -> number of the axis.
    either_order: Whether the measured positions may say that the other motor was the fast one.
    """

    axes: tuple[Axis, ...]
    zigzag: bool = False
    relative: bool = False
    follows: Mapping[str, int] = field(default_factory=dict)
    either_order: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def motors(self) -> tuple[str, ...]:
        """Every motor that moves."""
        return (*(axis.name for axis in self.axes), *self.follows)


@dataclass(frozen=True)
class Placed:
    """Frames in their grid: the axes, the flat position of each frame, measured positions on the grid, what is missing."""

    axes: tuple[Axis, ...]
    order: np.ndarray
    positions: Mapping[str, np.ndarray] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def parse_command(command: str) -> Plan | None:
    """The plan that a command of SPEC or BLISS states; None where it is not a known one.

    Known are fscan and fscan2d (motor, start, step, points), ascan, dscan and their forms for several motors that move together
    (motor, start, stop, then intervals), mesh, amesh and dmesh (motor, start, stop, intervals; the first motor is the
    fast one), loopscan and timescan (points).

    >>> parse_command("fscan2d chi -0.5 0.08 26 diffry 7 0.06 37 0.5 0.500417").shape
    (26, 37)
    >>> parse_command("ascan  diffry -23.176 -23.146  30 5").axes[0].values[-1].item()
    -23.146
    """
    name, *words = re.split(r"[\s,()]+", command.strip()) or [""]
    name = name.lower()
    try:
        if re.fullmatch(r"fscan\d*d?", name):
            return _continuous(words)
        if match := re.fullmatch(r"([ad]?)(\d*)scan", name):
            return _together(words, int(match[2] or 1), relative=match[1] == "d")
        if re.fullmatch(r"[ad]?mesh", name):
            return _mesh(words, relative=name == "dmesh")
        if name in ("loopscan", "timescan", "ftimescan"):
            return Plan((Axis("point", np.arange(float(int(words[0])))),)) if int(words[0]) > 0 else None
    except (ValueError, IndexError):
        pass
    return None


def _continuous(words: Sequence[str]) -> Plan | None:
    """fscan, fscan2d, ...: groups of motor, start, step, points, slowest first."""
    axes = []
    while len(words) >= 4 and not _is_number(words[0]):
        start, step, count = float(words[1]), float(words[2]), int(words[3])
        axes.append(Axis(words[0], start + step * np.arange(count)))
        words = words[4:]
    return Plan(tuple(axes)) if axes and all(len(a) for a in axes) else None


def _together(words: Sequence[str], count: int, *, relative: bool) -> Plan | None:
    """ascan, a2scan, dscan, ...: groups of motor, start, stop, then the intervals."""
    points = int(words[3 * count]) + 1
    ends = [(words[3 * i], float(words[3 * i + 1]), float(words[3 * i + 2])) for i in range(count)]
    if points < 1 or any(_is_number(name) for name, _, _ in ends):
        return None
    axis = Axis(ends[0][0], np.linspace(ends[0][1], ends[0][2], points))
    return Plan((axis,), relative=relative, follows={name: 0 for name, _, _ in ends[1:]})


def _mesh(words: Sequence[str], *, relative: bool) -> Plan:
    """mesh, amesh, dmesh: two groups of motor, start, stop, intervals; the first motor is the fast one."""
    axes = [Axis(words[i], np.linspace(float(words[i + 1]), float(words[i + 2]), int(words[i + 3]) + 1)) for i in (0, 4)]
    return Plan((axes[1], axes[0]), relative=relative, either_order=True)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def place(
    plan: Plan, count: int, measured: Mapping[str, np.ndarray], *, why: str = "", started: Mapping[str, float] | None = None
) -> Placed:
    """Put `count` frames of a planned scan into its grid.

    measured: Positions at each frame, shape (frame,), of the motors that were recorded; NaN where they were not.
    why: How the scan ended, for the message when frames are missing.
    started: Where the motors stood before, for relative scans without measured positions.
    Raises InputError where there are more frames than planned positions.
    """
    measured = {name: _sized(values, count) for name, values in measured.items() if name in plan.motors}
    planned = math.prod(plan.shape)
    if count > planned:
        raise InputError(f"{count} frames do not fit into the {_times(plan.shape)} = {planned} planned positions")
    if plan.either_order and len(plan.axes) == 2 and _moves(plan.axes[0], measured) > _moves(plan.axes[1], measured):
        plan = replace(plan, axes=plan.axes[::-1])
    order = _order(plan, count, measured)
    positions = {name: _on_grid(values, order, planned) for name, values in measured.items() if np.isfinite(values).any()}
    offsets = (started or {}) if plan.relative else {}
    axes = tuple(_reached(plan, i, positions, offsets.get(axis.name, 0.0)) for i, axis in enumerate(plan.axes))
    missing = [f"{planned - count} of {planned} frames (the scan ended after {count}{f': {why}' if why else ''})"]
    missing = missing if count < planned else []
    for name in plan.motors:
        lost = int(np.isnan(measured[name]).sum()) if name in measured else count
        if lost and not (len(plan.axes) == 1 and name == "point"):
            missing.append(f"measured position of {name} {'' if lost == count else f'at {lost} frames '}(planned is used)")
    return _without_constant_axes(Placed(axes, order, positions, tuple(missing)))


def _sized(values: np.ndarray, count: int) -> np.ndarray:
    """The first `count` values as float64, NaN where there are fewer."""
    sized = np.full(count, np.nan)
    sized[: min(count, len(values))] = values[:count]
    return sized


def _moves(axis: Axis, measured: Mapping[str, np.ndarray]) -> int:
    """How often a motor moved from one frame to the next, by more than half its planned step."""
    if axis.name not in measured or len(axis) < 2:
        return 0
    return int((np.abs(np.diff(measured[axis.name])) > abs(axis.values[1] - axis.values[0]) / 2).sum())


def _order(plan: Plan, count: int, measured: Mapping[str, np.ndarray]) -> np.ndarray:
    """Flat grid position of each frame; on lines that ran back the last column comes first."""
    fast = plan.axes[-1]
    order = np.arange(count)
    if len(plan.axes) == 1:
        return order
    for line, start in enumerate(range(0, count, len(fast))):
        stop = min(start + len(fast), count)
        reached = measured[fast.name][start:stop] if fast.name in measured else np.empty(0)
        if _ran_back(fast.values, reached, otherwise=plan.zigzag and line % 2 == 1):
            order[start:stop] = start + len(fast) - 1 - np.arange(stop - start)
    return order


def _ran_back(planned: np.ndarray, reached: np.ndarray, *, otherwise: bool) -> bool:
    """Whether the fast motor ran against its planned direction on a line."""
    reached = reached[np.isfinite(reached)]
    if not len(reached) or len(planned) < 2:
        return otherwise
    if len(reached) == 1:  # an aborted line of one frame: at which end of the line is it?
        return bool(abs(reached[0] - planned[-1]) < abs(reached[0] - planned[0]))
    return bool((reached[-1] - reached[0]) * (planned[-1] - planned[0]) < 0)


def _on_grid(values: np.ndarray, order: np.ndarray, points: int) -> np.ndarray:
    flat = np.full(points, np.nan)
    flat[order] = values
    return flat


def _reached(plan: Plan, number: int, positions: Mapping[str, np.ndarray], start: float) -> Axis:
    """An axis with the mean measured position at each of its points; where none was reached, the plan shifted to fit."""
    axis = plan.axes[number]
    if axis.name not in positions:
        return Axis(axis.name, axis.values + start, axis.unit)
    flat = np.moveaxis(positions[axis.name].reshape(plan.shape), number, 0).reshape(len(axis), -1)
    known = np.isfinite(flat)
    hits = known.sum(axis=1)
    mean = np.where(known, flat, 0).sum(axis=1) / np.maximum(hits, 1)
    shift = np.median((mean - axis.values)[hits > 0])
    return Axis(axis.name, np.where(hits > 0, mean, axis.values + shift), axis.unit)


def _without_constant_axes(placed: Placed) -> Placed:
    """The same without axes of one point, unless there is no other; the flat positions stay the same."""
    longer = tuple(axis for axis in placed.axes if len(axis) > 1)
    return replace(placed, axes=longer or placed.axes[-1:])


def from_measured(measured: Mapping[str, np.ndarray], units: Mapping[str, str], *, count: int) -> Placed:
    """Put frames into the grid that their measured positions form, or into a line where they form none.

    measured: Positions at each frame, shape (frame,).
    Raises InputError where a position is not finite.
    """
    for name, values in measured.items():
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise InputError(f"positions of '{name}' must be finite numbers, got {bad} that are not among {len(values)}")
    moving = {name: np.asarray(v, np.float64) for name, v in measured.items() if len(v) == count and _varies(np.asarray(v))}
    if not moving:
        return Placed((Axis("point", np.arange(float(count))),), np.arange(count))
    if len(moving) > 1 and (placed := _grid(moving, units, count)):
        return placed
    name = max(moving, key=lambda one: len(np.unique(moving[one])))
    return Placed(
        (Axis(name, moving[name], units.get(name, "")),), np.arange(count), {k: v for k, v in moving.items() if k != name}
    )


def _varies(values: np.ndarray) -> bool:
    """Whether a motor moved, by more than rounding."""
    return len(values) > 1 and float(np.ptp(values)) > 1e-9 * max(1.0, float(np.abs(values).max()))


def _grid(moving: Mapping[str, np.ndarray], units: Mapping[str, str], count: int) -> Placed | None:
    """The complete grid (its last line may be cut short) that these positions form; None where they do not."""
    steps = {name: np.abs(np.diff(v)) > 0.01 * np.ptp(v) for name, v in moving.items()}
    names = sorted(moving, key=lambda name: (steps[name].sum(), -steps[name].argmax()))  # the fast motor moves first and most
    levels = {name: _levels(moving[name]) for name in names}
    shape = tuple(int(levels[name].max()) + 1 for name in names)
    points = math.prod(shape)
    if not 0 <= points - count < max(shape[-1], 2):
        return None
    order = np.ravel_multi_index(tuple(levels[name] for name in names), shape)
    if len(np.unique(order)) < count:
        return None
    positions = {name: _on_grid(moving[name], order, points) for name in names}
    axes = tuple(Axis(n, _level_means(moving[n], levels[n]), units.get(n, "")) for n in names)
    missing = (f"{points - count} of {points} frames (the last line is cut short)",) if points > count else ()
    return Placed(axes, order, positions, missing)


def _levels(values: np.ndarray) -> np.ndarray:
    """Number of the level (0 = lowest) of each value; values closer than half a typical step share one."""
    jumps = np.abs(np.diff(values))
    step = np.median(jumps[jumps > 0.01 * np.ptp(values)])
    rank = np.argsort(values, kind="stable")
    level = np.empty(len(values), np.int64)
    level[rank] = np.concatenate([[0], np.cumsum(np.diff(values[rank]) > step / 2)])
    return level


def _level_means(values: np.ndarray, level: np.ndarray) -> np.ndarray:
    return np.bincount(level, values) / np.bincount(level)


def on_given_grid(grid: Sequence[int], count: int, measured: Mapping[str, np.ndarray], units: Mapping[str, str]) -> Placed:
    """Put frames into the grid that the user states, line by line, fast axis last.

    measured: Positions at each frame; two that move name the axes and confirm the direction of each line.
    Raises InputError where there are more frames than positions.
    """
    if len(grid) < 1 or any(n < 1 for n in grid):
        raise InputError(f"grid must be positive whole numbers, slowest axis first, got {_times(grid)}")
    if count > math.prod(grid):
        raise InputError(f"grid {_times(grid)} has {math.prod(grid)} positions, but there are {count} frames")
    names = ("z", "y", "x")[-len(grid) :] if len(grid) <= 3 else tuple(f"axis{i}" for i in range(len(grid)))
    moving = {n: v for n, v in measured.items() if len(v) == count and np.isfinite(v).all() and _varies(v)}
    if len(moving) == len(grid):
        changes = {n: int((np.abs(np.diff(v)) > 0.01 * np.ptp(v)).sum()) for n, v in moving.items()}
        names = tuple(sorted(moving, key=lambda n: changes[n]))
        first = moving[names[-1]][: grid[-1]]
        ends = {n: (float(v[0]), float(v[-1])) for n, v in moving.items()} | {names[-1]: (float(first[0]), float(first[-1]))}
        plan = Plan(tuple(Axis(n, np.linspace(*ends[n], size), units.get(n, "")) for n, size in zip(names, grid, strict=True)))
        return place(plan, count, moving)
    plan = Plan(tuple(Axis(name, np.arange(float(size))) for name, size in zip(names, grid, strict=True)))
    placed = place(plan, count, {})
    return replace(placed, missing=tuple(phrase for phrase in placed.missing if "frames" in phrase))


def _times(shape: Sequence[Any]) -> str:
    return " x ".join(str(n) for n in shape)
