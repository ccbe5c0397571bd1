import math

import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.modalities.nanobeam.compiled import expected, packed, tables
from braggscope.modalities.nanobeam.estimators.likelihood import Likelihood
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.labelled import at_random, renderer, simulated
from braggscope.modalities.nanobeam.published_kernels import PublishedKernel
from braggscope.modalities.nanobeam.published_pupils import (
    PER_PIXEL,
    blurred_ring,
    fringe_width,
    half_widths,
    with_published_pupil,
)

SHAPE = (64, 64)


@pytest.mark.parametrize("kernel", ["box", "gaussian"])
def test_the_blur_keeps_the_light_of_the_ring(kernel):
    made = PublishedKernel(kernel, published(), SHAPE)
    image, (inner, outer) = blurred_ring(made), made.ring_px
    assert image.sum() / PER_PIXEL**2 == pytest.approx(math.pi * (outer**2 - inner**2), rel=1e-3)
    assert image.max() == pytest.approx(1, abs=1e-6) and np.abs(image - image[::-1, ::-1]).max() < 1e-12
    assert np.abs(image - image.T).max() > 0.1  # 3.7 times wider along the plane than across


def test_the_box_is_that_of_the_published_code_in_pixels():
    across, along = half_widths(PublishedKernel("box", published(), SHAPE))
    # 5e-4 1/angstrom over k p / R = 5.7267 x 1.29412e-4, and over sin(alpha) = 0.27340
    assert across == pytest.approx(0.67467, rel=1e-4) and along == pytest.approx(2.4677, rel=1e-3)
    assert image_edge(blurred_ring(PublishedKernel("box", published(), SHAPE))) == pytest.approx(2 * across, abs=2 / PER_PIXEL)


def image_edge(image):
    """Length of the rise from dark to full light of the middle column, at its first row, pixels."""
    line = image[:, image.shape[1] // 2]
    rise = line[: int(np.argmax(line > 0.999)) + 1]
    return np.count_nonzero((rise > 0) & (rise < 0.999)) / PER_PIXEL


def test_the_mean_of_aliased_frames_is_the_frame_of_the_blurred_pupil(tmp_path):
    geometry = with_published_pupil(published(), "box", tmp_path / "pupil.npz")
    # tilts over half a pixel, the period of the published sampling: a pixel is 3.71e-3 deg of omega, 1.36e-2 deg of chi
    omega, chi = (a.ravel() for a in np.meshgrid(0.003 + np.arange(8) * 2.32e-4, 0.01 + np.arange(8) * 8.5e-4))
    strain = np.full(64, 1e-3)
    aliased = renderer("box", published(), SHAPE, 7.0)(np.stack([strain, omega, chi], axis=-1))
    rest = {"scale": np.ones(64), "background": np.full(64, 1e-12), "thickness": np.full(64, 117.0)}
    smooth = expected(tables(geometry, SHAPE), SHAPE, packed({"strain": strain, "omega": omega, "chi": chi} | rest))
    for axis in (0, 1):  # sums over rows and columns, where the sampled edge of the ring averages out
        a, b = (
            frames.mean(0, dtype=np.float64).sum(axis) / frames.mean(0, dtype=np.float64).sum() for frames in (aliased, smooth)
        )
        moved = 0.5 * np.abs(np.diff(b)).sum()  # by half a pixel, of which the published sampling is one step
        assert np.abs(a - b).sum() < 0.25 * moved, axis


def test_the_likelihood_with_the_blurred_pupil_is_unbiased_on_aliased_frames(tmp_path):
    geometry = with_published_pupil(published(), "box", tmp_path / "pupil.npz")
    labels = at_random(100, 3)
    counts = simulated(renderer("box", published(), SHAPE, 7.0), SHAPE, labels, 7.0).counts(np.arange(100), 5, 1)
    found = Likelihood(geometry).fit(Batch(np.arange(100), counts))
    for i, name in enumerate(("strain", "omega", "chi")):
        error = found[name] - labels[:, i]
        # a fifth of the scatter is twice its standard error; with the pupil of the closed form strain is off by more than one
        assert abs(error.mean()) < 0.25 * error.std() and error.std() < (1.5e-4, 5e-4, 1.7e-3)[i], name
    assert np.mean(found["reduced_deviance"]) == pytest.approx(1, abs=0.02)


def test_a_fringe_that_the_closed_form_blurs_more_takes_the_least_width():
    assert fringe_width(PublishedKernel("gaussian", published(), SHAPE)) == 0.03


def test_another_kernel_is_refused(tmp_path):
    with pytest.raises(InputError, match="kernel"):
        with_published_pupil(published(), "round", tmp_path / "pupil.npz")
