"""`braggscope info`: what a file holds; what methods and modalities there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braggscope.core.errors import InputError

from .shared import AsJson, Detector, Grid, tell

FileOrNothing = Annotated[
    Path | None, typer.Argument(help="A scan (file or folder), a map, a table (peak list) or a model file.", metavar="[FILE]")
]
Method = Annotated[str | None, typer.Option("--method", help="List the options of this method.")]
ModalityOption = Annotated[str | None, typer.Option("--modality", help="List what this modality has.")]


def info(
    file: FileOrNothing = None,
    method: Method = None,
    modality: ModalityOption = None,
    detector: Detector = None,
    grid: Grid = None,
    as_json: AsJson = False,
) -> None:
    """Say what a scan, a map or a model file holds and what is missing; without a file, what methods and formats there are."""
    from .. import describing, texts

    if file is not None and (method or modality):
        raise InputError("info takes a file, or --method and --modality, not both")
    if file is not None:
        found = describing.describe_file(file, detector=detector, grid=grid)
    elif method is not None:
        found = describing.describe_method(method, modality)
    else:
        found = describing.describe_modality(modality) if modality else describing.describe_all()
    tell(texts.text_of(found), found, as_json=as_json)
