"""Boundaries in space: a picture or a VTK file by PyVista, and a page that one turns in a browser by Plotly.

The page holds its program and its numbers and loads nothing, so that it opens without a network and can be sent as it is.
PyVista's own page needs trame and its widgets to be made; a page of Plotly needs one package, and its legend hides boundaries one
by one. Both packages are the extra `volumes`.
"""

from __future__ import annotations

import html
import importlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from braggscope.core.beside import written_beside
from braggscope.core.errors import InputError

from .drawn import Drawn, drawn, junction_lines

POINTS = 15000  # of each boundary in a picture or page
WINDOW = (1600, 1200)


def library(name: str, purpose: str) -> Any:
    """An optional package. Raises InputError, saying how to install it, where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"{purpose} needs {name.split('.')[0]}: install it with `pip install 'braggscope[volumes]'`") from None


def colours() -> list[tuple[float, float, float]]:
    """Red, green and blue from 0 to 1 of the boundaries, in turn: those of the other pictures."""
    from matplotlib import colormaps

    return [(r, g, b) for r, g, b in colormaps["tab10"].colors]  # type: ignore[attr-defined]


def write_picture(dataset: xr.Dataset, path: Path) -> int:
    """A picture of all boundaries from a corner of the volume; the number of points in it."""
    from matplotlib.image import imsave

    pv = library("pyvista", "a picture in space")
    walls = drawn(dataset, POINTS)
    with pv.vtk_verbosity("off"):  # without a display VTK says so, and draws all the same
        plotter = pv.Plotter(off_screen=True, window_size=WINDOW)
        _draw(pv, plotter, dataset, walls)
        image = plotter.screenshot(None, return_img=True)
        plotter.close()
    png = io.BytesIO()
    imsave(png, image, format="png")
    with written_beside(path) as target:
        target.write(png.getvalue())
    return sum(len(w.place) for w in walls)


def _draw(pv: Any, plotter: Any, dataset: xr.Dataset, walls: list[Drawn]) -> None:
    """Points, outlines, dislocations, names and junctions, in a box with axes in um."""
    of, box = colours(), _box(dataset)
    for wall in walls:
        colour = of[(wall.number - 1) % len(of)]
        plotter.add_mesh(pv.PolyData(wall.place), color=colour, point_size=3, opacity=0.4)
        plotter.add_mesh(_polygon(pv, wall), color=colour, opacity=0.25)
        if len(wall.lines):
            plotter.add_mesh(_segments(pv, wall.lines), color=colour, line_width=3)
        away = wall.outline - box.mean(axis=0)
        corner = wall.outline[np.argmax(away[:, 2] + np.linalg.norm(away, axis=1))]  # high, and far from the others
        text = f"{wall.number}: {caption(dataset, wall.number)}"
        plotter.add_point_labels(corner[None] + [0, 0, 2], [text], font_size=26, text_color=colour, font_family="times",
                                 shape=None, show_points=False, always_visible=True)  # fmt: skip
    if len(ends := junction_lines(dataset)):
        plotter.add_mesh(_segments(pv, ends), color="black", line_width=7)
    bounds, labels = _ticks(box)
    plotter.show_bounds(bounds=bounds, xtitle="x (um)", ytitle="y (um)", ztitle="z (um)", color="black", font_size=12,
                        grid="back", location="outer", fmt="%g", **labels)  # fmt: skip
    plotter.camera_position = [(1.5, -1.5, 1.0), (0, 0, 0), (0, 0, 1)]
    plotter.reset_camera(bounds=bounds)
    plotter.camera.zoom(1.05)


def _ticks(box: np.ndarray) -> tuple[tuple[float, ...], dict[str, int]]:
    """Bounds at round numbers around a box, low and high of each axis in turn, and how many labels give round ones between."""
    step = float(np.ptp(box, axis=0).max()) / 6
    step = 10 ** np.floor(np.log10(step)) * next(n for n in (1, 2, 5, 10) if n >= step / 10 ** np.floor(np.log10(step)))
    low, high = np.floor(box[0] / step + 0.01), np.ceil(box[1] / step - 0.01)
    numbers = {f"n_{a}labels": int(n) for a, n in zip("xyz", high - low + 1, strict=True)}
    return tuple(np.ravel(step * np.array([low, high]).T)), numbers


def write_vtp(dataset: xr.Dataset, path: Path) -> int:
    """Points, outlines, dislocations and junctions as VTK polygons with `boundary` (0: a junction) and `kind` for each cell."""
    pv = library("pyvista", "a .vtp file")
    places, verts, lines, faces = [], list[int](), list[int](), list[int]()
    of: dict[str, list[int]] = {"verts": [], "lines": [], "faces": []}
    count = 0

    def add(points: np.ndarray) -> np.ndarray:
        nonlocal count
        places.append(points)
        count += len(points)
        return np.arange(count - len(points), count)

    walls = drawn(dataset)
    for wall in walls:
        verts += np.column_stack([np.ones(len(wall.place), int), add(wall.place)]).ravel().tolist()
        of["verts"] += [wall.number] * len(wall.place)
        faces += [len(wall.outline), *add(wall.outline)]
        of["faces"].append(wall.number)
    for number, ends in [(w.number, e) for w in walls for e in w.lines] + [(0, e) for e in junction_lines(dataset)]:
        lines += [2, *add(ends)]
        of["lines"].append(number)
    if not count:
        raise InputError("the map has no boundary to write")
    mesh = pv.PolyData(np.vstack(places).astype(np.float32), verts=np.array(verts), lines=np.array(lines) if lines else None,
                       faces=np.array(faces))  # fmt: skip
    mesh.cell_data["boundary"] = np.array(of["verts"] + of["lines"] + of["faces"], np.int32)  # the order of cells in VTK
    mesh.cell_data["kind"] = np.repeat(np.arange(3, dtype=np.int32), [len(of[n]) for n in ("verts", "lines", "faces")])
    with tempfile.TemporaryDirectory() as folder:
        mesh.save(f"{folder}/boundaries.vtp")
        data = Path(folder, "boundaries.vtp").read_bytes()
    with written_beside(path) as target:
        target.write(data)
    return sum(len(w.place) for w in walls)


def write_page(dataset: xr.Dataset, path: Path) -> int:
    """A page of its own on which the boundaries are turned, hidden and read off; the number of points in it."""
    go = library("plotly.graph_objects", "a page")
    walls, of = drawn(dataset, POINTS), colours()
    figure = go.Figure()
    for wall in walls:
        colour = "#" + "".join(f"{round(255 * c):02x}" for c in of[(wall.number - 1) % len(of)])
        common = {"legendgroup": str(wall.number), "hoverinfo": "text", "hovertext": _hover(dataset, wall)}
        x, y, z = np.round(wall.place, 3).astype(np.float32).T
        figure.add_scatter3d(x=x, y=y, z=z, mode="markers", marker={"size": 1.5, "color": colour, "opacity": 0.5},
                             name=f"{wall.number}: {caption(dataset, wall.number)}", **common)  # fmt: skip
        x, y, z = wall.outline.T
        fan = np.arange(1, len(x) - 1)
        figure.add_mesh3d(x=x, y=y, z=z, i=np.zeros_like(fan), j=fan, k=fan + 1, color=colour, opacity=0.25, **common)
        if len(wall.lines):
            figure.add_scatter3d(
                **_broken(wall.lines), mode="lines", line={"color": colour, "width": 4}, showlegend=False, **common
            )
    if len(ends := junction_lines(dataset)):
        figure.add_scatter3d(**_broken(ends), mode="lines", line={"color": "black", "width": 9}, name="junctions",
                             hoverinfo="text", hovertext=_angles(dataset))  # fmt: skip
    ranges = {f"{a}axis": {"title": {"text": f"{a} (µm)"}, "range": list(r)} for a, r in zip("xyz", _box(dataset).T, strict=True)}
    figure.update_layout(scene={"aspectmode": "data", **ranges}, title={"text": str(dataset.attrs.get("title", "boundaries"))},
                         legend={"itemsizing": "constant"}, margin={"l": 0, "r": 0, "b": 0, "t": 40})  # fmt: skip
    text = figure.to_html(include_plotlyjs=True, include_mathjax=False, full_html=True, config={"displaylogo": False})
    with written_beside(path) as target:
        target.write(text.encode())
    return sum(len(w.place) for w in walls)


def caption(dataset: xr.Dataset, number: int) -> str:
    """A boundary in a few words."""
    row = dataset.sel(boundary=number)
    burgers, spacing = str(row["burgers"].values), float(row["spacing"])
    words = [f"b = {burgers}"] if burgers else []
    words += [f"d = {spacing:.2f} µm"] if np.isfinite(spacing) else []
    return ", ".join(words) or "boundary"


def _hover(dataset: xr.Dataset, wall: Drawn) -> str:
    """What a page says of a boundary under the pointer."""
    row = dataset.sel(boundary=wall.number)
    lines = [f"boundary {wall.number}", html.escape(caption(dataset, wall.number))]
    for name in ("normal", "line"):
        vector = [float(row[f"{name}_{a}"]) for a in "xyz"]
        error = float(row[f"{name}_error"])
        if np.isfinite(vector).all():
            lines.append(f"{name} {' '.join(f'{v:.3f}' for v in vector)} ± {error:.2f}°")
    if np.isfinite(float(row["misorientation"])):
        lines.append(f"misorientation {float(row['misorientation']):.4f}°")
    return "<br>".join(lines)


def _angles(dataset: xr.Dataset) -> str:
    table = [dataset[n].values for n in ("boundary_a", "boundary_b", "junction_angle", "junction_angle_std")]
    return "<br>".join(f"angle {int(a)}-{int(b)}: {v:.2f} ± {s:.2f}°" for a, b, v, s in zip(*table, strict=True))


def _broken(ends: np.ndarray) -> dict[str, np.ndarray]:
    """Separate segments as one line with gaps."""
    gaps = np.concatenate([ends, np.full((len(ends), 1, 3), np.nan)], axis=1).reshape(-1, 3)
    return dict(zip("xyz", gaps.T, strict=True))


def _box(dataset: xr.Dataset) -> np.ndarray:
    """Lowest and highest x, y and z of the volume, um, shape (2, 3)."""
    rows, columns = dataset["label"].shape[1:]
    heights = dataset[dataset["label"].dims[0]].values
    high = [(rows - 1) * float(dataset.attrs["pixel_row_um"]), (columns - 1) * float(dataset.attrs["pixel_column_um"])]
    return np.array([[0.0, 0.0, heights.min()], [*high, heights.max()]])


def _polygon(pv: Any, wall: Drawn) -> Any:
    return pv.PolyData(wall.outline, faces=np.array([len(wall.outline), *range(len(wall.outline))]))


def _segments(pv: Any, ends: np.ndarray) -> Any:
    lines = np.column_stack([np.full(len(ends), 2), np.arange(2 * len(ends)).reshape(-1, 2)])
    return pv.PolyData(ends.reshape(-1, 3), lines=lines.ravel())
