"""`braggscope convert-model`: published weights as a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shared import AsJson, ModalityName, Overwrite, Quiet, tell

Method = Annotated[str, typer.Argument(help="The method that the weights are of: nanobeamnn, for example.", metavar="METHOD")]
Weights = Annotated[Path, typer.Argument(help="The weights as plain arrays (.npz).", metavar="WEIGHTS")]
Geometry = Annotated[Path | None, typer.Option("--geometry", help="Geometry (TOML) that the weights were trained for.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Model file to write (.safetensors).")]
Prefix = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        help="Which of several networks: begin of its arrays' names, such as seed0/; or ensemble: all (nanobeamnn).",
    ),
]


def convert_model(
    method: Method,
    weights: Weights,
    output: Output,
    geometry: Geometry = None,
    modality: ModalityName = None,
    prefix: Prefix = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a model of weights that were published as plain arrays, with the geometry that they were trained for."""
    from ..models import convert_weights, model_line

    made = convert_weights(
        method, weights, geometry=geometry, modality=modality, prefix=prefix, output=output, overwrite=overwrite
    )
    arrays = {name: list(value.shape) for name, value in made.weights.items()}
    document = {"output": str(output), "modality": made.modality, "method": made.method, "arrays": arrays}
    tell(f"{model_line(made)}\n\nwritten to {output}", document, as_json=as_json, quiet=quiet)
