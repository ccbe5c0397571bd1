"""All boundaries of a volume as a map: a table of the walls, one of where they meet, and which voxel belongs to which wall."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial import ConvexHull

from ..carried import cautions, variable
from .across import Turn, turns_across
from .burgers import Candidate, probabilities
from .junctions import Meeting, meetings, numbered
from .lines import CERTAIN, EVEN, Lines, find_lines
from .planes import Plane, assigned, find_planes, fitted
from .points import Cloud, thinned

FLAGS = {
    1: "no_parallel_lines", 2: "lines_not_evenly_spaced", 4: "no_orientation", 8: "far_from_a_tilt_wall",
    16: "burgers_vector_in_doubt", 32: "error_not_known",
}  # fmt: skip
SURE = 0.95  # probability of a Burgers vector below which it is in doubt
FAR = 3.0  # tolerances between normal and Burgers vector from which on the wall is no tilt wall
INDEPENDENT = 0.1  # of the thinned points, at least, that are independent: spots of lines in the layer are long
SPARSE = 0.15  # of the light of the median tile of a wall below which a tile is not of the wall
AXES = "xyz"
Row = dict[str, tuple[Any, str, str]]  # value, unit and meaning of each column


@dataclass(frozen=True)
class Crystal:
    """What is known of the crystal.

    among: Burgers vectors it may have.  rotation: From crystal to laboratory, None where it is not known.
    lattice: a, angstrom, NaN where it is not known.  tolerance: Of real walls, rad.
    misorientation: Across each wall, rad, in their order; empty where it is not known.
    lattice_map, map_layer: Orientation map of a layer, from which it is taken then, and the number of the layer.
    """

    among: list[Candidate]
    rotation: np.ndarray | None
    lattice: float
    tolerance: float
    misorientation: tuple[float, ...] = ()
    lattice_map: xr.Dataset | None = None
    map_layer: int = 0


@dataclass(frozen=True)
class Wall:
    """A boundary: its plane, its lines, and the places and weights of its points."""

    plane: Plane
    lines: Lines
    place: np.ndarray
    area: float

    @property
    def line(self) -> np.ndarray:
        """Unit vector along the lines in the laboratory, NaN where there are none."""
        return np.array([math.cos(self.lines.angle), math.sin(self.lines.angle)]) @ self.plane.axes[:2]

    @property
    def spacing(self) -> float:
        """Of its lines, um, NaN where they are not evenly spaced."""
        return self.lines.spacing if self.lines.even >= EVEN else math.nan

    def line_covariance(self) -> np.ndarray:
        """Covariance of the line direction: along the wall by its angle, out of it by the normal; shape (3, 3)."""
        across = np.cross(self.plane.normal, self.line)
        out = float(self.line @ self.plane.normal_covariance() @ self.line)
        found = self.lines.angle_std**2 * np.outer(across, across) + out * np.outer(self.plane.normal, self.plane.normal)
        return np.asarray(found)


def walls_of(cloud: Cloud, seed: int) -> tuple[list[Wall], np.ndarray]:
    """The walls of a cloud, the largest first, and the number from 0 on of the wall of each point, -1 for none."""
    edge = max(2 * cloud.blur, float(cloud.size[:2].max()))
    place, light = thinned(cloud, edge)
    even = np.minimum(light, np.median(light))
    box = cloud.size * np.array([cloud.shape[1], cloud.shape[2], cloud.shape[0]])
    share = min(1.0, max(INDEPENDENT, (int(cloud.spot.max()) + 1) / len(place)))
    planes = find_planes(place, even, np.hypot(cloud.blur, cloud.size / math.sqrt(12)), box, share, seed)
    label, alone = assigned(planes, cloud.place)
    weight = np.minimum(cloud.weight, np.median(cloud.weight))
    walls, whole = [], cloud.whole()
    for k, plane in enumerate(planes):
        lines, mine = _seen(plane, cloud, weight, label == k)
        label[(label == k) & ~mine] = -1
        walls.append(_wall(plane, lines, cloud, weight, mine, mine & alone & whole))
    order = sorted(range(len(walls)), key=lambda k: -walls[k].area)
    number = np.append(np.argsort(order), -1).astype(int)  # the last is that of no wall
    return [walls[k] for k in order], number[label]


def _seen(plane: Plane, cloud: Cloud, weight: np.ndarray, mine: np.ndarray) -> tuple[Lines, np.ndarray]:
    """The lines in a plane, and which of its points are of the wall: the plane goes on beyond it, through spots of other things.

    The wall is where tiles of 1.5 spacings of the lines (or of an eighth of the wall) hold SPARSE of the median tile's light.
    """
    lines = Lines()
    for _ in range(2):  # the lines are seen better without the points beyond the wall
        inside = plane.inside(cloud.place[mine])
        lines = find_lines(plane, cloud.place[mine], weight[mine], cloud.blur, float(cloud.size[2]))
        has_lines = lines.probability >= CERTAIN
        side = max(
            1.5 * lines.spacing if has_lines else float(np.sqrt(np.prod(np.ptp(inside, axis=0)))) / 8, float(cloud.size.max())
        )
        _, tile = np.unique(np.floor(inside / side), axis=0, return_inverse=True)
        light = np.bincount(np.ravel(tile), weight[mine])
        middle = np.median(np.repeat(light, np.bincount(np.ravel(tile))))  # the tile of the median point
        kept = mine.copy()
        kept[mine] = light[np.ravel(tile)] > SPARSE * middle
        mine = kept
    return lines, mine


def _wall(plane: Plane, lines: Lines, cloud: Cloud, weight: np.ndarray, mine: np.ndarray, alone: np.ndarray) -> Wall:
    """A plane measured on its points, those that no other plane could have, with the lines as what errs together."""
    groups = lines.groups(plane.inside(cloud.place[alone]))
    better = fitted(cloud.place[alone], weight[alone], groups, plane.scatter)
    area = float(ConvexHull(plane.inside(cloud.place[mine])).volume)
    return Wall(better, lines, cloud.place[mine], area)


def dataset_of(cloud: Cloud, heights: np.ndarray, crystal: Crystal, seed: int, dim: str = "z") -> xr.Dataset:
    """The boundaries of a cloud as a map.

    heights: z of each layer, um.  dim: Name of the dimension of layers.
    """
    walls, label = walls_of(cloud, seed)
    volume = np.zeros(cloud.shape, np.int8)
    volume[tuple(cloud.voxel.T)] = label + 1
    columns, flag, chances = _columns(walls, crystal, _turns(walls, crystal, volume, heights, cloud.size))
    reach = [1.5 * w.lines.spacing if math.isfinite(w.lines.spacing) else 0.1 * math.sqrt(w.area) for w in walls]
    met = meetings([w.plane for w in walls], [w.place for w in walls], reach)
    light = np.full(cloud.shape, np.nan, np.float32)
    light[tuple(cloud.voxel.T)] = cloud.weight
    over = (dim, "row", "column")
    found = {n: variable(v, unit, text, ("boundary",)) for n, (v, unit, text) in columns.items()}
    found["candidate_probability"] = variable(chances, "1", "probability of each Burgers vector", ("boundary", "candidate"))
    found |= _junction_table(met, max(reach, default=0.0))
    found["label"] = variable(volume, "1", "number of the boundary of each bright voxel (0: none, or not bright)", over)
    found["light"] = variable(light, "count", "light of bright voxels above the background", over)
    found["flag"] = _flag(flag)
    coords = {
        "boundary": ("boundary", np.arange(1, len(walls) + 1), {"long_name": "number of the boundary, largest first"}),
        "junction": ("junction", np.arange(1, len(met) + 1), {"long_name": "number of the pair of boundaries that meet"}),
        "candidate": ("candidate", [one.name for one in crystal.among], {"long_name": "Burgers vectors, in lattice parameters"}),
        dim: (dim, heights, {"units": "um", "long_name": "height of the layer"}),
    }
    result = xr.Dataset(found, coords=coords)
    for name in ("label", "light"):  # nearly all of it is empty
        result[name].encoding = {"zlib": True, "complevel": 2}
    result.attrs = {
        "boundaries": len(walls), "spots": int(cloud.spot.max()) + 1, "in_no_boundary": float((label < 0).mean()),
        "blur_um": cloud.blur, "layer_spacing_um": float(cloud.size[2]), "pixel_row_um": float(cloud.size[0]),
        "pixel_column_um": float(cloud.size[1]), **cautions(*_doubts(walls, crystal)),
    }  # fmt: skip
    return result


def _doubts(walls: list[Wall], crystal: Crystal) -> list[str]:
    """What is to be said of the whole result."""
    said = [] if walls else ["no plane stands out of the bright points"]
    if crystal.rotation is None:
        said.append("the orientation of the crystal is not known: vectors are in the laboratory only, and no Burgers vectors are "
                    "given; give orientation or euler_deg")  # fmt: skip
    elif not (math.isfinite(crystal.lattice) or crystal.misorientation or crystal.lattice_map is not None):
        said.append("the lattice parameter is not known: no misorientations are given; give lattice")
    if (given := len(crystal.misorientation)) and crystal.lattice_map is None and given != len(walls):
        rest = "those left over are not used" if given > len(walls) else "the last ones have none that is given"
        said.append(f"misorientation has {given} values for {len(walls)} boundaries, taken in order, largest first; {rest}")
    return said


def _columns(
    walls: list[Wall], crystal: Crystal, turns: list[Turn]
) -> tuple[dict[str, tuple[np.ndarray, str, str]], np.ndarray, np.ndarray]:
    """The columns of the table of walls, what one reads first in front; the flags; probabilities (boundary, candidate)."""
    rows: list[Row] = []
    flags, chances = np.zeros(len(walls), np.int32), np.zeros((len(walls), len(crystal.among)))
    for k, wall in enumerate(walls):
        has_lines, even = wall.lines.probability >= CERTAIN, wall.lines.even >= EVEN
        row, last, bits, chances[k] = _frank(wall, crystal, turns[k], even)
        flags[k] = bits | 1 * (not has_lines) | 2 * (has_lines and not even)
        flags[k] |= 32 * bool(np.isnan(wall.plane.covariance).any() or (has_lines and math.isnan(wall.lines.angle_std)))
        rows.append(_measured(wall, even) | row | _vectors(wall, crystal.rotation) | last)
    if not rows:
        return {"area": (np.zeros(0), "um^2", "area of the boundary in the volume")}, flags, chances
    names = {n: row[n][1:] for row in rows for n in row}
    table = {n: (np.array([row[n][0] for row in rows]), *about) for n, about in names.items()}
    return table, flags, chances


def _turns(walls: list[Wall], crystal: Crystal, volume: np.ndarray, heights: np.ndarray, size: np.ndarray) -> list[Turn]:
    """The misorientation across each wall: from the orientation map, else as given, else not known."""
    if crystal.lattice_map is not None:
        planes, lines, spacings = ([getattr(w, n) for w in walls] for n in ("plane", "line", "spacing"))
        layer = crystal.map_layer
        return turns_across(planes, lines, spacings, volume[layer], float(heights[layer]), size, crystal.lattice_map)
    return [Turn(crystal.misorientation[k] if k < len(crystal.misorientation) else math.nan) for k in range(len(walls))]


def _measured(wall: Wall, even: bool) -> Row:
    """Size, spacing and confidence of a wall."""
    lines = wall.lines
    spacing, std = (lines.spacing, lines.spacing_std) if even else (math.nan, math.nan)
    return {
        "area": (wall.area, "um^2", "area of the boundary in the volume"),
        "spacing": (spacing, "um", "spacing of the dislocations"),
        "spacing_std": (std, "um", "standard deviation of spacing"),
        "lines": (lines.lines, "1", "dislocations seen"),
    }


def _frank(wall: Wall, crystal: Crystal, measured: Turn, even: bool) -> tuple[Row, Row, int, np.ndarray]:
    """Burgers vector and misorientation of a wall by Frank's rule: columns for the front and the end, flags, probabilities."""
    nan, length, length_std = math.nan, math.nan, math.nan
    name, best, probability, angle, std = "", np.full(3, nan), nan, nan, nan
    theta, chances, bits = measured.angle, np.full(len(crystal.among), nan), 0
    turn, turn_std = theta, measured.std
    angstrom = 1e4 * wall.lines.spacing if even else nan
    if even and math.isfinite(theta):
        length = theta * angstrom
        length_std = math.hypot(theta * 1e4 * wall.lines.spacing_std, float(np.nan_to_num(measured.std)) * angstrom)
    if crystal.rotation is None:
        bits |= 4
    else:
        normal, line = wall.plane.normal @ crystal.rotation, wall.line @ crystal.rotation
        chances, angles = probabilities(
            normal, _largest(wall.plane.normal_covariance()), line, np.nan_to_num(wall.lines.angle_std), crystal.among,
            tolerance=crystal.tolerance, length=length / crystal.lattice, length_std=length_std / crystal.lattice,
        )  # fmt: skip
        number = int(chances.argmax())
        one, probability, angle = crystal.among[number], float(chances[number]), float(angles[number])
        name, best = one.name, one.burgers
        std = _angle_std(wall.plane, crystal.rotation @ best)
        bits |= 8 * (angle > FAR * crystal.tolerance) | 16 * (probability < SURE)
        if not math.isfinite(theta) and even:
            turn = one.length * crystal.lattice / angstrom
            turn_std = turn * wall.lines.spacing_std / wall.lines.spacing
    row: Row = {
        "misorientation": (math.degrees(turn), "deg", "misorientation across the boundary" + _from(theta, crystal)),
        "misorientation_std": (math.degrees(turn_std), "deg", "standard deviation of misorientation"),
        "burgers": (name, "1", "most probable Burgers vector, in lattice parameters"),
        "burgers_probability": (probability, "1", "probability of this Burgers vector among those of the structure"),
        "burgers_angle": (math.degrees(angle), "deg", "angle between Burgers vector and normal; 0 in a tilt wall"),
        "burgers_angle_std": (math.degrees(std), "deg", "standard deviation of burgers_angle"),
    }  # fmt: skip
    last: Row = {
        "axis_angle": (
            math.degrees(measured.off_lines),
            "deg",
            "angle between the axis of misorientation and the lines, as seen",
        ),
        "burgers_length": (length / 10, "nm", "misorientation times spacing, the length of the Burgers vector by Frank's rule"),
        "burgers_length_std": (length_std / 10, "nm", "standard deviation of burgers_length"),
    }
    for a, v in zip(AXES, best, strict=True):
        last[f"burgers_{a}"] = float(v), "1", f"Burgers vector along crystal {a}, in lattice parameters"
    return row, last, bits, chances


