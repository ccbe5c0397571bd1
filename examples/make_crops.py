"""Make the files of examples/data from the originals, which are too large to be bundled.

    python examples/make_crops.py --data FOLDER

FOLDER holds dfxm/id03_rocking_mu_fatigue.h5, dfxm/id03_mosa_domains_111_Al_chi_diffry.h5 and
nanobeam/exp_frames_decoded_from_png.npz; where they are from and under which licence is in examples/data/README.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  registers the decoders
import numpy as np

HERE = Path(__file__).resolve().parent / "data"
DARLING = "darling-pypi 1.0.0 (https://github.com/AxelHenningsson/darling), MIT, (c) 2024 Axel Henningsson; measured at ESRF ID03"
DONUT = (
    "figure in 'visualizations.ipynb' of https://github.com/AdvancedPhotonSource/DONUT, BSD, (c) 2025 UChicago Argonne, LLC; "
    "SrIrO3 002 measured at the Advanced Photon Source"
)
LEFT_OUT = ("positioners_dial_start", "positioners_dial_end", "positioners_start", "positioners_end", "plotselect")


def crop_bliss(original: Path, path: Path, rows: slice, columns: slice) -> None:
    """The scans of a BLISS file with all frames cut to rows and columns; motors and settings stay as they are."""
    cut = f"frames cut to rows {rows.start}:{rows.stop} and columns {columns.start}:{columns.stop} of the original file"
    with h5py.File(original) as source, h5py.File(path, "w") as target:
        target.attrs.update(dict(source.attrs), origin=DARLING, changes=f"{cut}; repeated tables of positions left out")
        for scan in source:
            _copy(source[scan], target.create_group(scan), rows, columns)


def _copy(source: Any, target: Any, rows: slice, columns: slice) -> None:
    """Copy a group; image stacks are cut, and stored once however many names they have."""
    target.attrs.update(source.attrs)
    for name in source:
        item = source.get(name)
        if item is None or name in LEFT_OUT or name.startswith("positioners_"):
            continue
        if isinstance(item, h5py.Group):
            _copy(item, target.create_group(name), rows, columns)
        elif item.ndim == 3:
            _image(item, target, name, rows, columns)
        else:
            source.copy(item, target, name)


def _image(item: Any, target: Any, name: str, rows: slice, columns: slice) -> None:
    """Store a cut image stack, or link to the same stack that is already there (BLISS gives it two or three names)."""
    detector = name if target.name.endswith("measurement") else target.name.rsplit("/", 1)[-1]
    scan = target.parent if target.name.endswith("measurement") else target.parent.parent
    for kind in ("data", "image"):
        if (there := f"instrument/{detector}/{kind}") in scan:
            target[name] = scan[there]
            return
    frames = item[:, rows, columns]
    chunk = max(1, 2**18 // frames[0].nbytes)
    stored = target.create_dataset(
        name, data=frames, chunks=(chunk, *frames.shape[1:]), shuffle=True, compression="gzip", compression_opts=9
    )
    stored.attrs.update(item.attrs)


def nanobeam_frames(original: Path, path: Path) -> None:
    """The two frames as a generic scan file: entry/data/data of shape (2, 64, 64)."""
    with np.load(original) as arrays, h5py.File(path, "w") as file:
        names = sorted(name for name in arrays if name.startswith("idx"))
        frames = np.stack([arrays[name] for name in names])
        file.attrs.update(default="entry", NX_class="NXroot", origin=DONUT)
        file.attrs["changes"] = (
            "counts read off the colours of the figure: a colour scale of 1 to 7 clips them at 7 (7 means 7 or more); "
            "the frames had been thresholded before they were drawn (no pixel has exactly 1 count)"
        )
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="data")
        entry["title"] = "two frames of a SrIrO3 film, 002 reflection"
        data = entry.create_group("data")
        data.attrs.update(NX_class="NXdata", signal="data", axes=["point", ".", "."])
        data.create_dataset("data", data=frames, chunks=(1, *frames.shape[1:]), compression="gzip", compression_opts=9)
        data["point"] = [float(name.removeprefix("idx")) for name in names]
        data["point"].attrs["long_name"] = "number of the frame in the original scan"
        instrument = entry.create_group("instrument")
        instrument.attrs["NX_class"] = "NXinstrument"
        own = instrument.create_group("braggscope")
        own.attrs.update(NX_class="NXcollection", modality="nanobeam")


def main() -> None:
    """Write the three files and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the originals")
    folder = parser.parse_args().data
    crop_bliss(folder / "dfxm/id03_rocking_mu_fatigue.h5", HERE / "id03_rocking_mu.h5", slice(14, 104), slice(72, 242))
    crop_bliss(
        folder / "dfxm/id03_mosa_domains_111_Al_chi_diffry.h5", HERE / "id03_mosa_chi_diffry.h5", slice(40, 160), slice(70, 190)
    )
    nanobeam_frames(folder / "nanobeam/exp_frames_decoded_from_png.npz", HERE / "sriro3_frames.h5")
    for path in sorted(HERE.glob("*.h5")):
        print(f"{path.name:28} {path.stat().st_size / 1e6:5.2f} MB")


if __name__ == "__main__":
    main()
