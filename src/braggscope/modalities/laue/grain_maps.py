"""Grain maps: labels, orientations and steps of a map, connected regions of one label, and maps made of orientations.

A grain map is over two scan axes, first y then x, in the sample: `grain` (label, 0 or NaN for none) and, where known,
`orientation_x`, `_y`, `_z`. The crystal is that of the geometry in the attributes, or the attribute `crystal` of a map of EBSD,
whose orientations are in the frame of the sample (attribute `orientation_frame`) instead of the laboratory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError
from braggscope.core.maps import Quantity, empty_map
from braggscope.physics.crystals import Crystal

from .files.table import stated_geometry
from .indexing.indexed import rotation_vectors
from .misorientation import angles
from .reflections import material as crystal_named
from .spectrum import surface_normal

LEAST = 3
"""Points of a grain, at least; smaller regions are left out."""
TO_UM = {"um": 1.0, "µm": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "m": 1e6}
ORIENTATION = ("orientation_x", "orientation_y", "orientation_z")
NOT_INDEXED, OTHER_PHASE = 1, 2


@dataclass(frozen=True, eq=False)
class Regions:
    """Connected regions of one label, largest first.

    number: Region at each point, from 1; 0 for none.  label: Of each region.  points: Of each region.
    cut: Whether the border of the map or points without grain may cut it.  at_border: Whether the border may.
    """

    number: np.ndarray
    label: np.ndarray
    points: np.ndarray
    cut: np.ndarray
    at_border: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


def labels_of(dataset: xr.Dataset, *, threshold_deg: float = 5.0, material: str | None = None) -> np.ndarray:
    """The label of each point, 0 for none: `grain`, or, of a map without, regions whose neighbours differ by less than a
    threshold.

    Raises InputError where the map has neither labels nor orientations, or is not over two axes.
    """
    two_axes(dataset)
    if not (np.isfinite(threshold_deg) and threshold_deg > 0):
        raise InputError(f"threshold must be positive, got {threshold_deg:g}")
    if "grain" in dataset.data_vars and dataset["grain"].dims == dataset["flag"].dims:
        values = np.nan_to_num(dataset["grain"].values, nan=0.0)
        found = np.where(values > 0, values, 0).astype(np.int64)
    elif ORIENTATION[0] in dataset:
        found = segmented(matrices_of(dataset), crystal_of_map(dataset, material), threshold_deg)
    else:
        raise InputError(
            "the map must have `grain` or `orientation_x`, `_y`, `_z`; it has: " + ", ".join(map(str, dataset.data_vars))
        )
    if not found.any():
        raise InputError("the map has no point with a grain")
    return found


def segmented(orientation: np.ndarray, crystal: Crystal, threshold_deg: float) -> np.ndarray:
    """Labels of regions whose neighbouring points differ by at most a threshold, shape (y, x, 3, 3) -> (y, x); 0 for NaN."""
    known = np.isfinite(orientation).all((-2, -1))
    place = np.arange(known.size).reshape(known.shape)
    ends = []
    for near, far in _neighbours():
        close = angles(orientation[near], orientation[far], crystal.rotations) <= threshold_deg
        ends.append(np.stack([place[near][close], place[far][close]]))
    one, other = np.concatenate(ends, 1)
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(known.size, known.size))
    which = connected_components(graph, directed=False)[1].reshape(known.shape)
    found = np.zeros(known.shape, np.int64)
    found[known] = np.unique(which[known], return_inverse=True)[1] + 1
    return found


def regions_of(label: np.ndarray, *, least: int = LEAST) -> Regions:
    """The connected regions of each label that have enough points; neighbours are those along y and along x."""
    from skimage.measure import label as connected

    number = connected(label, background=0, connectivity=1)
    points = np.bincount(number.ravel())
    points[0] = 0
    order = np.argsort(-points, kind="stable")
    order = order[points[order] >= max(least, 1)]
    count = len(order)
    table = np.zeros(len(points), np.int64)
    table[order] = np.arange(1, count + 1)
    number = table[number]
    cut = np.zeros(count + 1, bool)
    for edge in (number[0], number[-1], number[:, 0], number[:, -1]):
        cut[edge] = True
    at_border = cut.copy()
    for near, far in _neighbours():
        for one, other in ((near, far), (far, near)):
            cut[number[one][label[other] == 0]] = True
    first = np.zeros(count + 1, np.int64)
    first[number] = label
    return Regions(number, first[1:], points[order], cut[1:], at_border[1:])


def whole_or_all(regions: Regions, whole: bool) -> np.ndarray:
    """Which regions count, shape (region,): all, or those that nothing cuts. Raises InputError where none is left."""
    use = ~regions.cut if whole else np.ones(len(regions), bool)
    if not use.any():
        what = "that the border does not cut" if whole and len(regions) else f"of {LEAST} points or more"
        raise InputError(f"the map has no grain {what}")
    return use


def two_axes(dataset: xr.Dataset) -> tuple[str, str]:
    """The slow and the fast axis of a map. Raises InputError where it is not over two axes of the scan."""
    dims = tuple(str(d) for d in dataset["flag"].dims) if "flag" in dataset else ()
    if len(dims) != 2 or "peak" in dims or set(dims) == {"row", "column"}:
        raise InputError(f"the map must be over the two axes y and x of a scan, got {', '.join(dims) or 'a table'}")
    return dims[0], dims[1]


def steps_um(dataset: xr.Dataset) -> tuple[float, float]:
    """Steps along y and x, um. Raises InputError where an axis has no length as unit, or is not even."""
    found = []
    for name in two_axes(dataset):
        unit = str(dataset[name].attrs.get("units", "")) if name in dataset.coords else ""
        if unit not in TO_UM:
            raise InputError(f"axis {name} of the map must have a length as unit (um), got '{unit}'")
        place = dataset[name].values.astype(float) * TO_UM[unit]
        step = (place[-1] - place[0]) / (len(place) - 1) if len(place) > 1 else np.nan
        if len(place) > 1 and (step == 0 or np.abs(np.diff(place) / step - 1).max() > 0.05):
            raise InputError(f"axis {name} of the map must have even steps; they go from "
                             f"{np.diff(place).min():g} to {np.diff(place).max():g} um")  # fmt: skip
        found.append(abs(step))
    if np.isnan(found).all():
        raise InputError("the map has one point only")
    dy, dx = found
    return (dx, dx) if np.isnan(dy) else (dy, dy) if np.isnan(dx) else (dy, dx)


def matrices_of(dataset: xr.Dataset) -> np.ndarray:
    """U of each point, NaN where it is not known, shape (y, x, 3, 3). Raises InputError for a map without orientations."""
    if missing := [name for name in ORIENTATION if name not in dataset]:
        raise InputError(f"the map must have orientations; it lacks {', '.join(missing)}")
    vector = np.stack([dataset[name].values for name in ORIENTATION], -1).astype(float)
    known = np.isfinite(vector).all(-1)
    found = np.full((*known.shape, 3, 3), np.nan)
    found[known] = Rotation.from_rotvec(vector[known], degrees=True).as_matrix()
    return found


def crystal_of_map(dataset: xr.Dataset, material: str | None = None) -> Crystal:
    """The crystal that a map is of: the material given, else the one that the map states. Raises InputError where neither is."""
    if material:
        return crystal_named(material)
    if "crystal" in dataset.attrs:
        said = json.loads(str(dataset.attrs["crystal"]))
        return Crystal(said["name"], tuple(said["lattice"]), said["space_group"], ())
    geometry = stated_geometry(dataset)
    if geometry is None or not geometry.material:
        raise InputError("the map does not state its material; give it by --material NAME_OR_CIF")
    return crystal_named(geometry.material)


def crystal_attribute(crystal: Crystal) -> str:
    """A crystal as an attribute of a map: name, lattice and space group."""
    return json.dumps({"name": crystal.name, "lattice": list(crystal.lattice), "space_group": crystal.space_group})


def normal_of(dataset: xr.Dataset) -> np.ndarray:
    """The normal of the sample's surface in the frame of the orientations of a map, shape (3,); z where nothing is known."""
    geometry = stated_geometry(dataset)
    if dataset.attrs.get("orientation_frame") == "sample" or geometry is None:
        return np.array([0.0, 0.0, 1.0])
    return np.asarray(surface_normal(geometry))


