"""Crystal structures: lattice, symmetry, atoms; by name, from a CIF file or from parameters.

Crystal frame: x along a*, z along c (Busing & Levy 1967, Acta Cryst. 22, 457), so that q = B h in 1/angstrom, |q| = 1/d, without
2 pi. Symmetry is that of gemmi; only space groups in a setting that gemmi knows. Disorder, but for occupancies and isotropic
thermal factors, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

DEFAULT_B = 0.5
"""Isotropic thermal factor where a source states none, angstrom^2: that of a stiff crystal at room temperature."""


@dataclass(frozen=True)
class Site:
    """An atom of the asymmetric unit.

    place: Fractional coordinates.  occupancy: 0 to 1.  b_iso: Debye-Waller factor B = 8 pi^2 <u^2>, angstrom^2.
    """

    element: str
    place: tuple[float, float, float]
    occupancy: float = 1.0
    b_iso: float = DEFAULT_B


@dataclass(frozen=True)
class Crystal:
    """A crystal structure.

    name: What users call it.
    lattice: a, b, c in angstrom, alpha, beta, gamma in degrees.
    space_group: Hermann-Mauguin symbol.
    sites: The atoms of the asymmetric unit.

    >>> crystal_of("Si").b_matrix.round(4).tolist()
    [[0.1841, 0.0, 0.0], [0.0, 0.1841, 0.0], [0.0, 0.0, 0.1841]]
    """

    name: str
    lattice: tuple[float, float, float, float, float, float]
    space_group: str
    sites: tuple[Site, ...]

    @cached_property
    def b_matrix(self) -> np.ndarray:
        """B with q = B (h, k, l): columns a*, b*, c* in the crystal frame, 1/angstrom (Busing & Levy 1967, eq. 3)."""
        a, b, c = self.lattice[:3]
        alpha, beta, gamma = np.deg2rad(self.lattice[3:])
        ca, cb, cg = np.cos([alpha, beta, gamma])
        x = cb, (ca - cb * cg) / np.sin(gamma)
        real = np.array([[a, b * cg, c * x[0]], [0, b * np.sin(gamma), c * x[1]], [0, 0, c * np.sqrt(1 - x[0] ** 2 - x[1] ** 2)]])
        reciprocal = np.linalg.inv(real).T  # columns a*, b*, c* in a frame with x along a
        _, r = np.linalg.qr(reciprocal)  # the same vectors with a* along x and b* in the plane of x and y
        return np.asarray(np.sign(np.diag(r))[:, None] * r).round(15) + 0.0

    @property
    def space_group_number(self) -> int:
        """Number of the space group in the International Tables."""
        return int(self._group().number)

    @cached_property
    def operations(self) -> np.ndarray:
        """Matrices M of the Laue class, h' = M h, shape (operation, 3, 3), whole numbers; those with det +1 only."""
        group = self._group().operations()
        turns = np.array([op.rot for op in group.sym_ops]) // 24
        proper = np.array([turn * round(np.linalg.det(turn)) for turn in turns])
        return np.unique(np.linalg.inv(proper).transpose(0, 2, 1).round().astype(int), axis=0)

    @cached_property
    def rotations(self) -> np.ndarray:
        """Rotations of the Laue class in the crystal frame, shape (operation, 3, 3)."""
        return self.b_matrix @ self.operations @ np.linalg.inv(self.b_matrix)

    @cached_property
    def atoms(self) -> tuple[tuple[str, float, float, np.ndarray], ...]:
        """Each kind of atom in the cell: element, occupancy, B, places of shape (atom, 3)."""
        group, found = self._group().operations(), []
        for site in self.sites:
            images = np.array([op.apply_to_xyz(list(site.place)) for op in group]) % 1.0
            images[np.abs(images - 1) < 1e-6] = 0
            distinct: list[np.ndarray] = []
            for image in images:
                apart = [np.abs((image - one + 0.5) % 1 - 0.5).max() for one in distinct]
                if not apart or min(apart) > 1e-3:
                    distinct.append(image)
            found.append((site.element, site.occupancy, site.b_iso, np.array(distinct)))
        return tuple(found)

    def absent(self, hkl: np.ndarray) -> np.ndarray:
        """Whether the space group forbids these reflections, shape (reflection, 3) -> (reflection,)."""
        return np.asarray(self._group().operations().systematic_absences(np.ascontiguousarray(hkl, np.int32)))

    def with_lattice(self, *lattice: float) -> Crystal:
        """The same structure with other lattice parameters, angstrom and degrees."""
        return Crystal(self.name, tuple(lattice), self.space_group, self.sites)  # type: ignore[arg-type]

    def _group(self) -> Any:
        import gemmi

        return gemmi.SpaceGroup(self.space_group)


