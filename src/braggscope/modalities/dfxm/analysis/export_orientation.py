"""Export of an orientation map to MTEX, orix and OIM: a text file .ang with one orientation per pixel, written by orix.

The file holds Bunge angles (radians, five decimals: 0.0006 deg) of the rotation from the laboratory (x along the beam, z upwards,
at the reference position of the goniometer) to the crystal. The lattice of a pixel is U = R(w) U_0, its rotation vector applied
to the reference lattice. One reflection fixes of U_0 only that the plane normal hkl lies along the diffraction vector; the turn
about it must be given by the direction that is nearest to +y of the laboratory, or a low-index one is taken, and then only angles
between pixels mean something, not directions across the vector.

The coordinates of the file are not along these axes: its x is along columns and its y along rows, in um in the sample where the
size of a pixel is known. Seen by a camera without roll and flip at eta = 0 (`oblique/sample_plane.py`), columns rise along +y of
the laboratory and rows along +x, on the detector by sin 2 theta of the length in the sample. The file's x, y and x cross y are
thus y, x and -z of the laboratory: a turn by 180 deg about [1 1 0] takes one frame to the other. MTEX and orix take both as the
same unless told: turn the orientations alone, or the coordinates alone, before directions are drawn over the map. Angles between
pixels are right in any case.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import BraggscopeError, InputError
from braggscope.physics import orientation_files

from ..carried import image_dims, pixel_attributes
from ..geometry import DfxmGeometry
from ..lattice_rotations import LatticeRotations
from .orientation import orientation_of

FRAME = (
    "Euler angles: laboratory, x along the beam, z upwards, at the reference position of the goniometer; the file's x (columns) "
    "and y (rows) are +y and +x of it (eta = 0, no roll, no flip), 180 deg about [1 1 0] away"
)


def export_orientation(
    dataset: xr.Dataset,
    *,
    output: Path,
    hkl: Annotated[tuple[int, int, int], Says("the reflection that was looked at")] = (1, 1, 1),
    along_y: Annotated[tuple[int, int, int] | None, Says("crystal direction uvw nearest to +y of the laboratory")] = None,
    lattice: Annotated[tuple[float, float, float, float, float, float], Says("a, b, c (angstrom), alpha, beta, gamma (deg)")] = (
        4.0495,
        4.0495,
        4.0495,
        90.0,
        90.0,
        90.0,
    ),
    space_group: Annotated[int, Says("number in the International Tables")] = 225,
    phase: Annotated[str, Says("name of the phase in the file")] = "Al",
    geometry: DfxmGeometry | None = None,
) -> dict[str, object]:
    """Orientation map as an .ang file for MTEX, orix or OIM.

    dataset: Orientation map, or a map with motor positions, of which `orientation` is taken.
    Returns the file, its points, the frames of angles and coordinates, and what fixed the turn about the diffraction vector.
    """
    image_dims(dataset)
    if output.suffix.lower() != ".ang":
        raise InputError(f"output must end in .ang, got '{output.name}'")
    lattice_map = orientation_of(dataset, geometry)
    field = LatticeRotations.of(lattice_map)
    try:
        structure = orientation_files.phase(phase, space_group, lattice)
    except ValueError as error:
        raise InputError(str(error)) from None
    reference, chosen = _reference_lattice(structure, field, hkl, along_y)
    pixel = pixel_attributes(lattice_map, geometry)
    crystal_map = _crystal_map(lattice_map, field, reference, structure, pixel)
    try:
        orientation_files.write(output, crystal_map, quality="total", confidence="good")
    except OSError as error:
        raise BraggscopeError(f"{output} cannot be written ({error.strerror})") from None
    guessed = "" if along_y is not None else " (chosen: not known from one reflection)"
    return {
        "file": str(output),
        "points": int(field.known.sum()),
        "frame": FRAME,
        "along y": f"[{' '.join(map(str, chosen))}]{guessed}",
        "step (column, row)": "1 px" if len(pixel) < 2 else f"{pixel['pixel_column_um']:g} x {pixel['pixel_row_um']:g} um",
    }


def _reference_lattice(
    phase: Any, field: LatticeRotations, hkl: tuple[int, int, int], along_y: tuple[int, int, int] | None
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The matrix U_0 (laboratory <- crystal) with hkl along the diffraction vector and a direction nearest to y, and that one."""
    from orix.vector import Miller

    if not any(hkl):
        raise InputError("hkl must not be 0 0 0")
    normal = _unit(Miller(hkl=[hkl], phase=phase).data[0])
    target = np.array([0.0, 0.0, 1.0]) if field.unseen is None else field.unseen.numpy()
    chosen = along_y or _low_index_across(phase, normal)
    direction = _unit(Miller(uvw=[chosen], phase=phase).data[0]) if any(chosen) else normal
    across = direction - normal * (direction @ normal)
    if np.linalg.norm(across) < 1e-6:
        raise InputError(f"along_y must not be along the plane normal hkl, got {' '.join(map(str, chosen))}")
    y = np.array([0.0, 1.0, 0.0])
    crystal, laboratory = _frame(normal, across), _frame(_unit(target), y - target * (y @ target))
    return laboratory @ crystal.T, chosen


def _low_index_across(phase: Any, normal: np.ndarray) -> tuple[int, int, int]:
    """The lowest-index direction across the plane normal (the nearest to it, in a lattice without one)."""
    from orix.vector import Miller

    candidates = sorted((c for c in itertools.product((0, 1, -1, 2, -2), repeat=3) if any(c)), key=lambda c: sum(map(abs, c)))
    lengths = Miller(uvw=candidates, phase=phase).data
    cosines = np.round(np.abs(lengths @ normal) / np.linalg.norm(lengths, axis=1), 9)
    u, v, w = candidates[int(np.argmin(cosines))]
    return u, v, w


def _frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Orthonormal axes as columns: along the first, then the second, then across both."""
    one, two = first, _unit(second)
    return np.stack([one, two, np.cross(one, two)], axis=-1)


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector, float) / np.linalg.norm(vector)


def _crystal_map(dataset: xr.Dataset, field: LatticeRotations, reference: np.ndarray, phase: Any, pixel: dict[str, float]) -> Any:
    """The map as orix has it; pixels without orientation are not indexed."""
    from scipy.spatial.transform import Rotation as Turn

    known = field.known.numpy()
    vector = np.nan_to_num(np.stack([dataset[f"rotation_{c}"].values for c in "xyz"], -1)).reshape(-1, 3)
    turned = Turn.from_rotvec(vector, degrees=True).as_matrix() @ reference
    passive = turned.transpose(0, 2, 1).reshape(*known.shape, 3, 3)
    steps = (pixel["pixel_row_um"], pixel["pixel_column_um"]) if len(pixel) == 2 else None
    total = dataset["total"].values if "total" in dataset else np.ones(known.shape)
    properties = {"total": total, "good": (dataset["flag"].values == 0).astype(float)}
    return orientation_files.crystal_map(passive, known, phase, steps=steps, properties=properties)
