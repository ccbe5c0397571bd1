"""The phantoms: what their scans show, the truth under the names of both methods, and options that cannot be."""

import math
import tracemalloc

import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.modalities.dfxm.estimators.moments import Moments
from braggscope.modalities.dfxm.geometry import DfxmGeometry, id03
from braggscope.modalities.dfxm.kernels import SHAPE_UNKNOWN
from braggscope.modalities.dfxm.phantoms.drawing import CAMERA
from braggscope.modalities.dfxm.phantoms.grains import bent_crystal, subgrains
from braggscope.modalities.dfxm.phantoms.scan import microscope
from braggscope.modalities.dfxm.phantoms.twins import crystal, twins
from braggscope.modalities.dfxm.phantoms.walls import dislocation_walls


def curves(source):
    """Frames without noise, shape (point, row, column)."""
    return source.frames(np.arange(math.prod(source.shape))).astype(float)


@pytest.mark.parametrize("shape", [(41,), (21, 27)])
def test_amplitude_and_background_are_in_detector_units(shape):
    source = bent_crystal(None, shape=shape, frame_shape=(6, 7), peak=700.0)
    silent = bent_crystal(None, shape=shape, frame_shape=(6, 7), peak=700.0, noise=None)
    truth = source.truth
    assert (truth["background"] == CAMERA.offset).all() and (silent.truth["background"] == 0).all()
    assert truth["amplitude"].max() == pytest.approx(CAMERA.gain * 700, rel=1e-9)
    np.testing.assert_allclose(truth["amplitude"], CAMERA.gain * silent.truth["amplitude"])
    # the highest point of the scan is within half a step of the peak's; the widths are 1.4 steps and more
    assert (curves(silent).max(axis=0) / silent.truth["amplitude"].values > (0.93 if len(shape) == 1 else 0.85)).all()


def test_walls_shine_on_the_flanks_and_are_dark_in_the_strong_beam():
    source = dislocation_walls(None, frame_shape=(60, 80), noise=None, seed=2, walls=2)
    frames, wall = curves(source), source.truth["wall"].values == 1
    assert 0.1 < wall.mean() < 0.3
    strong, flanks = frames[20], frames[[14, 26]].max(axis=0)
    assert strong[wall].mean() < 0.25 * strong[~wall].mean()
    assert flanks[wall].mean() > 8 * flanks[~wall].mean()
    # either side of a wall has its flank; only the cores shine on both
    low, high = frames[14][wall] > 100, frames[26][wall] > 100
    assert (low & ~high).mean() > 0.2 and (high & ~low).mean() > 0.2 and (low & high).mean() < 0.4


def test_wall_says_where_most_light_is_weak_beam_light():
    source = dislocation_walls(None, frame_shape=(40, 50), noise=None, shape=(401,), motors="mu:0.01")
    x, frames = source.grid["mu"].values, curves(source)
    matrix = 0.09 * 2.0  # of half the scan
    outside = frames[np.abs(x) > 2 * matrix].sum(axis=0) / frames.sum(axis=0)
    np.testing.assert_allclose(outside, source.truth["weak_light"], atol=0.03)  # a step is 0.06 widths
    assert ((outside > 0.5) == (source.truth["wall"].values == 1)).mean() > 0.99


@pytest.mark.parametrize("maker", [subgrains, bent_crystal, dislocation_walls])
def test_frames_come_in_any_order_and_hold_what_the_seed_says(maker):
    source, again = (maker(None, shape=(5, 6), frame_shape=(12, 14), seed=4, zingers=3, hot_pixels=0.05) for _ in range(2))
    frames = source.frames(np.arange(30))
    assert np.array_equal(frames[::-1], again.frames(np.arange(30)[::-1]))


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [("walls", 0, "walls must be positive and at most 100, got 0"), ("strength", -1.0, "strength must be positive"),
     ("jitter", 0.7, "jitter must be from 0 to 0.5, got 0.7"), ("hot_pixels", -0.1, "hot_pixels must be from 0"),
     ("peak", 0.0, "peak must be positive"), ("motors", "mu:x", "got 'mu:x'"),
     ("motors", "chi mu", "one motor for each of the 1"), ("motors", "theta", "step of 'theta'"),
     ("resolution", "sharp", "none, microscope or motors with widths"),
     ("resolution", "chi:0.1", "width for 'chi', but the scan moves mu")],
)  # fmt: skip
def test_an_option_that_cannot_be_is_named(option, value, sentence):
    with pytest.raises(InputError, match=sentence):
        dislocation_walls(None, frame_shape=(12, 14), **{option: value})


def moments_of(source):
    estimator = Moments.with_options(None, {})
    state = estimator.init(source)
    for batch in source.batches():
        state = estimator.update(state, batch)
    return estimator.result(state)


