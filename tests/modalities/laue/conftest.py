"""Maps of simulated films whose grains are known."""

import functools
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braggscope.modalities.laue.geometry import film
from braggscope.modalities.laue.grain_maps import grain_map
from braggscope.modalities.laue.phantoms.microstructure import microstructure
from braggscope.physics.crystals import crystal_of

AU = crystal_of("Au")


@pytest.fixture(scope="session")
def film_map():
    """A function that makes the map of a film: grains of 0.37 um, elongated by 1.5 along x, points 0.1 um apart."""

    @functools.cache
    def film_of(seed, twins):
        fine = np.arange(-2.5, 6.5, 0.025)
        options = {"size_um": 0.37, "elongation": 1.5, "texture": "random", "fibre": "1 1 1", "spread_deg": 5.0, "strain": 0.0}
        return microstructure(seed, fine, fine, AU, film(), twins=twins, **options)

    def made(seed=0, shape=(40, 40), twins=0.0, tilt=(0.0, 0.0, 0.0), step=0.1, turn_deg=0.0, shift=(0.0, 0.0)):
        """tilt: rotation vector of the frame of the orientations.  turn_deg, shift (y, x; um): of the points about the middle."""
        sample = film_of(seed, twins)
        y, x = (step * np.arange(n) for n in shape)
        dy, dx = (y - y.mean())[:, None], (x - x.mean())[None]
        c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
        number = sample.at(1.95 + shift[0] + c * dy - s * dx, 1.95 + shift[1] + c * dx + s * dy)
        u = Rotation.from_rotvec(tilt).as_matrix() @ sample.orientation[number]
        return grain_map(u, AU, y, x, number + 1).assign_attrs(geometry=json.dumps(film().to_mapping()))

    return made
