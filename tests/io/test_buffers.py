"""Memory for frames is used again, but never while somebody holds the frames."""

import numpy as np

from braggscope.io.buffers import SMALLEST, Buffers


def test_memory_is_used_again_only_when_nobody_holds_it():
    buffers, shape, kind = Buffers(), (SMALLEST // 2, 1), np.dtype(np.uint16)
    first = buffers.empty(shape, kind)
    first[:] = 1
    held = first[10:20, 0].view(np.uint8)  # a part of it, seen in another way
    where = first.ctypes.data
    del first
    second = buffers.empty(shape, kind)
    second[:] = 2
    assert second.ctypes.data != where and (held[::2] == 1).all()
    del held
    assert buffers.empty(shape, kind).ctypes.data == where


def test_few_buffers_are_kept():
    buffers = Buffers()
    held = [buffers.empty((SMALLEST + i,), np.dtype(np.uint8)) for i in range(20)]
    for i, one in enumerate(held):
        one[:] = i
    assert all((one == i).all() for i, one in enumerate(held)) and len(buffers._kept) <= 6
