"""How well frames agree with the closed form at parameters that something else than the likelihood fit has found."""

# mypy: disable-error-code="no-untyped-def"
# (numba infers the types of compiled functions)

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from braggscope.infer.runtime import in_threads

from . import kernels
from .columns import exact
from .compiled import IN_RADIANS, Tables, transposed
from .differentiable import with_nuisance


def goodness(made: Tables, frames: np.ndarray, mask: np.ndarray | None, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scale and background that fit best at found values, deviance, its expectation and variance, and the light on the frame.

    found: strain, omega, chi (degrees) and thickness (angstrom) of each frame, shape (frame,).
    Returns arrays of shape (frame,), scale and background in counts.
    """
    counts = transposed(frames, mask)
    tilts = np.stack([found["strain"], found["omega"], found["chi"]], axis=-1) * IN_RADIANS
    log_thickness = np.log(np.maximum(found["thickness"], 1.0))[:, None]
    given, which = np.concatenate([tilts, log_thickness], axis=1), [*range(3), kernels.THICKNESS]
    parameters = with_nuisance(made, counts, np.clip(np.nan_to_num(given), made.bounds[which, 0], made.bounds[which, 1]))
    result = np.zeros((len(frames), 4))

    def some(a, b):
        goodness_frames(
            counts[a:b], parameters[a:b], made.optics, made.columns, made.spread, made.weights, made.table, made.grid,
            made.threshold, made.saturation, made.moments, result[a:b],
        )  # fmt: skip

    in_threads(some, len(frames), smallest=16)
    values = {"scale": np.exp(parameters[:, kernels.SCALE]), "background": np.exp(parameters[:, kernels.BACKGROUND])}
    return values | dict(zip(("deviance", "expected", "variance", "light"), result.T, strict=True))


@exact
def goodness_frames(
    counts, parameters, optics, columns, spread, weights, table, grid, threshold, saturation, moments, result
):  # fmt: skip
    """Deviance, its expectation, its variance and the light of frames, into result (frame, 4); see kernels.fit_frames.

    Scale and background are fitted: that takes two units of deviance, and what varies together with their score.
    """
    n, scale, background = kernels.PARAMETERS, kernels.SCALE, kernels.BACKGROUND
    gradient, matrix, shared = np.zeros(n), np.zeros((n, n)), np.zeros(n)
    for i in range(len(counts)):
        kernels._one_pass(
            counts[i], parameters[i], optics, columns, spread, weights, table, grid, threshold, saturation, moments,
            gradient, matrix, result[i], shared,
        )  # fmt: skip
        a, b, d = matrix[scale, scale], matrix[scale, background], matrix[background, background]
        determinant = a * d - b * b
        if determinant > 1e-12 * a * d:
            s, t = shared[scale], shared[background]
            result[i, 1] -= 2
            result[i, 2] -= (d * s * s - 2 * b * s * t + a * t * t) / determinant
