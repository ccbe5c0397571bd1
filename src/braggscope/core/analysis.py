"""Analyses: scans or maps in, a map or a table out, beyond what one method makes of one scan.

An analysis is a function in a module of the same name in a modality's folder analysis/. Its signature says all that the program
and the page need to offer it:

    def domains(
        orientation: xr.Dataset,                                          # a map file; Scan: a scan file; list[...]: several
        *,
        threshold: Annotated[float, Says("least misorientation of a wall", unit="deg")] = 0.1,
        geometry: DfxmGeometry | None = None,                             # a TOML file
    ) -> xr.Dataset:

An input of `Scan | xr.Dataset` is either of them: frames, or what has been found in them. Where its modality reads tables of
other programs (`Modality.tables`), one of those does for a Dataset. The first line of its docstring is its help. What it returns
follows the conventions of maps (core.maps); a table is a map whose dimension is "domain", "component" or the like. One that
writes a file of another kind has a keyword `output: Path` instead and returns what it has to say about it, by name. A module may
have a second function, `document` (result -> plain values): what `--json` shows beside the usual.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import operator
import reprlib
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np

from .errors import InputError
from .geometry import Geometry
from .scan import Scan

TAKEN: dict[type, Any] = {
    int: numbers.Integral, float: numbers.Real, str: str | numbers.Real, bool: bool | np.bool_, Path: str | Path,
}  # fmt: skip
"""What does for an option of each type; True and False are no numbers."""
SOURCES = ("scan", "map", "scan or map")
"""Kinds of arguments that are data."""
WORDS = {
    int: ("an integer", "integers"), float: ("a number", "numbers"), str: ("a word", "words"),
    bool: ("True or False", "times True or False"), Path: ("the path of a file", "paths of files"),
}  # fmt: skip
"""Each type in words: one, and several."""


@dataclass(frozen=True)
class Says:
    """What an option of an analysis means, in which unit, and which words it may be."""

    doc: str
    unit: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Argument:
    """An input or an option of an analysis.

    kind: "scan", "map", "scan or map", "geometry", "output" or "option".
    type: Of an option: float, int, str, bool, Path or a tuple of these.
    default: `inspect.Parameter.empty` where it must be given.
    several: Whether it is a list.
    keyword: Whether it is given by name.
    """

    name: str
    kind: str
    type: Any
    default: Any
    several: bool
    says: Says
    keyword: bool = True

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    def checked(self, value: Any, called: str) -> Any:
        """A value of an option as its type. Raises InputError for one of another type, and for a word that is not a choice.

        value: An integer does for a float, a list or an array for a tuple, a word for a Path, and a number for a word, since
            some are "auto" or a value. No number is rounded, and none is read out of a word.
        called: What to call the option.

        >>> Argument("size", "option", int, 3, False, Says("")).checked(np.int64(5), "size")
        5
        """
        try:
            taken = _taken(self.type, value)
        except TypeError:
            got = " ".join(reprlib.repr(value).split())  # in one line
            raise InputError(f"{called} must be {_wanted(self.type)}, got {got}") from None
        choices = self.says.choices
        if choices and taken not in choices:
            raise InputError(f"{called} must be one of {', '.join(choices)}, got '{taken}'")
        return taken


def arguments(analysis: Callable[..., Any]) -> list[Argument]:
    """The inputs of an analysis in order, then its options. Raises TypeError for one that has no type this module knows."""
    hints = typing.get_type_hints(analysis, include_extras=True)
    return [_argument(p, hints[p.name]) for p in inspect.signature(analysis).parameters.values()]


def summary_line(analysis: Callable[..., Any]) -> str:
    """The first line of its docstring."""
    return (analysis.__doc__ or "").strip().split("\n")[0]


def _argument(parameter: inspect.Parameter, hint: Any) -> Argument:
    import xarray as xr

    says = Says("")
    if typing.get_origin(hint) is typing.Annotated:
        hint, *extras = typing.get_args(hint)
        says = next((one for one in extras if isinstance(one, Says)), says)
    hint = _without_none(hint)
    several = typing.get_origin(hint) is list
    inner = typing.get_args(hint)[0] if several else hint
    known = {Scan: "scan", xr.Dataset: "map", Scan | xr.Dataset: "scan or map"}
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        if inner not in known:
            raise TypeError(f"input {parameter.name} of an analysis must be a Scan or a Dataset, not {hint}")
        return Argument(parameter.name, known[inner], inner, parameter.default, several, says, keyword=False)
    kind = known.get(inner, "option")
    if isinstance(inner, type) and issubclass(inner, Geometry):
        kind = "geometry"
    if parameter.name == "output" and inner is Path:
        kind = "output"
    each = typing.get_args(inner) if typing.get_origin(inner) is tuple else (inner,)
    if kind == "option" and (several or not set(each) <= {*TAKEN, Ellipsis}):
        raise TypeError(f"option {parameter.name} must be a float, int, str, bool, Path or a tuple of these, not {hint}")
    return Argument(parameter.name, kind, inner, parameter.default, several, says)


def _without_none(hint: Any) -> Any:
    """The type of an option that may also be None."""
    if typing.get_origin(hint) in (typing.Union, UnionType):
        rest = [one for one in typing.get_args(hint) if one is not type(None)]
        return functools.reduce(operator.or_, rest)
    return hint


def _taken(kind: Any, value: Any) -> Any:
    """The value as this type. Raises TypeError where it is of another."""
    if items := typing.get_args(kind):
        if not isinstance(value, list | tuple | np.ndarray):
            raise TypeError
        each = [items[0]] * len(value) if items[1:] == (Ellipsis,) else items
        if len(each) != len(value):
            raise TypeError
        return tuple(_taken(one, item) for one, item in zip(each, value, strict=True))
    if not isinstance(value, TAKEN[kind]) or (isinstance(value, bool) and kind is not bool):
        raise TypeError
    return kind(value)


def _wanted(kind: Any) -> str:
    """A type in words, for a message."""
    items = typing.get_args(kind)
    if not items:
        return WORDS[kind][0]
    many = WORDS[items[0]][1]
    return f"a list of {many}" if items[1:] == (Ellipsis,) else f"{len(items)} {many}"
