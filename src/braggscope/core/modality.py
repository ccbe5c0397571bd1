"""Modality: what a folder in modalities/ exports, found by looking there and at entry points.

Parts are dotted names ("package.module:attribute"), loaded on use, so that `info` and `--help` answer at once. A method is a
module in the folder's estimators/ whose name is the method's name.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import one_of

if TYPE_CHECKING:
    import xarray as xr

    from .estimator import Estimator
    from .geometry import Geometry


@dataclass(frozen=True)
class Tables:
    """The formats of tables (peak lists and the like) of other programs that a modality reads.

    matches: Whether the file at a path is one of them, from its first lines; answers at once.
    read: The table of such a file, a map whose dimension is "peak" or the like (core.maps); InputError where it is broken.
    """

    matches: Callable[[str | Path], bool]
    read: Callable[[str | Path], xr.Dataset]


@dataclass(frozen=True, eq=False)  # one object per modality: compared and hashed by identity
class Modality:
    """One microscopy.

    name: The word users say ("nanobeam").
    summary: One line for help texts.
    package: Dotted name of its folder.
    geometry: Its Geometry class.
    forward: Its Forward class.
    phantoms: Name -> function (geometry, *, shape, seed, noise) -> Simulation.
    default_method: Method that `map` takes when none is named.
    calibrate: Function (scan, *, reference, ...) -> Calibration, or None where there is nothing to calibrate.
    views: Name -> function map or frames -> figure; `overview` must be there.
    tables: The `Tables` that its analyses take beside scans and maps; empty where it has none.
    frame_model: Function (values at a map point, geometry, frame shape) -> expected counts (row, column) or None, for the page.
    spot_model: The same -> list of spots: row, column, hkl, energy_kev.
    curve_model: Function (values at a pixel, positions along each scan axis, options of the method) -> expected counts over the
        scan, or None, for the page.
    misfit_hint: What a user may do where a calibrated method's model does not explain the frames, for `map` to say.
    example_geometry: Function () -> Geometry of a published or real experiment, for tests and tutorials.
    example_forward: Function () -> (Forward, params): a small forward model in float64 and values to try it at.
    example_phantom: Arguments of a phantom (shape, frame_shape ...) that make a small, bright and varied scan.
    example_scans: By method, what its own example has instead: fewer points for a slow one whose errors need no statistics.
    example_options: Options by method; for one that is trained, those that train it on the example in seconds, for tests.
    """

    name: str
    summary: str
    package: str
    geometry: str
    forward: str
    phantoms: Mapping[str, str]
    default_method: str
    views: Mapping[str, str]
    calibrate: str | None = None
    tables: str = ""
    frame_model: str = ""
    spot_model: str = ""
    curve_model: str = ""
    misfit_hint: str = ""
    example_geometry: str = ""
    example_forward: str = ""
    example_phantom: Mapping[str, Any] = field(default_factory=dict)
    example_scans: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    example_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def load(self, dotted: str) -> Any:
        """The object that a dotted name means."""
        module, _, attribute = dotted.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def geometry_class(self) -> type[Geometry]:
        """The Geometry class."""
        return self.load(self.geometry)

    def table_formats(self) -> Tables | None:
        """The formats of tables that it reads, if any."""
        return self.load(self.tables) if self.tables else None

    def methods(self) -> list[str]:
        """Names of the estimators, without importing them."""
        folder = importlib.import_module(f"{self.package}.estimators")
        return sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_"))

    def analyses(self) -> list[str]:
        """Names of the analyses (core.analysis), without importing them; none where the folder has no analysis/."""
        try:
            folder = importlib.import_module(f"{self.package}.analysis")
        except ModuleNotFoundError:
            return []
        return sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_"))

    def analysis(self, name: str) -> Callable[..., Any]:
        """The function of an analysis. Raises InputError, listing those there are, for an unknown one."""
        if name not in self.analyses():
            raise one_of(f"{self.name} analysis", name, self.analyses())
        return getattr(importlib.import_module(f"{self.package}.analysis.{name}"), name)

    def document_of(self, name: str) -> Callable[[Any], dict[str, Any]]:
        """What an analysis adds to its JSON document: the function `document` (result -> plain values) of its module, if any."""
        module = importlib.import_module(f"{self.package}.analysis.{name}")
        return getattr(module, "document", lambda result: {})

    def corrections(self) -> list[str]:
        """Names of the corrections of a scan, in the order in which they are made; none where the folder has no corrections/.

        One is a function of the same name (hyphens as underscores) in a module of the folder whose ORDER tells when its turn is:
        (scan, *, options as in core.analysis) -> Scan, with a record of what it did (core.corrections).
        """
        try:
            folder = importlib.import_module(f"{self.package}.corrections")
        except ModuleNotFoundError:
            return []
        names = [m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_")]
        ordered = sorted(names, key=lambda name: importlib.import_module(f"{folder.__name__}.{name}").ORDER)
        return [name.replace("_", "-") for name in ordered]

    def correction(self, name: str) -> Callable[..., Any]:
        """The function of a correction. Raises InputError, listing those there are, for an unknown one."""
        if name not in self.corrections():
            raise one_of(f"{self.name} correction", name, self.corrections())
        word = name.replace("-", "_")
        return getattr(importlib.import_module(f"{self.package}.corrections.{word}"), word)

    def estimator(self, method: str) -> type[Estimator]:
        """The estimator class of a method. Raises InputError, listing those there are, for an unknown one."""
        if method not in self.methods():
            raise one_of(f"{self.name} method", method, self.methods())
        module = importlib.import_module(f"{self.package}.estimators.{method}")
        return next(v for v in vars(module).values() if isinstance(v, type) and getattr(v, "name", None) == method)

    def phantom(self, name: str) -> Any:
        """The function that simulates a phantom. Raises InputError, listing those there are, for an unknown one."""
        if name not in self.phantoms:
            raise one_of(f"{self.name} phantom", name, list(self.phantoms))
        return self.load(self.phantoms[name])


@cache
def modalities() -> Mapping[str, Modality]:
    """All modalities by name: folders of braggscope.modalities and entry points of the group braggscope.modalities."""
    folder = importlib.import_module("braggscope.modalities")
    names = [m.name for m in pkgutil.iter_modules(folder.__path__) if m.ispkg]
    found = [importlib.import_module(f"braggscope.modalities.{name}").MODALITY for name in names]
    found += [point.load() for point in importlib.metadata.entry_points(group="braggscope.modalities")]
    return {one.name: one for one in found}


def modality(name: str) -> Modality:
    """The modality of this name. Raises InputError, listing those there are, for an unknown one."""
    if name not in modalities():
        raise one_of("modality", name, list(modalities()))
    return modalities()[name]
