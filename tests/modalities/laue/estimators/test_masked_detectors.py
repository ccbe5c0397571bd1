"""Every method on scans whose detector is masked or saturated: in part it maps with what is left, as a whole it says so."""

import dataclasses

import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.modality import modality
from braggscope.engine.local import run
from braggscope.modalities.laue.geometry import film
from braggscope.modalities.laue.phantoms.film import film as film_scan

LAUE = modality("laue")
METHODS = [name for name in LAUE.methods() if name != "intensity"]  # which has no peaks


@dataclasses.dataclass(frozen=True)
class Masked:
    """A scan with other counts, and a mask of those that may be used."""

    source: object
    change: object

    def __getattr__(self, name):
        return getattr(object.__getattribute__(self, "source"), name)

    def batches(self, size=None, *, only=None):
        for batch in self.source.batches(size, only=only):
            frames, mask = self.change(batch.frames)
            yield Batch(batch.index, frames, mask=mask)


@pytest.fixture(scope="module")
def scan():
    return film_scan(film(), shape=(6, 7), frame_shape=(244, 204), size=1.0, step=0.25, seed=2)


def mapped(name, source):
    method = LAUE.estimator(name).with_options(source.geometry, LAUE.example_options.get(name, {}))
    method = method.prepare(source)
    *_, last = run(source, method)
    return method.result(last.state)


def third_masked(frames):
    mask = np.ones(frames.shape, bool)
    mask[:, :80] = False
    return np.where(mask, frames, 0).astype(frames.dtype), mask


def saturated(frames):
    return np.full(frames.shape, 65535, np.uint16), np.zeros(frames.shape, bool)


@pytest.mark.parametrize("name", METHODS)
def test_a_detector_that_is_masked_in_part_still_tells_grains(scan, name):
    found = mapped(name, Masked(scan, third_masked))
    assert np.nanmax(found["grain"].values) >= 1


@pytest.mark.parametrize("name", METHODS)
def test_a_detector_that_is_saturated_tells_none_and_that_is_said(scan, name):
    try:
        found = mapped(name, Masked(scan, saturated))
    except InputError as error:
        assert "saturated or masked" in str(error)
    else:
        assert np.nanmax(found["grain"].values) == 0 and (found["flag"].values != 0).all()
