"""Export of boundaries in space: a picture (.png), a page to turn in a browser (.html), or polygons for ParaView (.vtp)."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from braggscope.core.errors import InputError


def export_boundaries(boundaries: xr.Dataset, *, output: Path) -> dict[str, object]:
    """Boundaries in space: a picture (.png), a page to turn in a browser (.html), or VTK polygons (.vtp).

    boundaries: Map of `boundaries` or `boundaries_of_volume`.
    Returns what was written: the file, its boundaries, points and junctions.
    """
    from ..boundaries import scene
    from ..boundaries.drawn import check_boundaries

    check_boundaries(boundaries)
    writers = {".png": scene.write_picture, ".html": scene.write_page, ".vtp": scene.write_vtp}
    writer = writers.get(output.suffix.lower())
    if writer is None:
        raise InputError(f"output must end in {', '.join(writers)}, got '{output.name}'")
    points = writer(boundaries, output)
    return {
        "file": str(output), "boundaries": int(boundaries.sizes["boundary"]), "points": points,
        "junctions": int(boundaries.sizes["junction"]),
    }  # fmt: skip
