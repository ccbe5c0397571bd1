"""From a map back to its scan: the same frames, cut, binned, corrected and with the geometry as when the map was made."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import xarray as xr

from braggscope.core.errors import InputError
from braggscope.core.modality import modality
from braggscope.core.scan import Scan
from braggscope.core.source import open_scan

from .correcting import again
from .provenance import file_hash


def reopen(dataset: xr.Dataset, path: str | Path) -> Scan:
    """The scan at this path as the map's provenance describes it. Raises InputError where it is another file.

    A map of frames that came over the network names no file: any scan over the same grid is taken for it then.
    """
    attrs = dataset.attrs
    hashed = "live_source" not in attrs
    if hashed and Path(path).exists() and (found := file_hash(Path(path))["input_hash"]) != attrs.get("input_hash"):
        raise InputError(
            f"{path} is not the scan that the map was made from: that was {attrs.get('input_file', 'none')} "
            f"(hash {str(attrs.get('input_hash', 'none'))[:12]}..., this one {found[:12]}...)"
        )
    kind = modality(str(attrs["modality"]))
    stated = json.loads(str(attrs["geometry"]))  # none, of an analysis that needs none
    grid = tuple(int(n) for n in dataset["flag"].shape) if "row" not in dataset["flag"].dims else None
    if not hashed:
        attrs = {**attrs, "input_scan": "", "input_detector": ""}
    scan = _opened(path, attrs, grid)
    if not hashed and grid is not None and scan.shape != grid:
        ours, theirs = (" x ".join(map(str, shape)) for shape in (scan.shape, grid))
        raise InputError(f"{path} is not the scan that the map was made from: it has {ours} points, the map {theirs}")
    scan = cut_and_binned(scan, tuple(json.loads(str(attrs["roi"]))), int(attrs.get("binning", 1)))
    saturation = attrs.get("saturation")
    if saturation is not None:
        scan = dataclasses.replace(scan, saturation=float(saturation))
    if "corrections" in attrs:
        scan = again(scan, json.loads(str(attrs["corrections"])), kind.name)
    return scan.with_geometry(kind.geometry_class().from_mapping(stated)) if stated else scan


def cut_and_binned(scan: Scan, roi: tuple[int, ...] | None, binning: int) -> Scan:
    """The scan with a region of interest (row start, row stop, column start, column stop) and binning."""
    if roi is not None:
        top, bottom, left, right = roi
        scan = scan.cut(top, bottom, left, right)
    return scan.bin(binning) if binning != 1 else scan


def _opened(path: str | Path, attrs: dict[str, object], grid: tuple[int, ...] | None) -> Scan:
    """The scan by name and detector; a plain stack takes the grid of the map."""
    name, detector = str(attrs["input_scan"]) or None, str(attrs.get("input_detector", "")) or None
    scan = open_scan(path, name, detector=detector)
    if grid is not None and scan.shape != grid and math.prod(scan.shape) == math.prod(grid):  # a table is over no grid
        scan = open_scan(path, name, detector=detector, grid=grid)
    return scan
