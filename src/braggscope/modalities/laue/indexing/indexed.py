"""A pattern indexed: the grains of each material in turn, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from braggscope.physics.crystals import Crystal

from ..geometry import LaueGeometry
from ..orientations import reduced
from .catalogue import Catalogue, catalogue_of
from .pattern import Pattern
from .refinement import COMPONENTS, Grain
from .search import LARGEST_STRAIN, grains_in

TOLERANCE_DEG = 0.1  # between scattering vectors of peaks and reflections, while searching
FLAGS = {1: "strain_unknown"}


def index_pattern(
    pattern: Pattern,
    catalogues: Sequence[Catalogue],
    *,
    most: int = 20,
    within: float = 1.0,
    largest_strain: float = LARGEST_STRAIN,
) -> list[Grain]:
    """The grains of a pattern, material after material; peaks that one explains are not looked at for the next.

    The first of several materials is a substrate, one crystal: directions alone hardly tell materials of one lattice type, and it
    would take the grains of a film for its own.

    catalogues: Of the materials, the substrate first.  most: Grains of each other material.  within: px.
    """
    use = np.ones(len(pattern), bool)
    found: list[Grain] = []
    for i, one in enumerate(catalogues):
        number = 1 if i == 0 and len(catalogues) > 1 else most
        found += grains_in(pattern, one, use=use, most=number, within=within, largest_strain=largest_strain)
    return found


def catalogues_of(
    crystals: Sequence[Crystal], geometry: LaueGeometry, *, tolerance_deg: float = TOLERANCE_DEG
) -> list[Catalogue]:
    """The catalogue of each crystal."""
    return [catalogue_of(one, geometry, tolerance_deg=tolerance_deg) for one in crystals]


def rotation_vectors(turns: np.ndarray, crystal: Crystal) -> np.ndarray:
    """Rotation vectors, degrees, of orientations, each the smallest of its equivalents; shape (..., 3, 3) -> (..., 3)."""
    smallest = reduced(turns, crystal.rotations)
    return np.rad2deg(Rotation.from_matrix(smallest.reshape(-1, 3, 3)).as_rotvec()).reshape(*turns.shape[:-2], 3)


def grain_table(grains: Sequence[Grain], pattern: Pattern, catalogues: Sequence[Catalogue]) -> xr.Dataset:
    """The grains over `grain`, from 1 in the order in which they were found, and the peaks that they explain over `spot`.

    `orientation_x` ...: rotation vector of U, reduced by symmetry; its standard deviations are those of small turns about the
    laboratory axes. `strain_xx` ...: deviatoric, crystal frame. `U`: over grain, lab and crystal.
    """
    crystals = {one.crystal.name: one.crystal for one in catalogues}
    columns: dict[str, tuple[list, str, str]] = {
        "matched": ([g.matched for g in grains], "1", "peaks matched one to one"),
        "predicted": ([g.predicted for g in grains], "1", "spots that the grain would show in the band"),
        "mean_px": ([g.residuals.mean() for g in grains], "px", "mean distance of matched peaks from their prediction"),
        "rms_deg": ([g.rms_deg for g in grains], "deg", "root mean square angle between scattering vectors"),
        "chance": ([g.chance for g in grains], "1", "peaks that an orientation at random matches, on average"),
        "odds": ([g.odds / np.log(10) for g in grains], "1", "decimal logarithm of the probability of the grain by chance"),
        "seen": ([g.seen for g in grains], "1", "part of the brightest predicted spots that is there"),
    }
    vectors = [rotation_vectors(g.turn, crystals[g.material]) for g in grains]
    stds = [np.sqrt(np.diag(g.covariance)) for g in grains]
    for i, axis in enumerate("xyz"):
        what = f"rotation vector of the crystal along {axis}, the smallest of equivalent ones"
        columns[f"orientation_{axis}"] = ([v[i] for v in vectors], "deg", what)
        about = f"standard deviation of a small turn about the laboratory axis {axis}"
        columns[f"orientation_{axis}_std"] = ([np.rad2deg(s[i]) for s in stds], "deg", about)
    for i, name in enumerate(COMPONENTS):
        what = f"deviatoric strain {name} in the crystal frame"
        columns[f"strain_{name}"] = ([g.strain[i] for g in grains], "1", what)
        columns[f"strain_{name}_std"] = ([s[3 + i] for s in stds], "1", f"standard deviation of {what}")
    found = {
        name: ("grain", np.array(values, float), {"units": unit, "long_name": words})
        for name, (values, unit, words) in columns.items()
    }
    names = np.array([g.material for g in grains], str)
    found["material"] = ("grain", names, {"units": "", "long_name": "material"})
    turns = np.array([g.turn for g in grains]).reshape(-1, 3, 3)
    table = xr.Dataset(found, coords={"grain": np.arange(1, len(grains) + 1)})
    table["U"] = (("grain", "lab", "crystal"), turns, {"units": "1", "long_name": "orientation, crystal frame to laboratory"})
    unknown = np.array([not np.isfinite(g.strain).all() for g in grains], np.int32)
    table["flag"] = ("grain", unknown.astype(np.int32), {
        "long_name": "why a grain is doubtful (0 = good)", "flag_masks": np.array(list(FLAGS), np.int32),
        "flag_meanings": " ".join(FLAGS.values()),
    })  # fmt: skip
    return table.assign(_spots(grains, pattern))


def _spots(grains: Sequence[Grain], pattern: Pattern) -> dict[str, xr.Variable]:
    """The peaks explained: place, grain, indices, energy and distance from the prediction, in the order of grains."""
    peaks = np.concatenate([g.peaks for g in grains]) if grains else np.zeros(0, int)
    hkl = np.concatenate([g.hkl for g in grains]) if grains else np.zeros((0, 3), int)
    numbers = np.repeat(np.arange(1, len(grains) + 1), [g.matched for g in grains])
    offsets = np.concatenate([g.offsets for g in grains]) if grains else np.zeros((0, 2))
    energy = np.concatenate([g.energy for g in grains]) if grains else np.zeros(0)
    columns = {
        "spot_grain": (numbers, "1", "grain of the peak"),
        "spot_peak": (pattern.order[peaks], "1", "number of the peak in the list, from 0"),
        "spot_row": (pattern.places[peaks, 0], "px", "row of the peak, from 0"),
        "spot_column": (pattern.places[peaks, 1], "px", "column of the peak, from 0"),
        **{f"spot_{n}": (hkl[:, i], "1", f"index {n} of the lowest harmonic in the band") for i, n in enumerate("hkl")},
        "spot_energy": (energy, "keV", "energy of the lowest harmonic in the band"),
        "spot_row_offset": (offsets[:, 0], "px", "row of the peak minus prediction"),
        "spot_column_offset": (offsets[:, 1], "px", "column of the peak minus prediction"),
    }
    return {
        name: xr.Variable("spot", values, {"units": unit, "long_name": words}) for name, (values, unit, words) in columns.items()
    }
