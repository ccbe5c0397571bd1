"""Frames and curves, and what the model expects of them, at a point of a map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.modality import modality
from braggscope.core.scan import Scan


def modelled(attributes: Mapping[str, Any], values: Mapping[str, float], frame_shape: tuple[int, int]) -> np.ndarray:
    """Expected counts of the frame at a point with these values, shape (row, column).

    Raises InputError where the modality or the method has no model of a frame, or the point has no values.
    """
    kind = modality(str(attributes["modality"]))
    if not kind.frame_model:
        raise InputError(f"{kind.name} has no model of a frame")
    geometry = kind.geometry_class().from_mapping(json.loads(str(attributes["geometry"])))
    found = kind.load(kind.frame_model)(values, geometry, frame_shape)
    if found is None:
        raise InputError(f"the point has no values of '{attributes.get('method')}' from which its frame follows")
    return np.asarray(found, float)


def spots(attributes: Mapping[str, Any], values: Mapping[str, float], frame_shape: tuple[int, int]) -> list[dict[str, Any]]:
    """Where the model expects spots in the frame at a point: row, column, hkl. Raises InputError where there is no such model."""
    kind = modality(str(attributes["modality"]))
    if not kind.spot_model:
        raise InputError(f"{kind.name} has no model of spots")
    geometry = kind.geometry_class().from_mapping(json.loads(str(attributes["geometry"])))
    found: list[dict[str, Any]] = kind.load(kind.spot_model)(values, geometry, frame_shape)
    return found


def modelled_curve(
    attributes: Mapping[str, Any], values: Mapping[str, float], motors: Mapping[str, Mapping[str, Any]]
) -> list[float] | None:
    """Expected counts of a pixel over the scan, in the order of the grid; None where nothing is known of them.

    motors: "values" along each scan axis, by name.
    """
    kind = modality(str(attributes["modality"]))
    if not kind.curve_model:
        return None
    axes = {name: np.asarray(one["values"], float) for name, one in motors.items()}
    found = kind.load(kind.curve_model)(values, axes, json.loads(str(attributes["options"])))
    return None if found is None else [float(v) for v in np.ravel(found)]


def curve(scan: Scan, row: int, column: int) -> dict[str, Any]:
    """The counts of a detector pixel over the scan, in the order of the grid; NaN where there is no frame."""
    rows, columns = scan.frame_shape
    if not (0 <= row < rows and 0 <= column < columns):
        raise InputError(f"the frame has {rows} rows and {columns} columns, got {row}, {column}")
    counts = np.full(int(np.prod(scan.shape)), np.nan)
    if scan.binning == 1 and not scan.corrections:
        top, _, left, _ = scan.roi or (0, 0, 0, 0)
        assert scan.frames is not None
        where = slice(top + row, top + row + 1), slice(left + column, left + column + 1)
        counts[scan.order] = scan.frames.read(slice(0, len(scan.order)), *where)[:, 0, 0]
    else:
        for batch in scan.batches():
            counts[batch.index] = batch.frames[:, row, column]
    motors = {axis.name: {"values": np.asarray(axis.values, float).tolist(), "unit": axis.unit} for axis in scan.axes}
    return {"motors": motors, "shape": list(scan.shape), "counts": [None if np.isnan(c) else float(c) for c in counts]}
