"""Playing a scan as a detector would: at a rate, with losses, out of order, with duplicates; what is left out is known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from .messages import End, Frame, Start

if TYPE_CHECKING:
    from .transports import Sender
    from .urls import Url

REACH = 20  # places by which a frame that is out of order is moved, at most
CHUNK, CHUNK_BYTES = 256, 64 * 2**20  # frames read at once, at most, and their bytes
PARAMETERS = {
    "rate": "frames per second; 0: as fast as they are taken",
    "lose": "share of frames that never come",
    "shuffle": "share of frames that come out of order",
    "duplicate": "share of frames that come twice",
    "seed": "of what is lost, out of order and twice",
}


@dataclass(frozen=True)
class Schedule:
    """What is sent when.

    rate: Frames per second; 0: as fast as they are taken.
    lose, shuffle, duplicate: Shares of frames, 0 to 1.
    """

    rate: float = 0.0
    lose: float = 0.0
    shuffle: float = 0.0
    duplicate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("lose", "shuffle", "duplicate"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be a share between 0 and 1, got {getattr(self, name):g}")
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise InputError(f"rate must be a number of frames per second, 0 or more, got {self.rate:g}")

    @classmethod
    def of(cls, url: Url) -> Schedule:
        """The schedule that the parameters of a URL ask for."""
        shares = {name: url.number(name, 0.0, low=0.0, high=1.0) for name in ("lose", "shuffle", "duplicate")}
        seed = int(url.number("seed", 0, low=0, high=2**31))
        return cls(url.number("rate", 0.0, low=0.0, high=1e7), seed=seed, **shares)

    def numbers(self, count: int) -> np.ndarray:
        """Frame numbers in the order in which they are sent: lost ones left out, duplicates twice, some out of order."""
        random = np.random.default_rng(self.seed)
        sent = np.flatnonzero(random.random(count) >= self.lose)
        again = sent[random.random(len(sent)) < self.duplicate]
        sent = np.sort(np.concatenate([sent, again]))
        moved = random.random(len(sent)) < self.shuffle
        place = np.arange(len(sent)) + np.where(moved, random.integers(1, REACH + 1, len(sent)) + 0.5, 0.0)
        return sent[np.argsort(place, kind="stable")]

    def lost(self, count: int) -> np.ndarray:
        """Frame numbers that never come."""
        return np.setdiff1d(np.arange(count), self.numbers(count))


def start_of(scan: Scan) -> Start:
    """How a scan begins, as a detector with the whole plan would say it."""
    assert scan.frames is not None
    geometry = dict(scan.geometry_values) or (scan.geometry.to_mapping() if scan.geometry is not None else None)
    count = min(scan.frames.shape[0], len(scan.order))
    rows, columns = scan.frames.shape[1:]
    plain = {"title": scan.title, "detector": scan.detector}
    return Start(
        scan.name, scan.axes, (rows, columns), np.dtype(scan.frames.dtype).str, count, np.asarray(scan.order[:count]),
        scan.modality, geometry, plain,
    )  # fmt: skip


class Frames:
    """The frames of a scan by number, as recorded; neighbours are read together."""

    def __init__(self, scan: Scan) -> None:
        assert scan.frames is not None
        self.stack, self.scan = scan.frames, scan
        self.rows, self.columns = (slice(0, n) for n in scan.frames.shape[1:])
        self._chunks: dict[int, np.ndarray] = {}
        each = max(1, math.prod(self.stack.shape[1:]) * np.dtype(self.stack.dtype).itemsize)
        self._many = max(1, min(CHUNK, CHUNK_BYTES // each))

    def __getitem__(self, number: int) -> Frame:
        chunk, place = divmod(number, self._many)
        if chunk not in self._chunks:
            while len(self._chunks) > 2:  # frames out of order come from the chunk before or after
                self._chunks.pop(min(self._chunks, key=lambda one: -abs(one - chunk)))
            stop = min((chunk + 1) * self._many, self.stack.shape[0])
            self._chunks[chunk] = self.stack.read(slice(chunk * self._many, stop), self.rows, self.columns)
        monitor = math.nan if self.scan.monitor is None else float(self.scan.monitor[number])
        return Frame(number, self._chunks[chunk][place], int(self.scan.order[number]), monitor)


def due(numbers: np.ndarray, rate: float, stop: Callable[[], bool] = lambda: False) -> Iterator[np.ndarray]:
    """Groups of numbers, each when it is due; a group holds all that became due since the last one."""
    begin, sent = time.perf_counter(), 0
    while sent < len(numbers) and not stop():
        if rate <= 0:
            until = min(len(numbers), sent + 64)
        else:
            until = min(len(numbers), int((time.perf_counter() - begin) * rate) + 1)
            if until <= sent:
                time.sleep(min(0.05, max(1e-4, (sent + 0.5) / rate - (time.perf_counter() - begin))))
                continue
        yield numbers[sent:until]
        sent = until


def play(scan: Scan, sender: Sender, schedule: Schedule, stop: Callable[[], bool] = lambda: False) -> Iterator[int]:
    """Send a scan; how many frames were sent, after each group. Raises InputError where the scan has no frames."""
    if scan.frames is None:
        raise InputError(f"{scan.path} has no frames to play: {'; '.join(scan.missing)}")
    frames, start = Frames(scan), start_of(scan)
    sender.start(start)
    sent = 0
    for group in due(schedule.numbers(start.expected or 0), schedule.rate, stop):
        for number in group:
            one = frames[int(number)]
            sender.frame(Frame(one.number, one.data, one.position, one.monitor, time.time()))
        sent += len(group)
        yield sent
    sender.end(End("interrupted" if stop() else "complete"))
