"""An image as the sum of its parts at several scales, by wavelets (PyWavelets).

The parts are projections on the wavelets of one scale (Percival & Mofjeld 1997, J. Am. Stat. Assoc. 92, 868): approximation A_L
and details D_1 ... D_L, each horizontal, vertical and diagonal, with image = A_L + D_L + ... + D_1. Detail j holds structures of
2^(j-1) to 2^j pixels. "stationary" wavelets see every position alike; "decimated" ones lie on a grid of 2^j pixels.

Stationary parts are convolutions, made by Fourier transforms. With the filters H (low) and G (high) of the wavelet, each times
the one that undoes it, l(f) = H'(f) H(f) / 2 and 1 - l(f) = G'(f) G(f) / 2 along one axis, and

    P_j(f) = l(f) l(2 f) ... l(2^(j-1) f),     B_j = P_(j-1) - P_j,
    A_j: P_j P_j,     D_j: B_j P_j (horizontal), P_j B_j (vertical), B_j B_j (diagonal)    along rows and columns.

An image is extended by reflection, so that its edges do not see each other; unknown pixels take the value of the nearest known
one. Both are cut away or blanked again; the sum stays exact at every known pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft

from braggscope.core.errors import InputError

TRANSFORMS = ("stationary", "decimated")
DEEPEST = 5  # levels taken where none are asked for


@dataclass(frozen=True)
class Wavelets:
    """A wavelet, a number of levels and a frame shape that fit each other.

    name: Of a discrete wavelet of PyWavelets.  levels: L.  transform: "stationary" or "decimated".
    """

    name: str
    levels: int
    transform: str
    frame_shape: tuple[int, int]

    @classmethod
    def fitting(cls, name: str, levels: int, transform: str, frame_shape: tuple[int, int]) -> Wavelets:
        """Checked; levels 0 takes as many as the frame allows, at most 5.

        Raises InputError for an unknown wavelet or transform, and for more levels than the frame allows.
        """
        import pywt

        known = pywt.wavelist(kind="discrete")
        if name not in known:
            raise InputError(
                f"option wavelet must be a discrete wavelet such as haar, db2, db4, sym4, coif1, bior2.2, got '{name}'"
            )
        if transform not in TRANSFORMS:
            raise InputError(f"option transform must be one of {', '.join(TRANSFORMS)}, got '{transform}'")
        deepest = int(pywt.dwt_max_level(min(frame_shape), pywt.Wavelet(name).dec_len))
        if deepest < 1:
            size = f"{frame_shape[0]} x {frame_shape[1]}"
            raise InputError(
                f"wavelet {name} needs an image of at least {2 * pywt.Wavelet(name).dec_len - 2} pixels a side, got {size}"
            )
        if not 0 <= levels <= deepest:
            size = f"{frame_shape[0]} x {frame_shape[1]}"
            raise InputError(
                f"option levels must be 0 (as many as fit, at most {DEEPEST}) to {deepest}, which wavelet {name} allows an image "
                f"of {size}, got {levels}"
            )
        return cls(name, levels or min(deepest, DEEPEST), transform, frame_shape)

    def three(self, image: np.ndarray, fine: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Approximation, coarser details and the `fine` finest ones of a finite image; they add up to it."""
        if self.transform != "stationary":
            approximation, details = self.parts(image)
            return approximation, details[fine:].sum(axis=(0, 1)), details[:fine].sum(axis=(0, 1))
        spectrum = self._spectrum(image)
        slow, smooth = (self._back(spectrum, self._low(level), self._low(level)) for level in (self.levels, fine))
        return slow, smooth - slow, image - smooth

    def horizontal(self, image: np.ndarray) -> np.ndarray:
        """The horizontal detail of the coarsest level alone, in the precision of the image; stationary wavelets.

        One of many images of a shape: the response of the detail is kept.
        """
        return self._cut(scipy.fft.irfft2(self._spectrum(image) * self._coarsest.astype(np.result_type(image, np.complex64)),
                                          self._extended, overwrite_x=True)).copy()  # fmt: skip

    @cached_property
    def _coarsest(self) -> np.ndarray:
        """Response of the horizontal detail of the coarsest level."""
        low, before = self._low(self.levels), self._low(self.levels - 1)
        return _outer(before[0] - low[0], low[1])

    def parts(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Approximation (row, column), and details (level, direction, row, column), finest level first.

        Directions: horizontal, vertical and diagonal structures. image: Finite, shape of the frame, float64.
        """
        if self.transform != "stationary":
            return self._decimated(image)
        spectrum = self._spectrum(image)
        details = np.empty((self.levels, 3, *self.frame_shape))
        for level in range(1, self.levels + 1):
            low, band = self._low(level), [p - q for p, q in zip(self._low(level - 1), self._low(level), strict=True)]
            for n, (rows, columns) in enumerate(((band, low), (low, band), (band, band))):
                details[level - 1, n] = self._back(spectrum, rows, columns)
        return self._back(spectrum, self._low(self.levels), self._low(self.levels)), details

    def variances(self, variance: np.ndarray, fine: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Variance of the three parts (`three`) from that of independent pixels, shape (row, column).

        The squares of a part's response to a single pixel, summed over the pixels; near the border, where reflected pixels take
        part twice, an approximation. None for decimated wavelets, whose response depends on the position.
        """
        if self.transform != "stationary":
            return None
        shape, spectrum = self._extended, self._spectrum(variance)
        slow, smooth = (scipy.fft.irfft2(_outer(*self._low(level)), shape, overwrite_x=True) for level in (self.levels, fine))
        sharp = -smooth
        sharp[0, 0] += 1
        squares = (scipy.fft.rfft2(part**2) for part in (slow, smooth - slow, sharp))
        one, two, three = (np.maximum(self._cut(scipy.fft.irfft2(spectrum * s, shape, overwrite_x=True)), 0) for s in squares)
        return one, two, three

    @property
    def _margin(self) -> tuple[int, int]:
        """Rows and columns added before the image: the reach of the coarsest wavelet, or what reflection can give."""
        import pywt

        reach = (pywt.Wavelet(self.name).dec_len - 1) * 2**self.levels
        return min(reach, self.frame_shape[0]), min(reach, self.frame_shape[1])

    @property
    def _extended(self) -> tuple[int, int]:
        """Rows and columns of the extended image, quick to transform."""
        rows, columns = (
            int(scipy.fft.next_fast_len(n + 2 * m, real=True)) for n, m in zip(self.frame_shape, self._margin, strict=True)
        )
        return rows, columns

    def _reflected(self, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The image extended by reflection to a shape."""
        before, sizes = self._margin, self.frame_shape
        return np.pad(image, [(m, n - size - m) for m, n, size in zip(before, shape, sizes, strict=True)], mode="symmetric")

    def _cut(self, extended: np.ndarray) -> np.ndarray:
        """The image in an extended one."""
        (top, left), (rows, columns) = self._margin, self.frame_shape
        return extended[..., top : top + rows, left : left + columns]

    def _spectrum(self, image: np.ndarray) -> np.ndarray:
        return np.asarray(scipy.fft.rfft2(self._reflected(image, self._extended), overwrite_x=True))

    def _back(self, spectrum: np.ndarray, rows: list[np.ndarray], columns: list[np.ndarray]) -> np.ndarray:
        """The part of an image along whose rows the first, along whose columns the second of these pairs acts."""
        return self._cut(scipy.fft.irfft2(spectrum * _outer(rows[0], columns[1]), self._extended, overwrite_x=True)).copy()

    def _low(self, level: int) -> list[np.ndarray]:
        """P_j at the frequencies of the rows and of the columns of the extended image."""
        import pywt

        wavelet = pywt.Wavelet(self.name)
        both = np.convolve(wavelet.dec_lo, wavelet.rec_lo) / 2
        at = np.arange(len(both)) - (wavelet.dec_len - 1)
        rows, columns = self._extended
        found = []
        for f in (np.fft.fftfreq(rows), np.fft.rfftfreq(columns)):
            response = np.ones(len(f), complex)
            for j in range(level):
                response *= np.exp(-2j * np.pi * np.outer(f * 2**j, at)) @ both
            found.append(response)
        return found

    def _decimated(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Parts by decimated wavelets, on an extended image whose sides are multiples of 2^L."""
        import pywt

        step = 2**self.levels
        rows, columns = (-(-(n + 2 * m) // step) * step for n, m in zip(self.frame_shape, self._margin, strict=True))
        extended = self._reflected(image, (rows, columns))
        found = pywt.mra2(extended, self.name, self.levels, transform="dwt2", mode="periodization")
        return self._cut(np.asarray(found[0])), np.array([self._cut(np.array(level)) for level in found[:0:-1]])


def _outer(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """What acts along rows times what acts along columns, at each pair of their frequencies."""
    return rows[:, None] * columns


def filled(image: np.ndarray) -> np.ndarray:
    """The image with the value of the nearest known pixel in those that are not finite. Raises InputError where none is known."""
    from scipy.ndimage import distance_transform_edt

    unknown = ~np.isfinite(image)
    if unknown.all():
        raise InputError("the image has no known pixel")
    if not unknown.any():
        return image
    _, nearest = distance_transform_edt(unknown, return_indices=True)
    return image[tuple(nearest)]
