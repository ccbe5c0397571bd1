"""Small scan files of every format, made on the spot."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

ROWS, COLUMNS = 5, 7  # not square, so that swapped axes show


@pytest.fixture
def stack():
    """(count) -> frames that all differ, shape (count, 5, 7), uint16."""

    def make(count, rows=ROWS, columns=COLUMNS):
        return np.random.default_rng(count).integers(0, 4000, (count, rows, columns)).astype(np.uint16)

    return make


@pytest.fixture
def bliss(tmp_path):
    """(title, frames, motors={name: positions}, ...) -> path of a BLISS file with the scan 1.1."""

    def make(
        title, frames, motors=None, *, name="scan.h5", scan="1.1", parameters=None, detector="pco_ff", end="SUCCESS", **create
    ):
        path = tmp_path / name
        with h5py.File(path, "a") as file:
            group = file.create_group(scan)
            group.attrs["NX_class"] = "NXentry"
            group["title"], group["end_reason"] = title, end
            group["instrument/name"] = "ESRF-ID03"
            group["instrument/positioners/samx"] = 1.5
            group["instrument/positioners/ffpitch"] = "ERR"
            for motor, positions in (motors or {}).items():
                group[f"instrument/{motor}/value"] = positions
                group[f"instrument/{motor}"].attrs["NX_class"] = "NXpositioner"
                group[f"instrument/{motor}/value"].attrs["units"] = "deg"
            for key, value in (parameters or {}).items():
                group[f"instrument/fscan_parameters/{key}"] = value
            if frames is not None:
                data = group.create_dataset(f"instrument/{detector}/image", data=frames, **create)
                group[f"instrument/{detector}/data"] = data
                group[f"measurement/{detector}"] = data
                group[f"instrument/{detector}/x_pixel_size"] = 6.5
                group[f"instrument/{detector}/x_pixel_size"].attrs["units"] = "m"  # as BLISS writes it: the number is in um
        return path

    return make


@pytest.fixture
def edf(tmp_path):
    """(name, frame, motors={name: position}, ...) -> path of an EDF file with a header as ID06 writes it."""

    def make(name, frame, motors=None, **header):
        import fabio.edfimage

        words = {k: str(v) for k, v in header.items()}
        if motors:
            words |= {"motor_mne": " ".join(motors), "motor_pos": " ".join(str(v) for v in motors.values())}
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        fabio.edfimage.EdfImage(data=frame, header=words).write(str(path))
        return path

    return make
