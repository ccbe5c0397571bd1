"""Pictures of dislocation boundaries: where they lie in the volume, and the dislocations in each."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ..boundaries.drawn import Drawn, drawn, junction_lines, other_points
from ..boundaries.lines import find_lines

SHOWN = 5  # boundaries, the largest, of which the dislocations are shown
POINTS = 20000  # of each boundary in the projections
SIDES = (("y", "x", "from above, as in the images"), ("y", "z", "against the beam"), ("x", "z", "along y"))


def colour(number: int) -> str:
    """Of a boundary."""
    return str(to_hex(colormaps["tab10"]((number - 1) % 10)))


def boundaries(dataset: xr.Dataset, scan: Any = None) -> Figure | None:
    """Bright voxels of a weak-beam volume in the colours of their boundaries, and the dislocations in each boundary.

    Above: three projections; grey belongs to no boundary, black are the junctions. Below, for each of the five largest: the light
    in its plane with the lines that were found, summed along them, and the periodogram with its maximum.
    None for a map without boundaries.
    """
    if "boundary" not in dataset.dims or "label" not in dataset:
        return None
    walls = drawn(dataset)
    below = min(len(walls), SHOWN)
    figure = Figure(figsize=(12, 4.6 + 3.1 * below), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(4.6, 3.1 * below)) if below else [figure]
    for ax, (across, up, text) in zip(parts[0].subplots(1, 3), SIDES, strict=True):
        _projection(ax, dataset, walls, "xyz".index(across), "xyz".index(up))
        ax.set_xlabel(f"{across} (µm)")
        ax.set_ylabel(f"{up} (µm)")
        ax.set_title(text, fontsize=9, loc="left")
    if below:
        _legend(parts[0], dataset, walls)
        for axes, wall in zip(parts[1].subplots(below, 3, squeeze=False, width_ratios=(1.5, 1.5, 1)), walls, strict=False):
            _wall(axes, dataset, wall)
    return figure


def _projection(ax: Axes, dataset: xr.Dataset, walls: list[Drawn], across: int, up: int) -> None:
    """All points along one axis of the laboratory."""
    rest = other_points(dataset)
    ax.plot(rest[:, across], rest[:, up], ".", ms=1, color="0.6", zorder=0)
    for wall in walls:
        some = wall.place[:: max(1, len(wall.place) // POINTS)]
        ax.plot(some[:, across], some[:, up], ".", ms=1, color=colour(wall.number), alpha=0.4)
    for ends in junction_lines(dataset):
        ax.plot(ends[:, across], ends[:, up], "k-", lw=1.5)
    ax.set_aspect("equal")
    ax.tick_params(labelsize=7)
    if "xyz"[up] == "x":
        ax.invert_yaxis()  # rows run downwards


def _legend(figure: Any, dataset: xr.Dataset, walls: list[Drawn]) -> None:
    """What was found of each boundary, in its colour, and the angles between them."""
    lines = []
    for wall in walls[:10]:
        row = dataset.sel(boundary=wall.number)
        burgers = str(row["burgers"].values)
        words = f"boundary {wall.number}: " + (
            f"{burgers} (probability {float(row['burgers_probability']):.2f})" if burgers else ""
        )
        lines.append((words.rstrip(": "), colour(wall.number)))
    for j in range(min(dataset.sizes["junction"], 6)):
        a, b, angle, std = (dataset[n].values[j] for n in ("boundary_a", "boundary_b", "junction_angle", "junction_angle_std"))
        lines.append((f"angle {int(a)}-{int(b)}: {angle:.2f} ± {std:.2f}°", "black"))
    marks = [
        figure.axes[0].plot([], [], marker="" if c == "black" else "s", ms=5, color=c, label=text, ls="none")[0]
        for text, c in lines
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def _wall(axes: Any, dataset: xr.Dataset, wall: Drawn) -> None:
    """The plane of a boundary from the front, the profile across its lines, and its periodogram."""
    front, profile, spectrum = axes
    row, inside = dataset.sel(boundary=wall.number), wall.inside()
    edges = [np.arange(x.min(), x.max() + step, step) for x, step in zip(inside.T, _cell(dataset, wall), strict=True)]
    image, *_ = np.histogram2d(inside[:, 0], inside[:, 1], edges, weights=wall.light)
    extent = (edges[0][0], edges[0][-1], edges[1][0], edges[1][-1])
    front.imshow(image.T, origin="lower", extent=extent, cmap="gray_r", vmax=np.percentile(image[image > 0], 97), aspect="equal")
    for ends in wall.lines:
        front.plot(*wall.plane.inside(ends).T, "-", lw=0.7, color=colour(wall.number), alpha=0.9)
    front.set_xlabel("horizontal in the plane (µm)", fontsize=8)
    front.set_ylabel(f"boundary {wall.number}\nrising (µm)", fontsize=8, color=colour(wall.number))
    weight = np.minimum(wall.light, np.median(wall.light))
    found = find_lines(wall.plane, wall.place, weight, float(dataset.attrs["blur_um"]), float(dataset.attrs["layer_spacing_um"]))
    _profile(profile, row, wall, inside, weight)
    if found.power is not None and found.frequency is not None:
        _spectrum(spectrum, found.power, found.frequency, found.peak, colour(wall.number))
    else:
        spectrum.axis("off")
    for ax in axes:
        ax.tick_params(labelsize=7)


def _cell(dataset: xr.Dataset, wall: Drawn) -> tuple[float, float]:
    """Size of a cell of the picture of a plane: not below what pixels and layers tell."""
    rise = abs(float(wall.plane.axes[1, 2]))
    fine = max(float(dataset.attrs["blur_um"]), float(dataset.attrs["pixel_row_um"]) / 2)
    return fine, max(fine, float(dataset.attrs["layer_spacing_um"]) / rise if rise > 0.2 else fine)


def _profile(ax: Axes, row: xr.Dataset, wall: Drawn, inside: np.ndarray, weight: np.ndarray) -> None:
    """Light summed along the lines, with the places of evenly spaced ones."""
    if not np.isfinite(wall.direction).all():
        ax.text(0.5, 0.5, "no parallel lines", ha="center", transform=ax.transAxes)
        return
    t = wall.plane.axes[:2] @ wall.direction
    normal = np.array([-t[1], t[0]])
    ax.hist(inside @ normal, bins=240, weights=weight, color="0.4", histtype="stepfilled")
    for ends in wall.lines:
        ax.axvline(float(wall.plane.inside(ends)[0] @ normal), lw=0.6, color=colour(wall.number))
    spacing, std = float(row["spacing"]), float(row["spacing_std"])
    text = f"spacing {spacing:.3f} ± {std:.3f} µm" if np.isfinite(spacing) else "not evenly spaced"
    ax.set_title(f"{text}, {int(row['lines'])} lines", fontsize=8, loc="left")
    ax.set_xlabel("across the lines (µm)", fontsize=8)
    ax.set_ylabel("light", fontsize=8)
    ax.set_yticks([])


def _spectrum(ax: Axes, power: np.ndarray, frequency: np.ndarray, peak: tuple[float, float], mark: str) -> None:
    """The periodogram on a logarithmic scale; what was not searched is white."""
    both = np.maximum(power, np.roll(power[::-1, ::-1], 1, (0, 1)))  # the half that was not searched is the same
    shown = np.where(both > 0, np.log10(np.maximum(both, 1e-2)), np.nan)
    step = float(frequency[1] - frequency[0]) / 2
    extent = (frequency[0] - step, frequency[-1] + step) * 2
    drawn_image = ax.imshow(shown.T, origin="lower", extent=extent, cmap="magma", vmin=-1, interpolation="nearest")
    ax.figure.colorbar(drawn_image, ax=ax, fraction=0.046, label="log power / median")
    ax.plot(*peak, "o", ms=9, mfc="none", mec=mark, mew=1.5)
    known = np.abs(frequency)[np.isfinite(shown).any(axis=1) | np.isfinite(shown).any(axis=0)]
    limit = 1.05 * float(known.max(initial=step))
    ax.set_xlim(-limit, limit)
    ax.set_ylim(-limit, limit)
    ax.set_xlabel("frequency, horizontal (1/µm)", fontsize=8)
    ax.set_ylabel("rising (1/µm)", fontsize=8)
