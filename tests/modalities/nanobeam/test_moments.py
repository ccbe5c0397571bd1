import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.modalities.nanobeam.estimators.moments import Moments


def frames_of(*frames):
    return Batch(np.arange(len(frames)), np.array(frames))


def spot(row, column, counts=100, shape=(6, 10)):
    frame = np.zeros(shape, np.uint16)
    frame[row, column] = counts
    return frame


def test_one_bright_pixel_is_total_and_centre():
    values = Moments(None).fit(frames_of(spot(1, 7), spot(4, 2, 25)))
    assert values["total"].tolist() == [100, 25] and values["total_std"].tolist() == [10, 5]
    assert values["row"].tolist() == [1, 4] and values["column"].tolist() == [7, 2]
    assert values["row_std"].tolist() == [0, 0]
    assert values["top"].tolist() == [100, 0] and values["left"].tolist() == [0, 25]
    assert values["flag"].tolist() == [0, 0]


def test_errors_are_those_of_counting():
    rng = np.random.default_rng(3)
    mean = 2 + 3 * rng.random((6, 10))
    frames = rng.poisson(mean, (4000, 6, 10))
    values = Moments(None, regions="quadrants").fit(Batch(np.arange(4000), frames))
    truth = Moments(None, regions="quadrants").fit(Batch(np.arange(1), mean[None]))
    for name in ("total", "row", "column", "top_left", "bottom_right"):
        z = (values[name] - truth[name]) / values[f"{name}_std"]
        assert abs(z.mean()) < 0.15 and 0.95 < z.std() < 1.08, name  # the skew of small sums moves z by about 1/(2 sqrt n)


def test_rectangles_are_summed_as_given():
    values = Moments(None, regions="0:2,5:10; 3:6,0:10").fit(frames_of(spot(1, 7), spot(4, 2, 25)))
    assert values["region_1"].tolist() == [100, 0] and values["region_2"].tolist() == [0, 25]


def test_masked_counts_are_left_out_and_flagged():
    frames = np.array([spot(1, 7), spot(4, 2)])
    mask = np.ones(frames.shape, bool)
    mask[0, 1, 7] = False
    values = Moments(None).fit(Batch(np.arange(2), frames, mask=mask))
    assert values["total"].tolist() == [0, 100] and values["flag"].tolist() == [2 | 4, 0]
    assert np.isnan(values["row"][0]) and values["row"][1] == 4


@pytest.mark.parametrize("words", ["0:7,0:10", "0:2", "a:b,c:d", "3:2,0:5"])
def test_a_bad_region_is_named(words):
    with pytest.raises(InputError, match=r"regions.*(rectangles|inside the frame of 6 rows x 10 columns)"):
        Moments(None, regions=words).fit(frames_of(spot(1, 7)))
