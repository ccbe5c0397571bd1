"""Clusters of points, connected regions, colours; the autoencoder."""

import numpy as np
import pytest
import torch

from braggscope.modalities.laue.grains import clusters as module
from braggscope.modalities.laue.grains.autoencoder import Autoencoder, Encoder, reconstruction_loss
from braggscope.modalities.laue.grains.clusters import clusters, colours, regions


def groups(count=9, each=20, seed=0):
    random = np.random.default_rng(seed)
    middle = 10 * random.standard_normal((count, 5))
    return np.repeat(np.arange(count), each), np.repeat(middle, each, 0) + 0.1 * random.standard_normal((count * each, 5))


def test_groups_that_are_apart_are_found_and_scale_does_not_matter():
    truth, points = groups()
    for scale in (1.0, 1e-3):
        label = clusters(scale * points, 0.3)
        assert len(np.unique(label)) == 9 and all(len(np.unique(label[truth == n])) == 1 for n in range(9))


def test_many_points_follow_their_nearest(monkeypatch):
    truth, points = groups()
    monkeypatch.setattr(module, "MOST", 40)
    label = clusters(points, 0.3)
    assert len(np.unique(label)) == 9 and all(len(np.unique(label[truth == n])) == 1 for n in range(9))


def test_one_point_and_equal_points():
    assert clusters(np.zeros((1, 3)), 0.5).tolist() == [1] and clusters(np.zeros((0, 3)), 0.5).tolist() == []
    assert len(np.unique(clusters(np.ones((5, 3)), 0.5))) == 1


def test_regions_are_connected_and_the_largest_is_first():
    label = np.array([[1, 0, 1, 1], [2, 2, 1, 1], [2, 1, 0, 2]])
    assert regions(label).tolist() == [[3, 0, 1, 1], [2, 2, 1, 1], [2, 4, 0, 5]]
    assert regions(np.array([7, 7, 0, 7])).tolist() == [1, 1, 0, 2]


def test_colours_span_the_map():
    shades = colours(np.random.default_rng(1).standard_normal((500, 4)))
    assert shades.shape == (500, 3) and shades.min() == 0 and shades.max() == 1
    assert (colours(np.ones((3, 3))) == 0).all()


@pytest.mark.parametrize("size", [(8, 8), (13, 21)])
def test_the_autoencoder_keeps_the_size_and_each_frame_to_itself(size):
    torch.manual_seed(0)
    network, images = Autoencoder(size, 256).eval(), torch.rand(3, *size)
    assert network(images).shape == (3, *size) and network.encoder(images).shape == (3, 256)
    assert torch.allclose(network(images)[1:2], network(images[1:2]), atol=1e-6)


def test_lit_and_dark_cells_count_in_equal_parts():
    images = torch.zeros(1, 4, 5)
    images[0, 1, 2] = 2.0
    assert reconstruction_loss(torch.zeros_like(images), images) == pytest.approx(2.0)  # (4 + 0) / 2
    assert reconstruction_loss(images + 0.5, images) == pytest.approx(0.25)


def test_gradients_reach_every_weight():
    network, images = Autoencoder((16, 12), 8), torch.rand(4, 16, 12)
    reconstruction_loss(network(images), images).backward()
    assert all(value.grad.abs().sum() > 0 for value in network.parameters())
    assert Encoder((16, 12), 8)(images).shape == (4, 8)
