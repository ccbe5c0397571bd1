"""What a camera adds to the light of a phantom: pixels with a dark current, and events of gamma rays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from braggscope.core.noise import Noise


@dataclass(frozen=True)
class Camera(Noise):
    """A detector that also sees gamma rays (zingers): single pixels, far too bright in one frame.

    zingers: Mean number of events in a frame; each adds 500 to 20 000 detector units, evenly in the logarithm.
    """

    zingers: float = 0.0

    @classmethod
    def of(cls, noise: Noise, zingers: float) -> Self:
        """This detector with so many events."""
        return cls(**{f.name: getattr(noise, f.name) for f in dataclasses.fields(Noise)}, zingers=zingers)

    def sample(self, expected: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Reports drawn for expected photons, same shape and dtype."""
        value = super().sample(expected, generator)
        count = int(torch.poisson(torch.tensor(float(self.zingers)), generator))
        where = torch.randint(expected.numel(), (count,), generator=generator)
        size = 500 * 40 ** torch.rand(count, generator=generator)
        value.view(-1)[where] += torch.round(size).to(value.dtype)
        return value.clamp(max=self.saturation)


def dark_current(fraction: float, frame_shape: tuple[int, int], seed: int) -> Tensor | None:
    """Photons per frame that hot pixels count in the dark, 50 to 5000 evenly in the logarithm; None where there are none."""
    if fraction == 0:
        return None
    random = np.random.default_rng((seed, 2))
    hot = random.random(frame_shape) < fraction
    return torch.as_tensor(np.where(hot, 50 * 100 ** random.random(frame_shape), 0), dtype=torch.float32)
