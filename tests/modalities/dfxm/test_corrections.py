"""DFXM corrections on scans with known truth: hot pixels, gain and offset, shifts, motor drift; and moments on what they give."""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import ndimage

import braggscope
from braggscope.core.corrections import Raw, Shifted, corrected, with_dark_and_flat
from braggscope.core.errors import InputError
from braggscope.core.scan import Axis, Scan
from braggscope.modalities.dfxm.corrections.hot_pixels import hot_pixels
from braggscope.modalities.dfxm.corrections.motor_drift import line_offsets, motor_drift
from braggscope.modalities.dfxm.corrections.photons import photons
from braggscope.modalities.dfxm.corrections.shift import frame_shifts, shift
from braggscope.modalities.dfxm.photon_transfer import sampled_curves

DATA = Path(__file__).parents[4] / "shared" / "data" / "dfxm"
GAIN, READOUT, LEVEL = 2.0, 3.0, 100.0


@dataclass
class Memory:
    values: np.ndarray

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def read(self, which, rows, columns):
        return self.values[which][:, rows, columns]


def scan_of(values, mu=None, modality="dfxm"):
    mu = 0.01 * (np.arange(len(values)) - (len(values) - 1) / 2) if mu is None else mu
    return Scan(
        Path("memory.h5"), "1.1", (Axis("mu", mu, "deg"),), Memory(values), np.arange(len(values)), {"mu": mu}, modality=modality
    )


@cache
def crystal(points=25, shape=(80, 90), width=8.0, bend=3.0, peak=1500.0, moved=None, drift=None, seed=1):
    """Expected photons of a bent crystal with fine structure: frames, and each pixel's true centre in steps, where nothing moves.

    width, bend: Of the rocking curves and of the crystal, in steps. moved: Shift of each frame in pixels.
    drift: Of the motor, in steps.
    """
    random, pad = np.random.default_rng(seed), 6
    size = tuple(n + 2 * pad for n in shape)
    texture = ndimage.gaussian_filter(random.normal(size=size), 1.3)
    y, x = (np.linspace(-0.5, 0.5, n) for n in size)
    centre = bend * (0.6 * x + 0.8 * y[:, None]) + ndimage.gaussian_filter(random.normal(size=size), 8) * 20
    bright = np.exp(0.5 * texture / texture.std())
    u = np.arange(points) - (points - 1) / 2 + (np.zeros(points) if drift is None else np.array(drift))
    frames = np.empty((points, *shape))
    for i in range(points):
        image = bright * np.exp(-((u[i] - centre) ** 2) / (2 * width**2))
        by = (0.0, 0.0) if moved is None else moved[i]
        frames[i] = np.maximum(ndimage.shift(image, by, order=5), 0)[pad:-pad, pad:-pad]
    scale = peak / GAIN / np.percentile(frames, 99.5)
    return frames * scale, centre[pad:-pad, pad:-pad]


def counts_of(photon_frames, seed=0):
    random = np.random.default_rng(seed)
    noise = READOUT * random.normal(size=photon_frames.shape)
    return np.round(LEVEL + GAIN * random.poisson(photon_frames) + noise).clip(0, 65535).astype(np.uint16)


def mapped(scan, method="moments"):
    return braggscope.map(scan, method, modality="dfxm", geometry=geometry(), progress=False)


def geometry():
    from braggscope.modalities.dfxm.geometry import id03

    return id03()


# --- the noise that they go by


def test_noise_is_sampled_on_whole_lines_and_masked_or_lost_counts_are_nan():
    frames = np.arange(15 * 2 * 3, dtype=np.uint16).reshape(15, 2, 3)  # 5 lines of 3 points; point 14 is lost
    frames[7, 1, 2] = 65535
    chi, mu = np.repeat(np.arange(5.0), 3), np.tile([0.0, 0.1, 0.3], 5)
    axes = (Axis("chi", np.arange(5.0), "deg"), Axis("mu", mu[:3], "deg"))
    there = np.array([13, *range(13)])  # not in order of the grid
    scan = Scan(
        Path("memory.h5"), "1.1", axes, Memory(frames[there]), there, {"chi": chi, "mu": mu}, modality="dfxm", saturation=65535
    )
    curves = sampled_curves(scan, frames=7, pixels=np.array([0, 5]), size=4)  # lines 0, 2 and 4
    expected = frames.reshape(15, 6)[[0, 1, 2, 6, 7, 8, 12, 13, 14]][:, [0, 5]].astype(float)
    expected[4, 1] = expected[8] = np.nan
    np.testing.assert_array_equal(curves.counts, expected)
    np.testing.assert_array_equal(curves.positions, mu[:9])
    assert curves.fast == 3 and curves.whole
    assert sampled_curves(scan, frames=None).counts.shape == (15, 6)


