"""What a signature says about an analysis: its inputs by kind, and options by type."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import xarray as xr

from braggscope.core.analysis import arguments
from braggscope.core.geometry import Geometry
from braggscope.core.scan import Scan


@dataclass(frozen=True)
class Bench(Geometry):
    modality: ClassVar[str] = "bench"


def kinds(analysis):
    return {one.name: (one.kind, one.several, one.required, one.keyword) for one in arguments(analysis)}


def test_an_input_is_a_scan_a_map_or_either():
    def analysis(
        frames: Scan,
        either: Scan | xr.Dataset,
        first: xr.Dataset | Scan | None = None,
        *,
        table: xr.Dataset,
        other: Scan | xr.Dataset | None = None,
        geometry: Bench | None = None,
    ): ...

    assert kinds(analysis) == {
        "frames": ("scan", False, True, False),
        "either": ("scan or map", False, True, False),
        "first": ("scan or map", False, False, False),
        "table": ("map", False, True, True),
        "other": ("scan or map", False, False, True),
        "geometry": ("geometry", False, False, True),
    }


def test_several_of_either():
    def analysis(each: list[Scan | xr.Dataset]): ...

    (one,) = arguments(analysis)
    assert (one.kind, one.several) == ("scan or map", True)
    assert isinstance(xr.Dataset(), one.type)


def test_an_input_of_another_type_is_a_mistake_of_the_analysis():
    def word(word: str): ...

    def union(source: Scan | str): ...

    for analysis in (word, union):
        with pytest.raises(TypeError, match="must be a Scan or a Dataset"):
            arguments(analysis)
