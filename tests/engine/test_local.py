"""The engine: everything once, bounded reading ahead, errors and early ends leave a good state."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
import torch
import xarray as xr

from braggscope.core.batch import Batch
from braggscope.core.estimator import PerFrame, PerPixel
from braggscope.core.maps import Quantity
from braggscope.core.simulation import Simulation
from braggscope.engine.local import ReadingFailed, read_ahead, run


@dataclasses.dataclass(frozen=True)
class Level(PerFrame):
    name: ClassVar[str] = "level"
    summary: ClassVar[str] = "mean count"
    calibrated: ClassVar[bool] = False

    def quantities(self):
        return (Quantity("level", "count", "mean count"),)

    def fit(self, batch):
        return {"level": batch.frames.mean(axis=(1, 2)), "flag": np.zeros(len(batch), np.int32)}


class Source(Simulation):
    """Flat frames whose level is their position; batches of three, so that there are several."""

    def batches(self, size=None, *, only=None):
        return super().batches(3, only=only)


def source(kind=Source):
    coords = {"y": ("y", [0.0, 1.0]), "x": ("x", np.arange(5.0))}

    def expected(index):
        return torch.as_tensor(index, dtype=torch.float64)[:, None, None].expand(-1, 4, 3)

    return kind(None, xr.Dataset(coords=coords), (4, 3), expected, xr.Dataset(), None)


def test_every_frame_is_used_once_and_progress_counts_them():
    steps = list(run(source(), Level(None)))
    assert [step.done for step in steps] == [0, 3, 6, 9, 10]
    assert {step.total for step in steps} == {10}
    np.testing.assert_array_equal(Level(None).result(steps[-1].state)["level"], np.arange(10.0).reshape(2, 5))


def test_a_run_that_is_left_goes_on_from_its_state():
    first = run(source(), Level(None))
    for _ in range(3):
        step = next(first)
    first.close()
    read = []

    class Watched(Source):
        def batches(self, size=None, *, only=None):
            for batch in super().batches(size, only=only):
                read.extend(batch.index)
                yield batch

    again = list(run(source(Watched), Level(None), state=step.state))
    assert read == [6, 7, 8, 9]
    assert [one.done for one in again] == [6, 9, 10]


def test_masked_counts_are_counted_also_over_a_resumed_run():
    class Dirty(Source):
        def batches(self, size=None, *, only=None):
            for batch in super().batches(size, only=only):
                mask = np.ones(batch.frames.shape, bool)
                mask[0, 1, :2] = False
                yield Batch(batch.index, batch.frames, None, mask)

    *_, last = run(source(Dirty), Level(None), masked=(7, 2))
    assert (last.masked_counts, last.masked_frames) == (7 + 4 * 2, 2 + 4)  # four batches, one dirty frame each


def test_reading_stays_a_few_items_ahead_however_many_there_are():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    taken = read_ahead(items(), ahead=2)
    assert [next(taken), next(taken)] == [0, 1]
    time.sleep(0.1)
    assert len(made) <= 2 + 2 + 1  # taken, queued, and the one that waits for room
    taken.close()
    assert "braggscope reader" not in {thread.name for thread in threading.enumerate()}
    assert len(made) <= 6


def test_reading_and_computing_overlap():
    second_is_made = threading.Event()

    def items():
        yield 1
        second_is_made.set()
        yield 2

    taken = read_ahead(items())
    assert next(taken) == 1
    assert second_is_made.wait(timeout=10)  # while the first is computed on, before the second is asked for
    assert list(taken) == [2]


def test_an_error_while_reading_comes_after_the_good_batches():
    class Broken(Source):
        def batches(self, size=None, *, only=None):
            yield from list(super().batches(size, only=only))[:2]
            raise OSError("the disk is gone")

    done = []
    with pytest.raises(ReadingFailed, match="reading failed: the disk is gone"):
        for step in run(source(Broken), Level(None)):
            done.append(step.done)
    assert done == [0, 3, 6]


def test_a_method_of_curves_maps_any_source_of_frames():
    @dataclasses.dataclass(frozen=True)
    class Last(PerPixel):
        name: ClassVar[str] = "last"
        summary: ClassVar[str] = "count at the last position"
        calibrated: ClassVar[bool] = False

        def quantities(self):
            return (Quantity("last", "count", "count at the last position"),)

        def fit(self, block, motors):
            return {"last": block.curves[:, -1], "flag": np.zeros(len(block), np.int32)}

    *_, progress = run(source(), Last(None))
    assert (progress.done, progress.total) == (12, 12)
    assert (Last(None).result(progress.state)["last"].values == 9).all()
