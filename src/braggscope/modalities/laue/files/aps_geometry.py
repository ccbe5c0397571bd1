"""Detectors of APS 34-ID from its geometry files, XML or text ("geoN"), and as XML.

A pixel (column, row) from 0 lies at R (px + P_x, py + P_y, P_z) in the APS laboratory, in mm, with px = (column - (N_x - 1) / 2)
size_x / N_x and R the rotation by the vector R, whose length is its angle: moved first, then turned. The XML of the beamline is
none: its comments open with "<--".
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError

from ..frames import FROM_APS, geometry_of, unturned_matrix
from ..geometry import LaueGeometry
from .text import numbers, text_of, write_lines


@dataclass(frozen=True)
class ApsDetector:
    """A detector as the beamline describes it: pixels (x, y), size in mm, rotation vector in radians, translation in mm."""

    pixels: tuple[int, int]
    size_mm: tuple[float, float]
    r: tuple[float, float, float]
    p_mm: tuple[float, float, float]
    identity: str = ""

    def matrix(self) -> np.ndarray:
        """M of `detector.detector_matrix` in the laboratory of this program, mm, shape (3, 3)."""
        pitch = np.array(self.size_mm) / np.array(self.pixels)
        corner = np.array(self.p_mm) - np.append((np.array(self.pixels) - 1) / 2 * pitch, 0.0)
        local = np.column_stack([[pitch[0], 0, 0], [0, pitch[1], 0], corner])
        return np.asarray(FROM_APS @ Rotation.from_rotvec(self.r).as_matrix() @ local)

    def geometry(self, **values: Any) -> LaueGeometry:
        """The same as LaueTools' five parameters and a roll; `values` are further fields, such as the band of energies."""
        return geometry_of(self.matrix(), rows=self.pixels[1], columns=self.pixels[0], **values)


def detector_of(geometry: LaueGeometry, identity: str = "") -> ApsDetector:
    """The description of the beamline for a geometry. Raises InputError where it does not say its rows and columns."""
    if not geometry.rows or not geometry.columns:
        raise InputError("a detector of APS 34-ID needs rows and columns; give the geometry both")
    matrix, pitch = FROM_APS.T @ unturned_matrix(geometry), geometry.pixel_um / 1e3
    x, y, size = geometry.columns, geometry.rows, (geometry.columns * pitch, geometry.rows * pitch)
    turn = np.column_stack([matrix[:, 0], matrix[:, 1], np.cross(matrix[:, 0], matrix[:, 1]) / pitch]) / pitch
    p = turn.T @ matrix[:, 2] + np.array([(x - 1) / 2 * pitch, (y - 1) / 2 * pitch, 0.0])
    r = Rotation.from_matrix(turn).as_rotvec()
    return ApsDetector((x, y), size, (float(r[0]), float(r[1]), float(r[2])), (float(p[0]), float(p[1]), float(p[2])), identity)


def read_detectors(path: str | Path) -> list[ApsDetector]:
    """The detectors of a geometry file, in its order. Raises InputError where it describes none or one incompletely."""
    text = text_of(path)
    found = _of_text(text, path) if text.lstrip().startswith("$") else _of_xml(text, path)
    if not found:
        raise InputError(f"{path} must describe detectors of APS 34-ID (<Detector> or $d0_R ...), but describes none")
    return found


def write_detectors(path: str | Path, detectors: Sequence[ApsDetector]) -> None:
    """Write detectors as a geometry file, in XML that any reader takes."""
    text = ['<?xml version="1.0" encoding="UTF-8" ?>', '<geoN xmlns="http://sector34.xray.aps.anl.gov/34ide/geoN">']
    text += [f'\t<Detectors Ndetectors="{len(detectors)}">']
    for i, one in enumerate(detectors):
        text += [
            f'\t\t<Detector N="{i}">',
            f"\t\t\t<Npixels>{one.pixels[0]} {one.pixels[1]}</Npixels>",
            f'\t\t\t<size unit="mm">{_words(one.size_mm)}</size>',
            f'\t\t\t<R unit="radian">{_words(one.r)}</R>',
            f'\t\t\t<P unit="mm">{_words(one.p_mm)}</P>',
            f"\t\t\t<ID>{one.identity}</ID>",
            "\t\t</Detector>",
        ]
    write_lines(path, [*text, "\t</Detectors>", "</geoN>"])


def _of_xml(text: str, path: str | Path) -> list[ApsDetector]:
    whole = re.sub(r"<!?--.*?-->", "", text, flags=re.DOTALL)
    try:
        root = ElementTree.fromstring(whole.lstrip())
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not the XML of a geometry file of APS 34-ID: {error}") from None
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]
    each: list[ApsDetector] = []
    for element in root.iter("Detector"):
        said = {child.tag: (child.text or "").strip() for child in element}
        each.append(_detector(said, f"detector {element.get('N', len(each))}", path))
    return each


def _of_text(text: str, path: str | Path) -> list[ApsDetector]:
    lines = [line[1:].split("//")[0].split(None, 1) for line in text.splitlines() if line.startswith("$")]
    said = {pair[0]: pair[1].strip() for pair in lines if len(pair) == 2}
    indices = sorted({int(found[1]) for name in said if (found := re.fullmatch(r"d(\d+)_R", name))})
    names = {"R": "R", "P": "P", "ID": "detectorID"}
    return [
        _detector(
            {ours: said.get(f"d{i}_{theirs}", "") for ours, theirs in names.items()}
            | {"Npixels": f"{said.get(f'd{i}_Nx', '')} {said.get(f'd{i}_Ny', '')}"}
            | {"size": f"{said.get(f'd{i}_sizeX', '')} {said.get(f'd{i}_sizeY', '')}"},
            f"detector {i}",
            path,
        )
        for i in indices
    ]


def _detector(said: dict[str, str], name: str, path: str | Path) -> ApsDetector:
    def values(key: str, count: int) -> list[float]:
        return numbers(said.get(key, ""), path, f"{key} of {name}", count)

    pixels, size, r, p = values("Npixels", 2), values("size", 2), values("R", 3), values("P", 3)
    if min(pixels) < 1 or min(size) <= 0:
        raise InputError(f"{path}: Npixels and size of {name} must be positive, got {pixels} and {size}")
    return ApsDetector(
        (int(pixels[0]), int(pixels[1])), (size[0], size[1]), (r[0], r[1], r[2]), (p[0], p[1], p[2]), said.get("ID", "")
    )


def _words(values: Sequence[float]) -> str:
    return " ".join(f"{value!r}" for value in values)