def _from(theta: float, crystal: Crystal) -> str:
    if not math.isfinite(theta):
        return ", |b| / spacing of the most probable Burgers vector"
    return ", from the orientation map" if crystal.lattice_map is not None else ", as given"


def _vectors(wall: Wall, rotation: np.ndarray | None) -> Row:
    """Normal, line and a point of the plane by components, with their errors, in the laboratory and in the crystal."""
    worst = _largest(wall.plane.normal_covariance())
    row: Row = {
        "normal_error": (math.degrees(worst), "deg", "standard deviation of the normal where it is largest"),
        "line_error": (math.degrees(wall.lines.angle_std), "deg", "standard deviation of the line direction in the wall"),
        "lines_probability": (wall.lines.probability, "1", "probability that the boundary is made of parallel lines"),
        "even_probability": (wall.lines.even, "1", "probability that the lines are evenly spaced"),
        "scatter": (wall.plane.scatter, "um", "standard deviation of the bright points about the plane"),
    }  # fmt: skip
    frames = [("", np.eye(3), "laboratory")] + ([] if rotation is None else [("crystal_", rotation, "crystal")])
    for name, vector, covariance, what in (
        ("normal", wall.plane.normal, wall.plane.normal_covariance(), "normal of the boundary"),
        ("line", wall.line, wall.line_covariance(), "line direction"),
    ):
        for prefix, turn, frame in frames:
            turned, spread = vector @ turn, np.sqrt(np.diag(turn.T @ covariance @ turn))
            for a, v, s in zip(AXES, turned, spread, strict=True):
                row[f"{name}_{prefix}{a}"] = float(v), "1", f"{what} along {frame} {a}"
                row[f"{name}_{prefix}{a}_std"] = float(s), "1", f"standard deviation of {name}_{prefix}{a}"
    for a, v in zip(AXES, wall.plane.centre, strict=True):
        row[f"centre_{a}"] = float(v), "um", f"middle of its points along laboratory {a}"
    return row


