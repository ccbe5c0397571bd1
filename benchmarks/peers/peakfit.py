"""Fits by darling, darfix and midas-dfxm of the arrays in a folder, in an interpreter that has them; times as JSON.

    PYTHON benchmarks/peers/peakfit.py FOLDER

FOLDER holds rocking.npy (point, row, column) and mosaicity.npy (point, point, row, column), float32, and their axes. darfix fits
a corner of the image, since the whole takes many minutes; its time is given per pixel.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

CORNER = 48


def seconds(work) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    folder = Path(sys.argv[1])
    rocking, mosaicity = np.load(folder / "rocking.npy"), np.load(folder / "mosaicity.npy")
    mu, chi = np.load(folder / "mu.npy"), np.load(folder / "chi.npy")
    found: dict[str, float] = {}

    from darfix._core.rocking_curves import fit_rocking_curve_parallel

    part = rocking[:, :CORNER, :CORNER].astype(np.float64)
    fit_rocking_curve_parallel(part[:, :8, :8], {"mu": mu})
    found["darfix_1d_us"] = seconds(lambda: fit_rocking_curve_parallel(part, {"mu": mu})) / CORNER**2 * 1e6
    part = mosaicity[..., :CORNER, :CORNER].astype(np.float64)
    grid = dict(zip(("chi", "mu"), (m.ravel() for m in np.meshgrid(chi, chi, indexing="ij")), strict=True))
    flat = part.reshape(-1, CORNER, CORNER)
    fit_rocking_curve_parallel(flat[:, :8, :8], grid)
    found["darfix_2d_us"] = seconds(lambda: fit_rocking_curve_parallel(flat, grid)) / CORNER**2 * 1e6

    import darling

    stack = np.ascontiguousarray(np.moveaxis(mosaicity, (0, 1), (2, 3)).astype(np.uint16))
    both = np.array(np.meshgrid(chi, chi, indexing="ij"))
    darling.properties.gaussian_mixture(stack[:4, :4], k=2, coordinates=both)
    found["darling_two_labels_us"] = (
        seconds(lambda: darling.properties.gaussian_mixture(stack, k=2, coordinates=both)) / stack[..., 0, 0].size * 1e6
    )

    import torch
    from midas_dfxm.mosaicity_fit import fit_rocking_curve

    curves = torch.as_tensor(rocking.reshape(len(mu), -1).T.copy())
    angle = torch.as_tensor(mu, dtype=torch.float32)
    size = min(len(curves), 2**16)
    fit_rocking_curve(curves[:1000], angle)
    found["midas_1d_us"] = seconds(lambda: fit_rocking_curve(curves[:size], angle)) / size * 1e6
    print(json.dumps(found))


if __name__ == "__main__":
    main()
