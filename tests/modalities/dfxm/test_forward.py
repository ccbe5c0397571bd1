"""The rocking curve and the phantoms: normalisation, moments, and truth."""

import numpy as np
import pytest
import torch

from braggscope.core.errors import InputError
from braggscope.modalities.dfxm.forward import RockingCurve
from braggscope.modalities.dfxm.geometry import DfxmGeometry, id03
from braggscope.modalities.dfxm.phantoms.grains import bent_crystal, subgrains


def curve_of(count):
    axes = [np.linspace(-1, 1, 41), np.linspace(0, 3, 31), np.linspace(5, 6, 21)][:count]
    mesh = np.meshgrid(*axes, indexing="ij")
    return RockingCurve({n: m.ravel() for n, m in zip("abc", mesh, strict=False)}).double()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_sum_over_the_scan_has_the_moments_it_was_given(count):
    forward = curve_of(count)
    given = {"total": 700.0, "pedestal": 0.0, "a": 0.1, "a_width": 0.15, "b": 1.4, "b_width": 0.3, "c": 5.5, "c_width": 0.1}
    given |= {"a_b_correlation": 0.4, "a_c_correlation": -0.3, "b_c_correlation": 0.2}
    counts = forward({n: torch.tensor(v, dtype=torch.float64) for n, v in given.items() if n in forward.params}).numpy()
    x = forward.positions.numpy()
    # a sampled Gaussian: exact to rounding in the middle of the scan; the tails beyond 4.5 widths are missing
    assert counts.sum() == pytest.approx(700, rel=1e-4)
    mean = counts @ x / counts.sum()
    np.testing.assert_allclose(mean, [0.1, 1.4, 5.5][:count], atol=1e-3)
    covariance = (counts[:, None] * (x - mean)).T @ (x - mean) / counts.sum()
    widths = [0.15, 0.3, 0.1]
    for i, j, rho in [(0, 0, 1), (1, 1, 1), (2, 2, 1), (0, 1, 0.4), (0, 2, -0.3), (1, 2, 0.2)]:
        if max(i, j) < count:
            assert covariance[i, j] == pytest.approx(rho * widths[i] * widths[j], rel=2e-3)


def test_pedestal_adds_to_every_point():
    forward = curve_of(1)
    params = {"total": torch.tensor(0.0), "pedestal": torch.tensor(98.0), "a": torch.tensor(0.0), "a_width": torch.tensor(0.2)}
    assert (forward(params) == 98).all()


@pytest.mark.parametrize("maker", [subgrains, bent_crystal])
def test_truth_is_that_of_the_expected_frames(maker):
    source = maker(id03(), shape=(13, 15), frame_shape=(7, 9), noise=None, peak=300.0)
    frames = source.frames(np.arange(13 * 15)).astype(float)
    assert frames.max() == pytest.approx(300, rel=0.1)
    x = np.repeat(source.grid["chi"].values, 15)
    total = frames.sum(axis=0)
    lit = total > 0
    np.testing.assert_allclose(source.truth["total"].values, total, rtol=1e-5)
    mean = np.tensordot(x, frames, 1)[lit] / total[lit]
    np.testing.assert_allclose(source.truth["chi"].values[lit], mean, atol=1e-6)
    assert source.geometry == id03() and source.modality == "dfxm"


def test_a_phantom_with_four_motors_or_one_point_is_refused():
    for shape in [(3, 3, 3, 3), (1,)]:
        with pytest.raises(InputError, match="one to three scan axes"):
            subgrains(None, shape=shape)


def test_sample_pixel_needs_what_it_says():
    assert DfxmGeometry(pixel_um=6.5, magnification=20, two_theta_deg=30).sample_pixel_um() == pytest.approx((0.65, 0.325))
    with pytest.raises(InputError, match="magnification"):
        DfxmGeometry(pixel_um=6.5).sample_pixel_um()
