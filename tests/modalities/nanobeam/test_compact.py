"""The compact encoder: which pixels it cuts out, what it does not depend on, and its gradients."""

import numpy as np
import pytest
import torch

from braggscope.modalities.nanobeam import compiled
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.networks.compact import CompactEncoder, View

UNITS = (5e-3, 0.05, 0.1)


def frames_at(geometry, shape, tilts):
    """Noise-free frames without background at these tilts (omega, chi; degrees)."""
    values = {n: np.zeros(len(tilts)) for n in ("strain", "omega", "chi")} | {"scale": np.full(len(tilts), 7.0)}
    values |= {"background": np.full(len(tilts), 1e-9), "thickness": np.full(len(tilts), 40.0)}  # a broad fringe
    values["omega"], values["chi"] = (np.array(x) for x in zip(*tilts, strict=True))
    return compiled.expected(compiled.tables(geometry, shape), shape, compiled.packed(values))


def edges(light):
    """First and last index of a projection that is lit."""
    lit = np.flatnonzero(light > 0.02 * light.max())
    return lit[0], lit[-1]


@pytest.mark.parametrize(("rows", "columns", "off"), [(64, 64, (0.0, 0.0)), (80, 100, (3.0, -11.5))])
def test_the_ring_moves_as_the_view_says(rows, columns, off):
    geometry = published().replace(centre_row_px=off[0], centre_column_px=off[1])
    view = View.of(geometry, (rows, columns), UNITS)
    for omega, chi in ((0.0, 0.0), (0.01, -0.03), (-0.012, 0.04)):
        frame = frames_at(geometry, (rows, columns), [(omega, chi)])[0]
        middle = [np.mean(edges(frame.sum(axis))) for axis in (1, 0)]
        for axis, unit in ((0, chi / UNITS[2]), (1, omega / UNITS[1])):
            assert abs(middle[axis] - (view.centre[axis] + view.motion[axis] * unit)) < 0.8, (axis, omega, chi)


def test_the_cut_holds_the_ring_wherever_it_was_found():
    geometry = published()
    encoder = CompactEncoder(View.of(geometry, (90, 96), UNITS))
    tilts = [(0.0, 0.0), (0.04, -0.08), (-0.05, 0.1), (0.013, 0.057)]
    frames = torch.from_numpy(frames_at(geometry, (90, 96), tilts))
    found = torch.tensor([[0.0, o / UNITS[1], c / UNITS[2]] for o, c in tilts])
    mean = frames.sum((1, 2))[:, None] / encoder.view.lit
    cut, place = encoder._cut_out(frames, mean, found)
    light = (cut + 0.5).numpy() * mean[:, :, None].numpy()
    assert np.allclose(light.sum((1, 2)), frames.sum((1, 2)), rtol=1e-4)  # nothing of the ring is lost
    for one in light:
        for axis in (0, 1):
            first, last = edges(one.sum(axis))
            assert abs((first + last) / 2 - (one.shape[1 - axis] - 1) / 2) <= 1.3
    # the place of the cut is that of the ring to half a pixel
    half = 0.5 / np.abs(encoder.view.motion)
    assert (np.abs((place[:, 2] - found[:, 2]).numpy()) <= half[0] + 1e-6).all()
    assert (np.abs((place[:, 1] - found[:, 1]).numpy()) <= half[1] + 1e-6).all()


def test_pixels_beyond_the_frame_are_dark_and_change_nothing():
    encoder = CompactEncoder(View.of(published(), (64, 64), UNITS))
    frames = torch.rand(3, 64, 64) * 5
    found = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, -1.0]])
    cut, _ = encoder._cut_out(frames, frames.sum((1, 2))[:, None] / encoder.view.lit, found)
    assert (cut == 0).flatten(1).sum(1).min() > 100


def test_the_dose_matters_to_the_precision_only_through_the_mean():
    torch.manual_seed(0)
    encoder = CompactEncoder(View.of(published(), (64, 64), UNITS)).eval()
    frames = torch.from_numpy(frames_at(published(), (64, 64), [(0.01, 0.02), (-0.03, 0.05)]))
    with torch.no_grad():
        one, ten = encoder(frames), encoder(10 * frames)
    assert torch.allclose(one[2], ten[2], atol=1e-5)  # the first stage sees shares of the light only


def test_gradients_reach_every_weight():
    torch.manual_seed(0)
    encoder = CompactEncoder(View.of(published(), (64, 64), UNITS), width=16)
    sum(x.square().sum() for x in encoder(torch.poisson(torch.full((8, 64, 64), 3.0)))).backward()
    for name, value in encoder.named_parameters():
        assert value.grad is not None and value.grad.abs().max() > 0, name
