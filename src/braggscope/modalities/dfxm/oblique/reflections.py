"""The reflections of one experiment in oblique geometry, from a TOML file.

    [dfxm]                      # the instrument, as in any geometry file
    energy_kev = 19.1
    pixel_um = 0.75
    magnification = 15.1
    goniometer = "mu:-y omega:z chi:x phi:y"

    [crystal]
    lattice = [4.0493]          # a of a cubic lattice, or a, b, c (angstrom), alpha, beta, gamma (deg)

    [[reflection]]              # three or more, in the order of the maps
    hkl = [-1, -1, 3]
    eta_deg = 20.232593         # azimuth of the diffracted beam about the incident one, 0 upwards, positive towards -y
    at = {omega = 6.431585}     # where the unstrained crystal diffracts, deg; motors that are not named stand at 0
    two_theta_deg = 30.833674   # left out: from lattice and energy
    flip = "none"               # how the camera's image is mirrored: none, rows, columns or both
    roll_deg = 0.0              # turn of the camera about the diffracted beam

Laboratory frame: x along the beam, z upwards, y = z cross x. Sample frame: the laboratory's, carried along by the goniometer,
all motors at zero. Diffracted beam (cos 2theta, -sin eta sin 2theta, cos eta sin 2theta), as in Henningsson et al. 2025
(arXiv:2503.22022). Why oblique: Detlefs et al. 2025, J. Appl. Cryst. 58, 1439.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braggscope.core.errors import InputError
from braggscope.physics.diffraction import wavelength
from braggscope.physics.rotations import goniometer

from ..geometry import DfxmGeometry

FLIPS = ("none", "rows", "columns", "both")
ORIENTATION_TOLERANCE_DEG = 1.0  # more than this between stated angles and lattice is a wrong index or sign, not a strain
BRAGG_TOLERANCE_DEG = 0.5
COPLANAR = 50.0  # condition number of the directions from which on errors grow beyond use

# Aluminium 113, Henningsson et al. 2025 (arXiv:2503.22022) and its program darkmod, tests/end_to_end/defrec/strain_mosa.py
PUBLISHED = """\
[dfxm]
energy_kev = 19.1
pixel_um = 0.75
magnification = 15.1
goniometer = "mu:-y omega:z chi:x phi:y"

[crystal]
lattice = [4.0493]

[[reflection]]
hkl = [-1, -1, 3]
eta_deg = 20.232593
at = {omega = 6.431585}

[[reflection]]
hkl = [-1, 1, 3]
eta_deg = 20.232593
at = {omega = 96.431585}

[[reflection]]
hkl = [1, 1, 3]
eta_deg = 20.232593
at = {omega = 186.431585}

[[reflection]]
hkl = [1, -1, 3]
eta_deg = 20.232593
at = {omega = 276.431585}
"""


@dataclass(frozen=True)
class Reflection:
    """One reflection and the setting at which the unstrained crystal shows it; units as in the file."""

    hkl: tuple[int, int, int]
    eta_deg: float
    two_theta_deg: float
    at: Mapping[str, float] = field(default_factory=dict)
    flip: str = "none"
    roll_deg: float = 0.0

    @property
    def name(self) -> str:
        """The indices as one writes them: "-1 1 3"."""
        return " ".join(map(str, self.hkl))

    def rotation(self, instrument: DfxmGeometry) -> np.ndarray:
        """Rotation from the sample to the laboratory at the nominal setting, shape (3, 3)."""
        axes = instrument.goniometer_axes()
        angles = [torch.tensor(math.radians(self.at.get(name, 0.0)), dtype=torch.float64) for name in axes]
        return np.asarray(goniometer(list(axes.values()), angles))

    def nominal_direction(self, instrument: DfxmGeometry) -> np.ndarray:
        """Direction of the diffraction vector in the sample frame that setting and eta say, shape (3,)."""
        return self.rotation(instrument).T @ lab_direction(self.two_theta_deg, self.eta_deg)

    def lit_plane(self, instrument: DfxmGeometry) -> np.ndarray:
        """Normal of the horizontal sheet of light in the sample frame, shape (3,)."""
        return self.rotation(instrument).T @ np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class ReflectionSet:
    """Instrument, lattice and reflections, checked against each other.

    basis: Reciprocal basis of the unstrained crystal in its own frame, columns a*, b*, c*, with 2 pi, 1/angstrom.
    orientation: Rotation from the crystal to the sample that fits the stated settings best.
    """

    instrument: DfxmGeometry
    reflections: tuple[Reflection, ...]
    basis: np.ndarray
    orientation: np.ndarray

    @property
    def energy_kev(self) -> float:
        """Photon energy."""
        assert self.instrument.energy_kev is not None
        return self.instrument.energy_kev

    def reference_vectors(self) -> np.ndarray:
        """q0 = U B hkl of each reflection in the sample frame, 1/angstrom, shape (reflection, 3)."""
        return np.array([self.orientation @ self.basis @ np.array(r.hkl, float) for r in self.reflections])

    def condition(self) -> float:
        """Condition number of the directions of the diffraction vectors; infinite where they lie in a plane."""
        return condition(self.reference_vectors())


def lab_direction(two_theta_deg: float, eta_deg: float) -> np.ndarray:
    """Unit vector along k' - k in the laboratory, (-sin theta, -sin eta cos theta, cos eta cos theta)."""
    theta, eta = math.radians(two_theta_deg) / 2, math.radians(eta_deg)
    return np.array([-math.sin(theta), -math.sin(eta) * math.cos(theta), math.cos(eta) * math.cos(theta)])


