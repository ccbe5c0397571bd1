"""`braggscope report`: one page about maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shared import Overwrite

Maps = Annotated[list[Path], typer.Argument(help="Map files.", metavar="MAP...")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Page to write (HTML, complete in itself).")]
Scans = Annotated[list[Path] | None, typer.Option("--scan", help="Scan of a map, for pictures of frames; repeatable.")]
Title = Annotated[str, typer.Option("--title", help="Heading of the page.")]


def report(
    maps: Maps, output: Output, scan: Scans = None, title: Title = "Braggscope report", overwrite: Overwrite = False
) -> None:
    """Write one HTML page with pictures, numbers, flags and provenance of maps, to read anywhere, print or send."""
    from ..report import write_report

    written = write_report(list(maps), output, scan=list(scan or []), title=title, overwrite=overwrite)
    typer.echo(f"written to {written}")
