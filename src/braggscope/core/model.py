"""Models: trained networks as files that say what they are.

A model file is a safetensors file (weights as plain arrays, nothing that can run) or an ONNX graph. Both carry one JSON document
under the key "braggscope": the modality and method, the geometry and frame shape that the network knows, the options it was
trained with, what its training found, and where it came from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .beside import written_beside
from .errors import InputError

FORMAT = 1  # of the document; a reader refuses those it does not know
KEY = "braggscope"
HASH = "weights_sha256"  # safetensors itself does not notice a changed byte
CHECKPOINT = "braggscope.checkpoint"  # of the document in a checkpoint of a training, which is no model
SEAL, BLANK = "braggscope_sha256", "0" * 64  # beside the document of a graph: the hash of the file in which it is blank
SUFFIXES = (".safetensors", ".onnx")

Contents = tuple[str, dict[str, np.ndarray], bytes | None]  # of a model file: its document, weights and graph


KINDS: Mapping[str, type] = {
    "modality": str, "method": str, "geometry": dict, "frame_shape": list, "options": dict, "facts": dict, "provenance": dict,
}  # fmt: skip
"""What the document says, as JSON has it."""


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
    file: Where it was read from, its hash and that of its weights (of a graph: those it was made of); empty in memory.
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
        return json.dumps({"format": FORMAT, HASH: self.weights_hash(), **kept}, default=_plain)

    def weights_hash(self) -> str:
        """SHA-256 of the weights: their names, kinds, shapes and values."""
        return _hash_of(self.weights)

    def data(self) -> bytes:
        """The model file."""
        if self.graph is not None:
            return self.graph
        from safetensors.numpy import save

        return save({name: np.asarray(value, order="C") for name, value in self.weights.items()}, {KEY: self.document()})

    def digest(self) -> str:
        """The SHA-256 hash of the model file."""
        return hashlib.sha256(self.data()).hexdigest()


def save_model(model: Model, path: str | Path) -> None:
    """Write a model file, whole or not at all. Raises OSError where it cannot be written; what was at `path` stays."""
    data = model.data()
    with written_beside(Path(path)) as target:
        target.write(data)
        target.check()


def is_model_file(path: str | Path) -> bool:
    """Whether a word that may be the name of a method is meant as a model file."""
    return str(path).endswith(SUFFIXES) or "/" in str(path) or Path(path).is_file()


def load_model(path: str | Path) -> Model:
    """Read a model file. Raises InputError where it is missing, corrupt, no model of this program, or of a later version."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"model file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"model file {path} cannot be read ({error.strerror})") from None
    document, weights, graph = (_from_safetensors if _is_safetensors(path, data) else _from_onnx)(path, data)
    values, written = _checked(path, document)
    if graph is None and written != _hash_of(weights):
        raise InputError(f"model file {path} is corrupt: its weights are not those that were written")
    if graph is not None and sealed(graph) != graph:
        raise InputError(f"model file {path} is corrupt: its graph is not the one that was written; export the model again")
    read = {"model_file": str(path), "model_hash": hashlib.sha256(data).hexdigest(), "model_weights": written}
    return Model(**values, weights=weights, graph=graph, file=read)


def sealed(graph: bytes) -> bytes:
    """An ONNX graph that carries its own hash, so that a changed byte is noticed; ONNX Runtime itself does not notice one.

    graph: With BLANK, or an earlier hash, as its metadata SEAL; one without is given back as b"".
    The value is of fixed length and found by its bytes (protobuf: tag 2, length 64), so that no package is needed to check it.
    """
    found = re.search(SEAL.encode() + rb"\x12@([0-9a-f]{64})", graph)
    if found is None:
        return b""
    before, after = graph[: found.start(1)], graph[found.end(1) :]
    return before + hashlib.sha256(before + BLANK.encode() + after).hexdigest().encode() + after


def _is_safetensors(path: Path, data: bytes) -> bool:
    """Whether a file is meant as safetensors, or begins so: eight bytes of length, then a JSON object."""
    return path.suffix == ".safetensors" or (path.suffix != ".onnx" and data[8:9] == b"{")


def _from_safetensors(path: Path, data: bytes) -> Contents:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        weights = load(data)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:  # the latter for kinds that numpy does not know
        raise InputError(f"model file {path} is corrupt or cut short ({error})") from None
    size = int.from_bytes(data[:8], "little")
    said = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    if CHECKPOINT in said:
        raise InputError(f"{path} is the checkpoint of a training, not a model; `braggscope train ... --resume` ends it")
    return said.get(KEY, ""), weights, None


def _from_onnx(path: Path, data: bytes) -> Contents:
    if data.startswith(b"PK"):
        raise InputError(
            f"{path} is not a model file; if it holds plain arrays, `braggscope convert-model` makes a model of them"
        )
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


def _checked(path: Path, document: str) -> tuple[dict[str, Any], str]:
    """The fields of a model from its document, and the hash of the weights that it was written with."""
    if not document:
        raise InputError(f"{path} holds weights but does not say what they are; `braggscope convert-model` makes a model of them")
    try:
        values = json.loads(document)
        found = values.pop("format")
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError):
        raise InputError(f"model file {path} is corrupt: what it says about itself cannot be read") from None
    if found != FORMAT:
        raise InputError(f"model file {path} has format {found}, this version of braggscope reads format {FORMAT}")
    written = str(values.pop(HASH, ""))
    if sorted(values) != sorted(KINDS):
        raise InputError(f"model file {path} is corrupt: it should say {', '.join(KINDS)}, and says {', '.join(values)}")
    for name, kind in KINDS.items():
        if not isinstance(values[name], kind):
            raise InputError(f"model file {path} is corrupt: its {name} is {values[name]!r}")
    if [type(length) for length in values["frame_shape"]] != [int, int]:
        raise InputError(f"model file {path} is corrupt: its frame_shape is {values['frame_shape']}")
    return {**values, "frame_shape": tuple(values["frame_shape"])}, written


def _hash_of(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, kinds, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = np.asarray(weights[name], order="C")
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return asdict(value) if hasattr(value, "__dataclass_fields__") else str(value)
