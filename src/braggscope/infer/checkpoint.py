"""Checkpoints of a training: everything that is needed to go on as if nothing had happened.

One safetensors file in the folder of the training: arrays (the weights, the best weights so far, what the optimiser remembers)
and one JSON document (whose training it is, how far it came, its losses). It is written whole or not at all, and reading
it runs nothing. No random state is in it: every epoch seeds its own from the seed and its number (infer.train).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from braggscope.core.beside import written_beside
from braggscope.core.errors import InputError
from braggscope.core.learned import CHECKPOINT_NAME
from braggscope.core.model import CHECKPOINT

KEY, DIGEST = CHECKPOINT, "braggscope.digest"  # of the document and the hash of all
FORMAT = 1  # of the document

Arrays = dict[str, Tensor]


@dataclass
class Checkpoint:
    """A training after an epoch.

    identity: Whose it is: version, seed, data hash, config, ...; JSON values. No training of another identity goes on from it.
    weights, best: The network's parameters and buffers now, and where the validation loss was lowest.
    optimiser: As its state_dict gives it.
    history: What is known of every epoch; JSON values.
    """

    identity: Mapping[str, Any]
    weights: Arrays = field(default_factory=dict)
    best: Arrays = field(default_factory=dict)
    optimiser: Mapping[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the checkpoint of a folder, which is made where it is missing. Raises OSError; what was there then stays."""
    from safetensors.torch import save

    arrays: Arrays = {}
    document = {
        "format": FORMAT,
        "identity": checkpoint.identity,
        "history": checkpoint.history,
        "optimiser": _packed(checkpoint.optimiser, "optimiser", arrays),
    }
    for part in ("weights", "best"):
        arrays |= {f"{part}.{name}": value for name, value in getattr(checkpoint, part).items()}
    arrays = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in arrays.items()}
    text = json.dumps(document)
    data = save(arrays, {KEY: text, DIGEST: _digest(text, arrays)})
    folder.mkdir(parents=True, exist_ok=True)
    with written_beside(folder / CHECKPOINT_NAME) as file:
        file.write(data)
        file.check()


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read the checkpoint of a folder. Raises InputError where there is none, it is corrupt, or of a version to come."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / CHECKPOINT_NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"there is no checkpoint in {folder} to resume from; train without resume to begin anew") from None
    except OSError as error:
        raise InputError(f"checkpoint {path} cannot be read ({error.strerror})") from None
    try:
        arrays = load(data)
        said = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        document, intact = json.loads(said[KEY]), said[DIGEST] == _digest(said[KEY], arrays)
    except (SafetensorError, ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise InputError(f"checkpoint {path} is corrupt or cut short; train without resume to begin anew")
    if document["format"] != FORMAT:
        raise InputError(f"checkpoint {path} has format {document['format']}, this version of braggscope reads format {FORMAT}")
    return Checkpoint(
        identity=document["identity"],
        weights=_part(arrays, "weights."),
        best=_part(arrays, "best."),
        optimiser=_unpacked(document["optimiser"], arrays),
        history=document["history"],
    )


def check_identity(checkpoint: Checkpoint, identity: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError, naming what differs, where a checkpoint is not of the training with this identity."""
    ours, theirs = _flat(json.loads(json.dumps(identity))), _flat(checkpoint.identity)
    names = [name for name in {**theirs, **ours} if ours.get(name) != theirs.get(name)]
    if names:
        differing = "; ".join(f"{name} is {_shown(theirs.get(name))} there and {_shown(ours.get(name))} here" for name in names)
        raise InputError(f"the checkpoint in {folder} is of another training: {differing}; train without resume to begin anew")


def _packed(value: Any, name: str, arrays: Arrays) -> Any:
    """A nested value as JSON; its tensors go into `arrays`, under names that begin with `name`."""
    if isinstance(value, Tensor):
        arrays[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[key, _packed(one, f"{name}.{key}", arrays)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_packed(one, f"{name}.{i}", arrays) for i, one in enumerate(value)]}
    return value


def _unpacked(value: Any, arrays: Arrays) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return arrays[inner]
    if kind == "dict":
        return {key: _unpacked(one, arrays) for key, one in inner}
    return (tuple if kind == "tuple" else list)(_unpacked(one, arrays) for one in inner)


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _digest(text: str, arrays: Arrays) -> str:
    """SHA-256 of the document and the names and bytes of the arrays."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, their keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _shown(value: Any) -> str:
    return "not set" if value in (None, "") else str(value)
