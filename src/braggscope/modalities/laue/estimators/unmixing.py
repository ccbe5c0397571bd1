"""Unmixing: grains smaller than the beam, from the light that each has at every position.

Frames are summed under the beam, the grains found in the sums (`prepare`); each frame is then fitted with the images of the
grains that may be lit, and the light of each grain over the positions is deblurred with the beam's footprint (`result`). A
position is given to the grain with the largest fraction of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.estimator import Estimator, State, check_disjoint, check_ranges, fresh, grid_of, grid_state, option
from braggscope.core.maps import Quantity, empty_map
from braggscope.core.source import Source

from ..brightness import layer
from ..geometry import LaueGeometry
from ..grain_maps import TO_UM
from ..indexing.catalogue import catalogue_of
from ..indexing.indexed import rotation_vectors
from ..indexing.refinement import COMPONENTS
from ..reflections import material
from ..unmixing.deblurring import STEPS, deblurred, scales
from ..unmixing.finding import Finding, Found
from ..unmixing.lighting import FrameFits
from ..unmixing.sums import FWHM, summed

NOT_PREPARED = "unmixing must be prepared on the scan that it maps: it finds the grains in all of its frames"
NO_GRAIN, UNEXPLAINED, NO_STRAIN = 2, 4, 8
FLAGS = {1: "no_frame", NO_GRAIN: "no_grain", UNEXPLAINED: "light_unexplained", NO_STRAIN: "strain_unknown"}
EXPLAINED = 0.7  # of the median light, below which a position is doubtful
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
TOLERANCE_DEG = 0.25  # between scattering vectors, while grains are searched for


@dataclasses.dataclass(frozen=True)
class Unmixing(Estimator):
    """The grain at each position of a scan whose beam lights many at once."""

    name: ClassVar[str] = "unmixing"
    summary: ClassVar[str] = "grains below the beam size: the light of each grain, deblurred with the beam"
    per_frame: ClassVar[bool] = False  # grains are found in, and light is deblurred over, the whole scan
    prepares_on_scan: ClassVar[bool] = True
    calibrated: ClassVar[bool] = False
    uncalibrated_because: ClassVar[str] = (
        "fraction_std holds the noise of the counts, not the error of the scale between grains, which rests on kinematic "
        "intensities; a label has no standard deviation, share tells how clear it is"
    )

    material: str = option("", "name or CIF file of the grains' crystal; left out: that of the geometry")
    threshold: float = option(6.0, "least significance of a peak in a sum of frames, in standard deviations")
    within: float = option(1.5, "distance within which a peak belongs to a spot", unit="px")
    same_within: float = option(0.3, "neighbouring grains whose orientations are nearer than this are one", unit="deg")
    intensity_error: float = option(0.3, "how far the strength of a spot may be from the kinematic one, in parts of it")
    steps: int = option(STEPS, "steps of the deblurring")
    known: tuple[Found, FrameFits] | None = dataclasses.field(default=None, repr=False)
    centre: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, int), repr=False)

    def __post_init__(self) -> None:
        check_ranges(self, {
            "threshold": (3, 1e6), "within": (0.1, 50), "same_within": (0.01, 10), "intensity_error": (0.01, 10),
            "steps": (1, 10000),
        })  # fmt: skip

    def quantities(self) -> tuple[Quantity, ...]:
        turns = (Quantity(f"orientation_{a}", "deg", f"rotation vector of the crystal along {a}") for a in "xyz")
        strains = (Quantity(f"strain_{c}", "1", f"deviatoric strain {c} in the crystal frame") for c in COMPONENTS)
        return (
            Quantity("grain", "1", "number of the grain, largest first (0: none)"),
            Quantity("share", "1", "part of the position that the grain takes, by deblurring"),
            Quantity("fraction", "1", "share of the grain in the light at the position"),
            Quantity("fraction_error", "1", "standard deviation of fraction by the noise of the counts"),
            Quantity("second", "1", "number of the grain with most light of the others (0: none)"),
            Quantity("second_fraction", "1", "share of that grain in the light"),
            *turns,
            Quantity("orientation_error", "deg", "standard deviation of the orientation by the fit, all axes together"),
            *strains,
            Quantity("matched", "1", "spots from which the orientation is known"),
            Quantity("explained", "1", "light of all grains found, in parts of its median"),
        )

    def prepare(self, source: Source) -> Unmixing:
        """The grains of the scan, and what fitting its frames needs; reads every frame once."""
        instrument = self._instrument.replace(rows=source.frame_shape[0], columns=source.frame_shape[1])
        self._instrument.check_frames(source.frame_shape)
        y, x = self._places(source)
        at_y, at_x = (a.ravel() for a in np.meshgrid(y, x, indexing="ij"))
        name = self.material or instrument.material
        if not name:
            raise InputError("the material is not stated; give it in the geometry or as the option material")
        crystal = material(name)
        sums = summed(source, at_y, at_x, self._sigma)
        found = Finding(
            sums, instrument, layer(instrument, crystal, thickness_um=instrument.thickness_um),
            catalogue_of(crystal, instrument, tolerance_deg=TOLERANCE_DEG),
            self.threshold, self.within, self.same_within, self.intensity_error,
        ).grains()  # fmt: skip
        fits = FrameFits.of(sums, found.images, found.lights.near)
        return dataclasses.replace(self, geometry=instrument, known=(found, fits), centre=sums.nearest(at_y, at_x))

    def init(self, source: Source) -> State:
        self._instrument.check_frames(source.frame_shape)
        if len(self.centre) != math.prod(source.shape):
            raise InputError(NOT_PREPARED)
        points, grains = math.prod(source.shape), len(self._fits.images)
        light = {name: np.zeros((points, grains), np.float32) for name in ("light", "variance")}
        return {**light, "seen": np.zeros(points, bool), **grid_state(source)}

    def update(self, state: State, batch: Batch) -> State:
        batch = fresh(state, batch)
        if len(batch):
            light, variance = self._fits.light(batch.frames, batch.mask, self.centre[batch.index])
            state["light"][batch.index], state["variance"][batch.index] = light, variance
        return state

    def merge(self, a: State, b: State) -> State:
        check_disjoint(a, b)
        seen = b["seen"]
        return {k: a[k] if k.startswith("grid_") else np.where(seen.reshape(-1, *[1] * (a[k].ndim - 1)), b[k], a[k]) for k in a}

    def result(self, state: State) -> xr.Dataset:
        dims, shape, coords = grid_of(state)
        dataset = empty_map(self.quantities(), dims, shape, coords, FLAGS)
        seen = state["seen"]
        light, number = np.zeros_like(state["light"]), np.full(len(seen), -1)
        share = np.zeros(len(seen))
        if seen.any() and light.shape[1]:
            light[seen] = state["light"][seen]
            factor = scales(light[seen])
            light *= factor
            y, x = _axes(coords, dims)
            over = (-1, len(y), len(x))
            clear = deblurred(light.T.reshape(over), seen.reshape(over[1:]), y, x, self._sigma, steps=self.steps)
            number, share = clear.grain.ravel(), clear.share.ravel()
            error = np.sqrt(state["variance"]) * factor
            values = self._values(number, share, light, error)
            for name, value in values.items():
                dataset[name].values[...] = np.where(seen, value, np.nan).reshape(shape)
        else:
            dataset["grain"].values[...] = np.where(seen, 0.0, np.nan).reshape(shape)
        explained = light.sum(1)
        flag = np.where(number < 0, NO_GRAIN, 0) | np.where(explained < EXPLAINED, UNEXPLAINED, 0)
        flag |= np.where((number >= 0) & np.isnan(dataset["strain_xx"].values.ravel()), NO_STRAIN, 0)
        dataset["flag"].values[...] = np.where(seen, flag, 1).reshape(shape)
        grains = len(np.unique(number[seen & (number >= 0)]))
        in_light = len(self._found.turns) if self.known is not None else light.shape[1]
        dataset.attrs |= {"grains": grains, "grains_in_the_light": in_light, "uncalibrated_because": self.uncalibrated_because}
        return dataset

    def _values(self, number: np.ndarray, share: np.ndarray, light: np.ndarray, error: np.ndarray) -> dict[str, np.ndarray]:
        """The quantities of each position; number: of the grain in `found`, -1 for none."""
        found, points = self._found, np.arange(len(number))
        there = number >= 0
        sizes = np.bincount(number[there], minlength=len(found.turns))
        label = np.empty(len(sizes), int)
        label[np.argsort(-sizes, kind="stable")] = np.arange(1, len(sizes) + 1)
        other = np.where(np.arange(light.shape[1]) == number[:, None], -np.inf, light)
        second = other.argmax(1)
        second_light = other[points, second]
        vectors = rotation_vectors(found.turns, found.crystal)
        of_grain = {f"orientation_{a}": vectors[:, i] for i, a in enumerate("xyz")}
        of_grain |= {"orientation_error": found.error_deg, "matched": found.matched.astype(float)}
        of_grain |= {f"strain_{c}": found.strains[:, i, j] for c, (i, j) in zip(COMPONENTS, VOIGT, strict=True)}
        return {
            "grain": np.where(there, label[number], 0).astype(float),
            "share": share,
            "fraction": np.where(there, light[points, number], np.nan),
            "fraction_error": np.where(there, error[points, number], np.nan),
            "second": np.where(second_light > 0, label[second], 0).astype(float),
            "second_fraction": np.where(second_light > 0, second_light, np.nan),
            **{name: np.where(there, values[number], np.nan) for name, values in of_grain.items()},
            "explained": light.sum(1),
        }

    @property
    def _instrument(self) -> LaueGeometry:
        if not isinstance(self.geometry, LaueGeometry):
            raise InputError("unmixing needs a geometry: the calibration of the detector and the width of the beam")
        return self.geometry

    @property
    def _found(self) -> Found:
        return self._prepared[0]

    @property
    def _fits(self) -> FrameFits:
        return self._prepared[1]

    @property
    def _prepared(self) -> tuple[Found, FrameFits]:
        if self.known is None:
            raise InputError(NOT_PREPARED)
        return self.known

    @property
    def _sigma(self) -> tuple[float, float]:
        """Standard deviations of the footprint along y and x, um."""
        along_y, along_x = self._instrument.footprint_um
        return along_y / FWHM, along_x / FWHM

    def _places(self, source: Source) -> tuple[np.ndarray, np.ndarray]:
        """The axes of the scan, um; y is one place for a scan along x alone."""
        coords = {str(n): (source.grid[n].dims, source.grid[n].values, source.grid[n].attrs) for n in source.grid.dims}
        y, x = _axes(coords, tuple(str(n) for n in source.grid.dims))
        for name, at, width in (("y", y, self._instrument.footprint_um[0]), ("x", x, self._instrument.footprint_um[1])):
            step = np.abs(np.diff(at)).max() if len(at) > 1 else 0.0
            if step > width:
                raise InputError(
                    f"the scan's step of {step:g} um along {name} is larger than the beam of {width:.3g} um, so that there is "
                    "nothing to deblur; the method indexing maps such a scan"
                )
        return y, x


def _axes(coords: Mapping[str, Any], dims: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The two axes of a scan, y (slow) and x (fast), um. Raises InputError for other numbers of axes and units."""
    if len(dims) not in (1, 2):
        raise InputError(f"unmixing needs a scan of one or two axes over the sample, got {len(dims)}")
    axes = []
    for name in dims:
        unit = coords[name][2].get("units", "")
        if unit not in TO_UM:
            raise InputError(f"the scan axis {name} must be a length, got the unit '{unit}'")
        axes.append(np.asarray(coords[name][1], float) * TO_UM[unit])
    return (np.zeros(1), axes[0]) if len(axes) == 1 else (axes[0], axes[1])
