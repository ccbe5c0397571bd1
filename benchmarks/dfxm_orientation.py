"""Lattice rotations, KAM and domains: against closed forms, and beside darling and darfix on the same maps.

    python benchmarks/dfxm_orientation.py                              a known field of rotations
    python benchmarks/dfxm_orientation.py --peers PYTHON               also KAM by darling and darfix
    python benchmarks/dfxm_orientation.py --data ../shared/data        also the real mosaicity scan and the real strain scan

The truth is made by scipy's rotations, pair by pair, from the motor positions; no code of braggscope takes part in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from braggscope.modalities.dfxm.analysis.domains import domains
from braggscope.modalities.dfxm.analysis.kam import kam
from braggscope.modalities.dfxm.analysis.orientation import orientation
from braggscope.modalities.dfxm.analysis.strain import strain
from braggscope.modalities.dfxm.geometry import DfxmGeometry

SHAPE = (400, 500)
TWO_THETA, OMEGA = 17.95, 35.0  # deg; omega carries the axis of chi away from the beam
SQUARE = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
DIAMOND = [(-1, 0), (0, -1), (0, 1), (1, 0)]


def row(what: str, target: object, measured: object) -> None:
    print(f"{what:66s}| {target:>9} | {measured}", flush=True)


def motors() -> dict[str, np.ndarray]:
    """Smooth maps of mu and chi (deg), with a wall."""
    random = np.random.default_rng(0)
    found = {n: c + 40 * gaussian_filter(random.normal(size=SHAPE), 12) for n, c in (("mu", 6.0), ("chi", -12.0))}
    found["chi"][:, SHAPE[1] // 3 :] += 0.8
    return found


def motor_map(positions: dict[str, np.ndarray]) -> xr.Dataset:
    """A map with these positions, as a method makes one."""
    found = {n: (("row", "column"), v, {"units": "deg", "long_name": n}) for n, v in positions.items()}
    flag = {"flag_masks": np.array([1], np.int32), "flag_meanings": "no_signal", "long_name": "flag"}
    found["flag"] = (("row", "column"), np.zeros(SHAPE, np.int32), flag)  # type: ignore[assignment]
    return xr.Dataset(found, attrs={"still_motors": json.dumps({"omega": OMEGA, "phi": 0.0})})


def bisector() -> list[float]:
    """The direction that diffracts."""
    theta = np.radians(TWO_THETA / 2)
    return [-float(np.sin(theta)), 0.0, float(np.cos(theta))]


def gamma(positions: dict[str, np.ndarray]) -> Rotation:
    """The goniometer by scipy, R_mu R_omega R_chi, a rotation for each pixel."""
    turn = Rotation.from_euler("Y", -positions["mu"].reshape(-1, 1), degrees=True) * Rotation.from_euler("Z", OMEGA, degrees=True)
    return turn * Rotation.from_euler("X", positions["chi"].reshape(-1, 1), degrees=True)


def vectors(positions: dict[str, np.ndarray]) -> np.ndarray:
    """Diffraction vectors in the sample: what the goniometer brings onto the bisector."""
    return gamma(positions).inv().apply(bisector()).reshape(*SHAPE, 3)


def mean_angle(field: np.ndarray, steps: list[tuple[int, int]], itself: bool = False) -> np.ndarray:
    """Mean of the angles (deg) to the neighbours that are inside the image; itself: counted too, as a misorientation of zero."""
    total, count = np.zeros(SHAPE), np.full(SHAPE, float(itself))
    for i, j in steps:
        here = np.s_[max(0, -i) : SHAPE[0] - max(0, i), max(0, -j) : SHAPE[1] - max(0, j)]
        there = np.s_[max(0, i) : SHAPE[0] - max(0, -i), max(0, j) : SHAPE[1] - max(0, -j)]
        a, b = field[here], field[there]
        total[here] += np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))
        count[here] += 1
    return total / count


def known_field(positions: dict[str, np.ndarray]) -> None:
    """One reflection, end to end from motor positions; and full rotations."""
    geometry = DfxmGeometry(two_theta_deg=TWO_THETA)
    m, truth = motor_map(positions), vectors(positions)
    o = orientation(m, geometry=geometry)
    kam(o)
    start = time.perf_counter()
    o = orientation(m, geometry=geometry)
    middle = time.perf_counter()
    found = kam(o)["kam"].values
    seconds = middle - start, time.perf_counter() - middle
    row(
        "KAM from motor positions, one reflection, largest error (deg)",
        "<= 1e-06",
        f"{np.abs(found - mean_angle(truth, SQUARE)).max():.1e}",
    )
    row(
        "  the same, four neighbours",
        "<= 1e-06",
        f"{np.abs(kam(m, kernel='diamond', geometry=geometry)['kam'].values - mean_angle(truth, DIAMOND)).max():.1e}",
    )
    random = np.random.default_rng(1)
    w = np.stack([40 * gaussian_filter(random.normal(size=SHAPE), 12) for _ in range(3)], -1)
    full = motor_map({f"rotation_{c}": w[..., i] for i, c in enumerate("xyz")})
    row("KAM of full rotations, largest error (deg)", "<= 1e-06", f"{np.abs(kam(full)['kam'].values - mean_turn(w)).max():.1e}")
    row(f"seconds for {SHAPE[0]} x {SHAPE[1]} pixels: orientation, KAM", "", f"{seconds[0]:.2f}, {seconds[1]:.2f}")


def mean_turn(w: np.ndarray) -> np.ndarray:
    """KAM of rotation vectors (deg) by scipy."""
    total, count = np.zeros(SHAPE), np.zeros(SHAPE)
    for i, j in SQUARE:
        here = np.s_[max(0, -i) : SHAPE[0] - max(0, i), max(0, -j) : SHAPE[1] - max(0, j)]
        there = np.s_[max(0, i) : SHAPE[0] - max(0, -i), max(0, j) : SHAPE[1] - max(0, -j)]
        a, b = (Rotation.from_rotvec(w[at].reshape(-1, 3), degrees=True) for at in (here, there))
        total[here] += np.degrees((b * a.inv()).magnitude()).reshape(total[here].shape)
        count[here] += 1
    return total / count


def beside_peers(positions: dict[str, np.ndarray], python: str) -> None:
    """What darling and darfix have of the same maps, and what explains the difference."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for motor, values in positions.items():
            np.save(folder / f"{motor}.npy", values)
        (folder / "settings.json").write_text(json.dumps({"omega_deg": OMEGA, "two_theta_deg": TWO_THETA}))
        script = Path(__file__).parent / "peers" / "orientation.py"
        done = subprocess.run([python, str(script), str(folder)], check=True, capture_output=True, text=True)
        seconds, peers = json.loads(done.stdout.splitlines()[-1]), dict(np.load(folder / "peers.npz"))
    truth, inside = vectors(positions), np.s_[1:-1, 1:-1]
    square, diamond = mean_angle(truth, SQUARE), mean_angle(truth, DIAMOND)
    theirs = peers["vectors"] / np.linalg.norm(peers["vectors"], axis=-1, keepdims=True)
    row(
        "angles between darling's diffraction vectors, apart (deg)",
        "0",
        f"{np.abs(mean_angle(theirs, SQUARE) - square).max():.1e}",
    )
    middle = {n: np.full((1, 1), np.median(v)) for n, v in positions.items()}
    steps = [(v - v[:1, :1]).reshape(-1, 3) for v in (theirs, truth)]
    row("  correlation of their changes with those of the vectors", "1", f"{np.corrcoef(*(v.ravel() for v in steps))[0, 1]:.3f}")
    ahead = gamma(positions) * gamma(middle).inv()
    turned = (gamma(middle).inv() * ahead).apply(bisector()).reshape(*SHAPE, 3)
    row("  they are the reference turned by the motors, within", "", f"{np.abs(turned - theirs).max():.1e}")
    ratio = peers["darling"][inside] / square[inside]
    row(
        "darling's KAM / misorientation inside: lowest, median, highest",
        "1",
        ", ".join(f"{v:.4f}" for v in np.percentile(ratio, [0, 50, 100])),
    )
    row("darling's KAM at the edge of the image (deg)", "", f"{np.abs(peers['darling'][0]).max():g}")
    ratio = peers["darfix"][inside] / diamond[inside]
    row(
        "darfix's KAM / misorientation inside: lowest, median, highest",
        "1",
        ", ".join(f"{v:.4f}" for v in np.percentile(ratio, [0, 50, 100])),
    )
    counted = mean_steps(positions, itself=True)
    row(
        "  and with the pixel itself counted, of motor differences (deg)",
        "",
        f"{np.abs(peers['darfix'][inside] - counted[inside])[:, 2:].max():.1e} apart",
    )
    row("seconds for KAM alone: darling, darfix", "", f"{seconds['darling_s']:.3f}, {seconds['darfix_s']:.3f}")


