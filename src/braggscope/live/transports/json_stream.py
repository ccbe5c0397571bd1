"""`zmq+json://127.0.0.1:9999`: ZeroMQ PUSH/PULL, a JSON header and the bytes of the frame as two parts of one message.

    {"type": "start", ...}                      the fields of `run_folder.start_document`
    {"type": "frame", "number": 7, "shape": [64, 64], "dtype": "<u2", "position": 12, "monitor": 1.0, "sent": 1700000000.0}, bytes
    {"type": "end", "reason": "complete"}

The easiest protocol for a detector of one's own: twenty lines in any language. The sender binds, the receiver connects (`bind=1`
turns it round). PUSH waits where the receiver is slow, so that nothing is lost. SUB is not offered: it loses frames in silence.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..messages import LARGEST_FRAME, End, Frame, Message, Refused, Start, check_shape, finite, is_count
from ..run_folder import start_document, start_from
from ..urls import Url
from ._zmq import PARAMETERS as PARAMETERS
from ._zmq import Pull, Push

SCHEMES = {"zmq+json": "ZeroMQ PUSH/PULL with a JSON header and the bytes of each frame"}
PACKAGES: tuple[str, ...] = ("zmq",)
LARGEST_HEADER = 64 * 2**20  # bytes; a start with the axes of the largest scan
FRAME_HEADER = 4096


class JsonReceiver:
    """The receiving end."""

    repeats = False

    def __init__(self, url: Url) -> None:
        self._socket = Pull(url, LARGEST_FRAME + LARGEST_HEADER)

    def receive(self, timeout_s: float, most: int = 256) -> Sequence[Message]:
        """See `transports.Receiver`."""
        return [decoded(parts) for parts in self._socket.receive(timeout_s, most)]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class JsonSender:
    """The detector's end."""

    def __init__(self, url: Url) -> None:
        self._socket = Push(url)

    def start(self, start: Start) -> None:
        """Send how the scan begins."""
        self._socket.send([json.dumps({"type": "start", **start_document(start)}).encode()])

    def frame(self, frame: Frame) -> None:
        """Send a frame; waits where the receiver is slow."""
        self._socket.send(encoded(frame))

    def end(self, end: End) -> None:
        """Send that it is over."""
        self._socket.send([json.dumps({"type": "end", "reason": end.reason}).encode()])

    def close(self) -> None:
        """Close the socket when all is sent."""
        self._socket.close()


def encoded(frame: Frame) -> list[bytes]:
    """A frame as the parts of a message."""
    header: dict[str, Any] = {
        "type": "frame",
        "number": frame.number,
        "shape": list(frame.data.shape),
        "dtype": frame.data.dtype.str,
    }
    for name in ("position", "monitor", "sent"):
        value = getattr(frame, name)
        if value is not None and math.isfinite(value):
            header[name] = value
    return [json.dumps(header).encode(), np.ascontiguousarray(frame.data).tobytes()]


def decoded(parts: Sequence[bytes]) -> Message:
    """The message of some parts; Refused where they are none."""
    now = time.time()
    try:
        if len(parts) not in (1, 2):
            return Refused("number of parts", f"one or two parts were expected, {len(parts)} came")
        if len(parts[0]) > (FRAME_HEADER if len(parts) == 2 else LARGEST_HEADER):
            return Refused("long header", f"a header of {len(parts[0])} bytes came")
        header = json.loads(parts[0])
        kind = header.get("type") if isinstance(header, dict) else None
        if kind == "start" and len(parts) == 1:
            return start_from(header)
        if kind == "end" and len(parts) == 1:
            return End(str(header.get("reason", "complete"))[:200])
        if kind == "frame" and len(parts) == 2:
            return _frame(header, parts[1], now)
        return Refused("unknown type", f"the header says {str(kind)[:40]!r}, in {len(parts)} parts")
    except Exception as error:  # whatever a network sends, and whatever a library makes of it, must not end the scan
        return Refused("malformed", f"{type(error).__name__}: {str(error)[:200]}")


def _frame(header: dict[str, Any], data: bytes, now: float) -> Frame:
    """The frame of a header and bytes. Raises ValueError and the like where they are none."""
    dtype, shape = np.dtype(str(header["dtype"])), tuple(header["shape"])
    if not is_count(dtype) or not all(type(n) is int for n in shape):
        raise ValueError(f"frames must be numbers over rows and columns, got {dtype} {shape}")
    check_shape(shape, dtype)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{shape} {dtype} needs {math.prod(shape) * dtype.itemsize} bytes, {len(data)} came")
    position, number = header.get("position"), header["number"]
    if type(number) is not int or not (position is None or type(position) is int):  # JSON's true is an int, too
        raise TypeError("number and position must be whole numbers")
    sent, monitor = finite(header.get("sent")), finite(header.get("monitor"))
    return Frame(number, np.frombuffer(data, dtype).reshape(shape), position, monitor, sent, now)


def open(url: Url) -> JsonReceiver:
    """The receiving end."""
    return JsonReceiver(url)


def simulate(url: Url) -> JsonSender:
    """The detector's end."""
    return JsonSender(url)
