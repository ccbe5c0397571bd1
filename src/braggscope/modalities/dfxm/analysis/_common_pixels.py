"""Where an image and the same image some pixels away both are."""

from __future__ import annotations


def common_pixels(shape: tuple[int, ...], step: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Pixels that have one a step (down, right) away in the image, and those; empty slices where the step leaves it.

    >>> common_pixels((4, 6), (1, -2))
    ((slice(0, 3, None), slice(2, 6, None)), (slice(1, 4, None), slice(0, 4, None)))
    """
    here = [slice(max(0, -s), max(0, min(n, n - s))) for s, n in zip(step, shape, strict=True)]
    there = [slice(max(0, s), max(0, min(n, n + s))) for s, n in zip(step, shape, strict=True)]
    return (here[0], here[1]), (there[0], there[1])
