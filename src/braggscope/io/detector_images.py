"""Images of area detectors in their makers' formats: marccd and mar345, ADSC, Dectris CBF; also gzip- or bzip2-compressed.

One frame a file, in a series; a file of a series stands for the whole series it belongs to. The headers give the exposure, the
pixel and the count of saturation where they have them. They say nothing of the sample's motors: the frames are a line, or fill
the grid that is asked for. fabio decodes them. Images of marccd that are called .tif are TIFF files (tiff.py).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.scan import Axis, Scan

from .positions import Placed, on_given_grid
from .series import PageFrames, check_not_empty, has_suffix, is_image_folder, prefix_of, series_in

FORMAT = "marccd/mar345/ADSC/CBF"
RANK = 45
MAKERS = {
    **dict.fromkeys(("mccd", "marccd"), "marccd"),
    **dict.fromkeys(("mar3450", "mar3000", "mar2400", "mar2300", "mar2000", "mar1800", "mar1600", "mar1200"), "mar345"),
    "img": "ADSC",
    "cbf": "CBF",
}
SUFFIXES = tuple(f".{ending}{packed}" for ending in MAKERS for packed in ("", ".gz", ".bz2"))


def matches(path: Path) -> bool:
    """Whether the path is such an image or a folder with such images."""
    path = Path(path)
    return (has_suffix(path, SUFFIXES) and path.is_file()) or is_image_folder(path, SUFFIXES)


def scans(path: Path, *, detector: str | None = None, grid: Sequence[int] | None = None) -> Iterator[Scan]:
    """The series of a folder, or the one that a file belongs to.

    grid: Length of each scan axis, slowest first; without it the frames are a line.
    Raises InputError where a file cannot be read or the frames of a series differ in size.
    """
    path = Path(path)
    if path.is_file():
        prefix = prefix_of(path, SUFFIXES)
        files = series_in(path.parent, SUFFIXES).get(prefix, [path])
        yield _scan(path, prefix.rstrip("_-.") or path.name, files if path in files else [path], grid)
        return
    for prefix, files in series_in(path, SUFFIXES).items():
        yield _scan(path, prefix.rstrip("_-.") or path.name, files, grid)


def load(path: Path, page: int) -> np.ndarray:
    """The frame of a file, shape (row, column). Raises InputError where it cannot be read."""
    return _opened(path)[0]


def _scan(path: Path, name: str, files: list[Path], grid: Sequence[int] | None) -> Scan:
    first, header = _opened(files[0])
    placed = Placed((Axis("point", np.arange(float(len(files)))),), np.arange(len(files)))
    if grid is not None:
        placed = on_given_grid(grid, len(files), {}, {})
    known = _known(header)
    maker, saturation = known.pop("detector", ""), known.pop("saturation", None)
    frames = PageFrames([(file, 0) for file in files], (first.shape[0], first.shape[1]), first.dtype, load)
    return Scan(
        path,
        name,
        placed.axes,
        frames,
        placed.order,
        title=name,
        detector=maker,
        metadata=known | {"files": f"{files[0].name} .. {files[-1].name}" if len(files) > 1 else files[0].name},
        missing=placed.missing,
        saturation=saturation,
    )


def _opened(path: Path) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Counts and header of a file."""
    import fabio

    maker = MAKERS[re.sub(r"\.(gz|bz2)$", "", path.name.lower()).rpartition(".")[2]]
    check_not_empty(path, f"a {maker} image")
    try:
        with fabio.open(str(path)) as image:
            counts = np.asarray(image.data)
            header = dict(image.header) | (_of_marccd(path) if maker == "marccd" else {})
    except Exception as error:  # fabio has its own for each format, and raises what the decoders do
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is not a {maker} image or is damaged ({said})") from None
    if counts.ndim != 2 or not counts.size or counts.dtype.kind not in "uif":
        shape = " x ".join(map(str, counts.shape))
        raise InputError(f"{path} must hold one grey image (rows x columns), got an array of {shape}")
    return counts, header


def _of_marccd(path: Path) -> dict[str, Any]:
    """The header that marccd has behind that of TIFF, which is all that fabio gives, by its fields; empty for a packed file."""
    from fabio.marccdimage import HEADER_FORMAT, HEADER_NAMES, interpret_header

    if has_suffix(path, (".gz", ".bz2")):
        return {}
    with open(path, "rb") as file:
        file.seek(1024)
        return interpret_header(file.read(struct.calcsize(HEADER_FORMAT)), HEADER_FORMAT, HEADER_NAMES)


def _known(header: Mapping[str, Any]) -> dict[str, Any]:
    """What the header says: exposure_s, pixel_um, detector, saturation; each only where it does."""
    text = str(header.get("_array_data.header_contents", ""))
    found: dict[str, Any] = {}
    if text:  # the header of Dectris, lines like "# Exposure_time 1.0 s"
        for key, pattern, scale in (
            ("exposure_s", r"Exposure_time\s+([-+.\deE]+)", 1.0), ("pixel_um", r"Pixel_size\s+([-+.\deE]+)", 1e6),
            ("saturation", r"Count_cutoff\s+([-+.\deE]+)", 1.0),
        ):  # fmt: skip
            if match := re.search(pattern, text):
                found[key] = float(match[1]) * scale
        if match := re.search(r"Detector:\s*([^\r\n]+)", text):
            found["detector"] = match[1].strip()
    for key, word, scale in (
        ("exposure_s", "TIME", 1.0), ("pixel_um", "PIXEL_SIZE", 1e3), ("saturation", "CCD_IMAGE_SATURATION", 1.0),  # of ADSC
        ("exposure_s", "exposure_time", 1e-3), ("pixel_um", "pixelsize_x", 1e-3), ("saturation", "saturated_value", 1.0),
    ):  # fmt: skip
        value = _number(header.get(word))
        if value is not None and value > 0:
            found.setdefault(key, value * scale)
    return found


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, struct.error):
        return None
