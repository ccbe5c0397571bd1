"""Malformed messages, 10 000 for each network transport, through its socket to a receiver that records: each is refused with a
counted kind, none crashes or blocks, and every frame between them is recorded.

    python benchmarks/live_fuzz.py [--messages 10000] [--only zmq+json,zmq+stream2,pva]

A well-formed frame follows every tenth malformed message. Changes that happen to leave a message are passed over for ZeroMQ.
Longest: time that one message took to decode.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import cbor2
import numpy as np

from braggscope.core.scan import Axis
from braggscope.live.messages import End, Frame, Refused, Start
from braggscope.live.receiving import receive
from braggscope.live.run_folder import RunFolder, start_document
from braggscope.live.transports import json_stream, sender, source_url, stream2
from braggscope.live.transports._zmq import Push

MALFORMED = Path(__file__).parents[1] / "tests" / "live" / "malformed.py"
BETWEEN = 10  # malformed messages to one frame
SHAPE = (6, 8)


def malformed() -> ModuleType:
    spec = importlib.util.spec_from_file_location("malformed", MALFORMED)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def start_of(count: int) -> Start:
    return Start("fuzz", (Axis("y", np.arange(1.0)), Axis("x", np.arange(float(count)))), SHAPE, "<u2", count)


def refused(make: Callable[[Any], Any], decode: Callable[[Any], Any], random: Any, longest: list[float]) -> Any:
    """A malformed message that is refused, and how long that took."""
    while True:
        message = make(random)
        begin = time.perf_counter()
        found = decode(message)
        longest[0] = max(longest[0], time.perf_counter() - begin)
        if isinstance(found, Refused):
            return message


def send_json(url: str, count: int, bad: ModuleType, random: Any, longest: list[float]) -> Iterator[None]:
    end = Push(source_url(url))
    end.send([json.dumps({"type": "start", **start_document(start_of(count))}).encode()])
    for n in range(count):
        for _ in range(BETWEEN):
            end.send(refused(bad.bad_json, json_stream.decoded, random, longest) or [b""])
        end.send(json_stream.encoded(Frame(n, np.full(SHAPE, n, np.uint16), n)))
        yield
    end.send([b'{"type": "end"}'])
    end.close()


def send_stream2(url: str, count: int, bad: ModuleType, random: Any, longest: list[float]) -> Iterator[None]:
    end = Push(source_url(url))
    about = {"image_size_x": 8, "image_size_y": 6, "image_dtype": "uint16", "number_of_images": count, "series_id": 1}
    end.send([cbor2.dumps({"type": "start", **about})])
    for n in range(count):
        for _ in range(BETWEEN):
            end.send([refused(bad.bad_stream2, lambda found: stream2.decoded(found)[0], random, longest)])
        end.send([bad.image(compressed=False, number=n, data=np.full(SHAPE, n, np.uint16))])
        yield
    end.send([cbor2.dumps({"type": "end", "series_id": 1})])
    end.close()


def send_pva(url: str, count: int, bad: ModuleType, random: Any, longest: list[float]) -> Iterator[None]:
    end: Any = sender(source_url(url))
    end.start(start_of(count))
    for n in range(count):
        end.frame(Frame(n, np.full(SHAPE, n, np.uint16), n))
        for _ in range(BETWEEN):
            end.post(bad.bad_array(random))
        time.sleep(2e-3)  # PV Access does not hold its sender
        yield
    end.end(End())
    end.close()


def only_ours() -> TextIO:
    """Standard output for this file alone: compiled libraries print about bytes that they cannot decode."""
    ours, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return os.fdopen(ours, "w")


def fuzzed(scheme: str, send: Callable[..., Iterator[None]], messages: int, bad: ModuleType, folder: Path) -> str:
    count, longest, random = messages // BETWEEN, [0.0], np.random.default_rng(11)
    url = "pva://BRAGGSCOPE:FUZZ?address=127.0.0.1" if scheme == "pva" else f"{scheme}://127.0.0.1:19741"
    run = RunFolder(folder / scheme)
    run.path.mkdir()
    plan = start_document(Start("plan", start_of(count).axes))
    asked = {"source": url, "plan": plan, "scans": 1, "timeout_s": 30}
    recording = threading.Thread(target=receive, args=(run, asked, threading.Event()))
    begin = time.perf_counter()
    recording.start()
    for _ in send(url, count, bad, random, longest):
        pass
    recording.join()
    spent = time.perf_counter() - begin
    scan = run.scans()[0]
    counts = json.loads((scan.path / "ledger.json").read_text())
    frames = scan.frames.read(slice(0, len(scan.frames)), slice(None), slice(None))[:, 0, 0]
    right = np.array_equal(frames, scan.frames.records()["position"])
    slow = "" if scheme == "pva" else f"{1e3 * longest[0]:.1f}"
    kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(counts["refused_by_kind"].items()))
    recorded = f"{counts['received']} of {count}" + ("" if right else ", at WRONG positions")
    return f"{scheme} | {count * BETWEEN} | {counts['refused']} | {kinds} | {recorded} | {slow} | {spent:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--only", default="zmq+json,zmq+stream2,pva")
    arguments = parser.parse_args()
    ours = only_ours()
    print("transport | malformed | refused | by kind | frames recorded | longest (ms) | all (s)", file=ours, flush=True)
    senders = {"zmq+json": send_json, "zmq+stream2": send_stream2, "pva": send_pva}
    with tempfile.TemporaryDirectory() as name:
        for scheme in arguments.only.split(","):
            print(fuzzed(scheme, senders[scheme], arguments.messages, malformed(), Path(name)), file=ours, flush=True)


if __name__ == "__main__":
    main()
