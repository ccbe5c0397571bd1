"""Calibrations of pyFAI: places of pixels that pyFAI 2026.9 itself computes, round trips, and mirrored images."""

import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.modalities.laue import frames
from braggscope.modalities.laue.detector import rays
from braggscope.modalities.laue.files import read_geometry
from braggscope.modalities.laue.files.poni import read_poni, write_poni
from braggscope.modalities.laue.geometry import LaueGeometry, bm32

# 10 x 20 pixels of 0.1 mm, distance 0.1 m, poni 0.3 and 0.5 mm, rot 0.1, 0.2, 0.3 rad; centre of pixel (2, 4), axes 1 to 3, mm
PYFAI = {
    1: [-21.7025849148, 4.8302808907, 97.5036983626],
    2: [-21.3999795004, 3.7782133576, 97.6113260908],
    3: [-21.8681262045, 3.6333986119, 97.5119914207],
    4: [-22.1707316188, 4.685466145, 97.4043636925],
}


def poni(path, orientation=2, detector="Detector", config=True, **more):
    stated = (
        f'{{"pixel1": 1e-4, "pixel2": 1e-4, "orientation": {orientation}, "max_shape": [10, 20]}}' if config is True else config
    )
    values = {"Distance": 0.1, "Poni1": 3e-4, "Poni2": 5e-4, "Rot1": 0.1, "Rot2": 0.2, "Rot3": 0.3, "Wavelength": 1e-10} | more
    lines = ["# a remark: 1", "poni_version: 2.1", f"Detector: {detector}", f"Detector_config: {stated}"]
    path.write_text("\n".join(lines + [f"{name}: {value}" for name, value in values.items()]) + "\n")
    return path


@pytest.mark.parametrize("orientation", [2, 4])
def test_pixels_are_where_pyfai_has_them(tmp_path, orientation):
    geometry = read_geometry(poni(tmp_path / "a.poni", orientation))
    place = np.array(rays(frames.unturned_matrix(geometry), 2.0, 4.0))
    np.testing.assert_allclose(frames.FROM_PYFAI.T @ place, PYFAI[orientation], atol=1e-9)
    assert (geometry.rows, geometry.columns) == (10, 20)


@pytest.mark.parametrize("orientation", [1, 3])
def test_mirrored_images_are_refused_and_upside_down_they_are_right(tmp_path, orientation):
    path = poni(tmp_path / "a.poni", orientation)
    with pytest.raises(InputError, match=f"orientation {orientation} are mirrored.*flip_rows=True"):
        read_geometry(path)
    place = np.array(rays(frames.unturned_matrix(read_poni(path, flip_rows=True)), 10 - 1 - 2.0, 4.0))
    np.testing.assert_allclose(frames.FROM_PYFAI.T @ place, PYFAI[orientation], atol=1e-9)


@pytest.mark.parametrize(
    "geometry", [bm32(), bm32().replace(xbet_deg=0.0, xgam_deg=0.0), bm32().replace(roll_deg=71.0, xbet_deg=-30.0)]
)
def test_a_calibration_comes_back(tmp_path, geometry):
    write_poni(tmp_path / "a.poni", geometry)
    again = LaueGeometry.from_file(tmp_path / "a.poni")
    np.testing.assert_allclose(frames.unturned_matrix(again), frames.unturned_matrix(geometry), atol=1e-10)
    assert (again.rows, again.columns) == (2048, 2048)


def test_a_calibration_of_rings_is_mended_by_orientation_2(tmp_path):
    mended = read_poni(poni(tmp_path / "a.poni", 2, Poni1=10 * 1e-4 - 3e-4, Rot2=-0.2, Rot3=-0.3))
    place = frames.FROM_PYFAI.T @ np.array(rays(frames.unturned_matrix(mended), 2.0, 4.0))
    np.testing.assert_allclose(place, PYFAI[3] * np.array([-1, 1, 1]), atol=1e-9)  # the mirror image: same angle to the beam


def test_a_family_of_detectors_has_its_pixel(tmp_path):
    path = poni(tmp_path / "a.poni", detector="Pilatus1M", config='{"orientation": 2, "max_shape": [1043, 981]}')
    assert read_poni(path, energy_high_kev=30.0).pixel_um == pytest.approx(172.0)
    old = tmp_path / "old.poni"  # of version 1: no orientation, so mirrored
    old.write_text("PixelSize1: 1e-4\nPixelSize2: 1e-4\nDistance: 0.1\nPoni1: 0\nPoni2: 0\nRot1: 0\nRot2: 0\nRot3: 0\n")
    with pytest.raises(InputError, match="orientation 3 are mirrored"):
        read_poni(old)
    with pytest.raises(InputError, match="must say the shape"):
        read_poni(old, flip_rows=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": '{"orientation": 2}'}, "pixel of detector 'Detector' is not known here"),
        ({"config": "{pixel"}, "Detector_config is not JSON"),
        (
            {"config": '{"pixel1": 1e-4, "pixel2": 2e-4, "orientation": 2, "max_shape": [10, 20]}'},
            "pixels of the detector must be square",
        ),
        ({"config": '{"pixel1": 1e-4, "pixel2": 1e-4, "orientation": 7}'}, "orientation of the detector must be 1 to 4, got 7"),
        ({"Rot1": "much"}, "rot1 must be numbers, got 'much'"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        read_poni(poni(tmp_path / "a.poni", **change))
    (tmp_path / "b.poni").write_text("Distance: 1\n")
    with pytest.raises(InputError, match="lacks poni1, poni2"):
        read_poni(tmp_path / "b.poni")
    with pytest.raises(InputError, match="needs the rows and columns"):
        write_poni(tmp_path / "c.poni", bm32().replace(rows=None))
