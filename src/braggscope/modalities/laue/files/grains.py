"""Indexed grains, as files of any program say them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from ..geometry import LaueGeometry
from .table import peak_table


@dataclass(frozen=True, eq=False)
class IndexedGrain:
    """A grain of a pattern.

    ub: UB with q = UB h, 1/angstrom, laboratory frame, shape (3, 3): orientation, strain and lattice in one.
    peaks: Its indexed peaks by column (`table.UNITS`), each of shape (peak,); h, k and l are among them.
    material: As the file calls it.
    mean_deviation_px, rms_deg: How far the peaks lie from where UB puts them, on average; None where the file does not say.
    strain: Deviatoric strain, crystal frame, shape (3, 3).
    facts: What else the file says, by name.
    """

    ub: np.ndarray
    peaks: dict[str, np.ndarray]
    material: str = ""
    mean_deviation_px: float | None = None
    rms_deg: float | None = None
    strain: np.ndarray | None = None
    geometry: LaueGeometry | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def hkl(self) -> np.ndarray:
        """Indices of the peaks, shape (peak, 3)."""
        return np.stack([self.peaks[name] for name in "hkl"], -1)

    def __len__(self) -> int:
        return len(self.peaks["h"])


def table_of(grains: Sequence[IndexedGrain]) -> xr.Dataset:
    """The peaks of all grains in one table; the column `grain` counts from 1."""
    shared = [name for name in grains[0].peaks if all(name in one.peaks for one in grains)]
    columns = {name: np.concatenate([one.peaks[name] for one in grains]) for name in shared}
    columns["grain"] = np.repeat(np.arange(1, len(grains) + 1), [len(one) for one in grains])
    attributes = {"material": grains[0].material} if grains[0].material else {}
    return peak_table(columns, grains[0].geometry, attributes)