# --- hot pixels


def test_hot_pixels_are_found_and_almost_nothing_else_is():
    frames, _ = crystal(width=2.0, bend=18.0, peak=600.0)
    values, random = counts_of(frames), np.random.default_rng(7)
    stuck = np.zeros(values.shape[1:], bool)
    stuck.ravel()[random.choice(stuck.size, 25, replace=False)] = True
    values[:, stuck] = np.minimum(values[:, stuck] + random.integers(150, 3000, 25), 65000).astype(np.uint16)
    dead = (10, 20)
    values[:, dead[0], dead[1]] = 7
    hits = np.zeros(values.shape, bool)
    hits.ravel()[random.choice(hits.size, 60, replace=False)] = True
    hits &= ~ndimage.binary_dilation(stuck, iterations=2) & (frames < 20)
    values[hits] += random.integers(300, 3000, int(hits.sum())).astype(np.uint16)
    scan = hot_pixels(scan_of(values))
    masked = np.concatenate([~b.mask for b in scan.batches()])
    always = masked.all(axis=0)
    assert always[dead]
    always[dead] = False
    assert (always & stuck).sum() >= 24 and (always & ~stuck).sum() == 0
    single = masked & ~masked.all(axis=0)
    assert (single & hits).sum() >= 0.97 * hits.sum()
    assert (single & ~hits).sum() <= 2
    assert scan.corrections[0]["bad_pixels"] == int(masked.all(axis=0).sum())


@pytest.mark.skipif(not DATA.exists(), reason="the real scans are not here")
@pytest.mark.parametrize("name", ["id03_rocking_mu_fatigue.h5", "id03_mosa_motor_drift_111_Al.h5"])
def test_real_scans_lose_next_to_nothing(name):
    scan = braggscope.open(DATA / name).cut(0, 60, 0, 60)
    lost = sum(0 if b.mask is None else int((~b.mask).sum()) for b in hot_pixels(scan).batches())
    assert lost < 1e-4 * scan.frames.shape[0] * 3600


# --- photons


def test_gain_and_offset_are_found_and_counts_become_photons():
    frames, _ = crystal(points=41, width=5.0, bend=24.0)
    scan = photons(scan_of(counts_of(frames)))
    record = scan.corrections[0]
    assert abs(record["gain"] - GAIN) < min(5 * record["gain_std"], 0.1)
    assert abs(record["offset"] - LEVEL) < 2.0
    light = np.concatenate([b.frames for b in scan.batches()])
    assert all(b.mask is None for b in scan.batches())
    assert light.min() < -1
    assert abs(light.mean() - frames.mean()) < 0.02 * frames.mean() + 1.0
    result = mapped(scan)
    assert abs(result.attrs["gain"] - 1) < 0.05
    assert '"gain_std"' in result.attrs["corrections"]


def test_a_gain_that_cannot_be_found_is_asked_for():
    flat = np.full((41, 20, 20), 100, np.uint16)
    with pytest.raises(InputError, match=r"the gain does not stand out .* give it as photons:gain=VALUE"):
        photons(scan_of(flat))
    scan = photons(scan_of(flat), gain=2.5, offset=90.0)
    assert next(scan.batches()).frames[0, 0, 0] == 4.0
    with pytest.raises(InputError, match="gain must be a positive number of detector units per photon, got -1"):
        photons(scan_of(flat), gain=-1.0)


# --- shift


def test_known_shifts_are_found_within_a_twentieth_of_a_pixel():
    random = np.random.default_rng(3)
    moved = random.choice([0.0, 0.3, 1.7], size=(21, 2))
    frames, _ = crystal(points=21, width=10.0, moved=tuple(map(tuple, moved)))
    found = frame_shifts(scan_of(counts_of(frames)))
    assert found.registered.all()
    error = found.shifts - (moved - moved.mean(axis=0))
    assert np.abs(error).max() < 0.05, np.abs(error).max(axis=0)


def test_a_steady_drift_is_found_and_does_not_walk_off():
    moved = np.outer(np.arange(31) - 15, [0.15, -0.1])
    frames, _ = crystal(points=31, moved=tuple(map(tuple, moved)))
    found = frame_shifts(scan_of(counts_of(frames)))
    assert np.abs(found.shifts - moved).max() < 0.1
    assert found.gain[0] > 3


