"""From a user's words to a run: what is wrong is said before anything is started."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.learned import Learned
from braggscope.core.modality import Modality, modalities
from braggscope.core.modality import modality as by_name
from braggscope.core.model import Model
from braggscope.core.scan import Axis, Scan
from braggscope.core.source import open_scan
from braggscope.live.buffer import POLICIES
from braggscope.live.messages import Start
from braggscope.live.playing import start_of
from braggscope.live.run_folder import start_document
from braggscope.live.transports import source_url, transports
from braggscope.live.urls import Url

from ..choosing import GeometryLike, choose_estimator, choose_geometry, choose_model, given_geometry, sole_modality
from ..provenance import command_line
from .asked import Asked


def asked_for(
    source: str,
    output: str | Path,
    *,
    method: str | Path | None = None,
    modality: str | None = None,
    geometry: GeometryLike = None,
    options: Mapping[str, Any] | None = None,
    grid: tuple[int, int] | None = None,
    plan: str | Path | None = None,
    scans: int | None = 1,
    train: bool = False,
    train_options: Mapping[str, Any] | None = None,
    rounds: int | None = None,
    remap: bool = False,
    first: int | None = None,
    roi: tuple[int, int, int, int] | None = None,
    binning: int = 1,
    saturation: float | None = None,
    dark: str | Path | None = None,
    flat: str | Path | None = None,
    correct: Sequence[str] = (),
    device: str = "cpu",
    patience_s: float = 2.0,
    buffer: str | None = None,
    timeout_s: float | None = None,
    workers: int = 1,
) -> Asked:
    """The run that is asked for, checked as far as it can be before the first frame. Raises InputError."""
    url = source_url(source)
    _check_numbers(scans, patience_s, timeout_s, first, saturation)
    if buffer is not None and buffer not in POLICIES:
        raise InputError(f"--buffer must be one of {', '.join(POLICIES)}, got '{buffer}'")
    if train_options and not train:
        raise InputError("--train-option is for --train; give that too")
    if remap and not train:
        raise InputError("--remap is for --train: without it there are no earlier models whose points could be mapped again")
    planned = _plan(grid, plan)
    known = start_of(open_scan(url.place, url.parameters.get("scan"))) if url.scheme == "replay" else planned
    stated = None if known is None else known.modality
    model = choose_model(method)
    kind = _modality(method, modality, geometry, model, stated)
    values = None
    if geometry is not None:
        if kind is None:
            raise InputError(
                f"the source does not say its modality yet; give one with --modality: {', '.join(sorted(modalities()))}"
            )
        values = given_geometry(kind, geometry).to_mapping()
    elif known is not None and known.geometry and kind is not None:
        values = _complete(kind, known.geometry)
    if kind is not None:
        chosen = None if values is None else kind.geometry_class().from_mapping(values)
        name = None if model is not None else (None if method is None else str(method))
        trial = (
            choose_estimator(kind, chosen, name, dict(options or {}), device, model)
            if chosen is not None or model is None
            else None
        )
        if train and trial is not None and not isinstance(trial, Learned):
            raise InputError(f"method '{trial.name}' needs no training; leave --train out")
        if isinstance(trial, Learned) and trial.model is None and not train:
            raise InputError(
                f"method '{trial.name}' has no model; give the file of one with --method, or --train to train it on the way"
            )
    if not getattr(transports()[url.scheme], "KNOWS_GRID", True) and planned is None:
        raise InputError(f"source {url.scheme}: does not know the scan's grid; give it with --grid ROWS COLUMNS or --plan SCAN")
    if not getattr(transports()[url.scheme], "KNOWS_GRID", True) and planned is not None:
        _check_geometry(url, planned, kind, values, model)
    return Asked(
        source=source,
        output=str(output),
        plan=None if planned is None else start_document(planned),
        patience_s=patience_s,
        buffer=buffer,
        scans=scans,
        timeout_s=timeout_s,
        modality=modality or (None if kind is None else kind.name),
        method=None if method is None or model is not None else str(method),
        model=None if model is None else str(Path(str(method)).resolve()),
        geometry=values,
        options=dict(options or {}),
        roi=roi,
        binning=binning,
        saturation=saturation,
        dark=None if dark is None else str(Path(dark).resolve()),
        flat=None if flat is None else str(Path(flat).resolve()),
        correct=tuple(correct),
        first=first,
        train=train,
        train_options=dict(train_options or {}),
        rounds=rounds,
        remap=remap,
        device=device,
        workers=workers,
        command=command_line(),
    )


def _complete(kind: Any, stated: Mapping[str, Any]) -> dict[str, Any] | None:
    """The geometry that a scan states, where it states all of it; else the first frames and what comes with them decide."""
    try:
        geometry: dict[str, Any] = kind.geometry_class().from_mapping(stated).to_mapping()
    except InputError:
        return None
    return geometry


def _modality(method: Any, name: str | None, geometry: GeometryLike, model: Any, stated: str | None) -> Any:
    """The modality, as far as anybody says it now; None where only the source will."""
    if model is not None:
        return modalities()[model.modality]
    if name is None and geometry is None and stated is None and method is None:
        return None
    if name or stated:
        return by_name(name or str(stated))
    return sole_modality(str(method), None, geometry) if method is not None else sole_modality("", None, geometry)


def _plan(grid: tuple[int, int] | None, plan: str | Path | None) -> Start | None:
    """The scan as far as the user says it."""
    if grid is not None and plan is not None:
        raise InputError("--grid and --plan both say the grid; give one of them")
    if plan is not None:
        found = start_of(open_scan(plan))
        return dataclasses.replace(found, expected=None, frame_shape=None, dtype=None, metadata={})
    if grid is None:
        return None
    if min(grid) < 1:
        raise InputError(f"--grid must be rows and columns of at least 1, got {grid[0]} {grid[1]}")
    return Start("scan", tuple(Axis(n, np.arange(size, dtype=float), "") for n, size in zip("yx", grid, strict=True)))


def _check_geometry(
    url: Url, planned: Start, kind: Modality | None, values: Mapping[str, Any] | None, model: Model | None
) -> None:
    """Raise InputError where a source that says nothing of the scan leaves out what the method must know."""
    if kind is None:
        raise InputError(f"source {url.scheme}: does not know the modality; give --modality: {', '.join(sorted(modalities()))}")
    if values is None:
        empty = Scan(Path(f"source {url.scheme}:"), "", planned.axes, None, np.zeros(0, np.int64), modality=kind.name)
        choose_geometry(empty, kind, None, model)


def _check_numbers(
    scans: int | None, patience: float, timeout: float | None, first: int | None, saturation: float | None
) -> None:
    for name, value, low in (
        ("--scans", scans, 0),
        ("--timeout", timeout, 0.1),
        ("--first", first, 1),
        ("--saturation", saturation, 1e-9),
    ):
        if value is not None and not (math.isfinite(value) and value >= low):
            raise InputError(f"{name} must be at least {low:g}, got {value:g}")
    if not (math.isfinite(patience) and patience >= 0):
        raise InputError(f"--patience must be seconds, 0 or more, got {patience:g}")
