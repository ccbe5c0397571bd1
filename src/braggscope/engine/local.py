"""Who runs a map: this machine.

One thread reads ahead while the estimator computes; the queue between them is short, so that memory is bounded by a few
batches whatever the size of the scan. The estimators' kernels use all cores themselves.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from braggscope.core.batch import Batch, PixelBlock
from braggscope.core.curves import pixel_blocks
from braggscope.core.errors import BraggscopeError
from braggscope.core.estimator import Estimator, State
from braggscope.core.source import Source

AHEAD = 2  # batches read while one is computed: hides uneven reading, costs 2 x 64 MB at most
BATCH_FRAMES = 1024  # small frames come in batches of a fraction of a second, so that progress is seen and Ctrl-C obeyed

T = TypeVar("T")


class ReadingFailed(BraggscopeError):
    """The source broke off; the state holds exactly the batches before that."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    state: The estimator's state; the run goes on changing it in place.
    done, total: Frames used (or pixels, for a method that reads pixels) and planned.
    masked_counts, masked_frames: Counts that were not used (NaN, negative or saturated), and the frames that had any.
    """

    state: State
    done: int
    total: int
    masked_counts: int = 0
    masked_frames: int = 0


def run(
    source: Source, estimator: Estimator, *, state: State | None = None, masked: tuple[int, int] = (0, 0), ahead: int = AHEAD
) -> Generator[Progress, None, None]:
    """Feed a source to a prepared estimator; a Progress before the first batch and after each.

    Closing the generator between two batches ends the run with a good state, which can be given to a later run.

    state: Of an earlier run that is to be continued; the frames it has seen are not read again.
    masked: Masked counts and frames of that earlier run.
    ahead: Batches to read in advance.

    Raises ReadingFailed for an error while reading, and the state is good then. After an error of the estimator itself it is not.
    """
    state = estimator.init(source) if state is None else state
    total = math.prod(source.shape if estimator.reads == "frames" else source.frame_shape)
    progress = Progress(state, int(state["seen"].sum()), total, *masked)
    yield progress
    for batch in read_ahead(_unseen(source, estimator, state["seen"].copy()), ahead):
        state = estimator.update(state, batch)
        bad = _masked_per_frame(batch)
        progress = Progress(
            state,
            int(state["seen"].sum()),
            total,
            progress.masked_counts + int(bad.sum()),
            progress.masked_frames + int((bad > 0).sum()),
        )
        yield progress


def read_ahead(items: Iterable[T], ahead: int = AHEAD) -> Iterator[T]:
    """The same items, made in another thread, at most `ahead` of them before they are asked for.

    An error is raised here as ReadingFailed, after the items before it. When the iteration is left early the thread ends
    after the item it is making.

    >>> list(read_ahead(range(3)))
    [0, 1, 2]
    """
    ready: queue.Queue[tuple[Any, BaseException | None, bool]] = queue.Queue(ahead)
    left = threading.Event()

    def put(item: Any, error: BaseException | None = None, last: bool = True) -> None:
        while not left.is_set():
            try:
                return ready.put((item, error, last), timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in items:
                put(item, last=False)
                if left.is_set():
                    break
            put(None)
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=read, name="braggscope reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = ready.get()
            if error is not None:
                raise ReadingFailed(f"reading failed: {_sentence(error)}") from error
            if last:
                return
            yield item
    finally:
        left.set()
        thread.join()


def _unseen(source: Source, estimator: Estimator, seen: np.ndarray) -> Iterator[Batch | PixelBlock]:
    """The batches, or blocks of pixels (whose curves are regrouped from all frames first), that are not in a state yet."""
    if estimator.reads == "frames":
        size = min(BATCH_FRAMES, source.batch_size()) if hasattr(source, "batch_size") else None
        yield from source.batches(size, only=~seen if seen.any() else None)
        return
    for block in pixel_blocks(source.batches(), math.prod(source.shape), source.frame_shape):
        new = ~seen[block.index]
        if new.any():
            yield block if new.all() else PixelBlock(block.index[new], block.curves[new], block.mask[new])


def _masked_per_frame(batch: Batch | PixelBlock) -> np.ndarray:
    """How many counts of each frame may not be used, shape (frame,). Absent points of a curve are no masked counts."""
    if isinstance(batch, PixelBlock) or batch.mask is None:
        return np.zeros(1, np.int64)
    return batch.mask[0].size - np.count_nonzero(batch.mask, axis=(1, 2))


def _sentence(error: BaseException) -> str:
    """The message of an error in one line; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
