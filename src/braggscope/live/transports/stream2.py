"""`zmq+stream2://DCU:31001`: the Dectris stream2 interface (Stream V2, release 2022.1 and later).

Each ZeroMQ message is one CBOR map (RFC 8949) of type start, image or end; images are multi-dimensional typed arrays (RFC 8746,
tags 40 and 64 to 87), compressed as tag 56500 says (`_compressed`). The detector marks each message as CBOR (tag 55799), under
which cbor2 gives frozen maps and tuples. Images of another series than the one that began are refused.

The detector knows no scan grid: image_id counts in order of acquisition, and the plan comes from the user (`watch --grid`,
`--plan`). Of several thresholds one is taken (`channel=threshold_1`; by default the first). Masks and flat fields of the start
message are not applied.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..messages import LARGEST_FRAME, LONGEST_NAME, End, Frame, Message, Refused, Start, check_shape
from ..urls import Url
from ._compressed import compressed, decompressed
from ._zmq import PARAMETERS as ZMQ
from ._zmq import Pull, Push

SCHEMES = {"zmq+stream2": "Dectris stream2 (CBOR over ZeroMQ)"}
PARAMETERS = {
    **ZMQ,
    "channel": "name of the threshold; by default the first",
    "compression": "of the simulator: bslz4 (default), lz4 or none",
}
KNOWS_GRID = False  # the scan is not described: --grid or --plan does
PACKAGES: tuple[str, ...] = ("zmq", "cbor2")
ARRAY, COMPRESSED, MARKED = 40, 56500, 55799
MARK = b"\xd9\xd9\xf7"  # tag 55799
TYPED = {
    64: "u1",
    65: ">u2",
    66: ">u4",
    68: "u1",
    69: "<u2",
    70: "<u4",
    71: "<u8",
    72: "i1",
    77: "<i2",
    78: "<i4",
    81: ">f4",
    85: "<f4",
    86: "<f8",
}


class Stream2Receiver:
    """The receiving end."""

    announces = True  # images that are left over from an earlier series begin none
    repeats = False

    def __init__(self, url: Url) -> None:
        self._socket = Pull(url, LARGEST_FRAME)
        self._channel = url.parameters.get("channel")
        self._series: int | None = None  # that is under way

    def receive(self, timeout_s: float, most: int = 256) -> Sequence[Message]:
        """See `transports.Receiver`."""
        return [self._message(parts) for parts in self._socket.receive(timeout_s, most)]

    def _message(self, parts: Sequence[bytes]) -> Message:
        """The message of some parts, if it belongs to the series that is under way; the first one tells which that is."""
        if len(parts) != 1:
            return Refused("number of parts", f"one part was expected, {len(parts)} came")
        found, series = decoded(parts[0], self._channel)
        if isinstance(found, Refused):
            return found
        if isinstance(found, Start) or self._series is None:
            self._series = series
        elif series != self._series:
            return Refused("another series", f"a message of series {series} came in series {self._series}")
        if isinstance(found, End):
            self._series = None
        return found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def decoded(message: bytes, channel: str | None = None) -> tuple[Message, int]:
    """The message of some bytes, and the number of its series; Refused (of series -1) where they are none."""
    import cbor2

    try:
        content = cbor2.loads(message.removeprefix(MARK))
        kind = content.get("type") if isinstance(content, Mapping) else None
        if kind == "start":
            return _start(content), _whole(content["series_id"])
        if kind == "image":
            return _image(content, channel), _whole(content["series_id"])
        if kind == "end":
            return End(), _whole(content["series_id"])
        return Refused("unknown type", f"a message of type {_word(kind)[:40]!r} came"), -1
    except Exception as error:  # whatever a network sends, and whatever a library makes of it, must not end the scan
        said = f": {str(error)[:200]}" if isinstance(error, TypeError | ValueError) else ""
        return Refused("malformed", f"{type(error).__name__}{said}"), -1


def _whole(value: Any) -> int:
    """A whole number. Raises TypeError for anything else, so that nothing that CBOR can hold is turned into words: lists that
    share parts say a terabyte in a hundred bytes."""
    if type(value) is not int:
        raise TypeError(f"a whole number was expected, got {type(value).__name__}")
    return value


def _word(value: Any) -> str:
    """A text. Raises TypeError for anything else, as above."""
    if type(value) is not str:
        raise TypeError(f"a text was expected, got {type(value).__name__}")
    return value


def _start(content: Mapping[str, Any]) -> Start:
    shape = _whole(content["image_size_y"]), _whole(content["image_size_x"])
    plain = {
        name: content[name]
        for name in ("detector_description", "count_time", "frame_time", "incident_energy", "saturation_value", "series_id")
        if isinstance(content.get(name), str | int | float)
    }
    name = _word(content["series_unique_id"])[:LONGEST_NAME] if content.get("series_unique_id") else str(plain["series_id"])
    dtype = np.dtype(_word(content["image_dtype"])).str
    return Start(name, (), shape, dtype, _whole(content["number_of_images"]), metadata=plain)


def _image(content: Mapping[str, Any], channel: str | None) -> Frame:
    channels = content["data"]
    data = image(channels[next(iter(channels)) if channel is None else channel])
    return Frame(_whole(content["image_id"]), data, received=time.time())


def image(tag: Any) -> np.ndarray:
    """The array of a tag 40, shape (row, column). Raises ValueError and the like where it is none."""
    if tag.tag != ARRAY:
        raise ValueError(f"an image is tag {ARRAY}, got {tag.tag}")
    sides, typed = tag.value
    rows, columns = map(_whole, sides)
    dtype = np.dtype(TYPED[typed.tag])
    check_shape((rows, columns), dtype)
    size = rows * columns * dtype.itemsize
    content = typed.value
    if getattr(content, "tag", None) == COMPRESSED:
        algorithm, element, blob = content.value
        return decompressed(blob, _word(algorithm), _whole(element), (rows, columns), dtype)
    if type(content) is not bytes or len(content) != size:
        raise ValueError(f"{rows} x {columns} {dtype} needs {size} bytes")
    return np.frombuffer(content, dtype).reshape(rows, columns)


class Stream2Sender:
    """The detector's end: sends what a detector control unit would."""

    def __init__(self, url: Url) -> None:
        self._socket, self._series = Push(url), 0
        self._algorithm = url.parameters.get("compression", "bslz4")
        self._channel = url.parameters.get("channel", "threshold_1")

    def start(self, start: Start) -> None:
        """Arm."""
        assert start.frame_shape is not None and start.dtype is not None
        self._series += 1
        dtype = np.dtype(start.dtype)
        self._send({
            "type": "start", "series_id": self._series, "series_unique_id": start.scan, "channels": [self._channel],
            "image_dtype": dtype.name, "image_size_x": start.frame_shape[1], "image_size_y": start.frame_shape[0],
            "number_of_images": start.expected or start.points, "saturation_value": int(np.iinfo(dtype).max - 1),
            "detector_description": "simulated detector", "count_time": 1e-3, "frame_time": 1e-3,
        })  # fmt: skip

    def frame(self, frame: Frame) -> None:
        """An image; waits where the receiver is slow."""
        import cbor2

        data = np.ascontiguousarray(frame.data.astype(frame.data.dtype.newbyteorder("<")))
        tag = next(number for number, word in TYPED.items() if np.dtype(word) == data.dtype)
        content: Any = data.tobytes()
        if self._algorithm != "none":
            element = data.dtype.itemsize if self._algorithm == "bslz4" else 0
            content = cbor2.CBORTag(COMPRESSED, [self._algorithm, element, compressed(data, self._algorithm)])
        array = cbor2.CBORTag(ARRAY, [list(data.shape), cbor2.CBORTag(tag, content)])
        self._send({
            "type": "image", "series_id": self._series, "image_id": frame.number, "real_time": [999_995, 50_000_000],
            "user_data": [1, "any"], "data": {self._channel: array},
        })  # fmt: skip

    def end(self, end: End) -> None:
        """Disarm."""
        self._send({"type": "end", "series_id": self._series})

    def _send(self, content: dict[str, Any]) -> None:
        """Send a message, marked as the detector does."""
        import cbor2

        self._socket.send([cbor2.dumps(cbor2.CBORTag(MARKED, content))])

    def close(self) -> None:
        """Close the socket when all is sent."""
        self._socket.close()


def open(url: Url) -> Stream2Receiver:
    """The receiving end."""
    return Stream2Receiver(url)


def simulate(url: Url) -> Stream2Sender:
    """The detector's end."""
    return Stream2Sender(url)
