"""Corrections of a scan by name: dark and flat images from files, and those that the modality finds in the scan itself.

They are made in one order, whichever way they were asked for: dark and flat first, then those of the modality in the order of
their own (core.modality). What was done is in the scan's record, and so in the provenance of its map.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.analysis import Argument, arguments
from braggscope.core.corrections import mean_frame, with_dark_and_flat
from braggscope.core.errors import InputError
from braggscope.core.modality import modalities, modality
from braggscope.core.scan import Scan
from braggscope.core.source import open_scan

ImageLike = str | Path | np.ndarray | Scan | None


def correct(
    scan: Scan, corrections: Sequence[str] = (), *, dark: ImageLike = None, flat: ImageLike = None, kind: str | None = None
) -> Scan:
    """The scan with corrections (see `braggscope.correct`).

    kind: Name of the modality, where the scan does not say it.
    """
    asked = [parsed(one) for one in corrections]
    return applied(scan, asked, dark=dark, flat=flat, kind=kind)


def applied(
    scan: Scan,
    asked: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    dark: ImageLike = None,
    flat: ImageLike = None,
    kind: str | None = None,
) -> Scan:
    """The scan with corrections given as names and options. Raises InputError for one that is unknown, or asked for twice."""
    names = [name for name, _ in asked]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"correction {twice[0]} is given twice")
    if names:
        name = kind or scan.modality
        if name is None:
            raise InputError(
                f"{scan.path.name} does not say its modality, to which {names[0]} belongs; give one with --modality: "
                f"{', '.join(sorted(modalities()))}"
            )
        of = modality(name)
        makers = {one: of.correction(one) for one in names}
        wanted = {one: _options(one, makers[one], options) for one, options in asked}
    if dark is not None or flat is not None:
        images = {word: _image(word, given) for word, given in (("dark", dark), ("flat", flat)) if given is not None}
        record = {key: value for _, facts in images.values() for key, value in facts.items()}
        scan = with_dark_and_flat(scan, **{word: values for word, (values, _) in images.items()}, record=record)
    for one in of.corrections() if names else []:
        if one in names:
            scan = makers[one](scan, **wanted[one])
    return scan


def again(scan: Scan, records: Sequence[Mapping[str, Any]], kind: str | None) -> Scan:
    """The scan with the corrections of a record made again.

    Raises InputError where an image file is not there any more or is another one.
    """
    asked, images = [], {}
    for one in records:
        if one["name"] != "dark-flat":
            asked.append((str(one["name"]), one["options"]))
            continue
        for word in ("dark", "flat"):
            if f"{word}_hash" in one:
                images[word] = _found_again(scan, word, str(one[f"{word}_file"]), str(one[f"{word}_hash"]))
    return applied(scan, asked, kind=kind, dark=images.get("dark"), flat=images.get("flat"))


def parsed(word: str) -> tuple[str, dict[str, str]]:
    """Name and options of a correction as the command line has them.

    >>> parsed("shift:interpolation=cubic,largest=5")
    ('shift', {'interpolation': 'cubic', 'largest': '5'})
    """
    name, _, rest = word.partition(":")
    options: dict[str, str] = {}
    for part in rest.split(",") if rest else []:
        key, sign, value = part.partition("=")
        if not (sign and key and value):
            raise InputError(f"--correct must be NAME or NAME:OPTION=VALUE,OPTION=VALUE, got '{word}'")
        options[key.strip()] = value.strip()
    return name.strip(), options


def _options(name: str, maker: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a correction as the kinds of value they are. Raises InputError for an unknown one or a bad value."""
    known = {one.name: one for one in arguments(maker) if one.kind == "option"}
    for key in given:
        if key not in known:
            raise InputError(f"correction {name} has no option '{key}'; it has: {', '.join(known) or 'none'}")
    return {key: _value(name, known[key], value) for key, value in given.items() if value is not None}


def _value(name: str, option: Argument, value: Any) -> Any:
    """The value of an option; a word of the command line is read as a number, or as true or false, where one is wanted."""
    if isinstance(value, str) and option.type in (int, float):
        with contextlib.suppress(ValueError):  # what is no number is refused below, as it came
            value = option.type(value)
    elif isinstance(value, str) and option.type is bool:
        value = {"true": True, "false": False}.get(value.lower(), value)
    return option.checked(value, f"{name}:{option.name}")


def _image(word: str, given: str | Path | np.ndarray | Scan) -> tuple[np.ndarray, dict[str, Any]]:
    """A dark or flat image and what to say about it: the mean of the frames of a file or scan, or the array itself."""
    if isinstance(given, np.ndarray):
        return given, {f"{word}_file": "an array"}
    if isinstance(given, Scan):
        return mean_frame(given), {f"{word}_file": given.path.name, f"{word}_hash": _hash(given.path)}
    path = Path(given)
    if not path.exists():
        raise InputError(f"{word} {path} does not exist")
    return _mean_of_file(word, path), {f"{word}_file": str(path), f"{word}_hash": _hash(path)}


def _mean_of_file(word: str, path: Path) -> np.ndarray:
    """The mean frame of an image, a stack (.npy) or a scan in any format that is known."""
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{word} {path} cannot be read as a numpy array: {error}") from None
        if values.ndim not in (2, 3) or values.dtype.kind not in "iufb":
            raise InputError(f"{word} {path} must be an image or a stack of images, got an array of shape {values.shape}")
        return values.astype(np.float64) if values.ndim == 2 else values.mean(axis=0, dtype=np.float64)
    try:
        image = _sole_image(path)
        return mean_frame(open_scan(path)) if image is None else image
    except (OSError, RuntimeError, KeyError) as error:  # as h5py has them for what is damaged inside
        raise InputError(f"{word} {path} cannot be read, it may be damaged ({error})") from None


def _sole_image(path: Path) -> np.ndarray | None:
    """The only image (two long axes) of an HDF5 file that holds no stack; None for any other file."""
    import h5py

    from braggscope.io.hdf5 import looks_like_hdf5, open_file

    if not looks_like_hdf5(path):
        return None
    images: list[str] = []

    def no_sole_image(name: str, item: Any) -> bool | None:
        """True, which ends the visit, at a stack and at a second image."""
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iuf":
            return None
        if item.ndim == 2 and min(item.shape) > 1:
            images.append(name)
        return item.ndim >= 3 or len(images) > 1 or None

    with open_file(path) as file:
        if file.visititems(no_sole_image) or not images:
            return None
        return file[images[0]][()].astype(np.float64)


def _found_again(scan: Scan, word: str, name: str, digest: str) -> Path:
    """The image file of a record: where it was, or beside the scan."""
    for path in (Path(name), scan.path.parent / Path(name).name):
        if path.exists():
            if _hash(path) != digest:
                raise InputError(f"{path} is not the {word} image that the map was made with (another hash)")
            return path
    raise InputError(f"the {word} image {name} that the map was made with is not there")


def _hash(path: Path) -> str:
    from .provenance import file_hash

    return file_hash(path)["input_hash"]
