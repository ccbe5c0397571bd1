"""`pva://NAME`: frames of an EPICS areaDetector as NTNDArray over PV Access.

PV Access has no back-pressure: the server drops what a slow client does not take. So the callback does nothing but append to a
queue, the server is asked for a long queue of its own (4000 frames, pipelined), and `uniqueId`, which counts frames, shows what
is missing all the same. The attributes `position` and `monitor` of the array are used where they are sent. A channel NAME:scan
with a JSON text tells how a scan begins and ends; without it the plan comes from the user, and uniqueId of the first frame is
number 0. It has 32 bits, and begins again behind the largest. What the server sends on subscription is its last frame, of an
earlier scan: it is passed over where no start was sent.

Arrays that a codec plugin compressed by lz4 or bslz4 are decoded, other codecs are refused.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from braggscope.core.errors import InputError

from ..messages import End, Frame, Message, Refused, Start, check_shape, finite
from ..run_folder import start_document, start_from
from ..urls import Url
from ._compressed import compressed, decompressed, framed

SCHEMES = {"pva": "EPICS PV Access, NTNDArray"}
PARAMETERS = {
    "queue": "frames that the server is asked to hold (4000)",
    "address": "of the server, where a broadcast does not find it (as EPICS_PVA_ADDR_LIST)",
    "compression": "of the simulator: none (default), bslz4 or lz4",
}
PACKAGES: tuple[str, ...] = ("p4p",)
QUEUE = 4000
UNION = {
    "u1": "ubyteValue", "u2": "ushortValue", "u4": "uintValue", "u8": "ulongValue", "i1": "byteValue", "i2": "shortValue",
    "i4": "intValue", "i8": "longValue", "f4": "floatValue", "f8": "doubleValue",
}  # fmt: skip
SCALARS = {1: "i1", 2: "i2", 3: "i4", 4: "i8", 5: "u1", 6: "u2", 7: "u4", 8: "u8", 9: "f4", 10: "f8"}  # ScalarType of pvData
CODECS = {"lz4": "lz4", "lz4hdf5": "lz4", "bslz4": "bslz4"}  # of areaDetector, and by what they are decoded
LARGEST_TEXT = 64 * 2**20
CONNECT_S = 30.0  # of the simulator: how long it waits for a receiver


class PvaReceiver:
    """The receiving end."""

    policy = "spill"  # nothing holds the sender

    def __init__(self, url: Url) -> None:
        from p4p.client.thread import Context

        queue = int(url.number("queue", QUEUE, low=1, high=1e6))
        self._arrived: deque[tuple[str, Any, float]] = deque()
        self._signal = threading.Event()
        self._first: int | None = None
        self._fresh = False  # whether frames are new ones; the first that comes is what was there before
        self._restored = False
        address = url.parameters.get("address")
        conf = {"EPICS_PVA_ADDR_LIST": address, "EPICS_PVA_AUTO_ADDR_LIST": "NO"} if address else None
        self._context = Context("pva", conf=conf, useenv=True, nt=False)
        request = f"record[queueSize={queue},pipeline=true]"
        self._texts = self._context.monitor(f"{url.place}:scan", self._take("text"), request=request, notify_disconnect=False)
        self._frames = self._context.monitor(url.place, self._take("frame"), request=request, notify_disconnect=False)

    def _take(self, kind: str) -> Any:
        def callback(value: Any) -> None:
            if not isinstance(value, Exception):
                self._arrived.append((kind, value, time.time()))
                self._signal.set()

        return callback

    def receive(self, timeout_s: float, most: int = 256) -> Sequence[Message]:
        """See `transports.Receiver`."""
        if not self._arrived:
            self._signal.wait(timeout_s)
        self._signal.clear()
        found: list[Message] = []
        while self._arrived and len(found) < most:
            kind, value, at = self._arrived.popleft()
            if kind == "frame" and not self._fresh:
                self._fresh = True
                continue
            message = text(value) if kind == "text" else array(value, at, self._first)
            if isinstance(message, Start):
                self._fresh = True
                if not self._restored:  # else it is the start of the scan under way, sent again on subscription
                    self._first = None  # the next frame is number 0
                self._restored = False
            elif isinstance(message, Frame) and self._first is None:
                self._first = int(value["uniqueId"])
            if message is not None:
                found.append(message)
        return found

    @property
    def state(self) -> dict[str, int] | None:
        """What a receiver that is started again in this scan must know: uniqueId of frame 0."""
        first = self._first
        return None if first is None else {"first": first}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Count frames as the last receiver did; what was there before is then a frame of this scan."""
        self._first, self._restored, self._fresh = int(state["first"]), True, True

    def close(self) -> None:
        """Close the subscriptions."""
        self._frames.close()
        self._texts.close()
        self._context.close()


def array(value: Any, at: float, first: int | None) -> Message | None:
    """The frame of an NTNDArray; Refused where it is none; None for the empty array of a server that has just begun.

    first: uniqueId of frame 0; None: this is frame 0.
    """
    try:
        if not value.get("dimension"):
            return None
        columns, rows = (int(one["size"]) for one in value["dimension"])  # the first dimension is the fastest
        codec = str(value.get("codec.name") or "")
        if codec and codec not in CODECS:
            return Refused("compressed", f"the array is compressed by {codec[:20]}")
        data = _pixels(value, codec, (rows, columns))
        said = {str(one["name"]): one["value"] for one in value.get("attribute") or ()}
        number = 0 if first is None else (int(value["uniqueId"]) - first) % 2**32
        if number >= 2**31:
            return Refused("before the scan", f"frame {number - 2**32} came after frame 0")
        position = said.get("position")
        position = None if position is None else int(position)
        return Frame(number, data, position, finite(said.get("monitor")), finite(said.get("sent")), at)
    except Exception as error:  # whatever a network sends must not end the scan
        return Refused("malformed", f"{type(error).__name__}: {str(error)[:200]}")


