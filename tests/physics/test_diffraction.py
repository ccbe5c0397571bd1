import math

import pytest
import torch

from braggscope.physics import diffraction


def test_copper_radiation_on_silicon():
    """Cu K alpha1 at 8.04782 keV has 1.54059 angstrom; Si 004 (a = 5.43102) reflects it at 34.564 deg (tables)."""
    assert diffraction.wavelength(8.04782) == pytest.approx(1.54059, abs=1e-5)
    assert math.degrees(diffraction.bragg_angle(8.04782, 5.43102, 4)) == pytest.approx(34.564, abs=2e-3)


def test_bragg_law_is_the_closing_of_the_triangle():
    energy, lattice = torch.tensor([8.0, 17.0], dtype=torch.float64), torch.tensor([[3.9], [4.1]], dtype=torch.float64)
    g = diffraction.reciprocal_length(lattice, 3, torch.zeros(1, dtype=torch.float64))
    angle = diffraction.bragg_angle(energy, lattice, 3)
    assert torch.allclose(2 * diffraction.wavevector(energy) * angle.sin(), g.expand(2, 2), rtol=1e-12)


def test_positive_strain_shortens_the_reciprocal_vector():
    whole = diffraction.reciprocal_length(4.0, 2, 0.0)
    assert diffraction.reciprocal_length(4.0, 2, 0.01) == pytest.approx(whole / 1.01, rel=1e-12)


def test_the_fringe_is_the_sum_over_many_planes():
    """|sum over N planes of exp(i q c n)|^2 / N^2 -> sinc^2 for many planes; 4000 planes of 0.03 angstrom."""
    planes = torch.arange(4000, dtype=torch.float64)
    q = torch.tensor([0.0, 0.01, 0.03, 0.05236, 0.08], dtype=torch.float64)
    amplitude = torch.polar(torch.ones(5, 4000, dtype=torch.float64), q[:, None] * planes * 0.03).mean(1)
    assert torch.allclose(diffraction.film_fringe(q * 120.0), amplitude.abs() ** 2, atol=1e-6)


@pytest.mark.parametrize("phase", [0.0, 1e-3, 0.0999, 0.1001, 1.0, 6.2, -9.0, 400.0])
def test_the_slope_of_the_fringe_is_its_derivative(phase):
    z = torch.tensor(phase, dtype=torch.float64)
    step = 1e-4
    difference = (diffraction.film_fringe(z + step) - diffraction.film_fringe(z - step)) / (2 * step)
    assert diffraction.film_fringe_slope(z) == pytest.approx(float(difference), abs=1e-9)


def test_dtype_is_kept():
    z = torch.tensor([0.05, 3.0], dtype=torch.float32)
    assert diffraction.film_fringe(z).dtype == diffraction.film_fringe_slope(z).dtype == torch.float32
