"""The curve that a map's values stand for: that of the forward model from moments, the fitted one from peaks."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from braggscope.core.simulation import Simulation
from braggscope.engine.local import run
from braggscope.infer import peak_kernels
from braggscope.modalities.dfxm.estimators.peakfit import PeakFit
from braggscope.modalities.dfxm.expected_curve import expected_curve
from braggscope.modalities.dfxm.forward import RockingCurve

AXES = {"a": np.linspace(-1, 1, 21), "b": np.linspace(0, 3, 16), "c": np.linspace(6, 5, 11)}
GIVEN = {"total": 700.0, "pedestal": 20.0, "a": 0.1, "a_width": 0.25, "b": 1.4, "b_width": 0.4, "c": 5.5, "c_width": 0.15}
CORRELATIONS = {"a_b": 0.4, "a_c": -0.3, "b_c": 0.2}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_moments_stand_for_the_curve_of_the_forward_model(count):
    axes = dict(list(AXES.items())[:count])
    mesh = dict(zip(axes, (m.ravel() for m in np.meshgrid(*axes.values(), indexing="ij")), strict=True))
    forward = RockingCurve(mesh).double()
    values = dict(GIVEN)
    for pair, rho in CORRELATIONS.items():
        i, j = pair.split("_")
        values[f"{pair}_correlation"] = rho
        values[f"{pair}_covariance"] = rho * values[f"{i}_width"] * values[f"{j}_width"]
    expected = forward({n: torch.tensor(values[n], dtype=torch.float64) for n in forward.params}).numpy()
    found = expected_curve(values, axes, {})
    assert found.shape == tuple(len(x) for x in axes.values())
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-12)


KINDS = {"gaussian": peak_kernels.GAUSSIAN, "lorentzian": peak_kernels.LORENTZIAN, "pseudo_voigt": peak_kernels.PSEUDO_VOIGT}


@pytest.mark.parametrize(
    "options",
    [{"shape": "gaussian", "background": "linear"}, {"shape": "lorentzian"}, {"shape": "pseudo_voigt"}, {"peaks": 2}],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_a_fit_of_a_curve_without_noise_stands_for_the_curve(options):
    mu, steps = np.linspace(-1, 2, 61), np.arange(61) - 30.0
    kind, linear = KINDS[options.get("shape", "gaussian")], options.get("background") == "linear"
    theta = [
        50.0,
        *([0.4] if linear else []),
        9000.0,
        3.3,
        math.log(3.1),
        *([0.4] if options.get("shape") == "pseudo_voigt" else []),
    ]
    if options.get("peaks") == 2:
        theta += [5000.0, -15.0, math.log(2.4)]
    counts, jacobian = np.empty(61), np.empty((len(theta), 61))
    room = peak_kernels.workspace(len(theta), 1, 61).room
    peak_kernels.model(np.array(theta), steps[None], 2 if linear else 1, options.get("peaks", 1), kind, counts, jacobian, room)
    frames = torch.as_tensor(np.repeat(counts[:, None, None], 3, axis=2))
    grid = xr.Dataset(coords={"mu": ("mu", mu, {"units": "deg"})})
    source = Simulation(None, grid, (1, 3), lambda index: frames[torch.as_tensor(index)], xr.Dataset(), None)
    found = PeakFit.with_options(None, {**options, "gain": 1.0, "readout": 1.0})
    *_, last = run(source, found.prepare(source))
    pixel = found.prepare(source).result(last.state).isel(row=0, column=1)
    values = {str(name): float(value) for name, value in pixel.data_vars.items()}
    np.testing.assert_allclose(expected_curve(values, {"mu": mu}, options), counts, rtol=1e-4, atol=0.5)


def test_a_pixel_without_a_peak_has_no_curve():
    assert expected_curve({**GIVEN, "total": math.nan}, {"a": AXES["a"]}, {}) is None
    assert expected_curve({**GIVEN, "a_width": math.nan}, {"a": AXES["a"]}, {}) is None
    assert expected_curve({"strain": 1.0}, {"a": AXES["a"]}, {}) is None
