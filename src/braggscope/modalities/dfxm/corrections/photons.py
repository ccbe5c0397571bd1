"""Counts as photons: the offset and the gain of the detector taken out, both found from the scatter of the scan's own counts.

The gain is the slope of the variance of a count with its mean (photon transfer, ../photon_transfer.py); the offset is the darkest
common level of the region of interest. Afterwards a count is (count - offset) / gain: 0 on average without light, of gain 1,
and negative half of the time where it is dark. Nothing is clipped.
"""

from __future__ import annotations

import math
from typing import Annotated

from braggscope.core.analysis import Says
from braggscope.core.corrections import Scaled, corrected, raw
from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from ._noise import scan_noise

ORDER = 20


def photons(
    scan: Scan,
    *,
    gain: Annotated[float | None, Says("detector units per photon; by default found from the scan", unit="count")] = None,
    offset: Annotated[float | None, Says("detector units without light; by default found from the scan", unit="count")] = None,
) -> Scan:
    """Turn counts into photons by the detector's gain and offset, found by photon transfer."""
    if gain is not None and not (math.isfinite(gain) and gain > 0):
        raise InputError(f"gain must be a positive number of detector units per photon, got {gain:g}")
    if offset is not None and not math.isfinite(offset):
        raise InputError(f"offset must be a number of detector units, got {offset:g}")
    record: dict[str, object] = {"name": "photons", "options": {"gain": gain, "offset": offset}}
    if gain is None or offset is None:
        noise = scan_noise(scan)
        if gain is None and not math.isfinite(noise.gain):
            raise InputError(
                "the gain does not stand out from the scatter of this scan's counts (that takes seven points along the fast "
                "motor and peaks wider than two steps); give it as photons:gain=VALUE"
            )
        if gain is None:
            record["gain_std"] = noise.gain_std
        gain, offset = gain if gain is not None else noise.gain, offset if offset is not None else noise.level
    record |= {"gain": gain, "offset": offset}
    return corrected(scan, record, frames=Scaled(raw(scan), offset, gain))
