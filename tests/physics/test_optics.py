import pytest
import torch

from braggscope.physics import diffraction, optics


def test_the_published_zone_plate():
    """149 um, 16 nm at 11.3 keV: 21.73 mm (npj Comput. Mater. 11, 380); the ring on the detector 13.7 to 26.5 pixels."""
    focal = optics.focal_length_mm(149.0, 16.0, diffraction.wavelength(11.3))
    assert focal == pytest.approx(21.73, abs=0.005)
    pixel = optics.pixel_angle(110.0, 0.85)
    assert optics.cone_half_angle(149.0, focal) / pixel == pytest.approx(26.495, abs=0.005)
    assert optics.cone_half_angle(77.0, focal) / pixel == pytest.approx(13.692, abs=0.005)


def test_the_cone_of_a_zone_plate_is_set_by_its_outermost_zone():
    """sin(angle) = lambda / (2 dr), whatever the diameter."""
    wavelength = torch.tensor([0.8, 1.2], dtype=torch.float64)
    focal = optics.focal_length_mm(torch.tensor([[100.0], [250.0]], dtype=torch.float64), 30.0, wavelength)
    angle = optics.cone_half_angle(torch.tensor([[100.0], [250.0]], dtype=torch.float64), focal)
    assert torch.allclose(angle, (wavelength * 0.1 / 60).expand(2, 2), rtol=1e-12)
