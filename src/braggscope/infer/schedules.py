"""Learning rates over a training."""

from __future__ import annotations

import math


def one_cycle(progress: float, warming: float = 0.15, start: float = 0.05, end: float = 1e-3) -> float:
    """Share of the largest learning rate: up along a cosine, then down (Smith & Topin 2018, arXiv:1708.07120).

    progress: Share of the training that is over, 0 to 1.  warming: Until when it rises.  start, end: Shares at both ends.
    """
    if progress < warming:
        return start + (1 - start) * (1 - math.cos(math.pi * progress / warming)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (progress - warming) / (1 - warming))) / 2
