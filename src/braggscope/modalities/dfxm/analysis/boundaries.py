"""Dislocation boundaries in three dimensions, from weak-beam images of the layers of a volume.

After Yildirim et al. 2023 (Sci. Rep. 13, 3834): points that are bright in the weak beam, planes among them by MSAC, the
dislocations in each plane by a Fourier transform, the crystal's frame, Burgers vectors by Frank's rule. There one plane at a time
was treated and angles were typed in; here the number of planes, thresholds, directions and spacings are found, with their errors
(`boundaries/`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from ..boundaries.options import (
    EulerAngles,
    Lattice,
    LatticeMap,
    MapLayer,
    Misorientation,
    Nine,
    Orientation,
    Ratio,
    Seed,
    Structure,
    Threshold,
    Tolerance,
)
from ..geometry import DfxmGeometry

if TYPE_CHECKING:
    from ..boundaries.table import Crystal

UM = {"um": 1.0, "µm": 1.0, "micrometer": 1.0, "microns": 1.0, "mm": 1e3, "nm": 1e-3, "m": 1e6}


def boundaries(
    scan: Scan,
    *,
    orientation: Orientation = None,
    euler_deg: EulerAngles = None,
    structure: Structure = "fcc",
    lattice: Lattice = None,
    c_over_a: Ratio = None,
    misorientation: Misorientation = (),
    lattice_map: LatticeMap = None,
    map_layer: MapLayer = None,
    tolerance: Tolerance = 5.0,
    threshold: Threshold = 5.0,
    spacing_um: Annotated[float | None, Says("distance of the layers, where the scan does not say it", unit="um")] = None,
    lifts: Annotated[bool, Says("the axis is a motor that lifts the sample, so that the layer lies lower")] = False,
    seed: Seed = 0,
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """Dislocation boundaries of a weak-beam volume: planes, dislocations in them, Burgers vectors and junctions.

    scan: Weak-beam images over the height z, one for each layer.
    Returns per boundary: area, spacing of its dislocations, misorientation, most probable Burgers vector, normal and line
    direction in the laboratory and the crystal; per pair of boundaries that meet: the line and the angle between them; `label`
    (z, row, column): which boundary a bright voxel belongs to; `candidate_probability` of every Burgers vector.

    Raises InputError for a scan over anything else than z, fewer than three layers, and a volume without bright points.
    """
    from ..boundaries.points import bright_points
    from ..boundaries.table import dataset_of

    crystal = crystal_of(orientation, euler_deg, structure, lattice, c_over_a, misorientation, tolerance)
    check_threshold(threshold)
    heights = _heights(scan, spacing_um) * (-1.0 if lifts else 1.0)
    crystal = with_map(crystal, lattice_map, map_layer, (len(heights), *scan.frame_shape))
    pixel = (geometry or DfxmGeometry()).sample_pixel_um()
    cloud = bright_points(_layers(scan), heights, pixel, scan.frame_shape, threshold)
    return dataset_of(cloud, heights, crystal, seed)


def crystal_of(
    orientation: Nine | None, euler_deg: tuple[float, float, float] | None, structure: str, lattice: float | None,
    c_over_a: float | None, misorientation: tuple[float, ...], tolerance: float,
) -> Crystal:  # fmt: skip
    """What the options say of the crystal. Raises InputError where they cannot be."""
    from ..boundaries.burgers import candidates, crystal_orientation
    from ..boundaries.table import Crystal

    if orientation is not None and euler_deg is not None:
        raise InputError("orientation and euler_deg say the same; give one of them")
    for name, value, high in (("lattice", lattice, 100.0), ("tolerance", tolerance, 45.0)):
        if value is not None and not (math.isfinite(value) and 0 < value <= high):
            raise InputError(f"{name} must be positive and at most {high:g}, got {value:g}")
    if bad := [v for v in misorientation if not (math.isfinite(v) and 0 < v < 90)]:
        raise InputError(f"misorientation must be angles between 0 and 90 deg, got {bad[0]:g}")
    given = orientation if orientation is not None else euler_deg
    return Crystal(
        candidates(structure, c_over_a), None if given is None else crystal_orientation(given),
        math.nan if lattice is None else lattice, math.radians(tolerance), tuple(math.radians(v) for v in misorientation),
    )  # fmt: skip


def with_map(crystal: Crystal, lattice_map: xr.Dataset | None, layer: int | None, shape: tuple[int, ...]) -> Crystal:
    """The same with the orientation map of a layer of a volume of this shape. Raises InputError for one that it has not."""
    from ..boundaries.across import check_lattice_map

    if lattice_map is None:
        return crystal
    check_lattice_map(lattice_map, shape[1:])
    layers = shape[0]
    if crystal.misorientation:
        raise InputError("misorientation and lattice_map say the same; give one of them")
    if layer is not None and not 0 <= layer < layers:
        raise InputError(f"map_layer must be between 0 and {layers - 1}, got {layer}")
    return dataclasses.replace(crystal, lattice_map=lattice_map, map_layer=layers // 2 if layer is None else layer)


def check_threshold(threshold: float) -> None:
    """Raise InputError where a threshold cannot be."""
    if not (math.isfinite(threshold) and threshold > 0):
        raise InputError(f"threshold must be positive, got {threshold:g}")


def check_layers(heights: np.ndarray, where: str) -> None:
    """Raise InputError for heights of which no volume can be made."""
    if len(heights) < 3:
        raise InputError(f"boundaries in three dimensions need at least 3 layers, {where} has {len(heights)}")
    if not np.isfinite(heights).all() or len(np.unique(heights)) < len(heights):
        raise InputError(f"the layers of {where} must have heights of their own; give their distance with spacing_um")


def spaced(count: int, spacing_um: float) -> np.ndarray:
    """Heights of layers at this distance, um."""
    if not (math.isfinite(spacing_um) and spacing_um > 0):
        raise InputError(f"spacing_um must be positive, got {spacing_um:g}")
    return spacing_um * np.arange(count)


def _heights(scan: Scan, spacing_um: float | None) -> np.ndarray:
    """Height of each layer, um."""
    axes = [str(n) for n in scan.grid.dims]
    units = {n: str(scan.grid[n].attrs.get("units", "")) for n in axes}
    said = " x ".join(f"{n} ({units[n] or 'no unit'})" for n in axes)
    if len(axes) != 1 or (spacing_um is None and ("z" not in axes[0].lower() or units[axes[0]] not in UM)):
        raise InputError(
            f"boundaries needs a scan over the height z in um, the scan '{getattr(scan, 'name', '')}' is over {said}; of rocking "
            f"scans of layers make gram_schmidt maps, stack them with volume, and give that to boundaries-of-volume"
            + ("; or give spacing_um if the axis is the height" if len(axes) == 1 else "")
        )
    values = np.asarray(scan.grid[axes[0]].values, float)
    heights = values * UM.get(units[axes[0]], 1.0) if spacing_um is None else spaced(len(values), spacing_um)
    check_layers(heights, "the scan")
    return heights


def _layers(scan: Scan) -> Iterator[tuple[int, np.ndarray]]:
    """Number and image of each layer, NaN where a count cannot be used."""
    for batch in scan.batches():
        for n, (index, frame) in enumerate(zip(batch.index, batch.frames, strict=True)):
            image = np.asarray(frame, np.float64)
            yield int(index), image if batch.mask is None else np.where(batch.mask[n], image, np.nan)
