"""Geometry of a dark-field X-ray microscope: detector, objective, and the reflection it looks at.

Rows of the detector run in the vertical scattering plane, columns across it. The moments of a rocking curve need none of these
values, so that each may be missing; what needs one says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from braggscope.core.errors import InputError
from braggscope.core.geometry import Geometry, quantity


@dataclass(frozen=True)
class DfxmGeometry(Geometry):
    """The instrument, as in the table [dfxm] of a TOML file or in the header of a scan. None: not known."""

    modality: ClassVar[str] = "dfxm"

    pixel_um: float | None = quantity("um", low=0.01, high=1000, default=None, doc="pixel pitch of the frame, after binning")
    magnification: float | None = quantity(
        "1", low=0.1, high=1000, default=None, doc="of the objective and of the detector's optics together"
    )
    energy_kev: float | None = quantity("keV", low=1, high=200, default=None, doc="photon energy")
    two_theta_deg: float | None = quantity("deg", low=0.1, high=179, default=None, doc="scattering angle of the reflection")

    def sample_pixel_um(self) -> tuple[float, float]:
        """Size of a pixel in the sample along rows and columns, um: p / (M sin 2 theta) along the beam, and p / M across.

        A detector perpendicular to the diffracted beam sees the illuminated layer foreshortened by sin 2 theta (Poulsen et al.
        2017, J. Appl. Cryst. 50, 1441). Raises InputError where a value is not known.

        >>> DfxmGeometry(pixel_um=6.5, magnification=20.0, two_theta_deg=30.0).sample_pixel_um()
        (0.65, 0.325)
        """
        for name in ("pixel_um", "magnification", "two_theta_deg"):
            if getattr(self, name) is None:
                raise InputError(f"the size of a pixel in the sample needs {name}, which the geometry does not give")
        assert self.pixel_um and self.magnification and self.two_theta_deg
        across = self.pixel_um / self.magnification
        return round(across / math.sin(math.radians(self.two_theta_deg)), 12), across


def id03() -> DfxmGeometry:
    """The microscope of ESRF ID03 at aluminium 111 and 17 keV: 2 theta = 17.95 deg from a = 4.0495 angstrom."""
    return DfxmGeometry(pixel_um=6.5, magnification=36.0, energy_kev=17.0, two_theta_deg=17.95)