@pytest.mark.parametrize(("width", "bend"), [(8.0, 3.0), (2.5, 16.0)])
def test_contrast_that_wanders_through_a_crystal_at_rest_moves_nothing(width, bend):
    frames, _ = crystal(width=width, bend=bend)
    scan = scan_of(counts_of(frames))
    moved = shift(scan)
    assert moved.corrections[0]["moved"] == 0
    assert moved.frames is scan.frames


def test_frames_without_structure_are_refused():
    random = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"only 0 of 15 frames share structure finer than 6 px"):
        shift(scan_of(random.normal(100, 3, (15, 64, 64)).round().astype(np.uint16)))
    with pytest.raises(InputError, match="only 0 of 15 frames share structure"):
        shift(scan_of(np.full((15, 64, 64), 100, np.uint16)))


# --- motor drift


def test_a_drift_of_the_motor_is_recovered_and_the_map_gets_better():
    offsets = np.random.default_rng(0).normal(size=41) * 0.3
    lines = np.linspace(-1, 1, 41)
    design = np.stack([lines**k for k in range(4)], axis=1)
    offsets -= design @ np.linalg.lstsq(design, offsets, rcond=None)[0]  # the rest cannot be told from the crystal
    frames, centre = crystal(points=41, width=3.0, bend=18.0, peak=30000.0, drift=tuple(offsets))
    scan = scan_of(counts_of(frames))
    found = line_offsets(scan)
    inner = slice(6, 35)  # lines that many peaks cut
    assert np.abs(found.offsets[0] / 0.01 - offsets)[inner].max() < 0.1
    mended = motor_drift(scan)
    assert mended.corrections[0]["mu_proof"] > 6
    (before, untrue), (after, true) = (errors(mapped(one, "peakfit"), 0.01 * centre) for one in (scan, mended))
    assert after < 0.6 * before
    assert untrue > 2.5 and 0.9 < true < 1.1  # what was beyond the error bars is within them
    with pytest.raises(InputError, match=r"those of mu are off by 0.2 steps .* use --method peakfit"):
        mapped(mended)  # a mean over uneven points is worse than that over wrong positions


def errors(result, truth):
    """Standard deviation of the error of mu, and of the error over its stated standard deviation, at good pixels."""
    good = result["flag"].values == 0
    error, std = (result["mu"].values - truth)[good], result["mu_std"].values[good]
    assert good.mean() > 0.9
    return float(np.std(error)), float(np.std(error / std))


def test_no_drift_is_found_where_there_is_none():
    frames, _ = crystal(points=41, width=3.0, bend=18.0, peak=3000.0)
    scan = scan_of(counts_of(frames))
    mended = motor_drift(scan)
    assert mended.corrections[0]["mu_rms"] == 0
    assert mended.positions is scan.positions


@pytest.mark.skipif(not DATA.exists(), reason="the real scans are not here")
@pytest.mark.parametrize("name", ["id03_mosa_domains_111_Al_chi_diffry.h5", "id03_mosa_motor_drift_111_Al.h5"])
def test_steps_wider_than_the_peaks_tell_no_drift_and_it_is_said(name):
    record = motor_drift(braggscope.open(DATA / name)).corrections[0]
    assert record["chi_rms"] == record["diffry_rms"] == 0
    assert record["why_nothing"].endswith("pixels have peaks on enough points (of 100 needed)")


# --- what becomes of the error bars


def z_spread(result, truth, name="mu"):
    good = (result["flag"].values & ~32) == 0
    z = ((result[name].values - truth) / result[f"{name}_std"].values)[good & np.isfinite(result[f"{name}_std"].values)]
    assert len(z) > 2000
    return float(np.std(z)), float(np.mean(z))


@cache
def narrow():
    """Peaks that lie within their scan: frames and the true centre of mass of each pixel, in degrees."""
    frames, _ = crystal(points=41, width=2.5, bend=10.0, peak=800.0)
    mu = 0.01 * (np.arange(41) - 20)
    return frames, np.tensordot(mu, frames, 1) / frames.sum(axis=0)


def test_dark_and_flat_keep_error_bars_honest():
    frames, truth = narrow()
    random = np.random.default_rng(11)
    pattern, sensitivity = random.normal(0, 6, truth.shape), random.uniform(0.85, 1.15, truth.shape)
    values = counts_of(frames * sensitivity) + pattern.round() + 20
    scan = with_dark_and_flat(
        scan_of(values.astype(np.uint16)), pattern.round() + 120, 4000 * sensitivity + pattern.round() + 120
    )
    spread, bias = z_spread(mapped(scan), truth)
    assert 0.93 < spread < 1.08 and abs(bias) < 0.1


