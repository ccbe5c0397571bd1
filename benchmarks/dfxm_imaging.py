"""Images of dislocations: compiled against the reference, the resolution function against random rays, and Burgers vectors.

    python benchmarks/dfxm_imaging.py [CASES]

Burgers vectors: rocking stacks (17 x 15 positions of phi and chi, 24 x 40 pixels, 20 000 counts at full reflection, detector
noise) of CASES random dislocations (24 by default), two of each of the twelve published characters, through `moments` and
`burgers`. The beam is one whose resolution function is smooth on the scale of the steps (`SMOOTH`).
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import braggscope
from braggscope.modalities.dfxm.analysis.burgers import burgers
from braggscope.modalities.dfxm.dislocations import imaging, kernels
from braggscope.modalities.dfxm.dislocations.characters import characters_of
from braggscope.modalities.dfxm.dislocations.model import ImageModel
from braggscope.modalities.dfxm.dislocations.resolution import Resolution
from braggscope.modalities.dfxm.dislocations.setting import PRESETS

SHAPE = (50, 50)
SMOOTH = """[dislocations]
burgers_nm = 0.286
bandwidth_fwhm = 1e-3
horizontal_divergence = 3e-4
aperture_rad = 3e-3
depth_points = 4
"""


def row(what: str, target: str, measured: object) -> None:
    print(f"{what:80s}| {target:>8} | {measured}", flush=True)


def best_of(work: Callable[[], object], times: int = 7) -> float:
    """Milliseconds of the fastest run."""
    work()
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return 1e3 * min(spent)


def compiled_images() -> None:
    for name in ("al-002", "al-002-legacy"):
        setting = PRESETS[name]
        known = characters_of(setting)
        model, vectors = ImageModel(setting, known, SHAPE), imaging.in_sample(known, setting)
        random = np.random.default_rng(1)
        images, slopes = [], []
        for count in (1, 1, 3, 3):
            which, places = random.choice(12, count).tolist(), random.uniform(-400, 400, (count, 2))
            parts = tuple(v[which] for v in vectors)

            def image(p: torch.Tensor, parts: tuple[torch.Tensor, ...] = parts, setting=setting) -> torch.Tensor:
                return imaging.image(setting, imaging.straight_lines(setting, p, *parts), SHAPE, reach=kernels.REACH)

            compiled, jacobian = model.image(which, places)
            images.append(abs(image(torch.from_numpy(places)).numpy() - compiled).max() / compiled.max())
            exact = torch.func.jacfwd(image)(torch.from_numpy(places)).movedim((2, 3), (0, 1)).reshape(jacobian.shape)
            slopes.append(abs(exact.numpy() - jacobian).max() / abs(jacobian).max())
        row(f"{name}: compiled image against the reference, over its largest value", "1e-7", f"{max(images):.1e}")
        row(f"{name}: compiled derivatives against automatic ones", "1e-7", f"{max(slopes):.1e}")


def resolution_function() -> None:
    r = Resolution.of(PRESETS["al-002"].replace(bandwidth_fwhm=1.4e-3, horizontal_divergence=1e-4))
    q = r.rays(4_000_000, torch.Generator().manual_seed(3)).numpy()
    edges = [np.linspace(-1, 1, n + 1) * reach for n, reach in ((24, 6.3e-4), (20, 2.5e-3))]
    seen = np.histogram2d(q[:, 0], q[:, 2], bins=edges)[0]
    fine = [np.linspace(e[0], e[-1], 15 * (len(e) - 1) + 1) for e in edges]
    rock, par = np.meshgrid(*((f[1:] + f[:-1]) / 2 for f in fine), indexing="ij")
    share = r.in_plane(torch.from_numpy(rock), torch.from_numpy(par)).numpy().reshape(24, 15, 20, 15).mean((1, 3))
    expected = share / share.sum() * seen.sum()
    enough = expected > 50
    chi2 = float(((seen - expected)[enough] ** 2 / expected[enough]).sum() / enough.sum())
    row(f"resolution function against 4e6 random rays, chi2 over {int(enough.sum())} bins", "1", f"{chi2:.3f}")
    setting = PRESETS["al-002"]
    known = characters_of(setting)
    places = torch.tensor([[100.0, -50.0]], dtype=torch.float64)
    field = imaging.straight_lines(setting, places, *(v[[0]] for v in imaging.in_sample(known, setting)))
    both = [imaging.image(setting, field, SHAPE, resolution=name) for name in ("closed", "full")]
    row(
        "al-002: image by the full resolution function against that of q_1, of the light",
        "",
        f"{float((both[0] - both[1]).abs().sum() / both[0].sum()):.1e}",
    )
    model = ImageModel(setting, known, SHAPE)
    model.image([0], places.numpy())
    row(
        "50 x 50 pixels, 10 depths, one dislocation: compiled, with derivatives",
        "1.5 ms",
        f"{best_of(lambda: model.image([0], places.numpy())):.2f} ms",
    )
    for name in ("closed", "full"):
        row(
            f"the same by the reference, {name}",
            "",
            f"{best_of(lambda name=name: imaging.image(setting, field, SHAPE, resolution=name)):.0f} ms",
        )


def burgers_vectors(cases: int) -> None:
    right, pulls, stds, spent = 0, [], [], []
    with tempfile.TemporaryDirectory() as folder:
        preset = str(Path(folder) / "smooth.toml")
        Path(preset).write_text(SMOOTH)
        for case in range(cases):
            name = str(case % 12 + 1)
            scan = braggscope.simulate(
                "dfxm", "dislocations", progress=False, preset=preset, characters=name, shape=(17, 15), half_deg=(0.05, 0.4),
                frame_shape=(24, 40), noise="counts", peak=20000.0, seed=100 + case,
            )  # fmt: skip
            dataset = braggscope.map(scan, "moments", progress=False, pedestal=110.0, gain=1.0, readout=3.0)
            start = time.perf_counter()
            found = burgers(dataset, preset=preset)
            spent.append(time.perf_counter() - start)
            good = found.attrs["best"].split()[0] == name and found.attrs["amplitude_of_best"] > 0
            right += good
            std = found.attrs["amplitude_of_best_std"]
            pulls.append((found.attrs["amplitude_of_best"] - 1) / std)
            stds.append(std)
            if not good:
                words = (
                    f"{found.attrs['best']}, amplitude {found.attrs['amplitude_of_best']:.2f}, misfit {found.attrs['misfit']:.3g}"
                )
                print(f"  case {case}: {name} taken for {words}")
    row("Burgers vectors and signs found of twelve characters", f"{cases}/{cases}", f"{right}/{cases}")
    row("error of the amplitude, median of its standard deviation", "", f"{np.median(stds):.1e}")
    row(
        "(amplitude - 1) over its standard deviation: root mean square, largest",
        "1",
        f"{math.sqrt(np.mean(np.square(pulls))):.2f}, {max(map(abs, pulls)):.1f}",
    )
    row("time of one fit of twelve characters, median", "", f"{np.median(spent):.1f} s")


if __name__ == "__main__":
    compiled_images()
    resolution_function()
    burgers_vectors(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
