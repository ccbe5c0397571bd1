"""Scales that the pictures of DFXM maps share."""

from __future__ import annotations

import numpy as np
import xarray as xr


def spanned(values: np.ndarray) -> tuple[float, float]:
    """2nd to 98th percentile, never empty."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [2, 98]) if finite.size else (0.0, 1.0)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def rows_over_columns(dataset: xr.Dataset) -> float:
    """Height over width of a pixel in the sample; 1 where it is not known."""
    if "pixel_row_um" not in dataset.attrs or "pixel_column_um" not in dataset.attrs:
        return 1.0
    return float(dataset.attrs["pixel_row_um"]) / float(dataset.attrs["pixel_column_um"])


def without_layers(dataset: xr.Dataset, layer: int) -> xr.Dataset:
    """One layer of a volume as a map."""
    return dataset.isel(layer=layer).assign_attrs(dataset.attrs)
