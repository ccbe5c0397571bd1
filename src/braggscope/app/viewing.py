"""Pictures of a map file, drawn by the modality that made it, with frames of its scan where that is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from braggscope.core.errors import InputError, one_of
from braggscope.core.modality import Modality, modality

from .reopening import reopen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from braggscope.core.scan import Scan


def modality_of(dataset: xr.Dataset) -> Modality:
    """The modality of a map. Raises InputError where it does not say it."""
    if "modality" not in dataset.attrs:
        raise InputError("the map does not say its modality, so it was not made by `braggscope map`")
    return modality(str(dataset.attrs["modality"]))


def draw(dataset: xr.Dataset, view: str | None = None, scan: Scan | None = None) -> Figure:
    """One view of a map; without a name the first that can be drawn.

    Raises InputError for an unknown view, listing those there are, and where it needs the scan.
    """
    kind = modality_of(dataset)
    if view is None:
        drawn = (name for name, dotted in kind.views.items() if kind.load(dotted)(dataset, scan) is not None)
        view = next(drawn, next(iter(kind.views)))
    if view not in kind.views:
        raise one_of(f"{kind.name} view", view, list(kind.views))
    function: Any = kind.load(kind.views[view])
    figure = function(dataset, scan)
    if figure is None:
        others = ", ".join(draw_all(dataset, scan)) or "none"
        alone = " alone: give its scan file with --scan" if scan is None and _asks_for_scan(function, dataset) else ""
        raise InputError(f"view '{view}' cannot be drawn of this map{alone}; views that can be: {others}")
    return figure


def draw_all(dataset: xr.Dataset, scan: Scan | None = None) -> dict[str, tuple[Figure, str]]:
    """Every view that can be drawn, by name, with the first sentence of what it shows."""
    kind = modality_of(dataset)
    drawn = {}
    for name, dotted in kind.views.items():
        function: Any = kind.load(dotted)
        figure = function(dataset, scan)
        if figure is not None:
            drawn[name] = figure, first_sentence(function)
    return drawn


class _Asked(Exception):
    """A view looks at its scan."""


class _Asking:
    """Stands for a scan, to see whether a view looks at it."""

    def __getattr__(self, name: str) -> Any:
        raise _Asked


def _asks_for_scan(function: Any, dataset: xr.Dataset) -> bool:
    """Whether a view that cannot be drawn of the map alone would go on with the scan."""
    try:
        function(dataset, _Asking())
    except _Asked:
        return True
    return False


def scan_for(dataset: xr.Dataset, path: str | Path | None) -> Scan | None:
    """The scan that a map was made from, cut and binned as it was then; None without a path."""
    return None if path is None else reopen(dataset, path)


def first_sentence(function: Any) -> str:
    """The first line of a docstring, as a caption."""
    return (function.__doc__ or "").strip().split("\n")[0]
