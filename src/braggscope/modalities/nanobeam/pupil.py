"""The pupil seen through the blur: transmission at a point (v, u) of the zone plate as one detector pixel records it.

Coordinates are detector pixels (angle over p / R): u along the scattering plane, v across it, from the optical axis. The table
holds coefficients of a bicubic B-spline, so that the transmission is twice differentiable and its two derivatives belong to it
exactly: no step of a tilt shows, however small.

The spline's own kernel (nearly a Gaussian, variance pitch^2 / 3) is part of the blur: the coefficients are the ring blurred by
what is left. They are never negative, so neither is the transmission.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy import fft, ndimage, special
from torch import Tensor

from braggscope.core.errors import InputError

from .geometry import NanobeamGeometry

PER_PIXEL = (12, 8)  # knots per pixel across (v) and along (u): the blur by the crystal is 3.7 times narrower across
FINER = (4, 2)  # the blurred ring is computed on a grid this much finer than the knots, so that its spectrum is complete
MARGIN = 2.0  # pixels of darkness around the ring, for the spline's support


@dataclass(frozen=True)
class Pupil:
    """The transmission of the pupil, blurred.

    coefficients: Of the bicubic B-spline, shape (v, u), float64; 1 is full transmission.
    origin: Position (v, u) of the first coefficient's knot, pixels.
    per_pixel: Knots per pixel along v and u.
    """

    coefficients: np.ndarray
    origin: tuple[float, float]
    per_pixel: tuple[int, int] = PER_PIXEL


def pupil(geometry: NanobeamGeometry) -> Pupil:
    """The pupil that a geometry states: the image in its `pupil_file`, else the ideal blurred ring. Kept for reuse."""
    if geometry.pupil_file is not None:
        path = Path(geometry.pupil_file)
        return _measured(str(path), path.stat().st_mtime_ns if path.exists() else 0)
    return _ring(geometry.ring_radii_px, geometry.blur_px, geometry.source_px)


@lru_cache(maxsize=8)
def _ring(radii: tuple[float, float], blur: tuple[float, float], source: float) -> Pupil:
    """Ring (*) Gaussian of the crystal (*) Gaussian of the source (*) box of one pixel, by its Fourier transform.

    The transform of a disc of radius r is 2 pi r J1(K r) / K (Born & Wolf 1999, sec. 8.5.2).
    """
    reach = radii[1] + 0.5 + MARGIN + 5 * float(np.hypot(max(blur), source))
    half = [int(np.ceil(reach * n)) for n in PER_PIXEL]
    count = [fft.next_fast_len(2 * (h + 1), real=True) for h in half]
    size = [c * m for c, m in zip(count, FINER, strict=True)]
    waves = [2 * np.pi * fft.fftfreq(s, c / s / n) for s, c, n in zip(size, count, PER_PIXEL, strict=True)]
    transform = _smear(waves[0], blur[0], source, PER_PIXEL[0])[:, None] * _smear(waves[1], blur[1], source, PER_PIXEL[1])
    transform = transform[:, : transform.shape[1] // 2 + 1]
    length = np.hypot(waves[0][:, None], waves[1][: transform.shape[1]])
    transform *= _disc(length, radii[1]) - _disc(length, radii[0])
    fine = fft.irfft2(transform, size) * (np.prod(PER_PIXEL) * np.prod(FINER))
    values = fft.fftshift(fine[:: FINER[0], :: FINER[1]])
    origin = tuple(-(c // 2) / n for c, n in zip(count, PER_PIXEL, strict=True))
    return Pupil(np.clip(values, 0, None), (origin[0], origin[1]))


def _disc(wave: np.ndarray, radius: float) -> np.ndarray:
    """Fourier transform of a disc at this length of the wave vector."""
    z = np.where(wave == 0, 1.0, wave)
    return np.where(wave == 0, np.pi * radius**2, 2 * np.pi * radius * special.j1(z * radius) / z)


def _smear(wave: np.ndarray, blur: float, source: float, per_pixel: int) -> np.ndarray:
    """Transform of the blur along one axis, without the part that the spline itself makes."""
    variance = max(blur**2 + source**2 - 1 / (3 * per_pixel**2), 0.0)
    return np.exp(-0.5 * variance * wave**2) * np.sinc(wave / (2 * np.pi))


@lru_cache(maxsize=8)
def _measured(path: str, _written: int) -> Pupil:
    """A pupil image from a file, as the detector saw it at zero tilt: mirrored along x, since u = -x.

    _written: When the file was written, so that a new file under the same name is read anew.

    Raises InputError where the file is missing or does not hold `pupil` (row, column) and `pixels_per_sample`.
    """
    image, step = load_pupil(path)
    values = image[:, ::-1]
    count = [int(np.ceil((n - 1) / 2 * step * m)) + 2 * m for n, m in zip(image.shape, PER_PIXEL, strict=True)]
    position = [np.arange(-c, c + 1) / m / step + (n - 1) / 2 for c, m, n in zip(count, PER_PIXEL, image.shape, strict=True)]
    samples = ndimage.map_coordinates(values, np.meshgrid(*position, indexing="ij"), order=3, mode="constant")
    coefficients = ndimage.spline_filter(samples, order=3, mode="mirror")
    return Pupil(np.clip(coefficients, 0, None), (-count[0] / PER_PIXEL[0], -count[1] / PER_PIXEL[1]))


def save_pupil(path: str | Path, image: np.ndarray, pixels_per_sample: float = 1.0) -> None:
    """Write a measured pupil image for the geometry key `pupil_file`.

    image: Transmission as the detector sees it at zero strain and tilt, fringe divided out, shape (row, column), the beam
        centre in its middle; 1 is full transmission.
    pixels_per_sample: Sampling of the image in detector pixels.
    """
    np.savez_compressed(path, pupil=np.asarray(image, np.float64), pixels_per_sample=float(pixels_per_sample))


def load_pupil(path: str | Path) -> tuple[np.ndarray, float]:
    """A pupil image and its sampling in detector pixels, as `save_pupil` wrote them. Raises InputError where that fails."""
    try:
        with np.load(path, allow_pickle=False) as file:
            image, step = np.asarray(file["pupil"], np.float64), float(file["pixels_per_sample"])
    except FileNotFoundError:
        raise InputError(f"pupil_file {path} does not exist") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"pupil_file {path} is no pupil image with 'pupil' and 'pixels_per_sample' ({error})") from None
    if image.ndim != 2 or not np.isfinite(image).all() or image.min() < 0 or image.max() <= 0 or not step > 0:
        raise InputError(f"pupil_file {path} must hold a finite image (row, column) without negative values, got {image.shape}")
    return image, step


def spline_weights(fraction: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of four neighbouring B-spline coefficients and their derivatives by the position (in knots).

    fraction: Position after the second of the four knots, in [0, 1), shape (...,). Returns two tensors (..., 4).
    """
    f, g = fraction, 1 - fraction
    weights = torch.stack([g**3 / 6, 2 / 3 - f**2 + f**3 / 2, 2 / 3 - g**2 + g**3 / 2, f**3 / 6], dim=-1)
    slopes = torch.stack([-(g**2) / 2, -2 * f + 1.5 * f**2, 2 * g - 1.5 * g**2, f**2 / 2], dim=-1)
    return weights, slopes


