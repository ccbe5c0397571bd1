"""The instrument of a white-beam Laue microscope: detector, band of energies, beam and sample.

Laboratory frame, that of LaueTools: x along the beam, z up, y = z cross x; origin at the illuminated point of the sample. The
detector is flat; its calibration has the five LaueTools parameters. A sample plane, tilted by `sample_tilt_deg` about y, faces
the detector above; its axes are x (along the beam, uphill) and y, so that the beam's footprint along x is beam / sin(tilt)
(footprint "round" leaves the stretch out, for a beam that is that much narrower in height).
A roll other than 0 says that x, y, z here are the laboratory turned about the beam (`frames`), as detectors aside need it.
Curved and tiled detectors are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from braggscope.core.errors import InputError, one_of
from braggscope.core.geometry import Geometry, quantity

FOOTPRINTS = ("stretched", "round")


@dataclass(frozen=True)
class LaueGeometry(Geometry):
    """A calibrated Laue instrument (TOML table [laue]).

    Pixels of LaueTools count from 1 at the centre of the first: X = column + 1, Y = row + 1. xcen and ycen are in them.
    """

    modality: ClassVar[str] = "laue"
    own_suffixes: ClassVar[tuple[str, ...]] = (".det", ".poni", ".xml", ".txt")

    distance_mm: float = quantity("mm", low=1.0, high=1e4, doc="distance from sample to detector plane, LaueTools dd")
    xcen_px: float = quantity("px", low=-1e5, high=1e5, doc="pixel X of the foot of the normal, from 1")
    ycen_px: float = quantity("px", low=-1e5, high=1e5, doc="pixel Y of the foot of the normal, from 1")
    xbet_deg: float = quantity("deg", low=-180.0, high=180.0, doc="tilt of the normal towards the beam, LaueTools xbet")
    xgam_deg: float = quantity("deg", low=-180.0, high=180.0, doc="turn of the detector in its plane, LaueTools xgam")
    pixel_um: float = quantity("um", low=0.1, high=1e4, doc="size of a pixel")
    rows: int | None = quantity("px", low=8, high=65536, doc="rows of the detector", default=None, whole=True)
    columns: int | None = quantity("px", low=8, high=65536, doc="columns of the detector", default=None, whole=True)
    energy_low_kev: float = quantity("keV", low=0.5, high=200.0, doc="lowest energy of the band", default=5.0)
    energy_high_kev: float = quantity("keV", low=1.0, high=400.0, doc="highest energy of the band", default=23.0)
    beam_um: float = quantity("um", low=1e-3, high=1e4, doc="full width at half maximum of the beam", default=1.0)
    sample_tilt_deg: float = quantity("deg", low=1.0, high=90.0, doc="angle between beam and surface", default=40.0)
    spot_px: float = quantity("px", low=0.1, high=50.0, doc="sigma of a spot of a perfect grain", default=0.76)
    roll_deg: float = quantity("deg", low=-180.0, high=180.0, doc="turn of this laboratory about the beam (frames)", default=0.0)
    thickness_um: float | None = quantity("um", low=1e-4, high=1e6, doc="of the film; none: a thick crystal", default=None)
    critical_energy_kev: float | None = quantity(
        "keV", low=0.1, high=200.0, doc="of the bending magnet or wiggler; none: a flat spectrum", default=None
    )
    spectrum_file: str | None = field(default=None, metadata={"doc": "file of the spectrum: keV, photons per unit energy"})
    footprint: str = field(default="stretched", metadata={"doc": "stretched by 1 / sin(sample_tilt) along x, or round"})
    material: str = field(default="", metadata={"doc": "crystal by name or CIF file"})
    substrate: str = field(default="", metadata={"doc": "crystal below the film by name or CIF file; empty: none"})

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """The geometry in a TOML file, or what a calibration file of another program says: LaueTools .det, pyFAI .poni, and
        geometry of APS 34-ID as .xml or text, of which the first detector counts.

        Raises InputError where it cannot be read, and where the detector does not fit the five LaueTools parameters.
        """
        if Path(path).suffix.lower() not in cls.own_suffixes:
            return cls.from_toml(path)
        from .files import read_geometry

        return read_geometry(path)  # type: ignore[return-value]

    def check(self) -> None:
        if self.footprint not in FOOTPRINTS:
            raise one_of("footprint", self.footprint, list(FOOTPRINTS))
        if self.energy_low_kev >= self.energy_high_kev:
            raise InputError(
                f"energy_low_kev must be below energy_high_kev, got {self.energy_low_kev:g} and {self.energy_high_kev:g}"
            )

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Rows and columns of the detector. Raises InputError where the geometry does not state them."""
        if self.rows is None or self.columns is None:
            raise InputError("the geometry must state rows and columns of the detector")
        return self.rows, self.columns

    @property
    def footprint_um(self) -> tuple[float, float]:
        """Full widths at half maximum of the beam on the sample's surface, along y and along x."""
        stretch = math.sin(math.radians(self.sample_tilt_deg)) if self.footprint == "stretched" else 1.0
        return self.beam_um, self.beam_um / stretch

    def check_frames(self, shape: tuple[int, int]) -> None:
        """Raise InputError where frames of this shape (row, column) cannot be from this detector."""
        stated = (self.rows, self.columns)
        if None not in stated and stated != tuple(shape):
            raise InputError(
                f"frames must have {self.rows} rows and {self.columns} columns as the calibrated detector, got {shape[0]} and "
                f"{shape[1]}; give the calibration of this detector"
            )


def bm32() -> LaueGeometry:
    """The MARCCD165 of beamline BM32, ESRF, in 2023, calibrated on germanium."""
    return LaueGeometry(70.775, 941.74, 1082.56, 0.63, -0.682, 79.142, 2048, 2048, 5.0, 23.0, material="Ge")


def film() -> LaueGeometry:
    """A small detector above a gold film on silicon, 6 to 22 keV, as the published maps of gold films."""
    return LaueGeometry(
        150.0, 204.0, 244.0, 0.0, 0.0, 344.0, 487, 407, 6.0, 22.0,
        thickness_um=0.3, critical_energy_kev=12.0, material="Au", substrate="Si",
    )  # fmt: skip
