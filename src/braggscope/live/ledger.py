"""The ledger: every expected frame of a scan is received, received late, or lost with a reason. Nothing is dropped in silence.

A position is `expected` at first. A frame makes it `received`; a gap that the transport knows of, or that has been waited for
too long, makes it `lost`; a frame that comes after that makes it `late`, which counts as received. What comes twice is a
duplicate, what belongs to no position is `outside`, what is no frame at all is refused by kind. What the frame log does not tell
(all but the frames themselves) is appended to a file, so that the ledger can be built again after a kill.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

EXPECTED, RECEIVED, LATE, LOST, UNPLANNED = 0, 1, 2, 3, 4
WORDS = ("expected", "received", "late", "lost", "unplanned")
FILE = "ledger.jsonl"


class Ledger:
    """What became of each position.

    points: Positions of the grid.
    planned: Booleans over flat positions: where a frame is expected; None: everywhere.
    status: One of the numbers above for each flat position.
    reason: For lost positions the place of the reason in `reasons`; 0 ("") elsewhere.
    """

    def __init__(self, points: int, planned: np.ndarray | None = None) -> None:
        self.status = np.zeros(points, np.uint8)
        if planned is not None:
            self.status[~planned] = UNPLANNED
        self.waiting = int(np.count_nonzero(self.status == EXPECTED))  # positions whose frame may still come
        self.reason = np.zeros(points, np.uint16)
        self.reasons = [""]
        self.duplicates = self.outside = 0
        self.refused: Counter[str] = Counter()

    def frame(self, position: int) -> str:
        """Take a frame: "received", "late", "duplicate" or "outside"; only the first two are to be recorded."""
        if not 0 <= position < len(self.status):
            self.outside += 1
            return "outside"
        now = self.status[position]
        if now in (RECEIVED, LATE):
            self.duplicates += 1
            return "duplicate"
        self.waiting -= int(now == EXPECTED)
        self.status[position] = LATE if now == LOST else RECEIVED
        self.reason[position] = 0
        return WORDS[self.status[position]]

    def lose(self, positions: np.ndarray, reason: str) -> np.ndarray:
        """Give up positions that are still expected; those it held for."""
        which = np.unique(np.asarray(positions, np.int64))
        which = which[(which >= 0) & (which < len(self.status))]
        which = which[self.status[which] == EXPECTED]
        if len(which):
            if reason not in self.reasons:
                self.reasons.append(reason)
            self.status[which], self.reason[which] = LOST, self.reasons.index(reason)
            self.waiting -= len(which)
        return which

    def forget(self, positions: Sequence[int]) -> None:
        """Frames that were taken could not be kept: they are expected again."""
        self.status[list(positions)] = EXPECTED
        self.waiting += len(positions)

    def end(self, reason: str) -> np.ndarray:
        """The scan is over: whatever is still expected is lost."""
        return self.lose(np.flatnonzero(self.status == EXPECTED), reason)

    def refuse(self, kind: str) -> None:
        """Count a message that is none."""
        self.refused[kind] += 1

    def counts(self) -> dict[str, Any]:
        """The figures (late ones are among the received), and lost and refused ones by reason."""
        n = np.bincount(self.status, minlength=len(WORDS))
        by_reason = np.bincount(self.reason[self.status == LOST], minlength=len(self.reasons))
        return {
            "expected": int(n[EXPECTED] + n[RECEIVED] + n[LATE] + n[LOST]),
            "received": int(n[RECEIVED] + n[LATE]),
            "lost": int(n[LOST]),
            "late": int(n[LATE]),
            "waiting": int(n[EXPECTED]),
            "duplicates": self.duplicates,
            "outside": self.outside,
            "refused": int(sum(self.refused.values())),
            "refused_by_kind": dict(self.refused),
            "lost_by_reason": {word: int(k) for word, k in zip(self.reasons, by_reason, strict=True) if k},
        }


class LedgerFile:
    """A ledger with the file that keeps what the frame log does not tell. One process writes; any number `read_ledger`."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.ledger = ledger
        self._file = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def lose(self, positions: np.ndarray, reason: str) -> None:
        """Give up positions that are still expected, and write it down."""
        held = self.ledger.lose(positions, reason)
        if len(held):
            self._write(lost=_ranges(held), reason=reason)

    def end(self, reason: str) -> None:
        """Whatever is still expected is lost, and written down."""
        self.lose(np.flatnonzero(self.ledger.status == EXPECTED), reason)

    def note(self, duplicates: int = 0, outside: int = 0, refused: Mapping[str, int] | None = None) -> None:
        """Write down counts that were added to the ledger since the last note."""
        if duplicates or outside or refused:
            self._write(duplicates=duplicates, outside=outside, refused=dict(refused or {}))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, **entry: Any) -> None:
        os.write(self._file, (json.dumps(entry) + "\n").encode())  # one call: a line is whole or not there


def read_ledger(folder: Path, records: np.ndarray, points: int, planned: np.ndarray | None = None) -> Ledger:
    """The ledger of a scan, from the records of its frames and its file; a line that a kill left half written is passed over."""
    ledger = Ledger(points, planned)
    late = records["late"] != 0
    ledger.status[records["position"][~late]] = RECEIVED
    ledger.status[records["position"][late]] = LATE
    ledger.waiting = int(np.count_nonzero(ledger.status == EXPECTED))
    for entry in _entries(folder / FILE):
        for first, last in entry.get("lost", ()):
            ledger.lose(np.arange(first, last + 1), str(entry["reason"]))
        ledger.duplicates += int(entry.get("duplicates", 0))
        ledger.outside += int(entry.get("outside", 0))
        ledger.refused.update(entry.get("refused", {}))
    return ledger


def _entries(path: Path) -> Iterable[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _ranges(positions: np.ndarray) -> list[tuple[int, int]]:
    """Rising positions as (first, last) of each unbroken run."""
    breaks = np.flatnonzero(np.diff(positions) != 1)
    first, last = np.r_[0, breaks + 1], np.r_[breaks, len(positions) - 1]
    return [(int(positions[a]), int(positions[b])) for a, b in zip(first, last, strict=True)]
