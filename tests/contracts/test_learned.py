"""Every method that learns: its model survives the file, decides what it must, and is trained the same again."""

import dataclasses
import json

import numpy as np
import pytest
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.core.learned import Learned, Training
from braggscope.core.model import load_model, save_model

from .discovered import METHOD_NAMES, METHODS, prepared, run, simulation

LEARNED = [(m, method) for m, method in METHODS if issubclass(m.estimator(method), Learned)]
NAMES = [name for name, (m, method) in zip(METHOD_NAMES, METHODS, strict=True) if (m, method) in LEARNED]
each = pytest.mark.parametrize(("modality", "method"), LEARNED, ids=NAMES)


def mapping_options(modality, method):
    """The example's options that belong to mapping."""
    decided = modality.estimator(method).training_options()
    return {name: value for name, value in modality.example_options.get(method, {}).items() if name not in decided}


@each
def test_a_model_from_its_file_maps_as_the_trained_method(modality, method, tmp_path):
    trained, source = prepared(modality, method), simulation(modality, method)
    assert (trained.model.modality, trained.model.method) == (modality.name, method)
    assert tuple(trained.model.frame_shape) == tuple(source.frame_shape)
    assert trained.model.geometry == source.geometry.to_mapping()
    save_model(trained.model, tmp_path / "m.safetensors")
    read = load_model(tmp_path / "m.safetensors")
    again = type(trained).from_model(read, source.geometry, mapping_options(modality, method))
    xr.testing.assert_identical(trained.result(run(trained, source)), again.result(run(again, source)))


@each
def test_an_exported_model_maps_as_the_trained_method(modality, method, tmp_path):
    trained, source = prepared(modality, method), simulation(modality, method)
    graph = trained.exported()
    assert json.loads(graph.document())["method"] == method
    save_model(graph, tmp_path / "m.onnx")
    options = mapping_options(modality, method)
    again = type(trained).from_model(load_model(tmp_path / "m.onnx"), source.geometry, options)
    a, b = trained.result(run(trained, source)), again.result(run(again, source))
    for name in (quantity.name for quantity in trained.quantities()):
        good = np.isfinite(a[name].values)  # a network of a few epochs explains few frames, and says so
        assert good.mean() > 0.5 and np.array_equal(good, np.isfinite(b[name].values)), name
        spread = np.nanmax(a[name].values[good]) - np.nanmin(a[name].values[good])
        # 1e-3 of what the map shows: single precision in another order, and rounding near the edge of a flag
        assert np.nanmax(np.abs(a[name] - b[name]).values[good]) <= 1e-3 * spread, name


@each
def test_another_geometry_or_frame_shape_is_refused(modality, method):
    trained, source = prepared(modality, method), simulation(modality, method)
    rows, columns = trained.model.frame_shape
    other = dataclasses.replace(trained.model, frame_shape=(rows + 2, columns))
    with pytest.raises(InputError, match=f"frames of {rows + 2} x {columns} pixels"):
        type(trained).from_model(other, source.geometry, mapping_options(modality, method)).init(source)
    changed = {**trained.model.geometry}
    name = next(n for n, v in changed.items() if isinstance(v, float) and n not in trained.ignores)
    changed[name] *= 1.01
    with pytest.raises(InputError, match=f"another geometry: {name} is "):
        type(trained).from_model(dataclasses.replace(trained.model, geometry=changed), source.geometry, {})


@each
def test_the_seed_decides_the_training(modality, method, tmp_path):
    trained, source = prepared(modality, method), simulation(modality, method)
    fresh = modality.estimator(method).with_options(source.geometry, modality.example_options.get(method, {}))
    *_, again = fresh.train_for(source, Training(tmp_path))
    assert again.estimator.model.weights_hash() == trained.model.weights_hash()
    *_, resumed = fresh.train_for(source, Training(tmp_path, resume=True))
    assert resumed.estimator.model.weights_hash() == trained.model.weights_hash()
    *_, other = fresh.train_for(source, Training(seed=1))
    assert other.estimator.model.weights_hash() != trained.model.weights_hash()
