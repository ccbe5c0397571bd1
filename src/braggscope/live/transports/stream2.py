"""`zmq+stream2://DCU:31001`: the Dectris stream2 interface (Stream V2, release 2022.1 and later).

Each ZeroMQ message is one CBOR map (RFC 8949) of type start, image or end; images are multi-dimensional typed arrays (RFC 8746,
tags 40 and 64 to 87), compressed as tag 56500 says, in the framing of the HDF5 filters. They are decoded by these filters
themselves: the bytes are put into a dataset in memory as a chunk and read back (hdf5plugin), so that no compiled extra is
needed.

The detector knows no scan grid: image_id counts in order of acquisition, and the plan comes from the user (`watch --grid`,
`--plan`). Of several thresholds one is taken (`channel=threshold_1`; by default the first). Masks and flat fields of the start
message are not applied.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..messages import LARGEST_FRAME, End, Frame, Message, Refused, Start, check_shape
from ..urls import Url
from ._zmq import Pull, Push

SCHEMES = {"zmq+stream2": "Dectris stream2 (CBOR over ZeroMQ)"}
PARAMETERS = {
    "bind": "1: listen at the address instead of connecting to it",
    "channel": "name of the threshold; by default the first",
    "compression": "of the simulator: bslz4 (default), lz4 or none",
}
PACKAGES: tuple[str, ...] = ("zmq", "cbor2")
ARRAY, COMPRESSED = 40, 56500
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
ALGORITHMS = ("bslz4", "lz4")
LARGEST_RATIO = 100_000  # of a compressed frame; an empty frame of 16 million pixels is below it


class Stream2Receiver:
    """The receiving end."""

    def __init__(self, url: Url) -> None:
        self._socket = Pull(url, LARGEST_FRAME)
        self._channel = url.parameters.get("channel")
        self._began: dict[str, float] = {}

    def receive(self, timeout_s: float, most: int = 256) -> Sequence[Message]:
        """See `transports.Receiver`."""
        found: list[Message] = []
        for parts in self._socket.receive(timeout_s, most):
            found.append(
                decoded(parts[0], self._channel) if len(parts) == 1 else Refused("number of parts", f"{len(parts)} parts")
            )
        return found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def decoded(message: bytes, channel: str | None = None) -> Message:
    """The message of some bytes; Refused where they are none."""
    import cbor2

    try:
        content = cbor2.loads(message)
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "start":
            return _start(content)
        if kind == "image":
            return _image(content, channel)
        if kind == "end":
            return End()
        return Refused("unknown type", f"a message of type {str(kind)[:40]!r} came")
    except Exception as error:  # whatever a network sends, and whatever a library makes of it, must not end the scan
        return Refused("malformed", f"{type(error).__name__}: {str(error)[:200]}")


def _start(content: dict[str, Any]) -> Start:
    shape = int(content["image_size_y"]), int(content["image_size_x"])
    plain = {
        name: content[name]
        for name in ("detector_description", "count_time", "frame_time", "incident_energy", "saturation_value", "series_id")
        if isinstance(content.get(name), str | int | float)
    }
    name = str(content.get("series_unique_id") or content["series_id"])[:200]
    return Start(name, (), shape, np.dtype(str(content["image_dtype"])).str, int(content["number_of_images"]), metadata=plain)


def _image(content: dict[str, Any], channel: str | None) -> Frame:
    channels = content["data"]
    if channel is not None and channel not in channels:
        raise KeyError(f"no channel {channel}; there are {', '.join(map(str, channels))[:100]}")
    data = image(channels[next(iter(channels)) if channel is None else channel])
    return Frame(int(content["image_id"]), data, received=time.time())


def image(tag: Any) -> np.ndarray:
    """The array of a tag 40, shape (row, column). Raises ValueError and the like where it is none."""
    if tag.tag != ARRAY:
        raise ValueError(f"an image is tag {ARRAY}, got {tag.tag}")
    (rows, columns), typed = tag.value
    dtype = np.dtype(TYPED[typed.tag])
    check_shape((int(rows), int(columns)), dtype)
    size = int(rows) * int(columns) * dtype.itemsize
    content = typed.value
    if getattr(content, "tag", None) == COMPRESSED:
        algorithm, element, blob = content.value
        return decompressed(blob, str(algorithm), int(element), (int(rows), int(columns)), dtype)
    if not isinstance(content, bytes) or len(content) != size:
        raise ValueError(f"{rows} x {columns} {dtype} needs {size} bytes")
    return np.frombuffer(content, dtype).reshape(int(rows), int(columns))


def decompressed(blob: bytes, algorithm: str, element: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray:
    """A frame from its compressed bytes, through the HDF5 filter of the algorithm.

    Raises ValueError where the bytes say another size than the frame's, and where they cannot be decoded.
    """
    size = math.prod(shape) * dtype.itemsize
    if algorithm not in ALGORITHMS or len(blob) < 12 or len(blob) * LARGEST_RATIO < size:
        raise ValueError(f"compression must be one of {', '.join(ALGORITHMS)} with bytes, got {algorithm[:20]!r} and {len(blob)}")
    stated, block = struct.unpack(">QI", blob[:12])
    if stated != size or block > max(size, 8192) or (algorithm == "bslz4" and element != dtype.itemsize):
        raise ValueError(f"the compressed frame says {stated} bytes, {shape} {dtype} has {size}")
    chunk = _chunk(shape, dtype.str, algorithm)
    chunk.id.write_direct_chunk((0, 0), blob)
    return chunk[()]


@lru_cache(maxsize=8)
def _chunk(shape: tuple[int, int], dtype: str, algorithm: str) -> Any:
    """A dataset of one chunk in memory, through which frames of this kind are packed or unpacked; making it costs 1 ms.

    HDF5 takes two files of one name for the same, so that each has its own.
    """
    import h5py
    import hdf5plugin

    how = hdf5plugin.Bitshuffle(cname="lz4") if algorithm.startswith("bslz4") else hdf5plugin.LZ4()
    file = h5py.File(f"{shape} {dtype} {algorithm}", "w", driver="core", backing_store=False)
    return file.create_dataset("frame", shape, dtype, chunks=shape, **how)


def compressed(frame: np.ndarray, algorithm: str) -> bytes:
    """A frame compressed as a detector does."""
    chunk = _chunk(frame.shape, f"{frame.dtype.str}", f"{algorithm} out")
    chunk[...] = frame
    chunk.file.flush()
    return chunk.id.read_direct_chunk((0, 0))[1]


class Stream2Sender:
    """The detector's end: sends what a detector control unit would."""

    def __init__(self, url: Url) -> None:
        self._socket, self._series = Push(url), 0
        self._algorithm = url.parameters.get("compression", "bslz4")
        self._channel = url.parameters.get("channel", "threshold_1")

    def start(self, start: Start) -> None:
        """Arm."""
        import cbor2

        assert start.frame_shape is not None and start.dtype is not None
        self._series += 1
        dtype = np.dtype(start.dtype)
        self._socket.send([cbor2.dumps({
            "type": "start", "series_id": self._series, "series_unique_id": start.scan, "channels": [self._channel],
            "image_dtype": dtype.name, "image_size_x": start.frame_shape[1], "image_size_y": start.frame_shape[0],
            "number_of_images": start.expected or start.points, "saturation_value": int(np.iinfo(dtype).max - 1),
            "detector_description": "simulated detector", "count_time": 1e-3, "frame_time": 1e-3,
        })])  # fmt: skip

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
        self._socket.send([cbor2.dumps({
            "type": "image", "series_id": self._series, "image_id": frame.number, "data": {self._channel: array},
        })])  # fmt: skip

    def end(self, end: End) -> None:
        """Disarm."""
        import cbor2

        self._socket.send([cbor2.dumps({"type": "end", "series_id": self._series})])

    def close(self) -> None:
        """Close the socket when all is sent."""
        self._socket.close()


def open(url: Url) -> Stream2Receiver:
    """The receiving end."""
    return Stream2Receiver(url)


def simulate(url: Url) -> Stream2Sender:
    """The detector's end."""
    return Stream2Sender(url)
