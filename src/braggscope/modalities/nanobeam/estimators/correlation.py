"""The conventional library fit, by its summed templates: the baseline that users know.

As published (Luo et al. 2025): a frame is correlated with a library of simulated frames on a grid of strain, omega and chi,
each divided by its sum; the correlations are summed along two of the axes, the smallest value of each marginal is subtracted,
and the centre of mass of the marginal's index is the estimate. A sum commutes with a product, so that the marginals are the
correlations with 3 x 41 summed templates: the same numbers as with 68 921 frames, and no library in memory.

The read-out is biased towards the middle of the grid, by much at the edges of the range, and mixes strain with omega. It is kept
as it is; `likelihood` is the method to use. The library has no background and the thickness of the geometry, or, with
thickness=free, a fourth axis of thicknesses, read out as the others are. That axis does not measure the thickness: the thicker
a film, the narrower its fringe and the more its frames of sum 1 gather in the middle of the detector, where the frames of small
tilts are bright. So the marginal rises with the thickness whatever the film, almost as a straight line, and the centre of mass
of a straight line lies between two thirds and seven tenths of the grid (137 with 11 thicknesses from 67 to 167): with these, as
in the published read-out, films of 80 to 300 angstrom all read 136 or 137 (benchmarks/nanobeam_thickness.py); 136 was published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import xarray as xr
from numba import njit

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.estimator import PerFrame, option
from braggscope.core.maps import Quantity
from braggscope.core.source import Source
from braggscope.infer.runtime import in_threads

from .. import compiled
from ..forward import NanobeamForward, column_terms
from ..geometry import NanobeamGeometry, check_frame

MASKED, TOO_FEW = 2, 4
FEWEST = 20  # counts below which the read-out is noise
AXES = ("strain", "omega", "chi")
THIN = 10.0  # angstrom: of a film whose fringe is nowhere dark, so that the pupil can be told from it
LEAST = 1e-6  # sum of a library frame, in pixels of full light, below which there is nothing to divide by


@dataclass(frozen=True)
class Correlation(PerFrame):
    """The published correlation fit (see the module)."""

    name: ClassVar[str] = "correlation"
    summary: ClassVar[str] = "the conventional fit against a library of simulated frames, as published; biased, without errors"
    calibrated: ClassVar[bool] = False
    uncalibrated_because: ClassVar[str] = (
        "the centre of mass of a correlation is biased by more than its scatter and couples strain with omega"
    )
    flags: ClassVar[Mapping[int, str]] = {MASKED: "masked_counts", TOO_FEW: "too_few_counts"}

    grid: int = option(41, "library frames along each axis")
    strain_range: float = option(5e-3, "the library goes from minus to plus this strain", unit="1")
    omega_range: float = option(0.05, "the library goes from minus to plus this tilt", unit="deg")
    chi_range: float = option(0.1, "the library goes from minus to plus this tilt", unit="deg")
    thickness: str = option("fixed", "whether the library has an axis of thicknesses too", choices=("fixed", "free"))
    thickness_low: float = option(67.0, "thinnest film of that axis", unit="angstrom")
    thickness_high: float = option(167.0, "thickest film of that axis", unit="angstrom")

    def __post_init__(self) -> None:
        if not 2 <= self.grid <= 201:
            raise InputError(f"option grid must be between 2 and 201, got {self.grid}")
        for name, high in (("strain_range", 0.1), ("omega_range", 1.0), ("chi_range", 1.0)):
            if not 0 < getattr(self, name) <= high:
                raise InputError(f"option {name} must be above 0 and at most {high:g}, got {getattr(self, name):g}")
        if not THIN <= self.thickness_low < self.thickness_high <= 5000:
            raise InputError(
                f"option thickness_low must be at least {THIN:g} angstrom and below thickness_high, which may be 5000, got "
                f"{self.thickness_low:g} and {self.thickness_high:g}"
            )

    def quantities(self) -> tuple[Quantity, ...]:
        params = NanobeamForward.params
        return tuple(Quantity(name, params[name].unit, params[name].long_name) for name in self._axes)

    def check_source(self, source: Source) -> None:
        check_frame(self._geometry, source.frame_shape)

    def prepare(self, source: Source) -> Correlation:
        """Make the templates now, so that mapping starts at once."""
        self.check_source(source)
        self._templates(source.frame_shape)
        return self

    def fit(self, batch: Batch) -> dict[str, np.ndarray]:
        """The published read-out of each frame."""
        frames = batch.frames if batch.mask is None else np.where(batch.mask, batch.frames, 0)
        counts = np.ascontiguousarray(frames, np.float32).reshape(len(batch), -1)
        marginals = correlate(counts, self._templates(batch.frames.shape[1:])).reshape(len(batch), len(self._axes), self.grid)
        total = counts.sum(1)
        flag = np.where(total < FEWEST, TOO_FEW, 0).astype(np.int32)
        if batch.mask is not None:
            flag[~batch.mask.all(axis=(1, 2))] |= MASKED
        half = (*self._ranges, (self.thickness_high - self.thickness_low) / 2)[: len(self._axes)]
        values = dict(zip(self._axes, read_out(marginals, half).T, strict=True))
        if "thickness" in values:
            values["thickness"] = values["thickness"] + (self.thickness_high + self.thickness_low) / 2
        return {**values, "flag": flag}

    def summarise(self, dataset: xr.Dataset) -> xr.Dataset:
        return dataset.assign_attrs(uncalibrated_because=self.uncalibrated_because)

    @property
    def _axes(self) -> tuple[str, ...]:
        return (*AXES, "thickness") if self.thickness == "free" else AXES

    @property
    def _ranges(self) -> tuple[float, float, float]:
        return self.strain_range, self.omega_range, self.chi_range

    @property
    def _geometry(self) -> NanobeamGeometry:
        if not isinstance(self.geometry, NanobeamGeometry):
            raise InputError("method 'correlation' needs a geometry; give one with --geometry")
        return self.geometry

    def _templates(self, frame_shape: tuple[int, ...]) -> np.ndarray:
        shape = (frame_shape[0], frame_shape[1])
        if self.thickness == "fixed":
            return summed_templates(self._geometry, shape, self._ranges, self.grid)
        films = tuple(np.linspace(self.thickness_low, self.thickness_high, self.grid).tolist())
        return summed_templates(self._geometry, shape, self._ranges, self.grid, films)


def read_out(marginals: np.ndarray, ranges: tuple[float, ...]) -> np.ndarray:
    """Centre of mass of the index of each marginal above its minimum, as a value on the axis, shape (frame, axis).

    marginals: Shape (frame, axis, grid).
    ranges: Largest value of each axis; the grid goes from minus to plus it.
    """
    above = marginals - marginals.min(-1, keepdims=True)
    axis = np.linspace(-1, 1, marginals.shape[-1])
    mass = above.sum(-1)
    return np.array(ranges) * (above * axis).sum(-1) / np.where(mass > 0, mass, np.nan)


def correlate(counts: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """Sum over pixels of counts x template, shape (frame, template), float64.

    The order of the sum depends on the frame alone, so that a frame has the same result in every batch (a library's matrix
    product does not promise that).

    counts: Shape (frame, pixel), float32.
    templates: Shape (pixel, template), float32.
    """
    result = np.empty((len(counts), templates.shape[1]))
    in_threads(lambda a, b: _correlate(counts[a:b], templates, result[a:b]), len(counts), smallest=16)
    return result


@njit(cache=True, nogil=True, fastmath=True)
def _correlate(counts: np.ndarray, templates: np.ndarray, result: np.ndarray) -> None:
    """As `correlate`; dark pixels, most of a frame, are passed over, the others taken four at a time."""
    total = np.empty(templates.shape[1], np.float32)
    lit = np.zeros(counts.shape[1] + 3, np.int64)
    value = np.zeros(counts.shape[1] + 3, np.float32)
    for i in range(len(counts)):
        found = 0
        for pixel in range(counts.shape[1]):
            lit[found], value[found] = pixel, counts[i, pixel]
            found += counts[i, pixel] != 0  # without a branch, which would be mispredicted half of the time
        value[found : found + 3] = 0
        total[:] = 0
        for k in range(0, found, 4):
            a, b, c, d = templates[lit[k]], templates[lit[k + 1]], templates[lit[k + 2]], templates[lit[k + 3]]
            p, q, r, s = value[k], value[k + 1], value[k + 2], value[k + 3]
            for j in range(templates.shape[1]):
                total[j] += p * a[j] + q * b[j] + r * c[j] + s * d[j]
        result[i] = total


@lru_cache(maxsize=4)
def summed_templates(
    geometry: NanobeamGeometry,
    frame_shape: tuple[int, int],
    ranges: tuple[float, float, float],
    grid: int,
    films: tuple[float, ...] = (),
) -> np.ndarray:
    """Sums of library frames over all axes but one, shape (pixel, 3 grid + film), float32; kept for reuse.

    Every frame is divided by its sum. From each pixel the mean over the axis is subtracted: it adds the same to a whole marginal,
    which the read-out takes off again, and costs digits.

    films: Thicknesses of a fourth axis, angstrom; without any, all films have the thickness of the geometry.
    """
    strain, omega, chi = (np.linspace(-high, high, grid) for high in ranges)
    sums = np.zeros((len(AXES), grid, math.prod(frame_shape)))
    of_films = np.zeros((len(films), math.prod(frame_shape)))
    for i in range(grid):  # one strain at a time: the frames of the others are never in memory
        if films:
            frames = _summed_films(geometry, frame_shape, strain[i], omega, chi, np.array(films), of_films)
        else:
            frames = library_frames(geometry, frame_shape, strain[i], omega, chi)
        sums[0, i] = frames.sum((0, 1), dtype=np.float64)
        sums[1] += frames.sum(1)
        sums[2] += frames.sum(0)
    sums -= sums.mean(1, keepdims=True)
    every = [sums.reshape(len(AXES) * grid, -1)]
    if films:
        every.append(of_films - of_films.mean(0))
    return np.ascontiguousarray(np.concatenate(every).T, dtype=np.float32)


def _summed_films(
    geometry: NanobeamGeometry,
    frame_shape: tuple[int, int],
    strain: float,
    omega: np.ndarray,
    chi: np.ndarray,
    films: np.ndarray,
    of_films: np.ndarray,
) -> np.ndarray:
    """Library frames of one strain, each divided by its sum, summed over the films, shape (omega, chi, pixel), float32.

    The film's thickness changes the fringe alone, a factor of each column: all films are made from one frame.

    of_films: Takes up the sums over omega and chi, shape (film, pixel).
    """
    shade = fringes(geometry, frame_shape[1], strain, omega, films)
    lit = library_frames(geometry.replace(thickness_a=THIN), frame_shape, strain, omega, chi, relative=False)
    lit = lit.reshape(len(omega), len(chi), *frame_shape)
    lit /= fringes(geometry, frame_shape[1], strain, omega, np.array([THIN]))[:, :, None].astype(np.float32)
    total = np.einsum("ock,otk->oct", lit.sum(2, dtype=np.float64), shade)
    inverse = 1 / np.maximum(total, LEAST)
    for i in range(len(omega)):
        together = inverse[i].T.astype(np.float32) @ lit[i].reshape(len(chi), -1)
        of_films += (together.reshape(len(films), *frame_shape) * shade[i, :, None]).reshape(len(films), -1)
    lit *= np.einsum("oct,otk->ock", inverse, shade).astype(np.float32)[:, :, None]
    return lit.reshape(len(omega), len(chi), -1)


def fringes(geometry: NanobeamGeometry, columns: int, strain: float, omega: np.ndarray, films: np.ndarray) -> np.ndarray:
    """Mean of sinc^2(t q_z / 2 pi) over each column of pixels (see forward.py), shape (omega, film, column).

    omega: Tilts, degrees.  films: Thicknesses, angstrom.
    """
    terms = column_terms(geometry, columns)
    vector = geometry.reciprocal_length / (1 + strain)
    shift = vector * (strain + np.radians(omega) / math.tan(geometry.bragg_angle))
    q = shift[:, None, None] + terms["q_rest"][:, None] + terms["q_spread"]
    return np.sinc(films[:, None, None] * q[:, None] / (2 * math.pi)) ** 2 @ terms["weights"]


def library_frames(
    geometry: NanobeamGeometry,
    frame_shape: tuple[int, int],
    strain: float,
    omega: np.ndarray,
    chi: np.ndarray,
    *,
    relative: bool = True,
) -> np.ndarray:
    """Library frames of one strain, each divided by its sum where `relative`, shape (omega, chi, pixel), float32."""
    made = compiled.tables(geometry, frame_shape)
    along, across = (x.ravel() for x in np.meshgrid(omega, chi, indexing="ij"))
    same = np.ones(len(along))
    values = {"strain": strain * same, "omega": along, "chi": across, "scale": same}
    dark = {"background": 1e-12 * same, "thickness": geometry.thickness_a * same}
    frames = compiled.expected(made, frame_shape, compiled.packed(values | dark)).reshape(len(along), -1)
    if relative:
        frames /= np.maximum(frames.sum(1, dtype=np.float64), LEAST)[:, None].astype(np.float32)
    return frames.reshape(len(omega), len(chi), -1)
