"""The options that both analyses of boundaries have: what each means, for the command line and the page."""

from __future__ import annotations

from typing import Annotated

import xarray as xr

from braggscope.core.analysis import Says

Nine = tuple[float, float, float, float, float, float, float, float, float]
Orientation = Annotated[
    Nine | None,
    Says("rotation from crystal to laboratory (x along the beam, z up), 9 numbers by rows; U or cubic UB"),
]
EulerAngles = Annotated[tuple[float, float, float] | None, Says("the same as Euler angles (Bunge)", unit="deg")]
Structure = Annotated[str, Says("whose Burgers vectors are candidates", choices=("fcc", "bcc", "hcp"))]
Lattice = Annotated[float | None, Says("lattice parameter a, for misorientations", unit="angstrom")]
Ratio = Annotated[float | None, Says("ratio of the lattice parameters of hcp")]
Misorientation = Annotated[tuple[float, ...], Says("across each boundary in their order, where known", unit="deg")]
LatticeMap = Annotated[xr.Dataset | None, Says("orientation map of one layer, for the misorientations")]
MapLayer = Annotated[int | None, Says("number of that layer from 0 on; the middle one if left out")]
Tolerance = Annotated[float, Says("by which real walls deviate from a tilt wall of edge dislocations", unit="deg")]
Threshold = Annotated[float, Says("of bright pixels, standard deviations above the background of the layer")]
Seed = Annotated[int, Says("of the random planes that are tried")]
