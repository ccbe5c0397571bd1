import numpy as np
import pytest
import torch

from braggscope.core.errors import InputError
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.pupil import pupil, save_pupil, transmission

GOOD = published()


def at(geometry, v, u):
    """Transmission, slope by v and slope by u on a grid of positions in pixels."""
    table = pupil(geometry)
    coefficients = torch.from_numpy(table.coefficients)
    return transmission(
        coefficients, table.origin, table.per_pixel, torch.as_tensor(v).double(), torch.as_tensor(u).double()
    ).numpy()


def test_the_open_area_is_that_of_the_ring():
    """Blur moves light and loses none: the sum of the transmission is pi (R^2 - r^2) pixels."""
    table = pupil(GOOD)
    inner, outer = GOOD.ring_radii_px
    area = table.coefficients.sum() / np.prod(table.per_pixel)
    assert area == pytest.approx(np.pi * (outer**2 - inner**2), rel=1e-5)


def test_it_is_full_inside_the_ring_and_dark_elsewhere():
    value = at(GOOD, [0.0, 20.0, 40.0], [0.0, 3.0, 200.0])[0]
    assert value[1, 0] == pytest.approx(1, abs=1e-9) and value[1, 1] == pytest.approx(1, abs=1e-9)
    assert abs(value[0]).max() < 1e-12 and abs(value[2]).max() < 1e-12 and (value >= 0).all()


@pytest.mark.parametrize("geometry", [GOOD, GOOD.replace(source_px=0.7, crystal_width_tau=0.3)], ids=["sharp", "blurred"])
def test_the_edges_are_those_of_a_ring_convolved_directly(geometry):
    """Against a plain sum over a fine raster: ring, then two Gaussians and a box, at edges along v, along u and between.

    The tolerance of 2e-3 is the raster's (0.02 px) and, in the sharp case, the spline's: its fourth moment is not a Gaussian's.
    """
    rng = np.random.default_rng(3)
    inner, outer = geometry.ring_radii_px
    sigma_v, sigma_u = (np.hypot(b, geometry.source_px) for b in geometry.blur_px)
    offsets = np.arange(-4, 4, 0.02) + 0.01
    from scipy.special import ndtr

    weight_v, weight_u = (ndtr((offsets + 0.5) / s) - ndtr((offsets - 0.5) / s) for s in (sigma_v, sigma_u))
    for radius in (inner, outer):
        for angle in (0.02, 0.8, 1.55):
            shift = rng.uniform(-0.8, 0.8)
            v, u = (radius + shift) * np.sin(angle), (radius + shift) * np.cos(angle)
            r = np.hypot(v + offsets[:, None], u + offsets)
            direct = weight_v @ ((r > inner) & (r < outer)) @ weight_u * 0.02**2
            assert at(geometry, [v], [u])[0, 0, 0] == pytest.approx(direct, abs=2e-3)


def test_the_slopes_belong_to_the_transmission():
    """Central differences over 1e-5 px, everywhere across an edge: no knot of the table shows."""
    v, step = np.linspace(12.0, 15.0, 401), 1e-5
    for at_v, at_u, index in ((v, [1.3], 1), ([1.3], v, 2)):
        moved = (step, 0.0) if index == 1 else (0.0, step)
        up = at(GOOD, np.add(at_v, moved[0]), np.add(at_u, moved[1]))[0]
        down = at(GOOD, np.subtract(at_v, moved[0]), np.subtract(at_u, moved[1]))[0]
        slope = at(GOOD, at_v, at_u)[index]
        assert np.abs((up - down) / (2 * step) - slope).max() < 1e-6 * np.abs(slope).max()


def test_a_measured_image_is_seen_where_it_was_measured(tmp_path):
    """A lopsided image on the detector, at column x, is the pupil at u = -x; rows are not mirrored."""
    row, column = np.mgrid[-20:21, -30:31].astype(float)
    image = np.exp(-((row - 5) ** 2 + (column - 12) ** 2) / 20) + 0.3 * np.exp(-((row + 8) ** 2 + (column + 3) ** 2) / 30)
    save_pupil(tmp_path / "pupil.npz", image)
    geometry = GOOD.replace(pupil_file=str(tmp_path / "pupil.npz"))
    value = at(geometry, np.arange(-20, 21), -np.arange(-30, 31))[0]
    assert np.abs(value - image).max() < 2e-3  # negative spline coefficients are cut off


def test_a_finer_image_covers_the_same_pixels(tmp_path):
    row, column = np.mgrid[-60:61, -60:61] / 3
    save_pupil(tmp_path / "fine.npz", np.exp(-((row - 4) ** 2 + (column + 6) ** 2) / 18), 1 / 3)
    value = at(GOOD.replace(pupil_file=str(tmp_path / "fine.npz")), [4.0, 7.0], [6.0])[0]
    assert value[:, 0] == pytest.approx([1.0, np.exp(-0.5)], abs=1e-3)


def test_bad_pupil_files_are_named(tmp_path):
    def complaint(path):
        with pytest.raises(InputError) as caught:
            pupil(GOOD.replace(pupil_file=str(path)))
        return str(caught.value)

    assert "nowhere.npz does not exist" in complaint(tmp_path / "nowhere.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    assert "text.npz is no pupil image" in complaint(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", picture=np.ones((3, 3)))
    assert "other.npz is no pupil image" in complaint(tmp_path / "other.npz")
    save_pupil(tmp_path / "negative.npz", -np.ones((5, 5)))
    assert "negative.npz must hold a finite image" in complaint(tmp_path / "negative.npz")
