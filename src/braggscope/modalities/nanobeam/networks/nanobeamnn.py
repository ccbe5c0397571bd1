"""The network of NanobeamNN (Luo et al., Sci. Rep. 15, 21736 (2025)): six valid convolutions in three pairs, then a linear layer.

Frames of counts go in as they are. Outputs are strain x 100, omega x 10 and chi x 5 (tilts in degrees), in this order. With
frames of 64 x 64 pixels it has 27 771 parameters. Names of parameters are the published ones but for `features` and `head`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from braggscope.core.errors import InputError

CHANNELS = (1, 2, 4, 8, 16, 32, 64)
OUTPUTS = 3
SMALLEST = 36  # pixels of a frame along an axis; with fewer nothing is left after the convolutions
PUBLISHED_NAMES = {"features.": "operation.", "head.": "fc1."}


class NanobeamNN(nn.Module):
    """Strain, omega and chi, scaled, of each frame."""

    def __init__(self, frame_shape: tuple[int, int] = (64, 64)) -> None:
        super().__init__()
        if min(frame_shape) < SMALLEST:
            rows, columns = frame_shape
            raise InputError(f"nanobeamnn needs frames of at least {SMALLEST} x {SMALLEST} pixels, got {rows} x {columns}")
        layers: list[nn.Module] = []
        for i in range(len(CHANNELS) - 1):
            layers += [nn.Conv2d(CHANNELS[i], CHANNELS[i + 1], 3), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i % 2 else []
        self.features = nn.Sequential(*layers)
        rows, columns = (_left(size) for size in frame_shape)
        self.head = nn.Linear(CHANNELS[-1] * rows * columns, OUTPUTS)

    def forward(self, frames: Tensor) -> Tensor:
        """Outputs, shape (frame, 3), of counts (frame, row, column)."""
        return self.head(self.features(frames[:, None]).flatten(1))


class Ensemble(nn.Module):
    """Several networks of one kind: the mean of their outputs and how much they differ."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the members, each of shape (frame, output); 0 for a single member."""
        outputs = torch.stack([member(frames) for member in self.members])
        mean = outputs.mean(0)
        spread = ((outputs - mean) ** 2).sum(0) / max(len(self.members) - 1, 1)
        return mean, spread.sqrt()


def _left(size: int) -> int:
    """Pixels of an axis that are left after three pairs of convolutions."""
    for _ in range(3):
        size = (size - 4) // 2
    return size


def from_published(weights: Mapping[str, np.ndarray], prefix: str, member: int) -> dict[str, np.ndarray]:
    """Published arrays under the names that member `member` of an Ensemble gives them.

    prefix: That of the arrays of one network, such as "trained/".
    Raises InputError where arrays are missing or there are others.
    """
    with torch.device("meta"):
        network = NanobeamNN()
    wanted = {name: prefix + _published(name) for name in network.state_dict()}
    there = {name for name in weights if name.startswith(prefix)}
    missing, others = set(wanted.values()) - there, there - set(wanted.values())
    if missing or others:
        said = [f"lacks {', '.join(sorted(missing))}"] if missing else []
        said += [f"has {', '.join(sorted(others))}, which no part of nanobeamnn is called"] if others else []
        raise InputError(f"the weights are not those of a nanobeamnn network: the file {' and '.join(said)}")
    return {f"members.{member}.{name}": np.asarray(weights[published], np.float32) for name, published in wanted.items()}


def _published(name: str) -> str:
    for ours, theirs in PUBLISHED_NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)