def _pixels(value: Any, codec: str, shape: tuple[int, int]) -> np.ndarray:
    """The pixels of an NTNDArray. Raises ValueError and the like where there are more or fewer than the shape says."""
    data = np.asarray(value["value"])
    dtype = np.dtype(SCALARS[int(value["codec.parameters"])]) if codec else data.dtype
    check_shape(shape, dtype)
    if not codec:
        return data.reshape(shape)
    blob = data.tobytes() if codec == "lz4hdf5" else framed(data.tobytes(), codec, math.prod(shape) * dtype.itemsize)
    return decompressed(blob, CODECS[codec], dtype.itemsize, shape, dtype)


def text(value: Any) -> Message | None:
    """The start or end of a scan in a JSON text; Refused where it is neither; None for an empty one."""
    try:
        said = str(value["value"])
        if not said:
            return None
        if len(said) > LARGEST_TEXT:
            return Refused("long header", f"a text of {len(said)} characters came")
        content = json.loads(said)
        if content["type"] == "start":
            return start_from(content)
        if content["type"] == "end":
            return End(str(content.get("reason", "complete"))[:200])
        return Refused("unknown type", f"the text says {str(content['type'])[:40]!r}")
    except Exception as error:  # as above
        return Refused("malformed", f"{type(error).__name__}: {str(error)[:200]}")


class PvaSender:
    """The detector's end: a PVA server on the loopback address."""

    def __init__(self, url: Url) -> None:
        from p4p.nt import NTScalar
        from p4p.server import Server
        from p4p.server.thread import SharedPV

        self._type, self._codec = ndarray_type(), url.parameters.get("compression", "none")
        self._clients = threading.Semaphore(0)
        sender = self

        class Handler:
            def onFirstConnect(self, pv: Any) -> None:
                sender._clients.release()

        self._frames = SharedPV(handler=Handler(), initial=self._type())
        self._texts = SharedPV(nt=NTScalar("s"), initial="")
        try:
            self._server = Server(
                providers=[{url.place: self._frames, f"{url.place}:scan": self._texts}],
                conf={"EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO"},
                useenv=True,
            )
        except RuntimeError as error:
            raise InputError(f"{url} cannot be served ({error})") from None
        self._id = 0

    def start(self, start: Start) -> None:
        """Wait for a receiver, then say how the scan begins."""
        if not self._clients.acquire(timeout=CONNECT_S):
            raise InputError(f"nobody listened within {CONNECT_S:g} s; start `braggscope watch` first")
        time.sleep(0.2)  # the subscription is served a moment after the connection
        self._texts.post(json.dumps({"type": "start", **start_document(start)}))
        time.sleep(0.2)  # two channels have no order between them
        self._clients.release()
        self._base = self._id

    def frame(self, frame: Frame) -> None:
        """Post a frame."""
        rows, columns = frame.data.shape
        self._id = self._base + frame.number
        said = {"monitor": frame.monitor, "sent": frame.sent, "position": math.nan if frame.position is None else frame.position}
        attributes = [{"name": name, "value": float(value)} for name, value in said.items() if math.isfinite(value)]
        data = np.ascontiguousarray(frame.data)
        sizes = [{"size": n, "offset": 0, "fullSize": n, "binning": 1, "reverse": False} for n in (columns, rows)]
        value = {"value": (UNION[data.dtype.str[1:]], data.ravel()), **self._compressed(data)}
        self.post({**value, "uniqueId": self._id, "attribute": attributes, "dimension": sizes})

    def post(self, fields: dict[str, Any]) -> None:
        """Post the fields of an NTNDArray."""
        self._frames.post(self._type(fields))

    def _compressed(self, data: np.ndarray) -> dict[str, Any]:
        """What a codec plugin makes of the pixels: no framing, and their type in the parameters."""
        if self._codec == "none":
            return {"codec": {"name": ""}}  # said each time: what is left out keeps the value that it had
        blob = compressed(data, self._codec)[12 if self._codec == "bslz4" else 16 :]
        scalar = next(number for number, word in SCALARS.items() if word == data.dtype.str[1:])
        codec = {"name": self._codec, "parameters": scalar}
        return {"value": (UNION["u1"], np.frombuffer(blob, np.uint8)), "codec": codec, "uncompressedSize": data.nbytes}

    def end(self, end: End) -> None:
        """Say that it is over, when the frames are out."""
        time.sleep(0.5)
        self._texts.post(json.dumps({"type": "end", "reason": end.reason}))
        time.sleep(0.5)

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()


def ndarray_type() -> Any:
    """The structure of an NTNDArray (EPICS V4 normative types)."""
    from p4p.nt import NTNDArray

    return NTNDArray.buildType()


def open(url: Url) -> PvaReceiver:
    """The receiving end."""
    return PvaReceiver(url)


def simulate(url: Url) -> PvaSender:
    """The detector's end."""
    return PvaSender(url)
