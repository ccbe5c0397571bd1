"""Devices, threads and seeds: the one place.

Compiled kernels here are single-threaded and release the interpreter lock; `in_threads` runs them on all cores. That compiles
many times faster than a parallel kernel and spins on no lock when the machine is busy with other work.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, TypeVar

import torch

from braggscope.core.errors import InputError

Item = TypeVar("Item")
_threads: int | None = None


def workers() -> int:
    """Threads that may compute at the same time: what `set_workers` said, else the cores this process may use."""
    if _threads is not None:
        return _threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_workers(count: int | None) -> None:
    """Limit the computing threads, of our kernels and of torch; None: all cores, but of torch OMP_NUM_THREADS where it is set."""
    global _threads
    if count is not None and count < 1:
        raise InputError(f"workers must be at least 1, got {count}")
    _threads = count
    said = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(int(said) if count is None and re.fullmatch("[1-9][0-9]*", said) else workers())
    _pool.cache_clear()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers(), thread_name_prefix="braggscope")


def in_threads(work: Callable[[int, int], None], count: int, *, smallest: int = 1) -> None:
    """Call work(start, stop) on pieces that cover range(count), on all threads at once; errors are raised here.

    smallest: Pieces are not made smaller than this.
    """
    pieces = max(1, min(4 * workers(), count // max(1, smallest)))
    if pieces == 1 or workers() == 1:
        work(0, count)
        return
    edges = [count * i // pieces for i in range(pieces + 1)]
    pending = [_pool().submit(work, a, b) for a, b in itertools.pairwise(edges)]
    wait(pending)  # all of them, also where one failed: they write into the caller's arrays
    for one in pending:
        one.result()


def ahead(items: Iterable[Item], most: int = 4) -> Iterator[Item]:
    """The same items, made by another thread while the last ones are in use, up to `most` of them in advance.

    An error in making one is raised here; a consumer that stops early stops the thread.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(most)
    stopped = threading.Event()

    def put(kind: bool, value: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(True, item):
                    return
            put(False, None)
        except BaseException as error:
            put(False, error)

    thread = threading.Thread(target=make, name="braggscope-ahead", daemon=True)
    thread.start()
    try:
        while (got := ready.get())[0]:
            yield got[1]
        if got[1] is not None:
            raise got[1]
    finally:
        stopped.set()
        thread.join()


@contextlib.contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Torch on one thread for a while, for small tensors and inside `in_threads`.

    Its own threads wait for each other by spinning, which on a busy machine costs a hundred times the work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device(name: str) -> torch.device:
    """The torch device of this name. Raises InputError where this machine has none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but this machine has no usable CUDA device; cpu would do")
    try:
        return torch.device(name)
    except RuntimeError:
        raise InputError(f"device must be cpu or cuda, got '{name}'") from None
