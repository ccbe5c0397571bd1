"""Scan: cutting, binning, masking, pixel curves; on frames in memory that count what is read."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from braggscope.core.batch import Batch, usable
from braggscope.core.errors import InputError
from braggscope.core.scan import Axis, Scan


@dataclasses.dataclass
class Memory:
    """Frames in an array, remembering the most that was asked for at once."""

    values: np.ndarray
    most: int = 0

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def read(self, which, rows, columns):
        part = self.values[which][:, rows, columns]
        self.most = max(self.most, part.nbytes)
        return part


def make(values, order=None, shape=None):
    shape = shape or (len(values),)
    axes = tuple(Axis(n, np.arange(k, dtype=float), "um") for n, k in zip("yx", shape, strict=False))
    order = np.arange(len(values)) if order is None else np.asarray(order)
    return Scan(Path("memory.h5"), "1.1", axes, Memory(values), order)


def test_cut_and_bin_are_sums_of_the_right_pixels():
    values = np.arange(2 * 5 * 7, dtype=np.uint16).reshape(2, 5, 7)
    view = make(values).cut(1, 5, 0, 7).bin(2)
    batch = next(view.batches())
    assert view.frame_shape == (2, 3)
    assert batch.frames[1, 1, 2] == values[1, 3:5, 4:6].sum()


def test_binning_does_not_overflow():
    view = make(np.full((1, 4, 4), 60_000, np.uint16)).bin(4)
    assert next(view.batches()).frames[0, 0, 0] == 960_000


def test_bad_counts_are_masked_and_so_is_the_binned_pixel_they_fall_in():
    values = np.ones((1, 4, 4), np.float32)
    values[0, 0, 0], values[0, 3, 3] = np.nan, -1
    assert next(make(values).batches()).mask.sum() == 14
    assert next(make(values).bin(2).batches()).mask.tolist() == [[[False, True], [True, False]]]


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.uint32, 2**32 - 1)])
def test_the_largest_value_of_a_type_means_overflow(dtype, top):
    assert usable(np.array([[[0, top]]], dtype)).tolist() == [[[True, False]]]
    assert usable(np.array([[[0, top - 1]]], dtype)) is None


def test_an_aborted_scan_has_a_shorter_order_and_nan_frames():
    scan = make(np.ones((4, 2, 3), np.uint8), order=[0, 1, 2, 5], shape=(2, 3))
    assert np.concatenate([b.index for b in scan.batches(3)]).tolist() == [0, 1, 2, 5]
    assert np.isnan(scan.frame(4)).all() and scan.frame(5).tolist() == [[1, 1, 1]] * 2


def test_only_reads_the_asked_positions():
    scan = make(np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8), order=[2, 1, 0, 3, 4, 5])
    only = np.isin(np.arange(6), [0, 4])
    assert [(b.index.tolist(), b.frames[:, 0, 0].tolist()) for b in scan.batches(only=only)] == [([0, 4], [2, 4])]


def test_curves_keep_the_type_of_the_counts_and_mark_what_is_not_there():
    values = np.random.default_rng(1).integers(0, 9, (5, 3, 4)).astype(np.uint16)
    blocks = list(make(values, order=[4, 3, 1, 0, 2], shape=(2, 3)).pixels(5))
    curves = np.concatenate([b.curves for b in blocks])
    assert [len(b) for b in blocks] == [5, 5, 2] and curves.dtype == np.uint16
    assert np.array_equal(curves[:, [4, 3, 1, 0, 2]], values.reshape(5, 12).T)
    assert not np.concatenate([b.mask for b in blocks])[:, 5].any()


def test_bad_cuts_are_said_with_the_size_of_the_frame():
    scan = make(np.ones((1, 5, 7), np.uint8))
    with pytest.raises(InputError, match=r"5 rows x 7 columns.*got 0:6,0:7"):
        scan.cut(0, 6, 0, 7)
    with pytest.raises(InputError, match="between 1 and the frame's 5 pixels, got 9"):
        scan.bin(9)


def test_a_batch_names_its_axes_when_shapes_disagree():
    with pytest.raises(ValueError, match=r"frames \(frame, row, column\)"):
        Batch(np.arange(3), np.ones((2, 4, 4)))
