"""`braggscope export`: a model as an ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shared import AsJson, ModelFile, Overwrite, Quiet, tell

Output = Annotated[Path, typer.Option("--output", "-o", help="File to write (.onnx).")]


def export(model: ModelFile, output: Output, overwrite: Overwrite = False, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Write a model as an ONNX graph, which ONNX Runtime runs without torch; `map --method` takes it as it takes the model."""
    from ..models import export_model, model_line

    made = export_model(model, output, overwrite=overwrite)
    document = {"output": str(output), "modality": made.modality, "method": made.method, "size": output.stat().st_size}
    tell(f"{model_line(made)}\n\nwritten to {output}", document, as_json=as_json, quiet=quiet)