def crystal_of(what: str | Path) -> Crystal:
    """The crystal of a built-in name or of a CIF file.

    Raises ValueError, listing the names there are, for one that is neither, and for a CIF without cell, symmetry or atoms.
    """
    if str(what) in BUILT_IN:
        return BUILT_IN[str(what)]
    if Path(what).suffix.lower() == ".cif":
        return _from_cif(Path(what))
    raise ValueError(f"'{what}' is neither a CIF file nor a crystal known here; known are: {', '.join(BUILT_IN)}")


def _from_cif(path: Path) -> Crystal:
    import gemmi

    if not path.is_file():
        raise ValueError(f"CIF file {path} does not exist")
    try:
        small = gemmi.read_small_structure(str(path))
    except (ValueError, RuntimeError, OSError) as error:
        raise ValueError(f"{path} is not a CIF file with one structure ({' '.join(str(error).split())})") from None
    cell, group = small.cell, small.spacegroup
    if not cell.is_crystal() or group is None or not small.sites:
        lacking = "cell" if not cell.is_crystal() else "space group known here" if group is None else "atoms"
        raise ValueError(f"CIF file {path} has no {lacking}")
    sites = tuple(
        Site(
            s.element.name, (s.fract.x, s.fract.y, s.fract.z), s.occ or 1.0, 8 * np.pi**2 * s.u_iso if s.u_iso > 0 else DEFAULT_B
        )
        for s in small.sites
    )
    return Crystal(path.stem, (cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma), group.xhm(), sites)


def _cubic(name: str, a: float, group: str, *atoms: tuple[str, float, float]) -> Crystal:
    """A cubic crystal; atoms: element, the coordinate x of (x, x, x), B."""
    sites = tuple(Site(element, (x, x, x), 1.0, b) for element, x, b in atoms)
    return Crystal(name, (a, a, a, 90.0, 90.0, 90.0), group, sites)


def _hexagonal(name: str, a: float, c: float, group: str, *sites: Site) -> Crystal:
    return Crystal(name, (a, a, c, 90.0, 90.0, 120.0), group, sites)


# Lattice parameters at room temperature: silicon CODATA 2018; others Wyckoff, Crystal Structures (1963), and, for UO2, the value
# users of the stored pattern take. Thermal factors: Peng, Ren, Dudarev & Whelan 1996, Acta Cryst. A 52, 456, rounded.
BUILT_IN: dict[str, Crystal] = {
    one.name: one
    for one in (
        _cubic("Si", 5.43102, "F d -3 m:1", ("Si", 0.0, 0.5)),
        _cubic("Ge", 5.6575, "F d -3 m:1", ("Ge", 0.0, 0.6)),
        _cubic("C", 3.56683, "F d -3 m:1", ("C", 0.0, 0.15)),
        _cubic("GaAs", 5.6533, "F -4 3 m", ("Ga", 0.0, 0.7), ("As", 0.25, 0.6)),
        _cubic("CdTe", 6.481, "F -4 3 m", ("Cd", 0.0, 1.7), ("Te", 0.25, 1.4)),
        _cubic("InSb", 6.4794, "F -4 3 m", ("In", 0.0, 1.4), ("Sb", 0.25, 1.1)),
        _cubic("UO2", 5.47, "F m -3 m", ("U", 0.0, 0.3), ("O", 0.25, 0.5)),
        _cubic("Au", 4.0782, "F m -3 m", ("Au", 0.0, 0.6)),
        _cubic("Ag", 4.0862, "F m -3 m", ("Ag", 0.0, 0.7)),
        _cubic("Cu", 3.6149, "F m -3 m", ("Cu", 0.0, 0.55)),
        _cubic("Ni", 3.5238, "F m -3 m", ("Ni", 0.0, 0.35)),
        _cubic("Al", 4.0495, "F m -3 m", ("Al", 0.0, 0.8)),
        _cubic("Pt", 3.9242, "F m -3 m", ("Pt", 0.0, 0.35)),
        _cubic("W", 3.1652, "I m -3 m", ("W", 0.0, 0.16)),
        _cubic("Fe", 2.8665, "I m -3 m", ("Fe", 0.0, 0.35)),
        _hexagonal("GaN", 3.189, 5.185, "P 63 m c", Site("Ga", (1 / 3, 2 / 3, 0.0), 1.0, 0.3), Site("N", (1 / 3, 2 / 3, 0.377))),
        _hexagonal("ZnO", 3.2496, 5.2042, "P 63 m c", Site("Zn", (1 / 3, 2 / 3, 0.0)), Site("O", (1 / 3, 2 / 3, 0.382))),
        _hexagonal("Ti", 2.951, 4.6845, "P 63/m m c", Site("Ti", (1 / 3, 2 / 3, 0.25))),
        _hexagonal("Zr", 3.232, 5.147, "P 63/m m c", Site("Zr", (1 / 3, 2 / 3, 0.25))),
        _hexagonal("Mg", 3.2094, 5.2105, "P 63/m m c", Site("Mg", (1 / 3, 2 / 3, 0.25), 1.0, 1.6)),
    )
}
