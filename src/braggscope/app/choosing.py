"""From a user's words to parts: which modality, geometry, method and model are meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from braggscope.core.errors import InputError, one_of
from braggscope.core.estimator import Estimator
from braggscope.core.geometry import Geometry, tables_in
from braggscope.core.learned import Learned
from braggscope.core.modality import Modality, modalities, modality
from braggscope.core.model import Model, is_model_file, load_model
from braggscope.core.source import Source

if TYPE_CHECKING:
    from .training import Trained

GeometryLike = Geometry | Mapping[str, Any] | str | Path | None
AnySource = TypeVar("AnySource", bound=Source)


def choose_model(method: str | Path | Model | Trained | None) -> Model | None:
    """The model where one is meant, or the file of one; None for the name of a method."""
    held = model_in(method)
    if method is None or held is not None:
        return held
    if any(str(method) in kind.methods() for kind in modalities().values()) or not is_model_file(str(method)):
        return None
    return load_model(str(method))


def model_in(what: Any) -> Model | None:
    """What is a model, or holds one as a finished training does; None for anything else."""
    held = what if isinstance(what, Model) else getattr(what, "model", None)
    return held if isinstance(held, Model) else None


def choose_modality(
    source: Source, name: str | None = None, geometry: GeometryLike = None, model: Model | None = None
) -> Modality:
    """The modality that is named, else that of the geometry, else what the source says, else that of the model.

    Raises InputError, listing those there are, where nobody says it, where the geometry file cannot be read, and where the
    model is of another one.
    """
    stated = _modality_of(geometry)
    if name is None and stated is not None and source.modality not in (None, stated):
        raise InputError(
            f"{_called(source)} is a {source.modality} scan, but the geometry is one of {stated}; give another geometry, or "
            f"--modality {stated} if that is what is meant"
        )
    name = name or stated or source.modality
    if model is not None:
        if name not in (None, model.modality):
            raise InputError(
                f"{model_name(model)} is of the modality {model.modality}, but {_called(source)} is mapped as {name}"
            )
        name = model.modality
    if name is None:
        nor = f", nor does the geometry file {geometry}" if isinstance(geometry, str | Path) else ""
        raise InputError(
            f"{_called(source)} does not say its modality{nor}; give one with --modality: {', '.join(sorted(modalities()))}"
        )
    return modality(name)


def sole_modality(method: str, name: str | None = None, geometry: GeometryLike = None) -> Modality:
    """The modality that is named, else that of the geometry, else the only one that has the method; where there is no source.

    Raises InputError where that does not decide.
    """
    name = name or _modality_of(geometry)
    if name is not None:
        return modality(name)
    having = [kind for kind in modalities().values() if method in kind.methods()]
    if not having:
        raise one_of("method", method, sorted({m for kind in modalities().values() for m in kind.methods()}))
    if len(having) > 1:
        raise InputError(f"method '{method}' is one of {' and '.join(kind.name for kind in having)}; give one with --modality")
    return having[0]


def choose_geometry(source: Source, kind: Modality, geometry: GeometryLike = None, model: Model | None = None) -> Geometry:
    """The geometry that is given (as such, as values or as a TOML file), else what the source says.

    Where the source says none, or only some values, a model's geometry stands for the rest.
    Raises InputError where it is wrong or nobody says it.
    """
    if geometry is not None:
        return given_geometry(kind, geometry)
    cls = kind.geometry_class()
    if isinstance(source.geometry, cls):
        return source.geometry
    if model is not None:
        stated = {k: v for k, v in getattr(source, "geometry_values", {}).items() if k in cls.__dataclass_fields__}
        return cls.from_mapping({**model.geometry, **stated}, where=f"geometry of {model_name(model)}")
    try:
        return cls.from_scan(source)
    except (InputError, AttributeError):
        if getattr(source, "geometry_values", None):
            raise
        raise InputError(f"{_called(source)} does not say the {kind.name} geometry; give a TOML file with --geometry") from None


def given_geometry(kind: Modality, geometry: Geometry | Mapping[str, Any] | str | Path) -> Geometry:
    """A geometry given as such, as values or as a file: TOML, or one of another program that the modality reads.

    Raises InputError where it is wrong or of another modality.
    """
    cls = kind.geometry_class()
    if isinstance(geometry, Geometry):
        if not isinstance(geometry, cls):
            raise InputError(f"the geometry is one of {geometry.modality}, but the modality is {kind.name}")
        return geometry
    return cls.from_mapping(geometry) if isinstance(geometry, Mapping) else cls.from_file(geometry)


def choose_estimator(
    kind: Modality,
    geometry: Geometry | None,
    method: str | None,
    options: Mapping[str, Any],
    device: str = "cpu",
    model: Model | None = None,
) -> Estimator:
    """The method with its options, not prepared yet; that of the model where there is one, whatever `method` says.

    Raises InputError where a method or an option is unknown, the device cannot run it, or the model does not suit.
    """
    cls = kind.estimator(method or kind.default_method) if model is None else _method_of(model, kind)
    if device not in cls.devices:
        raise InputError(f"method '{cls.name}' runs on {' or '.join(cls.devices)}, got device '{device}'")
    if "device" in cls.__dataclass_fields__:
        options = {"device": device, **options}
    if model is not None and issubclass(cls, Learned):
        _check_names(cls, options, "mapping", [name for name in _options(cls) if name not in cls.training_options()])
        return cls.from_model(model, geometry, options)
    return cls.with_options(geometry, options)


def choose_training(
    kind: Modality, geometry: Geometry | None, method: str, options: Mapping[str, Any], device: str = "cpu"
) -> Learned:
    """A method that is to be trained, with its options of training.

    Raises InputError where it is no such method, and for an option of mapping, which would be lost.
    """
    cls = learned_method(kind, method)
    for name in options:
        if name in _options(cls) and name not in cls.training_options():
            raise InputError(f"option {name} is one of mapping, not of training; give it to `braggscope map`")
    _check_names(cls, options, "training", cls.training_options())
    estimator = choose_estimator(kind, geometry, method, options, device)
    assert isinstance(estimator, Learned)  # learned_method has seen to it
    return estimator


def _check_names(cls: type[Estimator], options: Mapping[str, Any], stage: str, there: list[str]) -> None:
    """Raise InputError for an option that a method does not have, listing those of this stage."""
    for name in options:
        if name not in _options(cls):
            raise InputError(f"method '{cls.name}' has no option '{name}'; for {stage} it has: {', '.join(there) or 'none'}")


def _options(cls: type[Estimator]) -> list[str]:
    """Names of all options of a method."""
    return [field.name for field in cls.declared()]


def learned_method(kind: Modality, method: str) -> type[Learned]:
    """The class of a method that is trained. Raises InputError, listing those there are, for any other."""
    cls = kind.estimator(method)
    if not issubclass(cls, Learned):
        there = ", ".join(name for name in kind.methods() if issubclass(kind.estimator(name), Learned))
        others = f"those that do: {there}" if there else f"no {kind.name} method does"
        raise InputError(f"method '{method}' needs no training; {others}")
    return cls


def model_name(model: Model) -> str:
    """What to call a model in a sentence."""
    return f"model {model.file['model_file']}" if "model_file" in model.file else "the model"


def _method_of(model: Model, kind: Modality) -> type[Estimator]:
    """The method that a model is of. Raises InputError where this version does not have it."""
    if model.method not in kind.methods() or not issubclass(kind.estimator(model.method), Learned):
        raise InputError(
            f"{model_name(model)} is of the {kind.name} method '{model.method}', which this version of braggscope cannot use; "
            f"there are: {', '.join(name for name in kind.methods() if issubclass(kind.estimator(name), Learned)) or 'none'}"
        )
    return kind.estimator(model.method)


def states_geometry(source: Source) -> bool:
    """Whether a source says anything about the geometry itself."""
    return source.geometry is not None or bool(getattr(source, "geometry_values", None))


def located(source: AnySource, geometry: Geometry) -> AnySource:
    """The source with this geometry, where it can carry another one than its own."""
    return source.with_geometry(geometry) if hasattr(source, "with_geometry") else source


def _modality_of(geometry: GeometryLike) -> str | None:
    """The modality that a geometry, the ending of its file, or the only known table of a TOML file belongs to."""
    if isinstance(geometry, Geometry):
        return geometry.modality
    if not isinstance(geometry, str | Path):
        return None
    ending = Path(geometry).suffix.lower()
    reading = [name for name, kind in modalities().items() if ending in kind.geometry_class().own_suffixes]
    if reading:
        return reading[0] if len(reading) == 1 else None
    known = [name for name in tables_in(geometry) if name in modalities()]
    return known[0] if len(known) == 1 else None


def _called(source: Source) -> str:
    return str(getattr(source, "path", None) or source.provenance.get("input_file", "the source"))