def test_photons_keep_error_bars_honest():
    frames, truth = narrow()
    spread, bias = z_spread(mapped(photons(scan_of(counts_of(frames)))), truth)
    assert 0.93 < spread < 1.07 and abs(bias) < 0.1


def test_interpolation_between_pixels_smooths_noise_and_the_measured_gain_follows():
    """A shift by half a pixel along both axes leaves a quarter of the variance: the gain that is found is a quarter too."""
    random = np.random.default_rng(2)
    smooth = np.broadcast_to(
        300 * np.exp(-((np.arange(41) - 20 + 4 * np.linspace(-1, 1, 90)[:, None]) ** 2) / (2 * 4.0**2)), (80, 90, 41)
    ).transpose(2, 0, 1)
    scan = scan_of(counts_of(smooth, 5))
    truth = np.tensordot(0.01 * (np.arange(41) - 20), smooth, 1) / smooth.sum(axis=0)
    shifts = np.where(random.uniform(size=(41, 1)) < 0.5, 0.5, -0.5) * np.array([[1.0, 0.0]])
    moved = corrected(scan, {"name": "shift"}, frames=Shifted(Raw(scan.frames), shifts, "linear"))
    still, half = mapped(scan.cut(2, 78, 2, 88)), mapped(moved.cut(2, 78, 2, 88))
    assert half.attrs["gain"] == pytest.approx(still.attrs["gain"] / 2, rel=0.08)
    spread, _ = z_spread(half, truth[2:78, 2:88])
    assert 0.93 < spread < 1.07
    assert math.isclose(z_spread(still, truth[2:78, 2:88])[0], 1, abs_tol=0.06)


@pytest.mark.parametrize("step", [None, "dark-flat", "hot-pixels", "photons", "whole pixels"])
def test_peakfit_stays_honest_after_each_correction(step):
    frames, _ = crystal(points=41, width=2.5, bend=10.0, peak=800.0)
    centre = 0.01 * crystal(points=41, width=2.5, bend=10.0, peak=800.0)[1]
    values, pattern = counts_of(frames), np.random.default_rng(4).integers(0, 30, centre.shape)
    if step == "dark-flat":
        scan = with_dark_and_flat(scan_of((values + pattern).astype(np.uint16)), pattern + 100.0)
    elif step == "whole pixels":
        values = np.roll(values, 2, axis=2)
        scan = corrected(scan_of(values), {"name": "shift"}, frames=Shifted(Raw(Memory(values)), np.full((41, 2), [0.0, 2.0])))
        scan, centre = scan.cut(0, 80, 0, 88), centre[:, :88]
    else:
        scan = {None: lambda s: s, "hot-pixels": hot_pixels, "photons": photons}[step](scan_of(values))
    _, spread = errors(mapped(scan, "peakfit"), centre)
    assert 0.95 < spread < 1.05


# --- motors out of order, twice at a place, at one place


def test_motors_out_of_order_give_the_map_of_those_in_order(tmp_path):
    frames, _ = narrow()
    values, order = counts_of(frames[:, :20, :30]), np.random.default_rng(0).permutation(41)
    right = braggscope.open(written(tmp_path, "right.h5", values))
    mixed = braggscope.open(written(tmp_path, "mixed.h5", values[order], 0.01 * (order - 20)))
    np.testing.assert_array_equal(mixed.axes[0].values, right.axes[0].values)
    np.testing.assert_array_equal(mixed.frame(7), right.frame(7))
    for method in ("moments", "peakfit"):
        one, other = mapped(right, method), mapped(mixed, method)
        np.testing.assert_array_equal(one["flag"], other["flag"])
        np.testing.assert_allclose(one["mu"], other["mu"], rtol=1e-6, atol=1e-9)


def test_positions_that_come_twice_are_fitted_and_not_averaged(tmp_path):
    frames, _ = narrow()
    place = np.sort(np.r_[np.arange(41), 10, 18, 20, 20, 22, 30])
    scan = braggscope.open(written(tmp_path, "twice.h5", counts_of(frames[place]), 0.01 * (place - 20)))
    centre = 0.01 * crystal(points=41, width=2.5, bend=10.0, peak=800.0)[1]
    spread = errors(mapped(scan, "peakfit"), centre)[1]
    assert 0.8 < spread < 1.05  # a little too careful: the gain comes out too large where positions are that uneven
    with pytest.raises(InputError, match=r"needs evenly spaced positions, those of mu are off by .* use --method peakfit"):
        mapped(scan)