def grain_map(
    orientation: np.ndarray, crystal: Crystal, y: np.ndarray, x: np.ndarray, label: np.ndarray | None = None
) -> xr.Dataset:
    """A map of orientations.

    orientation: U, NaN where there is none, shape (y, x, 3, 3).  y, x: um.  label: Of grains, 0 for none.
    """
    axes = {n: (n, np.asarray(v, float), {"units": "um", "long_name": f"place along {n}"}) for n, v in (("y", y), ("x", x))}
    names = [Quantity(n, "deg", f"rotation of the crystal about {n[-1]}") for n in ORIENTATION]
    names = ([Quantity("grain", "1", "number of the grain")] if label is not None else []) + names
    meanings = {NOT_INDEXED: "not_indexed", OTHER_PHASE: "other_phase"}
    made = empty_map(names, ("y", "x"), orientation.shape[:2], axes, meanings)
    known = np.isfinite(orientation).all((-2, -1))
    vector = rotation_vectors(orientation[known], crystal)
    for i, name in enumerate(ORIENTATION):
        made[name].values[known] = vector[:, i]
    if label is not None:
        made["grain"].values[...] = label
    made["flag"].values[~known] |= NOT_INDEXED
    return made.assign_attrs(crystal=crystal_attribute(crystal), modality="laue")


def _neighbours() -> tuple[tuple[tuple[slice, slice], tuple[slice, slice]], ...]:
    """Points and their neighbours along y and along x, as slices."""
    every, before, after = slice(None), slice(None, -1), slice(1, None)
    return ((before, every), (after, every)), ((every, before), (every, after))