def _largest(covariance: np.ndarray) -> float:
    """Largest standard deviation of a vector in any direction; NaN where the covariance is not known."""
    return math.sqrt(max(0.0, float(np.linalg.eigvalsh(covariance)[-1]))) if np.isfinite(covariance).all() else math.nan


def _angle_std(plane: Plane, vector: np.ndarray) -> float:
    """Standard deviation of the angle between the normal and a direction that is known."""
    along = vector - (vector @ plane.normal) * plane.normal
    length = float(np.linalg.norm(along))
    covariance = plane.normal_covariance()
    return _largest(covariance) if length < 1e-9 else math.sqrt(float(along @ covariance @ along)) / length


def _junction_table(met: list[Meeting], reach: float) -> dict[str, xr.DataArray]:
    """The pairs of walls that meet."""
    number = numbered(met, reach)
    members = {n: len({w for m, k in zip(met, number, strict=True) if k == n for w in (m.a, m.b)}) for n in number}
    columns: dict[str, tuple[list[Any], str, str]] = {
        "junction_line": (number, "1", "number of the line of the junction; that of a triple junction stands thrice"),
        "boundaries_meeting": ([members[n] for n in number], "1", "boundaries that meet in this line"),
        "boundary_a": ([m.a + 1 for m in met], "1", "one boundary"),
        "boundary_b": ([m.b + 1 for m in met], "1", "the other boundary"),
        "junction_angle": ([math.degrees(m.angle) for m in met], "deg", "angle between the two boundaries where they meet"),
        "junction_angle_std": ([math.degrees(m.angle_std) for m in met], "deg", "standard deviation of junction_angle"),
        "goes_through": ([int(m.through) for m in met], "1", "whether one of them goes on beyond the line"),
        "junction_length": ([m.length for m in met], "um", "length over which both reach the line"),
    }  # fmt: skip
    for i, a in enumerate(AXES):
        columns[f"junction_{a}"] = [float(m.direction[i]) for m in met], "1", f"direction of the line along laboratory {a}"
        columns[f"junction_place_{a}"] = [float(m.place[i]) for m in met], "um", f"a point of the line, laboratory {a}"
    return {n: variable(np.array(v), unit, text, ("junction",)) for n, (v, unit, text) in columns.items()}


def _flag(values: np.ndarray) -> xr.DataArray:
    attributes = {
        "long_name": "why a boundary is doubtful (0 = good)",
        "flag_masks": np.array(sorted(FLAGS), np.int32),
        "flag_meanings": " ".join(FLAGS[b] for b in sorted(FLAGS)),
    }
    return xr.DataArray(values.astype(np.int32), dims=("boundary",), attrs=attributes)
