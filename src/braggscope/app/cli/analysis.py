"""A group of commands for each modality: `braggscope dfxm kam MAP`, one for each analysis found, made from its signature.

Beside them, `braggscope dfxm simulate` is `braggscope simulate dfxm`.

An analysis is imported when its own command or its help is asked for, so that `braggscope --help` answers at once.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from braggscope.core.analysis import SOURCES, Argument, arguments, summary_line
from braggscope.core.errors import InputError
from braggscope.core.modality import Modality, modalities

from .shared import (
    AsJson,
    Binning,
    Correct,
    Dark,
    Detector,
    Flat,
    GeometryFile,
    Grid,
    Numbers,
    Overwrite,
    Quiet,
    Roi,
    Saturation,
    ScanName,
    Workers,
    opened,
    tell,
)  # fmt: skip
from .simulate import simulate

SIMULATES = "Write a simulated scan with known truth."
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write the result to (HDF5, as a map).")]
Written = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
OF_SCANS = {
    "scan_name": (ScanName, None), "detector": (Detector, None), "grid": (Grid, None), "roi": (Roi, None),
    "binning": (Binning, 1), "saturation": (Saturation, None), "dark": (Dark, None), "flat": (Flat, None),
    "correct": (Correct, None),
}  # fmt: skip
Csv = Annotated[Path | None, typer.Option("--csv", help="File to write the tables to; several: NAME_<what>.csv each.")]
OF_ALL = {
    "workers": (Workers, None), "overwrite": (Overwrite, False), "quiet": (Quiet, False), "as_json": (AsJson, False),
}  # fmt: skip
Flags = dict[str, tuple[Any, Any]]


def add_groups(app: typer.Typer) -> None:
    """Add the group of every modality that has analyses."""
    for name, kind in sorted(modalities().items()):
        if kind.analyses():
            group = typer.Typer(
                cls=_group_of(kind), no_args_is_help=True, help=f"Analyses of {name} scans and maps: {kind.summary}."
            )
            group.callback()(_nothing)
            app.add_typer(group, name=name, short_help=f"Analyses of {name} scans and maps.")


def _nothing() -> None:
    """A group needs a function of its own."""


def _group_of(kind: Modality) -> type[typer.core.TyperGroup]:
    """The commands of a modality, made when they are asked for."""

    class Analyses(typer.core.TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return sorted(["simulate", *(name.replace("_", "-") for name in kind.analyses())])

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            word = cmd_name.replace("-", "_")
            if word == "simulate":
                return _simulate(kind)
            return _command(kind, word) if word in kind.analyses() else None

    return Analyses


def _command(kind: Modality, name: str) -> Any:
    """The command of an analysis."""
    analysis = kind.analysis(name)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name.replace("_", "-"), help=_help(analysis), short_help=summary_line(analysis))(
        _function(kind, name, analysis)
    )
    return typer.main.get_command(alone)


def _simulate(kind: Modality) -> Any:
    """The command `simulate` for this modality."""

    def command(**given: Any) -> None:
        simulate(kind.name, **given)

    signature = inspect.signature(simulate, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.name != "modality"]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command("simulate", cls=Numbers, help=simulate.__doc__, short_help=SIMULATES)(command)
    return typer.main.get_command(alone)


def _help(analysis: Callable[..., Any]) -> str:
    """The docstring, a paragraph as one line each so that the terminal breaks them."""
    paragraphs = inspect.getdoc(analysis).split("\n\n") if analysis.__doc__ else []  # type: ignore[union-attr]
    return "\n\n".join(" ".join(p.split()) for p in paragraphs if ">>>" not in p)


def _function(kind: Modality, name: str, analysis: Callable[..., Any]) -> Callable[..., None]:
    """A function whose signature has the inputs, the analysis' own options and the common flags, for typer to read."""
    declared = arguments(analysis)
    reads_scans = any(one.kind in ("scan", "scan or map") for one in declared)
    writes = any(one.kind == "output" for one in declared)
    flags: Flags = {
        one.name: (_flag(one), inspect.Parameter.empty if one.required else None if one.kind in SOURCES else one.default)
        for one in declared
        if one.keyword and one.kind in ("option", "map", "scan or map")
    }
    flags |= {"geometry": (GeometryFile, None)} if any(one.kind == "geometry" for one in declared) else {}
    flags |= OF_SCANS if reads_scans else {}
    flags |= {} if writes else {"csv": (Csv, None)}
    own = [one.name for one in declared if one.keyword and one.kind in ("option", "map", "scan or map")]

    def command(**given: Any) -> None:
        given |= _calibration(kind, given)
        inputs = _inputs(kind, declared, given)
        options = {n: given[n] for n in own if given[n] is not None}
        _run(kind, name, inputs, options, given)

    positional = [_parameter(one.name, *_input(one)) for one in declared if not one.keyword]
    output = {"output": (Written, inspect.Parameter.empty) if writes else (Output, None)}
    rest = [_parameter(n, hint, default) for n, (hint, default) in {**output, **flags, **OF_ALL}.items()]
    parameters = [*positional, *rest]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _calibration(kind: Modality, given: dict[str, Any]) -> dict[str, Any]:
    """--detector FILE, where it is the file of a geometry and not the name of an image stack, is what --geometry is."""
    word = given.get("detector")
    if word is None or "geometry" not in given or given["geometry"] is not None:
        return {}
    endings = (".toml", *kind.geometry_class().own_suffixes)
    return {"geometry": Path(word), "detector": None} if Path(word).suffix.lower() in endings else {}