def mean_steps(positions: dict[str, np.ndarray], itself: bool) -> np.ndarray:
    """Mean distance (deg) of the motor positions of the four neighbours, as darfix has it."""
    pair = np.stack([positions["mu"], positions["chi"]], -1)
    total, count = np.zeros(SHAPE), np.full(SHAPE, float(itself))
    for i, j in DIAMOND:
        here = np.s_[max(0, -i) : SHAPE[0] - max(0, i), max(0, -j) : SHAPE[1] - max(0, j)]
        there = np.s_[max(0, i) : SHAPE[0] - max(0, -i), max(0, j) : SHAPE[1] - max(0, -j)]
        total[here] += np.linalg.norm(pair[there] - pair[here], axis=-1)
        count[here] += 1
    return total / count


def real_scans(data: Path) -> None:
    """The domains of the mosaicity scan by threshold, and again with the map disturbed by its own errors; the strain scan."""
    from sklearn.metrics import adjusted_rand_score

    import braggscope

    m = braggscope.map(braggscope.open(data / "dfxm" / "id03_mosa_domains_111_Al_chi_diffry.h5"), progress=False)
    o = orientation(m)
    random = np.random.default_rng(0)
    noisy = o.copy(deep=True)
    for name in ("rotation_x", "rotation_y"):
        noisy[name] = o[name] + random.normal(size=o[name].shape) * o[f"{name}_std"]
    found, steps = kam(o)["kam"].values, np.full(o["flag"].shape, np.nan)
    pair = np.stack([m["diffry"].values, m["chi"].values], -1)
    apart = [np.linalg.norm(np.roll(pair, s, (0, 1)) - pair, axis=-1) for s in SQUARE]
    steps[1:-1, 1:-1] = np.mean(apart, 0)[1:-1, 1:-1]  # where no neighbour is missing, what darling has
    ratio = np.where(np.isfinite(steps), steps / found, np.nan)
    row(
        "real domains scan: motor difference / misorientation",
        "1",
        ", ".join(f"{v:.5f}" for v in np.nanpercentile(ratio, [0, 50, 100])),
    )
    print("threshold (deg) | domains | median size (px) | median step (deg) | agreement with itself disturbed by its errors")
    for threshold in (0.05, 0.1, 0.15, 0.2, 0.3):
        d, again = (domains(one, threshold=threshold) for one in (o, noisy))
        same = adjusted_rand_score(d["label"].values.ravel(), again["label"].values.ravel())
        size, step = float(d["size"].median()), float(d["wall_step"].median())
        print(f"{threshold:15g} | {d.attrs['domains']:7d} | {size:16g} | {step:17.3f} | {same:.2f}")
    path = data / "dfxm" / "id03_energy_chi_Al_5pct_layer0.h5"
    maps = [
        braggscope.map(braggscope.open(path, scan=f"110_5pct_layer_0_111_strain_energy_{i}_1.1"), progress=False)
        for i in range(9)
    ]
    s = strain(maps)
    pixel = s["strain"].values[:, 1:] - s["strain"].values[:, :-1]
    noise = 1.4826 * np.median(np.abs(pixel - np.median(pixel))) / np.sqrt(2)
    row("real strain scan: noise between neighbours / stated error", "1", f"{noise / float(s['strain_std'].median()):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="interpreter with darling and darfix")
    parser.add_argument("--data", type=Path, help="folder with dfxm/ in it")
    given = parser.parse_args()
    positions = motors()
    row(f"mu and chi maps of {SHAPE[0]} x {SHAPE[1]}, omega {OMEGA:g} deg", "target", "measured")
    known_field(positions)
    if given.peers:
        beside_peers(positions, given.peers)
    if given.data:
        real_scans(given.data)


if __name__ == "__main__":
    main()