@pytest.mark.parametrize("maker", [dislocation_walls, twins, crystal])
def test_moments_recover_the_truth_within_their_error(maker):
    source = maker(None, shape=(81,), motors="mu:0.03", frame_shape=(50, 60), seed=1, peak=4000.0)
    result, truth = moments_of(source), source.truth
    # pixels whose fourth moment cannot be are kept: it cannot where the noise of the tails happens to be negative, so that
    # leaving them out would choose those whose width happens to be too large
    good = (result["flag"].values & ~SHAPE_UNKNOWN == 0) & (result["mu_width_std"] < 0.05 * result["mu_width"]).values
    for name, wanted in (("total", "total"), ("mu", "mu_all"), ("mu_width", "mu_width_all")):
        wanted = wanted if wanted in truth else name
        z = ((result[name] - truth[wanted]) / result[f"{name}_std"]).values[good]
        assert len(z) > 2000 and abs(z.mean()) < 0.1 and 0.93 < z.std() < 1.07, (name, z.mean(), z.std())


def test_where_two_peaks_are_the_truth_of_one_is_left_open_and_that_of_each_given():
    source = twins(None, shape=(161,), motors="mu:0.01", frame_shape=(40, 50), noise=None)
    truth, x, frames = source.truth, source.grid["mu"].values, curves(source)
    two, one = truth["peaks"].values == 2, truth["peaks"].values == 1
    assert 0.1 < two.mean() < 0.6 and one.mean() > 0.2
    for name in ("mu", "mu_width", "amplitude"):
        assert np.isnan(truth[name].values[two]).all() and np.isfinite(truth[name].values[one]).all()
        assert np.isfinite(truth[f"{name}_1"].values[two | one]).all()
        assert np.array_equal(np.isfinite(truth[f"{name}_2"].values), two)
        # one peak: both truths are the same but for what the scan cuts off the tails
        np.testing.assert_allclose(truth[f"{name}_1"].values[one], truth[name].values[one], rtol=1e-3, atol=1e-4)
    assert (truth["amplitude_1"].values >= truth["amplitude_2"].values)[two].all()
    made = sum(
        truth[f"amplitude_{k}"].values[two]
        * np.exp(-0.5 * ((x[:, None] - truth[f"mu_{k}"].values[two]) / truth[f"mu_width_{k}"].values[two]) ** 2)
        for k in (1, 2)
    )
    np.testing.assert_allclose(frames[:, two], made, rtol=1e-4, atol=1e-3)
    mean = np.tensordot(x, frames, 1)[two] / frames.sum(axis=0)[two]
    np.testing.assert_allclose(truth["mu_all"].values[two], mean, atol=1e-6)


def test_the_resolution_of_the_instrument_adds_in_quadrature_and_keeps_the_light():
    kept = {"shape": (31, 41), "motors": "chi:0.02 mu:0.02", "frame_shape": (5, 6), "noise": None}
    sharp, blurred = bent_crystal(id03(), **kept), bent_crystal(id03(), **kept, resolution="chi:0.03 mu:0.04")
    for name, width in (("chi", 0.03), ("mu", 0.04)):
        np.testing.assert_allclose(blurred.truth[f"{name}_width"], np.hypot(sharp.truth[f"{name}_width"], width), rtol=0.01)
        assert blurred.truth.attrs[f"resolution_{name}_deg"] == width
    # the covariance of the motors is the crystal's own
    np.testing.assert_allclose(blurred.truth["chi_mu_covariance"], sharp.truth["chi_mu_covariance"], rtol=0.03)
    light = (blurred.truth["total"] / sharp.truth["total"]).values
    np.testing.assert_allclose(light / light[0, 0], 1, rtol=0.01)
    assert sharp.truth["amplitude"].max() == pytest.approx(800) and blurred.truth["amplitude"].max() == pytest.approx(800)


def test_the_microscope_is_as_sharp_as_published():
    """Poulsen et al. 2021 at 17 keV: rocking, rolling and longitudinal widths from divergence, acceptance and bandwidth."""
    theta = math.radians(17.95 / 2)
    rock = 0.5 * math.hypot(0.53e-3, 7.31e-4) / 2.3548
    assert microscope("mu", 17.95) == pytest.approx(math.degrees(rock), rel=1e-4) == pytest.approx(0.01098, rel=1e-3)
    assert microscope("chi", 17.95) == pytest.approx(math.degrees(7.31e-4 / 2.3548 / (2 * math.sin(theta))), rel=1e-3)
    # a strain of 1 sends the monochromator tan(6.678 deg) and the objective 2 tan(theta) radians away
    strain = math.hypot(1.41e-4 / 2.3548, rock / math.tan(theta))
    assert microscope("ccmth", 17.95) == pytest.approx(math.degrees(strain * math.tan(math.radians(6.6784))), rel=1e-4)
    assert microscope("obpitch", 17.95) == pytest.approx(math.degrees(2 * strain * math.tan(theta)), rel=1e-4)
    source = bent_crystal(id03(), shape=(5, 5), frame_shape=(3, 4), resolution="microscope")
    assert source.truth.attrs["resolution_mu_deg"] == microscope("mu", 17.95)
    with pytest.raises(InputError, match="not 'diffrz': give its width"):
        bent_crystal(id03(), motors="diffrz:0.1", resolution="microscope")
    with pytest.raises(InputError, match="needs two_theta_deg"):
        bent_crystal(DfxmGeometry(), resolution="microscope")


