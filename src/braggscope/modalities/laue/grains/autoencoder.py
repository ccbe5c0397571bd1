"""A convolutional autoencoder of pictures (CANON): 256 latent features as published; its layers are not, these are ours.

Encoder: three convolutions of 3 x 3 cells that halve the picture, to 8, 16 and 32 channels, each with a leaky ReLU, and a
linear layer. Decoder: the mirror image. No layer mixes the patterns of a batch, so that a pattern's features are its own.
"""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn
from torch.nn import functional

FEATURES = 256  # as published
CHANNELS = (1, 8, 16, 32)
REDUCED = 2 ** (len(CHANNELS) - 1)  # cells along an axis that become one
SLOPE = 0.1  # of the leaky ReLU


class Encoder(nn.Module):
    """Pictures (frame, row, column) -> features (frame, feature)."""

    def __init__(self, size: tuple[int, int], features: int = FEATURES) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(CHANNELS))
        self.head = nn.Linear(math.prod(_smallest(size)), features)

    def forward(self, pictures: Tensor) -> Tensor:
        found = pictures[:, None]
        for layer in self.layers:
            found = functional.leaky_relu(layer(found), SLOPE)
        return self.head(found.flatten(1))


class Decoder(nn.Module):
    """Features (frame, feature) -> pictures (frame, row, column)."""

    def __init__(self, size: tuple[int, int], features: int = FEATURES) -> None:
        super().__init__()
        self.size, self.smallest = size, _smallest(size)
        self.head = nn.Linear(features, math.prod(self.smallest))
        pairs = itertools.pairwise(CHANNELS[::-1])
        self.layers = nn.ModuleList(nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=1) for a, b in pairs)

    def forward(self, features: Tensor) -> Tensor:
        found = self.head(features).reshape(-1, *self.smallest)
        for layer in self.layers:
            found = layer(functional.leaky_relu(found, SLOPE))
        return found[:, 0, : self.size[0], : self.size[1]]


class Autoencoder(nn.Module):
    """Pictures (frame, row, column) -> the same, through few features."""

    def __init__(self, size: tuple[int, int], features: int = FEATURES) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(size, features), Decoder(size, features)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.decoder(self.encoder(pictures))


class Reducer(nn.Module):
    """The trained encoder and the principal components of its features: pictures -> coordinates (frame, component)."""

    def __init__(self, encoder: Encoder, features: int, components: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = nn.Linear(features, components)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.project(self.encoder(pictures))


def reconstruction_loss(made: Tensor, pictures: Tensor) -> Tensor:
    """Mean square difference, the mean over cells with light and that over dark ones in equal parts.

    Few cells have light; without this a picture of zeros would do.
    """
    square, lit = (made - pictures) ** 2, pictures > 0
    parts = [(square * which).sum() / which.sum().clamp(min=1) for which in (lit, ~lit)]
    return (parts[0] + parts[1]) / 2


def _smallest(size: tuple[int, int]) -> tuple[int, int, int]:
    return CHANNELS[-1], -(-size[0] // REDUCED), -(-size[1] // REDUCED)
