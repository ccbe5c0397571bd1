"""One analysis that takes frames or what was found in them."""

import numpy as np
import xarray as xr

from braggscope.core.maps import Quantity, empty_map
from braggscope.core.scan import Scan
from tinyscope.parts import TinyGeometry


def highest(source: Scan | xr.Dataset, *, other: xr.Dataset | None = None, geometry: TinyGeometry | None = None) -> xr.Dataset:
    """Find the highest level of frames or of a list.

    Returns the highest level.
    """
    if isinstance(source, xr.Dataset):
        level, kind = float(source["level"].max()), "dataset"
    else:
        level, kind = max(float(np.mean(batch.frames, axis=(1, 2)).max()) for batch in source.batches(16)), "scan"
    found = empty_map([Quantity("level", "count", "highest level")], ["peak"], [1], {}, {1: "no_frame"})
    found["level"].values[:] = level
    return found.assign_attrs(
        took=kind, gain=-1.0 if geometry is None else geometry.gain, others=0 if other is None else other.sizes["peak"]
    )
