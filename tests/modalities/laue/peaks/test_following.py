"""Peaks followed through a scan: grains that move a little stay one track, reflections that pass each other stay two."""

import numpy as np
import pytest
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.modalities.laue.peaks.following import follow, intensities

GRID = (6, 9)


def table(entries):
    """A table of peaks from (frame, row, column, intensity)."""
    frame, row, column, light = np.array(entries, float).reshape(-1, 4).T
    n = ("peak",)
    return xr.Dataset(
        {
            "row": (n, row), "row_std": (n, np.full(len(row), 0.1)), "column": (n, column),
            "column_std": (n, np.full(len(row), 0.1)), "intensity": (n, light), "frame": (n, frame.astype(np.int64)),
            "flag": (n, np.zeros(len(row), np.int32)),
        }
    )  # fmt: skip


def grain(rows, columns, row, column, light=100.0, turn=0.0):
    """Peaks of one reflection of a grain at these rows and columns of the scan, moved by `turn` px per step."""
    return [(y * GRID[1] + x, row + turn * y, column - turn * x, light) for y in rows for x in columns]


def test_two_grains_with_a_reflection_at_the_same_place_are_two_tracks():
    peaks = table([*grain(range(3), range(3), 50, 60), *grain(range(4, 6), range(5, 9), 50, 60, 10.0)])
    found = follow(peaks, GRID, steps={"y": 0.5, "x": 0.2})
    assert found["track_positions"].values.tolist() == [9, 8]
    assert found["track_of_peak"].values.tolist() == [1] * 9 + [2] * 8  # by their light
    assert found["track_y"].values == pytest.approx([0.5, 2.25])
    assert found["track_x"].values == pytest.approx([0.2, 1.3])
    assert found["track_y_extent"].values == pytest.approx([1.0, 0.5])
    assert found["track_x_extent"].values == pytest.approx([0.4, 0.6])
    assert found["track_x"].attrs["units"] == "um"
    assert found["track_row_std"].values == pytest.approx([0.1 / 3, 0.1 / np.sqrt(8)])


def test_the_map_of_a_track_is_sparse_and_sums_to_its_light():
    peaks = table([*grain(range(2), range(4), 50, 60, 7.0), *grain(range(6), range(9), 80, 20, 3.0)])
    found = follow(peaks, GRID)
    shares = intensities(found, 54)
    assert shares.shape == (2, 54) and shares.nnz == 8 + 54
    assert np.ravel(shares.sum(axis=1)) == pytest.approx(found["track_intensity"].values[:2])
    assert shares[1].toarray().reshape(GRID)[:2, :4] == pytest.approx(np.full((2, 4), 7.0))


def test_a_turning_lattice_is_one_track_up_to_the_drift_limit():
    peaks = table(grain([0], range(9), 50, 60, turn=1.0))
    assert follow(peaks, GRID, drift_px=8.0)["track_positions"].values.tolist() == [9]
    parts = follow(peaks, GRID, drift_px=4.0)["track_positions"].values
    assert parts.sum() >= 8 and parts.max() <= 5


def test_two_reflections_close_together_are_never_one_track():
    peaks = table([*grain(range(3), range(3), 50.0, 60), *grain(range(3), range(3), 51.2, 60, 50.0)])
    found = follow(peaks, GRID, tolerance_px=2.0)
    assert found["track_positions"].values.tolist() == [9, 9]
    assert found["track_row"].values == pytest.approx([50.0, 51.2])


def test_spots_of_a_substrate_are_tracks_of_the_whole_scan():
    random, shape = np.random.default_rng(0), (12, 15)
    spots = [(10 + 3.0 * k, 20.0) for k in range(5)]  # each within the drift limit of the next
    entries = [(f, r + random.normal(0, 0.2), c + random.normal(0, 0.2), 5.0) for f in range(180) for r, c in spots]
    found = follow(table(entries), shape)
    assert found["track_positions"].values.tolist() == [180] * 5
    assert np.sort(found["track_row"].values) == pytest.approx([10, 13, 16, 19, 22], abs=0.1)


def test_lonely_peaks_are_in_no_track():
    found = follow(table([(0, 5, 5, 1.0), (30, 5, 5, 1.0)]), GRID)
    assert found.sizes["track"] == 0 and (found["track_of_peak"].values == 0).all()
    assert follow(table([]), GRID).sizes["track"] == 0


def test_a_line_is_followed_too():
    found = follow(table([(k, 5.0, 7.0 + 0.1 * k, 1.0) for k in range(4)]), (4,), steps={"x": 0.5})
    assert found["track_positions"].values.tolist() == [4]
    assert found["track_x_extent"].values == pytest.approx([1.5])


def test_wrong_input_is_named():
    peaks = table(grain([0], range(3), 50, 60))
    with pytest.raises(InputError, match="must have the variable 'frame'"):
        follow(peaks.drop_vars("frame"), GRID)
    with pytest.raises(InputError, match="one or two axes"):
        follow(peaks, (2, 3, 9))
    with pytest.raises(InputError, match="tolerance_px must be positive and at most drift_px, got 9 and 6"):
        follow(peaks, GRID, tolerance_px=9.0)
