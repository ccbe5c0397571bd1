"""The pupil as the published kernels blur it, so that frames made with them can be fitted by the closed form.

The two published simulators (published_kernels.py) see the ring of light through a box or a Gaussian of their own, and not
through the pixel: they take the intensity at its centre. Their blurred ring is written as an image for the geometry key
`pupil_file`, and the fringe is averaged over what their kernel averages it over, by the geometry's `crystal_width_tau`. What
stays different is the aliasing: they sum over a pupil with two samples per pixel, so that a frame changes in steps of the tilts
that no smooth pupil has. A fit does not know that: its standard deviations are of the counts alone, too small for such frames.

    geometry = with_published_pupil(published(), "box", "box_pupil.npz")

Tilts of the "box" simulator lack their factor 1 / (1 + strain): in its frames omega and chi are what the closed form calls
omega (1 + strain) and chi (1 + strain), by up to 0.5 % more or less.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from .geometry import NanobeamGeometry
from .published_kernels import BOX, PublishedKernel
from .pupil import save_pupil

PER_PIXEL = 8  # samples of the image; its edges are 0.14 pixels wide at least
FINER = 8  # the ring is cut this much finer along u than the image
REACH = 5.0  # standard deviations of a Gaussian that are kept


def with_published_pupil(
    geometry: NanobeamGeometry, kernel: str, path: str | Path, frame_shape: tuple[int, int] = (64, 64)
) -> NanobeamGeometry:
    """The geometry for frames of a published kernel; its pupil is written to `path`.

    kernel: "box" or "gaussian".
    Raises InputError for another kernel and for a geometry that the kernels do not know (published_kernels.py).
    """
    made = PublishedKernel(kernel, geometry, frame_shape)
    save_pupil(path, blurred_ring(made), 1 / PER_PIXEL)
    scale = made.ring_px[1] / geometry.ring_radii_px[1]
    return geometry.replace(pupil_file=str(path), ring_scale=scale, crystal_width_tau=fringe_width(made))


def blurred_ring(made: PublishedKernel) -> np.ndarray:
    """The ring through the kernel, 1 at full transmission, shape (row, column), PER_PIXEL samples per pixel.

    The open part of the ring at each u is an interval of v, or two: what of it the kernel sees from a row is exact; along u it
    is summed.
    """
    inner, outer = made.ring_px
    half_v, half_u = half_widths(made)
    wide = REACH if made.name == "gaussian" else 1.0
    count = math.ceil((outer + 1 + wide * half_u) * PER_PIXEL)
    v = np.arange(-count, count + 1) / PER_PIXEL
    u = np.arange(-count * FINER, count * FINER + 1) / (PER_PIXEL * FINER)
    chords = [np.sqrt(np.maximum(radius**2 - u**2, 0)) for radius in (outer, inner)]
    lit = [_seen(made.name, v[:, None] + chord, half_v) - _seen(made.name, v[:, None] - chord, half_v) for chord in chords]
    edges = (u[:, None] - v) + np.array([-0.5, 0.5])[:, None, None] / (PER_PIXEL * FINER)
    along = _seen(made.name, edges[1], half_u) - _seen(made.name, edges[0], half_u)
    return np.clip((lit[0] - lit[1]) @ along, 0, None)


def half_widths(made: PublishedKernel) -> tuple[float, float]:
    """Half the width of the box, or the standard deviation of the Gaussian, across and along the scattering plane, pixels."""
    box = BOX / (made.wavevector * made.geometry.pixel_angle)
    across = box if made.name == "box" else 0.1 / math.sqrt(2)
    return across, across / math.sin(made.bragg_angle)


def fringe_width(made: PublishedKernel) -> float:
    """`crystal_width_tau` with which the fringe is averaged as the kernel does: over its own width, and not over the pixel.

    The closed form averages the fringe over the box of one pixel, of variance 1/12, and over half the crystal's blur along the
    plane (forward.py); together they are to have the variance of half the kernel's width.
    """
    along = half_widths(made)[1] / (math.sqrt(3) if made.name == "box" else 1.0)
    blur = 2 * math.sqrt(max((along / 2) ** 2 - 1 / 12, 0.0))
    return max(math.sqrt(2) * math.sin(made.bragg_angle) * blur, 0.03)  # the least that the geometry takes


def _seen(name: str, position: np.ndarray, half: float) -> np.ndarray:
    """The kernel's integral up to a position, from 0 to 1."""
    return np.clip((position / half + 1) / 2, 0, 1) if name == "box" else ndtr(position / half)
