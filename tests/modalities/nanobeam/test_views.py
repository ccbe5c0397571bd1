import numpy as np
import pytest

from braggscope.modalities.nanobeam import views
from braggscope.modalities.nanobeam.estimators.likelihood import Likelihood
from braggscope.modalities.nanobeam.estimators.moments import Moments
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.phantom import domains
from braggscope.modalities.nanobeam.pupil import save_pupil


class Framed:
    """A simulation that gives single frames, as a Scan does."""

    def __init__(self, source):
        self.source, self.geometry = source, source.geometry

    def frame(self, position):
        return self.source.frames(np.array([position]))[0]


def mapped(estimator, source):
    state = estimator.init(source)
    for batch in source.batches():
        state = estimator.update(state, batch)
    return estimator.result(state)


@pytest.fixture(scope="module")
def scan():
    return domains(published(), shape=(4, 5), seed=3)


@pytest.fixture(scope="module")
def result(scan):
    return mapped(Likelihood(published()), scan).assign_attrs(geometry=published().to_mapping(), method="likelihood")


def titles(figure):
    return [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes]


def test_the_overview_shows_every_quantity_and_its_error(result):
    shown = " ".join(titles(views.overview(result)))
    for name in ("strain", "omega", "chi", "scale", "background"):
        assert f"standard deviation of {name}" in shown
    assert "reduced deviance" in shown and "flags" in shown


def test_frames_stand_beside_their_model(result, scan):
    figure = views.frame(result, Framed(scan))
    shown = titles(figure)
    assert [t.split(":")[0] for t in shown if "counts" in t] == ["best", "median", "worst"]
    images = [ax.images[0].get_array() for ax in figure.axes[:9] if ax.images]
    for counts, mean, residual in zip(images[::3], images[1::3], images[2::3], strict=True):
        assert counts.shape == mean.shape == (64, 64)
        assert abs(float(counts.mean() / mean.mean()) - 1) < 0.05
        assert 0.8 < float(residual.std()) < 1.2


def test_a_view_without_what_it_needs_is_none(result, scan):
    assert views.frame(result) is None
    assert views.pupil(result) is None
    moments = mapped(Moments(published()), scan)
    assert views.frame(moments, Framed(scan)) is None and views.overview(moments) is not None


def test_the_measured_pupil_is_shown(result, tmp_path):
    save_pupil(tmp_path / "pupil.npz", np.ones((20, 24)), 0.5)
    geometry = published().replace(pupil_file=str(tmp_path / "pupil.npz")).to_mapping()
    figure = views.pupil(result.assign_attrs(geometry=geometry))
    assert figure.axes[0].images[0].get_array().shape == (20, 24)
    assert views.pupil(result.assign_attrs(geometry=geometry | {"pupil_file": "gone.npz"})) is None
