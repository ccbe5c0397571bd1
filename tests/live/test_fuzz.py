"""Malformed messages are refused with a counted kind; none crashes or blocks; well-formed ones between them are recorded."""

from __future__ import annotations

import json

import cbor2
import numpy as np
import pytest

from braggscope.live.messages import End, Frame, Refused, Start
from braggscope.live.playing import Frames, Schedule, play, start_of
from braggscope.live.run_folder import start_document
from braggscope.live.transports import json_stream, pva, sender, source_url, stream2
from braggscope.live.transports._compressed import compressed, decompressed
from braggscope.live.transports._zmq import Push

from .conftest import assert_right, free_port
from .malformed import BLOBS, GOOD, bad_array, bad_json, bad_stream2, image, laughs, lying

EACH = 500
BETWEEN = 3


def test_malformed_json_messages_are_refused():
    random = np.random.default_rng(1)
    found = [json_stream.decoded(bad_json(random)) for _ in range(EACH)]
    assert all(isinstance(one, Refused | Frame | Start | End) for one in found)
    assert sum(isinstance(one, Refused) for one in found) > 0.7 * EACH  # some changes leave a frame
    assert all(one.kind for one in found if isinstance(one, Refused))


def test_malformed_stream2_messages_are_refused():
    random = np.random.default_rng(2)
    found = [stream2.decoded(bad_stream2(random))[0] for _ in range(EACH)]
    assert all(isinstance(one, Refused | Frame | Start | End) for one in found)
    assert sum(isinstance(one, Refused) for one in found) > 0.7 * EACH


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"type": "frame", "number": 1, "shape": [1000000000, 1000000000], "dtype": "<f8"}',
        b'{"type": "frame", "number": 1, "shape": [-6, -8], "dtype": "<u2"}',
        b'{"type": "frame", "number": -1, "shape": [6, 8], "dtype": "<u2"}',
        b'{"type": "frame", "number": 1, "shape": [6, 8], "dtype": "O"}',
        b'{"type": "frame", "number": 1, "shape": [6, 8], "dtype": "V96"}',
        b'{"type": "frame", "number": 1.5, "shape": [6, 8], "dtype": "<u2"}',
        b'{"type": "frame", "number": true, "shape": [6, 8], "dtype": "S1000000000"}',
        b'{"type": "__import__"}',
        b"\xff\xfe",
        b"null",
    ],
)
def test_a_header_that_is_no_frame_is_refused(header):
    assert isinstance(json_stream.decoded([header, bytes(96)]), Refused)


def test_a_compressed_frame_that_claims_a_huge_size_is_refused_before_it_is_unpacked():
    import struct

    import cbor2

    bomb = struct.pack(">QI", 2**40, 8192) + b"x" * 100
    array = cbor2.CBORTag(40, [[2**20, 2**20], cbor2.CBORTag(69, cbor2.CBORTag(56500, ["bslz4", 2, bomb]))])
    message = cbor2.dumps({"type": "image", "series_id": 1, "image_id": 1, "data": {"threshold_1": array}})
    assert isinstance(stream2.decoded(message)[0], Refused)


def test_lists_that_share_their_parts_are_not_written_out():
    """300 bytes that would be terabytes as text."""
    assert stream2.decoded(laughs())[0].kind == "malformed"


@pytest.mark.parametrize("algorithm", ["bslz4", "lz4"])
def test_compressed_bytes_that_promise_more_than_they_hold_are_refused_before_a_filter_reads_them(algorithm):
    random = np.random.default_rng(5)
    for _ in range(EACH):
        with pytest.raises(ValueError, match="compressed frame"):
            decompressed(lying(random, algorithm), algorithm, 2, (6, 8), np.dtype("<u2"))
    assert np.array_equal(decompressed(BLOBS[algorithm], algorithm, 2, (6, 8), np.dtype("<u2")), GOOD.data)


STARTS = {
    "order beyond the grid": {"order": [10**6]},
    "order before the grid": {"order": [-(10**6)]},
    "a billion positions": {"axes": [{"name": name, "values": [0] * 31_623} for name in "yx"]},
    "an axis that is no number": {"axes": [{"name": "y", "values": [0, float("nan")]}]},
    "axes of one name": {"axes": [{"name": "y", "values": [0]}] * 2},
    "an axis that is a path": {"axes": [{"name": "../y", "values": [0]}]},
    "a scan that cannot be printed": {"scan": "\ud800"},
    "a geometry that is a number": {"geometry": 5},
    "a type that no detector has": {"dtype": "<f16"},
    "a frame of a terabyte": {"frame_shape": [2**20, 2**20]},
}


