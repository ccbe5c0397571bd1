"""Accuracy and speed of the nanobeam likelihood fit against the Cramer-Rao bound.

Frames of 64 x 64 of the published film, strain +-5e-3, omega +-0.05 deg, chi +-0.1 deg drawn uniformly, Poisson noise. The bound
is that of each frame at its true parameters, for all that is fitted: strain, omega, chi, scale, background (and thickness).

    python benchmarks/nanobeam_likelihood.py [--frames 4000] [--full-sum 400]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from braggscope.core.batch import Batch
from braggscope.modalities.nanobeam import phantom
from braggscope.modalities.nanobeam.compiled import fit, tables
from braggscope.modalities.nanobeam.estimators.likelihood import Likelihood
from braggscope.modalities.nanobeam.forward import NanobeamForward, full_pupil_sum
from braggscope.modalities.nanobeam.geometry import published

ANGLES = ("strain", "omega", "chi")
EVERY = (*ANGLES, "scale", "background", "thickness")


def row(what, target, measured):
    print(f"{what} | {target} | {measured}", flush=True)


def bound(forward, truth, free):
    """Cramer-Rao standard deviations of each frame at the truth, float64, shape (frame, parameter)."""
    names = EVERY[:free]
    parts = []
    for first in range(0, len(truth["strain"]), 50):
        some = {n: torch.from_numpy(truth[n].values.ravel()[first : first + 50]) for n in EVERY}
        expected, jacobian = forward.jacobian(some, names)
        jacobian = jacobian.flatten(2)
        information = (jacobian / expected.flatten(1)[:, None]) @ jacobian.mT
        parts.append(torch.linalg.inv(information).diagonal(dim1=-2, dim2=-1).sqrt())
    return torch.cat(parts).numpy()


def accuracy(geometry, source, counts, limit, target, label, free):
    estimator = Likelihood(geometry, thickness="free" if free == 6 else "fixed")
    found = estimator.fit(Batch(np.arange(len(counts)), counts))
    outside = np.zeros(len(counts), bool)
    for i, name in enumerate(EVERY[:free]):
        if name in ("scale", "background"):
            continue
        error = found[name] - source.truth[name].values.ravel()
        std, crb = found[f"{name}_std"], limit[:, i]
        good = np.isfinite(error)
        ratio = np.sqrt(np.mean(error[good] ** 2) / np.mean(crb[good] ** 2))
        row(f"{label}: {name} RMSE / bound", target, f"{ratio:.3f} (RMSE {np.sqrt(np.mean(error[good] ** 2)):.3g})")
        z = (error / std)[good]
        row(f"{label}: {name} z spread (mean)", "0.95 to 1.05", f"{z.std():.3f} ({z.mean():+.3f})")
        outside |= ~good | (np.abs(error / crb) > 6)
    row(f"{label}: frames lost or beyond 6 sigma, of {len(counts)}", "0", int(outside.sum()))
    row(f"{label}: flagged frames", "", int((found["flag"] != 0).sum()))
    dev = (found["reduced_deviance"] - 1) * found["deviance_expected"] / np.sqrt(found["deviance_variance"])
    row(f"{label}: deviance z mean, spread", "0, 1", f"{np.nanmean(dev):+.3f}, {np.nanstd(dev):.3f}")


def smoothness(geometry):
    """Largest difference between a finite difference over 1e-5 deg and the derivative, in units of the steepest pixel."""
    forward, step = NanobeamForward(geometry, (64, 64)), 1e-5
    for name, high in (("chi", 0.1), ("omega", 0.05)):
        worst, worst_central = 0.0, 0.0
        values = torch.linspace(-high, high, 1001, dtype=torch.float64)
        for at in values.split(50):
            p = {n: torch.full_like(at, v) for n, v in zip(EVERY, (2e-3, 0.013, -0.021, 7.0, 0.1, 117.0), strict=True)}
            p[name] = at
            slope = forward.jacobian(p, (name,))[1][:, 0]
            ahead = forward({**p, name: at + step})
            one = (ahead - forward(p)) / step
            central = (ahead - forward({**p, name: at - step})) / (2 * step)
            worst = max(worst, float((one - slope).abs().max() / slope.abs().max()))
            worst_central = max(worst_central, float((central - slope).abs().max() / slope.abs().max()))
        row(f"no step of {name}: difference over 1e-5 deg against the derivative", "smooth", f"{worst:.1e}")
        row(f"no step of {name}: the same, central", "smooth", f"{worst_central:.1e}")


def against_the_sum(geometry, count):
    """Frames drawn from the full sum over the pupil, fitted with the closed form: what the approximation costs."""
    source = phantom.uniform(geometry, shape=(count,), seed=11)
    values = [{n: float(source.truth[n].values[i]) for n in EVERY} for i in range(count)]
    mean = np.stack([full_pupil_sum(geometry, (64, 64), v, step_px=0.04, points=4).numpy() for v in values])
    closed = source.expected(np.arange(count)).numpy()
    row(
        "closed form against the full sum, L1", "0.04 to 0.1 %", f"{100 * np.abs(mean - closed).sum() / (mean - 0.1).sum():.3f} %"
    )
    counts = np.random.default_rng(5).poisson(mean).astype(np.uint16)
    limit = bound(NanobeamForward(geometry, (64, 64)), source.truth, 5)
    accuracy(geometry, source, counts, limit, "<= 1.05", "frames of the full sum, peak 7", 5)


def speed(geometry, repeats):
    counts = phantom.uniform(geometry, shape=(1000,), seed=2).frames(np.arange(1000)).astype(np.uint16)
    made = tables(geometry, (64, 64))
    for label, free in (("", 5), (", thickness free", 6)):
        fit(made, counts[:50], None, free, 117.0)
        wall, cpu = [], []
        for _ in range(repeats):
            a, b = time.perf_counter(), time.process_time()
            fit(made, counts, None, free, 117.0)
            wall.append(time.perf_counter() - a)
            cpu.append(time.process_time() - b)
        row(f"likelihood kernel, ms/frame (64 x 64){label}", "<= 0.2", f"{min(wall):.3f} (processor time {min(cpu):.3f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=4000, help="frames of each row")
    parser.add_argument("--full-sum", type=int, default=200, help="frames drawn from the full sum over the pupil")
    parser.add_argument("--repeats", type=int, default=7, help="timings of which the least is printed")
    arguments = parser.parse_args()
    geometry = published()
    row("what", "target", "measured")
    speed(geometry, arguments.repeats)
    smoothness(geometry)
    cases = [(peak, None) for peak in (5.0, 7.0, 9.0)] + [(7.0, (80.0, 300.0))]
    for peak, thickness in cases:
        free = 6 if thickness else 5
        source = phantom.uniform(geometry, shape=(arguments.frames,), seed=int(peak), peak=peak, thickness=thickness)
        counts = source.frames(np.arange(arguments.frames)).astype(np.uint16)
        limit = bound(NanobeamForward(geometry, (64, 64)), source.truth, free)
        label = f"peak {peak:g}" + (", thickness free 80 to 300 angstrom" if thickness else "")
        accuracy(geometry, source, counts, limit, "<= 1.10" if thickness else "<= 1.05", label, free)
    if arguments.full_sum:
        against_the_sum(geometry, arguments.full_sum)


if __name__ == "__main__":
    main()
