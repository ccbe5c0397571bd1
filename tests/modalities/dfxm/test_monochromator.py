"""The angle of the monochromator against Bragg's law and the reader of files."""

import math

import pytest

from braggscope.core.errors import InputError
from braggscope.io import units
from braggscope.modalities.dfxm.monochromator import SILICON_111, monochromator_deg


def test_the_angle_gives_the_energy_back_as_files_are_read():
    angle = math.radians(monochromator_deg(19.1))
    assert units.KEV_ANGSTROM / (2 * units.SILICON_111 * math.sin(angle)) == pytest.approx(19.1, rel=1e-9)
    assert pytest.approx(5.431020511 / math.sqrt(3), abs=5e-7) == SILICON_111


def test_an_energy_that_silicon_cannot_let_through_is_named():
    with pytest.raises(InputError, match=r"needs an energy_kev above 1.98, got 1.5"):
        monochromator_deg(1.5)
