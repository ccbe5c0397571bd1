"""What the server asks of a run or of a finished map; both answer in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr

from .shown import Shown

if TYPE_CHECKING:
    from braggscope.core.scan import Scan


class Missing(LookupError):
    """What is asked for is not there; the message says why."""


class Provider(Protocol):
    """A run or a map. `scan` is the number of a scan; None: the last one. Methods raise Missing where there is nothing."""

    live: bool

    def status(self, scan: int | None = None) -> dict[str, Any]:
        """Everything but the values."""

    def shown(self, scan: int | None = None) -> Shown:
        """The map so far."""

    def changes(self, since: int, scan: int | None = None) -> np.ndarray | None:
        """Flat positions that changed since `shown().count` was that; None: too many, or not known."""

    def history(self, variable: str, at: int, scan: int | None = None) -> np.ndarray:
        """A variable when only the first `at` results were there, flat."""

    def frame(self, position: int, scan: int | None = None) -> np.ndarray:
        """The recorded frame, as it was mapped, shape (row, column)."""

    def curve(self, row: int, column: int, scan: int | None = None) -> dict[str, Any]:
        """The counts of a detector pixel over the scan."""

    def ledger(self, scan: int | None = None) -> dict[str, Any]:
        """Counts, and "status" of each position as an array, with its "words"."""

    def drawn(self, scan: int | None = None) -> tuple[xr.Dataset, Scan | None]:
        """The map file's contents for the modality's views, and the scan where it is there."""

    def training(self) -> list[dict[str, Any]]:
        """A document for each version of the model."""

    def control(self, document: Any) -> dict[str, Any]:
        """Ask for something. Raises InputError, or Missing where nothing can be asked for."""
