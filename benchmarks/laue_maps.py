"""Grain maps of Laue: honesty of the errors of widths and sizes, registration with EBSD, time.

    python benchmarks/laue_maps.py [SEEDS]

Films as in the phantom `film` (0.37 um, elongated by 1.5 along x), 40 x 40 points 0.1 um apart, taken as they are; no patterns.
A map of EBSD is the same film with points 0.05 um apart, turned by up to 5 deg, shifted, in another frame, with orientations
that scatter by 0.3 deg.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from braggscope.modalities.laue.analysis.compare_ebsd import compare_ebsd
from braggscope.modalities.laue.analysis.grains import grains
from braggscope.modalities.laue.analysis.sizes import sizes
from braggscope.modalities.laue.analysis.two_point import two_point
from braggscope.modalities.laue.geometry import film
from braggscope.modalities.laue.grain_maps import grain_map
from braggscope.modalities.laue.phantoms.microstructure import Microstructure, microstructure
from braggscope.physics.crystals import crystal_of

AU = crystal_of("Au")
FRAME = Rotation.from_rotvec([0.1, 0.2, -0.3]).as_matrix()


def row(what: str, target: object, measured: object) -> None:
    print(f"{what} | {target} | {measured}", flush=True)


def sample_of(seed: int, span: float) -> Microstructure:
    fine = np.arange(-1.5, span + 1.5, 0.02)
    options = {"size_um": 0.37, "elongation": 1.5, "texture": "random", "fibre": "1 1 1", "spread_deg": 5.0, "twins": 0.0}
    return microstructure(seed, fine, fine, AU, film(), strain=0.0, **options)


def map_of(sample: Microstructure, count: int) -> xr.Dataset:
    """A map of the film, points 0.1 um apart from 0."""
    g = 0.1 * np.arange(count)
    number = sample.at(g[:, None], g[None])
    return grain_map(sample.orientation[number], AU, g, g, number + 1).assign_attrs(geometry=json.dumps(film().to_mapping()))


def ebsd_of(sample: Microstructure, turn_deg: float, shift: tuple[float, float], seed: int) -> xr.Dataset:
    """A map of EBSD of the same film."""
    y, x = (0.05 * (np.arange(n) - (n - 1) / 2) for n in (80, 90))
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    number = sample.at(1.95 + shift[0] + c * y[:, None] - s * x, 1.95 + shift[1] + c * x + s * y[:, None])
    noise = Rotation.from_rotvec(np.deg2rad(0.3) * np.random.default_rng(seed).standard_normal((number.size, 3)))
    u = noise.as_matrix().reshape(*number.shape, 3, 3) @ FRAME @ sample.orientation[number]
    return grain_map(u, AU, 0.05 * np.arange(80), 0.05 * np.arange(90)).assign_attrs(orientation_frame="sample")


def errors(seeds: int) -> None:
    """Scatter from film to film over the stated error."""
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        made = map_of(sample_of(seed, 4.0), 40)
        said = two_point(made).attrs | sizes(made, draws=0).attrs
        for name in ("fwhm_x_um", "fwhm_y_um", "anisotropy", "grain_size_um"):
            found.setdefault(name, []).append((said[name], said[f"{name}_std"]))
    for name, values in found.items():
        value, std = np.array(values).T
        row(
            f"{name}: scatter over stated error, {seeds} films",
            1,
            f"{value.std(ddof=1) / std.mean():.2f} (mean {value.mean():.4g})",
        )


def registration(seeds: int) -> None:
    """Errors of the placement, and what is said of maps that are the same and of maps that are not."""
    random = np.random.default_rng(1)
    off, index, angle, other = [], [], [], []
    for seed in range(seeds):
        sample, turn, shift = sample_of(seed, 4.0), random.uniform(-5, 5), random.uniform(-0.3, 0.3, 2)
        said = compare_ebsd(map_of(sample, 40), ebsd_of(sample, turn, tuple(shift), seed)).attrs
        c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        true = -c * shift[0] + s * shift[1], -s * shift[0] - c * shift[1]  # of the one middle in the other map
        off.append([said["shift_y_um"] - true[0], said["shift_x_um"] - true[1], said["turn_deg"] - turn, said["scale"] - 1])
        index.append((said["rand_index"], said["rand_index_by_chance"]))
        frame = np.array(said["frame_turn_deg"].split(), float)
        angle.append(np.rad2deg((Rotation.from_rotvec(frame, degrees=True) * Rotation.from_matrix(FRAME)).magnitude()))
        other.append(compare_ebsd(map_of(sample_of(seed + 1000, 4.0), 40), ebsd_of(sample, turn, tuple(shift), seed)).attrs)
    row("shift, um; turn, deg; scale: rms error", "", np.sqrt(np.mean(np.square(off), 0)).round(4).tolist())
    row("worst shift, um; turn, deg; scale", "", np.abs(off).max(0).round(4).tolist())
    row("turn between the frames, deg: worst", "", f"{max(angle):.3f}")
    row("adjusted Rand index, by chance: mean", "", np.mean(index, 0).round(3).tolist())
    doubted = sum("registration is in doubt" in one.get("caution", "") for one in other)
    row("maps of other films: index; in doubt", "", f"{np.mean([o['rand_index'] for o in other]):.2f}; {doubted} of {seeds}")


def times() -> None:
    """Seconds on a map of 100 x 100 points."""
    made = map_of(sample_of(0, 10.0), 100)
    for name, work in (("two-point", two_point), ("sizes", sizes), ("grains", grains)):
        start = time.perf_counter()
        work(made)
        row(f"{name}, 100 x 100 points, s", "", f"{time.perf_counter() - start:.2f}")


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    errors(3 * seeds)
    registration(seeds)
    times()


if __name__ == "__main__":
    main()
