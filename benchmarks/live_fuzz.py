"""Malformed messages, 10 000 for each network transport: each is refused with a counted kind, and none takes long.

python benchmarks/live_fuzz.py [--messages 10000]
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections import Counter
from pathlib import Path

import numpy as np

from braggscope.live.messages import Refused
from braggscope.live.transports import json_stream, stream2

MALFORMED = Path(__file__).parents[1] / "tests" / "live" / "malformed.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    count = parser.parse_args().messages
    spec = importlib.util.spec_from_file_location("malformed", MALFORMED)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    print("transport | messages | refused | taken (a change that left a message) | kinds | longest (ms)")
    for name, decode, bad in (
        ("zmq+json", json_stream.decoded, made.bad_json),
        ("zmq+stream2", stream2.decoded, made.bad_stream2),
    ):
        random, kinds, longest, taken = np.random.default_rng(11), Counter[str](), 0.0, 0
        for _ in range(count):
            message = bad(random)
            begin = time.perf_counter()
            found = decode(message)
            longest = max(longest, time.perf_counter() - begin)
            if isinstance(found, Refused):
                kinds[found.kind] += 1
            else:
                taken += 1
        print(f"{name} | {count} | {sum(kinds.values())} | {taken} | {dict(kinds)} | {1e3 * longest:.1f}", flush=True)


if __name__ == "__main__":
    main()
