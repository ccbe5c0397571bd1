"""From the motors at the peak to the diffraction vector in the sample frame, and back.

An observation is the position of two motors that turn the sample and of one that tells the spacing of the planes, where a pixel
is brightest. With Gamma the goniometer (laboratory <- sample), q = Gamma^T q_lab and
q_lab = k (cos 2t - 1, -sin eta sin 2t, cos eta sin 2t), 2t the angle of the objective (obpitch), or 2t fixed and k the wave
number that the monochromator lets through (ccmth, energy). Frames as in `reflections`. Left out: that the lit sheet tilts in the
sample by the angle of the scan; refraction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from braggscope.core.errors import InputError
from braggscope.physics.diffraction import wavevector
from braggscope.physics.rotations import about_axis

from ..carried import error_covariance
from ..geometry import DfxmGeometry
from ..monochromator import monochromator_deg
from .reflections import Reflection

TWO_THETA = ("obpitch", "two_theta")  # motors that are the scattering angle of the objective, deg
STRAIN_AXES = (*TWO_THETA, "ccmth", "energy")  # ccmth: Bragg angle of a Si 111 monochromator, deg; energy: keV


@dataclass(frozen=True)
class Observed:
    """What is observed of a reflection: two motors of the goniometer, outermost first, and the axis that tells the spacing."""

    rocking: tuple[str, str]
    strain: str

    @property
    def names(self) -> tuple[str, str, str]:
        """All three."""
        return (*self.rocking, self.strain)

    def unit(self, name: str) -> float:
        """Its unit in files over that used here: radians per degree, and keV as it is."""
        return 1.0 if name == "energy" else math.pi / 180


def observed(dataset: xr.Dataset, instrument: DfxmGeometry, which: str) -> Observed:
    """The observables that a map holds.  which: The map in words, for the InputError where it lacks some or has too many."""
    axes = [n for n in instrument.goniometer_axes() if n in dataset]
    strain = [n for n in STRAIN_AXES if n in dataset]
    if len(axes) != 2 or len(strain) != 1:
        have = ", ".join(axes + strain) or "none of them"
        raise InputError(
            f"{which} must have peak positions of two motors of the goniometer ({', '.join(instrument.goniometer_axes())}) and "
            f"of one axis that tells strain ({', '.join(STRAIN_AXES)}); it has {have}"
        )
    found = Observed((axes[0], axes[1]), strain[0])
    for name in found.names:
        unit, wanted = str(dataset[name].attrs.get("units", "")), "keV" if name == "energy" else "deg"
        if unit != wanted:
            raise InputError(f"{which}: {name} must be in {wanted}, got '{unit}'")
        if f"{name}_std" not in dataset:
            raise InputError(f"{which}: {name} has no standard deviation ({name}_std), which the weights need")
    return found


def nominal(reflection: Reflection, instrument: DfxmGeometry, seen: Observed) -> Tensor:
    """Position of the three observables for the unstrained crystal, radians (or keV), shape (3,)."""
    rocking = [math.radians(reflection.at.get(name, 0.0)) for name in seen.rocking]
    strain = reflection.at[seen.strain] if seen.strain in reflection.at else _usual(reflection, instrument, seen.strain)
    return torch.tensor([*rocking, strain * seen.unit(seen.strain)], dtype=torch.float64)


def _usual(reflection: Reflection, instrument: DfxmGeometry, strain: str) -> float:
    """Where the axis that tells the spacing stands if the setting does not say it, deg (or keV)."""
    assert instrument.energy_kev is not None
    if strain == "energy":
        return instrument.energy_kev
    return monochromator_deg(instrument.energy_kev) if strain == "ccmth" else reflection.two_theta_deg


def lab_vector(reflection: Reflection, instrument: DfxmGeometry, seen: Observed, strain: Tensor) -> tuple[Tensor, Tensor]:
    """q_lab and its derivative by the strain axis, 1/angstrom; (...,) -> (..., 3) each."""
    assert instrument.energy_kev is not None
    at, eta = nominal(reflection, instrument, seen)[2], math.radians(reflection.eta_deg)
    two_theta, k0 = math.radians(reflection.two_theta_deg), wavevector(instrument.energy_kev)
    if seen.strain in TWO_THETA:
        angle, k, slope = two_theta + strain - at, torch.full_like(strain, k0), None
    else:
        angle = torch.full_like(strain, two_theta)
        k = k0 * (strain / at if seen.strain == "energy" else torch.sin(at) / torch.sin(strain))
        slope = 1 / strain if seen.strain == "energy" else -1 / torch.tan(strain)
    sine, cosine, up, side = torch.sin(angle), torch.cos(angle), math.cos(eta), -math.sin(eta)
    q = k[..., None] * torch.stack([cosine - 1, side * sine, up * sine], -1)
    if slope is not None:
        return q, q * slope[..., None]
    return q, k[..., None] * torch.stack([-sine, side * cosine, up * cosine], -1)


def vectors(reflection: Reflection, instrument: DfxmGeometry, seen: Observed, values: Tensor) -> tuple[Tensor, Tensor]:
    """Diffraction vectors in the sample frame, and their derivatives by the observables.

    values: The three observables, radians (or keV), shape (..., 3).
    Returns q (..., 3) and dq/dvalue (..., 3, 3), the observable last; 1/angstrom.
    With Gamma = P R(axis, a) S:  dq/da = -(S^T axis) x q.
    """
    q, by_strain = lab_vector(reflection, instrument, seen, values[..., 2])
    moved = dict(zip(seen.rocking, values[..., :2].unbind(-1), strict=True))
    carried = {"q": q, "strain": by_strain}
    for name, axis in instrument.goniometer_axes().items():  # outermost first: undo it, and carry along what was found
        angle = moved.get(name, torch.tensor(math.radians(reflection.at.get(name, 0.0)), dtype=q.dtype))
        unit = torch.tensor(axis, dtype=q.dtype)
        if name in moved:
            carried[name] = -torch.linalg.cross(unit.expand_as(carried["q"]), carried["q"])
        turn = about_axis(unit, -angle)
        carried = {n: _times(turn, v) for n, v in carried.items()}
    return carried["q"], torch.stack([*(carried[n] for n in seen.rocking), carried["strain"]], -1)


def settings(reflection: Reflection, instrument: DfxmGeometry, seen: Observed, q: Tensor) -> Tensor:
    """The observables at which a diffraction vector is seen, by Newton's method from the nominal setting; (..., 3) -> (..., 3).

    Raises InputError where the two motors cannot bring it there.
    """
    values = nominal(reflection, instrument, seen).expand(q.shape).clone()
    for _ in range(30):
        found, jacobian = vectors(reflection, instrument, seen, values)
        away = float(((q - found) / q.norm(dim=-1, keepdim=True)).abs().max())
        if away < 1e-14 or torch.linalg.cond(jacobian.reshape(-1, 3, 3)[:1]) > 1e8:
            break
        values = values + torch.linalg.solve(jacobian, (q - found)[..., None])[..., 0]
    if not away < 1e-12:
        raise InputError(f"{seen.rocking[0]} and {seen.rocking[1]} cannot bring reflection {reflection.name} onto the detector")
    return values


def observations_covariance(dataset: xr.Dataset, seen: Observed) -> Tensor:
    """Covariance of the three peak positions, radians (or keV), shape (row, column, 3, 3).

    Standard deviations on the diagonal; off it, what counting makes the means of a tilted peak err together.
    """
    std = torch.stack([_plain(dataset[f"{n}_std"]) * seen.unit(n) for n in seen.names], -1)
    covariance = torch.diag_embed(std**2)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        a, b = seen.names[i], seen.names[j]
        shared = torch.from_numpy(error_covariance(dataset, a, b)) * seen.unit(a) * seen.unit(b)
        covariance[..., i, j] = covariance[..., j, i] = shared
    return covariance


def observations(dataset: xr.Dataset, seen: Observed) -> Tensor:
    """The three peak positions, radians (or keV), shape (row, column, 3)."""
    return torch.stack([_plain(dataset[n]) * seen.unit(n) for n in seen.names], -1)


def sample_vectors(
    dataset: xr.Dataset, reflection: Reflection, instrument: DfxmGeometry, seen: Observed
) -> tuple[Tensor, Tensor]:
    """Diffraction vectors (row, column, 3) of a map in the sample frame and their covariance (row, column, 3, 3)."""
    q, jacobian = vectors(reflection, instrument, seen, observations(dataset, seen))
    return q, jacobian @ observations_covariance(dataset, seen) @ jacobian.mT


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _plain(variable: xr.DataArray) -> Tensor:
    return torch.from_numpy(variable.values.astype("float64"))
