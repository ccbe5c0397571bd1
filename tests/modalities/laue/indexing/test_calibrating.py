"""Calibration of the detector: recovery from a rough start, errors, bad input, files."""

import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.modalities.laue.calibrate import calibrate
from braggscope.modalities.laue.files.table import peak_table
from braggscope.modalities.laue.geometry import LaueGeometry
from braggscope.modalities.laue.indexing.calibrating import FIELDS

from .patterns import GEOMETRY, places, turn


def table(at, geometry=None):
    return peak_table({"row": at[:, 0], "column": at[:, 1], "intensity": 1 / (1.0 + np.arange(len(at)))}, geometry)


def pushed(seed):
    push = np.random.default_rng(seed).uniform(-1, 1, 5) * (1, 20, 20, 1, 1)
    return GEOMETRY.replace(**{n: getattr(GEOMETRY, n) + float(x) for n, x in zip(FIELDS, push, strict=True)})


def test_a_pushed_detector_is_found_again_within_its_errors():
    z = []
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(0, 0.1, (90, 2))
        found = calibrate(table(places(turn(seed), count=90) + noise), pushed(seed))
        z.append([(getattr(found.geometry, n) - getattr(GEOMETRY, n)) / found.uncertainty[n] for n in FIELDS])
        assert len(found.residuals) >= 88
    assert np.abs(z).max() < 4 and 0.4 < np.std(z) < 1.7  # 20 numbers, correlated by fives


def test_what_is_not_free_stays():
    start = GEOMETRY.replace(distance_mm=GEOMETRY.distance_mm + 0.2)
    found = calibrate(table(places(turn(1), count=80)), start, free=("distance_mm",))
    assert found.geometry.distance_mm == pytest.approx(GEOMETRY.distance_mm, abs=1e-4)
    assert found.geometry.xbet_deg == GEOMETRY.xbet_deg and set(found.uncertainty) == {"distance_mm"}


@pytest.mark.parametrize("ending", [".toml", ".det"])
def test_the_written_calibration_is_read_again(tmp_path, ending):
    found = calibrate(table(places(turn(1), count=80)), GEOMETRY)
    found.save(tmp_path / f"detector{ending}")
    again = LaueGeometry.from_file(tmp_path / f"detector{ending}")
    assert again.material == "Ge"
    for name in FIELDS:
        assert getattr(again, name) == pytest.approx(getattr(found.geometry, name), rel=1e-9)


def test_bad_input_is_named():
    at = places(turn(1), count=80)
    with pytest.raises(InputError, match="states no calibration"):
        calibrate(table(at))
    with pytest.raises(InputError, match="at least 12 peaks"):
        calibrate(table(at[:8]), GEOMETRY)
    with pytest.raises(InputError, match="no detector near the one given"):
        calibrate(table(np.random.default_rng(0).uniform(0, 2047, (60, 2))), GEOMETRY)
    with pytest.raises(InputError, match="free"):
        calibrate(table(at), GEOMETRY, free=("pixel_um",))
    with pytest.raises(InputError, match="material"):
        calibrate(table(at), GEOMETRY, material="Unobtainium")
