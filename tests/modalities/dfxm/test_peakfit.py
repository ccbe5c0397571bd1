"""Peak fits: the compiled model against the torch one, the estimate against another program, errors, evidence and flags."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.optimize
import torch
import xarray as xr

import braggscope
from braggscope.core.curves import pixel_blocks
from braggscope.core.errors import InputError
from braggscope.core.maps import flag_counts
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation
from braggscope.infer import peak_kernels
from braggscope.modalities.dfxm.carried import error_covariance
from braggscope.modalities.dfxm.estimators.peakfit import PeakFit
from braggscope.modalities.dfxm.forward import RockingCurve
from braggscope.modalities.dfxm.peaks import starts as peak_starts
from braggscope.modalities.dfxm.peaks import table as peak_table
from braggscope.modalities.dfxm.photon_transfer import DetectorNoise

CAMERA = Noise(gain=2.0, offset=100.0, readout=3.0)
GRIDS = {1: (31,), 2: (13, 15), 3: (7, 8, 9)}
NAMES = ("chi", "mu", "phi")


def coordinates(motors):
    """Positions in steps from the middle, shape (motor, point)."""
    axes = [np.arange(n) - (n - 1) / 2 for n in GRIDS[motors]]
    return np.array([m.ravel() for m in np.meshgrid(*axes, indexing="ij")])


def model(theta, x, base=1, peaks=1, shape=peak_kernels.GAUSSIAN):
    mean, jacobian = np.empty(x.shape[1]), np.empty((len(theta), x.shape[1]))
    room = peak_kernels.workspace(len(theta), *x.shape).room
    peak_kernels.model(np.asarray(theta, float), x, base, peaks, shape, mean, jacobian, room)
    return mean, jacobian


PEAK = {
    1: [120.0, 1.3, math.log(2.1)],
    2: [120.0, 1.3, -0.7, math.log(2.1), math.log(1.6), 0.4],
    3: [120.0, 1.3, -0.7, 0.4, math.log(2.1), math.log(1.6), math.log(1.9), 0.4, -0.3, 0.25],
}


@pytest.mark.parametrize("motors", [1, 2, 3])
def test_the_compiled_gaussian_is_the_forward_model(motors):
    x, theta = coordinates(motors), [7.0, *PEAK[motors]]
    layout = peak_table.Layout(motors, 1, len(theta) - 1)
    values, errors = np.array([theta]), np.full((1, len(theta), len(theta)), 1e-6)
    (peak,) = peak_table.describe(values, errors, layout, np.ones(motors), np.zeros(motors))
    curve = RockingCurve(dict(zip(NAMES, x, strict=False)))
    params = {n: (peak["centre"][0, i]) for i, n in zip(range(motors), NAMES, strict=False)}
    params |= {f"{n}_width": (peak["width"][0, i]) for i, n in zip(range(motors), NAMES, strict=False)}
    for n, (i, j) in enumerate(layout.pairs):
        correlation = peak["covariance"][0, n] / (peak["width"][0, i] * peak["width"][0, j])
        params[f"{NAMES[i]}_{NAMES[j]}_correlation"] = correlation
    det = math.exp(2 * sum(theta[2 + motors : 2 + 2 * motors]))  # |S|, whatever c
    params |= {"total": 120.0 * math.sqrt((2 * math.pi) ** motors * det), "pedestal": 7.0}
    params = {n: torch.as_tensor(float(v), dtype=torch.float64) for n, v in params.items()}
    # 3e-10 of the value is the accuracy of the compiled exponential, 1e-15 of the height its floor
    assert np.allclose(model(theta, x)[0], curve(params).numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_shapes_have_their_full_width_at_half_maximum(eta):
    half = math.sqrt(2 * math.log(2)) * 2.1
    x = np.array([[1.3, 1.3 - half, 1.3 + half, 9.0]])
    value, _ = model([0.0, 50.0, 1.3, math.log(2.1), eta], x, shape=peak_kernels.PSEUDO_VOIGT)
    far = 50 * ((1 - eta) * math.exp(-0.5 * (7.7 / 2.1) ** 2) + eta / (1 + (7.7 / half) ** 2))
    assert np.allclose(value, [50, 25, 25, far], rtol=1e-9)
    if eta == 1:
        assert np.allclose(model([0.0, 50.0, 1.3, math.log(2.1)], x, shape=peak_kernels.LORENTZIAN)[0], value, rtol=1e-12)


CASES = [(1, s, base) for s in (peak_kernels.GAUSSIAN, peak_kernels.LORENTZIAN, peak_kernels.PSEUDO_VOIGT) for base in (1, 2)]
CASES += [(2, peak_kernels.GAUSSIAN, 3), (3, peak_kernels.GAUSSIAN, 1)]


@pytest.mark.parametrize(("motors", "shape", "base"), CASES)
def test_derivatives_are_the_finite_differences_for_two_peaks(motors, shape, base):
    x = coordinates(motors)
    one = PEAK[motors] + ([0.3] if shape == peak_kernels.PSEUDO_VOIGT else [])
    other = [0.7 * one[0], *(-0.8 * v for v in one[1 : 1 + motors]), *one[1 + motors :]]
    theta = np.array([7.0, *([0.4] * (base - 1)), *one, *other])
    _, jacobian = model(theta, x, base, 2, shape)
    for k in range(len(theta)):
        step = 1e-5 * max(1.0, abs(theta[k]))
        ends = [model(theta + sign * step * (np.arange(len(theta)) == k), x, base, 2, shape)[0] for sign in (1, -1)]
        # 1e-6 of the steepest point: the polynomial of the exponential in a difference of 1e-5
        assert np.abs((ends[0] - ends[1]) / (2 * step) - jacobian[k]).max() < 3e-6 * np.abs(jacobian[k]).max(), k


@pytest.mark.parametrize("motors", [2, 3])
def test_errors_of_widths_and_covariances_follow_from_their_derivatives(motors):
    layout = peak_table.Layout(motors, 1, peak_kernels.per_peak(motors, peak_kernels.GAUSSIAN))
    theta = np.array([PEAK[motors]])[:, 1 + motors :]
    logs, cross = theta[:, :motors], theta[:, motors:]
    total, slopes = peak_table.spread(logs, cross, layout.pairs)
    assert np.allclose(np.linalg.det(total), np.exp(2 * logs.sum()), rtol=1e-12)
    for k in range(theta.shape[1]):
        step = 1e-6 * (np.arange(theta.shape[1]) == k)
        high, low = (peak_table.spread((theta + s)[:, :motors], (theta + s)[:, motors:], layout.pairs)[0] for s in (step, -step))
        assert np.allclose((high - low) / 2e-6, slopes[:, k], rtol=1e-6, atol=1e-8), k


def simulated(curves, grid, noise=CAMERA, seed=3, steps=(0.08, 0.05, 0.06)):
    """A source whose pixels have these expected curves, photons, shape (pixel, point)."""
    coords = {
        n: ((n,), s * (np.arange(k) - (k - 1) / 2) + 4.0, {"units": "deg"}) for n, s, k in zip(NAMES, steps, grid, strict=False)
    }
    curves = torch.as_tensor(np.asarray(curves, np.float64))

    def expected(index):
        return curves.T[index].reshape(len(index), 1, -1)

    return Simulation(None, xr.Dataset(coords=coords), (1, len(curves)), expected, xr.Dataset(), noise, seed)


def fitted(source, detector=None, **options):
    """The map; `detector`: noise to take instead of what the scan shows."""
    estimator = PeakFit.with_options(None, options).prepare(source)
    estimator = estimator if detector is None else dataclasses.replace(estimator, noise=detector)
    state = estimator.init(source)
    for block in pixel_blocks(source.batches(), math.prod(source.shape), source.frame_shape):
        state = estimator.update(state, block)
    return estimator.result(state)


def some_curves(count, motors, seed=0, height=(100, 500)):
    """Photons of one Gaussian in each pixel, and its parameters in steps."""
    random, x = np.random.default_rng(seed), coordinates(motors)
    reach = np.array(GRIDS[motors]) / 2
    theta = np.zeros((count, 1 + peak_kernels.per_peak(motors, 0)))
    theta[:, 1] = random.uniform(*height, count)
    theta[:, 2 : 2 + motors] = random.uniform(-0.3, 0.3, (count, motors)) * reach
    theta[:, 2 + motors : 2 + 2 * motors] = np.log(random.uniform(1.3, 2.0, (count, motors)))
    theta[:, 2 + 2 * motors :] = random.uniform(-0.4, 0.4, (count, motors * (motors - 1) // 2))
    return np.array([model(one, x)[0] for one in theta]), theta


@pytest.mark.parametrize("motors", [1, 2, 3])
def test_truth_is_recovered_within_the_stated_errors(motors):
    curves, theta = some_curves(400, motors)
    found = fitted(simulated(curves, GRIDS[motors]), gain=2, readout=3)
    assert (found["flag"].values == 0).mean() > 0.99
    steps, layout = np.array([0.08, 0.05, 0.06])[:motors], peak_table.Layout(motors, 1, theta.shape[1] - 1)
    (truth,) = peak_table.describe(theta, np.zeros((*theta.shape, theta.shape[1])), layout, steps, np.full(motors, 4.0))
    expected = {"amplitude": 2 * theta[:, 1], "background": np.full(len(theta), 100.0)}
    for i, name in enumerate(NAMES[:motors]):
        expected |= {name: truth["centre"][:, i], f"{name}_width": truth["width"][:, i]}
    for n, (i, j) in enumerate(layout.pairs):
        expected[f"{NAMES[i]}_{NAMES[j]}_covariance"] = truth["covariance"][:, n]
    for name, value in expected.items():
        z = ((found[name].values[0] - value) / found[f"{name}_std"].values[0])[found["flag"].values[0] == 0]
        assert abs(z.mean()) < 0.2 and 0.9 < z.std() < 1.1, (name, z.mean(), z.std())  # 400 pixels: 0.05 and 0.035 by chance
    assert abs(found.attrs["reduced_deviance"] - 1) < 5 * found.attrs["reduced_deviance_std"]


def test_centres_of_a_tilted_peak_err_together_as_stated():
    _, theta = some_curves(1, 2, height=(300, 301))
    theta[0, 6] = 1.3  # c of a peak whose long axis runs across both motors
    curve = model(theta[0], coordinates(2))[0]
    found = fitted(simulated(np.tile(curve, (3000, 1)), GRIDS[2]), gain=2, readout=3)
    stated = found["chi_mu_error_correlation"].values[0]
    assert 0.5 < np.median(stated) < 0.95
    seen = np.corrcoef(found["chi"].values[0], found["mu"].values[0])[0, 1]
    assert abs(seen - np.median(stated)) < 0.03  # (1 - r^2) / sqrt(3000) = 0.01 by chance
    together = error_covariance(found, "chi", "mu")[0]
    assert np.allclose(together, stated * found["chi_std"].values[0] * found["mu_std"].values[0])


def test_the_estimate_is_that_of_another_program():
    curves, theta = some_curves(12, 1)
    source = simulated(curves, GRIDS[1], noise=Noise(gain=1.0, offset=50.0, readout=4.0))
    found = fitted(source, DetectorNoise(0.0, math.nan, 0.0, 16.0))  # equal weights, which curve_fit is told as well
    counts = source.frames(np.arange(31))[:, 0].T
    x = coordinates(1)[0]
    for p in range(12):
        values, covariance = scipy.optimize.curve_fit(
            lambda x, b, a, m, s: b + a * np.exp(-0.5 * ((x - m) / s) ** 2), x, counts[p],
            p0=[50, theta[p, 1], theta[p, 2], math.exp(theta[p, 3])], sigma=np.full(31, 4.0), absolute_sigma=True,
        )  # fmt: skip
        ours = [found[n].values[0, p] for n in ("background", "amplitude", "chi", "chi_width")]
        stds = [found[f"{n}_std"].values[0, p] for n in ("background", "amplitude", "chi", "chi_width")]
        scale = np.array([1, 1, 0.08, 0.08])
        other = np.array([values[0], values[1], values[2] * 0.08 + 4, abs(values[3]) * 0.08])
        # 2 % of the error: both stop when a step is small against it
        assert np.all(np.abs(ours - other) < 0.02 * np.array(stds)), p
        assert np.allclose(stds, np.sqrt(np.diag(covariance)) * scale, rtol=0.01)


def test_the_evidence_finds_how_many_peaks_there_are_and_the_stronger_comes_first():
    one, theta = some_curves(150, 2, height=(200, 400))
    apart = theta.copy()
    apart[:, 1] *= 0.4
    apart[:, 2] += np.where(theta[:, 2] > 0, -5.0, 5.0)
    two = one + np.array([model(t, coordinates(2))[0] for t in apart])
    found = fitted(simulated(np.concatenate([one, two]), GRIDS[2]), peaks=3, gain=2, readout=3)
    number = found["peaks"].values[0]
    assert (number[:150] == 1).mean() > 0.98 and (number[150:] == 2).mean() > 0.95
    right = np.flatnonzero((number == 2) & (found["flag"].values[0] == 0))
    right = right[right >= 150]
    volume = [found[f"amplitude{e}"] * found[f"chi_width{e}"] * found[f"mu_width{e}"] for e in ("", "_2")]
    assert (volume[0] >= 0.8 * volume[1]).values[0, right].all()
    for end, truth in (("", theta), ("_2", apart)):
        z = (found[f"chi{end}"].values[0, right] - 4 - 0.08 * truth[right - 150, 2]) / found[f"chi{end}_std"].values[0, right]
        assert abs(np.median(z)) < 0.3 and 0.8 < z.std() < 1.25, (end, z.std())
    assert np.isnan(found["chi_2"].values[0, number == 1]).all() and np.isnan(found["chi_3"].values[0, number < 3]).all()


def test_peaks_too_close_to_tell_apart_are_called_ambiguous():
    curves, theta = some_curves(60, 1, height=(3000, 4000))
    beside = theta.copy()
    beside[:, 2] += 1.6 * np.exp(theta[:, 3])
    both = curves + np.array([model(t, coordinates(1))[0] for t in beside])
    found = fitted(simulated(both, GRIDS[1]), peaks=2, gain=2, readout=3)
    words = flag_counts(found)
    close = np.abs(found["chi"] - found["chi_2"]) < 0.5 * (found["chi_width"] + found["chi_width_2"])
    doubtful = (found["flag"].values & 128) != 0
    assert doubtful[close.values].all() and words["number_of_peaks_ambiguous"] == doubtful.sum()


def test_flags_say_why_a_peak_is_doubtful():
    x = coordinates(1)[0]
    curves = {
        "good": 300 * np.exp(-0.5 * (x / 2) ** 2),
        "no_signal": 0 * x,
        "centre_outside_the_scan": 3000 * np.exp(-0.5 * ((x - 19) / 4) ** 2),
        "width_below_the_step": 3000 * np.exp(-0.5 * ((x - 0.2) / 0.5) ** 2),
    }
    found = fitted(simulated(np.array(list(curves.values())), GRIDS[1]), gain=2, readout=3)
    masks = dict(zip(found["flag"].attrs["flag_meanings"].split(), found["flag"].attrs["flag_masks"], strict=True))
    flag = found["flag"].values[0]
    assert flag[0] == 0
    for at, name in enumerate(curves):
        assert name == "good" or flag[at] & masks[name], (name, flag[at])
    assert np.isnan(found["chi"].values[0, 1]) and np.isfinite(found["background"].values[0, 1])
    assert found["chi"].values[0, 2] > 4 + 0.08 * 15 and found["reduced_deviance"].values[0, 2] < 2  # a step cut at a bound


def test_a_sloping_background_is_fitted_where_it_is_asked_for():
    curves, _ = some_curves(200, 2, height=(200, 400))
    x = coordinates(2)
    sloping = curves + 30 + 2.0 * x[0] - 1.0 * x[1]
    found = fitted(simulated(sloping, GRIDS[2]), background="linear", gain=2, readout=3)
    for name, true in (("background", 160.0), ("chi_slope", 4.0 / 0.08), ("mu_slope", -2.0 / 0.05)):
        z = (found[name].values[0] - true) / found[f"{name}_std"].values[0]
        assert abs(z.mean()) < 0.25 and 0.85 < z.std() < 1.15, (name, z.mean(), z.std())
    assert found["chi_slope"].attrs["units"] == "count/deg"


def test_masked_counts_are_left_out():
    curves, _ = some_curves(50, 1)
    source = simulated(curves, GRIDS[1])
    estimator = PeakFit.with_options(None, {"gain": 2, "readout": 3}).prepare(source)
    (block,) = pixel_blocks(source.batches(), 31, (1, 50))
    mask = block.mask.copy()
    mask[:, 4] = mask[:, 20] = False
    spoiled = block.curves.copy()
    spoiled[:, [4, 20]] = 1e5
    results = []
    for counts in (spoiled, block.curves):
        part = dataclasses.replace(block, curves=counts, mask=mask)
        results.append(estimator.result(estimator.update(estimator.init(source), part)))
    # a masked count takes part in nothing but the smoothing of the start values
    assert np.allclose(results[0]["chi"], results[1]["chi"], atol=1e-3 * float(results[1]["chi_std"].median()))
    assert (results[0]["flag"].values & 256 != 0).all()


@pytest.mark.parametrize("shape", ["lorentzian", "pseudo_voigt"])
def test_other_shapes_recover_their_truth(shape):
    kind = {"lorentzian": peak_kernels.LORENTZIAN, "pseudo_voigt": peak_kernels.PSEUDO_VOIGT}[shape]
    _, theta = some_curves(300, 1, height=(600, 900))
    theta = np.concatenate([theta, np.full((300, 1), 0.5)], axis=1) if shape == "pseudo_voigt" else theta
    curves = np.array([model(t, coordinates(1), shape=kind)[0] for t in theta])
    found = fitted(simulated(curves, GRIDS[1]), shape=shape, gain=2, readout=3)
    good = found["flag"].values[0] == 0
    assert good.mean() > 0.98
    for name, true in (("chi", 4 + 0.08 * theta[:, 2]), ("chi_width", 0.08 * np.exp(theta[:, 3]))):
        z = ((found[name].values[0] - true) / found[f"{name}_std"].values[0])[good]
        assert abs(np.nanmean(z)) < 0.25 and 0.85 < np.nanstd(z) < 1.15, (name, np.nanmean(z), np.nanstd(z))


def test_every_good_pixel_of_a_real_scan_has_its_centre_inside_and_is_wider_than_a_step():
    scan = braggscope.open("examples/data/id03_rocking_mu.h5")
    found = braggscope.map(scan, "peakfit", progress=False)
    good, axis = found["flag"].values == 0, scan.grid["mu"].values
    assert 0.4 < good.mean() < 0.95
    assert (found["mu"].values[good] >= axis.min()).all() and (found["mu"].values[good] <= axis.max()).all()
    assert (found["mu_width"].values[good] > np.diff(axis).mean()).all() and np.isfinite(found["mu_std"].values[good]).all()


@pytest.mark.parametrize(
    ("grid", "options", "sentence"),
    [
        ((31,), {"peaks": 4}, "option peaks must be 1, 2 or 3, got 4"),
        ((31,), {"gain": -1}, "option gain must be auto or a positive number, got -1"),
        ((31,), {"shape": "triangle"}, "option shape must be one of gaussian, lorentzian, pseudo_voigt, got 'triangle'"),
        ((13, 15), {"shape": "lorentzian"}, "option shape must be gaussian for a scan over 2 motors, got 'lorentzian'"),
        ((2,), {}, "needs at least 3 positions of each motor, the scan has 2 of chi"),
        ((1, 9), {}, "needs at least 3 positions of each motor, the scan has 1 of chi"),
        ((4,), {}, "needs more than 4 points for one peak, the scan has 4"),
    ],
)
def test_bad_input_is_named(grid, options, sentence):
    source = simulated(np.ones((2, math.prod(grid))), grid)
    with pytest.raises(InputError, match=sentence):
        PeakFit.with_options(None, options).prepare(source)


def test_the_bound_is_reached():
    """Spread of the centre over that of the Cramer-Rao bound, which the noise model's own information gives."""
    x = coordinates(1)
    theta = np.array([0.0, 300.0, 1.2, math.log(1.8)])
    mean, jacobian = model(theta, x)
    jacobian[1:] *= 2.0  # detector units
    jacobian[1] /= 2.0
    weight = 1 / (9.0 + 2 * 2 * mean)
    bound = np.sqrt(np.linalg.inv((jacobian * weight) @ jacobian.T)[2, 2]) * 0.08
    found = fitted(simulated(np.tile(mean, (3000, 1)), GRIDS[1]), gain=2, readout=3)
    error = found["chi"].values[0] - 4 - 0.08 * 1.2
    assert error.std() / bound < 1.05 and abs(error.mean()) < 4 * bound / math.sqrt(3000)
    assert peak_starts.bounds_of(x, 1, 0, 1).shape == (2, 4)
