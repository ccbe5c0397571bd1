"""`braggscope simulate`: a scan of a phantom, with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .shared import AsJson, GeometryFile, Overwrite, Quiet, pairs, shape_of, shows_progress, tell

ModalityWord = Annotated[str, typer.Argument(help="The microscopy: nanobeam or dfxm, for example.", metavar="MODALITY")]
Phantom = Annotated[str | None, typer.Option("--phantom", help="The sample (`braggscope info --modality NAME` lists them).")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Scan file to write (HDF5).")]
Shape = Annotated[str | None, typer.Option("--shape", help="Length of each scan axis, slowest first.", metavar="N [N ...]")]
FrameShape = Annotated[tuple[int, int] | None, typer.Option("--frame-shape", help="Rows and columns of a frame.")]
Peak = Annotated[float | None, typer.Option("--peak", help="Expected counts in the brightest pixel.")]
Noise = Annotated[str, typer.Option("--noise", help="'default' (as the modality's detector) or 'none'.")]
Layout = Annotated[str, typer.Option("--layout", help="Of the file: nexus, or id03 (ESRF BLISS; darling reads it too).")]
Options = Annotated[list[str] | None, typer.Option("--option", help="An option of the phantom.", metavar="NAME=VALUE")]


def simulate(
    modality: ModalityWord,
    output: Output,
    phantom: Phantom = None,
    geometry: GeometryFile = None,
    shape: Shape = None,
    frame_shape: FrameShape = None,
    peak: Peak = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise and of random phantoms.")] = 0,
    noise: Noise = "default",
    option: Options = None,
    layout: Layout = "nexus",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a simulated scan, like a measured one, together with the truth that a map of it should show."""
    from braggscope.core.errors import InputError

    from ..simulating import simulate_scan

    if noise not in ("default", "none"):
        raise InputError(f"--noise must be default or none, got '{noise}'")
    given: dict[str, Any] = {
        **pairs(option or [], "--option"),
        "seed": seed,
        **({"shape": shape_of(shape)} if shape is not None else {}),
        **({"frame_shape": frame_shape} if frame_shape is not None else {}),
        **({"peak": peak} if peak is not None else {}),
        **({"noise": None} if noise == "none" else {}),
    }
    made = simulate_scan(
        modality,
        phantom,
        geometry=geometry,
        options=given,
        output=output,
        layout=layout,
        overwrite=overwrite,
        progress=shows_progress(quiet or as_json),
    )
    rows, columns = made.frame_shape
    document = {
        "output": str(output),
        "modality": modality,
        "shape": list(made.shape),
        "frame_shape": [rows, columns],
        "seed": seed,
    }
    frames = f"{' x '.join(str(n) for n in made.shape)} frames of {rows} x {columns} pixels"
    tell(f"{output}: {made.label}, {frames}, seed {seed}", document, as_json=as_json, quiet=quiet)
