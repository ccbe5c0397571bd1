"""The command of the peaks, on scans."""

import h5py
import numpy as np
import pytest

from braggscope.core.analysis import arguments
from braggscope.core.errors import InputError
from braggscope.core.maps import check_map, load, save
from braggscope.core.source import open_scan
from braggscope.modalities.laue.analysis.peaks import peaks
from braggscope.modalities.laue.geometry import film

SHAPE = (96, 80)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A scan of 2 x 3 positions; a grain with two reflections is at the first two columns."""
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    random, (y, x) = np.random.default_rng(0), np.mgrid[: SHAPE[0], : SHAPE[1]]
    frames = random.poisson(30.0, (2, 3, *SHAPE)).astype(float)
    for i in range(2):
        for j in range(2):
            for row, column, height in ((30.2 + 0.2 * i, 20.7, 400), (70.5, 60.1 + 0.2 * j, 200)):
                frames[i, j] += random.poisson(height * np.exp(-0.5 * ((y - row) ** 2 + (x - column) ** 2)))
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = frames.astype(np.uint16)
        for name, size in (("y", 2), ("x", 3)):
            file[f"entry/data/{name}"] = 0.5 * np.arange(size)
            file[f"entry/data/{name}"].attrs["units"] = "um"
    return path


def test_each_frame_of_a_scan_is_searched(scan, tmp_path):
    table = peaks(open_scan(scan), threshold=8.0)
    check_map(table)
    assert np.bincount(table["frame"].values, minlength=6).tolist() == [2, 2, 0, 2, 2, 0]
    assert table.attrs["frames"] == 6 and table.attrs["frame_rows"] == 96
    save(table, tmp_path / "peaks.h5")
    assert load(tmp_path / "peaks.h5")["row"].values == pytest.approx(table["row"].values)


def test_peaks_are_followed(scan):
    table = peaks(open_scan(scan), threshold=8.0, follow=1.5)
    check_map(table)
    assert table["track_positions"].values.tolist() == [4, 4]
    assert table["track_row"].values == pytest.approx([30.3, 70.5], abs=0.1)
    assert table["track_x"].values == pytest.approx([0.25, 0.25], abs=0.03)


def test_an_image_has_no_frame_column_and_can_have_angles(scan, tmp_path):
    path = tmp_path / "image.h5"
    with h5py.File(scan) as file, h5py.File(path, "w") as target:
        target["entry/data/data"] = file["entry/data/data"][0, :1]
    geometry = film().replace(rows=96, columns=80)
    table = peaks(open_scan(path), threshold=8.0, geometry=geometry)
    assert "frame" not in table and {"two_theta", "chi"} <= set(table)
    with pytest.raises(InputError, match="follow needs a scan of several frames"):
        peaks(open_scan(path), follow=1.0)


def test_frames_of_another_detector_are_refused(scan):
    with pytest.raises(InputError, match="487 rows and 407 columns"):
        peaks(open_scan(scan), geometry=film())
    with pytest.raises(InputError, match="follow must be between 0 and drift"):
        peaks(open_scan(scan), follow=7.0)


def test_its_signature_makes_a_command():
    kinds = {one.name: one.kind for one in arguments(peaks)}
    assert kinds["scan"] == "scan" and kinds["geometry"] == "geometry"
    assert {n for n, k in kinds.items() if k == "option"} == {"threshold", "most", "box", "follow", "drift"}


def test_a_scan_without_any_peak_says_what_is_to_be_seen(tmp_path):
    with h5py.File(tmp_path / "full.h5", "w") as file:
        file["entry/data/data"] = np.full((4, *SHAPE), 65535, np.uint16)
    table = peaks(open_scan(tmp_path / "full.h5"))
    assert table.attrs["caution"].startswith("no peaks in any frame; of frame 0: 100% of its pixels are saturated")