def test_jitter_is_recorded_and_the_curves_are_those_of_the_places_reached():
    source = bent_crystal(None, shape=(9, 41), frame_shape=(4, 5), jitter=0.2, noise=None)
    grid, frames = source.grid, curves(source)
    off = (grid["measured_mu"] - grid["mu"]).values
    assert off.std() == pytest.approx(0.2 * 0.06, rel=0.15) and abs(off.mean()) < 0.002
    # the slow motor stands still along a line
    assert np.ptp(grid["measured_chi"].values, axis=1).max() == 0 and np.ptp(grid["measured_chi"].values[:, 0]) > 0
    at = np.stack([grid["measured_chi"].values.ravel(), grid["measured_mu"].values.ravel()])
    t = source.truth.isel(row=2, column=1)
    chi, mu, a, b, c = (float(t[n]) for n in ("chi", "mu", "chi_width", "mu_width", "chi_mu_covariance"))
    mean = at @ frames[:, 2, 1] / frames[:, 2, 1].sum()
    np.testing.assert_allclose(mean, [chi, mu], atol=1e-6)
    d = at - np.array([[chi], [mu]])
    gauss = np.exp(-0.5 * np.einsum("ip,ij,jp->p", d, np.linalg.inv([[a**2, c], [c, b**2]]), d))
    assert np.corrcoef(gauss, frames[:, 2, 1])[0, 1] > 0.99
    assert "measured_mu" not in bent_crystal(None, shape=(9,), frame_shape=(4, 5)).grid


def test_hot_pixels_lift_their_background_and_zingers_come_in_single_frames():
    clean, dirty = (
        bent_crystal(None, shape=(41,), frame_shape=(40, 50), peak=400.0, **more)
        for more in ({}, {"hot_pixels": 0.02, "zingers": 4.0})
    )
    background = dirty.truth["background"].values
    hot = background > 150
    assert 0.01 < hot.mean() < 0.03 and (background[~hot] == 100).all()
    np.testing.assert_allclose(dirty.truth["total"], clean.truth["total"])
    frames, without = curves(dirty), curves(clean)
    ends = frames[[0, -1]][:, hot]
    np.testing.assert_allclose(ends.mean(axis=0), background[hot], rtol=0.2)
    far = ((frames - without)[:, ~hot] > 450).sum()
    assert 41 * 4 * 0.7 < far < 41 * 4 * 1.3


def test_an_energy_scan_is_about_the_monochromators_angle():
    source = bent_crystal(id03(), shape=(5, 9), motors="chi ccmth", frame_shape=(3, 4), noise=None)
    # 12.3984 / (2 x 3.135601 sin t) = 17 keV
    assert source.grid["ccmth"].values.mean() == pytest.approx(6.67841, abs=1e-4)
    assert np.abs(source.truth["ccmth"] - 6.67841).max() < 0.02
    with pytest.raises(InputError, match=r"energy_kev above 1\.98, got 1\.5"):
        bent_crystal(DfxmGeometry(energy_kev=1.5), shape=(5,), motors="ccmth")
    assert bent_crystal(id03(), shape=(5,), motors="obpitch", frame_shape=(3, 4)).grid["obpitch"].values[2] == 17.95


def test_the_combined_crystal_has_subgrains_walls_and_lamellae():
    truth = crystal(None, frame_shape=(90, 120), seed=2).truth
    assert len(np.unique(truth["subgrain"])) > 6 and truth["subgrain"].min() == -1
    assert 0.01 < truth["wall"].mean() < 0.3 and (truth["peaks"] == 2).mean() > 0.02 and (truth["peaks"] == 0).any()
    share = truth["lamella"].values[truth["peaks"].values == 2]
    assert ((share > 0) & (share < 1)).all()


def test_a_frame_of_a_long_scan_needs_no_more_than_the_frame():
    source = twins(None, shape=(20, 30), frame_shape=(64, 80))
    tracemalloc.start()
    for batch in source.batches(8):
        assert batch.frames.shape == (8, 64, 80)
        if batch.index[0] > 40:
            break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 8 * 64 * 80 * 8  # a few frames of float64, of 600
