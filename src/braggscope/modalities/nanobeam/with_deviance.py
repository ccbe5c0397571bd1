"""Methods that know the deviance of each frame, and so how well their model explains a frame and the whole scan.

A leaf's `fit` gives `reduced_deviance`, and for the whole scan `deviance_expected` and `deviance_variance`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from braggscope.core.estimator import PerFrame, State
from braggscope.core.maps import Quantity
from braggscope.core.source import Source


class WithDeviance(PerFrame):
    """A method that says for each frame, and for the scan, how well its model explains the counts."""

    def extras(self) -> tuple[Quantity, ...]:
        return (Quantity("reduced_deviance", "1", "deviance over its expectation"),)

    def init(self, source: Source) -> State:
        """Beside the map: what the deviance of the whole scan is made of."""
        state = super().init(source)
        missing = np.full_like(state["reduced_deviance"], np.nan)
        return {**state, "deviance_expected": missing.copy(), "deviance_variance": missing.copy()}

    def result(self, state: State) -> xr.Dataset:
        """The map, with the deviance of all frames together in its attributes: small misfits show only there."""
        dataset = super().result(state)
        share = dataset["reduced_deviance"].values.ravel()
        expected, variance = state["deviance_expected"], state["deviance_variance"]
        known = np.isfinite(share)
        if known.any():
            total = expected[known].sum()
            dataset.attrs["reduced_deviance"] = float((share * expected)[known].sum() / total)
            dataset.attrs["reduced_deviance_std"] = float(np.sqrt(variance[known].sum()) / total)
        return dataset
