"""Geometry values: each bad one is named with its field, what came and what would do."""

import dataclasses
from typing import ClassVar

import pytest

from braggscope.core.errors import InputError
from braggscope.core.geometry import Geometry, quantity


@dataclasses.dataclass(frozen=True)
class Film(Geometry):
    modality: ClassVar[str] = "film"
    distance_m: float = quantity("m", low=1e-3, high=100, doc="sample to detector")
    order: int = quantity("1", low=1, high=20, doc="reflection order", whole=True)
    pupil_file: str | None = None


GOOD = {"distance_m": 0.85, "order": 2}


def test_a_table_gives_the_geometry(tmp_path):
    path = tmp_path / "film.toml"
    path.write_text('[film]\ndistance_m = 0.85\norder = 2\npupil_file = "p.npy"\n[film.uncertainty]\ndistance_m = 0.1\n')
    film = Film.from_toml(path)
    assert (film.distance_m, film.order, film.pupil_file) == (0.85, 2, str(tmp_path / "p.npy"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distance_m": -0.85}, ["distance_m", "0.001 and 100 m", "-0.85"]),
        ({"distance_m": float("nan")}, ["distance_m", "nan"]),
        ({"distance_m": "far"}, ["distance_m", "number", "'far'"]),
        ({"distance_m": True}, ["distance_m", "number", "True"]),
        ({"order": 2.5}, ["order", "whole", "2.5"]),
        ({"detector": 3}, ["unknown key 'detector'", "distance_m, order"]),
    ],
)
def test_a_bad_value_is_named(change, words):
    with pytest.raises(InputError) as caught:
        Film.from_mapping({**GOOD, **change}, where="film.toml")
    assert all(word in str(caught.value) for word in ["film.toml", *words]), str(caught.value)


def test_a_missing_key_is_named_with_its_meaning():
    with pytest.raises(InputError, match=r"lacks 'distance_m' \(sample to detector, in m\)"):
        Film.from_mapping({"order": 2})


@pytest.mark.parametrize(
    ("text", "words"), [("[other]\n", "no table \\[film\\]; it has: other"), ("a = = 2", "is not TOML"), (None, "does not exist")]
)
def test_a_bad_file_is_named(tmp_path, text, words):
    path = tmp_path / "film.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words):
        Film.from_toml(path)


def test_a_folder_is_no_geometry_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        Film.from_toml(tmp_path)


def test_a_copy_is_checked_again():
    with pytest.raises(InputError, match="order"):
        Film(**GOOD).replace(order=0)
