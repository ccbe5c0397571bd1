"""F from four reflections in oblique geometry: an edge dislocation at published noise and sampling, and the errors' honesty.

    python benchmarks/dfxm_deformation.py [--frame-shape 112 216] [--repeats 20] [--save FOLDER] [--maps FOLDER]

Published (Henningsson et al. 2025, arXiv:2503.22022, and its program darkmod): aluminium 113, 19.1 keV, 11 x 41 x 41 positions,
at most 62 720 counts, shot noise and a Gaussian of 99.453 +- 2.317; mean absolute error of the distortion below 1e-6, Burgers
vector within 2 %. Each scan is simulated, mapped by `moments` and given to `deformation`; gain and read-out noise
are known beforehand.
--maps takes the maps of an earlier --save instead of simulating the dislocation again; --repeats 0 leaves the repetitions out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from braggscope.core.maps import Quantity, empty_map, flag_counts, load, save
from braggscope.core.simulation import Simulation
from braggscope.modalities.dfxm.analysis.deformation import deformation
from braggscope.modalities.dfxm.estimators.moments import Moments
from braggscope.modalities.dfxm.oblique.component_names import COMPONENTS
from braggscope.modalities.dfxm.oblique.reflections import PUBLISHED, published
from braggscope.modalities.dfxm.phantoms import oblique as phantom

# half ranges of obpitch, chi and phi of each reflection as published, mrad; obpitch is twice theta
HALF_MRAD = ((1.5, 2.3, 0.35), (1.4, 0.65, 2.3), (1.5, 2.3, 0.35), (1.4, 0.35, 2.3))
CORE_UM = 0.2  # places nearer to the line than this are told apart


def half_deg(number: int) -> tuple[float, ...]:
    return tuple(np.degrees(np.array(HALF_MRAD[number]) * 1e-3))


def moments(simulation: Simulation) -> xr.Dataset:
    estimator = Moments.with_options(None, {"gain": 1.0, "readout": float(np.hypot(phantom.CAMERA.readout, 12**-0.5))})
    state = estimator.init(simulation)
    for batch in simulation.batches():
        state = estimator.update(state, batch)
    return estimator.result(state)


def tensors(dataset: xr.Dataset, suffix: str = "") -> np.ndarray:
    found = np.stack([dataset[f"F_{c}{suffix}"].values for c in COMPONENTS], -1)
    return found.reshape(*found.shape[:-1], 3, 3)


def places(dataset: xr.Dataset) -> torch.Tensor:
    x, y = np.meshgrid(dataset["x"], dataset["y"])
    return torch.from_numpy(np.stack([x, y, np.zeros_like(x)], -1))


def mapped(frame_shape: tuple[int, int]) -> list[xr.Dataset]:
    """Maps of the four simulated scans of one dislocation."""
    start, maps = time.perf_counter(), []
    for number in range(4):
        scan = phantom.edge_dislocation(
            None, frame_shape=frame_shape, seed=number, reflection=number + 1, half_deg=half_deg(number)
        )
        maps.append(moments(scan))
        print(f"  reflection {number + 1}: {flag_counts(maps[-1])['good']} good, {time.perf_counter() - start:.0f} s", flush=True)
    return maps


def one_dislocation(reflections: Path, maps: list[xr.Dataset], folder: Path | None) -> None:
    """Truth and what is found, at the published noise and sampling."""
    frame_shape = maps[0]["total"].shape
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(maps, start=1):
            save(one, folder / f"reflection_{number}.h5")
    start = time.perf_counter()
    size = 0.4 * min(frame_shape[1] / 216, frame_shape[0] / 112)
    box = tuple(10 * size * v for v in (-1, 1, -1, 1))
    found = deformation(maps, reflections=reflections, circuit_um=box, circuit_width_um=5 * size)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    truth = phantom.dislocation_field(published())(places(found)).numpy()
    measured, radius = tensors(found), np.linalg.norm(places(found)[..., :2], axis=-1)
    good = np.isfinite(measured).all(axis=(-2, -1))
    far = good & (radius > CORE_UM)
    away = np.abs(measured - truth)
    z = ((measured - truth) / tensors(found, "_std"))[good & (radius > 2)]
    b = published().orientation @ np.array(phantom.BURGERS)
    b = 1e3 * phantom.BURGERS_UM * b / np.linalg.norm(b)
    errors = [100 * abs(found.attrs[f"burgers_{c}_nm"] - v) / np.linalg.norm(b) for c, v in zip("xyz", b, strict=True)]
    stds = [100 * found.attrs[f"burgers_{c}_nm_std"] / np.linalg.norm(b) for c in "xyz"]
    print(f"one edge dislocation, {frame_shape[0]} x {frame_shape[1]} pixels, {int(good.sum())} places with F, {seconds:.1f} s")
    print("                                                        target | measured")
    print(f"distortion, mean absolute error, all places          <= 1.0e-6 | {away[good].mean():.2e}")
    print(f"  without the places within {CORE_UM} um of the line       <= 1.0e-6 | {away[far].mean():.2e}")
    print(f"  root mean square, likewise                                   | {np.sqrt((away[far] ** 2).mean()):.2e}")
    print(f"  worst component (xx ... zz), mean absolute                   | {away[far].mean(axis=0).max():.2e}")
    for c, error, std in zip("xyz", errors, stds, strict=True):
        print(f"Burgers vector, component {c}, % of b                     <= 1 | {error:.2f} (standard deviation {std:.2f})")
    print(f"z-scores of F beyond 2 um from the line            0.95 - 1.05 | {z.std():.3f}")
    print(f"shifts found (true: 0), um: {[found.attrs[f'shift_{i}_{c}_um'] for i in (2, 3, 4) for c in 'xy']}")
    if folder is not None:
        save(found, folder / "deformation.h5")


def speed(reflections: Path) -> None:
    """Time for 256 x 256 pixels by four reflections; the peaks are the true ones."""
    shape, std, maps = (256, 256), {"chi": 4e-5, "phi": 2e-5, "obpitch": 3e-5}, []
    for k in (1, 2, 3, 4):
        truth = phantom.finite_strain(None, frame_shape=shape, reflection=k).truth
        found = empty_map(
            [q for n in std for q in (Quantity(n, "deg", n), Quantity(n, "deg", n).std())],
            ("row", "column"),
            shape,
            {},
            {1: "bad"},
        )
        for name, value in std.items():
            found[name].values[...], found[f"{name}_std"].values[...] = truth[name].values, value
        maps.append(found)
    for register in ("none", "bending"):
        start, processor = time.perf_counter(), time.process_time()
        found = deformation(maps, reflections=reflections, register=register)
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        places = f"{found.sizes['y']} x {found.sizes['x']} places"
        print(f"256 x 256 pixels x 4 reflections, {places}, register={register}: {seconds:.1f} s, {processor:.1f} s of processor")


def honesty(reflections: Path, repeats: int) -> None:
    """A smooth large strain, many noise realisations of frames; z-scores of everything that comes with an error.

    The truth is F from the exact mean diffraction vector on the ray of each pixel: what a camera without noise would show. How
    far that is from F on the plane is told apart; it is the resolution along the ray, not an error of the measurement.
    """
    shape, frame_shape, found = (11, 31, 31), (16, 26), []
    for seed in range(repeats):
        scans = [
            phantom.finite_strain(None, shape=shape, frame_shape=frame_shape, seed=100 * seed + k, reflection=k, strain=5e-4)
            for k in (1, 2, 3, 4)
        ]
        maps = [moments(scan) for scan in scans]
        found.append(deformation(maps, reflections=reflections, register="none", circuit_um=(-0.3, 0.3, -0.3, 0.3)))
    exact = [
        m.assign({n: m[n].copy(data=s.truth[n].values) for n in phantom.SEEN.names}) for m, s in zip(maps, scans, strict=True)
    ]
    ideal = deformation(exact, reflections=reflections, register="none")
    on_plane = phantom.smooth_field(5e-4)(places(found[0])).numpy()
    error = np.array([tensors(one) - tensors(ideal) for one in found]) / np.array([tensors(one, "_std") for one in found])
    print(f"finite strain of 5e-4, {repeats} scans of each of four reflections, frames drawn anew")
    print("                                                        target | measured")
    print(
        f"z-scores of F, all components                      0.95 - 1.05 | {np.nanstd(error):.3f} (mean {np.nanmean(error):.3f})"
    )
    print(f"  F of the mean vector on the ray - F on the plane, mean abs.  | {np.nanmean(np.abs(tensors(ideal) - on_plane)):.1e}")
    for name in ("strain_xx", "strain_yz", "rotation_x", "rotation_z", "dislocation_density_x", "dislocation_density_z"):
        values = np.array([one[name].values for one in found])
        spread = (values - values.mean(axis=0)) / np.array([one[f"{name}_std"].values for one in found])
        z = np.sqrt(np.nanmean(spread**2) * repeats / (repeats - 1))
        print(f"  {name:48s} 0.95 - 1.05 | {z:.3f}")
    for c in "xyz":
        values = np.array([one.attrs[f"burgers_{c}_nm"] for one in found])
        std = np.mean([one.attrs[f"burgers_{c}_nm_std"] for one in found])
        ratio = f"{values.std(ddof=1) / std:.2f} +- {(2 * repeats) ** -0.5:.2f}"
        print(f"  Burgers vector of a circuit around nothing, {c}             | {ratio}")
    deviance = np.nanmean([one["reduced_deviance"].values for one in found])
    print(f"reduced deviance of the regression                             | {deviance:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frame-shape", type=int, nargs=2, default=(112, 216))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--save", type=Path, help="folder for the maps of the dislocation")
    parser.add_argument("--maps", type=Path, help="folder of an earlier --save")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reflections = Path(folder) / "reflections.toml"
        reflections.write_text(PUBLISHED)
        if given.repeats > 1:
            honesty(reflections, given.repeats)
        made = [load(given.maps / f"reflection_{k}.h5") for k in (1, 2, 3, 4)] if given.maps else mapped(tuple(given.frame_shape))
        one_dislocation(reflections, made, given.save)
        speed(reflections)


if __name__ == "__main__":
    main()
