"""`braggscope train`: scans, or simulated frames, through a method into a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braggscope.core.errors import BraggscopeError

from .shared import (
    AsJson,
    Binning,
    Detector,
    Device,
    GeometryFile,
    Grid,
    ModalityName,
    Options,
    Overwrite,
    Quiet,
    Roi,
    Saturation,
    ScanName,
    Workers,
    opened,
    pairs,
    shows_progress,
    tell,
)  # fmt: skip

Scans = Annotated[
    list[Path] | None, typer.Argument(help="Scans to learn from; none where the method simulates.", metavar="[SCAN]...")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Model file to write (.safetensors).")]
Method = Annotated[str, typer.Option("--method", help="Which method is trained.")]
Devices = Annotated[int, typer.Option("--devices", help="Processes on this machine, started by torchrun.", metavar="N")]
Nodes = Annotated[int, typer.Option("--nodes", help="Machines, each with a torchrun.", metavar="N")]
Precision = Annotated[str, typer.Option("--precision", help="32, or bf16 where the device is faster with it.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the first weights, the order of frames and simulated noise.")]
Patience = Annotated[
    int, typer.Option("--patience", help="Stop after so many epochs without a better validation loss; 0: never.", metavar="N")
]
LogFormat = Annotated[str, typer.Option("--log", help="Format of the log beside the model: csv or tensorboard.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the training that an interrupted run of this command left.")]


def train(
    output: Output,
    method: Method,
    scans: Scans = None,
    modality: ModalityName = None,
    geometry: GeometryFile = None,
    name: ScanName = None,
    detector: Detector = None,
    grid: Grid = None,
    roi: Roi = None,
    binning: Binning = 1,
    saturation: Saturation = None,
    option: Options = None,
    device: Device = "cpu",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: Precision = "32",
    seed: Seed = 0,
    patience: Patience = 0,
    log: LogFormat = "csv",
    workers: Workers = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a method and write a model, for `map --method MODEL`.

    The log and a checkpoint of every epoch lie in the folder MODEL.training beside it; after Ctrl-C the same command with
    --resume goes on.
    """
    from ..learning import leads
    from ..training import train_model, training_document, training_table

    trained = train_model(
        [opened(scan, name, detector, grid, roi, binning, saturation) for scan in scans or []],
        method,
        modality=modality,
        geometry=geometry,
        options=pairs(option or [], "--option"),
        output=output,
        overwrite=overwrite,
        resume=resume,
        device=device,
        devices=devices,
        nodes=nodes,
        precision=precision,
        seed=seed,
        patience=patience,
        log=log,
        workers=workers,
        progress=shows_progress(quiet or as_json),
    )
    if leads():
        end = f"\n\nwritten to {output}; the log is in {trained.log}"
        document = {**training_document(trained), "output": str(output), "log": str(trained.log)}
        tell(training_table(trained) + end, document, as_json=as_json, quiet=quiet)
    if trained.failed:
        raise BraggscopeError(f"{trained.failed}; {output} holds the best weights before that")
