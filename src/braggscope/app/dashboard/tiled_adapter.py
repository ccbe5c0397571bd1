"""Map files for Tiled, which serves them as an xarray Dataset.

    tiled serve directory FOLDER --ext .h5=application/x-braggscope-map \\
        --adapter application/x-braggscope-map=braggscope.app.dashboard.tiled_adapter:MapAdapter

Its own HDF5 adapter stops at the references by which netCDF-4 ties axes to variables. Tiled (tried: 0.2.20) is not among the
extras: this module is for the environment of its server.
"""

from __future__ import annotations

from typing import Any

from braggscope.core.maps import load


class MapAdapter:
    """A map as Tiled serves it."""

    @classmethod
    def from_uris(cls, *data_uris: str, **options: Any) -> Any:
        """The map in a file; for registration."""
        from tiled.adapters.xarray import DatasetAdapter  # type: ignore[import-not-found,unused-ignore]
        from tiled.utils import path_from_uri  # type: ignore[import-not-found,unused-ignore]

        return DatasetAdapter.from_dataset(load(path_from_uri(data_uris[0])))

    @classmethod
    def from_catalog(cls, data_source: Any, node: Any, /, **options: Any) -> Any:
        """The map of a data source of the catalog."""
        return cls.from_uris(data_source.assets[0].data_uri)
