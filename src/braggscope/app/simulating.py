"""Simulated scans of a phantom, as a source or as a file like a measured one."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from braggscope.core.errors import BraggscopeError, InputError, one_of
from braggscope.core.modality import modality
from braggscope.core.simulation import Simulation

from .choosing import GeometryLike, given_geometry
from .output import check_output
from .progress import Show

# How a scan file is laid out: as this package does, or as the control system of a beamline does
LAYOUTS = {"nexus": "braggscope.io.nexus:write_scan", "id03": "braggscope.io.write_id03:write_id03"}


def simulate_scan(
    name: str,
    phantom: str | None = None,
    *,
    geometry: GeometryLike = None,
    options: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    layout: str = "nexus",
    overwrite: bool = False,
    progress: bool = True,
) -> Simulation:
    """A simulated scan (see `braggscope.simulate`). Raises InputError where an argument is wrong; nothing is written then."""
    kind = modality(name)
    if layout not in LAYOUTS:
        raise one_of("layout", layout, list(LAYOUTS))
    inputs = (geometry if isinstance(geometry, str | Path) else None,)
    path = None if output is None else check_output(output, overwrite=overwrite, inputs=inputs)
    phantom = phantom or next(iter(kind.phantoms))
    make = kind.phantom(phantom)
    instrument = kind.load(kind.example_geometry)() if geometry is None else given_geometry(kind, geometry)
    simulation = make(instrument, **_arguments(make, f"{name} phantom '{phantom}'", options or {}))
    if path is not None:
        _write(simulation, path, LAYOUTS[layout], progress)
    return simulation


def _arguments(make: Callable[..., Simulation], called: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as arguments of a phantom function; a word becomes a number where the default is one."""
    known = {n: p for n, p in inspect.signature(make).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise InputError(f"{called} has no option '{name}'; it has: {', '.join(known)}")
        values[name] = _like(known[name].default, name, value)
    lacking = [name for name, parameter in known.items() if parameter.default is parameter.empty and name not in values]
    if lacking:
        raise InputError(f"{called} needs {' and '.join('--' + name.replace('_', '-') for name in lacking)}")
    if values.get("seed", 0) < 0:
        raise InputError(f"seed must be a whole number from 0 on, got {values['seed']}")
    for name in ("shape", "frame_shape"):
        if min(values.get(name, (1,)), default=0) < 1:
            raise InputError(f"{name} must be positive lengths, got {' x '.join(map(str, values[name]))}")
    return values


def _like(default: Any, name: str, value: Any) -> Any:
    """A word from the command line as the kind of number that the default is; "80,300" as a tuple where it is none."""
    if not isinstance(value, str) or isinstance(default, str):
        return value
    try:
        if isinstance(default, int | float):
            return int(value) if isinstance(default, int) else float(value)
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        like = f"a number like {default}" if isinstance(default, int | float) else "numbers like 80,300"
        raise InputError(f"option {name} must be {like}, got '{value}'") from None


def _write(simulation: Simulation, path: Path, writer: str, progress: bool) -> None:
    module, _, name = writer.partition(":")
    write = getattr(importlib.import_module(module), name)
    try:
        with Show("simulate", "frame", progress) as show:
            write(simulation, path, progress=show)
    except (OSError, RuntimeError) as error:
        raise BraggscopeError(f"{path} cannot be written ({error}); nothing was written") from None