@pytest.mark.parametrize("wrong", STARTS.values(), ids=STARTS)
def test_a_start_that_cannot_be_recorded_is_refused(wrong, scan):
    good = {"type": "start", **start_document(start_of(scan)), "order": None}
    assert isinstance(json_stream.decoded([json.dumps(good).encode()]), Start)
    assert json_stream.decoded([json.dumps({**good, **wrong}).encode()]).kind == "malformed"


def only_bad(make, decode, random):
    """A malformed message; changes that leave a message are passed over."""
    while True:
        found = make(random)
        if isinstance(decode(found), Refused):
            return found


def json_messages(scan, random):
    """Start, every frame and end, malformed messages before each."""
    frames = Frames(scan)
    good = [[json.dumps({"type": "start", **start_document(start_of(scan))}).encode()]]
    good += [json_stream.encoded(frames[n]) for n in range(180)] + [[b'{"type": "end"}']]
    for message in good:
        for _ in range(BETWEEN):
            yield only_bad(bad_json, json_stream.decoded, random) or [b""]
        yield message


def stream2_messages(scan, random):
    """The same, as a detector that is no simulator would send it."""
    about = {"image_size_x": 8, "image_size_y": 6, "image_dtype": "uint16", "number_of_images": 180, "series_id": 1}
    good = [cbor2.dumps(cbor2.CBORTag(55799, {"type": "start", **about, "flatfield": {}, "user_data": None}))]
    frames = Frames(scan)
    good += [image(blob=compressed(frames[n].data, "bslz4"), number=n) for n in range(180)]
    for message in [*good, cbor2.dumps({"type": "end", "series_id": 1})]:
        for _ in range(BETWEEN):
            yield [only_bad(bad_stream2, lambda found: stream2.decoded(found)[0], random)]
        yield [message]


@pytest.mark.parametrize(("scheme", "messages"), [("zmq+json", json_messages), ("zmq+stream2", stream2_messages)])
def test_every_frame_between_malformed_messages_is_recorded(scheme, messages, scan, recorded, port):
    random = np.random.default_rng(7)

    def send():
        end = Push(source_url(f"{scheme}://127.0.0.1:{port}"))
        for message in messages(scan, random):
            end.send(message)
        end.close()

    counts = assert_right(recorded(f"{scheme}://127.0.0.1:{port}", send), Schedule())
    assert counts["refused"] == sum(counts["refused_by_kind"].values()) == BETWEEN * 181  # those before the start have no scan
    assert {"malformed", "unknown type"} <= set(counts["refused_by_kind"])


def test_images_of_another_series_are_refused(scan, recorded, port):
    url = f"zmq+stream2://127.0.0.1:{port}"

    def send():
        end = Push(source_url(url))
        for message in stream2_messages(scan, np.random.default_rng(8)):
            end.send([image(number=0, series=2)])
            end.send(message)
        end.close()

    counts = assert_right(recorded(url, send), Schedule())
    assert counts["refused_by_kind"]["another series"] == (BETWEEN + 1) * 181  # those before the start have no scan


def test_every_array_between_malformed_ones_is_recorded(scan, recorded):
    url = f"pva://BRAGGSCOPE:TEST{free_port()}?address=127.0.0.1"
    end, random = sender(source_url(url)), np.random.default_rng(9)

    def send():
        for _ in play(scan, end, Schedule(rate=500)):
            end.post(bad_array(random))
        end.close()

    counts = assert_right(recorded(url, send), Schedule())
    assert counts["refused"] > 40  # one after each group of frames that was due
    assert {"malformed", "compressed"} == set(counts["refused_by_kind"])


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"dimension": [{"size": 8}], "value": np.zeros(8), "uniqueId": 1},
        {"dimension": [{"size": 8}, {"size": -6}], "value": np.zeros(48), "uniqueId": 1},
        {"dimension": [{"size": 8}, {"size": 6}], "value": np.zeros(47), "uniqueId": 1},
        {"dimension": [{"size": 8}, {"size": 6}], "value": "text", "uniqueId": 1},
        {"dimension": [{"size": 8}, {"size": 6}], "value": np.zeros(48), "uniqueId": 1, "codec.name": "jpeg"},
        {"dimension": [{"size": 2**40}, {"size": 2**40}], "value": np.zeros(1), "uniqueId": 1},
    ],
)
def test_an_array_that_is_no_frame_is_refused(value):
    assert isinstance(pva.array(value, 0.0, None), Refused | None)


@pytest.mark.parametrize(
    "said", ["{", '"start"', '{"type": "go"}', '{"type": "start"}', "[" * 50_000, '{"type": "start", "axes": 3, "scan": 1}']
)
def test_a_text_that_is_no_start_is_refused(said):
    assert isinstance(pva.text({"value": said}), Refused)
