"""`replay:FILE?rate=1000&lose=0.05`: a scan file played by this process, for trying things out and for tests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.source import open_scan

from ..messages import End, Frame, Message
from ..playing import PARAMETERS as SCHEDULE
from ..playing import Frames, Schedule, due, start_of
from ..urls import Url

SCHEMES = {"replay": "a scan file, played at a rate, with losses if asked for"}
PARAMETERS = {**SCHEDULE, "scan": "one of several scans in the file"}
PACKAGES: tuple[str, ...] = ()


class Replay:
    """The receiving end of a scan file."""

    def __init__(self, url: Url) -> None:
        scan = open_scan(url.place, url.parameters.get("scan"))
        if scan.frames is None or not len(scan.order):
            raise InputError(f"{url.place} has no frames to replay")
        self._schedule, self._start = Schedule.of(url), start_of(scan)
        self._frames, self._state = Frames(scan), "new"
        self._groups: Any = None
        self._waiting: list[int] = []

    def skip(self, positions: np.ndarray) -> None:
        """Leave out frames at these flat positions, which were recorded before a restart."""
        self._known = set(positions.tolist())

    def receive(self, timeout_s: float, most: int = 256) -> Sequence[Message]:
        """See `transports.Receiver`."""
        if self._state == "new":
            self._state = "started"
            return [self._start]
        if self._state == "ended":
            time.sleep(timeout_s)
            return []
        if self._groups is None:
            order = self._start.order
            assert order is not None
            numbers = self._schedule.numbers(len(order))
            known: set[int] = getattr(self, "_known", set())
            numbers = numbers[~np.isin(order[numbers], list(known))] if known else numbers
            self._groups = due(numbers, self._schedule.rate)
        if not self._waiting:
            group = next(self._groups, None)
            if group is None:
                self._state = "ended"
                return [End()]
            self._waiting = group.tolist()
        now, self._waiting = self._waiting[:most], self._waiting[most:]
        return [self._stamped(number) for number in now]

    def _stamped(self, number: int) -> Frame:
        frame, at = self._frames[number], time.time()
        return Frame(number, frame.data, frame.position, frame.monitor, at, at)

    def close(self) -> None:
        """Nothing is held open."""


def open(url: Url) -> Replay:
    """The receiving end."""
    return Replay(url)
