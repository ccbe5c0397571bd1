"""The estimator contract on a small per-pixel method and options given as words."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.estimator import Estimator, PerPixel, check_ranges, fresh, option
from braggscope.core.maps import Quantity

from .test_scan import make


@dataclasses.dataclass(frozen=True)
class Brightest(PerPixel):
    """Motor position at which each pixel is brightest."""

    name: ClassVar[str] = "brightest"
    summary: ClassVar[str] = "position of the maximum"
    calibrated: ClassVar[bool] = False
    uncalibrated_because: ClassVar[str] = "a maximum has no simple error"
    least: float = option(0.0, "curves whose maximum is below it are NaN", unit="count")
    mode: str = option("first", "which of equal maxima", choices=("first", "last"))
    limit: str | float = option("auto", "upper limit", choices=("auto", "none", "VALUE"))
    count: int = option(3, "curves at least")

    def quantities(self):
        return (Quantity("peak", "um", "position of the maximum"),)

    def fit(self, block, motors):
        curves = np.where(block.mask, block.curves, -1)
        dark = curves.max(axis=1) < self.least
        return {"peak": np.where(dark, np.nan, motors["y"][curves.argmax(axis=1)]), "flag": np.where(dark, 2, 0)}


def test_a_per_pixel_method_maps_curves_in_any_order():
    values = np.random.default_rng(2).integers(0, 50, (6, 3, 4)).astype(np.uint16)
    scan = make(values, order=[3, 1, 0, 2, 5, 4])
    method = Brightest(None)
    blocks = list(scan.pixels(5))
    a, b = method.init(scan), method.init(scan)
    for block in blocks[::-1]:
        a = method.update(a, block)
    whole = method.result(a)
    expected = np.arange(6.0)[np.array([3, 1, 0, 2, 5, 4])][values.argmax(axis=0)]
    placed = np.empty_like(values)
    placed[[3, 1, 0, 2, 5, 4]] = values
    assert np.array_equal(whole["peak"], placed.argmax(axis=0).astype(float)) and expected.shape == (3, 4)
    first, rest = method.init(scan), b
    first = method.update(first, blocks[0])
    for block in blocks[1:]:
        rest = method.update(rest, block)
    assert method.result(method.merge(first, rest)).equals(whole)
    with pytest.raises(ValueError, match="used by both"):
        method.merge(a, first)


def test_a_pixel_not_yet_fitted_is_nan_and_flagged():
    scan = make(np.ones((2, 2, 2), np.uint8))
    method = Brightest(None)
    state = method.update(method.init(scan), next(scan.pixels(1)))
    result = method.result(state)
    assert np.isfinite(result["peak"]).sum() == 1 and (result["flag"].values == 1).sum() == 3


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"least": "3"}, {"least": 3.0}),
        ({"mode": "last"}, {"mode": "last"}),
        ({"count": "1e3"}, {"count": 1000}),
        ({"limit": "7.5"}, {"limit": 7.5}),
        ({"limit": "none"}, {"limit": "none"}),
    ],
)
def test_options_are_read_from_words(given, values):
    method = Brightest.with_options(None, given)
    assert {k: method.options()[k] for k in values} == values


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"leest": 3}, "no option 'leest'; it has: least, mode, limit, count"),
        ({"least": "much"}, "least must be a number, like 0.0, got 'much'"),
        ({"count": "2.5"}, "count must be a whole number, like 3, got '2.5'"),
        ({"count": "inf"}, "count must be a whole number, like 3, got 'inf'"),
        ({"mode": "middle"}, "mode must be one of first, last, got 'middle'"),
        ({"limit": "high"}, "limit must be one of auto, none, VALUE, got 'high'"),
    ],
)
def test_bad_options_are_named(given, words):
    with pytest.raises(InputError, match=words):
        Brightest.with_options(None, given)


@pytest.mark.parametrize("value", [-1.0, 0.0, 11.0, float("nan"), float("inf")])
def test_an_option_outside_its_range_is_named(value):
    class Method:
        rate, width = value, 3

    check_ranges(Method, {"width": (3, 3)})
    with pytest.raises(InputError, match=f"^option rate must be between 0.5 and 10, got {value:g}$"):
        check_ranges(Method, {"width": (1, 5), "rate": (0.5, 10)})


def test_a_frame_that_comes_twice_is_used_once():
    state = {"seen": np.zeros(5, bool)}
    batch = fresh(state, Batch(np.array([1, 3, 1]), np.arange(3.0)[:, None, None]))
    assert batch.index.tolist() == [1, 3] and batch.frames.ravel().tolist() == [0, 1]
    assert len(fresh(state, Batch(np.array([3]), np.ones((1, 1, 1))))) == 0


def test_the_contract_cannot_be_half_filled():
    with pytest.raises(TypeError, match="abstract"):
        Estimator(None)  # type: ignore[abstract]
