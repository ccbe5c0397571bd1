"""Every modality: its parts load, its geometry names bad values, its simulation is reproducible."""

import dataclasses

import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.core.modality import modality as named
from braggscope.core.source import Source

from .discovered import MODALITIES, example_geometry, simulation

each = pytest.mark.parametrize("modality", MODALITIES, ids=lambda m: m.name)


@each
def test_every_part_loads(modality):
    assert modality.geometry_class().modality == modality.name
    assert modality.default_method in modality.methods()
    for dotted in [modality.forward, *modality.phantoms.values(), *modality.views.values(), *filter(None, [modality.calibrate])]:
        assert callable(modality.load(dotted))
    assert "overview" in modality.views
    for method in modality.methods():
        assert modality.estimator(method).summary


@each
def test_a_simulation_is_a_source_and_the_seed_decides_it(modality):
    source, again, other = simulation(modality), simulation(modality), simulation(modality, seed=2)
    assert isinstance(source, Source)
    index = np.arange(min(6, int(np.prod(source.shape))))
    frames = source.frames(index)
    assert np.array_equal(frames, again.frames(index)) and not np.array_equal(frames, other.frames(index))
    assert np.array_equal(source.frames(index[::-1])[::-1], frames)


GEOMETRY_FIELDS = [(m, f) for m in MODALITIES for f in dataclasses.fields(m.geometry_class()) if "low" in f.metadata]


@pytest.mark.parametrize(("modality", "field"), GEOMETRY_FIELDS, ids=lambda x: getattr(x, "name", ""))
def test_a_bad_geometry_value_is_named_with_its_range(modality, field):
    good = example_geometry(modality).to_mapping()
    low, high = field.metadata["low"], field.metadata["high"]
    for bad in (low - abs(low) - 1, high * 2 + 1, float("nan"), float("inf"), "wide", [1.0]):
        with pytest.raises(InputError) as caught:
            modality.geometry_class().from_mapping({**good, field.name: bad})
        sentence = str(caught.value)
        shown = f"{bad:g}" if isinstance(bad, float | int) else repr(bad)
        assert field.name in sentence and shown in sentence, sentence
        assert "between" in sentence or "positive" in sentence, sentence


@each
def test_a_required_geometry_value_is_missed_by_name(modality):
    good = example_geometry(modality).to_mapping()
    for field in dataclasses.fields(modality.geometry_class()):
        if field.default is dataclasses.MISSING:
            with pytest.raises(InputError, match=f"lacks '{field.name}'"):
                modality.geometry_class().from_mapping({k: v for k, v in good.items() if k != field.name})
    with pytest.raises(InputError, match="unknown key 'colour'"):
        modality.geometry_class().from_mapping({**good, "colour": 1})


def test_unknown_names_list_those_there_are():
    with pytest.raises(InputError, match="unknown modality 'sonar'; there are: "):
        named("sonar")
    for modality in MODALITIES:
        with pytest.raises(InputError, match=f"there are: .*{modality.default_method}"):
            modality.estimator("divination")
        with pytest.raises(InputError, match="there are: "):
            modality.phantom("ghost")
