"""Spectrum, polarisation and absorption against closed forms and tabulated values."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import kv

from braggscope.core.errors import InputError
from braggscope.modalities.laue.brightness import layer
from braggscope.modalities.laue.detector import detector_matrix, rays
from braggscope.modalities.laue.geometry import bm32, film
from braggscope.modalities.laue.patterns import spots_of
from braggscope.modalities.laue.spectrum import (
    absorption_coefficient,
    electric_field,
    polarisation,
    spectrum,
    surface_normal,
    synchrotron,
)
from braggscope.physics.crystals import crystal_of


def test_the_synchrotron_spectrum_is_the_integral_of_the_bessel_function():
    for y in (0.05, 0.4, 1.0, 3.0, 10.0):
        exact = quad(lambda x: kv(5 / 3, x), y, np.inf, epsrel=1e-10)[0]
        assert synchrotron(np.array(y)) == pytest.approx(exact, rel=1e-4)
    # half of the power, the integral of y times it, is below the critical energy: its definition
    y = np.geomspace(1e-4, 40, 20001)
    power = np.concatenate([[0], np.cumsum(np.diff(y) * (y[1:] * synchrotron(y[1:]) + y[:-1] * synchrotron(y[:-1])) / 2)])
    assert np.interp(1.0, y, power) / power[-1] == pytest.approx(0.5, abs=2e-3)


def test_a_spectrum_is_flat_by_default_and_read_from_a_table(tmp_path):
    assert (spectrum(bm32())(np.array([5.0, 20.0])) == 1).all()
    table = tmp_path / "beam.txt"
    table.write_text("# keV photons\n5 10\n10 30\n20 0\n")
    of = spectrum(film().replace(spectrum_file=str(table)))
    assert of(np.array([4.0, 7.5, 15.0, 25.0])).tolist() == [0.0, 20.0, 15.0, 0.0]
    table.write_text("5 10\n4 30\n")
    with pytest.raises(InputError, match="rising energies"):
        spectrum(film().replace(spectrum_file=str(table)))
    with pytest.raises(InputError, match="cannot be read as two columns"):
        spectrum(film().replace(spectrum_file=str(tmp_path / "none")))


def test_polarisation_is_one_across_the_field_and_cos_square_along_it():
    two_theta = np.deg2rad(70.0)
    for chi, expected in ((0.0, 1.0), (90.0, np.cos(two_theta) ** 2), (-30.0, 1 - np.sin(two_theta) ** 2 / 4)):
        y, z = np.sin(two_theta) * np.sin(np.deg2rad(chi)), np.sin(two_theta) * np.cos(np.deg2rad(chi))
        assert polarisation(np.array([np.cos(two_theta), y, z]), electric_field(film())) == pytest.approx(expected)


def test_the_field_stays_horizontal_where_the_laboratory_is_turned():
    """A detector at the side, taken as one above in a laboratory turned by 90 degrees, has the rays along the field.

    The surface faces the beam, so that it stays the same.
    """
    above = film().replace(sample_tilt_deg=90.0)
    aside = above.replace(roll_deg=90.0)
    assert np.allclose(electric_field(aside), [0, 0, 1]) and np.allclose(surface_normal(aside), surface_normal(above))
    own, turned = (layer(one, crystal_of("Au"), thickness_um=0.3) for one in (above, aside))
    a, b = (spots_of(one, np.eye(3)) for one in (own, turned))
    matrix = detector_matrix(film())
    u = np.stack(rays(matrix, a.row, a.column), -1)
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    assert len(u) > 5 and np.allclose(b.intensity / a.intensity, (1 - u[:, 2] ** 2) / (1 - u[:, 1] ** 2))


def test_absorption_is_that_of_the_tables_and_jumps_at_the_edges_of_gold():
    gold = crystal_of("Au")
    # NIST XCOM, gold at 10 keV: 118.1 cm^2/g; density 19.3 g/cm^3
    assert absorption_coefficient(gold, np.array([10.0]))[0] == pytest.approx(118.1 * 19.3 / 1e4, rel=0.01)
    # silicon at 8 keV: 64.68 cm^2/g, 2.329 g/cm^3
    assert absorption_coefficient(crystal_of("Si"), np.array([8.0]))[0] == pytest.approx(64.68 * 2.329 / 1e4, rel=0.02)
    for edge in (11.919, 13.734, 14.353):  # L3, L2, L1
        below, above = absorption_coefficient(gold, np.array([edge - 0.01, edge + 0.01]))
        assert above > 1.1 * below


def test_the_surface_faces_the_detector_and_the_beam_meets_it_at_the_tilt():
    normal = surface_normal(film())
    assert np.rad2deg(np.arcsin(-normal[0])) == pytest.approx(40.0) and normal[2] > 0 and normal[1] == 0


def test_the_footprint_is_stretched_along_the_beam_unless_it_is_round():
    assert film().footprint_um == pytest.approx((1.0, 1 / np.sin(np.deg2rad(40))))
    assert film().replace(footprint="round").footprint_um == (1.0, 1.0)
    with pytest.raises(InputError, match="unknown footprint 'square'; there are: round, stretched"):
        film().replace(footprint="square")
