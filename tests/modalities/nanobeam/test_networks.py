"""The networks: sizes as published, and what their layers do."""

import numpy as np
import pytest
import torch

from braggscope.core.errors import InputError
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.networks.donut import BOUND, Compact, Decoder, Encoder, Passes
from braggscope.modalities.nanobeam.networks.dysample import DySample
from braggscope.modalities.nanobeam.networks.nanobeamnn import Ensemble, NanobeamNN


def size(network):
    return sum(p.numel() for p in network.parameters())


def test_the_networks_have_the_published_sizes():
    """27 771 parameters (Luo et al. 2025); DONUT 4.1 million."""
    assert size(NanobeamNN()) == 27771
    assert size(Encoder((64, 64), 3)) + size(Decoder((64, 64), 3)) == pytest.approx(4.1e6, rel=0.02)


def test_frames_too_small_for_the_convolutions_are_refused():
    assert NanobeamNN((36, 50))(torch.zeros(2, 36, 50)).shape == (2, 3)
    with pytest.raises(InputError, match="at least 36 x 36 pixels, got 35 x 64"):
        NanobeamNN((35, 64))


def test_an_ensemble_gives_mean_and_spread():
    torch.manual_seed(1)
    ensemble, frames = Ensemble([NanobeamNN() for _ in range(3)]), torch.rand(5, 64, 64)
    each = torch.stack([member(frames) for member in ensemble.members])
    mean, spread = ensemble(frames)
    torch.testing.assert_close(mean, each.mean(0))
    torch.testing.assert_close(spread, each.std(0))


def test_dysample_without_offsets_is_bilinear():
    sample, features = DySample(8), torch.rand(2, 8, 5, 7)
    torch.nn.init.zeros_(sample.offset.weight)
    torch.testing.assert_close(sample(features), torch.nn.functional.interpolate(features, scale_factor=2, mode="bilinear"))


def test_dysample_moves_where_its_offset_points():
    """An offset of 4 times 0.25 pixels in x only, for all groups, samples one pixel to the right."""
    sample, features = DySample(4, groups=2), torch.rand(1, 4, 6, 6)
    torch.nn.init.zeros_(sample.offset.weight)
    with torch.no_grad():
        sample.offset.bias.copy_(torch.tensor([4.0] * 4 + [0.0] * 4).repeat(2))
    still = torch.nn.functional.interpolate(features, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(sample(features)[..., :-3], still[..., 2:-1])


@pytest.mark.parametrize("upsampling", ["bilinear", "dysample"])
def test_a_decoder_gives_frames_of_the_encoder_s_shape(upsampling):
    frames = torch.rand(2, 64, 62)
    with torch.no_grad():
        parameters = Encoder((64, 62), 4)(frames)
        assert Decoder((64, 62), 4, upsampling=upsampling)(parameters).shape == frames.shape
    assert parameters.shape == (2, 4) and parameters.abs().max() <= BOUND


def test_a_relative_encoder_does_not_see_the_dose():
    torch.manual_seed(2)
    frames = torch.poisson(3 * torch.rand(3, 64, 64))
    relative, absolute = (Encoder((64, 64), 3, relative=kind).eval() for kind in (True, False))
    with torch.no_grad():
        change = [(encoder(4 * frames) - encoder(frames)).abs().max() for encoder in (relative, absolute)]
    assert change[0] < 1e-7 and change[1] > 1e-5


def test_passes_of_dropout_spread_and_know_no_neighbours():
    torch.manual_seed(3)
    network, frames = Passes(Encoder((64, 64), 3, dropout=0.1), (64, 64), 4).eval(), torch.rand(3, 64, 64)
    with torch.no_grad():
        mean, spread = network(frames)
        alone = network(frames[1:2])
    assert (spread > 0).all()
    np.testing.assert_allclose(alone[0][0], mean[1], rtol=1e-5, atol=1e-6)


def test_the_compact_encoder_starts_at_no_strain_and_no_tilt():
    torch.manual_seed(4)
    with torch.no_grad():
        parameters, first = Compact(published(), (64, 64), 4)(torch.poisson(2 * torch.rand(4, 64, 64)))
    assert parameters.shape == first.shape == (4, 4) and parameters.abs().max() < 0.3
