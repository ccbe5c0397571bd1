"""Simulated images of dislocations in one command: the phantom `dislocations`, as a scan with its truth or as an array."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np

from braggscope.core.analysis import Says
from braggscope.core.beside import written_beside
from braggscope.core.errors import InputError

from ..phantoms.dislocations import NOISES, REGIONS, RESOLUTIONS, dislocations

SUFFIXES = (".h5", ".hdf5", ".nxs", ".npy")


def simulate_dislocations(
    *,
    output: Path,
    preset: Annotated[str, Says("setting: al-002, al-002-legacy or a TOML file")] = "al-002",
    characters: Annotated[tuple[str, ...], Says("names or numbers; left out, all of the setting")] = (),
    images: Annotated[int, Says("images of each character")] = 1,
    count: Annotated[int, Says("dislocations in an image; the first has the character, the others random ones")] = 1,
    region: Annotated[str, Says("where they are: in the published boxes, or anywhere in the field", choices=REGIONS)] = "auto",
    frame_shape: Annotated[tuple[int, int], Says("pixels along x and y of the laboratory")] = (50, 50),
    rocking: Annotated[tuple[int, ...], Says("points along phi, or phi and chi, of a stack; left out, one image")] = (),
    half_deg: Annotated[tuple[float, float], Says("half of the range of phi and chi", unit="deg")] = (0.06, 0.15),
    noise: Annotated[str, Says("published (low, high), of a detector (counts), or none", choices=NOISES)] = "low",
    gain: Annotated[float, Says("detector units per photon, for counts")] = 1.0,
    offset: Annotated[float, Says("detector units without light, for counts")] = 100.0,
    readout: Annotated[float, Says("read-out noise in detector units, for counts")] = 3.0,
    background: Annotated[float, Says("photons per pixel, for counts")] = 10.0,
    peak: Annotated[float | None, Says("counts at full reflection; left out, of the setting, else 440", unit="count")] = None,
    resolution: Annotated[str, Says("of the microscope; auto: full where chi is scanned", choices=RESOLUTIONS)] = "auto",
    crystal: Annotated[str, Says("anisotropic field of this crystal, Al or Cu; left out, isotropic")] = "",
    network: Annotated[Path | None, Says("ParaDiS or VTK file in crystal axes, instead of straight dislocations")] = None,
    burgers_nm: Annotated[float, Says("unit of the network's Burgers vectors; 0: of the setting", unit="nm")] = 0.0,
    core_nm: Annotated[float, Says("width of the core of a network; 0: the largest Burgers vector", unit="nm")] = 0.0,
    seed: Annotated[int, Says("of places and noise")] = 0,
) -> dict[str, object]:
    """Simulated images of dislocations of known characters at known places: an HDF5 scan with its truth, or .npy.

    In HDF5 the axes are image, phi and chi (those that there are), and the truth is in entry/truth (phantoms.dislocations); an
    array in .npy has the same order, with images indexed [x, y] of the laboratory, and no truth.
    Returns what was written. Raises InputError where an option cannot be.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise InputError(f"output must end in {', '.join(SUFFIXES)}, got '{output.name}'")
    if seed < 0:
        raise InputError(f"seed must be a whole number from 0 on, got {seed}")
    if min(frame_shape) < 1:
        raise InputError(f"frame_shape must be positive lengths, got {' x '.join(map(str, frame_shape))}")
    if len(rocking) > 2 or min(rocking, default=2) < 2:
        points = " x ".join(map(str, rocking))
        raise InputError(f"rocking must be points along phi, or along phi and chi, at least 2 along each, got {points}")
    made = dislocations(
        None, shape=rocking, frame_shape=frame_shape, seed=seed, peak=peak, noise=noise, preset=preset,
        characters=",".join(characters), images=images, count=count, region=region, half_deg=half_deg, resolution=resolution,
        crystal=crystal, gain=gain, offset=offset, readout=readout, background=background, network=str(network or ""),
        burgers_nm=burgers_nm, core_nm=core_nm,
    )  # fmt: skip
    if output.suffix.lower() == ".npy":
        frames = np.concatenate([batch.frames for batch in made.batches()]).reshape(*made.shape, *made.frame_shape)
        with written_beside(output) as file:
            np.save(file, frames)
    else:
        made.write(output)
    return {
        "file": str(output),
        "frames": " x ".join(f"{made.grid.sizes[name]} {name}" for name in made.grid.dims),
        "pixels": " x ".join(map(str, made.frame_shape)),
        "dislocations in an image": 0 if network else count,
        "noise": noise,
        "truth": "in entry/truth" if output.suffix.lower() != ".npy" else "not kept in .npy",
    }
