"""What several commands share: reading of flags, opening of scans, progress and JSON."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from braggscope.core.errors import InputError

if TYPE_CHECKING:
    from braggscope.core.scan import Scan

ScanFile = Annotated[Path, typer.Argument(help="Scan: a file, or a folder of frames.", metavar="SCAN")]
ModelFile = Annotated[Path, typer.Argument(help="Model file.", metavar="MODEL")]
ScanName = Annotated[str | None, typer.Option("--scan", help="Which of several scans in the file, such as 1.1.")]
Detector = Annotated[str | None, typer.Option("--detector", help="Which of several image stacks; a file is taken as --geometry.")]
Grid = Annotated[tuple[int, int] | None, typer.Option("--grid", help="Rows and columns of the raster, for a plain stack.")]
Roi = Annotated[str | None, typer.Option("--roi", help="Rows and columns of the frames to use, as START:STOP,START:STOP.")]
Binning = Annotated[int, typer.Option("--binning", help="Add up N x N pixels, after the cut.", metavar="N")]
Saturation = Annotated[
    float | None, typer.Option("--saturation", help="Smallest count that means an overflow; by default as the file says.")
]
Dark = Annotated[
    Path | None, typer.Option("--dark", help="Image without beam, to take off: a file or a scan (its mean).", metavar="FILE")
]
Flat = Annotated[
    Path | None, typer.Option("--flat", help="Image of even light, to divide by: a file or a scan (its mean).", metavar="FILE")
]
Correct = Annotated[
    list[str] | None,
    typer.Option(
        "--correct",
        help="A correction found in the scan itself: hot-pixels, photons, shift or motor-drift for dfxm; repeatable.",
        metavar="NAME[:OPTION=VALUE,...]",
    ),
]
ModalityName = Annotated[str | None, typer.Option("--modality", help="The microscopy, where neither file says it.")]
GeometryFile = Annotated[
    Path | None,
    typer.Option("--geometry", help="Geometry (TOML, or a calibration that the modality reads), where the scan does not say it."),
]
Workers = Annotated[int | None, typer.Option("--workers", help="Computing threads; by default all cores.", metavar="N")]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda, where the method can.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", help="An option of the method (`braggscope info --method NAME`).", metavar="NAME=VALUE"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output where it exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar and no text.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else.")]


class Numbers(TyperCommand):
    """A command whose --shape takes as many numbers as the scan has axes ("--shape 165 165" as well as "--shape 165x165")."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined: list[str] = []
        lengths = False
        for word in args:
            if lengths and joined[-1] != "--shape" and word.isdigit():
                joined[-1] += f"x{word}"
                continue
            lengths = word == "--shape" or (lengths and word.isdigit())
            joined.append(word)
        return super().parse_args(ctx, joined)


def shape_of(text: str) -> tuple[int, ...]:
    """The lengths in "165x165". Raises InputError for anything else.

    >>> shape_of("26x37")
    (26, 37)
    """
    if not re.fullmatch(r"\d+([x,]\d+)*", text):
        raise InputError(f"--shape must be one length per scan axis, like 165 165, got '{text}'")
    return tuple(int(n) for n in re.split("[x,]", text))


def region(text: str) -> tuple[int, int, int, int]:
    """Rows and columns of "10:74,20:84" as (row start, row stop, column start, column stop).

    >>> region("10:74,20:84")
    (10, 74, 20, 84)
    """
    found = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+)", text.replace(" ", ""))
    if not found:
        raise InputError(f"--roi must be rows and columns as START:STOP,START:STOP, got '{text}'")
    top, bottom, left, right = (int(n) for n in found.groups())
    return top, bottom, left, right


def pairs(words: list[str], flag: str) -> dict[str, str]:
    """The values of a repeated NAME=VALUE flag by name. Raises InputError for a word without =, and for a name given twice."""
    values: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name or not value:
            raise InputError(f"{flag} must be NAME=VALUE, got '{word}'")
        if name in values:
            raise InputError(f"{flag} {name} is given twice: {values[name]} and {value}")
        values[name] = value
    return values


def opened(
    path: Path,
    name: str | None,
    detector: str | None,
    grid: tuple[int, int] | None,
    roi: str | None,
    binning: int,
    saturation: float | None = None,
    *,
    dark: Path | None = None,
    flat: Path | None = None,
    correct: list[str] | None = None,
    modality: str | None = None,
) -> Scan:
    """The scan that the common flags describe."""
    from braggscope.core.source import open_scan

    from ..correcting import correct as corrected
    from ..reopening import cut_and_binned

    scan = cut_and_binned(open_scan(path, name, detector=detector, grid=grid), None if roi is None else region(roi), binning)
    if saturation is not None:
        if not saturation > 0:
            raise InputError(f"--saturation must be a positive count, got {saturation:g}")
        scan = dataclasses.replace(scan, saturation=saturation)
    return corrected(scan, correct or [], dark=dark, flat=flat, kind=modality)


def shows_progress(quiet: bool) -> bool:
    """Whether to draw a progress bar: on a terminal, unless it is unwanted."""
    return not quiet and sys.stderr.isatty()


def tell(text: str, document: dict[str, Any], *, as_json: bool, quiet: bool = False) -> None:
    """Print a result: as text, as one JSON document, or not at all."""
    if as_json:
        typer.echo(json.dumps(document, indent=2, default=str))
    elif not quiet:
        typer.echo(text)
