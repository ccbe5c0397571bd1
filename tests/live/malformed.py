"""Messages that are none: random bytes, cut and changed good ones, wrong types, huge sizes."""

from __future__ import annotations

import json

import cbor2
import numpy as np

from braggscope.live.messages import Frame
from braggscope.live.transports import json_stream, stream2

WRONG = [None, True, -1, 2**63, 1e308, "text", [], {}, [1, 2, 3], {"a": 1}, "<f8", [2**31, 2**31], ""]
GOOD = Frame(3, np.arange(48, dtype=np.uint16).reshape(6, 8), 3)


def bad_json(random):
    """The parts of a message of the JSON transport that is malformed in one of several ways."""
    header, data = json_stream.encoded(GOOD)
    way = int(random.integers(6))
    if way == 0:
        return [random.bytes(int(random.integers(0, 200))) for _ in range(int(random.integers(0, 4)))]
    if way == 1:
        return [header, data[: int(random.integers(len(data)))]]
    if way == 2:
        return [changed(header, random), data]
    if way == 3:
        said = json.loads(header)
        said[str(random.choice(list(said)))] = WRONG[int(random.integers(len(WRONG)))]
        return [json.dumps(said).encode(), data]
    if way == 4:
        said = json.loads(header)
        said.pop(str(random.choice(list(said))))
        return [json.dumps(said).encode(), data]
    said = {
        "type": str(random.choice(["start", "end", "frame", "stop"])),
        "axes": WRONG[int(random.integers(len(WRONG)))],
        "scan": "x",
    }
    return [json.dumps(said).encode()]


def bad_stream2(random):
    """A message of the stream2 transport that is malformed in one of several ways."""
    good = image(compressed=bool(random.integers(2)))
    way = int(random.integers(5))
    if way == 0:
        return random.bytes(int(random.integers(0, 300)))
    if way == 1:
        return good[: int(random.integers(len(good)))]
    if way == 2:
        return changed(good, random)
    said = {"type": str(random.choice(["start", "image", "end"])), "image_id": 1, "data": WRONG[int(random.integers(len(WRONG)))]}
    if way == 3:
        return cbor2.dumps(said)
    wrong = WRONG[int(random.integers(len(WRONG)))]
    tags = cbor2.CBORTag(40, [[6, 8], cbor2.CBORTag(int(random.choice([64, 69, 85, 99])), wrong)])
    return cbor2.dumps({**said, "data": {"threshold_1": tags}})


def image(compressed=True):
    """A good image message."""
    content = GOOD.data.tobytes()
    if compressed:
        content = cbor2.CBORTag(56500, ["bslz4", 2, stream2.compressed(GOOD.data, "bslz4")])
    array = cbor2.CBORTag(40, [[6, 8], cbor2.CBORTag(69, content)])
    return cbor2.dumps({"type": "image", "series_id": 1, "image_id": 3, "data": {"threshold_1": array}})


def changed(message, random):
    """A message with some bytes changed."""
    found = bytearray(message)
    for place in random.integers(0, len(found), int(random.integers(1, 6))):
        found[place] = int(random.integers(256))
    return bytes(found)
