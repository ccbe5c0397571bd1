"""`braggscope view`: one picture of a map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braggscope.core.errors import BraggscopeError, InputError

from .shared import Overwrite

FORMATS = (".png", ".pdf", ".svg")
MapFile = Annotated[Path, typer.Argument(help="Map file.", metavar="MAP")]
Output = Annotated[Path, typer.Option("--output", "-o", help=f"Picture to write ({', '.join(FORMATS)}).")]
View = Annotated[
    str | None,
    typer.Option("--view", help="Which picture (`braggscope info --modality NAME` lists them); left out, the first there is."),
]
ScanOption = Annotated[Path | None, typer.Option("--scan", help="The scan of the map, for views that show frames.")]


def view(map_file: MapFile, output: Output, name: View = None, scan: ScanOption = None, overwrite: Overwrite = False) -> None:
    """Draw a map: the quantities beside their standard deviations, or another of the modality's views."""
    from braggscope.core.maps import load

    from ..output import check_output
    from ..viewing import draw, scan_for

    if output.suffix.lower() not in FORMATS:
        raise InputError(f"output {output} must end in one of {', '.join(FORMATS)}")
    check_output(output, overwrite=overwrite, inputs=(map_file, scan))
    dataset = load(map_file)
    figure = draw(dataset, name, scan_for(dataset, scan))
    try:
        figure.savefig(output, dpi=150)
    except OSError as error:
        output.unlink(missing_ok=True)
        raise BraggscopeError(f"{output} cannot be written ({error.strerror}); nothing was written") from None
    typer.echo(f"written to {output}")
