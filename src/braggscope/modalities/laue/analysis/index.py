"""Index: which crystals a pattern is of, how they lie and how they are strained.

Peaks are indexed one crystal after another (`indexing/`): pairs of bright peaks against pairs of bright reflections, a verdict
by chance, then orientation and deviatoric strain by least squares on the pixels, the detector fixed. The trace of the strain
cannot be had from a white beam, which tells directions only.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from ..geometry import LaueGeometry
from ..indexing.search import LARGEST_STRAIN

MASKED = 0.1  # share of the detector above which that is said
FRAME = "LaueTools laboratory: x along the beam, z up, y = z cross x; U takes the crystal frame (x along a*, z along c) to it"


def index(
    pattern: Scan | xr.Dataset,
    *,
    material: Annotated[
        tuple[str, ...] | None, Says("name or CIF file; several, the substrate, one crystal, first; left out: of the geometry")
    ] = None,
    grains: Annotated[int, Says("grains of each material but a substrate at most")] = 20,
    energy: Annotated[str | None, Says("band as LOW:HIGH; left out: of the geometry", unit="keV")] = None,
    within_px: Annotated[float, Says("distance within which a peak belongs to a spot", unit="px")] = 1.0,
    tolerance: Annotated[float, Says("between scattering vectors while searching", unit="deg")] = 0.1,
    largest_strain: Annotated[
        float, Says("crystals with a larger deviatoric strain are taken for another material")
    ] = LARGEST_STRAIN,
    frame: Annotated[int, Says("frame of a scan, from 0 in the order of the grid")] = 0,
    geometry: LaueGeometry | None = None,
) -> xr.Dataset:
    """Crystals of a pattern: orientation and deviatoric strain of each, and which peaks it explains.

    pattern: Peak list, or a scan of which one frame is taken.
    Returns over grain `matched`, `predicted`, `mean_px`, `rms_deg`, `orientation_x` ..., `strain_xx` ..., `chance` (peaks that an
    orientation at random would match), and over spot the peaks explained. No grain means: not this material.
    Raises InputError for a pattern without peaks, an unknown material, and a geometry of another detector.
    """
    from ..indexing.indexed import catalogues_of, grain_table, index_pattern
    from ..indexing.pattern import KNOWN, pattern_of_table
    from ..indexing.reading import geometry_and_peaks
    from ..reflections import material as crystal

    _check({"within_px": within_px, "tolerance": tolerance, "largest_strain": largest_strain}, grains)
    geometry, peaks = geometry_and_peaks(pattern, geometry, frame)
    geometry = _with_band(geometry, energy)
    names = _names(material or (geometry.substrate, geometry.material))
    catalogues = catalogues_of([crystal(name) for name in names], geometry, tolerance_deg=tolerance)
    found = pattern_of_table(peaks, geometry, known_to=KNOWN * within_px)
    if len(found) == 0:
        raise InputError("the pattern has no peaks of a certain place")
    every = index_pattern(found, catalogues, most=grains, within=within_px, largest_strain=largest_strain)
    table = grain_table(every, found, catalogues)
    absent = [name for name in (one.crystal.name for one in catalogues) if not any(g.material == name for g in every)]
    table.attrs = {
        "peaks": len(found),
        "explained": int(sum(g.matched for g in every)),
        "verdict": "; ".join(f"not this material: {name}" for name in absent) or "indexed",
        "materials": ", ".join(names),
        "frame": FRAME + (f"; turned by {geometry.roll_deg:g} deg about the beam" if geometry.roll_deg else ""),
        "strain": "deviatoric only, crystal frame: a white beam does not tell the size of the lattice",
        "geometry": json.dumps(geometry.to_mapping()),
    }
    said = []
    if len(found) < 4:
        said.append(f"{len(found)} peaks do not tell a crystal; at least 5 are matched of each")
    if (share := float(peaks.attrs.get("masked_share", 0.0))) > MASKED:
        said.append(f"{share:.0%} of the detector is masked, and spots there are missing")
    if said:
        table.attrs["caution"] = "; ".join(said)
    return table


def document(result: xr.Dataset) -> dict[str, Any]:
    """The grains with matrices and residuals, how many peaks there are and are explained, and the frame."""
    return {
        "grains": [_grain(result.isel(grain=i), result) for i in range(result.sizes["grain"])],
        **{name: result.attrs[name] for name in ("peaks", "explained", "verdict", "frame")},
    }


def _grain(one: xr.Dataset, result: xr.Dataset) -> dict[str, Any]:
    of = result["spot_grain"].values == int(one["grain"])
    offsets = np.hypot(result["spot_row_offset"].values[of], result["spot_column_offset"].values[of])
    strain = {name: _number(one[f"strain_{name}"]) for name in ("xx", "xy", "xz", "yy", "yz", "zz")}
    rows = [[strain["xx"], strain["xy"], strain["xz"]], [strain["xy"], strain["yy"], strain["yz"]],
            [strain["xz"], strain["yz"], strain["zz"]]]  # fmt: skip
    return {
        "material": str(one["material"].values),
        "U": one["U"].values.tolist(),
        "matched": int(one["matched"]),
        "predicted": int(one["predicted"]),
        "mean_px": _number(one["mean_px"]),
        "rms_deg": _number(one["rms_deg"]),
        "residuals_px": offsets.tolist(),
        "strain": rows,
        "strain_std": {name: _number(one[f"strain_{name}_std"]) for name in strain},
        "orientation_std_deg": [_number(one[f"orientation_{axis}_std"]) for axis in "xyz"],
        "hkl": np.stack([result[f"spot_{n}"].values[of] for n in "hkl"], 1).astype(int).tolist(),
        "energies_kev": result["spot_energy"].values[of].tolist(),
        "peaks": result["spot_peak"].values[of].astype(int).tolist(),
        "chance": _number(one["chance"]),
        "log10_probability_by_chance": _number(one["odds"]),
    }


def _number(value: xr.DataArray) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None


def _with_band(geometry: LaueGeometry, energy: str | None) -> LaueGeometry:
    """The geometry with the band of a text LOW:HIGH."""
    if energy is None:
        return geometry
    try:
        low, high = (float(word) for word in energy.split(":"))
    except ValueError:
        raise InputError(f"energy must be a band LOW:HIGH in keV like 5:22, got '{energy}'") from None
    if not 0 < low < high:
        raise InputError(f"energy must rise from a positive value, like 5:22, got '{energy}'")
    return replace(geometry, energy_low_kev=low, energy_high_kev=high)


def _names(words: tuple[str, ...]) -> list[str]:
    """The names among words that may hold several with commas, each once. Raises InputError where there is none."""
    names = list(dict.fromkeys(name.strip() for word in words for name in word.split(",") if name.strip()))
    if not names:
        raise InputError("the material is not stated; give --material NAME_OR_CIF, of several the substrate first")
    return names


def _check(positive: dict[str, float], grains: int) -> None:
    """Raise InputError for options that cannot be."""
    for name, value in positive.items():
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be positive, got {value:g}")
    if positive["tolerance"] > 1:
        raise InputError(f"tolerance must be at most 1 deg, got {positive['tolerance']:g}; typical is 0.1")
    if grains < 1:
        raise InputError(f"grains must be at least 1, got {grains}")
