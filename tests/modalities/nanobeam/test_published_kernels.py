import math

import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.labelled import GRID, RANGES, renderer
from braggscope.modalities.nanobeam.published_kernels import PublishedKernel, peak_of_grid

# published SrIrO3 film, written out as the papers have it
K, ALPHA, STEP, G = 2 * math.pi * 11.3 / 12.398, math.asin(12.398 / 11.3 / 4.013), 110e-6 / 0.85, 4 * math.pi / 4.013


def plain_sum(name, strain, omega, chi, rows, columns):
    """The published sum, pupil point by pupil point, without a matrix."""
    y, x = ((np.arange(n) - (n - 1) / 2) * STEP for n in (rows, columns))
    gamma = (np.arcsin(x) if name == "box" else np.arctan(x)) + ALPHA
    focal = 21.874e-3 if name == "box" else 149e-6 * 16e-9 / (12.398e-10 / 11.3)
    tilted, strained = (G if name == "box" else G / (1 + strain)), G / (1 + strain)
    frame = np.zeros((rows, columns))
    half = (np.arange(128) - 63.5) * STEP / 2
    for v in half:
        for u in half:
            if not 77e-6 / 2 / focal < math.hypot(u, v) < 149e-6 / 2 / focal:
                continue
            qx = K * (math.cos(ALPHA) - np.cos(gamma)) + tilted * math.radians(omega) + u * K * math.sin(ALPHA)
            qz = K * (np.sin(gamma) + math.sin(ALPHA)) - strained - u * K * math.cos(ALPHA)
            qy = K * y + tilted * math.radians(chi) - K * v
            fringe = 117 * np.sinc(117 * qz / 2 / math.pi) ** 2
            if name == "box":
                frame += (np.abs(qy) < 5e-4)[:, None] * (np.abs(qx) < 5e-4) * fringe
            else:
                frame += np.exp(-((qy / (K * STEP / 10)) ** 2))[:, None] * np.exp(-((qx / (K * STEP / 10)) ** 2)) * fringe
    return frame if name == "box" else frame / frame.max()


@pytest.mark.parametrize("name", ["box", "gaussian"])
def test_three_matrices_are_the_published_sum(name):
    """At an odd point, on frames that are not square; float32 leaves 2e-6 of the maximum."""
    values = 3.1e-3, -0.021, 0.047
    frame = PublishedKernel(name, published(), (58, 64)).frames(*(np.array([v]) for v in values))[0]
    assert np.abs(frame - plain_sum(name, *values, 58, 64)).max() < 2e-6 * frame.max()


def test_the_peak_of_the_box_grid_is_that_of_all_its_frames():
    """The largest of 5^3 frames; on the published grid it is that of the published set, 3505.81 (from its script)."""
    kernel = PublishedKernel("box", published(), (64, 64))
    axes = [np.linspace(-high, high, 5) for high in RANGES]
    frames = kernel.frames(*(a.ravel() for a in np.meshgrid(*axes, indexing="ij")))
    assert kernel.brightest(5, RANGES) == pytest.approx(frames.max(), rel=1e-6)
    assert peak_of_grid("box", published(), (64, 64), GRID, RANGES) == pytest.approx(3505.81, abs=0.01)


def test_the_box_goes_up_in_stairs():
    """41 tilts over 0.02 deg (1.5 pixels): few frames differ, while the closed form moves with every one."""
    labels = np.stack([np.zeros(41), np.zeros(41), np.linspace(0, 0.02, 41)], axis=-1)
    box, smooth = (renderer(name, published(), (64, 64), 7.0)(labels).reshape(41, -1) for name in ("box", "closed_form"))
    assert len(np.unique(box, axis=0)) < 12 and len(np.unique(smooth, axis=0)) == 41


def test_the_gaussian_hardly_sees_a_small_tilt():
    """From chi = 0.001 to 0.005 deg, 0.3 pixels, 6e-4 of the maximum as published; the closed form moves the ring's edge."""
    steps = np.array([[0.0, 0.0, 0.001], [0.0, 0.0, 0.005]])
    change = {}
    for name in ("gaussian", "closed_form"):
        before, after = renderer(name, published(), (64, 64), 1.0)(steps)
        change[name] = np.abs(after - before).max()
    assert change["gaussian"] == pytest.approx(6e-4, rel=0.1) and change["closed_form"] > 0.1


def test_frames_are_scaled_as_published():
    """The box: the brightest pixel of the grid is the peak, single frames are weaker. The Gaussian: every frame by itself."""
    labels = np.random.default_rng(0).uniform(-1, 1, (20, 3)) * RANGES
    box, gaussian = (renderer(name, published(), (64, 64), 7.0)(labels).max((1, 2)) for name in ("box", "gaussian"))
    assert box.max() < 7.0001 and box.std() > 0.1
    assert gaussian == pytest.approx(7.0, rel=1e-6)


def test_what_the_kernels_do_not_know_is_refused():
    with pytest.raises(InputError, match=r"kernel 'box' knows no ring_scale, which is 0\.98 in the geometry; leave it out"):
        PublishedKernel("box", published().replace(ring_scale=0.98), (64, 64))
    with pytest.raises(InputError, match="unknown kernel 'square'; there are: box, closed_form, gaussian"):
        PublishedKernel("square", published(), (64, 64))
