"""Learned methods: what a model decides, what it must agree with, what mapping may still choose."""

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.core.estimator import option
from braggscope.core.geometry import Geometry, quantity
from braggscope.core.learned import CHECKPOINT_NAME, Learned, Report, checkpoints, ending, forget
from braggscope.core.maps import Quantity
from braggscope.core.model import Model


@dataclass(frozen=True)
class Bench(Geometry):
    modality: ClassVar[str] = "bench"
    gain: float = quantity("count", low=0, high=10, default=1.0, doc="counts per photon")
    height_mm: float | None = quantity("mm", low=0, high=10, default=None, doc="height")
    pupil_file: str | None = None


@dataclass(frozen=True)
class Level(Learned):
    name: ClassVar[str] = "level"
    summary: ClassVar[str] = "level of a frame"
    calibrated: ClassVar[bool] = False
    ignores: ClassVar = ("height_mm",)
    width: int = option(3, "width of the network", stage="training")
    steps: int = option(1, "steps after it")

    def quantities(self):
        return (Quantity("level", "count", "level"),)

    def fit(self, batch):
        return {"level": batch.frames.mean((1, 2)), "flag": np.zeros(len(batch), np.int32)}

    def train(self, sources, training):
        model = Model("bench", "level", self.geometry.to_mapping(), sources[0].frame_shape, {"width": self.width}, {}, {})
        yield Report(1, 2, {"loss": 2.0}, {"loss": 3.0}, True, 0.1)
        yield Report(2, 2, {"loss": 1.0}, {"loss": 2.0}, True, 0.2, estimator=dataclasses.replace(self, model=model))


class Frames:
    """A source of which only the shape matters."""

    shape, frame_shape, grid = (4,), (5, 4), xr.Dataset(coords={"x": ("x", np.arange(4.0))})


MODEL = Model("bench", "level", {"gain": 2.0}, (5, 4), {"width": 8}, {}, {"seed": 3}, file={"model_hash": "abc"})


@pytest.mark.parametrize(("planned", "stopped"), [(2, ""), (9, "no better loss for 1 epoch")])
def test_the_last_report_has_the_method_and_none_is_late(planned, stopped):
    asked = []

    def reports():
        for epoch, why in ((1, ""), (2, stopped)):
            asked.append(epoch)
            yield Report(epoch, planned, {}, {}, True, 0.1, why)

    seen = []
    for report in ending(reports(), lambda last: f"trained for {last.epoch}"):
        seen.append((report.epoch, report.stopped, report.estimator))
        assert asked[-1] == report.epoch
    assert seen == [(1, "", None), (2, stopped, "trained for 2")]


def test_an_earlier_training_is_forgotten_but_for_its_log(tmp_path):
    for place in (tmp_path, tmp_path / "network_1"):
        place.mkdir(exist_ok=True)
        (place / CHECKPOINT_NAME).touch()
        (place / "log.csv").touch()
    assert checkpoints(tmp_path) == [tmp_path / CHECKPOINT_NAME, tmp_path / "network_1" / CHECKPOINT_NAME]
    forget(tmp_path)
    assert checkpoints(tmp_path) == checkpoints(tmp_path / "missing") == []
    assert (tmp_path / "network_1" / "log.csv").exists()


def test_a_method_without_a_model_trains_when_it_is_prepared():
    estimator = Level(Bench(), width=6).prepare(Frames())
    assert estimator.model.options == {"width": 6}
    assert estimator.prepare(Frames()) is estimator


def test_a_model_decides_the_options_of_training_and_leaves_those_of_mapping():
    estimator = Level.from_model(MODEL, Bench(gain=2.0), {"steps": "2"})
    assert (estimator.width, estimator.steps, estimator.model) == (8, 2, MODEL)
    with pytest.raises(InputError, match=r"option width was decided when the model was trained \(it is 8\)"):
        Level.from_model(MODEL, Bench(gain=2.0), {"width": 9})
    with pytest.raises(InputError, match="has no option 'depth'; it has: width, steps"):
        Level.from_model(MODEL, Bench(gain=2.0), {"depth": 9})


def test_another_geometry_is_refused_with_the_values():
    with pytest.raises(InputError, match=r"another geometry: gain is 2 in the model and 2\.1 here; train one"):
        Level.from_model(MODEL, Bench(gain=2.1), {})
    with pytest.raises(InputError, match=r"pupil_file is not set in the model and p\.npz here"):
        Level.from_model(MODEL, Bench(gain=2.0, pupil_file="p.npz"), {})


def test_rounding_and_what_the_method_ignores_are_no_difference():
    Level.from_model(MODEL, Bench(gain=2.0 * (1 + 1e-7), height_mm=4.0), {})


def test_a_file_of_the_geometry_is_known_by_what_is_in_it(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"round")
    (tmp_path / "b.npz").write_bytes(b"square")
    model = dataclasses.replace(MODEL, geometry={"gain": 2.0, "pupil_file": "/elsewhere/p.npz"})
    known = {"pupil_file": hashlib.sha256(b"round").hexdigest()}
    model = dataclasses.replace(model, provenance={"geometry_files": known})
    Level.from_model(model, Bench(gain=2.0, pupil_file=str(tmp_path / "a.npz")), {})
    with pytest.raises(InputError, match=r"pupil_file is /elsewhere/p\.npz in the model"):
        Level.from_model(model, Bench(gain=2.0, pupil_file=str(tmp_path / "b.npz")), {})


def test_frames_of_another_shape_are_refused():
    estimator = Level.from_model(dataclasses.replace(MODEL, frame_shape=(4, 5)), Bench(gain=2.0), {})
    with pytest.raises(InputError, match="knows frames of 4 x 5 pixels, those of the scan have 5 x 4"):
        estimator.init(Frames())


def test_the_provenance_names_the_model():
    assert Level.from_model(MODEL, Bench(gain=2.0), {}).facts() == {"model_hash": "abc", "model_seed": 3}
    in_memory = dataclasses.replace(MODEL, file={})
    said = Level.from_model(in_memory, Bench(gain=2.0), {}).facts()
    assert said == {"model_hash": in_memory.digest(), "model_weights": in_memory.weights_hash(), "model_seed": 3}
    assert Level(Bench()).facts() == {}


def test_a_method_says_what_it_cannot_do():
    with pytest.raises(InputError, match="'level' has no published weights to convert"):
        Level.convert({}, Bench())
    with pytest.raises(InputError, match="'level' cannot be exported"):
        Level(Bench()).exported()


def test_a_training_failed_where_it_stopped_without_a_number():
    report = Report(5, 9, {"loss": float("nan")}, {"loss": float("nan")}, False, 1.0, "the loss is not finite")
    assert report.failed
    assert not dataclasses.replace(report, validation={"loss": 0.1}, stopped="no better for 5 epochs").failed
    assert not dataclasses.replace(report, stopped="").failed