@pytest.mark.parametrize("method", ["moments", "peakfit"])
@pytest.mark.parametrize("mu", [np.zeros(1), np.full(41, 0.1)])
def test_one_motor_position_is_refused_in_a_sentence(tmp_path, method, mu):
    scan = braggscope.open(written(tmp_path, "one.h5", counts_of(narrow()[0][: len(mu)]), mu))
    with pytest.raises(InputError, match=rf"method '{method}' needs at least \d positions of each motor, the scan has 1 of mu"):
        mapped(scan, method)


# --- through the program


def written(tmp_path, name, values, mu=None):
    with h5py.File(tmp_path / name, "w") as file:
        file["entry/data/data"] = values
        file["entry/data/mu"] = 0.01 * (np.arange(len(values)) - 20) if mu is None else mu
        file["entry/data/mu"].attrs["units"] = "deg"
        file["entry/data"].attrs.update(NX_class="NXdata", signal="data", axes=["mu", ".", "."])
        file["entry"].attrs["NX_class"] = "NXentry"
        group = file.create_group("entry/instrument/braggscope")
        group.attrs["modality"] = "dfxm"
        for key, value in geometry().to_mapping().items():
            group[key] = value
    return tmp_path / name


def test_the_program_records_corrections_and_makes_them_again(tmp_path, capsys):
    from braggscope.app.cli.main import main
    from braggscope.app.reopening import reopen

    frames, _ = narrow()
    scan = written(tmp_path, "scan.h5", counts_of(frames))
    dark = written(tmp_path, "dark.h5", counts_of(0 * frames[:5], 9))
    flat, out = tmp_path / "flat.npy", tmp_path / "map.h5"
    np.save(flat, np.full(frames.shape[1:], 900.0))
    words = ["map", str(scan), "--dark", str(dark), "--flat", str(flat), "--correct", "photons:gain=2", "--correct", "hot-pixels"]
    more = ["--roi", "10:50,20:70", "--binning", "2", "-o", str(out), "--quiet"]
    assert main([*words, *more]) == 0
    result = braggscope.load(out)
    names = [one["name"] for one in json.loads(result.attrs["corrections"])]
    assert names == ["dark-flat", "hot-pixels", "photons"]  # in their own order, not in that of the flags
    again = reopen(result, scan)
    asked = braggscope.correct(
        braggscope.open(scan).cut(10, 50, 20, 70).bin(2), "photons:gain=2", "hot-pixels", dark=dark, flat=flat
    )
    np.testing.assert_array_equal(next(again.batches()).frames, next(asked.batches()).frames)
    capsys.readouterr()
    assert main(["map", str(scan), "--correct", "photons:gain=2", *more, "--resume"]) == 2
    assert "corrections were dark-flat, hot-pixels, photons and are photons" in capsys.readouterr().err
    np.save(flat, np.full(frames.shape[1:], 901.0))
    with pytest.raises(InputError, match=r"flat.npy is not the flat image that the map was made with"):
        reopen(result, scan)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--correct", "sharpen"], "unknown dfxm correction 'sharpen'; there are: hot-pixels, motor-drift, photons, shift"),
        (["--correct", "shift:by=2"], "correction shift has no option 'by'; it has: interpolation, largest, least"),
        (["--correct", "shift:interpolation=best"], "shift:interpolation must be one of nearest, linear, cubic, got 'best'"),
        (["--correct", "photons:gain=high"], "photons:gain must be a number, got 'high'"),
        (["--correct", "photons:gain"], "--correct must be NAME or NAME:OPTION=VALUE,OPTION=VALUE, got 'photons:gain'"),
        (["--correct", "photons:gain=2", "--correct", "photons"], "correction photons is given twice"),
        (["--dark", "nothing.h5"], "dark nothing.h5 does not exist"),
        (
            ["--dark", "small.npy"],
            "dark must be an image of 80 rows x 90 columns like the recorded frames of the scan, got 7 x 9",
        ),
        (["--flat", "line.npy"], "flat line.npy must be an image or a stack of images, got an array of shape (5,)"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path, monkeypatch, capsys, words, says):
    from braggscope.app.cli.main import main

    monkeypatch.chdir(tmp_path)
    np.save("small.npy", np.ones((7, 9)))
    np.save("line.npy", np.ones(5))
    scan = written(tmp_path, "scan.h5", counts_of(narrow()[0]))
    assert main(["map", str(scan), "-o", "m.h5", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error
    assert not Path("m.h5").exists()
