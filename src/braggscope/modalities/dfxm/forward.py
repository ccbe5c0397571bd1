"""The rocking curve of a detector pixel: a Gaussian peak over one to three motors on a pedestal.

Motors are in their own units (degrees in the data known so far). What is left out: the shape of the instrument's resolution,
several peaks in a pixel, and the dispersion of the counts, which is the noise model's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from braggscope.core.forward import Forward, Param


class RockingCurve(Forward):
    """Expected counts at each scan point from the peak's total, means, widths and correlations, and the pedestal.

        counts = pedestal + total V / ((2 pi)^(d/2) |S|^(1/2)) exp(-(x - m)^T S^-1 (x - m) / 2),   S_ij = rho_ij w_i w_j

    with V the volume of a scan step, so that `total` is the sum over a scan that covers the peak in steps below the width.
    Parameters are named as the map's quantities: total, pedestal, and for each motor M (mean) and M_width; for each pair
    M_N_correlation.
    """

    positions: Tensor
    cell: Tensor

    def __init__(self, motors: Mapping[str, np.ndarray], units: Mapping[str, str] | None = None) -> None:
        """For a scan over these motors.

        motors: Position of each motor at each point, shape (point,).
        units: Of each motor, degrees by default.
        """
        super().__init__()
        self.names = tuple(motors)
        self.pairs = tuple(itertools.combinations(range(len(self.names)), 2))
        table = np.stack([np.asarray(v, np.float64) for v in motors.values()], axis=-1)
        steps = [_step(column) for column in table.T]
        self.register_buffer("positions", torch.as_tensor(table))
        self.register_buffer("cell", torch.tensor(math.prod(steps), dtype=torch.float64))
        self.declared = {
            "total": Param("count", 0.0, 1e12, "sum of the counts above the pedestal"),
            "pedestal": Param("count", 0.0, 1e9, "level under the peak"),
        }
        for name, column, step in zip(self.names, table.T, steps, strict=True):
            unit = (units or {}).get(name, "deg")
            self.declared[name] = Param(unit, float(column.min()), float(column.max()), f"mean position along {name}")
            self.declared[f"{name}_width"] = Param(unit, step / 10, float(np.ptp(column)), f"width along {name}")
        for i, j in self.pairs:
            self.declared[self._pair(i, j)] = Param("1", -0.99, 0.99, f"correlation of {self.names[i]} and {self.names[j]}")

    @property
    def params(self) -> Mapping[str, Param]:  # type: ignore[override]
        """The parameters; they depend on the motors."""
        return self.declared

    def forward(self, params: Mapping[str, Tensor]) -> Tensor:
        """Expected counts, shape (..., point)."""
        widths = [params[f"{n}_width"].unsqueeze(-1) for n in self.names]
        t = [(self.positions[:, i] - params[n].unsqueeze(-1)) / widths[i] for i, n in enumerate(self.names)]
        square, determinant = self._form(t, {p: params[self._pair(*p)].unsqueeze(-1) for p in self.pairs})
        norm = self.cell / ((2 * math.pi) ** (len(t) / 2) * math.prod(widths[1:], start=widths[0]) * torch.sqrt(determinant))
        return params["pedestal"].unsqueeze(-1) + params["total"].unsqueeze(-1) * norm * torch.exp(-0.5 * square)

    def _pair(self, i: int, j: int) -> str:
        return f"{self.names[i]}_{self.names[j]}_correlation"

    @staticmethod
    def _form(t: list[Tensor], rho: Mapping[tuple[int, int], Tensor]) -> tuple[Tensor, Tensor]:
        """t^T R^-1 t and |R| for the correlation matrix R, by Cramer's rule."""
        if len(t) == 1:
            return t[0] ** 2, torch.ones_like(t[0][..., :1])
        if len(t) == 2:
            r = rho[0, 1]
            det = 1 - r**2
            return (t[0] ** 2 - 2 * r * t[0] * t[1] + t[1] ** 2) / det, det
        a, b, c = rho[0, 1], rho[0, 2], rho[1, 2]
        det = 1 + 2 * a * b * c - a**2 - b**2 - c**2
        square = (1 - c**2) * t[0] ** 2 + (1 - b**2) * t[1] ** 2 + (1 - a**2) * t[2] ** 2
        mixed = (b * c - a) * t[0] * t[1] + (a * c - b) * t[0] * t[2] + (a * b - c) * t[1] * t[2]
        return (square + 2 * mixed) / det, det


def _step(positions: np.ndarray) -> float:
    """Mean distance between neighbouring positions of a motor."""
    found = np.unique(np.round(positions, 9))
    return float(np.ptp(found) / (len(found) - 1)) if len(found) > 1 else 1.0


def example() -> tuple[RockingCurve, dict[str, Tensor]]:
    """A scan of two motors and two pixels."""
    chi, mu = np.meshgrid(np.linspace(-0.3, 0.3, 9), np.linspace(1.0, 1.5, 7), indexing="ij")
    forward = RockingCurve({"chi": chi.ravel(), "mu": mu.ravel()}).to(torch.float64)
    values = {
        "total": [5000.0, 800.0], "pedestal": [100.0, 98.0], "chi": [0.05, -0.1], "chi_width": [0.1, 0.14], "mu": [1.2, 1.3],
        "mu_width": [0.11, 0.12], "chi_mu_correlation": [0.4, -0.3],
    }  # fmt: skip
    return forward, {n: torch.tensor(v, dtype=torch.float64) for n, v in values.items()}
