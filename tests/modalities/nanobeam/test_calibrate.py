from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import braggscope.modalities.nanobeam.calibrate as calibration
from braggscope.core.errors import InputError
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation
from braggscope.modalities.nanobeam.calibrate import calibrate
from braggscope.modalities.nanobeam.forward import NanobeamForward
from braggscope.modalities.nanobeam.geometry import NanobeamGeometry, published
from braggscope.modalities.nanobeam.optics_fit import Counts, FrameModel, Optics, PupilModel
from braggscope.modalities.nanobeam.phantom import uniform
from braggscope.modalities.nanobeam.pupil import Pupil, load_pupil, pupil

EXAMPLE = Path(__file__).parents[3] / "examples" / "data" / "sriro3_frames.h5"
TRUE = published().replace(ring_scale=0.984, centre_row_px=0.4, centre_column_px=-0.3, source_px=0.5)


def mis_set_scan(frames, seed=1):
    """Frames of TRUE with an illumination that falls by 8 % from top to bottom."""
    table = pupil(TRUE)
    v = table.origin[0] + np.arange(len(table.coefficients)) / table.per_pixel[0]
    light = 1 - 0.04 * v / TRUE.ring_radii_px[1]
    forward = NanobeamForward(
        TRUE, (64, 66), pupil_table=Pupil(table.coefficients * light[:, None], table.origin, table.per_pixel)
    )
    truth = uniform(TRUE, shape=(frames,), seed=seed).truth
    values = {name: torch.from_numpy(truth[name].values) for name in forward.params}
    grid = xr.Dataset(coords={"x": np.arange(frames)})
    return Simulation(
        None, grid, (64, 66), lambda i: forward({n: v[torch.from_numpy(i)] for n, v in values.items()}), truth, Noise(), seed
    )


@pytest.fixture(scope="module")
def found():
    scan = mis_set_scan(60)
    reference = {"omega": float(scan.truth["omega"].mean()), "chi": float(scan.truth["chi"].mean())}
    return calibrate(scan, published(), reference=reference)


def test_mis_set_optics_are_found_within_their_uncertainty(found):
    for name in ("ring_scale", "stop_um", "source_px", "crystal_width_tau", "thickness_a", "background"):
        off = (getattr(found.geometry, name) - getattr(TRUE, name)) / found.uncertainty[name]
        assert abs(off) < 4, (name, off)
    assert found.uncertainty["ring_scale"] < 1e-3 and found.uncertainty["thickness_a"] < 5


def test_a_reference_finds_the_beam_centre(found):
    # 4 standard deviations, and what the unknown offset of the strain adds
    assert abs(found.geometry.centre_row_px - 0.4) < 0.05 and abs(found.geometry.centre_column_px + 0.3) < 0.05


