"""Views of laue maps say when they have not what they need, and show what is there."""

import numpy as np
import pytest

from braggscope.modalities.laue.estimators.intensity import Intensity
from braggscope.modalities.laue.geometry import film as instrument
from braggscope.modalities.laue.phantoms.film import film
from braggscope.modalities.laue.views.grains import grain_map, label_colours
from braggscope.modalities.laue.views.overview import overview, pattern


@pytest.fixture(scope="module")
def scan_and_map():
    scan = film(instrument(), shape=(3, 4), frame_shape=(61, 51))
    method = Intensity(scan.geometry)
    state = method.init(scan)
    for batch in scan.batches():
        state = method.update(state, batch)
    return scan, method.result(state)


def test_the_overview_has_every_quantity_and_the_pattern_needs_the_scan(scan_and_map):
    scan, dataset = scan_and_map
    titles = [ax.get_title(loc="left") for ax in overview(dataset).axes]
    assert {"total (count)", "bright", "level (count)"} <= set(titles)
    assert pattern(dataset) is None
    assert "y = " in pattern(dataset, scan).axes[0].get_title(loc="left")


def test_grains_have_colours_of_their_own_and_none_is_grey(scan_and_map):
    scan, dataset = scan_and_map
    assert grain_map(dataset) is None
    known = dataset.assign(grain=scan.truth["grain"])
    assert f"{len(np.unique(scan.truth['grain']))} grains" in grain_map(known).axes[0].get_title(loc="left")
    colours = label_colours(np.arange(40))
    assert len(np.unique(colours.round(6), axis=0)) == 40 and np.ptp(colours[0]) == 0


def test_the_light_above_the_background_is_that_of_the_spots():
    """Of a bright pattern without noise on a level of 14: what the bright pixels hold, all but the feet of the spots."""
    from braggscope.core.batch import Batch

    scan = film(instrument(), shape=(1, 1), frame_shape=(244, 204), noise=None, hot=0.0, background=0.0, peak=1e5)
    frame = scan.frames(np.array([0]))
    found = Intensity(scan.geometry).fit(Batch(np.array([0]), frame + 14.0))
    assert found["level"] == pytest.approx(14.0, abs=0.1) and found["flag"] == 0
    assert 0.9 < found["total"] / frame.sum() <= 1.0
    dark = Intensity(scan.geometry).fit(Batch(np.array([0]), np.full((1, 9, 7), 3.0)))
    assert dark["flag"] == 4 and dark["total"] == 0
