import dataclasses
import math

import numpy as np
import pytest
import torch

from braggscope.core.errors import InputError
from braggscope.modalities.nanobeam.forward import NanobeamForward
from braggscope.modalities.nanobeam.geometry import NanobeamGeometry, check_frame, published

GOOD = published()
FILM = {"strain": 1e-3, "omega": 0.01, "chi": -0.03, "background": 0.02}


def test_the_published_numbers():
    """npj Comput. Mater. 11, 380: focal length 21.73 mm, ring 13.7 < r < 26.5 px of a 64 x 64 frame."""
    assert GOOD.focal_length_mm == pytest.approx(21.73, abs=0.005)
    assert GOOD.ring_radii_px == pytest.approx((13.69, 26.50), abs=0.01)
    assert math.degrees(GOOD.bragg_angle) == pytest.approx(15.867, abs=1e-3)
    assert GOOD.blur_px == pytest.approx((0.071, 0.259), abs=1e-3)  # across, along


def test_the_ring_scale_scales_both_radii():
    small = GOOD.replace(ring_scale=0.984).ring_radii_px
    assert small == pytest.approx([0.984 * r for r in GOOD.ring_radii_px])


def test_the_beam_centre_moves_the_pixels_the_other_way():
    moved = GOOD.replace(centre_row_px=1.5, centre_column_px=-2.0)
    assert moved.rows_px(64) == (-33.0, 30.0) and moved.columns_px(60) == (-27.5, 31.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stop_um": 149.0}, ["stop_um", "smaller than zone_plate_um", "149"]),
        ({"lattice_a": 1.05}, ["lattice_a", "1.097", "no Bragg angle", "1.05"]),
        ({"order": 9}, ["lattice_a", "009", "no Bragg angle"]),
        ({"pixel_um": 8000.0}, ["pixel_um", "ring of radius", "between 2 and 1000"]),
        ({"distance_m": 60.0, "pixel_um": 1.0}, ["distance_m", "ring of radius", "between 2 and 1000"]),
        ({"energy_kev": -11.3}, ["energy_kev", "-11.3", "between 1 and 200 keV"]),
        ({"crystal_width_tau": 0.0}, ["crystal_width_tau", "0.03", "got 0"]),
        ({"pupil_file": 3}, ["pupil_file", "file name", "3"]),
    ],
)
def test_contradictions_are_named(changes, words):
    with pytest.raises(InputError) as caught:
        NanobeamGeometry.from_mapping({**GOOD.to_mapping(), **changes})
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_small_frame_is_refused_with_both_sizes():
    check_frame(GOOD, (64, 64))
    check_frame(GOOD, (53, 53))
    with pytest.raises(InputError, match=r"48 x 64 pixels, but the ring at zero tilt needs 53 x 53"):
        check_frame(GOOD, (48, 64))
    with pytest.raises(InputError, match=r"needs 53 x 73"):
        check_frame(GOOD.replace(centre_column_px=-10.0), (64, 64))


def test_a_toml_file_goes_round(tmp_path):
    import tomli_w

    whole = GOOD.replace(ring_scale=0.985, source_px=0.4, pupil_file="pupil.npz")
    path = tmp_path / "film.toml"
    path.write_text(tomli_w.dumps({"nanobeam": whole.to_mapping()}))
    again = NanobeamGeometry.from_toml(path)
    assert again == whole.replace(pupil_file=str(tmp_path / "pupil.npz"))
    assert {f.name for f in dataclasses.fields(again)} >= set(again.to_mapping())


@pytest.mark.parametrize(("roi", "binning"), [((0, 128, 0, 128), 2), ((3, 128, 6, 127), 1), ((2, 127, 5, 128), 2)])
def test_a_cut_and_binned_frame_is_the_sum_of_the_pixels_it_is_made_of(roi, binning):
    """The model of the frames as analysed against binned frames of the model of the recorded ones."""
    recorded = GOOD.replace(pixel_um=55.0, centre_row_px=0.7, centre_column_px=-1.2, source_px=0.8, crystal_width_tau=0.2)
    film = {name: torch.tensor(value, dtype=torch.float64) for name, value in FILM.items()}
    whole = NanobeamForward(recorded, (128, 128))({**film, "scale": torch.tensor(5.0, dtype=torch.float64)}).numpy()
    top, bottom, left, right = roi
    rows, columns = (bottom - top) // binning, (right - left) // binning
    cut = whole[top : top + rows * binning, left : left + columns * binning]
    binned = cut.reshape(rows, binning, columns, binning).sum(axis=(1, 3))
    seen = recorded.seen_through(roi, (128, 128), binning)
    scale = torch.tensor(5.0 * binning**2, dtype=torch.float64)
    film["background"] = film["background"] * binning**2
    model = NanobeamForward(seen, (rows, columns))({**film, "scale": scale}).numpy()
    # the pupil is averaged over a binned pixel in the model, over its four parts in the sum: the tables differ by their knots
    assert np.abs(model - binned).sum() < 2e-3 * binned.sum()


def test_binning_thresholded_counts_is_refused():
    with pytest.raises(InputError, match="binning 2 does not go with a threshold"):
        GOOD.replace(threshold=2.0).seen_through((0, 64, 0, 64), (64, 64), 2)
