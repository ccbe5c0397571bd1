"""Geometries: validated frozen dataclasses, read from TOML or from what a scan file says.

A field is declared with `quantity` (a number with a unit and a range) or as a plain dataclass field (a choice or a
file name). Every bad value is named with its field, what came and what would do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from .errors import InputError


def quantity(unit: str, *, low: float, high: float, doc: str, default: Any = dataclasses.MISSING, whole: bool = False) -> Any:
    """Declare a numeric field of a geometry: its unit, its closed range [low, high] and what it means."""
    return dataclasses.field(default=default, metadata={"unit": unit, "low": low, "high": high, "doc": doc, "whole": whole})


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The base of every modality's geometry.

    A subclass sets `modality` (the name of its TOML table), declares its fields, and may override `check` for
    conditions that tie several fields together. One that reads calibrations of other programs names the endings of their
    files in `own_suffixes` and overrides `from_file`.
    """

    modality: ClassVar[str]
    own_suffixes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if "low" in field.metadata and getattr(self, field.name) is not None:
                object.__setattr__(self, field.name, _in_range(field, getattr(self, field.name)))
        self.check()

    def check(self) -> None:
        """Raise InputError where fields that are good alone contradict each other."""

    def motors(self) -> tuple[str, ...]:
        """Motors whose positions a map must state even where they stood still."""
        return ()

    @classmethod
    def needed(cls) -> set[str]:
        """The fields that have no default."""
        return {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str = "geometry") -> Self:
        """The geometry with these values.

        Raises InputError, naming `where`, for a key that is missing, unknown, of the wrong type or out of range.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise InputError(f"{where}: unknown key '{key}' in [{cls.modality}]; known are: {', '.join(known)}")
        for name, field in known.items():
            if name not in values and name in cls.needed():
                unit, doc = field.metadata.get("unit", ""), field.metadata.get("doc", "")
                raise InputError(f"{where}: [{cls.modality}] lacks '{name}' ({doc}{', in ' + unit if unit else ''})")
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """The geometry in a file: TOML, unless the modality reads other kinds. Raises InputError where it cannot be read."""
        return cls.from_toml(path)

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """The geometry in the table of this modality in a TOML file. A relative file name in it is taken beside it."""
        path, tables = Path(path), tables_in(path)
        if cls.modality not in tables:
            raise InputError(f"geometry file {path} has no table [{cls.modality}]; it has: {', '.join(tables) or 'none'}")
        values = {key: value for key, value in tables[cls.modality].items() if key != "uncertainty"}
        for name, value in values.items():
            if name.endswith("_file") and isinstance(value, str) and not Path(value).is_absolute():
                values[name] = str(path.parent / value)
        return cls.from_mapping(values, where=str(path))

    @classmethod
    def from_scan(cls, scan: Any) -> Self:
        """The geometry that a scan file states about itself; values in it that this modality does not need are passed over."""
        known = {field.name for field in dataclasses.fields(cls)}
        stated = {name: value for name, value in scan.geometry_values.items() if name in known}
        return cls.from_mapping(stated, where=f"geometry in {scan.path}")

    def to_mapping(self) -> dict[str, Any]:
        """The fields that are set, in the order of declaration, ready for TOML or for provenance."""
        return {f.name: v for f in dataclasses.fields(self) if (v := getattr(self, f.name)) is not None}

    def replace(self, **values: Any) -> Self:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **values)


def tables_in(path: str | Path) -> dict[str, dict[str, Any]]:
    """The tables of a geometry file by name. Raises InputError where it cannot be read or is not TOML."""
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"geometry file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"geometry file {path} cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"geometry file {path} is not TOML: {error}") from None
    return {name: table for name, table in document.items() if isinstance(table, dict)}


def hash_of_file(file: Any) -> str | None:
    """SHA-256 of a file that a geometry names; None where there is none (whoever reads it says so)."""
    if not isinstance(file, str) or not Path(file).is_file():
        return None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _in_range(field: dataclasses.Field[Any], value: Any) -> float | int:
    """The value as a number inside the declared range of the field."""
    low, high, unit = field.metadata["low"], field.metadata["high"], field.metadata["unit"]
    wanted = f"between {low:g} and {high:g}" + (f" {unit}" if unit not in ("", "1") else "")
    if low > 0 and high >= 1e6:
        wanted = f"positive (at least {low:g} {unit})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{field.name} must be a number {wanted}, got {value!r}")
    if field.metadata["whole"] and math.isfinite(value) and value != int(value):
        raise InputError(f"{field.name} must be a whole number {wanted}, got {value!r}")
    if not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{field.name} must be {wanted}, got {value:g}")
    return int(value) if field.metadata["whole"] else float(value)
