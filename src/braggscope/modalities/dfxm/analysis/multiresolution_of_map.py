"""Illumination, mesoscale and edges of a quantity of a map, by wavelets (see multiresolution, which does it for scans)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.maps import quantity_names

from ..carried import carried_flag


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
    unknown: Annotated[str, Says("flags of the map whose points are taken as unknown, with commas; none: no one")] = "no_signal",
    worst: Annotated[
        float, Says("largest standard deviation of a known point, in spreads of the quantity over the map; 0: any", unit="1")
    ] = 3.0,
) -> xr.Dataset:
    """Separate the slow, the mesoscale and the sharp variation of a quantity of a map, such as an orientation.

    Returns: as `multiresolution`; unknown pixels are filled with the nearest known value for the transform and stay unknown. The
    errors are those of the quantity, taken as independent between pixels.

    Raises InputError where the map has no such quantity over row and column, or no known pixel.

    A value where there is hardly a signal may be anything, and wavelets carry it to its neighbours: see `unknown` and `worst`.
    """
    from ..separating.multiscale import scales_map
    from ..separating.wavelets import Wavelets

    offered = [n for n in quantity_names(dataset) if dataset[n].dims == ("row", "column")]
    name = quantity or (offered[0] if offered else "")
    if not worst >= 0:
        raise InputError(f"option worst must be 0 or more, got {worst:g}")
    if name not in offered:
        raise InputError(
            f"option quantity must be one over row and column ({', '.join(offered) or 'the map has none'}), got '{name}'"
        )
    values = np.where(_flagged(dataset, unknown), np.nan, dataset[name].values.astype(np.float64))
    wavelets = Wavelets.fitting(wavelet, levels, transform, values.shape)
    error = dataset.get(f"{name}_std")
    if error is not None and worst > 0 and np.isfinite(values).any():
        low, high = np.nanpercentile(values, [16, 84])
        sure = (error.values > 0) & (error.values <= worst * (high - low) / 2)  # an error of 0 is none
        values = np.where(sure, values, np.nan)
    variance = None
    if error is not None and np.isfinite(error.values).any():
        variance = np.where(np.isfinite(values), error.values.astype(np.float64) ** 2, np.nan)
    found = scales_map(values, str(dataset[name].attrs.get("units", "")), name, wavelets, fine, variance)
    found.attrs["quantity"] = name
    found["flag"] = carried_flag(dataset, {"no_data": found["flag"].values != 0})
    return found


def _flagged(dataset: xr.Dataset, words: str) -> np.ndarray:
    """Where a map has one of these flags; a word that the map does not know flags nothing."""
    attrs = dataset["flag"].attrs
    meanings = dict(zip(str(attrs["flag_meanings"]).split(), np.ravel(attrs["flag_masks"]), strict=True))
    mask = sum(int(bit) for word, bit in meanings.items() if word in [one.strip() for one in words.split(",")])
    return np.asarray(dataset["flag"].values & mask) != 0
