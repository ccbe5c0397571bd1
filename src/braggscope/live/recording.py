"""Recording: messages of a scan into the frame log and the ledger, checked against how the scan began.

A frame that is missing while later numbers come is given up after `patience_s` ("not received"); one that comes after that is
late, and recorded all the same.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from braggscope.core.errors import InputError

from .frame_log import FrameWriter
from .ledger import LATE, RECEIVED, LedgerFile, read_ledger
from .messages import End, Frame, Gap, Message, Start
from .run_folder import RunFolder, ScanFolder, start_document, write_json

PATIENCE_S = 2.0
GRACE_S = 0.3  # after the end of a scan, for frames that are still on their way


class Recorder:
    """Records scans into a run folder.

    plan: What is known of the scan beforehand, where the transport does not say it.
    announced: Whether the transport says when a scan begins, so that frames before that are not the first ones of a scan. Where
        it is not known, a start that comes tells it.
    repeats: Whether the transport says again how the scan under way began to a receiver that comes late.
    most: How many scans to record; what comes then is refused. None: all.
    """

    def __init__(
        self,
        run: RunFolder,
        plan: Start | None = None,
        patience_s: float = PATIENCE_S,
        *,
        announced: bool = False,
        repeats: bool = True,
        most: int | None = None,
    ) -> None:
        self.run, self.plan, self.patience_s, self.most = run, plan, patience_s, most
        self.scan: ScanFolder | None = None
        self.finished = 0
        self.refused = 0  # outside any scan
        self._announced, self._repeats = announced, repeats
        self._over: str | None = None
        self._over_at = 0.0
        self._resumed = False  # and the scan's start is still to come again
        self._resume()

    # -- one scan ---------------------------------------------------------------------------------------------------------

    def begin(self, start: Start) -> None:
        """A scan begins; one that is under way ends.

        Raises InputError where the first scan of all has no grid; a later one is refused and counted.
        """
        try:
            start = _planned(start, self.plan)
        except InputError:
            if self.scan is None and not self.finished:
                raise
            self._refuse("start without a grid that fits")
            return
        if self.scan is not None:
            same = start.scan == self.start.scan and start.shape == self.start.shape
            if same and (self._resumed or not self.counts["received"]):
                self._resumed = False
                return
            self.finish(self._over or ("the next scan began" if self.ledger.waiting else "complete"))
        if self.most is not None and self.finished >= self.most:
            self.refused += 1
            return
        self._open(self.run.next_scan(start), start)

    def _resume(self) -> None:
        """Go on with a scan that an earlier receiver left."""
        left = [one for one in self.run.scans() if one.ended is None]
        for one in left[:-1]:
            write_json(one.path / "end.json", {"reason": "left behind", "frames": len(one.frames), "time": time.time()})
        self.finished = len([one for one in self.run.scans() if one.ended is not None])
        if left:
            start = left[-1].started
            assert start is not None
            self._open(left[-1], start)
            self._resumed = self._repeats

    def _open(self, folder: ScanFolder, start: Start) -> None:
        self.scan, self.start, self._resumed = folder, start, False
        self._order = start.order
        self._ordered = True  # whether the position of a missing number is known
        self._writer: FrameWriter | None = None
        if start.frame_shape is not None and start.dtype is not None:
            self._prepare()
        self.ledger = read_ledger(folder.path, folder.records, start.points, start.planned)
        self.before = np.isin(self.ledger.status, (RECEIVED, LATE))  # recorded by an earlier receiver: no duplicates
        self._file = LedgerFile(folder.path, self.ledger)
        self._noted = (self.ledger.duplicates, self.ledger.outside, self.ledger.refused.copy())
        self._highest, self._given_up = -1, 0
        self._passed: deque[tuple[float, int]] = deque()
        self._delays: deque[float] = deque(maxlen=4096)  # received - sent of the last frames, seconds
        self._arrivals: deque[tuple[float, int]] = deque()
        self._over, self._last = None, time.time()
        self._began = 0.0

    def _prepare(self) -> None:
        assert self.scan is not None and self.start.frame_shape is not None
        self._writer = FrameWriter(self.scan.path, self.start.frame_shape, np.dtype(self.start.dtype))

    def record(self, messages: Sequence[Message]) -> None:
        """Take messages, in order."""
        frames: list[tuple[Frame, int, bool]] = []
        for message in messages:
            if isinstance(message, Frame):
                self._frame(message, frames)
            elif isinstance(message, Start):
                self._write(frames)
                self._announced = True
                self.begin(message)
            elif isinstance(message, End):
                self._write(frames)
                self._end(message.reason)
            elif isinstance(message, Gap):
                if self.scan is not None:
                    self._file.lose(self._missing(message), message.reason)
            else:
                self._refuse(message.kind)
        self._write(frames)
        if self.scan is not None:
            self._give_up(time.time())
            self._note()

    def _frame(self, frame: Frame, found: list[tuple[Frame, int, bool]]) -> None:
        """Enter a frame in the ledger; add it to those that are to be written."""
        if self.scan is None:
            enough = self.most is not None and self.finished >= self.most
            if enough or self._announced or self.plan is None or not self.plan.axes:
                self.refused += 1  # one that came when its scan was over, or before any began
                return
            shape = (int(frame.data.shape[0]), int(frame.data.shape[1]))
            self.begin(dataclasses.replace(self.plan, frame_shape=shape, dtype=frame.data.dtype.str))
        if self._writer is None:
            self._first(frame)
        assert self._writer is not None
        if frame.data.shape != self._writer.shape or not np.can_cast(frame.data.dtype, self._writer.dtype, "equiv"):
            self._refuse("another frame shape or type")
            return
        position = self._position(frame)
        if 0 <= position < len(self.before) and self.before[position]:
            return
        what = self.ledger.frame(position)
        if what in ("received", "late"):
            found.append((frame, position, what == "late"))
            self._highest = max(self._highest, frame.number)

    def _first(self, frame: Frame) -> None:
        """The first frame tells shape and type where the start did not."""
        assert self.scan is not None
        shape = (int(frame.data.shape[0]), int(frame.data.shape[1]))
        self.start = dataclasses.replace(self.start, frame_shape=shape, dtype=frame.data.dtype.str)
        write_json(self.scan.path / "start.json", start_document(self.start))
        self._prepare()

    def _position(self, frame: Frame) -> int:
        """Flat grid position of a frame; -1 where it has none."""
        planned = self._positions(np.array([frame.number]))
        known = int(planned[0]) if len(planned) else -1
        if frame.position is None:
            return known
        self._ordered &= known == frame.position
        return frame.position

    def _positions(self, numbers: np.ndarray) -> np.ndarray:
        """Flat grid positions of frame numbers, by the plan; numbers beyond it have none."""
        if self._order is None:
            return numbers[numbers < self.start.points]
        return self._order[numbers[numbers < len(self._order)]]

    def _missing(self, gap: Gap) -> np.ndarray:
        """Flat grid positions of frames that are known to be lost."""
        return np.array(gap.positions) if gap.positions else self._positions(np.arange(gap.numbers.start, gap.numbers.stop))

    def _write(self, found: list[tuple[Frame, int, bool]]) -> None:
        if found:
            assert self._writer is not None
            frames, positions, late = zip(*found, strict=True)
            try:
                self._writer.append(frames, positions, late)
            except OSError:  # they are not there, whatever the ledger says
                self.ledger.forget(positions)
                raise
            now = time.time()
            self._delays.extend(one.received - one.sent for one in frames)
            self._began = self._began or now
            self._last = now
            self._arrivals.append((now, len(found)))
            self._passed.append((now, self._highest))
            found.clear()

    def _give_up(self, now: float) -> None:
        """Lose what later frames have passed long ago."""
        until = -1
        while self._passed and self._passed[0][0] < now - self.patience_s:
            until = max(until, self._passed.popleft()[1])
        if self._ordered and until >= self._given_up:
            self._file.lose(self._positions(np.arange(self._given_up, until + 1)), "not received")
            self._given_up = until + 1

    def _note(self) -> None:
        """Write down what the frame log does not tell."""
        duplicates, outside, refused = self._noted
        led = self.ledger
        if (led.duplicates, led.outside, led.refused) != self._noted:
            self._file.note(led.duplicates - duplicates, led.outside - outside, led.refused - refused)
            self._noted = (led.duplicates, led.outside, led.refused.copy())

    def _refuse(self, kind: str) -> None:
        if self.scan is not None:
            self.ledger.refuse(kind)
        else:
            self.refused += 1

    def _end(self, reason: str) -> None:
        if self.scan is not None and self._over is None:
            self._over, self._over_at = reason, time.time()

    # -- its end ----------------------------------------------------------------------------------------------------------

    def settle(self, timeout_s: float | None = None, idle: bool = True) -> bool:
        """Finish the scan where it is over; whether it was.

        timeout_s: Without a frame, after which a scan is over.
        idle: Whether nothing waits to be recorded.
        """
        if self.scan is None or not idle:
            return False
        now, waiting = time.time(), self.ledger.waiting
        if self._over is not None and (not waiting or now - self._over_at > GRACE_S):
            self.finish(self._over)
        elif not waiting and (self._began or self.before.any()) and now - self._last > GRACE_S:
            self.finish("complete")
        elif timeout_s is not None and now - self._last > timeout_s:
            self.finish(f"nothing came for {timeout_s:g} s")
        else:
            return False
        return True

    def finish(self, reason: str) -> None:
        """The scan is over: what is still expected is lost. Raises OSError where the disk is full; the scan stays open then."""
        if self.scan is None:
            return
        self._file.end("not received" if reason == "complete" else reason)
        self._note()
        self._file.close()
        if self._writer is not None:
            self._writer.close()
        counts = {**self.counts, **self.rates(whole=True)}
        write_json(self.scan.path / "ledger.json", counts)
        frames = self._writer.count if self._writer is not None else 0
        write_json(self.scan.path / "end.json", {"reason": reason, "frames": frames, "time": time.time()})
        self.scan, self._writer = None, None
        self.finished += 1

    @property
    def counts(self) -> dict[str, Any]:
        """The ledger's figures of the scan under way."""
        return self.ledger.counts()

    def rates(self, whole: bool = False) -> dict[str, float]:
        """Frames per second: of the last two seconds, or of the whole scan."""
        now = time.time()
        if whole:
            spent = self._last - self._began if self._began else 0.0
            total = float(self._writer.count) if self._writer is not None else 0.0
            return {"rate_hz": round(total / spent, 2) if spent > 0 else 0.0}
        while self._arrivals and self._arrivals[0][0] < now - 2:
            self._arrivals.popleft()
        return {"rate_hz": round(sum(n for _, n in self._arrivals) / 2, 2)}

    def transport_ms(self) -> dict[str, float | None]:
        """Median and 99th percentile of the time from the sender to here, of the last frames whose sender gave it; ms."""
        spent = np.array(self._delays)
        spent = 1e3 * spent[np.isfinite(spent)]
        if not len(spent):
            return {"p50": None, "p99": None}
        return {f"p{q}": round(float(np.percentile(spent, q)), 3) for q in (50, 99)}


def _planned(start: Start, plan: Start | None) -> Start:
    """The start of a transport, with what it does not say from the plan. Raises InputError where no grid fits its frames."""
    if not start.axes and (plan is None or not plan.axes):
        raise InputError(f"scan {start.scan} comes without a grid; give one with --grid ROWS COLUMNS or --plan SCAN")
    if plan is None:
        return start
    if start.axes and plan.axes and start.shape != plan.shape:
        said, asked = (" x ".join(map(str, one.shape)) for one in (start, plan))
        raise InputError(f"scan {start.scan} has a grid of {said}, but --grid or --plan says {asked}; leave that out")
    fields = ("modality", "geometry", "order", "expected")
    missing = {name: getattr(plan, name) for name in fields if getattr(start, name) is None}
    if not start.axes:
        missing["axes"] = plan.axes
        if start.expected is not None and start.expected > plan.points:
            raise InputError(f"scan {start.scan} has {start.expected} frames, but the grid has {plan.points} positions")
    try:
        return dataclasses.replace(start, **missing)
    except ValueError as error:  # the order of the plan is that of another grid
        raise InputError(f"scan {start.scan} does not fit the plan: {error}") from None
