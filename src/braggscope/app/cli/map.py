"""`braggscope map`: a scan through a method into a map file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shared import (
    AsJson,
    Binning,
    Correct,
    Dark,
    Detector,
    Device,
    Flat,
    GeometryFile,
    Grid,
    ModalityName,
    Options,
    Overwrite,
    Quiet,
    Roi,
    Saturation,
    ScanFile,
    ScanName,
    Workers,
    opened,
    pairs,
    shows_progress,
    tell,
)  # fmt: skip

Output = Annotated[Path, typer.Option("--output", "-o", help="Map file to write (HDF5: NeXus and netCDF-4 at once).")]
Method = Annotated[str | None, typer.Option("--method", help="A method or a model file; by default what is recommended.")]
Resume = Annotated[bool, typer.Option("--resume", help="Finish the map that an interrupted run of this command left.")]


def map_scan(
    scan: ScanFile,
    output: Output,
    method: Method = None,
    modality: ModalityName = None,
    geometry: GeometryFile = None,
    name: ScanName = None,
    detector: Detector = None,
    grid: Grid = None,
    roi: Roi = None,
    binning: Binning = 1,
    saturation: Saturation = None,
    dark: Dark = None,
    flat: Flat = None,
    correct: Correct = None,
    option: Options = None,
    device: Device = "cpu",
    workers: Workers = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Map a scan: each quantity with its standard deviation, flags that say why a point is missing or doubtful, and provenance.

    A method that learns and comes without a model is trained on the scan first. Ctrl-C leaves the map so far; the same command
    with --resume finishes it.
    """
    from ..learning import KEPT, training_folder
    from ..mapping import map_source
    from ..summary import summarise, table

    options = pairs(option or [], "--option")
    source = opened(
        scan, name, detector, grid, roi, binning, saturation, dark=dark, flat=flat, correct=correct, modality=modality
    )
    dataset = map_source(
        source,
        method,
        modality=modality,
        geometry=geometry,
        options=options,
        output=output,
        overwrite=overwrite,
        resume=resume,
        device=device,
        workers=workers,
        progress=shows_progress(quiet or as_json),
    )
    numbers = summarise(dataset)
    document, end = {**numbers, "output": str(output)}, f"\n\nwritten to {output} in {numbers['seconds']:.1f} s"
    if "trained_epochs" in dataset.attrs:
        kept = str(training_folder(output) / KEPT)
        document["trained_model"] = kept
        end += f"; trained for this scan in {dataset.attrs['trained_epochs']} epochs, and `--method {kept}` maps others as well"
    tell(table(numbers) + end, document, as_json=as_json, quiet=quiet)
