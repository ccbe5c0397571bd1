"""Orientation maps as orix has them, and as the files .ang (EDAX) and .ctf (Oxford) of EBSD have them.

A map is a rectangle of passive rotations, from the frame of the sample to that of the crystal (x along a, z along c*), with the
places of its points. For trigonal and hexagonal crystals .ctf has x along a* instead (y along b, the setting of HKL Channel; .ang
has x along a, that of TSL: Britton et al. 2016, Mater. Charact. 117, 113), which is turned here, as orix does not.

Files hold Bunge's angles: .ang in radians with five decimals (0.0006 deg), .ctf in degrees with four.
Points without orientation are not indexed: confidence -1 in .ang, phase 0 in .ctf. Reading is by orix, and so is writing of .ang.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LAUE_CLASSES = ("-1", "2/m", "mmm", "4/m", "4/mmm", "-3", "-3m", "6/m", "6/mmm", "m-3", "m-3m")
"""In the order of their numbers in .ctf files, from 1."""
ENDINGS = (".ang", ".ctf")


def phase(name: str, space_group: int, lattice: Sequence[float]) -> Any:
    """The crystal, as orix has it. Raises ValueError for a lattice or a space group that cannot be.

    space_group: Number in the International Tables.  lattice: a, b, c (angstrom), alpha, beta, gamma (deg).
    """
    from diffpy.structure import Lattice, Structure  # type: ignore[import-untyped]
    from orix.crystal_map import Phase

    if not all(math.isfinite(v) and v > 0 for v in lattice) or max(lattice[3:]) >= 180:
        raise ValueError(f"lattice must be three positive lengths and three angles below 180 deg, got {tuple(lattice)}")
    if not 1 <= space_group <= 230:
        raise ValueError(f"space_group must be between 1 and 230, got {space_group}")
    return Phase(name=name, space_group=space_group, structure=Structure(lattice=Lattice(*lattice)))


def crystal_map(
    passive: np.ndarray, known: np.ndarray, phase: Any, *, steps: tuple[float, float] | None, properties: Mapping[str, np.ndarray]
) -> Any:
    """The map of orix.

    passive: Matrices from the sample to the crystal, shape (row, column, 3, 3).
    known: Whether a point has an orientation, shape (row, column).
    steps: Between rows and between columns, um; None where they are not known: pixels.
    properties: By name, shape (row, column).
    """
    from orix.crystal_map import CrystalMap, PhaseList
    from orix.quaternion import Rotation

    rows, columns = np.indices(known.shape)
    dy, dx = steps or (1.0, 1.0)
    whole = np.where(known[..., None, None], passive, np.eye(3)).reshape(-1, 3, 3)
    return CrystalMap(
        rotations=Rotation.from_matrix(whole),
        phase_id=np.where(known, 0, -1).ravel(),
        x=columns.ravel() * dx,
        y=rows.ravel() * dy,
        phase_list=PhaseList(phases=[phase], ids=[0]),
        scan_unit="um" if steps else "px",
        prop={name: np.nan_to_num(values).ravel() for name, values in properties.items()},
    )


def write(path: Path, made: Any, *, quality: str, confidence: str) -> None:
    """Write a map as .ang or .ctf, whole or not at all. Raises OSError where it cannot be written.

    quality, confidence: Names of the properties that become image quality and confidence (.ang), or band contrast and,
        rounded, bands (.ctf).
    """

    def ang(part: Path) -> None:
        from orix.io import save

        save(str(part), made, confidence_index_prop=confidence, image_quality_prop=quality, overwrite=True)

    def ctf(part: Path) -> None:
        part.write_text("\n".join(_ctf_lines(made, quality, confidence)) + "\n")

    writers: dict[str, Callable[[Path], None]] = {".ang": ang, ".ctf": ctf}
    part = path.with_name(f".writing.{path.name}")
    try:
        writers[path.suffix.lower()](part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _ctf_lines(made: Any, quality: str, confidence: str) -> list[str]:
    """The text of a .ctf file."""
    crystal = next(one for number, one in made.phases if number >= 0)
    lattice = crystal.structure.lattice.abcABG()
    laue = LAUE_CLASSES.index(crystal.point_group.laue.name) + 1
    number = crystal.space_group.number if crystal.space_group is not None else 0
    rows, columns = made.shape
    head = [
        "Channel Text File", f"Prj\t{crystal.name}", "Author\t", "JobMode\tGrid",
        f"XCells\t{columns}", f"YCells\t{rows}", f"XStep\t{made.dx:.6g}", f"YStep\t{made.dy:.6g}",
        "AcqE1\t0", "AcqE2\t0", "AcqE3\t0", "Euler angles refer to Sample Coordinate system (CS0)!", "Phases\t1",
        "\t".join([";".join(f"{v:.4f}" for v in lattice[:3]), ";".join(f"{v:.3f}" for v in lattice[3:]),
                   crystal.name, str(laue), str(number)]),
        "Phase\tX\tY\tBands\tError\tEuler1\tEuler2\tEuler3\tMAD\tBC\tBS",
    ]  # fmt: skip
    indexed = made.is_indexed
    euler = np.where(indexed[:, None], np.rad2deg(_as_ctf(made.rotations, crystal.point_group.laue.name).to_euler()), 0.0)
    bands, contrast = (np.rint(made.prop[n]).astype(int) for n in (confidence, quality))
    points = zip(indexed, made.x, made.y, bands, euler, contrast, strict=True)
    return head + [
        f"{int(i)}\t{x:.6g}\t{y:.6g}\t{b if i else 0}\t{0 if i else 3}\t{e[0]:.4f}\t{e[1]:.4f}\t{e[2]:.4f}\t0\t{c if i else 0}\t0"
        for i, x, y, b, e, c in points
    ]


@dataclass(frozen=True, eq=False)
class Points:
    """What a file of EBSD says, point by point.

    passive: Matrices from the sample to the crystal, shape (point, 3, 3).  x, y: Places, um, shape (point,).
    known: Whether a point has an orientation of the phase, shape (point,); `other`: whether it is of another phase.
    name, lattice, laue: The phase that most points are of: name, a, b, c, alpha, beta, gamma, Laue class.
    """

    passive: np.ndarray
    x: np.ndarray
    y: np.ndarray
    known: np.ndarray
    other: np.ndarray
    name: str
    lattice: tuple[float, ...]
    laue: str


def read(path: Path) -> Points:
    """The points of a .ang or .ctf file. Raises ValueError where it is none, or has no indexed point."""
    from orix.io import load

    try:
        made = load(str(path), **({"autogen_names": False} if path.suffix.lower() == ".ang" else {}))  # else it prints
    except Exception as error:  # orix has many ways to fail on a file that is not as it should be
        raise ValueError(
            f"{path} cannot be read as a map of EBSD ({' '.join(str(error).split()) or type(error).__name__})"
        ) from None
    indexed = np.asarray(made.is_indexed)
    if not indexed.any():
        raise ValueError(f"{path} has no indexed point")
    phases, counts = np.unique(np.asarray(made.phase_id)[indexed], return_counts=True)
    chosen = phases[counts.argmax()]
    crystal = made.phases[int(chosen)]
    if crystal.point_group is None:
        raise ValueError(f"{path} does not state the symmetry of its phase {crystal.name}")
    known = indexed & (np.asarray(made.phase_id) == chosen)
    scale = {"um": 1.0, "nm": 1e-3, "mm": 1e3}.get(str(made.scan_unit), 1.0)
    place = (np.zeros(known.shape) if one is None else scale * np.asarray(one, float) for one in (made.x, made.y))
    x, y = place
    lattice = tuple(float(v) for v in crystal.structure.lattice.abcABG())
    name, laue = str(crystal.name), crystal.point_group.laue.name
    rotations = _as_ctf(made.rotations, laue, back=True) if path.suffix.lower() == ".ctf" else made.rotations
    return Points(rotations.to_matrix().reshape(-1, 3, 3), x, y, known, indexed & ~known, name, lattice, laue)


def _as_ctf(rotations: Any, laue: str, back: bool = False) -> Any:
    """Passive rotations with x of the crystal along a* where .ctf files have it so; back: from there to x along a."""
    from orix.quaternion import Rotation

    if laue not in ("-3", "-3m", "6/m", "6/mmm"):
        return rotations
    turn = math.radians(30 if back else -30)  # a* is 30 deg from a, towards b
    c, s = math.cos(turn), math.sin(turn)
    return Rotation.from_matrix(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ rotations.to_matrix())
