"""The networks of DONUT (Luo et al., npj Comput. Mater. 11, 380 (2025)): an encoder, and a decoder that mirrors it.

The encoder has six blocks of two convolutions, each with batch normalisation, ReLU and dropout, and a pooling; a linear layer
gives a number p per parameter, bounded by 1.7159 tanh(2 p / 3). Strain is p / 100, omega p / 10 and chi p / 5 degrees. The
decoder turns the bounded numbers back into the frame. Together they have 4.1 million parameters. The physics that stands
between them in training is in physics_branch.py.

Frames whose sides are no multiples of 64 are filled up with zeros on all sides; the decoder's frame is cut back.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..geometry import NanobeamGeometry
from .compact import CompactEncoder, View
from .dysample import DySample

CHANNELS = (1, 16, 32, 64, 128, 256, 256)
POOLED = 2 ** (len(CHANNELS) - 1)  # pixels along an axis that become one
BOUND, STEEPNESS = 1.7159, 2 / 3  # LeCun et al., Efficient BackProp (1998)
UNITS = (0.1, 0.05, 0.05, 0.5)  # of the outputs of a relative encoder: some tens of the errors of p at a peak of 7 counts
START = 1e-3  # standard deviation of the first weights of its last layer
MOMENTUM = 0.01  # of its batch normalisation
HALF_RANGES = (5e-3, 0.05, 0.1)  # units of the compact encoder: strain, omega and chi (degrees)

Masks = list[Tensor]


class Dropout(nn.Module):
    """Dropout of single elements: at random in training, by a given mask in a pass of Monte Carlo dropout, else none."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            return features * mask
        return functional.dropout(features, self.share, self.training) if self.share else features


