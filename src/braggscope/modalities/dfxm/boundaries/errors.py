"""Errors of a linear fit whose points come in groups that err together.

The pixels of one dislocation share its wandering; pixels of different dislocations do not. Each group is left out in turn (the
jackknife over clusters; Bell & McCaffrey 2002, Survey Methodology 28, 169), which needs no model of how its points err.
"""

from __future__ import annotations

import numpy as np


def grouped_covariance(design: np.ndarray, residual: np.ndarray, weight: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Covariance of the parameters p of a weighted linear fit y = A p: (G - 1)/G sum_g (p_g - p)(p_g - p)^T, p_g without group g.

    p_g - p = -(A^T W A - A_g^T W_g A_g)^-1 A_g^T W_g r_g. An estimate from G groups scatters; the factor (G - 1)/(G - 3) makes
    the mean square of errors over stated errors 1 (Student's t of G - 1 degrees of freedom).

    design: A, shape (point, parameter).  residual: r, shape (point,).  group: Its number, shape (point,).
    Returns: Shape (parameter, parameter); NaN with fewer than four groups.
    """
    _, group = np.unique(group, return_inverse=True)
    number, size = int(group.max(initial=-1)) + 1, design.shape[1]
    if number < 4:
        return np.full((size, size), np.nan)
    scores = np.stack([np.bincount(group, weight * residual * a) for a in design.T], 1)
    pairs = np.stack([np.stack([np.bincount(group, weight * a * b) for b in design.T], -1) for a in design.T], -2)
    left = pairs.sum(axis=0) - pairs
    if np.linalg.cond(left).max() > 1e12:
        return np.full((size, size), np.nan)
    change = np.linalg.solve(left, scores[..., None])[..., 0]
    return (number - 1) / number * (number - 1) / (number - 3) * change.T @ change


def tiles(u: np.ndarray, v: np.ndarray, along: int = 5) -> np.ndarray:
    """Number of the tile of each point, `along` x `along` of them over the range of u and v."""
    cells = [np.minimum((along * (x - x.min()) / max(float(np.ptp(x)), 1e-12)).astype(int), along - 1) for x in (u, v)]
    return along * cells[0] + cells[1]
