"""Maximum likelihood: strain, tilts, scale, background and, on request, film thickness of each frame, with error bars.

Poisson likelihood of the closed form (forward.py), maximised by Fisher scoring with its analytic derivatives. The standard
deviations are those of the Fisher matrix at the estimate: with right optics they reach the Cramer-Rao bound. Counts below the
geometry's threshold are taken as what they are, "fewer than the threshold" (P(N < threshold)), and reports at its saturation as
"that or more"; from 500 counts on they are left out instead, which biases pixels that are bright enough to saturate now and then.

`reduced_deviance` is the deviance over its expectation under the fitted mean; at these few counts that is far from the number of
pixels. Its standard deviation follows too (McCullagh 1986, conditional on the estimate), and 4.5 of them are a misfit. Over the
whole scan, in the attributes, small misfits show that no frame alone would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from braggscope.core.batch import Batch
from braggscope.core.estimator import option
from braggscope.core.maps import Quantity
from braggscope.core.source import Source

from ..geometry import NanobeamGeometry, check_frame
from ..with_deviance import WithDeviance

if TYPE_CHECKING:
    from ..compiled import Tables

NOT_CONVERGED, BOUND, TOO_FEW, MISFIT, OUTSIDE, MASKED = (2**i for i in range(1, 7))
FEWEST = 300  # counts above background; with fewer the estimates scatter more than the bound says
NOTHING = 30  # counts above background; with fewer there is nothing to estimate
MISFIT_SIGMA = 4.5  # of the deviance, either way: too small a deviance means that these are not counts
LEAST_LIGHT = 0.5  # share of the ring that must be on the frame
NAMES = ("strain", "omega", "chi", "scale", "background", "thickness")


@dataclass(frozen=True)
class Likelihood(WithDeviance):
    """Strain, tilts and thickness of each frame by maximum likelihood (see the module)."""

    geometry: NanobeamGeometry

    name: ClassVar[str] = "likelihood"
    summary: ClassVar[str] = "strain, tilts and thickness by maximum likelihood, with calibrated error bars and goodness of fit"
    calibrated: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    flags: ClassVar[Mapping[int, str]] = {
        NOT_CONVERGED: "not_converged",
        BOUND: "at_bound",
        TOO_FEW: "too_few_counts",
        MISFIT: "misfit",
        OUTSIDE: "outside_detector",
        MASKED: "masked_counts",
    }

    thickness: str = option("fixed", "whether the thickness of the film is fitted too", choices=("fixed", "free"))
    device: str = option("cpu", "where to compute: compiled code on the CPU, or torch on a GPU", choices=("cpu", "cuda"))

    def quantities(self) -> tuple[Quantity, ...]:
        from ..forward import NanobeamForward

        return tuple(Quantity(n, p.unit, p.long_name) for n, p in list(NanobeamForward.params.items())[: self._free])

    def check_source(self, source: Source) -> None:
        check_frame(self.geometry, source.frame_shape)

    def fit(self, batch: Batch) -> dict[str, np.ndarray]:
        """Estimates, standard deviations, deviance and flags; NaN where a fit did not converge or has nothing to fit."""
        from ..compiled import without_saturated

        batch = without_saturated(self.geometry, batch)
        return self.described(self._fitted(batch), batch)

    @property
    def _free(self) -> int:
        return 6 if self.thickness == "free" else 5

    def _fitted(self, batch: Batch) -> dict[str, np.ndarray]:
        """Parameters, covariance, goodness and state of each frame, as in kernels.fit_frames."""
        made = self._tables(batch.frames.shape[1:])
        if self.device == "cpu":
            from ..compiled import fit

            return fit(made, batch.frames, batch.mask, self._free, self.geometry.thickness_a)
        from ..batched import fit_batched

        return fit_batched(self.geometry, made, batch.frames, batch.mask, self._free, self.device)

    def _tables(self, frame_shape: tuple[int, ...]) -> Tables:
        from ..compiled import tables

        return tables(self.geometry, (frame_shape[0], frame_shape[1]))

    def described(self, fitted: Mapping[str, np.ndarray], batch: Batch) -> dict[str, np.ndarray]:
        """What goes into the map, from the results of compiled.fit."""
        from ..compiled import FAULTS, IN_RADIANS
        from ..kernels import CONVERGED

        made, free = self._tables(batch.frames.shape[1:]), self._free
        values, variances = fitted["parameters"].copy(), np.einsum("fii->fi", fitted["covariance"])
        values[:, :3] /= IN_RADIANS
        values[:, 3:] = np.exp(values[:, 3:])
        factor = np.concatenate([np.broadcast_to(1 / IN_RADIANS, (len(batch), 3)), values[:, 3:]], axis=1)
        stds = np.sqrt(np.maximum(variances, 0)) * factor
        deviance, expected, variance, light = fitted["goodness"].T
        bad = fitted["state"] & CONVERGED == 0
        pixels = batch.frames[0].size if batch.mask is None else batch.mask.sum(axis=(1, 2))
        counts = np.where(batch.mask, batch.frames, 0) if batch.mask is not None else batch.frames
        signal = counts.sum(axis=(1, 2), dtype=np.float64) - np.where(bad, 0.0, values[:, 4]) * pixels
        at_bound = (fitted["state"] & FAULTS & ~CONVERGED != 0) & ~bad
        z = (deviance - expected) / np.sqrt(np.maximum(variance, 1e-12))
        few = signal < FEWEST
        flag = bad * NOT_CONVERGED + at_bound * BOUND + few * TOO_FEW + (~few & (np.abs(z) > MISFIT_SIGMA)) * MISFIT
        flag += (light < LEAST_LIGHT * made.open_area) * OUTSIDE
        if batch.mask is not None:
            flag += (pixels < batch.frames[0].size) * MASKED
        with np.errstate(invalid="ignore", divide="ignore"):
            goodness = {"reduced_deviance": deviance / expected, "deviance_expected": expected, "deviance_variance": variance}
        result = {name: values[:, i] for i, name in enumerate(NAMES[:free])}
        result |= {f"{name}_std": stds[:, i] for i, name in enumerate(NAMES[:free])} | goodness
        return {name: np.where(bad | (signal < NOTHING), np.nan, value) for name, value in result.items()} | {
            "flag": flag.astype(np.int32)
        }
