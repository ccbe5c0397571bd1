"""DFXM corrections on simulated scans with known truth and on the real ones: "target | measured".

    python benchmarks/dfxm_corrections.py                        simulations
    python benchmarks/dfxm_corrections.py --data ../shared/data  also the real scans

The crystal, its noise (gain 2, read-out noise 3, pedestal 100) and the helpers are those of
tests/modalities/dfxm/test_corrections.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np

import braggscope
from braggscope.core.corrections import Raw, Shifted, corrected, with_dark_and_flat
from braggscope.core.estimator import motor_positions
from braggscope.core.scan import Scan
from braggscope.modalities.dfxm.corrections.hot_pixels import hot_pixels
from braggscope.modalities.dfxm.corrections.motor_drift import line_offsets, motor_drift
from braggscope.modalities.dfxm.corrections.photons import photons
from braggscope.modalities.dfxm.corrections.shift import frame_shifts, shift

PATH = Path(__file__).parents[1] / "tests" / "modalities" / "dfxm" / "test_corrections.py"
STEP = 0.01  # deg


def helpers() -> Any:
    spec = importlib.util.spec_from_file_location("corrections_of_tests", PATH)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(what: str, target: object, measured: object) -> None:
    print(f"{what:62} | {target!s:>14} | {measured}", flush=True)


def hot(made: Any) -> None:
    frames, _ = made.crystal(width=2.0, bend=18.0, peak=600.0)
    values, random = made.counts_of(frames), np.random.default_rng(7)
    truth = np.zeros(values.shape, bool)
    stuck = random.choice(values[0].size, 25, replace=False)
    truth.reshape(len(values), -1)[:, stuck] = True
    hits = random.choice(values.size, 60, replace=False)
    truth.ravel()[hits] = True
    values[truth] = np.minimum(values[truth] + random.integers(300, 3000, int(truth.sum())), 65000).astype(np.uint16)
    found = np.concatenate(
        [np.zeros(b.frames.shape, bool) if b.mask is None else ~b.mask for b in hot_pixels(made.scan_of(values)).batches()]
    )
    row("hot counts found / all hot counts (25 pixels, 60 hits)", "", f"{(found & truth).sum() / truth.sum():.3f}")
    row("hot counts found / all counts left out", "", f"{(found & truth).sum() / found.sum():.3f}")


def gain(made: Any) -> None:
    frames, _ = made.crystal(points=41, width=5.0, bend=24.0)
    record = photons(made.scan_of(made.counts_of(frames))).corrections[0]
    row("gain (true 2)", "", f"{record['gain']:.4f} +- {record['gain_std']:.4f}")
    row("offset (true 100)", "", f"{record['offset']:.3f}")


def shifts(made: Any) -> None:
    random = np.random.default_rng(3)
    jumps = random.choice([0.0, 0.3, 1.7], size=(21, 2))
    steady = np.outer(np.arange(31) - 15, [0.15, -0.1])
    for what, moved, width in (("jitter of 0, 0.3 or 1.7 px", jumps, 10.0), ("0.15, -0.1 px per frame", steady, 8.0)):
        frames, _ = made.crystal(points=len(moved), width=width, moved=tuple(map(tuple, moved)))
        error = frame_shifts(made.scan_of(made.counts_of(frames))).shifts - (moved - moved.mean(axis=0))
        row(
            f"shift, {what}: error rms, largest (px)",
            "0.05 (largest)",
            f"{np.sqrt((error**2).mean()):.3f}, {np.abs(error).max():.3f}",
        )
    for width, bend in ((8.0, 3.0), (2.5, 16.0)):
        frames, _ = made.crystal(width=width, bend=bend)
        record = shift(made.scan_of(made.counts_of(frames))).corrections[0]
        row(f"nothing moves (width {width}, bend {bend} steps): applied (px)", 0, record["largest_px"])


def shifted(scan: Scan, by: np.ndarray, how: str) -> Scan:
    return corrected(scan, {"name": "shift"}, frames=Shifted(Raw(scan.frames), by, how))


def z_scores(made: Any) -> None:
    frames, centre = made.crystal(points=41, width=2.5, bend=10.0, peak=800.0)
    mu = STEP * (np.arange(41) - 20)
    mean, centre = np.tensordot(mu, frames, 1) / frames.sum(axis=0), STEP * centre
    values, random = made.counts_of(frames), np.random.default_rng(11)
    dark, flat = random.integers(0, 30, centre.shape), random.uniform(0.85, 1.15, centre.shape)
    seen = (made.counts_of(frames * flat) + dark).astype(np.uint16)
    half = np.where(random.uniform(size=(41, 1)) < 0.5, 0.5, -0.5) * np.array([[1.0, 0.0]])
    moved = made.crystal(points=41, width=2.5, bend=10.0, peak=800.0, moved=tuple(map(tuple, half)))[0]
    kept, off = made.scan_of(values), made.scan_of(made.counts_of(moved))
    cases = {
        "none": kept,
        "dark and flat": with_dark_and_flat(made.scan_of(seen), dark + 100.0, 4000 * flat + dark + 100),
        "hot-pixels": hot_pixels(kept),
        "photons": photons(kept),
        **{f"half a pixel, {how}": shifted(off, half, how).cut(3, 77, 3, 87) for how in ("linear", "cubic")},
    }
    for name, scan in cases.items():
        part = (slice(3, 77), slice(3, 87)) if "half" in name else (slice(None), slice(None))
        said = []
        for method, truth, ignored in (("moments", mean, 32), ("peakfit", centre, 0)):
            result = made.mapped(scan, method)
            good = ((result["flag"].values & ~ignored) == 0) & np.isfinite(result["mu_std"].values)
            said.append(np.std(((result["mu"].values - truth[part]) / result["mu_std"].values)[good]))
        row(f"spread of z after {name}: moments, peakfit", "0.95 to 1.05", f"{said[0]:.3f}, {said[1]:.3f}")


def drift(made: Any) -> None:
    lines = np.linspace(-1, 1, 41)
    design = np.stack([lines**k for k in range(4)], axis=1)
    for size in (0.0, 0.1, 0.3):
        offsets = np.random.default_rng(0).normal(size=41) * size
        offsets -= design @ np.linalg.lstsq(design, offsets, rcond=None)[0]
        frames, centre = made.crystal(points=41, width=3.0, bend=18.0, peak=30000.0, drift=tuple(offsets))
        means = [
            np.std(np.tensordot(u, frames, 1) / frames.sum(axis=0) - centre)
            for u in (np.arange(41) - 20.0, offsets + np.arange(41) - 20)
        ]
        row(
            f"drift of {size} steps: error of means without noise (steps)",
            "",
            f"{means[0]:.3f} at wrong, {means[1]:.3f} at right positions",
        )
        scan = made.scan_of(made.counts_of(frames))
        found, mended = line_offsets(scan), motor_drift(scan)
        known = found.std[0] < 0.25 * STEP
        error = float(np.std((found.offsets[0] / STEP - offsets)[known]))
        before, after = (made.errors(made.mapped(one, "peakfit"), STEP * centre) for one in (scan, mended))
        row(
            f"drift of {size} steps: proof, error of a line (steps)",
            "> 4 if any",
            f"{mended.corrections[0]['mu_proof']:.1f}, {error:.3f}",
        )
        row("    error of peakfit's mu in steps, spread of z: before", "", f"{before[0] / STEP:.4f}, {before[1]:.2f}")
        row("    after", "", f"{after[0] / STEP:.4f}, {after[1]:.2f}")


def real(folder: Path) -> None:
    for name in ("id03_mosa_motor_drift_111_Al", "id03_mosa_domains_111_Al_chi_diffry", "id03_rocking_mu_fatigue"):
        scan = braggscope.open(folder / "dfxm" / f"{name}.h5")
        print(name)
        for axis, (motor, measured) in enumerate(motor_positions(scan).items()):
            lines = np.moveaxis(measured.reshape(scan.shape), axis, -1).reshape(-1, scan.shape[axis])
            step = abs(lines[0, -1] - lines[0, 0]) / (lines.shape[1] - 1)
            planned = planned_step(scan.title, motor)
            off = lines[:, -1] - lines[:, 0] - planned * (lines.shape[1] - 1)
            row(
                f"    {motor}: recorded less planned travel over a line, in steps",
                "",
                f"{off.mean() / step:+.4f} ({off.mean():+.2e} deg)",
            )
        lost = sum(0 if b.mask is None else int((~b.mask).sum()) for b in hot_pixels(scan).batches())
        row(
            "    counts left out as hot, of all",
            "",
            f"{lost / (scan.frames.shape[0] * scan.frame_shape[0] * scan.frame_shape[1]):.1e}",
        )
        record = motor_drift(scan).corrections[0]
        row(
            "    drift found: rms (deg), proof of 4 needed",
            "",
            ", ".join(f"{m} {record[f'{m}_rms']:.1e} ({record[f'{m}_proof']:.1f})" for m in motor_positions(scan)),
        )
        row("    why nothing", "", record.get("why_nothing", "-"))


def planned_step(title: str, motor: str) -> float:
    """The step of a motor as an ID03 title plans it: `fscan2d chi START STEP COUNT diffry START STEP COUNT ...`."""
    words = title.split()
    return float(words[words.index(motor) + 2])


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, help="folder with dfxm/id03_*.h5")
    data = words.parse_args().data
    made = helpers()
    print(f"{'':62} | {'target':>14} | measured")
    for part in (hot, gain, shifts, z_scores, drift):
        part(made)
    if data is not None:
        real(data)


if __name__ == "__main__":
    main()
