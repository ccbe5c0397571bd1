"""`braggscope map`: the map, its provenance, lost and masked counts, other programs reading it."""

from __future__ import annotations

import hashlib
import json

import h5py
import numpy as np
import pytest
import xarray as xr

import braggscope
from braggscope.core import maps


def test_a_scan_becomes_a_map_file(cli, scan_file, tmp_path):
    scan = scan_file()
    code, said, wrong = cli("map", scan, "-o", tmp_path / "map.h5")
    assert (code, wrong) == (0, "")
    assert "42, good 42; flags: none" in said
    assert f"written to {tmp_path / 'map.h5'}" in said
    with h5py.File(scan) as file:
        counts = file["entry/data/data"][()]
    np.testing.assert_allclose(maps.load(tmp_path / "map.h5")["level"], counts.mean(axis=(2, 3)))


def test_the_python_face_gives_the_same_map(tiny, scan_file, tmp_path):
    direct = braggscope.map(braggscope.open(scan_file()), "mean", progress=False)
    kept = braggscope.map(braggscope.open(scan_file()), output=tmp_path / "map.h5", progress=False, pause=0)
    xr.testing.assert_equal(direct, kept)
    xr.testing.assert_equal(braggscope.load(tmp_path / "map.h5"), kept)
    braggscope.save(direct, tmp_path / "again.h5")
    xr.testing.assert_equal(braggscope.load(tmp_path / "again.h5"), direct)


def test_the_map_says_where_it_comes_from(cli, scan_file, tmp_path):
    scan = scan_file()
    assert cli("map", scan, "-o", tmp_path / "m.h5", "--roi", "1:5,0:4", "--binning", 2, "--option", "pause=0.001")[0] == 0
    attrs = braggscope.load(tmp_path / "m.h5").attrs
    assert attrs["version"] == braggscope.__version__
    assert (attrs["modality"], attrs["method"], attrs["complete"]) == ("tiny", "mean", 1)
    assert json.loads(attrs["options"]) == {"pause": 0.001, "fails_at": -1}
    assert json.loads(attrs["geometry"]) == {"gain": 1.0}
    assert (attrs["input_file"], attrs["input_size"]) == ("scan.h5", scan.stat().st_size)
    assert attrs["input_hash"] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert (json.loads(attrs["roi"]), attrs["binning"]) == ([1, 5, 0, 4], 2)
    assert (attrs["frames_planned"], attrs["frames_used"], attrs["frames_lost"]) == (42, 42, 0)


def test_a_method_without_error_bars_says_why(cli, scan_file, tmp_path):
    code, said, _ = cli("map", scan_file(), "-o", tmp_path / "m.h5", "--method", "curve")
    assert code == 0
    assert "no standard deviations: a maximum has no simple error" in said
    dataset = braggscope.load(tmp_path / "m.h5")
    assert dataset.attrs["uncalibrated_because"] == "a maximum has no simple error"
    assert dataset["highest"].dims == ("row", "column")
    assert dataset.attrs["pixels_used"] == 20


def test_json_is_one_document_and_nothing_else(cli, scan_file, tmp_path):
    code, said, wrong = cli("map", scan_file(), "-o", tmp_path / "m.h5", "--json")
    document = json.loads(said)
    assert (code, wrong) == (0, "")
    assert document["points"] == document["good"] == 42
    assert document["quantities"]["level"]["unit"] == "count"
    assert document["output"] == str(tmp_path / "m.h5")


def test_quiet_says_nothing(cli, scan_file, tmp_path):
    assert cli("map", scan_file(), "-o", tmp_path / "m.h5", "--quiet") == (0, "", "")


def test_lost_frames_are_nan_flagged_and_said(cli, scan_file, tmp_path):
    def aborted(counts):
        return counts.reshape(42, 5, 4)[:30]

    code, said, _ = cli("map", scan_file(change=aborted), "--grid", 6, 7, "-o", tmp_path / "m.h5")
    assert code == 0
    assert "12 of 42 frames lost" in said
    assert "no_frame 12" in said
    dataset = braggscope.load(tmp_path / "m.h5")
    level, flag = dataset["level"].values.ravel(), dataset["flag"].values.ravel()
    assert np.isfinite(level[:30]).all()
    assert np.isnan(level[30:]).all()
    assert (flag[30:] == 1).all()
    assert dataset.attrs["frames_lost"] == 12


@pytest.mark.parametrize("bad", [np.nan, -3.0, np.inf])
def test_bad_counts_are_masked_and_said(cli, scan_file, tmp_path, bad):
    def spoilt(counts):
        counts[2, 3, 1, 1] = counts[2, 3, 4, 0] = counts[5, 0, 0, 0] = bad
        return counts

    code, said, _ = cli("map", scan_file(change=spoilt, kind=np.float32), "-o", tmp_path / "m.h5")
    assert code == 0
    assert "3 counts in 2 frames masked (NaN, negative or saturated)" in said
    attrs = braggscope.load(tmp_path / "m.h5").attrs
    assert (attrs["masked_counts"], attrs["masked_frames"]) == (3, 2)


def test_saturated_counts_are_masked_at_the_stated_level(cli, scan_file, tmp_path):
    scan = scan_file()
    with h5py.File(scan) as file:
        high = file["entry/data/data"][()] >= 12
    code, said, _ = cli("map", scan, "-o", tmp_path / "m.h5", "--saturation", 12)
    assert code == 0
    assert f"{high.sum()} counts in {high.any(axis=(2, 3)).sum()} frames masked" in said


def test_xarray_opens_the_map(cli, scan_file, tmp_path):
    cli("map", scan_file(), "-o", tmp_path / "m.h5")
    with xr.open_dataset(tmp_path / "m.h5", group="entry/data", engine="h5netcdf") as dataset:
        assert dataset["level"].dims == ("y", "x")
        assert dataset["level"].attrs["units"] == "count"
        assert dataset["y"].attrs["units"] == "um"


def test_silx_plots_the_map(cli, scan_file, tmp_path):
    import silx.io
    from silx.io import nxdata

    cli("map", scan_file(), "-o", tmp_path / "m.h5")
    with silx.io.open(str(tmp_path / "m.h5")) as file:
        plot = nxdata.get_default(file)
        assert plot is not None
        assert plot.is_valid
        assert plot.signal_dataset_name == "level"
        assert [axis.size for axis in plot.axes] == [6, 7]
        assert list(plot.axes_dataset_names) == ["y", "x"]


def test_no_other_dataset_has_the_name_of_a_variable(cli, scan_file, tmp_path):
    cli("map", scan_file(), "-o", tmp_path / "m.h5")
    names = []
    with h5py.File(tmp_path / "m.h5") as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    ends = [name.rsplit("/", 1)[-1] for name in names]
    assert sorted(ends) == sorted(set(ends))


def test_an_existing_map_can_be_replaced(cli, scan_file, tmp_path):
    (tmp_path / "m.h5").write_text("something else")
    assert cli("map", scan_file(), "-o", tmp_path / "m.h5", "--overwrite", "--quiet")[0] == 0
    assert braggscope.load(tmp_path / "m.h5").attrs["complete"] == 1
