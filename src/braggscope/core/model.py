"""Models: trained networks as files that say what they are.

A model file is a safetensors file (weights as plain arrays, nothing that can run) or an ONNX graph. Both carry one JSON document
under the key "braggscope": the modality and method, the geometry and frame shape that the network knows, the options it was
trained with, what its training found, and where it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .beside import written_beside
from .errors import InputError

FORMAT = 1  # of the document; a reader refuses those it does not know
KEY = "braggscope"
SUFFIXES = (".safetensors", ".onnx")


@dataclass(frozen=True)
class Model:
    """A trained network.

    geometry: Values of the geometry it was trained for, as Geometry.to_mapping gives them.
    frame_shape: Rows and columns of its frames.
    options: The method's options at training, those of its architecture among them.
    facts: What training found or fixed and mapping needs, such as the range of counts; JSON values.
    provenance: Where it came from: version, command, training data and their hash, seed, epochs, time; JSON values.
    weights: Arrays by the names of the network's parameters and buffers; empty where there is a graph.
    graph: The network as an ONNX graph, ready to run; None where there are weights.
    file: Where it was read from, with its hash; empty for a model in memory.
    """

    modality: str
    method: str
    geometry: Mapping[str, Any]
    frame_shape: tuple[int, int]
    options: Mapping[str, Any]
    facts: Mapping[str, Any]
    provenance: Mapping[str, Any]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    graph: bytes | None = field(default=None, repr=False)
    file: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> str:
        """What the file says beside the weights, as JSON."""
        kept = {k: v for k, v in vars(self).items() if k not in ("weights", "graph", "file")}
        return json.dumps({"format": FORMAT, **kept}, default=_plain)


def save_model(model: Model, path: str | Path) -> None:
    """Write a model file, whole or not at all. Raises OSError where it cannot be written; what was at `path` stays."""
    if model.graph is not None:
        data = model.graph
    else:
        from safetensors.numpy import save

        data = save({name: np.ascontiguousarray(value) for name, value in model.weights.items()}, {KEY: model.document()})
    with written_beside(Path(path)) as target:
        target.write(data)
        target.check()


def is_model_file(path: str | Path) -> bool:
    """Whether a word that may be the name of a method is meant as a model file."""
    return str(path).endswith(SUFFIXES) or "/" in str(path) or Path(path).is_file()


def load_model(path: str | Path) -> Model:
    """Read a model file. Raises InputError where it is missing, corrupt, no model of this program, or of a later version."""
    import hashlib

    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"model file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"model file {path} cannot be read ({error.strerror})") from None
    document, weights, graph = _from_safetensors(path, data) if _looks_like_safetensors(data) else _from_onnx(path, data)
    values = _checked(path, document)
    read = {"model_file": str(path), "model_hash": hashlib.sha256(data).hexdigest()}
    return Model(**values, weights=weights, graph=graph, file=read)


def _looks_like_safetensors(data: bytes) -> bool:
    """Whether a file begins as safetensors do: eight bytes of length, then a JSON object."""
    return data[8:9] == b"{"


def _from_safetensors(path: Path, data: bytes) -> tuple[str, dict[str, np.ndarray], None]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        weights = load(data)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"model file {path} is corrupt or cut short ({error})") from None
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    return header.get("__metadata__", {}).get(KEY, ""), weights, None


def _from_onnx(path: Path, data: bytes) -> tuple[str, dict[str, np.ndarray], bytes]:
    if path.suffix != ".onnx":
        raise InputError(f"{path} is not a model file; `braggscope train` and `braggscope convert-model` write them")
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{path} needs ONNX Runtime: pip install 'braggscope[edge]'") from None
    try:
        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = 4
        session = onnxruntime.InferenceSession(data, quiet, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"model file {path} is corrupt or no ONNX graph ({reason})") from None
    return session.get_modelmeta().custom_metadata_map.get(KEY, ""), {}, data


def _checked(path: Path, document: str) -> dict[str, Any]:
    """The fields of a model from its document."""
    if not document:
        raise InputError(f"{path} holds weights but does not say what they are; `braggscope convert-model` makes a model of them")
    try:
        values = json.loads(document)
        found = values.pop("format")
    except (json.JSONDecodeError, AttributeError, KeyError):
        raise InputError(f"model file {path} is corrupt: what it says about itself cannot be read") from None
    if found != FORMAT:
        raise InputError(f"model file {path} has format {found}, this version of braggscope reads format {FORMAT}")
    wanted = [name for name in Model.__dataclass_fields__ if name not in ("weights", "graph", "file")]
    if sorted(values) != sorted(wanted):
        raise InputError(f"model file {path} is corrupt: it should say {', '.join(wanted)}, and says {', '.join(values)}")
    return {**values, "frame_shape": tuple(values["frame_shape"])}


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return asdict(value) if hasattr(value, "__dataclass_fields__") else str(value)
