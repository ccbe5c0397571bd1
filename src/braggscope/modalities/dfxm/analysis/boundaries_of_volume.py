"""Dislocation boundaries of a volume of weak-beam maps: gram_schmidt maps of rocking scans, registered and stacked by volume."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError

from ..boundaries.options import (
    EulerAngles,
    Lattice,
    LatticeMap,
    MapLayer,
    Misorientation,
    Orientation,
    Ratio,
    Seed,
    Structure,
    Threshold,
    Tolerance,
)
from ..carried import pixel_attributes
from ..geometry import DfxmGeometry
from .boundaries import check_layers, check_threshold, crystal_of, spaced, with_map


def boundaries_of_volume(
    volume: xr.Dataset,
    *,
    quantity: Annotated[str, Says("which is high on dislocations")] = "weak",
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
    spacing_um: Annotated[float | None, Says("distance of the layers, where the volume does not say it", unit="um")] = None,
    seed: Seed = 0,
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """Dislocation boundaries of a volume of weak-beam maps, as `boundaries` finds them in weak-beam images.

    volume: Map over layer, row and column, as `volume` makes it of gram_schmidt maps.
    Returns what `boundaries` returns. Raises InputError for maps that are no volume or lack the quantity.
    """
    from ..boundaries.points import bright_points
    from ..boundaries.table import dataset_of

    crystal = crystal_of(orientation, euler_deg, structure, lattice, c_over_a, misorientation, tolerance)
    check_threshold(threshold)
    if quantity not in volume or volume[quantity].dims != ("layer", "row", "column"):
        over = ", ".join(map(str, volume["flag"].dims))
        raise InputError(
            f"boundaries-of-volume needs {quantity} over layer, row, column; this map is over {over}: make it with volume"
        )
    images = volume[quantity].values
    known = spacing_um is None and "layer" in volume.coords and volume["layer"].attrs.get("units") == "um"
    if not known and spacing_um is None:
        raise InputError("the volume does not say how far its layers are apart; give spacing_um")
    heights = np.asarray(volume["layer"].values, float) if spacing_um is None else spaced(len(images), spacing_um)
    check_layers(heights, "the volume")
    crystal = with_map(crystal, lattice_map, map_layer, images.shape)
    pixel = pixel_attributes(volume, geometry)
    if len(pixel) < 2:
        raise InputError("the volume does not say the size of a pixel; give a geometry")
    size = pixel["pixel_row_um"], pixel["pixel_column_um"]
    layers = enumerate(np.asarray(one, np.float64) for one in images)
    cloud = bright_points(layers, heights, size, images.shape[1:], threshold)
    return dataset_of(cloud, heights, crystal, seed)
