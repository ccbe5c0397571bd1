"""Files of other programs: peak lists, indexed patterns, calibrations, maps of EBSD.

One module to a family: `lauetools` (.det, .cor, .dat), `fit` (.fit), `aps` (peaks and index files of 34-ID), `aps_geometry`
(its geometry as XML or text), `xmas` (.str, .ind), `poni` (pyFAI), `ebsd` (.ang, .ctf). Peaks are tables (`table`), indexed
patterns are lists of `grains.IndexedGrain`, calibrations are LaueGeometry; whatever a file counts from 1, or in another frame, is
here in the frame and in the rows and columns of this program (`frames`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from braggscope.core.modality import Tables

from .text import kind_of

if TYPE_CHECKING:
    import xarray as xr

    from ..geometry import LaueGeometry


def read_geometry(path: str | Path) -> LaueGeometry:
    """The geometry in a calibration file: .det, .poni, .xml or text of APS 34-ID, of which the first detector counts."""
    ending = Path(path).suffix.lower()
    if ending == ".det":
        from .lauetools import read_det

        return read_det(path)
    if ending == ".poni":
        from .poni import read_poni

        return read_poni(path)
    from .aps_geometry import read_detectors

    return read_detectors(path)[0].geometry()


def read_table(path: str | Path) -> xr.Dataset:
    """What is in a file of any kind that `matches` knows: peaks over `peak`, indexed ones with h, k, l and grain; maps of EBSD.

    Raises InputError where the file cannot be read.
    """
    from . import aps, fit, lauetools, xmas
    from .ebsd import read_ebsd

    readers = {
        "cor": lauetools.read_cor, "dat": lauetools.read_dat, "fit": fit.read_fit_table, "pixels": aps.read_pixels,
        "directions": aps.read_directions, "index": aps.read_index_table, "str": xmas.read_str_table, "ind": xmas.read_ind_table,
        "ang": read_ebsd, "ctf": read_ebsd,
    }  # fmt: skip
    kind = kind_of(path)
    if kind is None:
        from braggscope.core.errors import InputError

        raise InputError(
            f"{path} is no peak list known here; known are .cor, .dat and .fit of LaueTools, PixelPeakList, PeaksFile and "
            f"IndexFile of APS 34-ID, .str and .ind of XMAS, .ang and .ctf of EBSD"
        )
    return readers[kind](path)


def matches(path: str | Path) -> bool:
    """Whether a file is a peak list, an indexed pattern or a map of EBSD of a kind known here, from its first lines."""
    return kind_of(path) is not None


TABLES = Tables(matches, read_table)
