"""Laue peak search: recall and precision, honesty of the errors, time; the peaks of other programs on real images.

    python benchmarks/laue_peaks.py                            simulated images
    python benchmarks/laue_peaks.py ../shared/data/laue        also the real germanium, GaN on silicon and CdTe images

A simulated image has elliptic Gaussian spots (sigma 0.5 to 2 px, integrated over the pixels), a background with a slope, a bump
and two broad rings, Poisson and read-out noise and 400 hot pixels. The significance of a true spot is that of the best filter,
sqrt(sum of expected^2 / variance); spots above 5 and farther than 3 (sigma_1 + sigma_2) / 2 + 3 px from any other that could
disturb them make the strict number. A found peak above 5 is right where a true spot, however faint, is within 1.5 px.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import h5py
import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from braggscope.core.batch import Batch
from braggscope.modalities.laue.peaks.fit import FAILED, FLAGS, SHARP
from braggscope.modalities.laue.peaks.following import follow
from braggscope.modalities.laue.peaks.search import Search, find_spots, of_batch
from braggscope.modalities.laue.peaks.table import peak_table

READ_OUT = 2.0
LONE = 13.0  # px to the next spot, beyond which none disturbs another's fit
FIRST_SEED = 100  # thresholds and tile rules were chosen on seeds 0 to 2


def row(what: str, target: object, measured: object) -> None:
    print(f"{what} | {target} | {measured}", flush=True)


def ground(shape: tuple[int, int]) -> np.ndarray:
    """Expected background: a slope, a bump and two broad rings."""
    y, x = np.mgrid[: shape[0], : shape[1]] / np.array(shape).max()
    far = np.hypot(y - 0.55, x - 0.45)
    light = 40 + 60 * x + 80 * np.exp(-0.5 * (far / 0.25) ** 2)
    for radius, height in ((0.3, 25.0), (0.42, 15.0)):  # 41 px wide
        light += height * np.exp(-0.5 * ((far - radius) * max(shape) / 41) ** 2)
    return light


def simulated(shape: tuple[int, int], count: int, seed: int, hot: int = 400, offset: float = 10.0):
    """A frame and its spots: row, column, light, sigma_1, sigma_2, significance, shape (spot, 6)."""
    random = np.random.default_rng(seed)
    light = ground(shape)
    before = light.copy()
    place = random.uniform(0, np.array(shape) - 1.0, (count, 2))
    minor = random.uniform(0.5, 2.0, count)
    major = np.minimum(minor * random.uniform(1.0, 1.8, count), 2.0)
    tilt = random.uniform(0, np.pi, count)
    wanted = 3 * 1000 ** random.uniform(0, 1, count)  # significance, from 3 to 3000
    spots = []
    fine = (np.arange(5) - 2) / 5
    for (r, c), s, b, a, z in zip(place, minor, major, tilt, wanted, strict=True):
        top, left = max(int(r) - 11, 0), max(int(c) - 11, 0)
        rows, columns = np.arange(top, min(top + 24, shape[0])), np.arange(left, min(left + 24, shape[1]))
        y = (rows[:, None] + fine).ravel()[:, None] - r
        x = (columns[:, None] + fine).ravel()[None, :] - c
        u, v = (np.cos(a) * x + np.sin(a) * y) / b, (np.cos(a) * y - np.sin(a) * x) / s
        one = np.exp(-0.5 * (u**2 + v**2)).reshape(len(rows), 5, len(columns), 5).mean((1, 3)) / (2 * np.pi * s * b)
        there = before[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        total = z / np.sqrt((one**2 / (there + READ_OUT**2)).sum())
        for _ in range(8):  # its own light adds to the noise
            total *= z / np.sqrt(((total * one) ** 2 / (there + READ_OUT**2 + total * one)).sum())
            total = min(total, 40000 * 2 * np.pi * s * b)
        light[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += total * one
        spots.append((r, c, total, s, b, np.sqrt((((total * one) ** 2) / (there + READ_OUT**2)).sum())))
    frame = random.poisson(light) + random.normal(offset, READ_OUT, shape)
    at = random.integers(0, shape[0], hot), random.integers(0, shape[1], hot)
    frame[at] += 10 ** random.uniform(1.5, 4, hot)
    return np.clip(np.round(frame), 0, 65535).astype(np.uint16), np.array(spots)


def judged(frame: np.ndarray, truth: np.ndarray) -> dict[str, object]:
    """Recall and precision of a search, and the scatter of the fits over their errors."""
    table = peak_table(find_spots(frame))
    flag, place = table["flag"].values, np.stack([table["row"].values, table["column"].values], axis=1)
    usable = flag & SHARP == 0
    tree, truths = cKDTree(place[usable]), cKDTree(truth[:, :2])
    far, _ = tree.query(truth[:, :2])
    sigma = truth[:, 4]
    strong, alone = truth[:, 5] > 5, np.ones(len(truth), bool)
    for i, near in enumerate(truths.query_ball_point(truth[:, :2], 3 * 2 + 3)):
        for j in near:
            gap = np.hypot(*(truth[i, :2] - truth[j, :2]))
            if j != i and gap < 1.5 * (sigma[i] + sigma[j]) + 3 and truth[j, 2] > 0.02 * truth[i, 2]:
                alone[i] = False
    inside = ((truth[:, :2] > 1) & (truth[:, :2] < np.array(frame.shape) - 2)).all(axis=1)
    strict, rest = strong & alone & inside, strong & ~(alone & inside)
    lone = strict & (truths.query(truth[:, :2], k=2)[0][:, 1] > LONE)
    found = usable & (table["significance"].values > 5)
    wrong = found & (truths.query(place)[0] > 1.5)
    fitted = np.flatnonzero((flag == 0) & (table["significance"].values > 5))
    gap, which = truths.query(place[fitted])
    clean = (gap < 1.5) & strict[which]
    pairs, which = fitted[clean], which[clean]
    z = np.concatenate([
        (table[n].values[pairs] - truth[which, k]) / table[f"{n}_std"].values[pairs] for k, n in enumerate(("row", "column"))
    ])  # fmt: skip
    light = (table["intensity"].values[pairs] - truth[which, 2]) / table["intensity_std"].values[pairs]
    return {
        "strict": (int((far[strict] < 1.5).sum()), int(strict.sum())), "lone": (int((far[lone] < 1.5).sum()), int(lone.sum())),
        "rest": (int((far[rest] < 1.5).sum()), int(rest.sum())),
        "found": (int(found.sum() - wrong.sum()), int(found.sum())), "z": z, "light": light,
        "failed": int((flag & FAILED > 0).sum()), "missed": truth[strict & (far >= 1.5)], "wrong": place[wrong],
    }  # fmt: skip


def robust(values: np.ndarray) -> float:
    return float(np.diff(np.nanpercentile(values, [15.87, 84.13]))[0] / 2)


def on_simulations(seeds: int) -> None:
    for what, shape, count in (("2048 x 2048, 1500 spots", (2048, 2048), 1500), ("487 x 407, 300 spots", (487, 407), 300)):
        strict, lone, rest, found, z, light, failed = np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2), [], [], 0
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            one = judged(*simulated(shape, count, seed, hot=400 * shape[0] * shape[1] // 2048**2))
            strict, lone, rest, found = strict + one["strict"], lone + one["lone"], rest + one["rest"], found + one["found"]
            z, light, failed = [*z, one["z"]], [*light, one["light"]], failed + one["failed"]
        row(f"{what}: recall above 5 sigma, spots apart", ">= 0.98", f"{strict[0] / strict[1]:.4f} of {int(strict[1])}")
        row(f"{what}: ... and {LONE:g} px from the next", ">= 0.98", f"{lone[0] / lone[1]:.4f} of {int(lone[1])}")
        row(f"{what}: recall of the others above 5 sigma", "-", f"{rest[0] / rest[1]:.4f} of {int(rest[1])}")
        row(f"{what}: precision above 5 sigma", ">= 0.98", f"{found[0] / found[1]:.4f} of {int(found[1])}")
        z, light = np.concatenate(z), np.concatenate(light)
        row(f"{what}: scatter of places over their errors", "1", f"{robust(z):.3f}, beyond 3: {np.mean(np.abs(z) > 3):.4f}")
        row(f"{what}: scatter of intensities over their errors", "1", f"{robust(light):.3f}, mean {np.nanmedian(light):+.3f}")
        row(f"{what}: fits that failed", "-", failed)


def timed(frame: np.ndarray, repeats: int = 15) -> str:
    find_spots(frame)
    wall, processor = [], []
    for _ in range(repeats):
        a, b = time.perf_counter(), time.process_time()
        spots = find_spots(frame)
        wall.append(time.perf_counter() - a)
        processor.append(time.process_time() - b)
    times = f"{min(wall) * 1e3:.0f} ms (median {np.median(wall) * 1e3:.0f}), processor {min(processor) * 1e3:.0f} ms"
    return f"{times}, {len(spots.rows)} peaks"


def on_time() -> None:
    row("time, 2048 x 2048, 1500 spots, fits included", "<= 150 ms", timed(simulated((2048, 2048), 1500, 0)[0]))
    row("time, 487 x 407, 300 spots, one frame", "-", timed(simulated((487, 407), 300, 0)[0]))


def on_scans() -> None:
    """Time of a map's frames, on all cores, and of following its peaks."""
    frames = np.stack([simulated((487, 407), 300, seed)[0] for seed in range(8)])
    batch = Batch(np.arange(48), np.tile(frames, (6, 1, 1)))

    def searched() -> list[object]:
        return of_batch(batch, Search())

    searched()
    a, b = time.perf_counter(), time.process_time()
    count = sum(len(spots.rows) for spots in searched())
    wall, processor = (time.perf_counter() - a) / 48, (time.process_time() - b) / 48
    row("a map's frame of 487 x 407, 300 spots", "<= 20 ms", f"{wall * 1e3:.1f} ms, processor {processor * 1e3:.1f} ms")
    row("... of which 10 000 take", "a few minutes", f"{wall * 1e4:.0f} s (about {count / 48:.0f} peaks a frame)")
    peaks, grains = followed_scan()
    a, b = time.perf_counter(), time.process_time()
    found = follow(peaks, (100, 100))
    times = f"{time.perf_counter() - a:.0f} s, processor {time.process_time() - b:.0f} s"
    row("following 10 000 x 300 peaks", "-", f"{times}; {found.sizes['track']} tracks of {grains} reflections")


