"""Messages that are none: random bytes, cut and changed good ones, wrong types, huge sizes, compressed data that lies."""

from __future__ import annotations

import json
import struct

import cbor2
import numpy as np

from braggscope.live.messages import Frame
from braggscope.live.transports import json_stream
from braggscope.live.transports._compressed import compressed

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
    way = int(random.integers(6))
    if way == 0:
        return random.bytes(int(random.integers(0, 300)))
    if way == 5:
        return image(blob=lying(random))
    if way == 1:
        return good[: int(random.integers(len(good)))]
    if way == 2:
        return changed(good, random)
    kind = str(random.choice(["start", "image", "end"]))
    said = {"type": kind, "series_id": 1, "image_id": 1, "data": WRONG[int(random.integers(len(WRONG)))]}
    if way == 3:
        return cbor2.dumps(said)
    wrong = WRONG[int(random.integers(len(WRONG)))]
    tags = cbor2.CBORTag(40, [[6, 8], cbor2.CBORTag(int(random.choice([64, 69, 85, 99])), wrong)])
    return cbor2.dumps({**said, "data": {"threshold_1": tags}})


def image(compressed=True, blob=None, algorithm="bslz4", number=3, series=1, data=GOOD.data):
    """An image message, good unless its compressed bytes are not; marked as CBOR like those of a detector."""
    content = data.tobytes()
    if compressed:
        content = cbor2.CBORTag(56500, [algorithm, 2, BLOBS[algorithm] if blob is None else blob])
    array = cbor2.CBORTag(40, [[6, 8], cbor2.CBORTag(69, content)])
    said = {"type": "image", "series_id": series, "image_id": number, "data": {"threshold_1": array}}
    return cbor2.dumps(cbor2.CBORTag(55799, said))


BLOBS = {algorithm: compressed(GOOD.data, algorithm) for algorithm in ("bslz4", "lz4")}


def lying(random, algorithm="bslz4"):
    """Compressed bytes whose framing promises what is not there: a huge frame, huge blocks, more or fewer bytes than follow."""
    blob = BLOBS[algorithm]
    size, block, length = struct.unpack(">QII", blob[:16])
    huge = int(random.choice([2**31 - 1, 2**32 - 1, 65_536, 1]))
    lies = [(huge, block, length), (size, huge, length), (size, block, huge), (huge, huge, huge)]
    head = struct.pack(">QII", *lies[int(random.integers(len(lies)))])
    return head + (blob[16:] if random.integers(2) else random.bytes(len(blob) - 16))


def laughs(levels=40):
    """CBOR whose type is a list of two of a list of two of ...: 300 bytes that say terabytes when they are written out."""
    share, again = b"\xd8\x1c", b"\xd8\x1d"  # tags 28 and 29
    lists = [share + cbor2.dumps(["a"])] + [share + b"\x82" + 2 * (again + cbor2.dumps(n)) for n in range(levels)]
    return b"\xa1" + cbor2.dumps("type") + bytes([0x98, len(lists)]) + b"".join(lists)


def bad_array(random):
    """What an NTNDArray may hold and is no frame."""
    data = GOOD.data.ravel()
    way = int(random.integers(6))
    sides = [8, 6]
    found = {"value": ("ushortValue", data), "uniqueId": 1, "codec": {"name": ""}}
    if way == 0:
        sides = random.integers(-5, 2**31 - 1, int(random.integers(1, 5))).tolist()
    elif way == 1:
        found["value"] = ("ushortValue", data[: int(random.integers(len(data)))])
    elif way == 2:
        found["codec"] = {"name": str(random.choice(["jpeg", "blosc", "zlib", "x" * 1000]))}
    elif way == 3:
        algorithm = str(random.choice(["bslz4", "lz4", "lz4hdf5"]))
        blob = np.frombuffer(random.bytes(int(random.integers(0, 200))), np.uint8)
        found |= {"codec": {"name": algorithm, "parameters": int(random.integers(-3, 14))}, "value": ("ubyteValue", blob)}
    elif way == 4:
        found["value"] = ("doubleValue", np.full(47, np.nan))
    else:
        sides = [int(random.choice([0, -1, 2**31 - 1])), 6]
    return {**found, "dimension": [{"size": n} for n in sides]}


def changed(message, random):
    """A message with some bytes changed."""
    found = bytearray(message)
    for place in random.integers(0, len(found), int(random.integers(1, 6))):
        found[place] = int(random.integers(256))
    return bytes(found)
