"""Illumination, mesoscale and edges of a quantity of a map, by wavelets (see multiresolution, which does it for scans)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.maps import quantity_names


def multiresolution_of_map(
    dataset: xr.Dataset,
    *,
    quantity: Annotated[str, Says("quantity of the map over row and column; the first if empty")] = "",
    wavelet: Annotated[str, Says("discrete wavelet of PyWavelets: haar, db2, db4, sym4, ...")] = "db2",
    levels: Annotated[int, Says("number of scales, each twice as coarse as the one before; 0: as many as fit, at most 5")] = 0,
    fine: Annotated[int, Says("finest levels that count as edges; the others are mesoscale")] = 2,
    transform: Annotated[
        str,
        Says("stationary (every position alike) or decimated (a grid of 2^level pixels)", choices=("stationary", "decimated")),
    ] = "stationary",
) -> xr.Dataset:
    """Separate the slow, the mesoscale and the sharp variation of a quantity of a map, such as an orientation.

    Returns: as `multiresolution`; unknown pixels are filled with the nearest known value for the transform and stay unknown. The
    errors are those of the quantity, taken as independent between pixels.

    Raises InputError where the map has no such quantity over row and column, or no known pixel.
    """
    from ..multiscale import scales_map
    from ..wavelets import Wavelets

    offered = [n for n in quantity_names(dataset) if dataset[n].dims == ("row", "column")]
    name = quantity or (offered[0] if offered else "")
    if name not in offered:
        raise InputError(
            f"option quantity must be one over row and column ({', '.join(offered) or 'the map has none'}), got '{name}'"
        )
    values = dataset[name].values.astype(np.float64)
    wavelets = Wavelets.fitting(wavelet, levels, transform, values.shape)
    error = dataset.get(f"{name}_std")
    variance = None
    if error is not None and np.isfinite(error.values).any():
        variance = np.where(np.isfinite(values), error.values.astype(np.float64) ** 2, np.nan)
    found = scales_map(values, str(dataset[name].attrs.get("units", "")), name, wavelets, fine, variance)
    found.attrs["quantity"] = name
    return found
