"""What comes from a transport: the start of a scan, its frames, what the transport knows it lost, the end.

Messages are checked where they are made (`Start`, `Frame` raise ValueError) and again against the scan where they are recorded
(`receiving`), so that nothing from a network is trusted by what follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from braggscope.core.scan import Axis

LARGEST_FRAME = 512 * 2**20  # bytes; twice the largest detector of today (Eiger2 16M, 32 bit: 72 MB), with room
LARGEST_SCAN = 5 * 10**7  # positions: 14 hours at 1 kHz; the ledger takes 12 bytes of memory for each while it counts
LARGEST_NUMBER = 2**62  # of a frame; detectors count on over months
LONGEST_NAME = 200  # characters
MOST_AXES = 8
KINDS = "uif"  # of numbers that a frame may hold


@dataclass(frozen=True)
class Start:
    """A scan begins.

    scan: Its name.
    axes: Scan axes, slowest first; empty where the transport does not know them.
    frame_shape, dtype: Of every frame, or None where only the first frame tells.
    expected: Frames that are planned; None: one for each position of the grid.
    order: Flat grid position of each frame number, for transports whose frames carry a number alone; None: number = position.
    modality, geometry: What the sender says, the geometry as plain values.
    metadata: Further plain values: exposure time, title.
    """

    scan: str
    axes: tuple[Axis, ...] = ()
    frame_shape: tuple[int, int] | None = None
    dtype: str | None = None
    expected: int | None = None
    order: np.ndarray | None = None
    modality: str | None = None
    geometry: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.axes) > MOST_AXES or self.points > LARGEST_SCAN:
            raise ValueError(f"a scan has at most {MOST_AXES} axes and {LARGEST_SCAN} positions")
        _check_names(self.scan, [axis.name for axis in self.axes])
        if any(len(axis) < 1 or not np.isfinite(axis.values).all() for axis in self.axes):
            raise ValueError("every scan axis needs at least one position, and finite ones")
        if self.dtype is not None and not is_count(np.dtype(self.dtype)):
            raise ValueError(f"frames must be numbers of at most 64 bits, got {self.dtype}")
        if self.frame_shape is not None:
            check_shape(self.frame_shape, np.dtype(self.dtype or "u1"))
        if self.expected is not None and not 0 <= self.expected <= LARGEST_SCAN:
            raise ValueError(f"a scan has 0 to {LARGEST_SCAN} frames, got {self.expected}")
        if (
            self.order is not None
            and self.axes
            and len(self.order)
            and not 0 <= self.order.min() <= self.order.max() < self.points
        ):
            raise ValueError(f"the order of the frames must name positions between 0 and {self.points - 1}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each scan axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def planned(self) -> np.ndarray | None:
        """Booleans over flat positions: where a frame is expected; None: everywhere."""
        if self.order is not None and len(self.order) < self.points:
            planned = np.zeros(self.points, bool)
            planned[self.order] = True
            return planned
        if self.order is None and self.expected is not None and self.expected < self.points:
            return np.arange(self.points) < self.expected
        return None

    @property
    def points(self) -> int:
        """Positions of the grid."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Frame:
    """A frame.

    number: Its place in the order of acquisition, from 0.
    data: Counts, shape (row, column).
    position: Flat grid position where the sender says it; None: `Start.order` tells.
    monitor: Incident flux in any constant unit; NaN where not sent.
    sent, received: Unix time at the sender (NaN where not sent) and here, seconds.
    """

    number: int
    data: np.ndarray
    position: int | None = None
    monitor: float = math.nan
    sent: float = math.nan
    received: float = math.nan

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or not is_count(self.data.dtype):
            raise ValueError(f"a frame needs numbers over (row, column), got {self.data.dtype} {self.data.shape}")
        if not 0 <= self.number < LARGEST_NUMBER:
            raise ValueError(f"a frame number must be between 0 and {LARGEST_NUMBER}, got {self.number}")


@dataclass(frozen=True)
class Gap:
    """Frames that are known to be lost: their numbers, and why, in two or three words.

    positions: Flat grid positions where the sender said them; else the order of the scan tells.
    """

    numbers: range
    reason: str
    positions: tuple[int, ...] = ()


@dataclass(frozen=True)
class End:
    """The scan is over. reason: "complete", or why it is not."""

    reason: str = "complete"


@dataclass(frozen=True)
class Refused:
    """A message that is none. kind: Two or three words, by which refusals are counted; detail: a sentence."""

    kind: str
    detail: str = ""


Message = Start | Frame | Gap | End | Refused


def check_shape(shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """Raise ValueError where a frame of this shape is empty or too large to be believed."""
    if len(shape) != 2 or min(shape) < 1 or math.prod(shape) * dtype.itemsize > LARGEST_FRAME:
        raise ValueError(f"a frame needs rows and columns and at most {LARGEST_FRAME >> 20} MB, got {shape} {dtype}")


def finite(value: Any) -> float:
    """A number that a sender may leave out, else NaN. Raises TypeError or ValueError where it is no number."""
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else math.nan


def is_count(dtype: np.dtype[Any]) -> bool:
    """Whether pixels may be of this type."""
    return dtype.kind in KINDS and dtype.itemsize <= 8


def _check_names(scan: str, axes: list[str]) -> None:
    """Raise ValueError where names cannot be those of a scan and of a map's dimensions."""
    for name in (scan, *axes):
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise ValueError(f"names of scans and axes are at most {LONGEST_NAME} printable characters, got {name[:40]!r}")
    if len(set(axes)) < len(axes) or any(not name or "/" in name for name in axes):
        raise ValueError(f"scan axes need names, each its own and without '/', got {', '.join(map(repr, axes))}")
