"""A compact encoder that knows where the ring of light can go: strain, tilts and their standard deviations of a frame.

A tilt moves the ring over the detector by up to a hundred times the precision with which its place is known. One network that
does both, find and measure, must be large. Here a small one finds the ring on a coarse picture of the frame, the frame is
cut out around it by whole pixels, and a second one measures what is left; which pixels moved where is exact and costs nothing.
The counts are divided by their sum: at the best estimate the likelihood's slope is linear in the counts, so that the first layer
can hold it whatever the dose is.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..geometry import NanobeamGeometry

NAMES = ("strain", "omega", "chi")
COARSE = 16  # pixels across the coarse picture, about
MARGIN = 2.0  # pixels around the ring that are cut out with it
START_LOG_STD = -1.0


@dataclass(frozen=True)
class View:
    """What the encoder must know of an instrument; JSON values.

    frame_shape: Rows and columns of a frame.
    cut: Rows and columns that are cut out around the ring.
    centre: Row and column of the ring at zero tilt, pixels from the first.
    motion: Rows per unit of chi and columns per unit of omega that the ring moves, the unit being half the range.
    lit: Pixels in the ring.
    """

    frame_shape: tuple[int, int]
    cut: tuple[int, int]
    centre: tuple[float, float]
    motion: tuple[float, float]
    lit: float

    @classmethod
    def of(cls, geometry: NanobeamGeometry, frame_shape: tuple[int, int], units: tuple[float, float, float]) -> View:
        """The view of a geometry.

        units: Half the range of strain, omega and chi (degrees).
        """
        inner, outer = geometry.ring_radii_px
        rows, columns = frame_shape
        size = math.ceil(2 * (outer + MARGIN))
        per_degree = math.radians(1) * geometry.reciprocal_length / (geometry.wavevector * geometry.pixel_angle)
        return cls(
            frame_shape=(rows, columns),
            cut=(min(size, rows), min(size, columns)),
            centre=((rows - 1) / 2 + geometry.centre_row_px, (columns - 1) / 2 + geometry.centre_column_px),
            motion=(-per_degree * units[2], -per_degree / geometry.bragg_sine * units[1]),
            lit=math.pi * (outer**2 - inner**2),
        )


class CompactEncoder(nn.Module):
    """Frames (frame, row, column) -> estimates, logarithms of their standard deviations, and the first stage's estimates.

    Each has shape (frame, 3), in units of half the range, in the order of NAMES; a fourth output is what else moves nothing
    on the detector, the thickness.
    """

    def __init__(self, view: View, width: int = 128, outputs: int = len(NAMES)) -> None:
        """The encoder with random weights, drawn from torch's own generator; its first estimates are nearly 0."""
        super().__init__()
        self.view = view
        self.pool = max(1, round(min(view.frame_shape) / COARSE))
        pixels = (view.frame_shape[0] // self.pool) * (view.frame_shape[1] // self.pool)
        self.find, self.found = nn.ModuleList([nn.Linear(pixels, width), nn.Linear(width, width)]), nn.Linear(width, outputs)
        self.measure = nn.Linear(view.cut[0] * view.cut[1], 2 * width)
        self.place = nn.Linear(9, width)
        self.refine = nn.ModuleList([nn.Linear(width + 1, width), nn.Linear(width, width)])
        self.residual, self.log_std = nn.Linear(width, outputs), nn.Linear(width, outputs)
        for layer, start in ((self.found, 0.0), (self.residual, 0.0), (self.log_std, START_LOG_STD)):
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.constant_(layer.bias, start)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = frames.sum((1, 2))[:, None].clamp(min=1.0) / self.view.lit
        found = self._find(frames, mean)
        cut, moved = self._cut_out(frames, mean, found.detach())
        hidden, gate = self.measure(cut.flatten(1)).chunk(2, dim=1)
        hidden = hidden * torch.sigmoid(gate + self.place(moved))
        hidden = functional.silu(self.refine[0](torch.cat([hidden, 0.5 * torch.log(mean)], dim=1))) + hidden
        hidden = functional.silu(self.refine[1](hidden)) + hidden
        base = torch.cat([moved[:, :3], found.detach()[:, 3:]], dim=1)
        return base + self.residual(hidden), self.log_std(hidden), found

    def _find(self, frames: Tensor, mean: Tensor) -> Tensor:
        """Estimates from the coarse picture, shape (frame, output)."""
        picture = functional.avg_pool2d(frames[:, None], self.pool).flatten(1) / mean - 1.0
        hidden = functional.silu(self.find[0](picture))
        hidden = functional.silu(self.find[1](hidden)) + hidden
        return self.found(hidden)

    def _cut_out(self, frames: Tensor, mean: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """The frame around the ring, relative to its mean, and what the place of the cut says.

        Returns shape (frame, row of the cut, column) and (frame, 9): strain as found, omega and chi of the cut, their products.
        """
        view, tilts = self.view, found[:, [2, 1]]
        first, inside, at = [], [], []
        for axis in (0, 1):
            rest = view.centre[axis] - (view.cut[axis] - 1) / 2
            start = torch.round(rest + view.motion[axis] * tilts[:, axis])
            index = start[:, None] + torch.arange(view.cut[axis], device=frames.device)
            size = view.frame_shape[axis]
            inside.append(((index >= 0) & (index < size)).to(frames.dtype))
            first.append(index.clamp(0, size - 1).long())
            at.append((start - rest) / view.motion[axis])
        cut = frames.gather(1, first[0][:, :, None].expand(-1, -1, view.frame_shape[1]))
        cut = cut.gather(2, first[1][:, None, :].expand(-1, view.cut[0], -1))
        cut = (cut / mean[:, :, None] - 0.5) * inside[0][:, :, None] * inside[1][:, None, :]
        s, c, o = found[:, 0], at[0], at[1]
        return cut, torch.stack([s, o, c, s * s, o * o, c * c, s * o, s * c, o * c], dim=1)
