"""A bounded buffer between a transport and the disk, with a stated policy for when it is full.

block: the transport is not read until there is room (its own back-pressure holds the sender);
spill: further frames go to a temporary file, and come from there in order;
drop-oldest: the oldest frame is given up, and its loss is recorded as a gap with the reason "buffer full".

One thread puts, another takes.
"""

from __future__ import annotations

import pickle
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from braggscope.core.errors import InputError

from .messages import Frame, Gap, Message

POLICIES = ("block", "spill", "drop-oldest")
BYTES = 256 * 2**20  # of frames in memory
AT_ONCE = 64 * 2**20  # bytes of frames that are taken together
FULL = "buffer full"
LONGEST_GAP = 1000  # frames
LEAST = 4  # frames, however large


class Buffer:
    """Messages on their way.

    policy: One of POLICIES.
    bytes: Of frames that are held in memory; None: BYTES.
    """

    def __init__(self, policy: str = "block", bytes: int | None = None) -> None:
        if policy not in POLICIES:
            raise InputError(f"the buffer must be one of {', '.join(POLICIES)}, got '{policy}'")
        self.policy, self.limit = policy, BYTES if bytes is None else bytes
        self.held = self.frames = self.spilled = self.dropped = 0  # bytes and frames in memory; frames elsewhere
        self._messages: deque[Message] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._spill: Any = None
        self._places: deque[tuple[int, int]] = deque()  # of spilled messages in the file

    def put(self, messages: Sequence[Message]) -> None:
        """Add messages, by the policy where it is full. Does nothing after `close`."""
        with self._changed:
            for message in messages:
                while self.policy == "block" and self._full and not self._closed:
                    self._changed.wait(0.1)
                if self._closed:
                    return
                if self.policy == "spill" and (self._full or self._places):
                    self._spilled(message)
                    continue
                self._add(message)
                while self.policy == "drop-oldest" and self._full:
                    self._drop()
            self._changed.notify_all()

    def take(self, most: int, timeout_s: float) -> list[Message]:
        """The oldest messages, at most `most` and about AT_ONCE bytes; waits for the first one; empty where none came."""
        with self._changed:
            if not self._messages and not self._places:
                self._changed.wait(timeout_s)
            found: list[Message] = []
            held = 0
            while (self._messages or self._places) and len(found) < most and held < AT_ONCE:
                found.append(self._messages.popleft() if self._messages else self._unspilled())
                held += found[-1].data.nbytes if isinstance(found[-1], Frame) else 0
                self._count(found[-1], -1)
            self._changed.notify_all()
            return found

    def __len__(self) -> int:
        return len(self._messages) + len(self._places)

    def close(self) -> None:
        """Let a waiting `put` go; what is held can still be taken."""
        with self._changed:
            self._closed = True
            if self._spill is not None and not self._places:
                self._spill.close()
            self._changed.notify_all()

    @property
    def _full(self) -> bool:
        return self.held >= self.limit and self.frames >= LEAST

    def _count(self, message: Message, sign: int) -> None:
        """Add (1) or take off (-1) a message to or from what is held."""
        if isinstance(message, Frame):
            self.held += sign * message.data.nbytes
            self.frames += sign

    def _add(self, message: Message) -> None:
        self._messages.append(message)
        self._count(message, 1)

    def _drop(self) -> None:
        """Give up the oldest frame; what is no frame stays in its place, and neighbours that were given up are one gap."""
        before: list[Message] = []
        while not isinstance(self._messages[0], Frame):
            before.append(self._messages.popleft())
        frame = self._messages.popleft()
        assert isinstance(frame, Frame)
        gap = Gap(range(frame.number, frame.number + 1), FULL, () if frame.position is None else (frame.position,))
        last = before[-1] if before else None
        if isinstance(last, Gap) and _continues(last, gap):
            before[-1] = Gap(range(last.numbers.start, gap.numbers.stop), FULL, last.positions + gap.positions)
        else:
            before.append(gap)
        self._messages.extendleft(reversed(before))
        self._count(frame, -1)
        self.dropped += 1

    def _spilled(self, message: Message) -> None:
        """Write a message at the end of the temporary file, which has no name and is gone with the process."""
        if self._spill is None:
            self._spill = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the buffer
        self._spill.seek(0, 2)
        start = self._spill.tell()
        pickle.dump(message, self._spill, protocol=5)  # our own objects, in our own unnamed file
        self._places.append((start, self._spill.tell() - start))
        self.spilled += 1

    def _unspilled(self) -> Message:
        start, length = self._places.popleft()
        self._spill.seek(start)
        message: Message = pickle.loads(self._spill.read(length))
        if not self._places:
            self._spill.truncate(0)
        self._count(message, 1)  # `take` takes it off again
        return message


def _continues(last: Gap, gap: Gap) -> bool:
    """Whether a gap is the next part of the last one."""
    alike = last.reason == gap.reason and bool(last.positions) == bool(gap.positions)
    return alike and last.numbers.stop == gap.numbers.start and len(last.numbers) < LONGEST_GAP
