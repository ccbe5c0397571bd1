"""Simulated images of dislocations: truth, noise, order, and options that cannot be."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import braggscope
from braggscope.core.errors import InputError
from braggscope.core.source import open_scan
from braggscope.modalities.dfxm.analysis.simulate_dislocations import simulate_dislocations
from braggscope.modalities.dfxm.dislocations.characters import characters_of
from braggscope.modalities.dfxm.dislocations.model import ImageModel
from braggscope.modalities.dfxm.dislocations.setting import PRESETS, Setting
from braggscope.modalities.dfxm.phantoms.dislocations import BOXES, PublishedNoise, dislocations

SMALL = {"frame_shape": (20, 24)}


def test_a_scan_on_disk_holds_the_truth_that_makes_its_images(tmp_path):
    out = tmp_path / "images.h5"
    said = simulate_dislocations(output=out, frame_shape=(20, 24), count=2, images=2, noise="none", characters=("3", "8"), seed=4)
    assert said["frames"] == "4 image"
    scan = open_scan(out)
    truth = scan.truth
    assert scan.shape == (4,) and truth["character_1"].values.tolist() == [3, 3, 8, 8]
    assert set(truth["character_2"].values.tolist()) <= {3, 8}
    setting = Setting.from_mapping(json.loads(truth.attrs["setting"]))
    model = ImageModel(setting, characters_of(setting), (20, 24))
    frames = next(iter(scan.batches())).frames
    for k in range(4):
        which = [int(truth[f"character_{d}"][k]) - 1 for d in (1, 2)]
        places = np.array([[truth[f"x_{d}"][k], truth[f"y_{d}"][k]] for d in (1, 2)])
        expected = truth.attrs["counts_per_nm"] * model.image(which, places, derivatives=False)[0]
        np.testing.assert_allclose(frames[k], expected, rtol=1e-12, atol=1e-9)
        in_image = np.array([[truth[f"image_{axis}_{d}"][k] for axis in "xy"] for d in (1, 2)])
        np.testing.assert_allclose(model.from_image(which, in_image), places, rtol=1e-9)


def test_an_array_holds_the_frames_of_the_scan(tmp_path):
    for name in ("a.npy", "a.h5"):
        simulate_dislocations(output=tmp_path / name, frame_shape=(9, 7), characters=("1", "5"), seed=1)
    frames = np.concatenate([b.frames for b in open_scan(tmp_path / "a.h5").batches()])
    assert np.array_equal(np.load(tmp_path / "a.npy"), frames) and frames.shape == (2, 9, 7)


def test_the_published_boxes_are_filled_and_not_left():
    truth = dislocations(None, images=60, characters="2,9", **SMALL).truth
    tan = math.tan(math.radians(20.73))
    for k, rows in ((2, slice(0, 60)), (9, slice(60, 120))):
        for name, half in (("image_y_1", BOXES[k - 1][0] / 2), ("image_x_1", BOXES[k - 1][1] / 2 * tan)):
            values = truth[name].values[rows]
            assert abs(values).max() < half and abs(values).max() > 0.85 * half and values.min() < 0 < values.max()


def test_published_noise_has_the_stated_mean_and_variance():
    import torch

    expected = torch.full((300, 300), 50.0, dtype=torch.float64)
    expected[0, 0] = 200.0
    drawn = PublishedNoise(background_share=0.1, readout_share=0.05).sample(expected, torch.Generator().manual_seed(2))
    part = drawn.flatten()[1:]
    assert float(part.mean()) == pytest.approx(70, abs=5 * math.sqrt(170 / 9e4))
    assert float(part.var()) == pytest.approx(70 + 100, rel=5 * math.sqrt(2 / 9e4))


def test_the_seed_gives_the_same_images_and_another_seed_others():
    one, same, other = (dislocations(None, seed=s, characters="7", **SMALL).frames(np.arange(1)) for s in (5, 5, 6))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_legacy_images_are_those_of_the_legacy_model_at_the_published_amplitude():
    made = dislocations(None, preset="al-002-legacy", characters="1", noise=None)
    setting = PRESETS["al-002-legacy"]
    place = np.array([[float(made.truth["x_1"][0]), float(made.truth["y_1"][0])]])
    image = 1.8 * ImageModel(setting, characters_of(setting), (50, 50)).image([0], place, derivatives=False)[0]
    np.testing.assert_allclose(made.frames(np.arange(1))[0], image, rtol=1e-12)


def test_a_rocking_stack_peaks_where_the_perfect_crystal_reflects():
    """Far from the line the full resolution limits phi and chi; the closed form does not limit chi."""
    made = dislocations(None, shape=(9, 5), characters="1", noise=None, frame_shape=(4, 5), region="field", half_deg=(0.04, 0.14))
    assert list(made.grid.dims) == ["phi", "chi"] and made.truth["character_1"].ndim == 0
    frames = made.frames(np.arange(45)).reshape(9, 5, 4, 5).mean((2, 3))
    assert frames.argmax() == np.ravel_multi_index((4, 2), (9, 5))
    assert frames[:, [0, 4]].max() < 0.02 * frames.max()
    assert 0.9 * 440 < frames.max() < 440.001


def test_a_network_from_a_file_is_imaged(tmp_path):
    points = [(-200, -200, 0), (200, -200, 0), (200, 200, 0), (-200, 200, 0)]
    lines = ["minCoordinates = [ -4e3 -4e3 -4e3 ]", "maxCoordinates = [ 4e3 4e3 4e3 ]", "nodalData ="]
    for k, (x, y, z) in enumerate(points):
        lines.append(f"0,{k} {x} {y} {z} 2 0")
        for other, sign in (((k + 1) % 4, 1), ((k - 1) % 4, -1)):
            lines += [f"0,{other} {sign * 0.7071} 0 {sign * 0.7071}", "0 0 1"]
    file = tmp_path / "loop.data"
    file.write_text("\n".join(lines))
    made = dislocations(None, network=str(file), noise=None, **SMALL)
    image = made.frames(np.arange(1))[0]
    assert image.shape == SMALL["frame_shape"] and image.max() > 10 and np.isfinite(image).all()
    assert not made.truth.data_vars


@pytest.mark.parametrize("options", [{"resolution": "full"}, {"crystal": "Al"}])
def test_full_resolution_and_anisotropy_change_the_image_a_little(options):
    plain = dislocations(None, characters="1", noise=None, **SMALL).frames(np.arange(1))
    other = dislocations(None, characters="1", noise=None, **SMALL, **options).frames(np.arange(1))
    assert 0 < abs(other - plain).max() < 0.35 * plain.max()


def test_the_phantom_is_found_by_name(tmp_path):
    options = {"characters": "11", "images": 3}
    made = braggscope.simulate("dfxm", "dislocations", frame_shape=(8, 9), progress=False, **options)
    assert made.shape == (3,) and made.geometry.energy_kev == pytest.approx(17.0, abs=0.02)
    assert made.geometry.sample_pixel_um() == pytest.approx((0.075 / math.sin(math.radians(20.73)), 0.075))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"noise": "some"}, "noise must be one of low, high, counts, none, got 'some'"),
     ({"region": "here"}, "region must be one of auto, box, field"), ({"count": 0}, "count must be from 1 to 20, got 0"),
     ({"shape": (5, 5, 5)}, "points along phi, or phi and chi"), ({"shape": (5,), "half_deg": (0.0,)}, "half_deg must be angles"),
     ({"crystal": "Xx"}, "crystal must be one of"), ({"preset": "al-111"}, "preset must be one of al-002"),
     ({"preset": "al-002-legacy", "resolution": "full"}, "conventions of the released code"),
     ({"peak": -1.0}, "peak must be positive"), ({"gain": 0.0}, "gain must be positive, got 0"),
     ({"noise": "counts", "background": -5.0}, "background must be 0 or more, got -5"),
     ({"characters": "13"}, "13"), ({"network": "none.data"}, "does not exist")],
)  # fmt: skip
def test_an_option_that_cannot_be_is_named(options, sentence):
    with pytest.raises(InputError, match=sentence):
        dislocations(None, **options)


def test_an_output_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"output must end in \.h5"):
        simulate_dislocations(output=tmp_path / "a.png")


def test_a_stack_of_one_point_is_refused_by_the_option_s_name(tmp_path):
    with pytest.raises(InputError, match="rocking must be points along phi, or along phi and chi, at least 2 along each, got 1"):
        simulate_dislocations(output=tmp_path / "a.h5", rocking=(1,))
