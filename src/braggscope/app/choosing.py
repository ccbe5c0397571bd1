"""From a user's words to parts: which modality, geometry and method are meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from braggscope.core.errors import InputError
from braggscope.core.estimator import Estimator
from braggscope.core.geometry import Geometry, tables_in
from braggscope.core.modality import Modality, modalities, modality
from braggscope.core.source import Source

GeometryLike = Geometry | Mapping[str, Any] | str | Path | None
AnySource = TypeVar("AnySource", bound=Source)


def choose_modality(source: Source, name: str | None = None, geometry: GeometryLike = None) -> Modality:
    """The modality that is named, else that of the geometry, else what the source says.

    Raises InputError, listing those there are, where nobody says it, and where the geometry file cannot be read.
    """
    stated = _modality_of(geometry)
    if name is None and stated is not None and source.modality not in (None, stated):
        raise InputError(
            f"{_called(source)} is a {source.modality} scan, but the geometry is one of {stated}; give another geometry, or "
            f"--modality {stated} if that is what is meant"
        )
    name = name or stated or source.modality
    if name is None:
        nor = f", nor does the geometry file {geometry}" if isinstance(geometry, str | Path) else ""
        raise InputError(
            f"{_called(source)} does not say its modality{nor}; give one with --modality: {', '.join(sorted(modalities()))}"
        )
    return modality(name)


def choose_geometry(source: Source, kind: Modality, geometry: GeometryLike = None) -> Geometry:
    """The geometry that is given (as such, as values or as a TOML file), else what the source says.

    Raises InputError where it is wrong or nobody says it.
    """
    if geometry is not None:
        return given_geometry(kind, geometry)
    cls = kind.geometry_class()
    if isinstance(source.geometry, cls):
        return source.geometry
    try:
        return cls.from_scan(source)
    except (InputError, AttributeError):
        if getattr(source, "geometry_values", None):
            raise
        raise InputError(f"{_called(source)} does not say the {kind.name} geometry; give a TOML file with --geometry") from None


def given_geometry(kind: Modality, geometry: Geometry | Mapping[str, Any] | str | Path) -> Geometry:
    """A geometry given as such, as values or as a TOML file. Raises InputError where it is wrong or of another modality."""
    cls = kind.geometry_class()
    if isinstance(geometry, Geometry):
        if not isinstance(geometry, cls):
            raise InputError(f"the geometry is one of {geometry.modality}, but the modality is {kind.name}")
        return geometry
    return cls.from_mapping(geometry) if isinstance(geometry, Mapping) else cls.from_toml(geometry)


def choose_estimator(
    kind: Modality, geometry: Geometry | None, method: str | None, options: Mapping[str, Any], device: str = "cpu"
) -> Estimator:
    """The method with its options, not prepared yet. Raises InputError where one is unknown or the device cannot run it."""
    cls = kind.estimator(method or kind.default_method)
    if device not in cls.devices:
        raise InputError(f"method '{cls.name}' runs on {' or '.join(cls.devices)}, got device '{device}'")
    if "device" in cls.__dataclass_fields__:
        options = {"device": device, **options}
    return cls.with_options(geometry, options)


def located(source: AnySource, geometry: Geometry) -> AnySource:
    """The source with this geometry, where it can carry another one than its own."""
    return source.with_geometry(geometry) if hasattr(source, "with_geometry") else source


def _modality_of(geometry: GeometryLike) -> str | None:
    """The modality that a geometry, or the only known table of a TOML file, belongs to."""
    if isinstance(geometry, Geometry):
        return geometry.modality
    if not isinstance(geometry, str | Path):
        return None
    known = [name for name in tables_in(geometry) if name in modalities()]
    return known[0] if len(known) == 1 else None


def _called(source: Source) -> str:
    return str(getattr(source, "path", None) or source.provenance.get("input_file", "the source"))
