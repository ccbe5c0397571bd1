"""Artificial patterns: what is blocked, where the peaks fall, how neighbours are pooled."""

import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.modalities.laue.grains.artificial import (
    blocked,
    blocked_by_reflection,
    brightest_in_cells,
    cells,
    neighbours,
    pictures,
    pooled,
)
from braggscope.modalities.laue.grains.peaks import strongest_peaks
from braggscope.modalities.laue.grains.standing import Standing


def test_peaks_below_the_share_of_the_highest_around_are_blocked():
    light = np.zeros((1, 4, 2), np.float32)
    light[0, :, 0] = [100, 90, 70, 10]
    light[0, :, 1] = [85, 50, 60, 9]
    kept = blocked(light, 1.0, 0.8)
    # i_max is 100, 100, 90, 70: the last position has nothing left, the third neither (70 < 72)
    assert np.allclose(kept[0], [[1, 0.85], [0.9, 0], [0, 0], [0, 0]])
    assert np.allclose(blocked(light, 0.0, 0.8)[0], [[1, 0.85], [1, 0], [1, 60 / 70], [1, 0.9]])


def test_a_reflection_is_compared_with_itself():
    columns = 50
    place = np.array([[[105, 2000], [2001, 155]]])  # (2, 5) and (40, 0); (40, 1) and (3, 5)
    light = np.array([[[100.0, 30.0], [90.0, 85.0]]], np.float32)
    kept = blocked_by_reflection(place, light, columns, 1.0, 0.8)
    assert np.allclose(kept, [[[1, 0], [1, 85 / 90]]])  # 30 < 0.8 x 90 of the same place; 85 >= 0.8 x 100


def test_neighbours_within_a_radius():
    steps = [(h[0].start - t[0].start, h[1].start - t[1].start) for h, t in neighbours((5, 6), 1.0)]
    assert len(steps) == 5 and steps[0] == (0, 0)
    assert len(list(neighbours((5, 6), 1.5))) == 9
    assert len(list(neighbours((1, 6), 1.0))) == 3


def test_pictures_hold_the_strongest_peak_of_each_cell():
    assert cells((30, 50), 10) == (5, (6, 10))
    place = np.array([[[7 * 50 + 12, 8 * 50 + 13, -1]]])
    light = np.array([[[2.0, 3.0, 0.0]]], np.float32)
    image = pictures(place, light, (30, 50), 10)
    assert image.shape == (1, 1, 6, 10) and image[0, 0, 1, 2] == 3 and image.sum() == 3


def test_pooling_by_hand_and_lost_positions():
    images = np.zeros((1, 3, 1, 2), np.float32)
    images[0, :, 0] = [[6, 0], [0, 3], [3, 9]]
    seen = np.array([[True, True, True]])
    assert np.allclose(pooled(images, seen, 1.0, "max")[0, :, 0], [[6, 3], [6, 9], [3, 9]])
    assert np.allclose(pooled(images, seen, 1.0, "mean")[0, :, 0], [[3, 1.5], [3, 4], [1.5, 6]])
    assert pooled(images, seen, 1.0, "none") is images
    images[0, 2] = 0
    lost = pooled(images, np.array([[True, True, False]]), 1.0, "mean")
    assert np.allclose(lost[0, 1, 0], [3, 1.5])  # the mean of the two that are there


@pytest.fixture
def frame():
    frame = np.full((23, 31), 10, np.uint16)
    frame[5, 7], frame[5, 8], frame[20, 30] = 60, 30, 40
    frame[12, 15] = 500  # of the substrate
    level = np.full((23, 31), 10, np.float32)
    level[12, 15] = 500
    return Batch(np.array([0]), frame[None]), Standing(level, np.full((23, 31), 3.0, np.float32))


def test_strongest_peaks_leave_out_what_stands_still(frame):
    place, light = strongest_peaks(*frame, threshold=6, most=4)
    assert place[0].tolist() == [5 * 31 + 7, 20 * 31 + 30, -1, -1]
    assert light[0].tolist() == [70, 30, 0, 0]


def test_whole_frames_as_pictures(frame):
    batch, still = frame
    image = brightest_in_cells(batch, still, 6.0, 8)[0]
    assert image.shape == (6, 8) and image[1, 1] == 50 and image[1, 2] == 20 and image[5, 7] == 30 and image.sum() == 100


def test_masked_counts_are_no_peak_and_saturated_ones_are(frame):
    batch, still = frame
    frames = batch.frames.copy()
    frames[0, 20, 30] = 65535
    mask = np.ones(frames.shape, bool)
    mask[0, 20, 30] = mask[0, 5, 7] = False
    place, _ = strongest_peaks(Batch(batch.index, frames, mask=mask), still, threshold=6, most=2)
    assert place[0].tolist() == [20 * 31 + 30, 5 * 31 + 8]
