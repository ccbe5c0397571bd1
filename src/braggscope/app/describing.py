"""What a scan file, a map file, a table of another program, a model file, a method or a modality is, as plain values and as text.

This answers at once: neither torch nor xarray is imported for files.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import one_of
from braggscope.core.modality import Modality, modalities, modality
from braggscope.core.model import SUFFIXES, Model, load_model
from braggscope.core.scan import Axis, Scan
from braggscope.core.source import open_scans, readers


def describe_file(path: str | Path, *, detector: str | None = None, grid: tuple[int, int] | None = None) -> dict[str, Any]:
    """What a scan file, scan folder, map file, table or model file holds. Raises InputError where it is none of them."""
    if str(path).endswith(SUFFIXES):
        return describe_model(load_model(path))
    as_map = _map(Path(path))
    if as_map is not None:
        return as_map
    for kind in modalities().values():
        formats = kind.table_formats()
        if formats is not None and formats.matches(path):
            return _table(kind, path, formats.read(path))
    scans = open_scans(path, detector=detector, grid=grid)
    return {"file": str(path), "kind": "scans", "scans": [_scan(one) for one in scans]}


def describe_model(model: Model) -> dict[str, Any]:
    """What a model is, what it was trained for and how."""
    path = model.file.get("model_file", "")
    kind = modalities().get(model.modality)
    return {
        "file": path,
        "kind": "model",
        "modality": model.modality,
        "method": model.method,
        "known": kind is not None and model.method in kind.methods(),
        "format": "safetensors" if model.graph is None else "ONNX",
        "size": Path(path).stat().st_size if path else len(model.data()),
        "hash": model.file.get("model_hash") or model.digest(),
        "weights_hash": model.file.get("model_weights") or model.weights_hash(),
        "frame_shape": list(model.frame_shape),
        "weights": {name: list(value.shape) for name, value in model.weights.items()},
        "parameters": sum(int(value.size) for value in model.weights.values()) or None,
        "geometry": dict(model.geometry),
        "options": dict(model.options),
        "facts": dict(model.facts),
        "provenance": dict(model.provenance),
    }


def describe_method(name: str, only: str | None = None) -> dict[str, Any]:
    """A method's options with defaults, units and meaning, in every modality that has it (or only in one).

    Raises InputError, listing those there are, where none has it.
    """
    kinds = [modality(only)] if only else list(modalities().values())
    having = [kind for kind in kinds if name in kind.methods()]
    if not having:
        raise one_of("method", name, sorted({m for kind in kinds for m in kind.methods()}))
    return {"kind": "method", "method": name, "modalities": {kind.name: _method(kind, name) for kind in having}}


def describe_modality(name: str) -> dict[str, Any]:
    """A modality's methods, phantoms, views and the fields of its geometry."""
    kind = modality(name)
    fields = dataclasses.fields(kind.geometry_class())
    return {
        "kind": "modality",
        **_modality(kind),
        "geometry": [
            {
                "field": f.name,
                "unit": f.metadata.get("unit", ""),
                "low": f.metadata.get("low"),
                "high": f.metadata.get("high"),
                "default": None if f.default is dataclasses.MISSING else f.default,
                "required": f.default is dataclasses.MISSING,
                "doc": f.metadata.get("doc", ""),
            }
            for f in fields
        ],
    }


def describe_all() -> dict[str, Any]:
    """What there is: modalities with their methods and phantoms, and file formats."""
    kinds = {name: _modality(kind) for name, kind in sorted(modalities().items())}
    return {"kind": "program", "modalities": kinds, "formats": [reader.FORMAT for reader in readers()]}


def _modality(kind: Modality) -> dict[str, Any]:
    return {
        "modality": kind.name,
        "summary": kind.summary,
        "methods": kind.methods(),
        "default_method": kind.default_method,
        "phantoms": list(kind.phantoms),
        "views": list(kind.views),
        "calibrates": kind.calibrate is not None,
    }


def _method(kind: Modality, name: str) -> dict[str, Any]:
    from braggscope.core.learned import Learned

    cls = kind.estimator(name)
    fields = cls.declared()
    return {
        "learns": issubclass(cls, Learned),
        "summary": cls.summary,
        "calibrated": cls.calibrated,
        "uncalibrated_because": cls.uncalibrated_because,
        "per_frame": cls.per_frame,
        "devices": list(cls.devices),
        "options": [
            {
                "name": f.name,
                "default": f.default,
                "unit": f.metadata.get("unit", ""),
                "choices": list(f.metadata.get("choices", ())),
                "stage": f.metadata.get("stage") or "mapping",
                "doc": f.metadata.get("doc", ""),
            }
            for f in fields
        ],
    }


