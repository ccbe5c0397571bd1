"""The scan of a phantom: motors, their steps and middles, the places that they reach, and the resolution of the instrument.

Places are offsets from the middle of the scan, degrees. The middle is zero, but for the motors that say an absolute thing:
`ccmth`, the Bragg angle of the silicon 111 monochromator, is scanned about that of the photon energy, and `obpitch`, the pitch
of the objective, about the scattering angle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from braggscope.core.errors import InputError

from ..geometry import DfxmGeometry, id03
from ..monochromator import monochromator_deg

MOTORS = {1: ("mu",), 2: ("chi", "mu"), 3: ("chi", "mu", "ccmth")}
TILTING_IN_PLANE = ("mu", "diffry", "phi")  # motors about the normal of the scattering plane
STEP_DEG = {"chi": 0.08, "mu": 0.06, "ccmth": 0.005, "diffry": 0.06, "phi": 0.06, "obpitch": 0.01}

# Widths of the microscope of Poulsen et al. 2021, J. Appl. Cryst. 54, 1555, standard deviations: divergence of the incoming beam
# in the scattering plane and across it, acceptance of the objective (rad), and relative bandwidth behind silicon 111
FWHM = 2 * math.sqrt(2 * math.log(2))
DIVERGENCE, DIVERGENCE_ACROSS, ACCEPTANCE, BANDWIDTH = 0.53e-3 / FWHM, 1e-5 / FWHM, 7.31e-4 / FWHM, 1.41e-4 / FWHM


@dataclass(frozen=True)
class ScanAxes:
    """A regular scan over one to three motors.

    names, step, count, middle, resolution: Per motor, slowest first; the step, the middle and the standard deviation of the
    instrument's resolution in degrees.
    """

    names: tuple[str, ...]
    step: tuple[float, ...]
    count: tuple[int, ...]
    middle: tuple[float, ...]
    resolution: tuple[float, ...]

    @property
    def half(self) -> tuple[float, ...]:
        """Half the length of the scan along each motor, a step at least."""
        return tuple(step * max((count - 1) / 2, 1) for step, count in zip(self.step, self.count, strict=True))

    def offsets(self) -> list[np.ndarray]:
        """Planned places along each motor, from the middle."""
        return [step * (np.arange(n) - (n - 1) / 2) for step, n in zip(self.step, self.count, strict=True)]

    def reached(self, jitter: float, seed: int) -> dict[str, np.ndarray]:
        """Place of each motor at each point, from the middle, shape (point,): as planned, or scattered by `jitter` steps.

        A motor that stands while a faster one moves is scattered once for each of its places.
        """
        planned = np.meshgrid(*self.offsets(), indexing="ij")
        if jitter == 0:
            return {name: values.ravel() for name, values in zip(self.names, planned, strict=True)}
        random = np.random.default_rng((seed, 1))
        off = [random.normal(0, jitter * step, self.count[: i + 1]) for i, step in enumerate(self.step)]
        spread = [values.reshape(*values.shape, *(1,) * (len(self.count) - values.ndim)) for values in off]
        return {name: (p + o).ravel() for name, p, o in zip(self.names, planned, spread, strict=True)}

    def grid(self, reached: Mapping[str, np.ndarray] | None) -> xr.Dataset:
        """The scan axes as planned and, where they are given, the places reached."""
        units = {"units": "deg"}
        coords = {n: ((n,), m + o, units) for n, m, o in zip(self.names, self.middle, self.offsets(), strict=True)}
        measured = {
            f"measured_{n}": (self.names, (m + reached[n]).reshape(self.count), units)
            for n, m in zip(self.names, self.middle, strict=True)
            if reached is not None
        }
        return xr.Dataset(measured, coords=coords)


def scan_axes(geometry: DfxmGeometry | None, shape: tuple[int, ...], motors: str, resolution: str) -> ScanAxes:
    """The scan that the options of a phantom describe. Raises InputError for motors or widths that cannot be."""
    if len(shape) not in MOTORS or min(shape) < 2:
        raise InputError(f"dfxm phantoms need one to three scan axes of at least 2 points, got shape {shape}")
    given = _numbers("motors", motors, bare=True) if motors else dict.fromkeys(MOTORS[len(shape)])
    if len(given) != len(shape):
        raise InputError(f"option motors must name one motor for each of the {len(shape)} scan axes, got '{motors}'")
    steps = {name: STEP_DEG.get(name) if step is None else step for name, step in given.items()}
    for name, step in steps.items():
        if step is None:
            raise InputError(f"option motors must give the step of '{name}' in degrees, like '{name}:0.01'")
    middle = tuple(_middle(name, geometry or id03()) for name in steps)
    names = tuple(steps)
    return ScanAxes(names, tuple(s for s in steps.values() if s), shape, middle, _resolution(names, geometry, resolution))


def microscope(name: str, two_theta_deg: float, energy_kev: float = 17.0) -> float:
    """Standard deviation of the microscope's resolution along a motor, deg (Poulsen et al. 2017, J. Appl. Cryst. 50, 1441).

    With divergence z and acceptance n in the scattering plane, z' and n across it, and bandwidth e, the diffraction vector is
    known to  rock = |(z, n)| / 2,  roll = |(z', n)| / (2 sin theta),  length = |(e, rock / tan theta)|.
    All are taken as Gaussian, and along one motor at a time. obpitch and ccmth see the length as a change of angle.

    Raises InputError for a motor of which this is not known.
    """
    theta = math.radians(two_theta_deg / 2)
    rock = math.hypot(DIVERGENCE, ACCEPTANCE) / 2
    length = math.hypot(BANDWIDTH, rock / math.tan(theta))
    known = dict.fromkeys(TILTING_IN_PLANE, rock) | {
        "chi": math.hypot(DIVERGENCE_ACROSS, ACCEPTANCE) / (2 * math.sin(theta)),
        "obpitch": 2 * math.tan(theta) * length,
        "ccmth": math.tan(math.radians(monochromator_deg(energy_kev))) * length,
    }
    if name not in known:
        raise InputError(
            f"the microscope's resolution is known along {', '.join(known)}, not '{name}': give its width in degrees"
        )
    return math.degrees(known[name])


def _middle(name: str, geometry: DfxmGeometry) -> float:
    if name == "ccmth":
        return monochromator_deg(geometry.energy_kev or 17.0)
    return (geometry.two_theta_deg or 0.0) if name == "obpitch" else 0.0


def _resolution(names: tuple[str, ...], geometry: DfxmGeometry | None, words: str) -> tuple[float, ...]:
    """Width along each motor: none, of the microscope, or as given."""
    if words == "none":
        return (0.0,) * len(names)
    if words == "microscope":
        geometry = geometry or id03()
        if geometry.two_theta_deg is None:
            raise InputError("the microscope's resolution needs two_theta_deg, which the geometry does not give")
        return tuple(microscope(name, geometry.two_theta_deg, geometry.energy_kev or 17.0) for name in names)
    given = _numbers("resolution", words)
    if unknown := [name for name in given if name not in names]:
        raise InputError(f"option resolution gives a width for '{unknown[0]}', but the scan moves {' and '.join(names)}")
    return tuple(given.get(name) or 0.0 for name in names)


def _numbers(option: str, words: str, bare: bool = False) -> dict[str, float | None]:
    """ "chi mu:0.01" as {"chi": None, "mu": 0.01}; a name without a number only where it may be bare."""
    found: dict[str, float | None] = {}
    for word in words.replace(",", " ").split():
        name, colon, number = word.partition(":")
        try:
            value = float(number) if colon else None
        except ValueError:
            value = math.nan
        wrong = (value is not None and not 0 < value < 10) or (value is None and not bare)
        if wrong or not name.isidentifier() or name in found:
            like = (
                "motors, each once, with a step in degrees where wanted"
                if bare
                else "none, microscope or motors with widths in degrees"
            )
            raise InputError(f"option {option} must be {like}, like 'chi:0.05 mu:0.01', got '{word}'")
        found[name] = value
    return found
