"""Characters of straight dislocations: Burgers vector, slip plane and line in the crystal, and what the image needs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from braggscope.core.errors import InputError
from braggscope.physics.slip_systems import line_directions, miller_text, slip_systems

from .optics import Optics
from .setting import Setting

Array = np.ndarray
# Brennan et al.: the edge dislocations of aluminium, Burgers vector and slip plane; the line is b x n
PUBLISHED = (
    ((1, 1, 0), (-1, 1, 1)), ((1, 1, 0), (1, -1, 1)), ((1, -1, 0), (-1, -1, -1)), ((1, -1, 0), (1, 1, -1)),
    ((1, 0, -1), (1, 1, 1)), ((1, 0, -1), (1, -1, 1)), ((1, 0, 1), (1, 1, -1)), ((1, 0, 1), (-1, 1, 1)),
    ((0, 1, 1), (1, 1, -1)), ((0, 1, 1), (-1, 1, -1)), ((0, 1, -1), (1, 1, 1)), ((0, 1, -1), (-1, 1, 1)),
)  # fmt: skip


@dataclass(frozen=True)
class Character:
    """One kind of straight dislocation.

    name: What to call it; a number for the published ones.
    burgers: Cartesian crystal axes, in units of the lattice parameter a; it lies in the slip plane.
    normal, line: Unit vectors in the same axes.
    """

    name: str
    burgers: tuple[float, float, float]
    normal: tuple[float, float, float]
    line: tuple[float, float, float]

    @property
    def label(self) -> str:
        """Name with the parts that a reader knows."""
        return self.name if self.system == self.name else f"{self.name} {self.system} edge"

    @property
    def system(self) -> str:
        """Slip system of a published one; of others the name, which has it."""
        if not self.name.isdigit():
            return self.name
        b, n = PUBLISHED[int(self.name) - 1]
        return miller_text(b, "[]") + miller_text(n, "()")


def characters_of(setting: Setting) -> list[Character]:
    """The characters that a dislocation in this setting may have.

    "published": the twelve of aluminium; else lines of all slip systems of the structure, with both signs of the Burgers vector.
    """
    if setting.characters == "published":
        if setting.structure != "fcc":
            raise InputError(f"characters 'published' are of fcc; for {setting.structure} give lines, like 'edge screw 60 -60'")
        return [_edge(str(i), b, n) for i, (b, n) in enumerate(PUBLISHED, start=1)]
    kinds = setting.characters.replace(",", " ").split()
    try:
        lines = [(s, line_directions(s, kinds)) for s in slip_systems(setting.structure, c_over_a=setting.c_over_a)]
    except ValueError as error:
        raise InputError(f"characters: {error}") from None
    return [
        Character(f"{word}{system.name} {kind}", _three(sign * np.array(system.burgers)), system.normal, line)
        for system, each in lines
        for kind, line in each.items()
        for sign, word in ((1, ""), (-1, "-"))
    ]


def chosen(setting: Setting, names: Sequence[str]) -> list[Character]:
    """Characters by name, or by slip system. Raises InputError, naming those there are, for an unknown slip system or number."""
    all_of_them = characters_of(setting)
    known = {name: one for one in all_of_them for name in (one.name, one.system)}
    for name in names:
        if name not in known:
            shown = [one.name if one.name == one.system else f"{one.name} or {one.system}" for one in all_of_them]
            listed = shown if len(shown) <= 24 else [*shown[:8], f"... ({len(shown)} in all)"]
            raise InputError(f"unknown character '{name}'; there are: {', '.join(listed)}")
    return [known[name] for name in names]


@dataclass(frozen=True)
class Straight:
    """Several characters as the kernel takes them: `project`, `turn`, `edge`, `screw` (see `kernels`)."""

    project: Array
    turn: Array
    edge: Array
    screw: Array

    def __getitem__(self, which: Sequence[int]) -> Straight:
        index = list(which)
        return Straight(self.project[index], self.turn[index], self.edge[index], self.screw[index])

    def to_image(self) -> Array:
        """Places in the image from those in the frames of the dislocations: where the line crosses z = 0 of the laboratory.

        Shape (dislocation, 2, 2); it grows without limit as the line comes to lie in that plane.
        """
        return self._to_image

    @cached_property
    def _to_image(self) -> Array:
        return np.linalg.inv(self.project[:, :, :2])


def straight(characters: Sequence[Character], setting: Setting, optics: Optics) -> Straight:
    """The characters in a setting."""
    crystal = setting.orientation().T  # crystal <- sample
    n = np.array([c.normal for c in characters])
    t = np.array([c.line for c in characters])
    frame = np.stack([np.cross(n, t), n, t], 1)  # dislocation <- crystal
    burgers = np.array([c.burgers for c in characters]) * setting.lattice_a / 10  # angstrom to nm
    if setting.burgers_nm is not None:
        burgers *= setting.burgers_nm / np.linalg.norm(burgers, axis=1, keepdims=True)
    burgers = np.einsum("kij,kj->ki", frame, burgers)
    turn = frame @ crystal
    project = np.ascontiguousarray((turn @ optics.gamma.T)[:, :2])
    return Straight(project, np.ascontiguousarray(turn), burgers[:, 0].copy(), burgers[:, 2].copy())


def _edge(name: str, burgers: Sequence[float], normal: Sequence[float]) -> Character:
    b, n = np.array(burgers, float), np.array(normal, float)
    line = np.cross(b, n)
    return Character(name, _three(b / 2), _three(n / np.linalg.norm(n)), _three(line / np.linalg.norm(line)))


def _three(vector: Array) -> tuple[float, float, float]:
    x, y, z = vector.tolist()
    return x, y, z
