"""DFXM moments: closed forms, pedestal, error bars, masked and lost frames, one to three motors, a reference program."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.maps import flag_counts, quantity_names
from braggscope.core.simulation import Simulation
from braggscope.core.source import open_scan
from braggscope.modalities.dfxm.estimators.moments import Moments
from braggscope.modalities.dfxm.phantoms.drawing import CAMERA
from braggscope.modalities.dfxm.phantoms.grains import bent_crystal, subgrains

DATA = Path(__file__).parents[4] / "shared" / "data" / "dfxm"
EXAMPLES = Path(__file__).parents[3] / "examples" / "data"


class Stack:
    """A source of given frames over given motors."""

    modality, geometry, provenance = "dfxm", None, {}

    def __init__(self, frames, **motors):
        self.frames = frames
        self.grid = xr.Dataset(coords={n: ((n,), np.asarray(x, float), {"units": "deg"}) for n, x in motors.items()})
        self.shape = tuple(len(x) for x in motors.values())
        self.frame_shape = frames.shape[1:]

    def batches(self, size=None, *, only=None):
        yield Batch(np.arange(len(self.frames)), self.frames)


def run(source, batches=None, **options):
    estimator = Moments.with_options(None, options)
    state = estimator.init(source)
    for batch in batches if batches is not None else source.batches():
        state = estimator.update(state, batch)
    return estimator.result(state)


@cache
def counts_of(maker=subgrains, shape=(41,), frame_shape=(30, 26), peak=800.0, seed=3):
    source = maker(None, shape=shape, frame_shape=frame_shape, peak=peak, seed=seed)
    return source, source.frames(np.arange(math.prod(shape)))


def z_scores(source, result, name):
    z = ((result[name] - source.truth[name]) / result[f"{name}_std"]).values[result["flag"].values == 0]
    assert len(z) >= 300
    return z


# --- closed forms


def test_moments_of_a_hand_computed_stack():
    # two pixels (one row, two columns) over mu = 10, 12, 14, 16 deg; pedestal 2 given: 100,300,300,100 and 0,0,400,400 above it
    frames = np.array([[102, 2], [302, 2], [302, 402], [102, 402]], np.uint16).reshape(4, 1, 2)
    m = run(Stack(frames, mu=[10, 12, 14, 16]), pedestal=2, gain=1, readout=0)
    np.testing.assert_allclose(m["total"].values, [[800, 800]])
    np.testing.assert_allclose(m["mu"].values, [[13, 15]])
    np.testing.assert_allclose(m["mu_width"].values, [[math.sqrt(3), 1]])
    np.testing.assert_allclose(m["mu_skewness"].values, [[0, 0]], atol=1e-12)
    # fourth moment (81 + 3 + 3 + 81) 100 / 800 = 21, over 9; and 1 over 1
    np.testing.assert_allclose(m["mu_kurtosis"].values, [[21 / 9 - 3, 1 - 3]])
    # counting alone: Var(total) = total, Var(mean) = width^2 / total, Var(width) = (kurtosis - 1) width^2 / (4 total)
    np.testing.assert_allclose(m["total_std"].values, np.sqrt([[800, 800]]))
    np.testing.assert_allclose(m["mu_std"].values, np.sqrt([[3 / 800, 1 / 800]]))
    np.testing.assert_allclose(m["mu_width_std"].values, np.sqrt([[(21 / 9 - 1) * 3 / 3200, 0]]), atol=1e-9)


def test_covariance_of_two_motors_by_hand():
    # chi = 0, 1 and mu = 0, 2, 4; all weight on the diagonal (0, 0), (1, 4), twice as much on the second
    frames = np.zeros((6, 1, 1), np.uint16)
    frames[0], frames[5] = 30, 60
    m = run(Stack(frames, chi=[0, 1], mu=[0, 2, 4]), pedestal="none", gain=2, readout=0)
    assert m["chi"].item() == pytest.approx(2 / 3) and m["mu"].item() == pytest.approx(8 / 3)
    # <xy> - <x><y> = 8/3 - 16/9 = 8/9
    assert m["chi_mu_covariance"].item() == pytest.approx(8 / 9)
    # q' = z_x z_y - 8/9: at (0,0) 16/9 - 8/9, at (1,4) 4/9 - 8/9; <q'^2> = (1/3) 64/81 + (2/3) 16/81 = 32/81; gain 2, T 90
    assert m["chi_mu_covariance_std"].item() == pytest.approx(math.sqrt(2 * 32 / 81 / 90))


def test_error_bars_of_readout_and_pedestal_are_those_of_the_jacobian():
    source, frames = counts_of()
    row, column = 15, 13
    curve = frames[:, row, column].astype(float)
    m = run(source, pedestal=100.0, gain=2.0, readout=3.0)
    x = source.grid["mu"].values

    def quantities(y):
        w = y - 100.0
        total = w.sum()
        mean = (w * x).sum() / total
        c = [(w * (x - mean) ** k).sum() / total for k in range(5)]
        return np.array([total, mean, math.sqrt(c[2]), c[3] / c[2] ** 1.5, c[4] / c[2] ** 2 - 3])

    steps = np.eye(len(x)) * 1e-3
    jacobian = np.array([(quantities(curve + s) - quantities(curve - s)) / 2e-3 for s in steps]).T
    variance = 2.0 * (curve - 100.0) + 9.0  # linear in the counts, as the sums have it: not cut at zero
    expected = np.sqrt((jacobian**2 * variance).sum(axis=1))
    pixel = m.isel(row=row, column=column)
    names = ["total", "mu", "mu_width", "mu_skewness", "mu_kurtosis"]
    np.testing.assert_allclose([pixel[n].item() for n in names], quantities(curve), rtol=1e-9)
    np.testing.assert_allclose([pixel[f"{n}_std"].item() for n in names], expected, rtol=1e-5)


# --- pedestal, noise, error bars


@pytest.mark.parametrize(("shape", "peak"), [((41,), 15000.0), ((41,), 800.0), ((26, 37), 4000.0)])
def test_errors_are_calibrated(shape, peak):
    source, frames = counts_of(shape=shape, peak=peak, frame_shape=(60, 80) if len(shape) == 1 else (30, 40))
    m = run(source, [Batch(np.arange(len(frames)), frames)])
    for name in quantity_names(m):
        z = z_scores(source, m, name)
        if name.endswith("kurtosis") and peak < 1000:
            continue  # known to +-1 only: beyond first-order propagation
        assert abs(z.mean()) < 0.05 + 3 / math.sqrt(len(z)), (name, z.mean())
        assert 0.9 <= z.std() <= 1.1, (name, z.std())


def test_the_pedestal_is_unbiased_to_a_tenth_of_its_error():
    source, frames = counts_of(maker=bent_crystal, shape=(61,), frame_shape=(60, 80), peak=2000.0)
    m = run(source, [Batch(np.arange(len(frames)), frames)])
    assert abs(z_scores(source, m, "pedestal").mean()) < 0.1


@pytest.mark.parametrize("gain", [0.5, 2.0, 8.0])
def test_gain_and_readout_are_recovered(gain):
    noise = type(CAMERA)(gain=gain, offset=300.0, readout=4.0)
    m = run(bent_crystal(None, shape=(41,), frame_shape=(40, 50), peak=500.0, noise=noise))
    assert m.attrs["gain_from"] == "photon transfer"
    # 10 %: curvature of the peaks and the classes of signal; 1/12 is the rounding to whole counts
    assert m.attrs["gain"] == pytest.approx(gain, rel=0.1)
    assert m.attrs["readout"] == pytest.approx(math.sqrt(16 + 1 / 12), rel=0.05)


def test_gain_is_recovered_where_positions_are_uneven():
    """Positions a tenth of a step off; plain differences would take the slope of the peak for noise (37 % too much)."""
    random = np.random.default_rng(4)
    x = np.arange(41) + random.normal(0, 0.1, 41)
    centre = random.uniform(15, 25, (40, 50))
    photons = random.poisson(2000 * np.exp(-0.5 * ((x[:, None, None] - centre) / 3) ** 2))
    frames = np.round(100 + 2 * photons + random.normal(0, 3, photons.shape)).astype(np.uint16)
    assert run(Stack(frames, mu=x)).attrs["gain"] == pytest.approx(2.0, rel=0.1)


def test_the_shape_of_a_weak_peak_is_not_given():
    """Peaks of some 100 photons over read-out noise: their skewness means nothing, their mean does."""
    random = np.random.default_rng(5)
    x = np.arange(41.0)
    expected = 14 * np.exp(-0.5 * ((x[:, None, None] - 20) / 3) ** 2) * np.ones((30, 40))
    frames = np.round(100 + 2 * random.poisson(expected) + random.normal(0, 3, expected.shape)).astype(np.uint16)
    m = run(Stack(frames, mu=x), gain=2, readout=3)
    assert flag_counts(m)["shape_hidden_by_noise"] > 600
    hidden = (m["flag"].values == 32) & np.isfinite(m["mu"].values)
    assert np.isnan(m["mu_kurtosis"].values[hidden]).all()
    z = ((m["mu"] - 20) / m["mu_std"]).values[hidden]
    assert abs(z.mean()) < 0.15 and 0.85 < z.std() < 1.15


def test_a_gain_that_cannot_be_measured_is_said_to_be_assumed():
    m = run(bent_crystal(None, shape=(6,), frame_shape=(8, 9)))
    assert (m.attrs["gain"], m.attrs["gain_from"]) == (1.0, "assumed")


def test_pixels_without_signal_are_nan_and_flagged_not_failed():
    source, frames = counts_of(frame_shape=(30, 40))
    m = run(source, [Batch(np.arange(len(frames)), frames)])
    dark = np.isnan(source.truth["mu"].values)
    assert dark.sum() > 100
    assert (m["flag"].values[dark] & 2 == 2).mean() > 0.99 and np.isnan(m["mu"].values[dark]).mean() > 0.99
    assert np.isfinite(m["pedestal"].values).all()


def test_a_peak_that_fills_the_scan_is_flagged():
    x = np.linspace(-1, 1, 41)
    frames = np.round(100 + 5000 * np.exp(-0.5 * ((x - 0.4) / 0.9) ** 2))[:, None, None] * np.ones((1, 3, 4))
    m = run(Stack(frames.astype(np.uint16), mu=x), gain=1, readout=3)
    assert flag_counts(m)["no_background_outside_the_peak"] == 12 and flag_counts(m)["peak_cut_by_the_end_of_the_scan"] == 12


# --- frames: order, loss, masks


def test_masked_counts_are_as_if_the_frame_were_missing_for_that_pixel():
    source, frames = counts_of()
    keep = np.ones(41, bool)
    keep[[4, 20]] = False
    mask = np.ones(frames.shape, bool)
    mask[~keep, 10:14, 9:13] = False
    mask[:, 0, 0] = False
    spoiled = np.where(mask, frames, 60000)
    options = {"gain": 2.0, "readout": 3.0}
    whole = run(source, **options)
    masked = run(source, [Batch(np.arange(41), spoiled, mask=mask)], **options)
    lost = run(source, [Batch(np.flatnonzero(keep), frames[keep])], **options)
    inside = (slice(10, 14), slice(9, 13))
    for name in [*quantity_names(whole), *(f"{n}_std" for n in quantity_names(whole))]:
        np.testing.assert_allclose(masked[name].values[inside], lost[name].values[inside], rtol=1e-3, err_msg=name)
        # the noise of the detector is measured on fewer counts, which the error bars show
        np.testing.assert_allclose(masked[name].values[20:], whole[name].values[20:], rtol=1e-3, err_msg=name)
    assert flag_counts(masked)["some_counts_masked"] == 16
    assert masked["flag"].values[0, 0] == 1 and np.isnan(masked["total"].values[0, 0])


def test_one_frame_at_a_time_gives_the_same_bits():
    source, frames = counts_of()
    single = run(source, [Batch(np.array([i]), frames[i : i + 1]) for i in np.random.default_rng(0).permutation(41)])
    xr.testing.assert_identical(single, run(source, [Batch(np.arange(41), frames)]))


def test_measured_positions_are_used_and_the_order_is_of_no_consequence():
    source, frames = counts_of()
    grid = source.grid.copy()
    jitter = 0.01 * np.random.default_rng(2).normal(size=41)
    grid["measured_mu"] = ("mu", grid["mu"].values + jitter)
    moved = Simulation(None, grid, source.frame_shape, source.expected, source.truth, source.noise, source.seed)
    m = run(moved, [Batch(np.arange(41), frames)], pedestal=100.0)
    w = frames[:, 15, 13].astype(float) - 100
    assert m["mu"].values[15, 13] == pytest.approx((w * grid["measured_mu"].values).sum() / w.sum(), rel=1e-10)
    order = np.random.default_rng(1).permutation(41)
    again = run(moved, [Batch(order[:20], frames[order[:20]]), Batch(order[20:], frames[order[20:]])], pedestal=100.0)
    for name in quantity_names(m):
        np.testing.assert_allclose(m[name], again[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", [np.uint8, np.uint32, np.int32, np.float32, np.float64, ">u2"])
def test_every_type_of_counts_gives_the_same_map(kind):
    source, frames = counts_of(peak=60.0)
    counts = np.clip(frames, 0, 255)
    batch = [Batch(np.arange(41), counts.astype(np.uint16))]
    expected = run(source, batch, gain=2.0, readout=3.0)
    got = run(source, [Batch(np.arange(41), counts.astype(kind))], gain=2.0, readout=3.0)
    for name in quantity_names(expected):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, err_msg=name)


def test_three_motors():
    source, frames = counts_of(maker=bent_crystal, shape=(9, 11, 10), frame_shape=(12, 40), peak=4000.0)
    m = run(source, [Batch(np.arange(len(frames)), frames)])
    names = {"chi", "mu", "ccmth", "chi_mu_covariance", "chi_ccmth_covariance", "mu_ccmth_covariance", "total", "pedestal"}
    assert names < set(quantity_names(m))
    good = m["flag"].values & ~8 == 0
    for name in names:
        z = ((m[name] - source.truth[name]) / m[f"{name}_std"]).values[good]
        assert abs(z.mean()) < 0.3 and 0.8 < z.std() < 1.2, (name, z.mean(), z.std())


# --- options and borders


@pytest.mark.parametrize(
    ("option", "value"),
    [("pedestal", "low"), ("pedestal", "VALUE"), ("gain", "0"), ("gain", "-2"), ("readout", "-1"), ("gain", "nan")],
)
def test_a_bad_option_is_named(option, value):
    with pytest.raises(InputError, match=option):
        Moments.with_options(None, {option: value})


def test_four_motors_are_refused():
    frames = np.zeros((16, 2, 3), np.uint16)
    with pytest.raises(InputError, match="one to three motors, got 4"):
        Moments(None).init(Stack(frames, a=[0, 1], b=[0, 1], c=[0, 1], d=[0, 1]))


# --- an independent program: darling 1.0.0, moments in float32, no pedestal subtracted


@pytest.mark.skipif(not DATA.is_dir(), reason="the real scans are not in this checkout")
@pytest.mark.parametrize(
    ("scan", "reference"),
    [
        ("id03_rocking_mu_fatigue.h5", "reference_rocking_mu_darling_darfix.npz"),
        ("id03_mosa_domains_111_Al_chi_diffry.h5", "reference_domains_darling.npz"),
    ],
)
def test_raw_moments_equal_those_of_darling(scan, reference):
    scan, known = open_scan(DATA / scan), np.load(DATA / reference)
    m = run(scan, pedestal="none")
    motors = list(scan.grid.dims)
    mean = known["mean_raw"].reshape(*scan.frame_shape, len(motors))
    covariance = known["cov_raw"].reshape(*scan.frame_shape, len(motors), len(motors))
    lit = np.isfinite(m["total"].values) & (m["flag"].values & 3 == 0)
    assert lit.mean() > 0.99
    for i, name in enumerate(motors):
        axis = scan.grid[name].values
        step = np.ptp(axis) / (len(axis) - 1)
        assert np.abs(m[name].values - mean[..., i])[lit].max() < 2e-5 * step  # float32 of the reference
        assert np.abs(m[f"{name}_width"].values ** 2 - covariance[..., i, i])[lit].max() < 5e-4 * step**2


def test_background_throughout_is_no_signal_whatever_rounding_leaves_of_the_total():
    random = np.random.default_rng(4)
    counts = random.normal(2600, 20, (150, 12, 40)).round().astype(np.uint16)
    grid = xr.Dataset(coords={"mu": (("mu",), np.linspace(0.29, 0.44, 150), {"units": "deg"})})
    source = Simulation(None, grid, (12, 40), lambda index: counts[index], xr.Dataset(), None)
    estimator = Moments(None)
    state = estimator.init(source)
    for start in range(0, 150, 30):
        index = np.arange(start, start + 30)
        state = estimator.update(state, Batch(index, counts[index]))
    result = estimator.result(state)
    words = dict(zip(result["flag"].attrs["flag_meanings"].split(), result["flag"].attrs["flag_masks"], strict=True))
    dark = (result["flag"].values & words["no_signal"]) != 0
    assert dark.mean() > 0.95 and np.nanmax(np.abs(result["mu"].values), initial=0) < 1
