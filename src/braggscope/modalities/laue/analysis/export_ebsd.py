"""Export of a map to programs for EBSD: a file .ang or .ctf with one orientation per point.

Euler angles and coordinates are both in the frame of the sample: x along the map's x (along the beam, uphill), y along its y, z
the normal of the surface, z = x cross y. Nothing has to be turned before directions are drawn over the map. The laboratory is
turned by the tilt of the sample about y, and by the roll of the geometry about the beam.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import BraggscopeError, InputError
from braggscope.physics import orientation_files

from ..files.table import stated_geometry
from ..frames import passive, surface_axes
from ..grain_maps import crystal_of_map, matrices_of, steps_um, two_axes

FRAME = "Euler angles and coordinates: x along the map's x (the beam, uphill), y along its y, z the normal of the surface"


def export_ebsd(
    dataset: xr.Dataset,
    *,
    output: Path,
    material: Annotated[str | None, Says("name or CIF file; left out: that of the map")] = None,
) -> dict[str, object]:
    """Orientations of a map as a file .ang or .ctf for MTEX, orix, OIM or Channel 5.

    dataset: Map with `orientation_x`, `_y`, `_z`. `fraction`, in per cent, becomes image quality or band contrast, and points
        without a flag have confidence 1.
    Returns the file, its points, the material and the frame.
    Raises InputError for another ending, a map without orientations, steps or material.
    """
    if output.suffix.lower() not in orientation_files.ENDINGS:
        raise InputError(f"output must end in {' or '.join(orientation_files.ENDINGS)}, got '{output.name}'")
    two_axes(dataset)
    u, crystal, steps = matrices_of(dataset), crystal_of_map(dataset, material), steps_um(dataset)
    if backwards := [n for n in two_axes(dataset) if dataset[n].size > 1 and dataset[n].values[-1] < dataset[n].values[0]]:
        dataset = dataset.isel({n: slice(None, None, -1) for n in backwards})
        u = matrices_of(dataset)
    known = np.isfinite(u).all((-2, -1))
    if not known.any():
        raise InputError("the map has no point with an orientation")
    light = dataset["fraction"].values if "fraction" in dataset else known.astype(float)
    properties = {"quality": 100 * light, "good": (dataset["flag"].values == 0).astype(float)}
    phase = orientation_files.phase(crystal.name, crystal.space_group_number, crystal.lattice)
    made = orientation_files.crystal_map(
        passive(np.nan_to_num(u), crystal, sample=sample_frame(dataset)), known, phase, steps=steps, properties=properties
    )
    try:
        orientation_files.write(output, made, quality="quality", confidence="good")
    except OSError as error:
        raise BraggscopeError(f"{output} cannot be written ({error.strerror})") from None
    return {"file": str(output), "points": int(known.sum()), "material": crystal.name, "frame": FRAME,
            "step (y, x)": f"{steps[0]:g} x {steps[1]:g} um"}  # fmt: skip


def sample_frame(dataset: xr.Dataset) -> np.ndarray:
    """Takes vectors of the frame of a map's orientations to that of the sample, shape (3, 3).

    The unit matrix for a map whose orientations are in the frame of the sample, and for one without geometry.
    """
    geometry = stated_geometry(dataset)
    if dataset.attrs.get("orientation_frame") == "sample" or geometry is None:
        return np.eye(3)
    return surface_axes(geometry)
