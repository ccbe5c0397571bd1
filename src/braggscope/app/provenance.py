"""Where a map comes from, as attributes of the map: program, command, method, geometry and input file.

Every value is a number or a word (lists and tables are JSON), so that it is the same in memory and on disk.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from braggscope.core.estimator import Estimator
from braggscope.core.geometry import hash_of_file
from braggscope.core.learned import Learned, Training
from braggscope.core.modality import Modality
from braggscope.core.source import Source

WHOLE_BYTES = 256 * 2**20  # files up to this size are hashed whole: under half a second
BLOCKS, BLOCK_BYTES = 64, 2**20

SAME = (
    "version", "modality", "method", "options", "geometry", "geometry_files", "input_file", "input_hash", "input_scan",
    "input_detector", "roi", "binning", "saturation", "corrections",
)  # fmt: skip
"""What an interrupted run and the one that finishes it must agree in, beside the model."""


def provenance(source: Source, kind: Modality, estimator: Estimator, *, hashed: bool = True) -> dict[str, str | int | float]:
    """The attributes that a map of this source by this (not yet prepared) method carries from its start.

    hashed: Whether with the hash of its file; a file that grows has none.
    """
    path = getattr(source, "path", None)
    geometry = estimator.geometry.to_mapping() if estimator.geometry is not None else {}
    seed = estimator.options().get("seed", source.provenance.get("simulation_seed"))
    values = {
        "title": f"{kind.name} {estimator.name}: {source.provenance.get('input_file', 'a source')}",
        **made_now(),
        "modality": kind.name,
        "method": estimator.name,
        "options": estimator.options(),
        "geometry": geometry,
        "geometry_files": geometry_files(geometry),
        "seed": seed,
        "still_motors": _still_motors(source, estimator) or None,
        **source.provenance,
        **estimator.facts(),
        **(file_hash(path) if path is not None and hashed else {}),
        "saturation": getattr(source, "saturation", None),
        "uncalibrated_because": None if estimator.calibrated else estimator.uncalibrated_because,
    }
    return {name: plain(value) for name, value in values.items() if value is not None}


def _still_motors(source: Source, estimator: Estimator) -> dict[str, float]:
    """Where the motors stood that the geometry names and that this scan did not move."""
    stood = getattr(source, "metadata", {}).get("motors", {})
    wanted = estimator.geometry.motors() if estimator.geometry is not None else ()
    return {name: stood[name] for name in wanted if name in stood and name not in source.grid.dims}


def training_provenance(estimator: Learned, sources: Sequence[Source], training: Training) -> dict[str, Any]:
    """What a model of this training says about where it comes from; JSON values, without None."""
    geometry = estimator.geometry.to_mapping() if estimator.geometry is not None else {}
    values = {
        **made_now(),
        "seed": training.seed,
        "device": training.device,
        "devices": training.devices * training.nodes,
        "precision": training.precision,
        "geometry_files": geometry_files(geometry),
        "data": [_data(source) for source in sources] or "simulated by the method",
        "frames": sum(_frames(source) for source in sources) or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _data(source: Source) -> dict[str, Any]:
    """What a source says about itself, and the hash of its file."""
    path = getattr(source, "path", None)
    return {**source.provenance, **(file_hash(path) if path is not None else {}), "frames": _frames(source)}


def files_of(source: object) -> list[Path]:
    """The files that a source is read from: its own, and the dark and flat images of its corrections."""
    path = getattr(source, "path", None)
    images = [one[f"{w}_file"] for one in getattr(source, "corrections", ()) for w in ("dark", "flat") if f"{w}_hash" in one]
    return [Path(one) for one in (path, *images) if isinstance(one, str | Path)]


def _frames(source: Source) -> int:
    """How many frames a source has: as recorded, else as planned."""
    recorded = getattr(getattr(source, "frames", None), "shape", None)
    return int(recorded[0]) if recorded else math.prod(source.shape)


def geometry_files(geometry: Mapping[str, Any]) -> dict[str, str | None] | None:
    """The hashes of the files that a geometry names, by field; None where it names none."""
    return {name: hash_of_file(value) for name, value in geometry.items() if name.endswith("_file")} or None


def made_now() -> dict[str, str]:
    """Program, command and time."""
    from braggscope import __version__

    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"version": __version__, "command": command_line(), "created": now}


def command_line() -> str:
    """The command as it was typed, or "python" for a program of the user's own."""
    name = Path(sys.argv[0]).name if sys.argv else ""
    return shlex.join([name, *sys.argv[1:]]) if name == "braggscope" else "python"


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what the attributes of two runs differ that should be parts of one, a phrase each; options and geometry by name.

    Of another method or model nothing else is said: everything else follows from it.
    """
    found = _other_method(earlier, now)
    if found:
        return found
    for name in SAME:
        a, b = earlier.get(name, "none"), now.get(name, "none")
        if str(a) == str(b):
            continue
        if name == "corrections":
            found += _other_corrections(a, b)
        elif name in ("options", "geometry") and "none" not in (a, b):
            old, new = json.loads(str(a)), json.loads(str(b))
            keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            found += [f"{name.removesuffix('s')} {key} was {old.get(key)} and is {new.get(key)}" for key in keys]
        else:
            found.append(f"{name} was {a} and is {b}")
    return found


def _other_corrections(earlier: Any, now: Any) -> list[str]:
    """In which corrections two runs differ, a phrase each: by name, and what is known of each."""
    old, new = ({c["name"]: c for c in (json.loads(str(one)) if one != "none" else [])} for one in (earlier, now))
    if list(old) != list(new):
        return [f"corrections were {', '.join(old) or 'none'} and are {', '.join(new) or 'none'}"]
    found = []
    for name in old:
        keys = [key for key in {**old[name], **new[name]} if old[name].get(key) != new[name].get(key)]
        found += [f"{name} {key} was {old[name].get(key)} and is {new[name].get(key)}" for key in keys]
    return found


def _other_method(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Whether two runs differ in method or model, by their names; a model of the same name by its hash."""
    names = [name for name in ("modality", "method") if earlier.get(name) != now.get(name)]
    found = [f"{name} was {earlier.get(name)} and is {now.get(name)}" for name in names]
    if earlier.get("model_hash") != now.get("model_hash"):
        old, new = _model(earlier), _model(now)
        same = old == new
        hashes = [f" ({str(one.get('model_hash'))[:8]})" if same else "" for one in (earlier, now)]
        found.append(f"model was {old}{hashes[0]} and is {new}{hashes[1]}")
    return found