def test_the_illumination_is_found(found):
    middle = found.illumination.shape[1] // 2
    edge = round(20 / found.pixels_per_sample)
    top, bottom = (found.illumination[found.illumination.shape[0] // 2 + sign * edge, middle] for sign in (-1, 1))
    assert top / bottom - 1 == pytest.approx(2 * 0.04 * 20 / TRUE.ring_radii_px[1], abs=0.02)


def test_what_is_saved_is_what_was_found(found, tmp_path):
    files = found.save(tmp_path / "film.toml")
    assert [file.name for file in files] == ["film.toml", "film.pupil.npz"]
    again = NanobeamGeometry.from_toml(tmp_path / "film.toml")
    assert again.replace(pupil_file=None) == found.geometry.replace(pupil_file=None)
    image, step = load_pupil(again.pupil_file)
    assert np.array_equal(image, found.pupil) and step == found.pixels_per_sample
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.pupil.npz", "film.toml"]


def test_derivatives_by_the_optics_are_the_finite_differences():
    geometry = published()
    inner, outer = geometry.ring_radii_px
    optics = Optics(outer, inner, 0.02, 0.3, 117.0, (0.02, -0.03, 0.01, 0.02, -0.01))
    model = PupilModel(geometry, 5)
    frame_model = FrameModel(geometry, (64, 62), model.grid)
    frames = np.array([[1e-3, 2e-4, -3e-4, 2.0, -2.0]])
    _, jacobian = frame_model(model.tables(optics), optics.thickness, frames)
    for i, step in enumerate([0.25, 0.25, 2e-3, 0.01, 0.5, *[0.01] * 5]):
        ends = []
        for sign in (1, -1):
            moved = optics.moved(sign * step * np.eye(10)[i])
            ends.append(frame_model(model.tables(moved, derivatives=False), moved.thickness, frames)[0])
        difference = (ends[0] - ends[1])[0] / (2 * step)
        # the radii step by two samples of the grid; the truncation of the difference is a few per cent there
        assert (jacobian[0, 5 + i] - difference).abs().max() <= (0.1 if i < 2 else 0.02) * difference.abs().max(), i


def test_the_model_is_that_of_the_forward_model():
    geometry = published().replace(source_px=0.4)
    inner, outer = geometry.ring_radii_px
    model = PupilModel(geometry, 2)
    tables = model.tables(Optics(outer, inner, geometry.crystal_width_tau**2, 0.16, 117.0, (0.0, 0.0)))
    mean, _ = FrameModel(geometry, (64, 62), model.grid)(tables, 117.0, np.array([[2e-3, 2e-4, -8e-4, np.log(7.0), np.log(0.1)]]))
    values = {"strain": 2e-3, "omega": np.degrees(2e-4), "chi": np.degrees(-8e-4), "scale": 7.0, "background": 0.1}
    expected = NanobeamForward(geometry, (64, 62))({n: torch.tensor(v, dtype=torch.float64) for n, v in values.items()})
    # edges are looked up linearly, 8 samples per pixel
    assert (mean[0] - expected).abs().max() < 0.01 * expected.max()
    assert (mean[0] - expected).abs().mean() < 5e-4 * expected.max()


def test_two_measured_frames_are_calibrated():
    from braggscope.core.source import open_scan

    found = calibrate(open_scan(EXAMPLE), published())
    inner, outer = found.geometry.ring_radii_px
    # outer 26.04 to 26.20 px, inner 13.56 to 13.62, each +-0.15 by method; blur 0.66 to 0.89 px; the top about 15 % brighter
    assert 25.9 < outer < 26.3 and 13.4 < inner < 13.77
    assert 0.6 < found.geometry.source_px < 0.95
    assert found.geometry.threshold == 2 and found.geometry.saturation == 7
    words = next(line for line in found.summary if line.startswith("illumination"))
    assert 5 < float(words.split()[1]) < 20, words
    assert any("kept as given: crystal" in line for line in found.summary)
    assert found.geometry.crystal_width_tau == 0.1 and "crystal_width_tau" not in found.uncertainty


def dark(frames=3, frame_shape=(64, 64)):
    grid = xr.Dataset(coords={"x": np.arange(frames)})
    return Simulation(None, grid, frame_shape, lambda i: torch.full((len(i), *frame_shape), 0.02), xr.Dataset(), Noise(), 1)


def ringless(frames=4):
    grid = xr.Dataset(coords={"x": np.arange(frames)})
    blob = torch.exp(-((torch.arange(64.0) - 20) ** 2) / 18)
    return Simulation(
        None, grid, (64, 64), lambda i: (30 * blob[:, None] * blob + 0.5).expand(len(i), 64, 64), xr.Dataset(), Noise(), 1
    )


@pytest.mark.parametrize(
    ("scan", "options", "message"),
    [
        (dark(), {}, "at least 300 counts, got .* in the brightest of 3 frames"),
        (ringless(), {}, r"no ring of light like that of the geometry \(outer radius .* px\)"),
        (dark(frame_shape=(16, 18)), {}, r"the frames are 16 x 18 pixels, but the ring at zero tilt needs 53 x 53"),
        (dark(), {"reference": {"colour": 1.0}}, "unknown reference 'colour'; there are: chi, omega, strain"),
        (dark(), {"reference": {"strain": 0.0, "omega": 0.0}}, "strain or omega, not both"),
        (dark(), {"reference": {"chi": float("nan")}}, "reference chi must be a number, got nan"),
    ],
)
def test_bad_input_is_one_sentence(scan, options, message):
    with pytest.raises(InputError, match=message):
        calibrate(scan, published(), **options)


def test_an_unknown_part_is_named():
    with pytest.raises(InputError, match=r"unknown part of the calibration 'colour'; there are: .*ring"):
        calibrate(uniform(published(), shape=(3,)), published(), free=("colour",))


def test_what_is_not_free_stays():
    found = calibrate(uniform(published(), shape=(12,)), published(), free=("background", "ring"))
    assert set(found.uncertainty) == {"background", "ring_scale", "stop_um"}
    assert found.geometry.centre_row_px == 0 and found.geometry.source_px == 0 and found.geometry.thickness_a == 117


def test_progress_ends_at_its_total(monkeypatch):
    monkeypatch.setattr(calibration, "ROUNDS", 1)
    calls = []
    calibrate(
        uniform(published(), shape=(4,)), published(), free=("ring",), progress=lambda done, total: calls.append((done, total))
    )
    assert calls[-1][0] == calls[-1][1] and all(a[0] <= b[0] for a, b in pairwise(calls))


def test_counts_can_be_taken_in_part():
    counts = Counts(torch.arange(12.0).reshape(3, 2, 2), torch.ones(3, 2, 2), 0, float("inf"))
    assert counts.take(np.array([2])).frames.flatten().tolist() == [8, 9, 10, 11] and len(counts.take(slice(0, 2)).use) == 2
