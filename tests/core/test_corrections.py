"""Corrected frames: dark and flat, hot pixels, shifts; read by frames, by pixels, cut before or after, all the same."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from braggscope.core.corrections import Raw, Scaled, Shifted, Spikes, Unspiked, corrected, mean_frame, with_dark_and_flat
from braggscope.core.errors import InputError
from braggscope.core.scan import Axis, Scan


@dataclasses.dataclass
class Memory:
    """Frames in an array."""

    values: np.ndarray

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def read(self, which, rows, columns):
        return self.values[which][:, rows, columns]


def scan_of(values, **more):
    values = np.asarray(values)
    return Scan(
        Path("memory.h5"), "1.1", (Axis("mu", np.arange(float(len(values)))),), Memory(values), np.arange(len(values)), **more
    )


def counts(shape=(9, 23, 31), seed=0, level=100.0):
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=shape), (1, 3, 3))
    return np.round(random.normal(level + 40 * smooth / smooth.std() + 80, 3)).clip(0).astype(np.uint16)


def whole(scan):
    """All frames, NaN where they may not be used."""
    return np.concatenate([np.where(True if b.mask is None else b.mask, b.frames, np.nan) for b in scan.batches(4)])


SPIKES = Spikes(level=100.0, variance=9.0, gain=2.0, threshold=8.0, contrast=4.0)


def wrapped(scan, kind):
    """A scan with one correction, or all of them one around the other."""
    random, shape = np.random.default_rng(5), scan.frames.shape
    frames = Raw(scan.frames, scan.saturation)
    if kind in ("dark and flat", "all"):
        frames = Scaled(frames, random.normal(100, 5, shape[1:]), random.uniform(0.8, 1.2, shape[1:]), 100.0)
    if kind in ("hot pixels", "filled", "all"):
        frames = Unspiked(frames, random.uniform(size=shape[1:]) < 0.02, SPIKES, kind == "filled")
    if kind in ("linear", "cubic", "nearest", "all"):
        frames = Shifted(frames, random.uniform(-3, 3, (shape[0], 2)), kind if kind != "all" else "linear")
    return corrected(scan, {"name": kind}, frames=frames)


KINDS = ("dark and flat", "hot pixels", "filled", "nearest", "linear", "cubic", "all")


@pytest.mark.parametrize("kind", KINDS)
def test_frames_pixels_cuts_and_pieces_agree(kind):
    values = counts()
    values[3, 10, 12], values[5, 0, 30], values[2, 8, 8] = 4000, 65535, 2500
    scan = scan_of(values)
    full = whole(wrapped(scan, kind))
    assert np.isfinite(full).mean() > 0.5
    after, before = wrapped(scan, kind).cut(4, 19, 7, 28), wrapped(scan.cut(4, 19, 7, 28), kind)
    np.testing.assert_array_equal(whole(after), full[:, 4:19, 7:28])
    np.testing.assert_array_equal(whole(before), full[:, 4:19, 7:28])
    blocks = list(after.pixels(50))
    curves = np.concatenate([np.where(b.mask, b.curves, np.nan) for b in blocks])
    np.testing.assert_array_equal(curves.T.reshape(whole(after).shape), whole(after))
    only = np.isin(np.arange(len(values)), [1, 2, 6])
    some = np.concatenate([np.where(True if b.mask is None else b.mask, b.frames, np.nan) for b in after.batches(only=only)])
    np.testing.assert_array_equal(some, whole(after)[only])
    binned, expected = whole(after.bin(3)), whole(after)[:, :15, :21].reshape(-1, 5, 3, 7, 3).sum(axis=(2, 4))
    np.testing.assert_allclose(binned, expected, rtol=1e-6)
    again = pickle.loads(pickle.dumps(after))
    np.testing.assert_array_equal(whole(again), whole(after))
    assert again.provenance["corrections"] == [{"name": kind}]


def test_dark_and_flat_give_back_the_light_and_keep_the_level():
    random = np.random.default_rng(1)
    light, dark, flat = random.uniform(50, 900, (4, 6, 5)), random.uniform(80, 130, (6, 5)), random.uniform(0.7, 1.3, (6, 5))
    scan = with_dark_and_flat(scan_of((light * flat + dark).astype(np.float64)), dark, 5000 * flat + dark)
    level = scan.corrections[0]["level"]
    assert level == np.median(dark)
    np.testing.assert_allclose(whole(scan) - level, light * np.median(flat), rtol=1e-12)


def test_counts_below_the_dark_image_stay_as_they_are():
    values = np.array([[[3.0, 0.0, 1.0, 2.0]]])
    scan = with_dark_and_flat(scan_of(values), np.array([[2.0, 9.0, 2.0, 2.0]]))
    batch = next(scan.batches())
    assert batch.mask is None
    assert batch.frames.tolist() == [[[3.0, -7.0, 1.0, 2.0]]]


def test_saturation_is_recognised_before_anything_else():
    values = np.array([[[900, 1000, 65535, 10]]], np.uint16)
    scan = with_dark_and_flat(scan_of(values, saturation=1000), np.full((1, 4), 500.0))
    assert np.isfinite(whole(scan)).tolist() == [[[True, False, False, True]]]


def test_pixels_that_a_flat_image_hardly_sees_are_masked():
    flat = np.full((3, 4), 7.0)
    flat[0, 1], flat[1, 2], flat[2, 3] = 0, np.nan, -1
    scan = with_dark_and_flat(scan_of(np.full((2, 3, 4), 50, np.uint16)), flat=flat)
    assert scan.corrections[0]["masked_pixels"] == 3
    np.testing.assert_array_equal(np.isnan(whole(scan)[0]), ~(flat > 0))
    np.testing.assert_array_equal(whole(scan)[1][flat > 0], 50)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (
            {"dark": np.ones((4, 3))},
            r"dark must be an image of 3 rows x 4 columns like the recorded frames of the scan, got 4 x 3",
        ),
        ({"flat": np.ones((2, 3, 4))}, "flat must be an image of 3 rows x 4 columns .* got 2 x 3 x 4"),
        ({"flat": np.full((3, 4), np.nan)}, "flat must be finite numbers, but more than half of its pixels are not"),
        ({"dark": np.full((3, 4), "light")}, "dark must be an image of real numbers, got an array of <U5"),
        ({"flat": np.ones((3, 4), complex)}, "flat must be an image of real numbers, got an array of complex128"),
        ({"flat": np.eye(3, 4)}, "flat must be lit all over, but only 0 % of its pixels are above 0.05 of its median of 0"),
        ({"flat": np.ones((3, 4)), "dark": np.full((3, 4), 2.0)}, "flat must be lit all over"),
    ],
)
def test_images_that_do_not_do_are_refused_in_a_sentence(images, says):
    with pytest.raises(InputError, match=says):
        with_dark_and_flat(scan_of(np.ones((2, 3, 4), np.uint16)), **images)


def test_the_mean_frame_leaves_out_what_may_not_be_used():
    values = np.array([[[1, 65535]], [[4, 65535]], [[4, 65535]]], np.uint16)
    assert mean_frame(scan_of(values))[0, 0] == 3
    assert np.isnan(mean_frame(scan_of(values))[0, 1])


@pytest.mark.parametrize(("interpolation", "order"), [("nearest", 0), ("linear", 1)])
def test_shifts_agree_with_scipy(interpolation, order):
    values, shifts = counts(), np.array([[0.3, 1.7], [-2.25, 0.6], [1.0, -3.0]] * 3)
    found = whole(corrected(scan_of(values), {"name": "shift"}, frames=Shifted(Raw(Memory(values)), shifts, interpolation)))
    for frame, shift, one in zip(values.astype(float), shifts, found, strict=True):
        expected = ndimage.shift(frame, -shift, order=order, cval=np.nan, prefilter=False)
        inside = np.isfinite(expected) & np.isfinite(one)
        assert inside.mean() > 0.6
        np.testing.assert_allclose(one[inside], expected[inside], rtol=1e-5)


def test_cubic_shifts_are_exact_on_parabolas_and_nothing_comes_from_outside():
    y, x = np.mgrid[:12, :14].astype(float)
    image = 30 + 2 * y - x + 0.5 * y**2 + 0.25 * x * y
    shift = np.array([[0.4, -1.3]])
    found = whole(corrected(scan_of(image[None]), {}, frames=Shifted(Raw(Memory(image[None])), shift, "cubic")))[0]
    y, x = y + 0.4, x - 1.3
    inside = np.isfinite(found)
    np.testing.assert_allclose(found[inside], (30 + 2 * y - x + 0.5 * y**2 + 0.25 * x * y)[inside], rtol=1e-12)
    assert inside[1:-2, 3:].all() and not inside[0].any() and not inside[:, :3].any() and not inside[-2:].any()


def test_a_frame_shifted_out_of_sight_is_empty():
    frames = Shifted(Raw(Memory(counts())), np.full((9, 2), 400.0))
    assert np.isnan(frames.read(slice(0, 9), slice(0, 23), slice(0, 31))).all()


def test_spikes_of_one_and_two_pixels_are_found_and_sharp_images_are_not():
    y, x = np.mgrid[:40, :40]
    spot = 100 + 8000 * np.exp(-((y - 20) ** 2 + (x - 20) ** 2) / (2 * 0.7**2))  # FWHM 1.65 pixels
    values = np.stack([spot, np.full((40, 40), 100.0)])
    values[0, 5, 5] = values[1, 30, 10] = values[1, 30, 11] = values[1, 0, 0] = 400
    where = SPIKES.where(values.astype(np.float32))
    assert sorted(zip(*map(list, np.nonzero(where)), strict=True)) == [(0, 5, 5), (1, 0, 0), (1, 30, 10), (1, 30, 11)]


def test_noise_alone_makes_no_spikes():
    random = np.random.default_rng(3)
    values = np.round(100 + 2 * random.poisson(20, (20, 100, 100)) + random.normal(0, 3, (20, 100, 100))).astype(np.float32)
    assert SPIKES.where(values).sum() == 0


def test_filled_pixels_have_the_median_of_their_neighbours():
    values = np.arange(25.0).reshape(1, 5, 5) + 100
    bad = np.zeros((5, 5), bool)
    bad[2, 2] = bad[2, 3] = True
    frames = Unspiked(Raw(Memory(values)), bad, SPIKES, fill=True)
    found = frames.read(slice(0, 1), slice(0, 5), slice(0, 5))[0]
    assert found[2, 2] == np.median([106, 107, 108, 111, 116, 117, 118])
    assert found[1, 1] == values[0, 1, 1]
