"""Dislocation boundaries of simulated weak-beam volumes: how far normals, lines, Burgers vectors and angles are off.

    python benchmarks/dfxm_boundaries.py [--seeds 10] [--outliers 0.05] [--rough 0.1]

Three walls of aluminium that meet in a triple junction of 48 deg, 40 layers 1 um apart, 120 x 400 pixels. Every number that the
analysis is given stands in the file of the scan (pixels, heights) or describes the crystal (fcc, lattice parameter, orientation).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import xarray as xr

from braggscope.core.simulation import Simulation
from braggscope.modalities.dfxm.analysis.boundaries import boundaries as analysis
from braggscope.modalities.dfxm.geometry import id03
from braggscope.modalities.dfxm.phantoms.boundaries import boundaries as phantom
from shared import rms, row


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Between two axes, deg."""
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), abs(a @ b))))


def vector(found: xr.Dataset, name: str, at: int) -> tuple[np.ndarray, np.ndarray]:
    """A vector of the table and its standard deviations."""
    parts = [[float(found[f"{name}_{axis}{end}"][at]) for axis in "xyz"] for end in ("", "_std")]
    return np.array(parts[0]), np.array(parts[1])


def compare(source: Simulation, found: xr.Dataset) -> dict[str, list[float]]:
    """Deviations of one volume; those of vectors along axes in units of their errors too."""
    truth, result = (
        source.truth,
        {n: list[float]() for n in ("normal", "normal z", "line", "line z", "spacing z", "burgers", "sure")},
    )
    normals = [vector(found, "normal", k)[0] for k in range(found.sizes["boundary"])]
    match = [int(np.argmax([abs(n @ t) for t in truth["normal"].values])) for n in normals]
    for k, t in enumerate(match):
        for name in ("normal", "line"):
            value, std = vector(found, name, k)
            true = truth[name].values[t]
            result[name].append(angle(value, true))
            result[f"{name} z"] += list((value - true * np.sign(value @ true)) / std)
        result["spacing z"].append((found["spacing"][k] - truth["spacing"][t]).item() / float(found["spacing_std"][k]))
        b = vector(found.assign(dict.fromkeys([f"burgers_{a}_std" for a in "xyz"], found["area"])), "burgers", k)[0]
        result["burgers"].append(float(angle(b, truth["burgers"].values[t]) < 0.01))
        result["sure"].append(float(found["burgers_probability"][k]))
    result["angle"], result["angle z"], result["junction"] = [], [], []
    for j in range(found.sizes["junction"]):
        a, b = (match[int(found[f"boundary_{n}"][j]) - 1] for n in "ab")
        away = float(found["junction_angle"][j]) - float(truth["opening"][a, b])
        result["angle"].append(abs(away))
        result["angle z"].append(away / float(found["junction_angle_std"][j]))
        line = np.array([float(found[f"junction_{x}"][j]) for x in "xyz"])
        result["junction"].append(angle(line, truth["junction"].values))
    result["boundaries"] = [float(found.sizes["boundary"])]
    result["triple"] = [float((found["boundaries_meeting"] == 3).sum() == 3)]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--outliers", type=float, default=0.05)
    parser.add_argument("--rough", type=float, default=0.1, help="wandering of the lines, um")
    given = parser.parse_args()
    every: dict[str, list[float]] = {}
    seconds = []
    for seed in range(given.seeds):
        source = phantom(id03(), seed=seed, outliers=given.outliers, roughness_um=given.rough)
        frames = source.frames(np.arange(source.shape[0]))
        source.__dict__["frames"] = lambda index, kept=frames: kept[index]
        start = time.process_time()
        orientation = tuple(source.truth["orientation"].values.ravel())
        found = analysis(source, orientation=orientation, lattice=4.0495, geometry=id03())
        seconds.append(time.process_time() - start)
        for name, values in compare(source, found).items():
            every.setdefault(name, []).extend(values)
    row(f"three boundaries, {given.outliers:.0%} outliers, {given.seeds} volumes", "target", "measured")
    row("boundaries found", "3 in each", f"{int(sum(n == 3 for n in every['boundaries']))} of {given.seeds} volumes have 3")
    row("normal, deg: root mean square, worst", "0.5", f"{rms(np.array(every['normal'])):.3f}, {max(every['normal']):.3f}")
    row("line direction, deg: root mean square, worst", "1", f"{rms(np.array(every['line'])):.3f}, {max(every['line']):.3f}")
    row("Burgers vector right", "all", f"{int(sum(every['burgers']))} of {len(every['burgers'])}")
    row("least probability of a Burgers vector", "", f"{min(every['sure']):.4f}")
    row(
        "angle at the junction, deg: root mean square, worst",
        "1",
        f"{rms(np.array(every['angle'])):.3f}, {max(every['angle']):.3f}",
    )
    row("direction of the junction, deg: root mean square", "", f"{rms(np.array(every['junction'])):.3f}")
    row("seen as one triple junction", "all", f"{int(sum(every['triple']))} of {given.seeds}")
    for name, target in (("normal z", "1"), ("line z", "1"), ("spacing z", "1"), ("angle z", "1")):
        row(f"z-scores of {name.removesuffix(' z')}, root mean square", target, f"{rms(np.array(every[name])):.2f}")
    row("time of the processor, s", "", f"{np.median(seconds):.1f}")


if __name__ == "__main__":
    main()
