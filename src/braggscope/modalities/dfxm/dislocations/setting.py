"""How a dislocation is imaged: goniometer, optics, crystal and detector, from a preset or a TOML file.

    [dislocations]
    hkl = [0, 0, 2]             # the reflection; along z of the sample
    along_x = [1, 0, 0]         # crystal direction along x of the sample (its part perpendicular to hkl)
    structure = "fcc"
    two_theta_deg = 20.73
    phi_deg = 0.018335          # weak beam

Laboratory frame: x along the beam, scattering plane x-z, y = z cross x. Images are indexed [x_lab, y_lab]: rows run along
the beam.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.geometry import Geometry, quantity
from braggscope.physics.slip_systems import hexagonal_axes, hexagonal_plane

FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in standard deviations


@dataclass(frozen=True)
class Setting(Geometry):
    """Goniometer, optics, crystal and detector; the defaults are those of the published aluminium study (Brennan et al.)."""

    modality: ClassVar[str] = "dislocations"

    hkl: tuple[float, float, float] = dataclasses.field(
        default=(0.0, 0.0, 2.0), metadata={"doc": "the reflection h k l, along z; of hcp -h-k is left out"}
    )
    along_x: tuple[float, float, float] = dataclasses.field(
        default=(1.0, 0.0, 0.0), metadata={"doc": "crystal direction u v w along x of the sample (hcp: of a_1, a_2, c)"}
    )
    structure: str = dataclasses.field(default="fcc", metadata={"doc": "fcc, bcc or hcp"})
    characters: str = dataclasses.field(
        default="published", metadata={"doc": "published, or lines by name or angle to b: edge screw 60 -60"}
    )
    lattice_a: float = quantity("angstrom", low=1, high=100, default=4.0495, doc="lattice parameter a")
    c_over_a: float | None = quantity("1", low=0.5, high=3, default=None, doc="of a hexagonal lattice")
    burgers_nm: float | None = quantity(
        "nm", low=0.05, high=10, default=None, doc="length of the Burgers vector; left out: from the lattice"
    )
    poisson: float = quantity("1", low=0, high=0.499, default=0.334, doc="Poisson's ratio")
    two_theta_deg: float = quantity("deg", low=1, high=120, default=20.73, doc="scattering angle")
    phi_deg: float = quantity("deg", low=-5, high=5, default=math.degrees(3.2e-4), doc="rocking angle from the peak")
    chi_deg: float = quantity("deg", low=-5, high=5, default=0.015, doc="rolling angle from the peak")
    two_theta_offset_deg: float = quantity("deg", low=-5, high=5, default=0.0, doc="shift of the scattering angle")
    omega_deg: float = quantity("deg", low=-360, high=360, default=0.0, doc="rotation about the diffraction vector")
    pixel_nm: float = quantity("nm", low=1, high=1e5, default=75.0, doc="detector pixel over magnification")
    beam_fwhm_nm: float = quantity("nm", low=1, high=1e6, default=600.0, doc="height of the Gaussian beam")
    beam_half_height_nm: float = quantity(
        "nm", low=1, high=1e6, default=300 / 2.355, doc="the beam is cut off at this height above and below its centre"
    )
    depth_points: int = quantity("1", low=1, high=1000, default=10, whole=True, doc="points of quadrature through the beam")
    divergence_deg: float = quantity("deg", low=1e-5, high=5, default=0.03, doc="full width of the beam's divergence (box)")
    horizontal_divergence: float = quantity("rad", low=0, high=0.1, default=1e-5, doc="standard deviation")
    bandwidth_fwhm: float = quantity("1", low=1e-7, high=0.1, default=1.4e-4, doc="relative energy bandwidth")
    aperture_rad: float = quantity("rad", low=1e-6, high=0.1, default=7.31e-4, doc="full width of the objective's aperture")
    amplitude: float | None = quantity(
        "count/nm", low=1e-9, high=1e9, default=None, doc="counts per nm of depth at full reflection; left out: from the image"
    )
    background: float | None = quantity("count", low=0, high=1e9, default=None, doc="level; left out: from the image")
    readout: float | None = quantity("count", low=0, high=1e6, default=None, doc="read-out noise; left out: from the image")
    gain: float | None = quantity("count", low=1e-6, high=1e6, default=1.0, doc="counts per photon; 0: from the image")
    resolution: float | None = quantity(
        "1", low=1e-8, high=0.1, default=None, doc="Gaussian part of the resolution; left out: sin(theta) bandwidth"
    )
    background_in_mean: bool = dataclasses.field(
        default=True, metadata={"doc": "false: the background is in the variance alone, as in the released code"}
    )
    conventions: str = dataclasses.field(default="exact", metadata={"doc": "exact, or legacy: those of the released code"})

    def check(self) -> None:
        """Raise InputError for words and directions that cannot be."""
        for name, known in (("structure", ("fcc", "bcc", "hcp")), ("conventions", ("exact", "legacy"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got '{getattr(self, name)}'")
        for name in ("hkl", "along_x"):
            values = getattr(self, name)
            numbers = isinstance(values, list | tuple) and all(type(v) in (int, float) and math.isfinite(v) for v in values)
            if not numbers or len(values) != 3 or not any(values):
                raise InputError(f"{name} must be three numbers, not all 0, got {values!r}")
            object.__setattr__(self, name, tuple(float(v) for v in values))
        if not isinstance(self.background_in_mean, bool):
            raise InputError(f"background_in_mean must be true or false, got {self.background_in_mean!r}")
        self.orientation()

    def orientation(self) -> np.ndarray:
        """Sample <- Cartesian crystal axes: hkl along z, the part of `along_x` perpendicular to it along x; shape (3, 3)."""
        z, x = np.array(self.hkl), np.array(self.along_x)
        if self.structure == "hcp":
            if self.c_over_a is None:
                raise InputError("c_over_a is needed for hcp, such as 1.587 for titanium")
            h, k, last = self.hkl
            z = hexagonal_plane((h, k, -h - k, last), self.c_over_a)
            x = x @ hexagonal_axes(self.c_over_a)[[0, 1, 3]]
        z, length = z / np.linalg.norm(z), float(np.linalg.norm(x))
        x = x - z * (z @ x)
        if np.linalg.norm(x) < 1e-6 * length:
            raise InputError(f"along_x {list(self.along_x)} must not be parallel to hkl {list(self.hkl)}")
        x /= np.linalg.norm(x)
        return np.stack([x, np.cross(z, x), z])


_LEGACY = Setting(burgers_nm=0.286, phi_deg=math.degrees(2.5e-3), amplitude=1.8, resolution=1.715e-5, conventions="legacy")
PRESETS = {
    "al-002": Setting(burgers_nm=0.286),
    "al-002-legacy": _LEGACY,
    "al-002-released": _LEGACY.replace(background_in_mean=False),
}
"""Aluminium 002 at 17 keV as published: with exact rotations at the weak-beam position; with the image of the released code; and
with its likelihood too, for the published answers.
"""


def setting_of(preset: str) -> Setting:
    """A preset by name, or a TOML file. Raises InputError, with the presets, for what is neither."""
    if preset in PRESETS:
        return PRESETS[preset]
    if not preset.endswith(".toml"):
        raise InputError(f"preset must be one of {', '.join(PRESETS)} or a .toml file, got '{preset}'")
    return Setting.from_toml(Path(preset))