def _parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint, default=default)


def _input(one: Argument) -> tuple[Any, Any]:
    """An input file, or several."""
    word = {"scan": "SCAN", "map": "MAP", "scan or map": "FILE"}[one.kind]
    what = {
        "scan": "Scan: a file, or a folder of frames.",
        "map": "Map file.",
        "scan or map": "Scan, map, or table of another program.",
    }[one.kind]
    hint: Any = list[Path] if one.several else Path
    if not one.required and not one.several:
        hint = Path | None
    metavar = f"{word}..." if one.several else word if one.required else f"[{one.name.upper()}]"
    help_text = one.says.doc or (what if one.required else f"{what[:-1]} of {one.name.replace('_', ' ')}.")
    return Annotated[hint, typer.Argument(metavar=metavar, help=help_text, show_default=False)], (
        inspect.Parameter.empty if one.required else None
    )


def _flag(one: Argument) -> Any:
    """An option of an analysis as a flag. A text that starts with a symbol, as "a, b, c (angstrom)", keeps its small letter."""
    flag = "--" + one.name.replace("_", "-")
    doc = one.says.doc if one.says.doc[1:2] == "," else one.says.doc[:1].upper() + one.says.doc[1:]
    text = doc + (f" [{one.says.unit}]" if one.says.unit not in ("", "1") else "")
    if one.says.choices:
        text += f" ({', '.join(map(str, one.says.choices))})"
    hint = Path if one.kind in SOURCES else one.type
    items = typing.get_args(hint)
    if items[1:] == (Ellipsis,):
        hint = list[items[0]]  # type: ignore[valid-type]
    words = (flag, f"--no-{one.name.replace('_', '-')}") if one.type is bool else (flag,)
    option = typer.Option("/".join(words), help=text + ".")
    return Annotated[hint if one.required else hint | None, option]


def _inputs(kind: Modality, declared: list[Argument], given: dict[str, Any]) -> list[Any]:
    """Scans opened with the common flags; maps as their paths."""
    found: list[Any] = []
    for one in declared:
        if one.keyword or given[one.name] is None:
            continue
        paths = given[one.name] if one.several else [given[one.name]]
        found += [path if one.kind == "map" else _source(kind, one, path, given) for path in paths]
    return found


def _source(kind: Modality, one: Argument, path: Path, given: dict[str, Any]) -> Any:
    """A scan; or the path of a map or a table, to which the flags of scans do not apply."""
    from ..analysing import is_scan

    if one.kind == "scan" or is_scan(kind, path):
        return _scan(kind, path, given)
    for name, (_, default) in OF_SCANS.items():
        if given[name] not in (default, [], ()):
            raise InputError(f"{path} is not a scan; leave out --{name.replace('_', '-')}")
    return path


def _scan(kind: Modality, path: Path, given: dict[str, Any]) -> Any:
    return opened(
        path, given["scan_name"], given["detector"], given["grid"], given["roi"], given["binning"], given["saturation"],
        dark=given["dark"], flat=given["flat"], correct=given["correct"], modality=kind.name,
    )  # fmt: skip


def _run(kind: Modality, name: str, inputs: list[Any], options: dict[str, Any], given: dict[str, Any]) -> None:
    from braggscope.infer.runtime import set_workers

    from ..analysing import analyse
    from ..findings import findings, findings_text, with_error
    from ..tables import check_tables, write_tables

    output, csv = given["output"], given.get("csv")
    if output is None and csv is None and given["quiet"] and not given["as_json"]:
        raise InputError("with --quiet and without --output, --csv or --json the result would be lost; give one of them")
    if csv is not None:
        check_tables(csv, overwrite=given["overwrite"])
    set_workers(given["workers"])
    options = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
    result = analyse(
        kind.name, name, *inputs, geometry=given.get("geometry"), output=output, overwrite=given["overwrite"], options=options
    )
    if isinstance(result, dict):
        lines = (f"  {key.replace('_', ' ')}: {with_error(result, key)}" for key in result if not key.endswith("_std"))
        said = "\n".join(lines)
        document = dict(result)
    else:
        numbers = findings(result)
        said, document = findings_text(numbers), {**numbers, **kind.document_of(name)(result)}
    written = [output] if output is not None else []
    if csv is not None and not isinstance(result, dict):
        written += write_tables(result, csv)
        document["csv"] = [str(path) for path in written if path != output]
    end = f"\n\nwritten to {', '.join(map(str, written))}" if written else ""
    tell(
        said + end,
        {**document, "output": None if output is None else str(output)},
        as_json=given["as_json"],
        quiet=given["quiet"],
    )