def _model(attributes: Mapping[str, Any]) -> str:
    """What to call the model of a run."""
    return str(attributes.get("model_file", "one in memory" if "model_hash" in attributes else "none"))


def file_hash(path: Path) -> dict[str, str]:
    """The hash of a file, or of a folder's files one after the other in the order of their names.

    Up to 256 MB every byte counts; of more, the names, the sizes and 64 blocks of 1 MiB spread evenly, the first and the
    last byte included. The second entry says which.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    sizes = [file.stat().st_size for file in files]
    total = sum(sizes)
    digest = hashlib.sha256()
    whole = total <= WHOLE_BYTES
    if not whole or path.is_dir():
        names = [file.name if path.is_file() else str(file.relative_to(path)) for file in files]
        digest.update(json.dumps(list(zip(names, sizes, strict=True))).encode())
    step = (total - BLOCK_BYTES) / (BLOCKS - 1)
    spans = [(0, total)] if whole else [(int(i * step), int(i * step) + BLOCK_BYTES) for i in range(BLOCKS)]
    for start, stop in spans:
        for block in _bytes_between(files, sizes, start, stop):
            digest.update(block)
    method = "sha256" if whole else f"sha256 of names, sizes and {BLOCKS} blocks of 1 MiB"
    return {"input_hash": digest.hexdigest(), "input_hash_method": method}


def plain(value: Any) -> str | int | float:
    """A value as an attribute: numbers and words as they are, everything else as JSON."""
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, str | int | float) else json.dumps(value, default=_as_list)


def _as_list(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _bytes_between(files: list[Path], sizes: list[int], start: int, stop: int) -> Iterator[bytes]:
    """The bytes start to stop of some files laid end to end, in blocks."""
    begin = 0
    for file, size in zip(files, sizes, strict=True):
        low, high = max(start, begin) - begin, min(stop, begin + size) - begin
        if low < high:
            with file.open("rb") as stream:
                stream.seek(low)
                while low < high and (block := stream.read(min(BLOCK_BYTES, high - low))):
                    low += len(block)
                    yield block
        begin += size
