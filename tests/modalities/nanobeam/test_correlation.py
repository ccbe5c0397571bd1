import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.modalities.nanobeam.estimators.correlation import AXES, Correlation, fringes, library_frames, read_out
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


def test_an_axis_of_thicknesses_gives_the_full_library_fit():
    scan = uniform(published(), shape=(20,), frame_shape=(60, 56), seed=6)
    counts = scan.frames(np.arange(20)).reshape(20, -1).astype(np.float64)
    strain, omega, chi = (np.linspace(-r, r, 4) for r in RANGES)
    films = np.array([70.0, 110.0, 150.0, 190.0])
    library = np.stack(
        [[library_frames(published().replace(thickness_a=t), (60, 56), e, omega, chi) for e in strain] for t in films]
    ).astype(np.float64)
    scores = np.einsum("fp,teocp->fteoc", counts, library, optimize=True)
    over = [(1, 3, 4), (1, 2, 4), (1, 2, 3), (2, 3, 4)]
    expected = read_out(np.stack([scores.sum(axes) for axes in over], axis=1), (*RANGES, 60.0))
    method = Correlation(published(), grid=4, thickness="free", thickness_low=70.0, thickness_high=190.0)
    found = method.fit(Batch(np.arange(20), counts.reshape(20, 60, 56)))
    for i, (name, half) in enumerate(zip(AXES, RANGES, strict=True)):
        assert np.abs(found[name] - expected[:, i]).max() < 3e-5 * half, name
    assert np.abs(found["thickness"] - 130 - expected[:, 3]).max() < 3e-5 * 60
    assert [q.name for q in method.quantities()] == [*AXES, "thickness"]


def test_the_fringe_of_the_library_is_that_of_the_forward_model():
    omega, films, pixel = np.array([-0.02, 0.03]), np.array([90.0, 250.0]), (60 // 2) * 56
    at = [library_frames(published().replace(thickness_a=t), (60, 56), 2e-3, omega, np.zeros(1), relative=False) for t in films]
    shade = fringes(published(), 56, 2e-3, omega, films)
    row = slice(pixel, pixel + 56)
    lit = at[0][:, 0, row] > 1e-3
    ratio = at[1][:, 0, row][lit] / at[0][:, 0, row][lit]
    assert ratio == pytest.approx((shade[:, 1] / shade[:, 0])[lit], rel=2e-5) and lit.sum() > 20


def test_the_thickness_read_out_lies_beyond_the_middle_of_its_grid_whatever_the_film():
    scan = uniform(published(), shape=(60,), seed=7, thickness=(80.0, 100.0))
    method = Correlation(published(), grid=9, thickness="free", thickness_low=67.0, thickness_high=167.0)
    found = method.fit(Batch(np.arange(60), scan.frames(np.arange(60))))
    assert (found["thickness"] > 117).mean() > 0.95


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
    ("values", "name"),
    [
        ({"grid": 1}, "grid"),
        ({"chi_range": -1.0}, "chi_range"),
        ({"strain_range": 2.0}, "strain_"),
        ({"thickness_low": 200.0}, "thickness_low"),
    ],
)
def test_a_bad_option_is_named(values, name):
    with pytest.raises(InputError, match=f"option {name}"):
        Correlation(published(), **values)
