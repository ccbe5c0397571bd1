"""What a user or the beamline asks of a run while it goes on, checked at the border.

paused          mapping waits; frames go on being recorded
region          [row0, row1, col0, col1] of the scan grid (ends not included): only these positions are mapped now; the others are
                recorded, and mapped when the region is lifted (null)
thresholds      {variable: [low, high]}, null for none: points beyond are counted and listed; map values stay
remap           points mapped by a model before this version are mapped again when there is nothing else to do
end_scan        number of the scan that is over now
stop            the run is over now
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from braggscope.core.errors import InputError

from .run_folder import RunFolder, write_json

NAMES = ("paused", "region", "thresholds", "remap", "end_scan", "stop")
MOST_THRESHOLDS = 64


def checked(document: Any) -> dict[str, Any]:
    """The document, if it asks only for what there is. Raises InputError, naming what is wrong."""
    if not isinstance(document, Mapping):
        raise InputError("control must be an object with names and values")
    for name in document:
        if name not in NAMES:
            raise InputError(f"control has no '{str(name)[:40]}'; it has: {', '.join(NAMES)}")
    for name in ("paused", "stop"):
        if not isinstance(document.get(name, False), bool):
            raise InputError(f"control {name} must be true or false")
    for name in ("remap", "end_scan"):
        value = document.get(name)
        if value is not None and not (_whole(value) and 0 <= value < 10**9):
            raise InputError(f"control {name} must be a whole number, 0 or more")
    _check_region(document.get("region"))
    _check_thresholds(document.get("thresholds"))
    return dict(document)


def ask(run: RunFolder, document: Any) -> dict[str, Any]:
    """Ask for this in addition to what is asked for already; what is asked for now. Raises InputError."""
    now = {**run.control, **checked(document)}
    write_json(run.path / "control.json", now)
    return now


def _check_region(region: Any) -> None:
    if region is None:
        return
    whole = isinstance(region, list | tuple) and len(region) == 4 and all(_whole(n) and 0 <= n < 10**9 for n in region)
    if not whole or region[0] >= region[1] or region[2] >= region[3]:
        raise InputError("control region must be [row0, row1, col0, col1] with row0 < row1 and col0 < col1, or null")


def _check_thresholds(thresholds: Any) -> None:
    if thresholds is None:
        return
    if not isinstance(thresholds, Mapping) or len(thresholds) > MOST_THRESHOLDS:
        raise InputError("control thresholds must be {variable: [low, high]}, or null")
    for name, limits in thresholds.items():
        right = isinstance(limits, list | tuple) and len(limits) == 2 and all(v is None or _number(v) for v in limits)
        if not isinstance(name, str) or not right:
            raise InputError(f"control thresholds of '{str(name)[:40]}' must be [low, high], numbers or null")
        if None not in limits and limits[0] > limits[1]:
            raise InputError(f"control thresholds of '{name[:40]}' must be [low, high], got low above high")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
