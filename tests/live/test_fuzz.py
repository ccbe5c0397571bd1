"""Malformed messages are refused with a counted kind; none crashes or blocks; well-formed ones between them are recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest

from braggscope.live.messages import End, Frame, Refused, Start
from braggscope.live.playing import start_of
from braggscope.live.transports import json_stream, pva, stream2

from .malformed import bad_json, bad_stream2

EACH = 500


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


def test_what_is_well_formed_is_taken_after_what_is_not(run, scan):
    from braggscope.live.recording import Recorder

    recorder, random = Recorder(run), np.random.default_rng(3)
    recorder.record([start_of(scan)])
    for n in range(60):
        bad = json_stream.decoded(bad_json(random))
        good = json_stream.decoded(json_stream.encoded(Frame(n, np.full((6, 8), n, np.uint16), n)))
        recorder.record([bad if isinstance(bad, Refused) else Refused("other"), good])
    recorder.finish("complete")
    counts = json.loads((run.scans()[0].path / "ledger.json").read_text())
    assert (counts["received"], counts["refused"]) == (60, 60)


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
