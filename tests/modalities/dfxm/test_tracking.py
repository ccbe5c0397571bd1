"""Dislocations in movies: found, followed through overlaps, refined, and how they move; small movies."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import ndimage

import braggscope
from braggscope.core import maps
from braggscope.core.errors import InputError
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation
from braggscope.modalities.dfxm.dislocations.characters import chosen
from braggscope.modalities.dfxm.dislocations.model import ImageModel
from braggscope.modalities.dfxm.dislocations.setting import setting_of
from braggscope.modalities.dfxm.phantoms.movie import drawn
from braggscope.modalities.dfxm.tracking.detecting import Detector
from braggscope.modalities.dfxm.tracking.displacements import diffusion, mean_square_displacement
from braggscope.modalities.dfxm.tracking.following import FIRST, Motion, follow
from braggscope.modalities.dfxm.tracking.smoothing import Places, motion_of, screened, smoothed
from braggscope.modalities.dfxm.views import tracking as views

SHAPE = (96, 160)
AL = setting_of("al-002")
TWELVE = chosen(AL, ["12"])


def spots(places, seed=0, light=300.0, background=40.0, shape=SHAPE):
    """A frame with round images at these places (row, column)."""
    i, j = np.indices(shape)
    mean = np.full(shape, background) + sum(light * np.exp(-((i - r) ** 2 + (j - c) ** 2) / (2 * 1.8**2)) for r, c in places)
    return np.random.default_rng(seed).poisson(mean).astype(np.float32)


def movie(ways, axis="time", unit="s", shape=SHAPE):
    """A movie of round images; ways: places (dislocation, frame, 2), NaN where there is none."""
    ways = np.asarray(ways, float)

    def expected(index):
        there = [[w[i] for w in ways if np.isfinite(w[i]).all()] for i in index]
        return torch.from_numpy(np.stack([spots(at, int(i), shape=shape) for at, i in zip(there, index, strict=True)]))

    grid = xr.Dataset(coords={axis: ((axis,), 0.25 * np.arange(ways.shape[1]), {"units": unit})})
    return Simulation(None, grid, shape, expected, xr.Dataset(), None)


def line(start, step, frames=20):
    return np.array(start, float) + np.arange(frames)[:, None] * np.array(step, float)


@pytest.fixture(scope="module")
def small():
    """A simulated movie with a boundary, two that pass each other, and one that is captured."""
    return braggscope.simulate("dfxm", "dislocation_movie", shape=(14,), frame_shape=(128, 160), dislocations=4, seed=3)


@pytest.fixture(scope="module")
def refined(small):
    return braggscope.analyse("dfxm", "track", small, preset="al-002", characters=("12",), refine=True)


def off_truth(tracks, truth, name=""):
    """Distance of each place from the nearest true one, px."""
    true = np.stack([truth["row"].values, truth["column"].values], -1)
    found = np.stack([tracks[f"{name}row"].values, tracks[f"{name}column"].values], -1)
    far = np.linalg.norm(found[:, None] - true[None], axis=-1)  # (track, dislocation, time)
    return np.nan_to_num(far, nan=np.inf).min(axis=1)[np.isfinite(found).all(-1)]


def test_the_horizontal_detail_is_that_of_all_details():
    from braggscope.modalities.dfxm.separating.wavelets import Wavelets

    wavelets = Wavelets.fitting("db4", 3, "stationary", SHAPE)
    image = np.random.default_rng(1).normal(size=SHAPE)
    assert np.allclose(wavelets.horizontal(image), wavelets.parts(image)[1][2, 0], atol=1e-12)


def test_errors_of_bright_images_over_a_pedestal_need_the_gain():
    """60 frames of one image over 10 photons and a pedestal of 100: the scatter of the places, within the error of a scatter."""
    random, places, errors = np.random.default_rng(4), [], {1.0: [], None: []}
    i, j = np.indices((80, 90))
    mean = 10 + 2000 * np.exp(-((i - 40.3) ** 2 + (j - 45.7) ** 2) / (2 * 1.8**2))
    for _ in range(60):
        frame = random.poisson(mean) + 100 + 2 * random.standard_normal(mean.shape)
        for gain, found in errors.items():
            (one,) = Detector.of(mean.shape, 3.5, 10, gain).found(frame)
            found.append(np.diag(one.covariance))
        places.append(one.place)
    scatter = np.std(places, axis=0)
    known, unknown = (np.sqrt(np.mean(errors[gain], axis=0)) for gain in (1.0, None))
    assert np.all((known > 0.8 * scatter) & (known < 1.6 * scatter))  # the error of a scatter of 60 is 9 %
    assert np.all(unknown < 0.8 * known)


def test_an_image_is_found_where_it_is_within_its_error():
    places = [(20.3, 30.7), (60.8, 120.2), (75.0, 50.5)]
    detector, pulls = Detector.of(SHAPE, 3.5, 10), []
    for seed in range(8):
        found = sorted(detector.found(spots(places, seed)), key=lambda d: d.place[0])
        assert len(found) == 3 and not any(d.dark or d.border for d in found)
        pulls += [(d.place - p) / np.sqrt(np.diag(d.covariance)) for d, p in zip(found, places, strict=True)]
        # all the light of a Gaussian, 2 pi s^2 h
        assert np.allclose([d.light for d in found], 2 * np.pi * 1.8**2 * 300, rtol=0.08)
    assert 0.6 < np.std(pulls) < 1.5 and abs(np.mean(pulls)) < 0.5


def test_noise_alone_has_no_images():
    detector = Detector.of(SHAPE, 3.5, 10)
    assert sum(len(detector.found(spots([], seed))) for seed in range(10)) <= 1


def test_the_place_of_a_bright_and_a_dark_half_is_between_them():
    frame = spots([(40.0, 60.0)], background=200.0) - 300 * np.exp(
        -((np.indices(SHAPE)[0] - 47.0) ** 2 + (np.indices(SHAPE)[1] - 60.0) ** 2) / (2 * 1.8**2)
    ) * (200 / 300 * 0.8)
    bright = max(Detector.of(SHAPE, 3.5, 10).found(frame.astype(np.float32)), key=lambda d: d.light)
    assert bright.dark and 41.5 < bright.place[0] < 45 and abs(bright.place[1] - 60) < 1


def test_two_that_cross_keep_their_names():
    ways = [line((40, 40), (0.5, 3.0), 24), line((52, 110), (-0.5, -3.0), 24)]
    tracks = braggscope.analyse("dfxm", "track", movie(ways))
    assert tracks.sizes["track"] == 2 and (tracks["track_flag"] == 1).all()  # overlapped
    ends = np.stack([tracks["row"].values[:, -1], tracks["column"].values[:, -1]], -1)
    starts = tracks["column"].values[:, 0]
    for way in ways:
        n = int(np.abs(starts - way[0, 1]).argmin())
        assert np.linalg.norm(ends[n] - way[-1]) < 1
    # 12 px a second of 4 frames, within the errors stated
    wanted = np.where(starts < 70, 12.0, -12.0)
    assert np.all(np.abs(tracks["mean_velocity_column"] - wanted) < 4 * tracks["mean_velocity_column_std"] + 0.1)


def test_births_deaths_and_the_border_are_told():
    born, gone, out = line((20, 30), (0.3, 1.0)), line((50, 60), (0.0, 1.0)), line((80, 140), (0.0, 1.6))
    born[:6], gone[13:] = np.nan, np.nan
    tracks = braggscope.analyse("dfxm", "track", movie([born, gone, out]), shortest=14)
    order = np.argsort(tracks["row"].values[:, 9])
    assert np.allclose(tracks["birth"].values[order], [1.5, 0, 0])
    assert np.allclose(tracks["death"].values[order][:2], [4.75, 3.0])
    left, short = ((tracks["track_flag"].values[order] & bit) > 0 for bit in (2, 4))
    assert left.tolist() == [False, False, True] and short[1] and not short[0]
    assert (tracks["flag"].values[order[0], :6] == 1).all() and np.isnan(tracks["row"].values[order[0], :6]).all()


def test_missing_and_saturated_frames_are_gaps():
    made = movie([line((40, 40), (0.2, 1.0), 16)])

    def spoiled(index):
        frames = made.expected(index)
        frames[index == 5] = torch.nan
        frames[index == 9, :, :20] = torch.nan  # part of a frame, away from the image
        return frames

    tracks = braggscope.analyse("dfxm", "track", dataclasses.replace(made, expected=spoiled))
    assert tracks.sizes["track"] == 1 and tracks.attrs["unusable_or_missing_frames"] == 1
    assert tracks["flag"].values[0, 5] == 16 and np.isnan(tracks["row"].values[0, 5]) and tracks["flag"].values[0, 9] == 0
    assert abs(tracks["column"].values[0, -1] - 55) < 0.5


def test_a_motor_does_for_time_and_the_unit_is_said():
    tracks = braggscope.analyse("dfxm", "track", movie([line((40, 40), (0.0, 1.0), 12)], "mu", "deg"))
    assert tracks["velocity_column"].attrs["units"] == "px/deg" and tracks["row"].dims == ("track", "mu")
    assert tracks["velocity_column"].values[0, 6] == pytest.approx(4.0, abs=0.6) and "per deg" in tracks.attrs["caution"]
    assert tracks["msd"].attrs["units"] == "px^2" and tracks["lag"].attrs["units"] == "deg"


def test_every_place_of_the_phantom_is_found_and_refined(small, refined):
    maps.check_map(refined)
    truth = small.truth
    assert refined.sizes["track"] == 4
    plain = braggscope.analyse("dfxm", "track", small, preset="al-002", characters=("12",))
    assert np.sqrt(np.mean(off_truth(plain, truth, "measured_") ** 2)) < 0.4
    off = off_truth(refined, truth, "measured_")
    assert len(off) > 40 and np.sqrt(np.mean(off**2)) < 0.08 and np.median(off) < 0.05
    assert set(refined["character"].values) == {"12"} and refined.attrs["places"] == "fitted"


def test_places_in_nm_are_those_in_pixels(small, refined):
    x = (refined["row"] - (small.frame_shape[0] - 1) / 2) * 75 / np.sin(np.radians(20.73))
    y = (refined["column"] - (small.frame_shape[1] - 1) / 2) * 75
    assert np.allclose(x, refined["x_nm"], equal_nan=True) and np.allclose(y, refined["y_nm"], equal_nan=True)


def test_the_character_is_told_from_the_images():
    made = braggscope.simulate("dfxm", "dislocation_movie", shape=(4,), frame_shape=(96, 128), dislocations=1, character="9")
    tracks = braggscope.analyse("dfxm", "track", made, preset="al-002", characters=("5", "9", "12"))
    assert tracks["character"].values.tolist() == ["9"]


def test_the_images_are_those_of_the_whole_model(small):
    """Blocks leave nothing out: fields of all dislocations in every pixel."""
    model = ImageModel(AL, TWELVE, (96, 128))
    at = np.array([[40.2, 60.1], [43.5, 75.3], [np.nan, np.nan]])
    inner = model.from_image([0, 0], (at[:2] - [47.5, 63.5]) * np.array(model.optics.pitch_nm))
    whole, _ = model.image([0, 0], inner, derivatives=False)
    assert np.abs(drawn(model, at) - whole).max() < 2e-3 * whole.max()


def test_the_light_of_the_movie_is_that_of_its_truth(small):
    """A dislocation is beside the brightest pixel near it, within the size of its image."""
    frame = ndimage.gaussian_filter(small.frames(np.array([0]))[0], 1)
    for row, column in zip(small.truth["row"][:, 0].values, small.truth["column"][:, 0].values, strict=True):
        part = frame[int(row) - 8 : int(row) + 9, max(int(column) - 14, 0) : int(column) + 15]
        assert part.max() > frame.mean() + 150


def walk(random, diffusion, error, drift=(0.0, 0.0), frames=400):
    steps = random.normal(0, np.sqrt(diffusion), (frames, 2)) + drift
    place = np.cumsum(steps, axis=0) + random.normal(0, error, (frames, 2))
    return Places(np.arange(float(frames)), place, np.zeros((frames, 2, 2)))


def test_the_motion_is_recovered_from_random_walks():
    random = np.random.default_rng(2)
    motion = motion_of([walk(random, 0.09, 0.2, (0.5, -0.2)) for _ in range(5)], FIRST)
    assert np.allclose(np.diag(motion.diffusion), 0.09, rtol=0.3) and np.allclose(np.diag(motion.error), 0.04, rtol=0.3)


def test_smoothed_places_err_as_stated_and_less_than_measured():
    random = np.random.default_rng(3)
    motion, off, pulls = Motion(0.01 * np.eye(2), 0.003, 0.09 * np.eye(2)), [], []
    for _ in range(20):
        true = np.cumsum(random.normal(0, 0.1, (60, 2)) + np.array([0.3, 0.1]), axis=0)
        one = smoothed(Places(np.arange(60.0), true + random.normal(0, 0.3, (60, 2)), np.zeros((60, 2, 2))), motion)
        off.append(one.state[:, :2] - true)
        pulls.append(off[-1] / np.sqrt(np.diagonal(one.covariance, axis1=1, axis2=2)[:, :2]))
    assert np.std(off) < 0.18 and 0.9 < np.std(pulls) < 1.15


def test_a_place_far_off_its_neighbours_counts_little():
    place = line((0, 0), (1, 1), 21)
    place[10] += [0.0, 2.0]
    places = Places(np.arange(21.0), place, np.full((21, 2, 2), 1e-4) * np.eye(2))
    motion = Motion(1e-3 * np.eye(2), 0.01, 1e-4 * np.eye(2))
    checked = screened(places, motion)
    assert checked.covariance[10, 1, 1] > 1
    assert np.allclose(np.delete(checked.covariance, 10, 0), np.delete(places.covariance, 10, 0))
    assert abs(smoothed(checked, motion).state[10, 1] - 10) < 0.05


def test_displacements_and_their_errors_are_those_of_random_walks():
    """Mean 2 (S_row + S_column) / 2 n = 0.18 n without the errors of places; scatter over walks as stated."""
    random = np.random.default_rng(4)
    motion = Motion(0.09 * np.eye(2), 0.01, 0.04 * np.eye(2))
    found = np.array([mean_square_displacement(walk(random, 0.09, 0.2, frames=60), motion, 12) for _ in range(200)])
    msd, std = found[:, 0], found[:, 1]
    scatter = msd.std(0)
    assert np.all(np.abs(msd.mean(0) - 0.18 * np.arange(1, 13)) < 4 * scatter / np.sqrt(200))
    assert np.allclose(np.median(std, axis=0) / scatter, 1, atol=0.2)


def test_diffusion_is_recovered_within_its_error():
    random = np.random.default_rng(5)
    motion = Motion(0.09 * np.eye(2), 0.01, 0.04 * np.eye(2))
    found = np.array([diffusion(walk(random, 0.09, 0.2, (1.0, 0.5), 80), motion) for _ in range(200)])
    assert found[:, 0].mean() == pytest.approx(0.09, rel=0.1)  # msd = 2 D t, D = (S_row + S_column) / 2
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.25)


def test_the_motion_blur_of_long_exposures_does_not_halve_the_diffusion():
    """Frames exposed all the time: <d d> = 2 S + 6 (R - S / 6), so that D from R = 0 would be D / 2."""
    random, parts, tracks = np.random.default_rng(6), 20, []
    for _ in range(60):
        way = np.cumsum(random.normal(0, np.sqrt(0.09 / parts), (60 * parts, 2)), axis=0)
        place = way.reshape(60, parts, 2).mean(1) + random.normal(0, 0.02, (60, 2))
        tracks.append(Places(np.arange(60.0), place, np.full((60, 2, 2), 0.02**2) * np.eye(2)))
    motion = motion_of(tracks, FIRST)
    found = np.array([diffusion(one, motion) for one in tracks])
    assert found[:, 0].mean() == pytest.approx(0.09, rel=0.06)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.25)
    msd, std = (np.array(v) for v in zip(*(mean_square_displacement(one, motion, 4) for one in tracks), strict=True))
    assert np.allclose(msd.mean(0), 0.18 * np.arange(1, 5), rtol=0.06)
    assert np.allclose(np.median(std, axis=0)[:2] / msd.std(0)[:2], 1, atol=0.25)


@pytest.mark.parametrize(("error", "tracks"), [(0.02, 1), (0.4, 1), (0.2, 4)])
def test_errors_of_diffusion_hold_that_of_the_error_of_places(error, tracks, monkeypatch):
    """R is measured on the tracks themselves, here on few: estimates scatter as they say, about the true value."""
    monkeypatch.setattr("braggscope.modalities.dfxm.tracking.smoothing.DRIFTS", (0.01,))
    random, found = np.random.default_rng(8), []
    for _ in range(60):
        each = [walk(random, 0.09, error, (0.5, 0.2), 60) for _ in range(tracks)]
        motion = motion_of(each, FIRST)
        found.append([*diffusion(each[0], motion), *np.ravel(mean_square_displacement(each[0], motion, 1))])
    d, d_std, msd, msd_std = np.array(found).T
    assert np.sqrt(np.mean(((d - 0.09) / np.median(d_std)) ** 2)) == pytest.approx(1, abs=0.3)
    assert np.sqrt(np.mean(((msd - 0.18 - 0.29) / np.median(msd_std)) ** 2)) == pytest.approx(1, abs=0.4)


def test_diffusion_counts_no_step_over_a_missing_frame():
    """Every second frame of the second half is missing: steps of two there would double what they are."""
    motion, random = Motion(0.09 * np.eye(2), 0.01, 0.04 * np.eye(2)), np.random.default_rng(7)
    kept = np.concatenate([np.arange(40), np.arange(40, 400, 2)])
    full = [walk(random, 0.09, 0.2, frames=400) for _ in range(40)]
    found = [diffusion(Places(w.steps[kept], w.place[kept], w.covariance[kept]), motion)[0] for w in full]
    assert np.mean(found) == pytest.approx(0.09, rel=0.15)


def test_an_image_that_is_missed_for_some_frames_is_the_same_track():
    detector = Detector.of(SHAPE, 3.5, 10)
    every = [detector.found(spots([w], k)) for k, w in enumerate(line((40, 40), (0.5, 1.5), 16))]
    every[6:10] = [[], [], [], []]
    tracks = follow(every, np.arange(16.0), FIRST, 6.0, 5, SHAPE)
    assert len(tracks) == 1 and len(tracks[0].frames) == 16
    assert len(follow(every, np.arange(16.0), FIRST, 6.0, 2, SHAPE)) == 2  # with less patience it is another one


def test_every_view_draws_tracks_and_nothing_else(small, refined):
    assert len(views.tracks(refined, small).axes) == 2 and views.tracks(refined) is not None
    for view in (views.positions, views.displacements):
        assert view(refined) is not None and view(refined[["flag"]]) is None
    assert views.tracks(refined[["flag"]]) is None


@pytest.mark.parametrize(
    ("made", "options", "sentence"),
    [
        (lambda: movie([line((40, 40), (0, 1), 1)]), {}, "at least 3 frames, got 1"),
        (lambda: movie([np.full((6, 2), np.nan)]), {}, "no dislocation was found in 6 frames"),
        (lambda: braggscope.simulate("dfxm", "subgrains", shape=(3, 4), frame_shape=(64, 64)), {}, "such as time, got chi"),
        (lambda: movie([line((20, 20), (0, 1), 4)], shape=(40, 40)), {}, r"must be 0|allows an image|needs an image"),
        (lambda: movie([line((40, 40), (0, 1), 4)]), {"refine": True}, "refine needs a preset"),
        (lambda: movie([line((40, 40), (0, 1), 4)]), {"threshold": -1.0}, "threshold must be positive, got -1"),
        (lambda: movie([line((40, 40), (0, 1), 4)]), {"patience": 0}, "patience must be at least 1, got 0"),
        (lambda: movie([line((40, 40), (0, 1), 4)]), {"preset": "cu-111"}, "preset must be one of al-002"),
        (lambda: movie([line((40, 40), (0, 1), 4)]), {"preset": "al-002", "characters": ("13",)}, "unknown character '13'"),
    ],
)
def test_what_cannot_be_tracked_is_said_in_a_sentence(made, options, sentence):
    with pytest.raises(InputError, match=sentence):
        braggscope.analyse("dfxm", "track", made(), **options)


def test_a_movie_of_unusable_frames_is_refused():
    made = movie([line((40, 40), (0, 1), 4)])
    with pytest.raises(InputError, match="no frame of the movie is usable"):
        braggscope.analyse("dfxm", "track", dataclasses.replace(made, expected=lambda i: torch.full((len(i), *SHAPE), torch.nan)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shape": (4, 4)}, "needs one scan axis"), ({"frame_shape": (20, 64)}, "at least 32 x 32"),
        ({"dislocations": -1}, "dislocations must be from 0 to 200"), ({"rate": 0.0}, "rate must be positive"),
        ({"peak": 0.0}, "peak must be positive"), ({"character": "x"}, "unknown character 'x'"),
    ],
)  # fmt: skip
def test_a_movie_that_cannot_be_is_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        braggscope.simulate("dfxm", "dislocation_movie", **options)


def test_a_movie_without_dislocations_is_the_background():
    made = braggscope.simulate("dfxm", "dislocation_movie", shape=(3,), frame_shape=(64, 64), dislocations=0, noise=None)
    frames = made.frames(np.arange(3))
    assert made.truth.sizes["dislocation"] == 0 and 0.04 * 800 < frames.max() < 0.06 * 800


@pytest.mark.parametrize("character", ["5", "9", "12"])  # boundaries along columns, and inclined to both sides
def test_the_boundary_of_every_character_is_in_the_frame(character):
    options = {"shape": (4,), "frame_shape": (128, 128), "dislocations": 13, "character": character}
    truth = braggscope.simulate("dfxm", "dislocation_movie", **options).truth
    assert np.isfinite(truth["row"].values[:, 0]).sum() >= 8 and float(truth["row"].max()) < 128 + 3


def test_a_movie_depends_on_its_seed_alone():
    options = {"shape": (3,), "frame_shape": (64, 64), "dislocations": 2}
    a, b, c = (braggscope.simulate("dfxm", "dislocation_movie", seed=s, **options).frames(np.arange(3)) for s in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert isinstance(braggscope.simulate("dfxm", "dislocation_movie", **options).noise, Noise)
