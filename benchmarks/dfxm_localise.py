"""Localisation of dislocations: published images, twelve characters at two noises, the whole field, characters, three at once.

    python benchmarks/dfxm_localise.py [IMAGES] [--three N]

IMAGES per character (20 by default; 200 for the figures in the docs). Places are drawn over the central 1.4 um (the published
boxes), or over the whole field.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch

from braggscope.modalities.dfxm.dislocations import imaging
from braggscope.modalities.dfxm.dislocations.characters import characters_of
from braggscope.modalities.dfxm.dislocations.fit import Level, fit
from braggscope.modalities.dfxm.dislocations.identify import identified
from braggscope.modalities.dfxm.dislocations.model import ImageModel
from braggscope.modalities.dfxm.dislocations.posterior import with_posterior
from braggscope.modalities.dfxm.dislocations.sampling import sampled
from braggscope.modalities.dfxm.dislocations.search import located, start_level
from braggscope.modalities.dfxm.dislocations.setting import PRESETS

SHAPE = (50, 50)
ALL = np.ones(SHAPE, bool)
REFERENCE = Path(__file__).parents[1] / "tests" / "reference"
NOISES = {"low": (0.05, 0.01), "high": (0.10, 0.05)}
BOX_NM = 1400.0
CHI2_95 = 5.991
KNOWN = (False,) * 4
FREE = (True, True, False, True)


def row(what: str, target: str, measured: object) -> None:
    print(f"{what:72s}| {target:>22} | {measured}", flush=True)


def model_of(preset: str) -> ImageModel:
    setting = PRESETS[preset]
    return ImageModel(setting, characters_of(setting), SHAPE)


def noisy(image: np.ndarray, noise: str, draw: np.random.Generator) -> tuple[np.ndarray, Level]:
    """d = I + beta + sqrt(I + beta + sigma^2) n, beta and sigma as parts of the largest intensity."""
    beta, sigma = (part * image.max() for part in NOISES[noise])
    counts = image + beta + np.sqrt(image + beta + sigma**2) * draw.standard_normal(image.shape)
    return counts, Level(1.8, beta, 1.0, sigma**2, KNOWN)


def published() -> None:
    for number in (1, 2):
        with np.load(REFERENCE / f"dfxmtools_char{number}.npz") as stored:
            data = dict(stored)
        counts, true = data["im_obs"], data["true_loc_dis"]
        model = model_of("al-002-released")
        image = 1.8 * model.image([number - 1], true, derivatives=False)[0]
        level = Level(1.8, 0.05 * image.max(), 1.0, (0.01 * image.max()) ** 2, KNOWN)
        mean = image + level.background
        row(
            f"published image {number}: chi2 / n at the true place",
            "0.9 to 1.05",
            f"{((counts - mean) ** 2 / (mean + level.readout2)).mean():.3f}",
        )
        found = located(model, counts, ALL, level, [number - 1])[0]
        whole = with_posterior(model, counts, ALL, found)
        row("  released likelihood: maximum minus the stored one (nm)", "0.3", (found.places[0] - data["map_point"]).round(2))
        ratio = np.diag(whole.covariance)[:2] / np.diag(data["map_cov"])
        row("  variances over the stored ones", "0.75 to 1.25", ratio.round(2))
        if "chain_mean" in data:
            start = time.perf_counter()
            chain = sampled(model, counts, ALL, whole, 1000, 1).places[:, 0]
            row("  1000 samples by emcee (s)", "5", f"{time.perf_counter() - start:.1f}")
            row("  mean of the chains minus the stored one (nm)", "0.3", (chain.mean(0) - data["chain_mean"]).round(2))
            row("  variances over the stored ones", "0.75 to 1.25", (chain.var(0) / np.diag(data["chain_covariance"])).round(2))
        own = model_of("al-002-legacy")
        best = with_posterior(own, counts, ALL, located(own, counts, ALL, level, [number - 1])[0])
        row("  background in the mean: distance to the true place, to it by theirs (nm)", "",
            f"{np.hypot(*(best.mean[0] - true)):.2f}, {np.hypot(*(data['map_point'] - true)):.2f}")  # fmt: skip


def accuracy(preset: str, noise: str, images: int, *, whole_field: bool = False) -> None:
    """Places of single dislocations of known character."""
    model, draw = model_of(preset), np.random.default_rng(1)
    errors, squares, ratios, spent = [], [], [], []
    half = np.array(SHAPE) * model.optics.pitch_nm / 2 if whole_field else np.full(2, BOX_NM / 2)
    for n in range(12 * images):
        which = [n % 12]
        true = model.from_image(which, (2 * draw.random(2) - 1) * half)
        counts, level = noisy(1.8 * model.image(which, true, derivatives=False)[0], noise, draw)
        if whole_field:
            level = dataclasses.replace(start_level(model, counts, ALL), free=FREE)
        start = time.perf_counter()
        found = located(model, counts, ALL, level, which)
        if not found:
            errors.append(np.inf)
            continue
        best = with_posterior(model, counts, ALL, found[0])
        spent.append(time.perf_counter() - start)
        off = (best.mean - true)[0]
        bound = fit(model, counts, ALL, which, true, level, steps=0).covariance[:2, :2]
        errors.append(float(np.hypot(*off)))
        squares.append(off @ np.linalg.solve(best.covariance[:2, :2], off))
        ratios.append(off @ off / np.trace(bound))
    name = f"{preset}, {noise} noise" + (", whole field, levels free" if whole_field else "")
    target = "1.0" if noise == "low" else "2.0"
    row(f"{name}: median error (nm)", target, f"{np.median(errors):.2f}")
    row("  error over the bound (from the median of squares)", "1.1", f"{np.sqrt(np.median(ratios) / np.log(2)):.2f}")
    row("  95 % ellipses hold", "93 to 97 %", f"{100 * np.mean(np.array(squares) < CHI2_95):.1f} %")
    row("  off by more than 75 nm", "1 %", f"{100 * np.mean(np.array(errors) > 75):.2f} % of {len(errors)}")
    row("  time of one estimate with covariance, median (s)", "0.1", f"{np.median(spent):.3f}")


def characters(preset: str, noise: str, images: int) -> None:
    """One dislocation of unknown character, the levels unknown."""
    model, draw = model_of(preset), np.random.default_rng(2)
    right, said, number = [], [], []
    for n in range(12 * images):
        which = [n % 12]
        true = model.from_image(which, (draw.random(2) - 0.5) * BOX_NM)
        counts, _ = noisy(1.8 * model.image(which, true, derivatives=False)[0], noise, draw)
        found = identified(model, counts, ALL, start_level(model, counts, ALL), most=2)
        number.append(found.number.argmax() == 1)
        right.append(found.fit.which[:1] == (n % 12,))
        said.append(found.probability[0] if len(found.probability) else 0.0)
    row(f"{preset}, {noise} noise: character right, of {len(right)}", "95 %", f"{100 * np.mean(right):.1f} %")
    row("  stated probability, mean", "as right", f"{100 * np.mean(said):.1f} %")
    row("  number right", "", f"{100 * np.mean(number):.1f} %")


def three(preset: str, images: int) -> None:
    """Three dislocations at random, more than 0.5 um apart, of unknown number and characters."""
    model, draw, right, spent = model_of(preset), np.random.default_rng(3), [], []
    half = 0.35 * np.array(SHAPE) * model.optics.pitch_nm
    for _ in range(images):
        while True:
            places = (2 * draw.random((3, 2)) - 1) * half
            if min(np.hypot(*(places[i] - places[j])) for i in range(3) for j in range(i)) > 500:
                break
        which = draw.integers(0, 12, 3)
        counts, _ = noisy(1.8 * model.image(which, model.from_image(which, places), derivatives=False)[0], "low", draw)
        start = time.perf_counter()
        found = identified(model, counts, ALL, start_level(model, counts, ALL), most=4)
        spent.append(time.perf_counter() - start)
        right.append(found.number.argmax() == 3)
    row(f"{preset}: three dislocations, number right, of {images}", "90 %", f"{100 * np.mean(right):.0f} %")
    row("  time of one image, median (s)", "", f"{np.median(spent):.0f}")


def other_frames(images: int, depths: int) -> None:
    """Made with the full resolution function, 40 depths and photon noise, fitted with the closed form and fewer or as many."""
    draw, fine = np.random.default_rng(4), PRESETS["al-002"].replace(depth_points=40)
    setting = fine.replace(depth_points=depths)
    model = ImageModel(setting, characters_of(setting), SHAPE)
    every = imaging.in_sample(model.characters, fine)
    errors, squares, biases = [], [], []
    for n in range(12 * images):
        which = [n % 12]
        true = model.from_image(which, (draw.random(2) - 0.5) * BOX_NM)
        field = imaging.straight_lines(fine, torch.from_numpy(true), *(part[which] for part in every))
        image = 1.8 * imaging.image(fine, field, SHAPE, resolution="full").numpy()
        counts = draw.poisson(image + 0.05 * image.max()) + 0.01 * image.max() * draw.standard_normal(SHAPE)
        level = dataclasses.replace(start_level(model, counts, ALL), free=FREE)
        best = with_posterior(model, counts, ALL, located(model, counts, ALL, level, which)[0])
        off = (best.mean - true)[0]
        errors.append(np.hypot(*off))
        biases.append(off)
        squares.append(off @ np.linalg.solve(best.covariance[:2, :2], off))
    row(f"al-002, full resolution, 40 depths, fitted with {depths}: median error (nm)", "", f"{np.median(errors):.2f}")
    row("  mean error in x and y (nm)", "", np.mean(biases, 0).round(2))
    row("  95 % ellipses hold", "", f"{100 * np.mean(np.array(squares) < CHI2_95):.1f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=int, nargs="?", default=20)
    parser.add_argument("--three", type=int, default=10)
    told = parser.parse_args()
    published()
    for chosen in ("al-002-legacy", "al-002"):
        for level_of_noise in NOISES:
            accuracy(chosen, level_of_noise, told.images)
        accuracy(chosen, "low", told.images, whole_field=True)
    for depths in (10, 40):
        other_frames(max(1, told.images // 4), depths)
    for level_of_noise in NOISES:
        characters("al-002-legacy", level_of_noise, max(1, told.images // 10))
    if told.three:
        three("al-002-legacy", told.three)
