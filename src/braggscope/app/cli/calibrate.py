"""`braggscope calibrate`: the instrument, from a scan's own frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from braggscope.core.errors import InputError

from .shared import (
    AsJson,
    Binning,
    Detector,
    GeometryFile,
    Grid,
    ModalityName,
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

Output = Annotated[Path, typer.Option("--output", "-o", help="Geometry file to write (TOML); images go beside it.")]
Free = Annotated[
    str | None, typer.Option("--free", help="What to find, words with commas between, such as ring,blur; by default all.")
]
Reference = Annotated[
    list[str] | None,
    typer.Option("--reference", help="A known mean over the scan, such as chi=0.01.", metavar="NAME=VALUE"),
]


def calibrate(
    scan: ScanFile,
    output: Output,
    geometry: GeometryFile = None,
    modality: ModalityName = None,
    free: Free = None,
    reference: Reference = None,
    name: ScanName = None,
    detector: Detector = None,
    grid: Grid = None,
    roi: Roi = None,
    binning: Binning = 1,
    saturation: Saturation = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Find the instrument's parameters that explain all frames of a scan together, and write the geometry that `map` takes."""
    from ..calibrating import calibrate_scan, calibration_rows

    options: dict[str, Any] = {}
    if free is not None:
        options["free"] = tuple(word.strip() for word in free.split(",") if word.strip())
        if not options["free"]:
            raise InputError(f"--free must name what to find, with commas between, got '{free}'")
    if reference:
        options["reference"] = {key: _number(key, value) for key, value in pairs(reference, "--reference").items()}
    found = calibrate_scan(
        opened(scan, name, detector, grid, roi, binning, saturation),
        modality=modality,
        geometry=geometry,
        options=options,
        output=output,
        overwrite=overwrite,
        workers=workers,
        progress=shows_progress(quiet or as_json),
    )
    rows = calibration_rows(found)
    lines = [f"  {'field':22}{'value':>12}{'std':>12}  {'unit':9}meaning"]
    lines += [f"  {r['field']:22}{r['value']:>12.6g}{r['std']:>12.2g}  {r['unit']:9}{r['doc']}" for r in rows]
    fields = {r["field"] for r in rows}
    notes = [f"  {line}" for line in found.summary if line.split(" = ")[0] not in fields]
    text = "\n".join([*lines, "", *notes, "", f"written to {output}"])
    tell(text, {"output": str(output), "fields": rows, "summary": list(found.summary)}, as_json=as_json, quiet=quiet)


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(f"--reference {name} must be a number, got '{value}'") from None
