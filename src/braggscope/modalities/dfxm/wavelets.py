"""An image as the sum of its parts at several scales, by wavelets (PyWavelets).

The parts are projections on the wavelets of one scale (Percival & Mofjeld 1997, J. Am. Stat. Assoc. 92, 868): approximation A_L
and details D_1 ... D_L, each horizontal, vertical and diagonal, with image = A_L + D_L + ... + D_1. Detail j holds structures of
2^(j-1) to 2^j pixels. "stationary" wavelets see every position alike; "decimated" ones lie on a grid of 2^j pixels.

An image is extended by reflection, so that its edges do not see each other, and to a multiple of 2^L pixels; unknown pixels take
the value of the nearest known one. Both are cut away or blanked again; the sum stays exact at every known pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braggscope.core.errors import InputError

TRANSFORMS = {"stationary": "swt2", "decimated": "dwt2"}
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
                f"option levels must be 0 (as many as fit, at most {DEEPEST}) to {deepest}, which wavelet {name} allows an image of "
                f"{size}, got {levels}"
            )
        return cls(name, levels or min(deepest, DEEPEST), transform, frame_shape)

    def parts(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Approximation (row, column), and details (level, direction, row, column), finest level first.

        Directions: horizontal, vertical and diagonal structures. image: Finite, shape of the frame, float64.
        """
        top, left = self._margin
        rows, columns = self.frame_shape
        approximation, details = self._whole(np.pad(image, self._widths, mode="symmetric"))
        where = (..., slice(top, top + rows), slice(left, left + columns))
        return approximation[where], details[where]

    def variances(self, variance: np.ndarray, fine: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Variance of approximation, coarser details and the `fine` finest ones, from that of independent pixels, shape (row, column).

        The squares of a part's response to a single pixel, summed over the pixels; near the border, where reflected pixels take
        part twice, an approximation. None for decimated wavelets, whose response depends on the position.
        """
        if self.transform != "stationary":
            return None
        spread = np.pad(variance, self._widths, mode="symmetric")
        one = np.zeros(spread.shape)
        one[0, 0] = 1.0
        approximation, details = self._whole(one)
        each = approximation, details[fine:].sum(axis=(0, 1)), details[:fine].sum(axis=(0, 1))
        known = np.fft.rfft2(spread)
        top, left = self._margin
        rows, columns = self.frame_shape
        found = [
            np.fft.irfft2(known * np.fft.rfft2(part**2), spread.shape)[top : top + rows, left : left + columns] for part in each
        ]
        return np.maximum(found[0], 0), np.maximum(found[1], 0), np.maximum(found[2], 0)

    @property
    def _margin(self) -> tuple[int, int]:
        """Rows and columns added before the image."""
        return self._widths[0][0], self._widths[1][0]

    @property
    def _widths(self) -> list[tuple[int, int]]:
        """Pixels added before and after along rows and columns: the reach of the coarsest wavelet, or what reflection can give."""
        import pywt

        step = 2**self.levels
        reach = (pywt.Wavelet(self.name).dec_len - 1) * step
        widths = []
        for size in self.frame_shape:
            before = min(reach, size)
            total = -(-(size + 2 * before) // step) * step
            widths.append((before, total - size - before))
        return widths

    def _whole(self, extended: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Parts of an extended image, whose sides are multiples of 2^L."""
        import pywt

        found = pywt.mra2(extended, self.name, self.levels, transform=TRANSFORMS[self.transform], mode="periodization")
        return np.asarray(found[0]), np.array([np.array(level) for level in found[:0:-1]])


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
