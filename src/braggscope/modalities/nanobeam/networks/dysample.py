"""Upsampling that learns where to sample: DySample (Liu et al., ICCV 2023, sec. 3), the variant with a static scope factor.

Every point of the finer grid lies at its usual place plus a quarter of a learned offset, in input pixels; the features are
interpolated there bilinearly. Offsets are shared within groups of channels. With offsets of 0 it is bilinear interpolation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SCOPE = 0.25
GROUPS = 4
START_STD = 1e-3


class DySample(nn.Module):
    """Features (frame, channel, row, column) -> the same channels with twice the rows and columns."""

    start: Tensor

    def __init__(self, channels: int, groups: int = GROUPS) -> None:
        super().__init__()
        self.groups = groups
        self.offset = nn.Conv2d(channels, 2 * groups * 4, 1)
        nn.init.normal_(self.offset.weight, std=START_STD)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)
        down, right = torch.meshgrid(torch.tensor([-0.25, 0.25]), torch.tensor([-0.25, 0.25]), indexing="ij")
        start = torch.stack([right.flatten(), down.flatten()])  # (x or y, place in the pixel)
        self.register_buffer("start", start.repeat(groups, 1).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        count, channels, rows, columns = features.shape
        offset = functional.pixel_shuffle(SCOPE * self.offset(features) + self.start, 2)  # (frame, group x 2, 2 rows, 2 columns)
        offset = offset.reshape(count * self.groups, 2, 2 * rows, 2 * columns)
        at = [self._middles(size, features) for size in (columns, rows)]
        x = (2 * (at[0] + offset[:, 0]) + 1) / columns - 1
        y = (2 * (at[1][:, None] + offset[:, 1]) + 1) / rows - 1
        grouped = features.reshape(count * self.groups, channels // self.groups, rows, columns)
        sampled = functional.grid_sample(grouped, torch.stack([x, y], dim=-1), "bilinear", "border", align_corners=False)
        return sampled.reshape(count, channels, 2 * rows, 2 * columns)

    @staticmethod
    def _middles(size: int, like: Tensor) -> Tensor:
        """Input pixel that each point of the finer grid lies in, along one axis."""
        return torch.arange(size, device=like.device, dtype=like.dtype).repeat_interleave(2)