def condition(vectors: np.ndarray) -> float:
    """Condition number of the directions of these vectors, shape (vector, 3)."""
    s = np.linalg.svd(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), compute_uv=False)
    return float(s[0] / s[2]) if len(s) == 3 and s[2] > 1e-12 * s[0] else math.inf


def reciprocal_basis(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> np.ndarray:
    """Columns a*, b*, c* with 2 pi (angstrom, deg in), a* in the plane of x and the rest by a along x, b in x-y.

    >>> bool(np.allclose(reciprocal_basis(2.0, 4.0, 5.0, 90, 90, 90), np.diag([np.pi, np.pi / 2, 0.4 * np.pi])))
    True
    """
    ca, cb, cg = (math.cos(math.radians(x)) for x in (alpha, beta, gamma))
    sg = math.sin(math.radians(gamma))
    square = 1 - ca**2 - cb**2 - cg**2 + 2 * ca * cb * cg
    if square <= 0:
        raise InputError(f"lattice: no cell has the angles alpha {alpha:g}, beta {beta:g}, gamma {gamma:g} deg")
    vectors = np.array([[a, b * cg, c * cb], [0, b * sg, c * (ca - cb * cg) / sg], [0, 0, c * math.sqrt(square) / sg]])
    return 2 * np.pi * np.linalg.inv(vectors).T


def published() -> ReflectionSet:
    """The four reflections of aluminium of Henningsson et al. 2025."""
    return _from_document(tomllib.loads(PUBLISHED), "published reflections", None)


def read_reflections(path: str | Path, geometry: DfxmGeometry | None = None) -> ReflectionSet:
    """The reflections in a TOML file (see the head of this module).

    geometry: The instrument, where the file has no table [dfxm].
    Raises InputError, naming file and field, for what is missing, out of range or contradicts the rest.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"reflections file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"reflections file {path} cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"reflections file {path} is not TOML: {error}") from None
    return _from_document(document, str(path), geometry)


def _from_document(document: Mapping[str, Any], where: str, geometry: DfxmGeometry | None) -> ReflectionSet:
    """The set that a document states."""
    _only(document, ("dfxm", "crystal", "reflection"), where)
    if "dfxm" in document:
        instrument = DfxmGeometry.from_mapping(document["dfxm"], where=where)
    elif geometry is not None:
        instrument = geometry
    else:
        raise InputError(f"{where}: the instrument is missing: a table [dfxm] with energy_kev, or a geometry")
    if instrument.energy_kev is None:
        raise InputError(f"{where}: [dfxm] lacks energy_kev (photon energy, in keV)")
    basis = _basis(document.get("crystal"), where)
    tables = document.get("reflection")
    if not isinstance(tables, list) or len(tables) < 3:
        count = len(tables) if isinstance(tables, list) else 0
        raise InputError(f"{where}: the deformation needs three or more tables [[reflection]], got {count}")
    found = tuple(_reflection(t, f"{where}: reflection {i}", basis, instrument) for i, t in enumerate(tables, start=1))
    return _checked(ReflectionSet(instrument, found, basis, np.eye(3)), where)


def _basis(table: Any, where: str) -> np.ndarray:
    """The reciprocal basis that the table [crystal] states."""
    if not isinstance(table, dict) or "lattice" not in table:
        raise InputError(f"{where}: [crystal] lacks lattice ([a] in angstrom, or [a, b, c, alpha, beta, gamma])")
    _only(table, ("lattice",), f"{where}: [crystal]")
    given = table["lattice"]
    values = [given] if isinstance(given, int | float) else given
    if not isinstance(values, list) or len(values) not in (1, 6) or not all(_is_number(v) for v in values):
        raise InputError(f"{where}: lattice must be [a] or [a, b, c, alpha, beta, gamma], got {given!r}")
    full = [values[0]] * 3 + [90.0] * 3 if len(values) == 1 else values
    if not all(0.5 <= v <= 500 for v in full[:3]) or not all(10 <= v <= 170 for v in full[3:]):
        raise InputError(f"{where}: lattice must have lengths of 0.5 to 500 angstrom and angles of 10 to 170 deg, got {given!r}")
    return reciprocal_basis(*(float(v) for v in full))


def _reflection(table: Any, where: str, basis: np.ndarray, instrument: DfxmGeometry) -> Reflection:
    """One table [[reflection]]."""
    _only(table, ("hkl", "eta_deg", "two_theta_deg", "at", "flip", "roll_deg"), where)
    hkl = table.get("hkl")
    if not isinstance(hkl, list) or len(hkl) != 3 or not all(_is_number(v) and v == int(v) for v in hkl) or not any(hkl):
        raise InputError(f"{where}: hkl must be three whole numbers, not all 0, like [1, -1, 3], got {hkl!r}")
    h, k, m = (int(v) for v in hkl)
    expected = bragg_two_theta_deg(basis, (h, k, m), instrument, where)
    two_theta = _number(table, "two_theta_deg", where, 0.1, 179.0, expected)
    if abs(two_theta - expected) > BRAGG_TOLERANCE_DEG:
        raise InputError(
            f"{where}: two_theta_deg is {two_theta:g}, but lattice and energy give {expected:.4f} for hkl {h} {k} {m}; "
            "check hkl, lattice and energy_kev"
        )
    at = table.get("at", {})
    if not isinstance(at, dict) or not all(_is_number(v) and abs(v) <= 360 for v in at.values()):
        raise InputError(f"{where}: at must be motors with their positions in degrees, like {{omega = 6.43}}, got {at!r}")
    known = instrument.goniometer_axes()
    for name in at:
        if name not in known and name not in ("obpitch", "two_theta", "ccmth"):
            raise InputError(f"{where}: at names the motor '{name}', which the goniometer lacks; it has: {', '.join(known)}")
    flip = table.get("flip", "none")
    if flip not in FLIPS:
        raise InputError(f"{where}: flip must be one of {', '.join(FLIPS)}, got {flip!r}")
    eta, roll = _number(table, "eta_deg", where, -180, 180, None), _number(table, "roll_deg", where, -360, 360, 0.0)
    return Reflection((h, k, m), eta, two_theta, {n: float(v) for n, v in at.items()}, flip, roll)


def bragg_two_theta_deg(basis: np.ndarray, hkl: tuple[int, int, int], instrument: DfxmGeometry, where: str = "") -> float:
    """Scattering angle of a reflection, 2 asin(lambda |q| / 4 pi). Raises InputError where the energy is too low for it."""
    assert instrument.energy_kev is not None
    sine = wavelength(instrument.energy_kev) * float(np.linalg.norm(basis @ np.array(hkl, float))) / (4 * math.pi)
    if sine >= 1:
        raise InputError(f"{where}: hkl {hkl[0]} {hkl[1]} {hkl[2]} cannot diffract at {instrument.energy_kev:g} keV")
    return 2 * math.degrees(math.asin(sine))


def _checked(stated: ReflectionSet, where: str) -> ReflectionSet:
    """The set with its orientation, where lattice and settings agree, the reflections span space and light the same plane."""
    lattice = np.array([stated.basis @ np.array(r.hkl, float) for r in stated.reflections])
    lattice /= np.linalg.norm(lattice, axis=1, keepdims=True)
    limit = condition(lattice)
    if limit > COPLANAR:
        names = ", ".join(r.name for r in stated.reflections)
        raise InputError(
            f"{where}: the reflections {names} lie in (or nearly in) one plane (condition number {limit:.3g}, at most "
            f"{COPLANAR:g}); add one out of it"
        )
    measured = np.array([r.nominal_direction(stated.instrument) for r in stated.reflections])
    u, _, vh = np.linalg.svd(measured.T @ lattice)  # Kabsch 1976: the rotation that takes lattice to measured best
    orientation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vh)]) @ vh
    away = np.degrees(np.arccos(np.clip((measured * (lattice @ orientation.T)).sum(axis=1), -1, 1)))
    if away.max() > ORIENTATION_TOLERANCE_DEG:
        worst = int(away.argmax())
        raise InputError(
            f"{where}: no orientation of the lattice shows all reflections at their settings (reflection {worst + 1}, "
            f"{stated.reflections[worst].name}, is {away[worst]:.2f} deg away); check hkl, eta_deg, at and the goniometer"
        )
    planes = np.array([r.lit_plane(stated.instrument) for r in stated.reflections])
    tilt = np.degrees(np.arccos(np.clip(planes @ planes[0], -1, 1)))
    if tilt.max() > ORIENTATION_TOLERANCE_DEG:
        other = int(tilt.argmax())
        raise InputError(
            f"{where}: reflections 1 and {other + 1} light planes of the sample that are {tilt[other]:.2f} deg apart; only "
            "maps of one plane can be combined"
        )
    return dataclasses.replace(stated, orientation=orientation)


def _only(table: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(table, dict):
        raise InputError(f"{where} must be a table with {', '.join(known)}, got {table!r}")
    for key in table:
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'; known are: {', '.join(known)}")


def _number(table: Mapping[str, Any], key: str, where: str, low: float, high: float, default: float | None) -> float:
    value = table.get(key, default)
    if value is None:
        raise InputError(f"{where} lacks {key}")
    if not _is_number(value) or not low <= value <= high:
        raise InputError(f"{where}: {key} must be between {low:g} and {high:g} deg, got {value!r}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
