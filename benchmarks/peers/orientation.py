"""KAM and diffraction vectors by darling and darfix of the motor maps in a folder, in an interpreter that has them.

    PYTHON benchmarks/peers/orientation.py FOLDER

FOLDER holds mu.npy and chi.npy (deg, shape (row, column)) and settings.json (omega_deg, two_theta_deg). Written there: peers.npz
with `darling` and `darfix` (KAM as these have it, of 3 x 3 and of 4 neighbours) and `vectors` (darling's, sample frame).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np


def timed(work):  # type: ignore[no-untyped-def]
    """The result of a second call, without compilation, and its seconds."""
    work()
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def main() -> None:
    folder = Path(sys.argv[1])
    mu, chi = np.load(folder / "mu.npy"), np.load(folder / "chi.npy")
    said = json.loads((folder / "settings.json").read_text())
    import darling.properties
    import darling.transforms
    from darfix._processing.kernel_average_misorientation import compute_kernel_average_misorientation
    from scipy.spatial.transform import Rotation

    pair = np.stack([mu, chi], -1)
    kam, kam_s = timed(lambda: darling.properties.kam(pair, size=(3, 3)))
    planes = np.ascontiguousarray(np.moveaxis(pair, -1, 0))
    darfix, darfix_s = timed(lambda: compute_kernel_average_misorientation(planes, 1, 1))
    # a grain whose 111 lies along the bisector of the beams at the median motors, as darling takes it
    theta = np.radians(said["two_theta_deg"]) / 2
    q = np.array([-np.sin(theta), 0, np.cos(theta)])
    across = np.array([0.0, 1.0, 0.0])
    laboratory = np.stack([q, across, np.cross(q, across)], -1)
    crystal = np.stack([np.ones(3) / 3**0.5, np.array([1, -1, 0]) / 2**0.5, np.array([1, 1, -2]) / 6**0.5], -1)
    turn = Rotation.from_euler("YZX", [-np.median(mu), said["omega_deg"], np.median(chi)], degrees=True).inv().as_matrix()
    vectors, vectors_s = timed(
        lambda: darling.transforms.diffraction_vectors(
            turn @ laboratory @ crystal.T, np.array([4.0495] * 3 + [90.0] * 3), np.array([1, 1, 1]),
            mu=mu, omega=said["omega_deg"], chi=chi, phi=0.0, frame="sample",
        )
    )  # fmt: skip
    np.savez(folder / "peers.npz", darling=kam, darfix=darfix, vectors=vectors)
    print(json.dumps({"darling_s": kam_s, "darfix_s": darfix_s, "vectors_s": vectors_s}))


if __name__ == "__main__":
    main()
