"""Calibration of the instrument from a scan's own frames, by whatever the modality knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.modality import modalities
from braggscope.core.source import Source

from .choosing import GeometryLike, choose_geometry, choose_modality, located
from .output import check_output
from .progress import Show


def calibrate_scan(
    source: Source,
    *,
    modality: str | None = None,
    geometry: GeometryLike = None,
    options: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Any:
    """The geometry that explains a scan (see `braggscope.calibrate`). Raises InputError, with nothing written, for bad input."""
    inputs = (getattr(source, "path", None), geometry if isinstance(geometry, str | Path) else None)
    if output is not None:
        check_output(output, overwrite=overwrite, inputs=inputs)
        check_output(Path(output).with_suffix(".pupil.npz"), overwrite=overwrite, inputs=inputs)
    kind = choose_modality(source, modality, geometry)
    if kind.calibrate is None:
        able = ", ".join(sorted(name for name, one in modalities().items() if one.calibrate is not None))
        raise InputError(f"modality '{kind.name}' has nothing to calibrate; these have: {able or 'none'}")
    start = choose_geometry(source, kind, geometry)
    _set_workers(workers)
    with Show("calibrate", "step", progress) as show:
        found = kind.load(kind.calibrate)(located(source, start), start, progress=show, **(options or {}))
    if output is not None:
        try:
            found.save(output)
        except OSError as error:
            raise BraggscopeError(f"{output} cannot be written ({error.strerror}); nothing was written") from None
    return found


def calibration_rows(found: Any) -> list[dict[str, Any]]:
    """The fields that were found, each with value, standard deviation, unit and meaning."""
    fields = type(found.geometry).__dataclass_fields__
    return [
        {
            "field": name,
            "value": getattr(found.geometry, name),
            "std": float(std),
            "unit": fields[name].metadata.get("unit", ""),
            "doc": fields[name].metadata.get("doc", ""),
        }
        for name, std in found.uncertainty.items()
        if name in fields
    ]


def _set_workers(count: int | None) -> None:
    from braggscope.infer.runtime import set_workers

    set_workers(count)
