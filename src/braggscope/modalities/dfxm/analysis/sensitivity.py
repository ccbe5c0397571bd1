"""How well a set of reflections will tell each component of the deformation gradient, before the experiment.

At F = 1, dq_a = -q0_b dF_ba, and the observables change by J^-1 dq with J = dq/dobservable (`oblique.vectors`): derivatives of
the exact geometry (what it is for: Kanesalingam et al. 2025, arXiv:2507.17929). The errors are those of the weighted regression
of `deformation` for observables with the given, independent errors.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.physics.deformation import propagated, strain_and_rotation_jacobian

from ..geometry import DfxmGeometry
from ..oblique.component_names import COMPONENTS, STRAINS
from ..oblique.reflections import COPLANAR, ReflectionSet, condition, read_reflections
from ..oblique.vectors import STRAIN_AXES, Observed, nominal, vectors

MOST = 12  # reflections of which every choice is tried


def sensitivity(
    *,
    reflections: Annotated[Path, Says("TOML file of the reflections, like examples/dfxm_al113.toml")],
    motors: Annotated[tuple[str, str], Says("two motors that are scanned")] = ("chi", "phi"),
    strain_axis: Annotated[str, Says("axis that tells strain", choices=STRAIN_AXES)] = "obpitch",
    rocking_error_deg: Annotated[float, Says("standard deviation of a peak position along a motor", unit="deg")] = 1e-4,
    strain_error: Annotated[float, Says("of one along the strain axis, in its unit (deg, or keV)")] = 1e-4,
    frame: Annotated[str, Says("axes of the components", choices=("sample", "crystal"))] = "sample",
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """What each observable tells of each component of F, and the errors that follow: to choose reflections beforehand.

    Raises InputError for a file of reflections that is wrong and for motors that cannot turn a reflection both ways.
    """
    chosen = read_reflections(reflections, geometry)
    _check_options(chosen, motors, strain_axis, rocking_error_deg, strain_error)
    seen = Observed((motors[0], motors[1]), strain_axis)
    turn = np.eye(3) if frame == "sample" else chosen.orientation.T
    error = np.array([rocking_error_deg, rocking_error_deg, strain_error]) * [seen.unit(n) for n in seen.names]
    derivative = np.array([_derivative(chosen, i, seen, turn) for i in range(len(chosen.reflections))])
    every = tuple(range(len(derivative)))
    covariance = _covariance(derivative, error, every, chosen)
    units = np.array([seen.unit(n) for n in seen.names])
    dataset = _table(chosen, seen, derivative / units[None, :, None], covariance, frame)
    left_out = [_errors(derivative, error, every[:i] + every[i + 1 :], chosen) for i in every]
    dataset["error_without"] = (
        ("reflection", "component"),
        np.array(left_out),
        _about("1", "error with this reflection left out"),
    )
    dataset.attrs["condition_number"] = chosen.condition()
    dataset.attrs["worst_error"] = float(np.sqrt(np.diag(covariance)).max())
    dataset.attrs.update(_best(chosen, derivative, error))
    return dataset


def _check_options(
    chosen: ReflectionSet, motors: tuple[str, str], strain_axis: str, rocking_error_deg: float, strain_error: float
) -> None:
    """Raise InputError for motors and errors that cannot be."""
    known = list(chosen.instrument.goniometer_axes())
    if len(motors) != 2 or motors[0] == motors[1] or not set(motors) <= set(known):
        raise InputError(f"motors must be two of the goniometer's ({', '.join(known)}), got {', '.join(motors)}")
    if strain_axis not in STRAIN_AXES:
        raise InputError(f"strain_axis must be one of {', '.join(STRAIN_AXES)}, got '{strain_axis}'")
    for name, value in (("rocking_error_deg", rocking_error_deg), ("strain_error", strain_error)):
        if not 0 < value < math.inf:
            raise InputError(f"{name} must be positive, got {value}")


def _derivative(chosen: ReflectionSet, number: int, seen: Observed, turn: np.ndarray) -> np.ndarray:
    """Derivative of the three observables (radians, or keV) by the nine components of F at F = 1, shape (3, 9)."""
    one = chosen.reflections[number]
    q, jacobian = vectors(one, chosen.instrument, seen, nominal(one, chosen.instrument, seen))
    matrix = turn @ jacobian.numpy()
    if np.linalg.cond(matrix / np.linalg.norm(matrix, axis=0)) > 1e4:
        raise InputError(
            f"{seen.rocking[0]} and {seen.rocking[1]} do not turn reflection {one.name} in two ways; choose other motors"
        )
    by_component = -np.einsum("ac,b->abc", np.eye(3), turn @ q.numpy())  # dq_a/dF_bc = -delta_ac q_b
    return np.linalg.solve(matrix, by_component.reshape(3, 9))


def _covariance(derivative: np.ndarray, error: np.ndarray, which: tuple[int, ...], chosen: ReflectionSet) -> np.ndarray:
    """Covariance of the nine components from some of the reflections; NaN where these are too few or lie in a plane."""
    if len(which) < 3 or condition(chosen.reference_vectors()[list(which)]) > COPLANAR:
        return np.full((9, 9), np.nan)
    rows = (derivative[list(which)] / error[None, :, None]).reshape(-1, 9)
    return np.linalg.inv(rows.T @ rows)


def _errors(derivative: np.ndarray, error: np.ndarray, which: tuple[int, ...], chosen: ReflectionSet) -> np.ndarray:
    return np.sqrt(np.diag(_covariance(derivative, error, which, chosen)))


def _best(chosen: ReflectionSet, derivative: np.ndarray, error: np.ndarray) -> dict[str, float | str]:
    """For every number of reflections below all, the choice whose worst component has the smallest error."""
    found: dict[str, float | str] = {}
    count = len(chosen.reflections)
    for size in range(3, count if count <= MOST else 3):
        options = []
        for which in itertools.combinations(range(count), size):
            worst = float(_errors(derivative, error, which, chosen).max())
            if math.isfinite(worst):
                options.append((worst, which))
        if options:
            worst, which = min(options)
            found[f"best_{size}"] = ", ".join(chosen.reflections[i].name for i in which)
            found[f"best_{size}_worst_error"] = worst
    return found


def _about(unit: str, long_name: str) -> dict[str, str]:
    return {"units": unit, "long_name": long_name}


def _table(chosen: ReflectionSet, seen: Observed, derivative: np.ndarray, covariance: np.ndarray, frame: str) -> xr.Dataset:
    """The table: derivatives, and errors of F, strain and rotation."""
    by_strain, by_rotation = strain_and_rotation_jacobian(torch.eye(3, dtype=torch.float64))
    full = torch.from_numpy(covariance)
    std = np.sqrt(np.diag(covariance))
    together = covariance / np.outer(std, std)
    names = [r.name for r in chosen.reflections]
    unit = "deg" if seen.strain != "energy" else "deg (keV for energy)"
    variables = {
        "derivative": (("reflection", "observable", "component"), derivative, _about(unit, "change of an observable by F")),
        "error": ("component", std, _about("1", f"standard deviation of F in the {frame} frame")),
        "correlation": (("component", "other"), together, _about("1", "correlation of the components of F")),
        "strain_error": ("strain", propagated(by_strain, full).numpy(), _about("1", "standard deviation of the Biot strain")),
        "rotation_error": ("axis", np.degrees(propagated(by_rotation, full).numpy()), _about("deg", "of the lattice rotation")),
        "two_theta": ("reflection", np.array([r.two_theta_deg for r in chosen.reflections]), _about("deg", "scattering angle")),
        "eta": ("reflection", np.array([r.eta_deg for r in chosen.reflections]), _about("deg", "azimuth of the diffracted beam")),
        "flag": (
            "reflection", np.zeros(len(names), np.int32),
            {"long_name": "0 = good", "flag_masks": np.array([1], np.int32), "flag_meanings": "unused"},
        ),
    }  # fmt: skip
    coords = {
        "reflection": names, "observable": list(seen.names), "component": list(COMPONENTS), "other": list(COMPONENTS),
        "strain": list(STRAINS), "axis": list("xyz"),
    }  # fmt: skip
    return xr.Dataset(variables, coords=coords)
