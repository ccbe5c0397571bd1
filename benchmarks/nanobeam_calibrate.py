"""Mis-set optics, before and after `calibrate`: errors against the Cramer-Rao bound, goodness of fit, time.

The scan is made with a ring 1.6 % smaller than the geometry says, the centre off by 0.4 px both ways, the illumination falling by
8 % from top to bottom and 0.5 px more blur; calibration starts from the geometry as stated. The error of a scan is the root mean
square after subtracting the median, since the origin of strain and tilts is chosen (mean tilts 0).

    python benchmarks/nanobeam_calibrate.py [--frames 600] [--seeds 3] [--data DIR]

With --data, the two measured SrIrO3 frames (nanobeam/exp_frames_decoded_from_png.npz in DIR) are calibrated too.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from braggscope.core.source import Source
from braggscope.modalities.nanobeam.calibrate import calibrate
from braggscope.modalities.nanobeam.estimators.likelihood import Likelihood
from braggscope.modalities.nanobeam.forward import NanobeamForward
from braggscope.modalities.nanobeam.geometry import NanobeamGeometry, published
from braggscope.modalities.nanobeam.phantom import random_fields, uniform
from braggscope.modalities.nanobeam.pupil import pupil, save_pupil, transmission

NAMES = ("strain", "omega", "chi")


def mis_set(folder: Path) -> NanobeamGeometry:
    """The optics as they are, against `published`."""
    true = published().replace(ring_scale=0.984, centre_row_px=0.4, centre_column_px=0.4, source_px=0.5)
    table = pupil(true)
    at = torch.arange(-32, 32.01, 0.125, dtype=torch.float64)
    image = transmission(torch.as_tensor(table.coefficients), table.origin, table.per_pixel, at, at)[0].numpy()
    slope = 1 - 0.04 * at.numpy()[:, None] / true.ring_radii_px[1]
    save_pupil(folder / "true.npz", image * slope, 0.125)
    return true.replace(pupil_file=str(folder / "true.npz"))


def bound(geometry: NanobeamGeometry, truth: xr.Dataset, frame_shape: tuple[int, int]) -> np.ndarray:
    """Root mean square over the scan of the Cramer-Rao bound of NAMES, scale and background free."""
    forward = NanobeamForward(geometry, frame_shape)
    names = (*NAMES, "scale", "background")
    variance = []
    for i in range(0, truth["strain"].size, 32):
        params = {n: torch.from_numpy(truth[n].values.ravel()[i : i + 32].copy()) for n in forward.params}
        expected, jacobian = forward.jacobian(params, names)
        fisher = torch.einsum("fnrc,fmrc,frc->fnm", jacobian, jacobian, 1 / expected)
        variance.append(torch.linalg.inv(fisher).diagonal(dim1=1, dim2=2)[:, :3])
    return torch.cat(variance).mean(0).sqrt().numpy()


def mapped(source: Source, geometry: NanobeamGeometry) -> xr.Dataset:
    """The likelihood map."""
    estimator = Likelihood(geometry)
    state = estimator.init(source)
    for batch in source.batches():
        state = estimator.update(state, batch)
    return estimator.result(state)


def errors(result: xr.Dataset, truth: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square error about the median, and the median, of NAMES."""
    error = np.stack([(result[n] - truth[n]).values.ravel() for n in NAMES])
    median = np.nanmedian(error, axis=1)
    return np.sqrt(np.nanmean((error - median[:, None]) ** 2, axis=1)), median


def simulated(frames: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        true = mis_set(Path(folder))
        kinds = {"uniform over the full range": uniform(true, shape=(frames,), seed=seed)}
        kinds["smooth random fields"] = random_fields(true, shape=(20, frames // 20), seed=seed)
        for kind, scan in kinds.items():
            limit = bound(true, scan.truth, scan.frame_shape)
            started = time.perf_counter()
            found = calibrate(scan, published())
            took = time.perf_counter() - started
            for label, geometry in (("before", published()), ("after", found.geometry)):
                result = mapped(scan, geometry)
                size, median = errors(result, scan.truth)
                flagged = float((result["flag"].values != 0).mean())
                whole, std = result.attrs["reduced_deviance"], result.attrs["reduced_deviance_std"]
                ratio = ", ".join(f"{n} {r:.3f}" for n, r in zip(NAMES, size / limit, strict=True))
                shift = ", ".join(f"{n} {m:.2g}" for n, m in zip(NAMES, median, strict=True))
                goal = "<= 1.15 each" if label == "after" else "flagged"
                print(f"{kind}, seed {seed}, {label}: RMSE / bound | {goal} | {ratio} (median error {shift})")
                print(f"    reduced deviance of the scan {whole:.4f} +- {std:.4f}, frames flagged {100 * flagged:.1f} %")
            print(f"{kind}, seed {seed}: calibrate of {frames} frames | <= 50 s | {took:.1f} s")
            print("    " + "\n    ".join(found.summary[1:-1]))


def measured(data: Path) -> None:
    """The two SrIrO3 frames: what is known of them, and what is found."""
    from braggscope.core.simulation import Simulation

    frames = np.load(data / "nanobeam" / "exp_frames_decoded_from_png.npz")
    stack = np.stack([frames["idx12385"], frames["idx13650"]]).astype(np.float32)
    grid = xr.Dataset(coords={"point": np.arange(2)})
    scan = Simulation(None, grid, stack.shape[1:], lambda i: torch.from_numpy(stack[i]), xr.Dataset(), None)
    found = calibrate(scan, published())
    print("SrIrO3, two frames | outer 26.04 to 26.20 px, inner 13.56 to 13.62 (+-0.15), blur 0.66 to 0.89, top 15 % brighter |")
    print("    " + "\n    ".join(found.summary))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    print("what | target | measured")
    for seed in range(options.seeds):
        simulated(options.frames, seed)
    if options.data is not None:
        measured(options.data)


if __name__ == "__main__":
    main()
