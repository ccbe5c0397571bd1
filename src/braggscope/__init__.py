"""Braggscope: diffraction frames in, physical maps with honest error bars out.

    import braggscope

    m = braggscope.map(braggscope.open("scan.h5"), "likelihood")

Everything heavy is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from .app.training import Trained
    from .core.geometry import Geometry
    from .core.model import Model
    from .core.scan import Scan
    from .core.simulation import Simulation
    from .core.source import Source

__all__ = [
    "__version__", "analyse", "calibrate", "convert_model", "correct", "export", "load", "map", "open", "report", "save",
    "simulate", "train", "watch",
]  # fmt: skip


def open(path: str | Path, scan: str | None = None, *, detector: str | None = None, grid: tuple[int, int] | None = None) -> Scan:
    """A scan in a file or folder, lazily: its frames are read when they are needed.

    scan: Name of one of several scans in the file ("1.1").
    detector: Name of one of several image stacks.
    grid: Rows and columns of the raster, where the file is a plain stack of frames.

    Raises InputError, listing the candidates, where none or several would do.
    """
    from .core.source import open_scan

    return open_scan(path, scan, detector=detector, grid=grid)


def correct(
    scan: Scan,
    *corrections: str,
    dark: str | Path | np.ndarray | Scan | None = None,
    flat: str | Path | np.ndarray | Scan | None = None,
    modality: str | None = None,
) -> Scan:
    """The scan with its frames and motor positions put right as they are read; the provenance of a map says how.

    corrections: Of the modality, found in the scan itself, as name or "name:option=value,option=value": "hot-pixels", "photons",
        "shift", "motor-drift" for dfxm.
    dark, flat: Image without beam and of even light: a file, a scan (the mean of its frames) or an array of the recorded frame.
    modality: Name of the microscopy, where the scan does not say it.

    A region of interest and binning may come before or after. Raises InputError where a correction cannot be made.
    """
    from .app.correcting import correct as corrected

    return corrected(scan, corrections, dark=dark, flat=flat, kind=modality)


def map(
    source: Source | str | Path,
    method: str | Path | Model | Trained | None = None,
    *,
    modality: str | None = None,
    geometry: Geometry | Mapping[str, Any] | str | Path | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "cpu",
    workers: int | None = None,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """The map of a source: each quantity, its standard deviation where the method is calibrated, flags and provenance.

    source: A scan from `open`, a simulation, or the path of a scan file. `scan.cut` and `scan.bin` give parts of its frames.
    method: Name of the method, what `train` gave, a model or the file of one; by default the method that the modality recommends.
    modality: Name of the microscopy, where neither the source nor the geometry says it.
    geometry: A Geometry, its values, or a TOML file; by default what the source says.
    output: Map file to write, with checkpoints on the way.
    overwrite, resume: What to do where the output exists: replace it, or finish what an interrupted run left.
    device: "cpu" or "cuda", where the method can.
    workers: Computing threads; by default all cores.
    progress: Whether to show a progress bar.
    options: Of the method (`braggscope info --method NAME` lists them).

    Raises InputError where the input, an option or the output file is wrong.
    """
    from .app.mapping import map_source

    if isinstance(source, str | Path):
        source = open(source)
    return map_source(
        source, method, modality=modality, geometry=geometry, output=output, overwrite=overwrite, resume=resume, device=device,
        workers=workers, progress=progress, options=options,
    )  # fmt: skip


def analyse(
    modality: str,
    name: str,
    *inputs: Scan | xr.Dataset | str | Path,
    geometry: Geometry | Mapping[str, Any] | str | Path | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Any:
    """What an analysis makes of scans or maps: a map, a table, or (where it writes a file of another kind) what it has to say.

    name: Of the analysis, such as "kam" (`braggscope dfxm --help` lists them).
    inputs: Scans or maps, or their files, as the analysis takes them.
    geometry: As for `map`, where the analysis needs one; by default what scan or map say.
    output: File to write.
    options: Of the analysis (`braggscope dfxm kam --help` lists them).

    Raises InputError where an input or an option is wrong.
    """
    from .app.analysing import analyse as analysed

    return analysed(modality, name, *inputs, geometry=geometry, output=output, overwrite=overwrite, options=options)


def simulate(
    modality: str,
    phantom: str | None = None,
    *,
    geometry: Geometry | Mapping[str, Any] | str | Path | None = None,
    output: str | Path | None = None,
    layout: str = "nexus",
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> Simulation:
    """A simulated scan of a phantom, a source like a measured one; its `truth` is what a map of it should say.

    phantom: Name of the phantom; by default the first of the modality.
    geometry: As for `map`; by default that of a published experiment.
    output: Scan file to write.
    layout: Of that file: "nexus", or "id03", the BLISS tree of ESRF ID03 (dfxm).
    options: Of the phantom: shape, frame_shape, peak, seed, noise (None for noise-free frames) and its own.
    """
    from .app.simulating import simulate_scan

    return simulate_scan(
        modality, phantom, geometry=geometry, output=output, layout=layout, overwrite=overwrite, progress=progress,
        options=options,
    )  # fmt: skip


def train(
    *sources: Source | str | Path,
    method: str,
    modality: str | None = None,
    geometry: Geometry | Mapping[str, Any] | str | Path | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "cpu",
    devices: int = 1,
    nodes: int = 1,
    precision: str = "32",
    seed: int = 0,
    log: str = "csv",
    patience: int = 0,
    workers: int | None = None,
    progress: bool = True,
    **options: Any,
) -> Trained:
    """A method trained on sources, which `map` takes as a method: its `.model` and the `.history` of its losses.

    sources: As for `map`; none for a method that simulates its own frames.
    method: Name of a method that learns.
    modality, geometry, workers, progress: As for `map`.
    output: Model file to write; checkpoints and the log lie in a folder beside it.
    overwrite, resume: What to do where an earlier training is there: begin anew, or go on with it.
    device: "cpu" or "cuda"; devices and nodes, where there are several, are started by torchrun.
    precision: "32", or "bf16" where the device is faster with it.
    seed: Of the first weights, the order of frames and simulated noise.
    log: "csv" or "tensorboard".
    patience: Epochs without a better validation loss before it stops; 0: it does not.
    options: Of the method, those of training (`braggscope info --method NAME` lists them).

    Raises InputError where the input, an option or the output file is wrong.
    """
    from .app.training import train_model

    return train_model(
        [open(one) if isinstance(one, str | Path) else one for one in sources], method, modality=modality, geometry=geometry,
        options=options, output=output, overwrite=overwrite, resume=resume, device=device, devices=devices, nodes=nodes,
        precision=precision, seed=seed, log=log, patience=patience, workers=workers, progress=progress,
    )  # fmt: skip


def convert_model(
    method: str,
    weights: str | Path | Mapping[str, np.ndarray],
    *,
    geometry: Geometry | Mapping[str, Any] | str | Path,
    modality: str | None = None,
    prefix: str | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> Model:
    """The model of weights that were published as plain arrays.

    weights: Arrays by name, or the .npz file that holds them.
    geometry: That they were trained for, as for `map`.
    prefix: Begin of the arrays' names, where there are several networks.
    output: Model file to write.

    Raises InputError where arrays are missing, unexpected or of another shape.
    """
    from .app.models import convert_weights

    return convert_weights(
        method, weights, geometry=geometry, modality=modality, prefix=prefix, output=output, overwrite=overwrite
    )


def export(model: Model | Trained | str | Path, output: str | Path | None = None, *, overwrite: bool = False) -> Model:
    """A model with its network as an ONNX graph, which ONNX Runtime runs; `map` takes it as it takes the model itself.

    model: From `train` or `convert_model`, or the file of one.
    output: ONNX file to write.
    """
    from .app.models import export_model

    return export_model(model, output, overwrite=overwrite)


def calibrate(
    source: Scan,
    *,
    modality: str | None = None,
    geometry: Geometry | Mapping[str, Any] | str | Path | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool = True,
    **options: Any,
) -> Any:
    """The geometry that explains all frames of a scan together: `.geometry`, `.uncertainty` (by field) and `.summary`.

    geometry: Where to start, as for `map`.
    output: Geometry file (TOML) to write; measured images are written beside it.
    options: Of the modality's calibration, such as `free` (names of the fields to find) and `reference`.
    """
    from .app.calibrating import calibrate_scan

    return calibrate_scan(
        source, modality=modality, geometry=geometry, output=output, overwrite=overwrite, workers=workers, progress=progress,
        options=options,
    )  # fmt: skip


def watch(
    source: str,
    output: str | Path,
    *,
    method: str | Path | None = None,
    modality: str | None = None,
    geometry: Geometry | Mapping[str, Any] | str | Path | None = None,
    grid: tuple[int, int] | None = None,
    plan: str | Path | None = None,
    scans: int | None = 1,
    train: bool = False,
    train_options: Mapping[str, Any] | None = None,
    remap: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    keep_frames: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """Map scans while they run, in processes of their own; what became of the frames of each scan, with its map file as "output".

    source: URL, such as "zmq+json://127.0.0.1:9999" or "replay:scan.h5?rate=1000".
    output: Map file of the first scan; of further ones OUTPUT-2 and so on.
    method, modality, geometry: As for `map`.
    grid, plan: Rows and columns of the raster, or a scan file with the same grid, where the source does not say it.
    scans: How many scans; None: until it is interrupted.
    train: Whether the method's model is trained on the frames while they come, with train_options.
    remap: Whether points by its earlier versions are mapped again when there is time, and all of them when the scan is over.
    overwrite, resume: What to do where an earlier run is there: begin anew, or go on with it.
    keep_frames: Whether the folder with the recorded frames (OUTPUT.live) stays.
    options: Of the method.

    Raises InputError where source, method, an option or the output is wrong, BraggscopeError where a part fails for good.
    """
    from .app.live.starting import asked_for
    from .app.live.watching import watched

    asked = asked_for(
        source, output, method=method, modality=modality, geometry=geometry, options=options, grid=grid, plan=plan, scans=scans,
        train=train, train_options=train_options, remap=remap,
    )  # fmt: skip
    parts = ("trainer",) if train else ()
    return list(watched(asked, overwrite=overwrite, resume=resume, keep_frames=keep_frames, parts=parts))


def save(result: xr.Dataset | Model | Trained, path: str | Path, *, state: Mapping[str, np.ndarray] | None = None) -> None:
    """Write a map file (NeXus and netCDF-4 at once) or a model file (.safetensors; .onnx for a graph), whole or not at all.

    result: A map, or a model from `train`, `convert_model` or `export`.
    state: Of a map that is not finished.
    """
    from .app.models import save

    save(result, path, state)


def load(path: str | Path) -> xr.Dataset:
    """Read a map file into memory."""
    from .core.maps import load

    return load(path)


def report(
    maps: str | Path | list[str | Path],
    output: str | Path,
    *,
    scan: str | Path | list[str | Path] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one self-contained HTML page about one or several map files: pictures, numbers, flags and provenance.

    scan: The scan files that the maps were made from, for pictures that need frames.
    """
    from .app.report import write_report

    return write_report(maps if isinstance(maps, list) else [maps], output, scan=scan, overwrite=overwrite)


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("braggscope")
    raise AttributeError(f"module 'braggscope' has no attribute '{name}'")
