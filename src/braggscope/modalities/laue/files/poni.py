"""pyFAI's calibrations (.poni), read and written.

pyFAI puts a pixel at ((row + 1/2) p - poni1, (column + 1/2) p - poni2, distance) and turns it by rot1 about axis 1 and rot2
about axis 2, both left-handed, then by rot3 about axis 3, right-handed; its axes are 1 up, 2 to the right as the beam flies, 3
along the beam (Kieffer & Karkoulis 2013, J. Phys. Conf. Ser. 425, 202012). The orientation of the detector says in which corner
the first pixel lies, seen by an observer behind the detector who looks at the sample: 1 top left, 2 top right, 3 bottom right
(the default), 4 bottom left. Seen from the sample, images of 2 and 4 are as LaueTools has them; those of 1 and 3 are mirrored.
Rings cannot tell one from the other, so that a calibration from powder may well state 3 for images of 2; Laue spots can.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError

from ..frames import FROM_PYFAI, flipped_rows, geometry_of, unturned_matrix
from ..geometry import LaueGeometry
from .text import numbers, text_of, write_lines

PIXELS = {"pilatus": 172e-6, "eiger": 75e-6}
"""Pixels, m, of families of detectors that pyFAI calls by name alone."""
SIGNS = {1: (-1, -1), 2: (-1, 1), 3: (1, 1), 4: (1, -1)}
"""Which way rows and columns run along axes 1 and 2, by orientation."""


def read_poni(path: str | Path, *, flip_rows: bool = False, **values: Any) -> LaueGeometry:
    """The geometry of a .poni file; the wavelength in it does not matter here.

    flip_rows: Whether the images are to be turned upside down (row r of the file's images is then row rows - 1 - r), which makes
        mirrored ones right.
    values: Further fields of the geometry.
    Raises InputError where the pixel is not known, where it is not square, and for mirrored images (orientations 1 and 3).
    """
    said = _said(path)
    config = _config(said, path)
    pixel = _pixel(said, config, path)
    shape = config.get("max_shape") or None
    orientation = int(config.get("orientation", 3) or 3)
    if orientation not in SIGNS:
        raise InputError(f"{path}: the orientation of the detector must be 1 to 4, got {orientation}")
    if (orientation != 3 or flip_rows) and shape is None:
        raise InputError(
            f"{path} must say the shape of the detector (max_shape in Detector_config) for orientation {orientation}"
        )
    matrix = FROM_PYFAI @ _turn(said, path) @ _plane(said, pixel, orientation, shape, path)
    if flip_rows:
        matrix = flipped_rows(matrix, shape[0])  # type: ignore[index]
    if np.linalg.det(matrix) < 0:
        raise InputError(
            f"{path}: images of orientation {orientation} are mirrored as seen from the sample; if the first row of yours is at "
            f"the top, the orientation is 2 (powder rings cannot tell); else turn them upside down and read with flip_rows=True"
        )
    size = {} if shape is None else {"rows": int(shape[0]), "columns": int(shape[1])}
    return geometry_of(matrix, **{**size, **values})


def write_poni(path: str | Path, geometry: LaueGeometry) -> None:
    """Write a calibration as pyFAI reads it (version 2.1), orientation 2. Raises InputError for one without rows and columns."""
    if not geometry.rows or not geometry.columns:
        raise InputError(f"{path}: a .poni file needs the rows and columns of the detector; give the geometry both")
    pixel = geometry.pixel_um / 1e6
    matrix = FROM_PYFAI.T @ unturned_matrix(geometry) / 1e3  # m
    up, right = -matrix[:, 1] / pixel, matrix[:, 0] / pixel
    turn = np.column_stack([up, right, np.cross(up, right)])
    corner = turn.T @ matrix[:, 2]  # of the first pixel: rows fall along axis 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gimbal lock")  # a normal along axis 1: any rot3 would do
        one, two, three = Rotation.from_matrix(turn).as_euler("xyz")
    config = {"pixel1": pixel, "pixel2": pixel, "max_shape": [geometry.rows, geometry.columns], "orientation": 2}
    lines = [
        "# Nota: C-Order, 1 refers to the Y axis, 2 to the X axis",
        *("poni_version: 2.1", "Detector: Detector", f"Detector_config: {json.dumps(config)}"),
        f"Distance: {float(corner[2])!r}",
        f"Poni1: {float((geometry.rows - 0.5) * pixel - corner[0])!r}",
        f"Poni2: {float(0.5 * pixel - corner[1])!r}",
        *(f"{name}: {float(angle)!r}" for name, angle in (("Rot1", -one), ("Rot2", -two), ("Rot3", three))),
    ]
    write_lines(path, lines)


def _said(path: str | Path) -> dict[str, str]:
    """What the last calibration in the file says; a file may hold several, the newest at the end."""
    pairs = [line.split(":", 1) for line in text_of(path).splitlines() if ":" in line and not line.startswith("#")]
    said = {name.strip().lower(): value.strip() for name, value in pairs}
    lacking = [name for name in ("distance", "poni1", "poni2", "rot1", "rot2", "rot3") if name not in said]
    if lacking:
        raise InputError(f"{path} is no calibration of pyFAI: it lacks {', '.join(lacking)}")
    return said


def _config(said: dict[str, str], path: str | Path) -> dict[str, Any]:
    try:
        config = json.loads(said.get("detector_config") or "{}")
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: Detector_config is not JSON: {error}") from None
    return config if isinstance(config, dict) else {}


def _pixel(said: dict[str, str], config: dict[str, Any], path: str | Path) -> tuple[float, float]:
    """Size of a pixel along axes 1 and 2, m."""
    stated = [config.get(f"pixel{i}") or said.get(f"pixelsize{i}") for i in (1, 2)]
    if None not in stated:
        return float(stated[0]), float(stated[1])  # type: ignore[arg-type]
    name = said.get("detector", "").lower()
    known = next((size for family, size in PIXELS.items() if name.startswith(family)), None)
    if known is None:
        raise InputError(
            f"{path}: the pixel of detector '{said.get('detector', '')}' is not known here; write pixel1 and pixel2 (m) into its "
            f"Detector_config"
        )
    return known, known


def _turn(said: dict[str, str], path: str | Path) -> np.ndarray:
    one, two, three = (numbers(said[name], path, name, 1)[0] for name in ("rot1", "rot2", "rot3"))
    return np.asarray(Rotation.from_euler("xyz", [-one, -two, three]).as_matrix())


def _plane(said: dict[str, str], pixel: tuple[float, float], orientation: int, shape: Any, path: str | Path) -> np.ndarray:
    """(column, row, 1) to the place before the turns, axes 1, 2, 3, mm."""
    distance, poni1, poni2 = (numbers(said[name], path, name, 1)[0] for name in ("distance", "poni1", "poni2"))
    down, across = SIGNS[orientation]
    first = (0.5 if down > 0 else shape[0] - 0.5, 0.5 if across > 0 else shape[1] - 0.5)  # of the first pixel, in pixels
    corner = [first[0] * pixel[0] - poni1, first[1] * pixel[1] - poni2, distance]
    return 1e3 * np.column_stack([[0, across * pixel[1], 0], [down * pixel[0], 0, 0], corner])
