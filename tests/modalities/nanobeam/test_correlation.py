import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.modalities.nanobeam.estimators.correlation import AXES, Correlation, library_frames, read_out
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.phantom import uniform

RANGES = (5e-3, 0.05, 0.1)


def full_library_fit(counts, grid, frame_shape):
    """The published fit as published: every library frame, then the marginals."""
    strain, omega, chi = (np.linspace(-r, r, grid) for r in RANGES)
    library = np.stack([library_frames(published(), frame_shape, e, omega, chi) for e in strain]).astype(np.float64)
    scores = np.einsum("fp,eocp->feoc", counts.reshape(len(counts), -1).astype(np.float64), library, optimize=True)
    marginals = np.stack([scores.sum((2, 3)), scores.sum((1, 3)), scores.sum((1, 2))], axis=1)
    return read_out(marginals, RANGES)


def test_summed_templates_give_the_full_library_fit():
    scan = uniform(published(), shape=(40,), frame_shape=(60, 56), seed=4)
    counts = scan.frames(np.arange(40))
    found = Correlation(published(), grid=7).fit(Batch(np.arange(40), counts))
    expected = full_library_fit(counts, 7, (60, 56))
    for i, name in enumerate(AXES):  # float32 templates and sums: 1e-5 of the range
        assert np.abs(found[name] - expected[:, i]).max() < 1e-5 * RANGES[i], name


def test_the_read_out_is_the_centre_of_mass_above_the_minimum():
    marginals = np.array([[[1.0, 1.0, 3.0, 1.0, 2.0]]])
    assert read_out(marginals, (0.4,))[0, 0] == pytest.approx(0.4 * (2 * 0.0 + 1 * 1.0) / 3)
    assert np.isnan(read_out(np.ones((1, 1, 5)), (0.4,))[0, 0])


def test_estimates_follow_the_truth_with_the_right_sign():
    scan = uniform(published(), shape=(60,), seed=5)
    found = Correlation(published(), grid=9).fit(Batch(np.arange(60), scan.frames(np.arange(60))))
    for name in AXES:
        assert np.corrcoef(found[name], scan.truth[name])[0, 1] > 0.7, name  # strain is coupled with omega


def test_dark_and_masked_frames_are_flagged():
    frames = np.zeros((2, 64, 64), np.uint16)
    frames[1, 30:40, 5:10] = 9
    mask = np.ones(frames.shape, bool)
    mask[1, 0, 0] = False
    found = Correlation(published(), grid=3).fit(Batch(np.arange(2), frames, mask=mask))
    assert found["flag"].tolist() == [4, 2] and np.isnan(found["strain"][0]) and np.isfinite(found["strain"][1])


@pytest.mark.parametrize(
    ("values", "name"), [({"grid": 1}, "grid"), ({"chi_range": -1.0}, "chi_range"), ({"strain_range": 2.0}, "strain_")]
)
def test_a_bad_option_is_named(values, name):
    with pytest.raises(InputError, match=f"option {name}"):
        Correlation(published(), **values)