def transmission(coefficients: Tensor, origin: tuple[float, float], per_pixel: tuple[int, int], v: Tensor, u: Tensor) -> Tensor:
    """Transmission and its derivatives at the points of a grid; zero outside the table.

    coefficients: As in `Pupil`, shape (v, u).
    v: Positions across, pixels, shape (..., row).  u: Positions along, pixels, shape (..., column).
    Returns value, derivative by v and derivative by u, shape (3, ..., row, column).
    """
    last_v, last_u = coefficients.shape[0] - 4, coefficients.shape[1] - 4
    knot_v, weight_v, slope_v = _taps(v, origin[0], per_pixel[0], last_v)
    knot_u, weight_u, slope_u = _taps(u, origin[1], per_pixel[1], last_u)
    start = knot_v[..., :, None] * coefficients.shape[1] + knot_u[..., None, :]
    flat = coefficients.reshape(-1)
    value = by_v = by_u = coefficients.new_zeros(())
    for i in range(4):
        line = line_slope = coefficients.new_zeros(())
        for j in range(4):
            tap = flat[start + (i * coefficients.shape[1] + j)]
            line = line + tap * weight_u[..., None, :, j]
            line_slope = line_slope + tap * slope_u[..., None, :, j]
        value = value + line * weight_v[..., :, None, i]
        by_v = by_v + line * slope_v[..., :, None, i]
        by_u = by_u + line_slope * weight_v[..., :, None, i]
    return torch.stack([value, by_v * per_pixel[0], by_u * per_pixel[1]])


def _taps(position: Tensor, origin: float, per_pixel: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
    """First of the four knots at each position, their weights and slopes."""
    knots = ((position - origin) * per_pixel - 1).clamp(0, last)
    first = knots.detach().floor()
    weights, slopes = spline_weights(knots - first)
    return first.long(), weights, slopes
