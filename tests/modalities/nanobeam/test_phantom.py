import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.modalities.nanobeam import MODALITY
from braggscope.modalities.nanobeam.geometry import published

each = pytest.mark.parametrize("name", list(MODALITY.phantoms))


@each
@pytest.mark.parametrize("shape", [(6, 9), (11,)])
def test_truth_stays_in_the_published_range(name, shape):
    source = MODALITY.phantom(name)(published(), shape=shape, seed=3)
    assert source.shape == shape and source.frame_shape == (64, 64)
    for quantity, high in (("strain", 5e-3), ("omega", 0.05), ("chi", 0.1)):
        assert np.abs(source.truth[quantity]).max() <= high and source.truth[quantity].attrs["units"]
    assert source.truth.sizes == source.grid.sizes


@each
def test_the_brightest_pixel_is_the_peak(name):
    """Within 3 %: no pixel is all on the fringe's maximum, and a sample need not put it inside the ring."""
    source = MODALITY.phantom(name)(published(), shape=(8, 8), peak=500.0, noise=None)
    assert 0.97 * 500 < source.frames(np.arange(64)).max() <= 500.0001


@each
def test_counts_are_poisson(name):
    source = MODALITY.phantom(name)(published(), shape=(30,), frame_shape=(60, 62), peak=20.0)
    silent = MODALITY.phantom(name)(published(), shape=(30,), frame_shape=(60, 62), peak=20.0, noise=None)
    counts, mean = source.frames(np.arange(30)), silent.frames(np.arange(30))
    assert np.array_equal(counts, np.round(counts))
    assert ((counts - mean) ** 2 / mean).mean() == pytest.approx(1, abs=0.03)  # 110 000 pixels of variance 2 to 12


def test_the_published_sample_spans_the_full_range():
    truth = MODALITY.phantom("sinusoid_sigmoid")(published(), shape=(41, 41)).truth
    assert (
        np.ptp(truth["strain"].values) > 9.5e-3 and np.ptp(truth["omega"].values) > 0.095 and np.ptp(truth["chi"].values) > 0.19
    )


def test_the_wedge_grows_along_x():
    thickness = MODALITY.phantom("wedge")(published(), shape=(3, 5)).truth["thickness"]
    assert thickness.dims == ("y", "x") and np.allclose(thickness, [80, 135, 190, 245, 300])


def test_the_geometry_sets_the_threshold():
    frames = MODALITY.phantom("uniform")(published().replace(threshold=2.0), shape=(4,)).frames(np.arange(4))
    assert not (frames == 1).any() and (frames == 2).any()


def test_bad_shapes_and_peaks_are_refused():
    with pytest.raises(InputError, match=r"one or two positive lengths, got \(2, 2, 2\)"):
        MODALITY.phantom("domains")(published(), shape=(2, 2, 2))
    with pytest.raises(InputError, match=r"peak must be above the background .* got 0.05"):
        MODALITY.phantom("domains")(published(), shape=(2,), peak=0.05)
