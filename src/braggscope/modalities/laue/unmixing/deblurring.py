"""Which grain is at each cell: the fractions that, blurred with the beam, give the light measured.

A film is full: at every cell the fractions f of the grains add up to one, and the light on grain g at the position r is

    w_g(r) = sum over cells of K(r - c) f_g(c),      K the footprint.

f is sought on the simplex by multiplicative steps f <- f (K^T (w / K f) / K^T 1)^2, normalised: Richardson (1972) and Lucy
(1974) for all grains at once, with a step of twice the length; then a slowly sharper one, f <- f^(1 + epsilon), as a cell rarely
holds two grains. Light that no grain explains goes to a fraction of its own, so that a cell may be given to none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

STEPS = 500
POWER = 2.0
SHARPER, AFTER = 0.005, 0.3  # epsilon, and the part of the steps after which it begins
MARGIN = 3.0  # standard deviations of the footprint that the cells reach beyond the scan
DARK = 1e-3  # part of the largest sum of K below which a cell is not seen
LEAST = 1e-6  # light, of a full film
PRIOR = 1.0  # how much the expected strengths weigh against the light being one, in determining the scales
SCALES = (0.3, 3.0)  # of a grain against the others


@dataclass(frozen=True, eq=False)
class Deblurred:
    """Fractions at the positions of a scan, shape (y, x) each.

    grain: Number of the grain with the largest, -1 for none.  share: That fraction.
    """

    grain: np.ndarray
    share: np.ndarray


def scales(light: np.ndarray) -> np.ndarray:
    """The factor of each grain that makes the light one everywhere, near a common one; shape (position, grain) -> (grain,).

    Least squares of 1 - sum a_g w_g, each a_g held at the common factor as strongly as its own light would determine it.
    """
    lit = light.sum(1)
    common = 1 / np.median(lit[lit > 0.5 * np.median(lit)]) if (lit > 0).any() else 1.0
    scaled = light.astype(float) * common
    square = scaled.T @ scaled
    held = PRIOR**2 * square.diagonal()
    square[np.diag_indices(len(square))] += held + 1e-12
    factor = np.linalg.solve(square, scaled.sum(0) + held)
    return np.asarray(common * np.clip(factor, *SCALES))


def deblurred(
    light: np.ndarray, seen: np.ndarray, y: np.ndarray, x: np.ndarray, sigma_um: tuple[float, float], *, steps: int = STEPS
) -> Deblurred:
    """The grain at each position.

    light: Of each grain, a full film having 1, shape (grain, y, x).  seen: Positions that have a frame, shape (y, x).
    y, x: Of the scan, um.  sigma_um: Standard deviations of the footprint.
    """
    blur = [_blur(at, s) for at, s in ((y, sigma_um[0]), (x, sigma_um[1]))]
    (along_y, inner_y), (along_x, inner_x) = blur
    reached = along_y.T @ seen.astype(np.float32) @ along_x
    live = reached > DARK * reached.max()
    inverse = np.where(live, 1 / np.where(live, reached, 1), 0).astype(np.float32)
    none = np.maximum(1 - light.sum(0), 0)
    grains = [_Own.of(one, along_y, along_x, seen, inverse, live) for one in (*light, none)]
    total = np.zeros(live.shape, np.float32)
    for step in range(steps + 1):
        sharper = 1 + SHARPER if step > AFTER * steps else 1.0
        total[:] = 0
        for one in grains:
            if step:
                one.step(sharper)
            total[one.rows, one.columns] += one.fraction
        np.maximum(total, 1e-30, out=total)
        for one in grains:
            one.fraction /= total[one.rows, one.columns]
    best, share = np.full(live.shape, -1), np.zeros(live.shape, np.float32)
    for number, one in enumerate(grains):
        here = one.rows, one.columns
        larger = one.fraction > share[here]
        best[here][larger] = number if number < len(light) else -1
        share[here][larger] = one.fraction[larger]
    return Deblurred(best[inner_y, inner_x], share[inner_y, inner_x])


@dataclass(eq=False)
class _Own:
    """One grain: the cells in which it may be, and the light there."""

    rows: slice
    columns: slice
    fraction: np.ndarray
    light: np.ndarray
    along_y: np.ndarray
    along_x: np.ndarray
    inverse: np.ndarray
    dark: np.ndarray

    @classmethod
    def of(
        cls, light: np.ndarray, along_y: np.ndarray, along_x: np.ndarray, seen: np.ndarray, inverse: np.ndarray, live: np.ndarray
    ) -> _Own:
        lit = (light > LEAST) & seen
        box, cells = [], []
        for axis, blur in ((1, along_y), (0, along_x)):
            at = np.flatnonzero(lit.any(axis))
            own = slice(at[0], at[-1] + 1) if len(at) else slice(0, 0)
            box.append(own)
            reach = np.flatnonzero((blur[own] > DARK * blur.max()).any(0))
            cells.append(slice(reach[0], reach[-1] + 1) if len(reach) else slice(0, 0))
        (rows, columns), (i, j) = cells, box
        near = along_y[i, rows], along_x[j, columns]
        here = np.where(lit, np.maximum(light, LEAST), 0)[i, j].astype(np.float32)
        begun = near[0].T @ here @ near[1] + 1e-6
        return cls(rows, columns, begun, here, *near, inverse[rows, columns], ~live[rows, columns])

    def step(self, sharper: float) -> None:
        expected = self.along_y @ self.fraction @ self.along_x.T
        ratio = self.along_y.T @ (self.light / np.maximum(expected, 1e-9)) @ self.along_x * self.inverse
        ratio[self.dark] = 1
        self.fraction *= ratio**POWER
        if sharper != 1:
            self.fraction **= sharper


def _blur(at: np.ndarray, sigma: float) -> tuple[np.ndarray, slice]:
    """Part of the light at each position that comes from each cell, and which cells are those of the scan.

    Cells are the positions, continued beyond both ends by the mean step.
    """
    step = abs(at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else sigma
    more = math.ceil(MARGIN * sigma / step)
    sign = 1 if at[-1] >= at[0] else -1
    beyond = sign * step * np.arange(1, more + 1)
    cells = np.concatenate([at[0] - beyond[::-1], at, at[-1] + beyond])
    width = np.abs(np.gradient(cells)) if len(cells) > 1 else np.array([step])
    part = np.exp(-0.5 * ((at[:, None] - cells) / sigma) ** 2) * width / (sigma * math.sqrt(2 * math.pi))
    return part.astype(np.float32), slice(more, more + len(at))
