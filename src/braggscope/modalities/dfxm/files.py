"""Dislocation networks from files: ParaDiS data files and VTK polylines.

A network is segments with Burgers vectors, in nm, in the frame of the file. The Burgers vector belongs to the line from a
segment's start to its end, with the sign of `physics.dislocations`; ParaDiS has it (its stresses are those of Cai et al. 2006),
of a VTK file it is assumed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braggscope.core.errors import InputError

LINES = (3, 4)  # VTK's numbers of a line and of a polyline
CONSERVED = 1e-3  # of the largest Burgers vector: less is rounding in the file


@dataclass(frozen=True)
class Network:
    """Straight dislocation segments.

    segments: Start and end of each, nm, shape (segment, 2, 3).
    burgers: Of each, with the line from start to end, nm, shape (segment, 3).
    """

    segments: np.ndarray
    burgers: np.ndarray


def open_nodes(network: Network) -> np.ndarray:
    """Places where the Burgers vectors do not add up to 0, nm, shape (node, 3): ends of lines, where a field is not complete."""
    segments, burgers = network.segments, network.burgers
    ends = np.concatenate([segments[:, 0], segments[:, 1]])
    places, node = np.unique(ends.round(6), axis=0, return_inverse=True)
    total = np.zeros((len(places), 3))
    np.add.at(total, node.ravel(), np.concatenate([burgers, -burgers]))
    scale = np.abs(burgers).max() if len(burgers) else 0.0
    return places[np.abs(total).max(axis=1) > CONSERVED * scale]


def read_paradis(path: str | Path, *, burgers_nm: float, periodic: bool = True) -> Network:
    """The network in a ParaDiS data file of one file segment (Arsenlis et al. 2007, Modell. Simul. Mater. Sci. Eng. 15, 553).

    The block nodalData lists nodes, "domain,index x y z arms constraint", and for each arm "domain,index bx by bz nx ny nz", with
    lengths and Burgers vectors in units of the length of b. A segment is listed at both of its nodes and read once.

    burgers_nm: That length, burgMag of the control file.
    periodic: Lines that leave the box of minCoordinates and maxCoordinates are followed into its next image, so that loops are
        whole; each arm leads to the nearest image of its other node. A line through the whole box stays open (`open_nodes`).
    Raises InputError, naming the file, for what cannot be read, and for an arm without its opposite.
    """
    if not 0 < burgers_nm < math.inf:
        raise InputError(f"burgers_nm must be positive, got {burgers_nm:g}")
    text = re.sub(r"#.*", "", _text(path))
    head, found, block = text.partition("nodalData")
    if not found:
        raise InputError(f"{path} is not a ParaDiS data file: it has no nodalData")
    places, arms = _nodes(block.lstrip(" =\n"), path)
    if periodic:
        box = _box(head, path)
        places = _followed(places, arms, box)
    segments, burgers = [], []
    for (start, end), vector in arms.items():
        opposite = arms.get((end, start))
        if opposite is None or not np.allclose(opposite, -vector, atol=CONSERVED):
            raise InputError(f"{path}: the arm from node {start} to node {end} has no opposite arm with -b")
        if start < end:
            step = places[end] - places[start]
            step = _nearest(step, box) if periodic else step
            segments.append([places[start], places[start] + step])
            burgers.append(vector)
    return Network(burgers_nm * np.array(segments).reshape(-1, 2, 3), burgers_nm * np.array(burgers).reshape(-1, 3))


def read_vtk(
    path: str | Path, *, unit_nm: float = 1.0, burgers_unit_nm: float | None = None, array: str | None = None
) -> Network:
    """The lines in a VTK file (.vtk, .vtp, .vtu) whose cells carry a Burgers vector; needs pyvista (the extra `volumes`).

    unit_nm: Unit of the coordinates.  burgers_unit_nm: Of the Burgers vectors, if it is another one.
    array: Name of the cells' Burgers vectors; left out, the one with "burgers" in its name, or the only one of vectors.
    Raises InputError, naming the file, where it cannot be read, or has no lines or no such array.
    """
    mesh = _mesh(path)
    kinds, values = np.asarray(mesh.celltypes), _cell_vectors(mesh, array, path)
    segments, burgers = [], []
    for k in np.flatnonzero(np.isin(kinds, LINES)).tolist():
        corners = mesh.points[mesh.get_cell(k).point_ids]
        segments += list(np.stack([corners[:-1], corners[1:]], 1))
        burgers += [values[k]] * (len(corners) - 1)
    if not segments:
        raise InputError(f"{path} has no lines")
    scale = unit_nm if burgers_unit_nm is None else burgers_unit_nm
    return Network(unit_nm * np.array(segments, float), scale * np.array(burgers, float))


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"network file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"network file {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file; ParaDiS data files are") from None


def _nodes(block: str, path: str | Path) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], np.ndarray]]:
    """Place of each node and Burgers vector of each arm, by tags "domain,index"."""
    words = iter(re.sub(r"\s*,\s*", ",", block).split())
    places: dict[str, np.ndarray] = {}
    arms: dict[tuple[str, str], np.ndarray] = {}
    try:
        for tag in words:
            places[tag] = _vector(words)
            count = int(next(words))
            next(words)  # the constraint
            for _ in range(count):
                other = next(words)
                arms[tag, other] = arms.get((tag, other), np.zeros(3)) + _vector(words)
                _vector(words)  # the glide plane
    except (StopIteration, ValueError) as error:
        last = next(reversed(places), "none")
        raise InputError(f"{path}: nodalData is cut or broken after node {last}") from error
    for tag, other in arms:
        if other not in places:
            raise InputError(f"{path}: node {tag} has an arm to node {other}, which is not in the file")
    return places, arms


def _followed(places: dict[str, np.ndarray], arms: dict[tuple[str, str], np.ndarray], box: np.ndarray) -> dict[str, np.ndarray]:
    """The places of the nodes, each in the image of the box that is nearest to the node from which it was reached."""
    beside: dict[str, list[str]] = {tag: [] for tag in places}
    for tag, other in arms:
        beside[tag].append(other)
    found: dict[str, np.ndarray] = {}
    for first in places:
        found.setdefault(first, places[first])
        reached = [first]
        while reached:
            tag = reached.pop()
            for other in beside[tag]:
                if other not in found:
                    found[other] = found[tag] + _nearest(places[other] - found[tag], box)
                    reached.append(other)
    return found


def _nearest(step: np.ndarray, box: np.ndarray) -> np.ndarray:
    return step - box * np.round(step / box)


def _vector(words: Iterator[str]) -> np.ndarray:
    return np.array([float(next(words)) for _ in range(3)])


def _box(head: str, path: str | Path) -> np.ndarray:
    """Edges of the simulated box."""
    corners = []
    for name in ("minCoordinates", "maxCoordinates"):
        found = re.search(name + r"\s*=\s*\[([^\]]*)\]", head)
        try:
            corner = np.array([float(v) for v in found.group(1).split()]) if found else np.zeros(0)
        except ValueError:
            corner = np.zeros(0)
        if corner.shape != (3,):
            raise InputError(f"{path} lacks {name} = [x y z]; if the box is not periodic, say periodic=False")
        corners.append(corner)
    return corners[1] - corners[0]


def _mesh(path: str | Path) -> Any:
    """The file as an unstructured grid of pyvista."""
    try:
        import pyvista
    except ImportError:
        raise InputError(f"reading {path} needs pyvista: pip install 'braggscope[volumes]'") from None
    if not Path(path).exists():
        raise InputError(f"network file {path} does not exist")
    try:
        return pyvista.read(path).cast_to_unstructured_grid()
    except Exception as error:  # whatever the library meets in a broken file
        raise InputError(f"{path} cannot be read as a VTK file ({' '.join(str(error).split())})") from None


def _cell_vectors(mesh: Any, array: str | None, path: str | Path) -> np.ndarray:
    """The Burgers vector of each cell."""
    vectors = [name for name in mesh.cell_data if np.shape(mesh.cell_data[name])[1:] == (3,)]
    named = [name for name in vectors if "burgers" in name.lower()]
    chosen = [array] if array is not None else named[:1] or vectors
    if len(chosen) != 1 or chosen[0] not in vectors:
        raise InputError(
            f"{path}: name the array of the cells that holds their Burgers vectors; of three components are: "
            f"{', '.join(vectors) or 'none'}"
        )
    return np.asarray(mesh.cell_data[chosen[0]], float)
