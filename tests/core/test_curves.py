"""Curves of pixels are those of the frames, in memory and through scratch files, whatever the order and the masks."""

import numpy as np
import pytest

from braggscope.core import curves
from braggscope.core.batch import Batch


def batches(values, mask, order, size):
    """Frames in this order, in batches; the mask only where something is masked."""
    for start in range(0, len(order), size):
        index = order[start : start + size]
        part = mask[index]
        yield Batch(index, values[index], mask=None if part.all() else part)


@pytest.mark.parametrize("memory", [curves.MEMORY_BYTES, 0])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_every_count_and_mask_comes_to_its_pixel(monkeypatch, memory, dtype):
    monkeypatch.setattr(curves, "MEMORY_BYTES", memory)
    monkeypatch.setattr(curves, "BAND_BYTES", 300)  # several bands, the last one smaller
    random = np.random.default_rng(3)
    values = random.integers(0, 60000, (9, 7, 5)).astype(dtype)
    mask = random.random(values.shape) > 0.05
    mask[:4] = True
    order = random.permutation(9)[:8]  # one frame is lost
    blocks = list(curves.pixel_blocks(batches(values, mask, order, 3), 9, (7, 5), size=4))
    index = np.concatenate([b.index for b in blocks])
    found, good = np.concatenate([b.curves for b in blocks]), np.concatenate([b.mask for b in blocks])
    there = np.isin(np.arange(9), order)
    assert np.array_equal(index, np.arange(35)) and found.dtype == dtype
    assert np.array_equal(found[:, there], values.reshape(9, 35).T[:, there])
    assert np.array_equal(good, mask.reshape(9, 35).T & there)


def test_frames_of_two_types_are_refused():
    mixed = [Batch(np.array([0]), np.ones((1, 2, 2), np.uint8)), Batch(np.array([1]), np.ones((1, 2, 2), np.float32))]
    with pytest.raises(ValueError, match="must keep their type uint8, got float32"):
        list(curves.pixel_blocks(mixed, 2, (2, 2)))


def test_a_scan_without_frames_has_curves_without_counts():
    (block,) = curves.pixel_blocks([], 3, (2, 2))
    assert block.curves.shape == (4, 3) and not block.mask.any()
