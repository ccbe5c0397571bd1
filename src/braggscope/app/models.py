"""Model files: made of published weights, written as ONNX graphs, described."""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.learned import Learned
from braggscope.core.modality import modality as named_modality
from braggscope.core.model import Model, load_model, save_model

from .choosing import GeometryLike, choose_estimator, given_geometry, learned_method, model_in, model_name, sole_modality
from .output import check_output
from .provenance import file_hash, geometry_files, made_now

if TYPE_CHECKING:
    import xarray as xr

    from .training import Trained


def convert_weights(
    method: str,
    weights: str | Path | Mapping[str, np.ndarray],
    *,
    geometry: GeometryLike,
    modality: str | None = None,
    prefix: str | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> Model:
    """The model of published weights (see `braggscope.convert_model`). Raises InputError, with nothing written, for bad input."""
    if output is not None:
        inputs = (weights if isinstance(weights, str | Path) else None, geometry if isinstance(geometry, str | Path) else None)
        check_suffix(output, ".safetensors")
        check_output(output, overwrite=overwrite, inputs=inputs)
    kind = sole_modality(method, modality, geometry)
    cls = learned_method(kind, method)
    if geometry is None:
        raise InputError(f"weights do not say their {kind.name} geometry; give a TOML file with --geometry")
    chosen = given_geometry(kind, geometry)
    arrays = _arrays(weights) if isinstance(weights, str | Path) else dict(weights)
    if not arrays:
        raise InputError(f"{_has(weights)} no arrays")
    model = cls.convert(arrays, chosen, prefix=prefix)
    origin = {"input_file": Path(weights).name, **file_hash(Path(weights))} if isinstance(weights, str | Path) else {}
    made = {**made_now(), **origin, "geometry_files": geometry_files(model.geometry)}
    model = dataclasses.replace(model, provenance={**model.provenance, **{k: v for k, v in made.items() if v}})
    return model if output is None else written(model, output)


def export_model(model: str | Path | Model | Trained, output: str | Path | None = None, *, overwrite: bool = False) -> Model:
    """The model as an ONNX graph (see `braggscope.export`). Raises InputError, with nothing written, for bad input."""
    if output is not None:
        check_suffix(output, ".onnx")
        check_output(output, overwrite=overwrite, inputs=(model if isinstance(model, str | Path) else None,))
    read = model_in(model) or load_model(str(model))
    if read.graph is not None:
        raise InputError(f"{model_name(read)} is an ONNX graph already")
    kind = named_modality(read.modality)
    geometry = kind.geometry_class().from_mapping(read.geometry, where=f"geometry of {model_name(read)}")
    estimator = choose_estimator(kind, geometry, None, {}, model=read)
    assert isinstance(estimator, Learned)  # choose_estimator gives nothing else for a model
    try:
        exported = estimator.exported()
    except ImportError as error:
        raise InputError(f"export needs the package {error.name}: pip install 'braggscope[edge]'") from None
    return exported if output is None else written(exported, output)


def save(result: xr.Dataset | Model | Trained, path: str | Path, state: Mapping[str, np.ndarray] | None = None) -> None:
    """Write a map or a model (see `braggscope.save`). Raises InputError for what is neither, OSError where that fails."""
    import xarray as xr

    from braggscope.core import maps

    model = model_in(result)
    if model is not None:
        check_suffix(path, ".safetensors" if model.graph is None else ".onnx")
        return save_model(model, path)
    if not isinstance(result, xr.Dataset):
        raise InputError(f"what is saved must be a map or a model, got {type(result).__name__}")
    maps.save(result, path, state=state)


def written(model: Model, output: str | Path, otherwise: str = "nothing was written") -> Model:
    """The model, read back from the file that it is written to. Raises BraggscopeError where it cannot be written."""
    try:
        save_model(model, output)
    except OSError as error:
        raise BraggscopeError(f"{output} cannot be written ({error.strerror}); {otherwise}") from None
    return load_model(output)


def model_line(model: Model) -> str:
    """What a model is, in a line."""
    rows, columns = model.frame_shape
    kind = "ONNX graph" if model.graph is not None else f"{sum(value.size for value in model.weights.values())} numbers"
    return f"{model.modality} model by {model.method}, frames of {rows} x {columns} pixels, {kind}"


def check_suffix(output: str | Path, suffix: str) -> None:
    """Raise InputError where a file name does not end as its format wants."""
    if Path(output).suffix != suffix:
        raise InputError(f"output {output} must end in {suffix}")


def _arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file. Raises InputError where it is missing, is none, or holds anything but plain arrays."""
    wanted = "weights are read from an .npz file of plain arrays (numpy.savez)"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InputError(f"weights file {path} does not exist") from None
    except (AttributeError, TypeError):
        raise InputError(f"weights file {path} holds one array without a name; {wanted}") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise InputError(f"weights file {path} holds Python objects, which are not read; {wanted}") from None
        if "pickle" in str(error):  # what numpy takes every unknown file for
            raise InputError(f"weights file {path} is not an .npz file of arrays (numpy.savez)") from None
        raise InputError(f"weights file {path} cannot be read ({' '.join(str(error).split())}); {wanted}") from None


def _has(weights: Any) -> str:
    """Weights as the beginning of a sentence on what they have."""
    return f"weights file {weights} has" if isinstance(weights, str | Path) else "the weights have"