def followed_scan(grain: int = 4, spots: int = 300) -> tuple[xr.Dataset, int]:
    """Peaks of 100 x 100 positions: square grains of some steps, each with its own reflections."""
    random = np.random.default_rng(0)
    side = 100 // grain
    y, x = np.divmod(np.arange(10_000), 100)
    which = (y // grain) * side + x // grain
    places = random.uniform(0, 480, (side * side, spots, 2))
    place = places[which] + random.normal(0, 0.1, (10_000, spots, 2))
    columns = {"row": place[..., 0].ravel(), "column": place[..., 1].ravel(), "frame": np.repeat(np.arange(10_000), spots)}
    even = {n: np.full(10_000 * spots, v) for n, v in (("row_std", 0.1), ("column_std", 0.1), ("intensity", 100.0))}
    flag = np.zeros(10_000 * spots, np.int32)
    return xr.Dataset({n: ("peak", v) for n, v in (columns | even | {"flag": flag}).items()}), side * side * spots


def image(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file["entry/data/data"]).reshape(file["entry/data/data"].shape[-2:])


def on_real_images(folder: Path) -> None:
    for name, peer in (
        ("Ge_blanc_0000", "Ge_blanc_0000_LT_5"), ("GaN_Si_nw1_0000", "rerun_lt3219_GaN_Si_nw1_0000_Si"),
        ("CdTe_I999_03Jul06_0200", None),
    ):  # fmt: skip
        frame = image(folder / f"{name}.h5")
        table = peak_table(find_spots(frame))
        flags = {w: int((table["flag"].values & b > 0).sum()) for b, w in FLAGS.items()}
        row(f"{name}: peaks", "-", f"{table.sizes['peak']}, flags { ({w: n for w, n in flags.items() if n}) }")
        row(f"{name}: time", "<= 150 ms", timed(frame))
        if peer is None:
            continue
        lines = [line.split() for line in (folder / f"{peer}.cor").read_text().splitlines() if line[:1] not in "#2"]
        theirs = np.array([[float(word) for word in line] + [0.0] * (12 - len(line)) for line in lines])
        far, _ = cKDTree(np.stack([table["row"], table["column"]], axis=1)).query(theirs[:, [3, 2]] - 1)
        unfitted = (theirs[:, 3] % 1 == 0) & (theirs[:, 2] % 1 == 0)
        row(f"{name}: peaks of LaueTools within 0.3 px", len(theirs),
            f"{(far < 0.3).sum()}, median {np.median(far):.3f} px; {unfitted.sum()} that LaueTools did not fit")  # fmt: skip
        row(f"{name}: farthest of those it fitted", "0.1 to 0.3 px", f"{np.sort(far[~unfitted])[-3:].round(3)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    given = parser.parse_args()
    print("what | target | measured")
    on_simulations(given.seeds)
    on_time()
    on_scans()
    if given.data:
        on_real_images(given.data)


if __name__ == "__main__":
    main()
