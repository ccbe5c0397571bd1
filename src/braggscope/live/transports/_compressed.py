"""Frames compressed as detectors do: bitshuffle with LZ4 ("bslz4"), or LZ4 alone ("lz4"), in the framing of the HDF5 filters.

They are decoded by these filters themselves: the bytes are put into a dataset in memory as a chunk and read back (hdf5plugin),
so that no compiled extra is needed.
"""

from __future__ import annotations

import math
import struct
import threading
from functools import lru_cache
from typing import Any

import numpy as np

ALGORITHMS = ("bslz4", "lz4")
LARGEST_RATIO = 100_000  # of a compressed frame; an empty frame of 16 million pixels is below it
_ONE = threading.Lock()  # a chunk is written and read by one thread before the next one does
BLOCK = 8192  # bytes of a block of bitshuffle, where nobody says otherwise


def decompressed(blob: bytes, algorithm: str, element: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray:
    """A frame from its compressed bytes.

    element: Bytes of a pixel, as the sender says; "lz4" has none.

    Raises ValueError where the bytes say another size than the frame's, and where they cannot be decoded.
    """
    import h5py

    size = math.prod(shape) * dtype.itemsize
    if algorithm not in ALGORITHMS or len(blob) < 12 or len(blob) * LARGEST_RATIO < size:
        raise ValueError(f"compression must be one of {', '.join(ALGORITHMS)} with bytes, got {algorithm[:20]!r} and {len(blob)}")
    stated, block = struct.unpack(">QI", blob[:12])
    if stated != size or block > max(size, BLOCK) or (algorithm == "bslz4" and element != dtype.itemsize):
        raise ValueError(f"the compressed frame says {stated} bytes, {shape} {dtype} has {size}")
    _check_blocks(blob, algorithm, size, block, dtype.itemsize)
    frame = np.empty(shape, dtype)
    with _ONE:
        chunk = _chunk(shape, dtype.str, algorithm)
        chunk.id.write_direct_chunk((0, 0), blob)
        try:
            chunk.id.read(h5py.h5s.ALL, h5py.h5s.ALL, frame)  # a third of the time of chunk[()], which selects first
        except OSError:
            raise ValueError(f"the compressed frame of {len(blob)} bytes cannot be decoded by {algorithm}") from None
    return frame


def compressed(frame: np.ndarray, algorithm: str) -> bytes:
    """A frame compressed as a detector does."""
    with _ONE:
        chunk = _chunk(frame.shape, frame.dtype.str, f"{algorithm} out")
        chunk[...] = frame
        chunk.file.flush()
        blob: bytes = chunk.id.read_direct_chunk((0, 0))[1]
    return blob


def framed(blob: bytes, algorithm: str, size: int) -> bytes:
    """Bytes without framing, as areaDetector sends them, in that of the HDF5 filters; size: of the frame, bytes."""
    if algorithm == "bslz4":
        return struct.pack(">QI", size, BLOCK) + blob
    if len(blob) == size:
        raise ValueError("a compressed frame of the frame's own size cannot be told from one that is not compressed")
    return struct.pack(">QII", size, size, len(blob)) + blob


def _check_blocks(blob: bytes, algorithm: str, size: int, block: int, element: int) -> None:
    """Raise ValueError where the lengths of the blocks do not add up to that of the bytes: a filter would read on behind them."""
    if algorithm == "bslz4":
        block = block or max(BLOCK // element // 8, 1) * 8 * element
        raw = size % (8 * element)  # pixels that fill no byte of bits are kept as they are
    else:
        raw = 0
    if block < 1 or (algorithm == "bslz4" and block % (8 * element)):
        raise ValueError(f"the compressed frame has blocks of {block} bytes")
    place = 12
    for _ in range(-(-(size - raw) // block)):
        if place + 4 > len(blob):
            break
        place += 4 + int.from_bytes(blob[place : place + 4], "big")
    if place + raw != len(blob):
        raise ValueError(f"the blocks of the compressed frame end at {place + raw} of {len(blob)} bytes")


@lru_cache(maxsize=8)
def _chunk(shape: tuple[int, int], dtype: str, algorithm: str) -> Any:
    """A dataset of one chunk in memory, through which frames of this kind are packed or unpacked; making it costs 1 ms.

    HDF5 takes two files of one name for the same, so that each has its own.
    """
    import h5py
    import hdf5plugin

    how = hdf5plugin.Bitshuffle(cname="lz4") if algorithm.startswith("bslz4") else hdf5plugin.LZ4()
    file = h5py.File(f"{shape} {dtype} {algorithm}", "w", driver="core", backing_store=False)
    return file.create_dataset("frame", shape, dtype, chunks=shape, **how)