def _scan(scan: Scan) -> dict[str, Any]:
    frames = scan.frames
    return {
        "name": scan.name,
        "title": scan.title,
        "axes": [_axis(axis) for axis in scan.axes],
        "shape": list(scan.shape),
        "detector": scan.detector,
        "frames": None if frames is None else int(frames.shape[0]),
        "planned": math.prod(scan.shape) if scan.axes else None,
        "frame_shape": None if frames is None else [int(n) for n in frames.shape[1:]],
        "dtype": None if frames is None else str(frames.dtype),
        "saturation": scan.saturation,
        "monitor": scan.monitor is not None,
        "modality": scan.modality,
        "geometry": {name: _plain(value) for name, value in scan.geometry_values.items()},
        "metadata": {name: _plain(value) for name, value in _still(scan).items()},
        "missing": list(scan.missing),
    }


def _still(scan: Scan) -> dict[str, Any]:
    """The metadata of a scan, among the motors only those that stood still."""
    scanned = {axis.name for axis in scan.axes}
    motors = {name: value for name, value in scan.metadata.get("motors", {}).items() if name not in scanned}
    return {**scan.metadata, "motors": motors} if "motors" in scan.metadata else dict(scan.metadata)


def _axis(axis: Axis) -> dict[str, Any]:
    """Range and step of a motor; the step is the median one."""
    values = np.asarray(axis.values, np.float64)
    step = float(np.median(np.diff(values))) if len(values) > 1 else None
    ends = (float(values[0]), float(values[-1])) if len(values) else (None, None)
    return {"motor": axis.name, "unit": axis.unit, "first": ends[0], "last": ends[1], "points": len(values), "step": step}


def _table(kind: Modality, path: str | Path, table: Any) -> dict[str, Any]:
    """What a table of another program holds, as the modality reads it."""
    attrs = {str(name): _plain(value) for name, value in table.attrs.items()}
    stated = attrs.pop("geometry", None)
    return {
        "file": str(path),
        "kind": "table",
        "modality": kind.name,
        "shape": {str(name): int(size) for name, size in table["flag"].sizes.items()},
        "quantities": {
            str(name): {"unit": v.attrs["units"], "long_name": v.attrs["long_name"], "range": _range(v.values)}
            for name, v in table.data_vars.items()
            if name != "flag"
        },
        "geometry": json.loads(stated) if isinstance(stated, str) else stated,
        "metadata": attrs,
    }


def _range(values: np.ndarray) -> list[float] | None:
    finite = values[np.isfinite(values)]
    return [float(finite.min()), float(finite.max())] if finite.size else None


def is_map_file(path: str | Path) -> bool:
    """Whether there is a map file at this path."""
    return _map(Path(path)) is not None


def _map(path: Path) -> dict[str, Any] | None:
    """What a map file holds; None for any other file."""
    import h5py

    if not path.is_file():
        return None
    try:
        with h5py.File(path, "r") as file:
            data = file.get("entry/data")
            if not isinstance(data, h5py.Group) or "flag" not in data or "flag_meanings" not in data["flag"].attrs:
                return None
            return _map_content(path, data)
    except OSError:
        return None  # the readers of scans say what is wrong with it


def _map_content(path: Path, data: Any) -> dict[str, Any]:
    flag = data["flag"]
    values, words = flag[()], str(_plain(flag.attrs["flag_meanings"])).split()
    flags = {w: int((values & int(b) != 0).sum()) for b, w in zip(np.atleast_1d(flag.attrs["flag_masks"]), words, strict=True)}
    hidden = ("NX_class", "signal", "axes", "default")
    attrs = {name: _plain(value) for name, value in data.attrs.items() if name not in hidden and not name.startswith("_Nc")}
    for name in ("options", "geometry", "roi"):
        if isinstance(attrs.get(name), str):
            attrs[name] = json.loads(attrs[name])
    variables = [n for n, v in data.items() if "long_name" in v.attrs and n != "flag"]
    return {
        "file": str(path),
        "kind": "map",
        "complete": bool(attrs.pop("complete", 1)),
        "shape": dict(zip(_dimension_names(flag), flag.shape, strict=True)),
        "points": int(values.size),
        "good": int((values == 0).sum()),
        "flags": {word: count for word, count in flags.items() if count},
        "quantities": {
            name: {
                "unit": _plain(data[name].attrs.get("units", "")),
                "long_name": _plain(data[name].attrs["long_name"]),
                "has_std": f"{name}_std" in variables,
            }
            for name in variables
            if not (name.endswith("_std") and name.removesuffix("_std") in variables)
        },
        "provenance": attrs,
    }


def _dimension_names(variable: Any) -> list[str]:
    """Names of the dimensions of a netCDF variable: those of the dimension scales attached to it."""
    names = []
    for axis, scales in enumerate(variable.dims):
        names.append(Path(scales[0].name).name if len(scales) else f"axis{axis}")
    return names


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if hasattr(value, "tolist"):
        value = value.tolist()
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | list | dict | None) else str(value)