class Block(nn.Module):
    """Twice convolution, batch normalisation, ReLU and dropout."""

    def __init__(self, before: int, after: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        self.drop = Dropout(dropout)

    def forward(self, features: Tensor, masks: tuple[Tensor | None, Tensor | None] = (None, None)) -> Tensor:
        features = self.drop(functional.relu(self.norms[0](self.first(features))), masks[0])
        return self.drop(functional.relu(self.norms[1](self.second(features))), masks[1])


class Encoder(nn.Module):
    """Frames (frame, row, column) -> bounded parameters p (frame, output)."""

    units: Tensor

    def __init__(self, frame_shape: tuple[int, int], outputs: int, dropout: float = 0.0, relative: bool = False) -> None:
        """The encoder with random weights.

        relative: Each frame is divided by its mean, so that its dose does not matter; as published, counts enter as they are.
            Such an encoder also begins near 0, where the ring is, with outputs in units of UNITS, and its normalisation
            takes means over many batches: over few, their scatter alone moves the tilts by twice their error.
        """
        super().__init__()
        self.relative, self.dropout = relative, dropout
        self.padding = _padding(frame_shape)
        self.blocks = nn.ModuleList(Block(a, b, dropout) for a, b in itertools.pairwise(CHANNELS))
        rows, columns = _padded(frame_shape)
        self.head = nn.Linear(CHANNELS[-1] * (rows // POOLED) * (columns // POOLED), outputs)
        self.register_buffer("units", torch.tensor(UNITS[:outputs]) if relative else torch.ones(outputs))
        if relative:
            nn.init.normal_(self.head.weight, std=START)
            nn.init.zeros_(self.head.bias)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = MOMENTUM

    def forward(self, frames: Tensor, masks: Masks | None = None) -> Tensor:
        if self.relative:
            frames = frames / frames.mean((1, 2), keepdim=True).clamp(min=1e-3)
        features = functional.pad(frames, self.padding)[:, None]
        for i, block in enumerate(self.blocks):
            pair = (None, None) if masks is None else (masks[2 * i], masks[2 * i + 1])
            features = functional.max_pool2d(block(features, pair), 2)
        return BOUND * torch.tanh(STEEPNESS * self.units * self.head(features.flatten(1)))

    def masks(self, frame_shape: tuple[int, int], seed: int) -> Masks:
        """Dropout masks of one pass, the same for every frame."""
        draw = torch.Generator().manual_seed(seed)
        rows, columns = _padded(frame_shape)
        shapes = [(c, rows >> i, columns >> i) for i, c in enumerate(CHANNELS[1:]) for _ in range(2)]
        return [(torch.rand(shape, generator=draw) >= self.dropout).float() / (1 - self.dropout) for shape in shapes]


class Compact(nn.Module):
    """The compact encoder, in the units of the published one: bounded p (frame, output), and those of its first stage."""

    units: Tensor

    def __init__(self, geometry: NanobeamGeometry, frame_shape: tuple[int, int], outputs: int = 3) -> None:
        super().__init__()
        self.encoder = CompactEncoder(View.of(geometry, frame_shape, HALF_RANGES), outputs=outputs)
        of_p = torch.tensor((0.5, 0.5, 0.5, 1.0)[:outputs])  # in one unit of the compact encoder
        self.register_buffer("units", of_p, persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        estimate, log_std, found = self.encoder(frames)
        unused = 0 * log_std.sum()  # several processes want a gradient for all parameters
        return (estimate * self.units).clamp(-BOUND, BOUND) + unused, (found * self.units).clamp(-BOUND, BOUND)


class Decoder(nn.Module):
    """Bounded parameters (frame, output) -> frames (frame, row, column)."""

    def __init__(self, frame_shape: tuple[int, int], outputs: int, dropout: float = 0.0, upsampling: str = "bilinear") -> None:
        """The decoder with random weights.

        upsampling: "bilinear", as in the published code, or "dysample", as in the paper's figure.
        """
        super().__init__()
        rows, columns = _padded(frame_shape)
        self.small, self.padding = (CHANNELS[-1], rows // POOLED, columns // POOLED), _padding(frame_shape)
        self.head = nn.Linear(outputs, math.prod(self.small))
        channels = (*CHANNELS[:0:-1], 1)
        self.up = nn.ModuleList(
            DySample(c) if upsampling == "dysample" else nn.Upsample(scale_factor=2, mode="bilinear") for c in channels[:-1]
        )
        self.blocks = nn.ModuleList(Block(a, b, dropout) for a, b in itertools.pairwise(channels))

    def forward(self, parameters: Tensor) -> Tensor:
        features = self.head(parameters).reshape(-1, *self.small)
        for up, block in zip(self.up, self.blocks, strict=True):
            features = block(up(features))
        left, right, top, bottom = self.padding
        frames = features[:, 0]
        return frames[:, top : frames.shape[1] - bottom, left : frames.shape[2] - right]


class Donut(nn.Module):
    """Encoder and, in training as published, decoder: frames -> parameters, those of a first stage, and frames again.

    What there is none of is empty: the first stage of the published encoder, the frames without a decoder.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module | None) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.encoder(frames)
        parameters, first = found if isinstance(found, tuple) else (found, frames.new_zeros(0))
        return parameters, first, frames.new_zeros(0) if self.decoder is None else self.decoder(parameters)

    def without_decoder(self) -> Mapper:
        """What maps frames."""
        return Mapper(self.encoder).eval()


class Mapper(nn.Module):
    """The trained encoder: frames (frame, row, column) -> bounded parameters p (frame, output)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, frames: Tensor) -> Tensor:
        found = self.encoder(frames)
        return found[0] if isinstance(found, tuple) else found


class Passes(nn.Module):
    """Monte Carlo dropout (Gal & Ghahramani 2016): mean and spread of the encoder over passes with different neurons left out.

    A pass leaves out the same neurons for every frame, so that a frame's result does not depend on the frames beside it.
    """

    def __init__(self, encoder: Encoder, frame_shape: tuple[int, int], passes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.drawn = [encoder.masks(frame_shape, seed) for seed in range(passes)]

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        each = torch.stack([self.encoder(frames, masks) for masks in self.drawn])
        return each.mean(0), each.std(0)


def _padded(frame_shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that all poolings divide."""
    rows, columns = (POOLED * math.ceil(size / POOLED) for size in frame_shape)
    return rows, columns


def _padding(frame_shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pixels to add left, right, above and below."""
    (top, bottom), (left, right) = (
        ((big - size) // 2, (big - size + 1) // 2) for big, size in zip(_padded(frame_shape), frame_shape, strict=True)
    )
    return left, right, top, bottom
