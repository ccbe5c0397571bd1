"""Geometry of a dark-field X-ray microscope: detector, objective, and the reflection it looks at.

Rows of the detector run in the vertical scattering plane, columns across it. The moments of a rocking curve need none of these
values, so that each may be missing; what needs one says so.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import ClassVar

from braggscope.core.errors import InputError
from braggscope.core.geometry import Geometry, quantity

GONIOMETER = "mu:-y diffry:-y omega:z diffrz:z chi:x phi:-y"  # Poulsen et al. 2021; the base of ESRF ID03 is mu or diffry
AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


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
    goniometer: str = dataclasses.field(
        default=GONIOMETER, metadata={"doc": "motors that turn the sample, from the laboratory inwards, with their axes at zero"}
    )

    def check(self) -> None:
        """Raise InputError where the goniometer cannot be understood."""
        self.goniometer_axes()

    def goniometer_axes(self) -> dict[str, tuple[float, float, float]]:
        """Unit axis of each motor at zero in the laboratory (x along the beam, z upwards), outermost first.

        >>> DfxmGeometry(goniometer="mu:-y chi:x").goniometer_axes()
        {'mu': (-0.0, -1.0, -0.0), 'chi': (1.0, 0.0, 0.0)}
        """
        axes: dict[str, tuple[float, float, float]] = {}
        for word in str(self.goniometer).split():
            found = re.fullmatch(r"(\w+):([+-]?)([xyz])", word)
            if found is None or found[1] in axes:
                raise InputError(f"goniometer must be motors with their axes, each once, like '{GONIOMETER}', got '{word}' in it")
            sign = -1.0 if found[2] == "-" else 1.0
            x, y, z = AXES[found[3]]
            axes[found[1]] = (sign * x, sign * y, sign * z)
        return axes

    def motors(self) -> tuple[str, ...]:
        """Those of the goniometer, of the monochromator and of the scattering angle: orientation and strain need them all."""
        return (*self.goniometer_axes(), "ccmth", "obpitch")

    def sample_pixel_um(self) -> tuple[float, float]:
        """Size of a pixel in the sample along rows and columns, um: p / (M sin 2 theta) along the beam, and p / M across.

        A detector perpendicular to the diffracted beam sees the illuminated layer foreshortened by sin 2 theta (Poulsen et al.
        2017, J. Appl. Cryst. 50, 1441). Raises InputError where a value is not known.

        >>> DfxmGeometry(pixel_um=6.5, magnification=20.0, two_theta_deg=30.0).sample_pixel_um()
        (0.65, 0.325)
        """
        for name in ("pixel_um", "magnification", "two_theta_deg"):
            if getattr(self, name) is None:
                raise InputError(
                    f"the size of a pixel in the sample needs {name}, which the geometry does not give; "
                    f"give a file with {name} by --geometry FILE"
                )
        assert self.pixel_um and self.magnification and self.two_theta_deg
        across = self.pixel_um / self.magnification
        return round(across / math.sin(math.radians(self.two_theta_deg)), 12), across


def id03() -> DfxmGeometry:
    """The microscope of ESRF ID03 at aluminium 111 and 17 keV: 2 theta = 17.95 deg from a = 4.0495 angstrom."""
    return DfxmGeometry(pixel_um=6.5, magnification=36.0, energy_kev=17.0, two_theta_deg=17.95)
