"""The deviance of frames at given strain and tilts: its expectation and scatter, and what a threshold does to it."""

import numpy as np
import pytest

from braggscope.modalities.nanobeam import compiled, phantom
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.goodness import goodness


@pytest.mark.parametrize("limits", [{}, {"threshold": 2.0}, {"saturation": 7.0}])
def test_at_the_truth_the_deviance_is_as_expected(limits):
    geometry = published().replace(**limits)
    scan = phantom.uniform(geometry, shape=(800,), peak=7.0, seed=6)
    truth = {n: scan.truth[n].values for n in ("strain", "omega", "chi", "thickness")}
    found = goodness(compiled.tables(geometry, (64, 64)), scan.frames(np.arange(800)), None, truth)
    z = (found["deviance"] - found["expected"]) / np.sqrt(found["variance"])
    assert abs(z.mean()) < 4 / np.sqrt(800)
    assert 0.9 < z.std() < 1.1  # 4 standard errors are 0.1
    assert abs(np.median(found["scale"]) - 6.9) < 0.05
    assert abs(np.median(found["background"]) - 0.1) < 0.01
