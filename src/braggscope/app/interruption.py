"""Ctrl-C and SIGTERM that wait for a good moment."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interruption:
    """While this context is entered, Ctrl-C and SIGTERM raise KeyboardInterrupt; but not while `held` is True.

    Then the first one only sets `asked`, so that work which must not be cut in two can be ended between its steps. A second
    one raises KeyboardInterrupt all the same. Outside the main thread, where Python delivers no signals, nothing is changed.

    aloud: Whether to say on standard error that the first one was heard.
    """

    def __init__(self, *, aloud: bool = False) -> None:
        self.aloud = aloud
        self.held = False
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self.held or self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self.aloud:
            os.write(2, b"\nstopping after this batch (Ctrl-C again: at once)\n")  # print is not safe in a signal handler
