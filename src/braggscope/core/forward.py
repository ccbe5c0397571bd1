"""Forward models: named physical parameters in, expected counts out."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Param:
    """A named physical parameter: its unit and the range in which it means something.

    unit: Unit of the values ("1", "deg", "angstrom", "count" ...).
    low, high: The range in which a value is physical; an estimate that ends there is flagged.
    long_name: What the parameter is, for labels of maps and figures.
    """

    unit: str
    low: float
    high: float
    long_name: str = ""


class Forward(torch.nn.Module, abc.ABC):
    """Expected counts as a differentiable function of named parameters.

    A leaf declares `params` and implements `forward`. All parameters broadcast against each other on their
    leading axes; the result has those leading axes and, after them, the axes of one observation (detector row and
    column for a frame model, scan point for a rocking-curve model). Device and dtype of the parameters are kept.
    Values of the geometry are buffers, so that a calibration may replace them.
    """

    params: ClassVar[Mapping[str, Param]]

    @abc.abstractmethod
    def forward(self, params: Mapping[str, Tensor]) -> Tensor:
        """Expected counts, shape (..., observation axes).

        params: One tensor per name in `params`, in the unit declared there, shapes that broadcast to (...,).
        """

    def jacobian(self, params: Mapping[str, Tensor], names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Expected counts and their derivatives by the named parameters.

        Returns the counts, shape (..., observation axes), and the derivatives, shape (..., name, observation axes).
        This default differentiates `forward` in forward mode; a leaf with elementary derivatives overrides it.
        """
        leading = torch.broadcast_shapes(*(value.shape for value in params.values()))
        full = {name: value.expand(leading).contiguous() for name, value in params.items()}  # jvp writes into no view
        expected = self.forward(full)
        columns = []
        for name in names:

            def along(value: Tensor, name: str = name) -> Tensor:
                return self.forward({**full, name: value})

            columns.append(torch.func.jvp(along, (full[name],), (torch.ones_like(full[name]),))[1])
        return expected, torch.stack(columns, dim=len(leading))
