"""darling opens simulated scans in the layout of ESRF ID03: one line of JSON for each file.

    PYTHON simulator.py SCAN.h5 ...         with the PYTHON of an environment that has darling

same_counts: its stack is the images of the file, pixel by pixel and point by point. motors: largest difference of its motor
positions from the planned ones, degrees. mean: largest difference of its first moments from sum y x / sum y, degrees.
"""

import json
import sys

import darling
import h5py
import numpy as np


def opened(path: str) -> dict:
    with h5py.File(path) as file:
        scan = file["1.1"]
        shape, images = tuple(scan.attrs["scan_shape"]), scan["instrument/pco_ff/data"][...]
        words = scan["title"][()].decode().split()
        names = words[1 : 1 + 4 * len(shape) : 4]
        places = [np.ravel(scan[f"instrument/positioners/{name}"][...]).reshape(shape) for name in names]
    reader = (darling.reader.RockingScan if len(shape) == 1 else darling.reader.MosaScan)(path)
    dataset = darling.DataSet(reader)
    dataset.load_scan("1.1")
    ours = np.moveaxis(images.reshape(*shape, *images.shape[1:]), (-2, -1), (0, 1))
    mean = np.asarray(dataset.moments()[0]).reshape(*images.shape[1:], len(shape))
    axes = tuple(range(2, 2 + len(shape)))
    wanted = np.stack([(ours * p).sum(axes) / ours.sum(axes, dtype=float) for p in places], axis=-1)
    return {
        "command": " ".join(words[: 1 + 4 * len(shape)]),
        "same_counts": bool(np.array_equal(dataset.data, ours)),
        "motors": float(max(np.abs(m - p).max() for m, p in zip(dataset.motors, places, strict=True))),
        "mean": float(np.abs(mean - wanted).max()),
    }


for path in sys.argv[1:]:
    try:
        print(json.dumps(opened(path)))
    except Exception as error:  # whatever it cannot read, say so
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"}))
