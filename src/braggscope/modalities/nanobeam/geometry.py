"""Geometry of a convergent nanobeam on an epitaxial film, in symmetric (00l) Bragg reflection.

A zone plate with a central stop focuses the beam onto the film; the detector, at the Bragg angle, sees the open pupil as a
ring of light, crossed by the fringe of the film. Column (x) runs in the scattering plane with the exit angle rising, row (y)
across it. Positions on the detector are pixels from the beam centre. README.md in this folder draws the axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from braggscope.core.errors import InputError
from braggscope.core.geometry import Geometry, quantity
from braggscope.physics import diffraction, optics


@dataclass(frozen=True)
class NanobeamGeometry(Geometry):
    """The instrument and the film, as in the table [nanobeam] of a TOML file.

    The fields after `stop_um` have defaults; `calibrate` finds them from a scan. Derived quantities are properties, with
    angles in radians, lengths in angstrom and detector positions in pixels.
    """

    modality: ClassVar[str] = "nanobeam"

    energy_kev: float = quantity("keV", low=1, high=200, doc="photon energy")
    lattice_a: float = quantity("angstrom", low=0.5, high=1000, doc="out-of-plane lattice parameter of the bulk film")
    order: int = quantity("1", low=1, high=100, whole=True, doc="index l of the 00l reflection")
    thickness_a: float = quantity("angstrom", low=10, high=5000, doc="thickness of the film")
    distance_m: float = quantity("m", low=1e-3, high=100, doc="distance from the film to the detector")
    pixel_um: float = quantity("um", low=0.1, high=10000, doc="pixel pitch of the frame as it is analysed, after binning")
    zone_plate_um: float = quantity("um", low=1, high=10000, doc="diameter of the zone plate")
    outer_zone_nm: float = quantity("nm", low=1, high=10000, doc="width of the outermost zone")
    stop_um: float = quantity("um", low=0, high=10000, doc="diameter of the central beam stop")
    crystal_width_tau: float = quantity(
        "1", low=0.03, high=100, default=0.1, doc="width of the in-plane reciprocal lattice rod in units of a detector pixel"
    )
    source_px: float = quantity("px", low=0, high=20, default=0.0, doc="blur by the source, standard deviation on the detector")
    centre_row_px: float = quantity("px", low=-1e4, high=1e4, default=0.0, doc="row of the beam centre from the frame centre")
    centre_column_px: float = quantity(
        "px", low=-1e4, high=1e4, default=0.0, doc="column of the beam centre from the frame centre"
    )
    ring_scale: float = quantity("1", low=0.5, high=2, default=1.0, doc="radii of the ring over their nominal values")
    background: float = quantity("count", low=0, high=1e6, default=0.1, doc="background per pixel and frame")
    threshold: float = quantity("count", low=0, high=100, default=0.0, doc="counts below it are reported as 0")
    saturation: float = quantity("count", low=0, high=1e9, default=0.0, doc="reports of it mean that or more; 0: there is none")
    pupil_file: str | None = None

    def check(self) -> None:
        """Raise InputError where the stop covers the zone plate, no Bragg angle exists or the ring cannot be seen."""
        if self.stop_um >= self.zone_plate_um:
            raise InputError(
                f"stop_um must be smaller than zone_plate_um ({self.zone_plate_um:g}), or no light passes, got {self.stop_um:g}"
            )
        if self.bragg_sine >= 1:
            least = diffraction.wavelength(self.energy_kev) * self.order / 2
            raise InputError(
                f"lattice_a must be larger than {least:.4g} angstrom for reflection 00{self.order} at {self.energy_kev:g} keV "
                f"(there is no Bragg angle), got {self.lattice_a:g}"
            )
        if not 2 <= self.ring_radii_px[1] <= 1000:
            raise InputError(
                f"distance_m, pixel_um, zone_plate_um and outer_zone_nm together make a ring of radius "
                f"{self.ring_radii_px[1]:.3g} px, which must be between 2 and 1000 px; check their units"
            )
        if self.pupil_file is not None and not isinstance(self.pupil_file, str):
            raise InputError(f"pupil_file must be a file name, got {self.pupil_file!r}")

    @classmethod
    def from_scan(cls, scan: Any) -> Self:
        """The geometry that a scan file states about its recorded frames, for the frames as they are cut and binned."""
        recorded = super().from_scan(scan)
        if scan.frames is None:
            return recorded
        rows, columns = scan.frames.shape[1:]
        return recorded.seen_through(scan.roi or (0, rows, 0, columns), (rows, columns), scan.binning)

    def seen_through(self, roi: tuple[int, int, int, int], frame_shape: tuple[int, int], binning: int) -> Self:
        """The geometry of frames that are a cut of the present ones, binned.

        roi: Row start, row stop, column start, column stop.  frame_shape: Rows and columns of the present frames.
        Raises InputError where counts were thresholded: a sum of such counts has no single threshold.
        """
        if binning > 1 and (self.threshold > 0 or self.saturation > 0 or self.pupil_file is not None):
            raise InputError(
                f"binning {binning} does not go with a threshold, saturation or pupil_file that belong to single pixels; "
                "calibrate the binned frames"
            )

        def moved(centre: float, start: int, stop: int, size: int) -> float:
            kept = (stop - start) // binning
            beam = (size - 1) / 2 + centre - start  # pixels from the first one of the cut
            return (beam - (binning - 1) / 2) / binning - (kept - 1) / 2

        return self.replace(
            centre_row_px=moved(self.centre_row_px, roi[0], roi[1], frame_shape[0]),
            centre_column_px=moved(self.centre_column_px, roi[2], roi[3], frame_shape[1]),
            pixel_um=self.pixel_um * binning,
            crystal_width_tau=max(self.crystal_width_tau / binning, 0.03),  # below, the pixel hides it
            source_px=self.source_px / binning,
            background=self.background * binning**2,
        )

    @property
    def wavevector(self) -> float:
        """k, 1/angstrom."""
        return diffraction.wavevector(self.energy_kev)

    @property
    def bragg_sine(self) -> float:
        """sin alpha, alpha the Bragg angle of the film without strain."""
        return diffraction.bragg_sine(self.energy_kev, self.lattice_a, self.order)

    @property
    def bragg_angle(self) -> float:
        """alpha, radians."""
        return math.asin(self.bragg_sine)

    @property
    def reciprocal_length(self) -> float:
        """G of the film without strain, 1/angstrom."""
        return diffraction.reciprocal_length(self.lattice_a, self.order, 0.0)

    @property
    def pixel_angle(self) -> float:
        """p / R, radians per pixel."""
        return optics.pixel_angle(self.pixel_um, self.distance_m)

    @property
    def focal_length_mm(self) -> float:
        """Focal length of the zone plate, mm."""
        return optics.focal_length_mm(self.zone_plate_um, self.outer_zone_nm, diffraction.wavelength(self.energy_kev))

    @property
    def ring_radii_px(self) -> tuple[float, float]:
        """Inner and outer radius of the ring of light, pixels."""
        inner, outer = (optics.cone_half_angle(size, self.focal_length_mm) for size in (self.stop_um, self.zone_plate_um))
        return inner / self.pixel_angle * self.ring_scale, outer / self.pixel_angle * self.ring_scale

    @property
    def blur_px(self) -> tuple[float, float]:
        """Standard deviations of the ring's blur by the crystal, across (row) and in (column) the scattering plane, pixels."""
        across = self.crystal_width_tau / math.sqrt(2)
        return across, across / self.bragg_sine

    def rows_px(self, rows: int) -> tuple[float, float]:
        """Position y of the first and the last row from the beam centre, pixels."""
        return -(rows - 1) / 2 - self.centre_row_px, (rows - 1) / 2 - self.centre_row_px

    def columns_px(self, columns: int) -> tuple[float, float]:
        """Position x of the first and the last column from the beam centre, pixels."""
        return -(columns - 1) / 2 - self.centre_column_px, (columns - 1) / 2 - self.centre_column_px


def check_frame(geometry: NanobeamGeometry, frame_shape: tuple[int, int]) -> None:
    """Raise InputError where a frame does not hold the whole ring at zero strain and tilt.

    frame_shape: Rows and columns.
    """
    outer = geometry.ring_radii_px[1]
    need = tuple(math.ceil(2 * (outer + abs(c))) for c in (geometry.centre_row_px, geometry.centre_column_px))
    if frame_shape[0] < need[0] or frame_shape[1] < need[1]:
        raise InputError(
            f"the frames are {frame_shape[0]} x {frame_shape[1]} pixels, but the ring at zero tilt needs {need[0]} x {need[1]} "
            f"(outer radius {outer:.1f} px); take a larger region or correct pixel_um and distance_m"
        )


def published() -> NanobeamGeometry:
    """The SrIrO3 film at 11.3 keV of Luo et al., Sci. Rep. 15, 21736 (2025) and npj Comput. Mater. 11, 380 (2025)."""
    return NanobeamGeometry(
        energy_kev=11.3,
        lattice_a=4.013,
        order=2,
        thickness_a=117.0,
        distance_m=0.85,
        pixel_um=110.0,
        zone_plate_um=149.0,
        outer_zone_nm=16.0,
        stop_um=77.0,
    )
