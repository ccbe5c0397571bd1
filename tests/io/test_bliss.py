"""ESRF BLISS files: grids, zig-zag, aborted scans, several scans, detectors and detector files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from braggscope.core.errors import InputError
from braggscope.core.modality import modality
from braggscope.core.source import open_scan, open_scans

ZIGZAG = {
    "slow_motor": "chi", "slow_start_pos": -0.5, "slow_step_size": 0.1, "slow_npoints": 3,
    "fast_motor": "diffry", "fast_start_pos": 7.0, "fast_step_size": 0.2, "fast_npoints": 4, "fast_motor_mode": "ZIGZAG",
}  # fmt: skip
TITLE = "fscan2d chi -0.5 0.1 3 diffry 7 0.2 4 0.5 0.5"


def zigzag_positions():
    fast = np.tile(7.1 + 0.2 * np.arange(4), (3, 1))
    fast[1] = fast[1, ::-1]
    return {"chi": np.repeat([-0.5, -0.4, -0.3], 4), "diffry": fast.ravel()}


def marked(count):
    """Frames that say their place in the acquisition."""
    return np.broadcast_to(np.arange(count, dtype=np.uint16)[:, None, None], (count, 5, 7)).copy()


def test_motors_detector_and_metadata_are_found(bliss, stack):
    frames = stack(4)
    scan = open_scan(bliss("fscan mu 0.29 0.1 4 0.5 0.6", frames, {"mu": [0.3, 0.4, 0.5, 0.6]}, parameters={"acq_time": 0.5}))
    assert (scan.name, scan.title, scan.detector) == ("1.1", "fscan mu 0.29 0.1 4 0.5 0.6", "pco_ff")
    assert [(a.name, a.values.tolist(), a.unit) for a in scan.axes] == [("mu", [0.3, 0.4, 0.5, 0.6], "deg")]
    assert scan.axes[0].values.dtype == np.float64
    assert scan.metadata["motors"] == {"samx": 1.5}
    assert scan.metadata["exposure_s"] == 0.5
    assert scan.metadata["instrument"] == "ESRF-ID03"
    assert scan.modality == "dfxm"
    assert scan.geometry_values == {"pixel_um": 6.5}
    assert scan.missing == ()


@pytest.mark.parametrize("count", [12, 11, 6, 5])
@pytest.mark.parametrize("measured", [True, False])
def test_zigzag_frames_come_to_the_cell_where_they_were_taken(bliss, count, measured):
    positions = {k: v[:count] for k, v in zigzag_positions().items()}
    scan = open_scan(bliss(TITLE, marked(count), positions if measured else None, parameters=ZIGZAG))
    assert scan.shape == (3, 4)
    acquired = [[0, 1, 2, 3], [7, 6, 5, 4], [8, 9, 10, 11]]
    for position, number in enumerate(np.ravel(acquired)):
        expected = number if number < count else np.nan
        assert np.array_equal(scan.frame(position)[0, 0], expected, equal_nan=True)
    if measured:
        assert scan.grid["measured_diffry"].values.ravel()[scan.order] == pytest.approx(positions["diffry"])
        assert scan.grid["diffry"].values == pytest.approx(7.1 + 0.2 * np.arange(4))


def test_the_geometry_of_the_microscope_is_read_from_its_motors(bliss, stack):
    """17 keV at ID03: the monochromator stood at 6.6797 deg."""
    path = bliss("ascan mu 0 1 3 0.1", stack(4))
    with h5py.File(path, "a") as file:
        file["1.1/instrument/positioners/ccmth"], file["1.1/instrument/positioners/obpitch"] = 6.679671, 18.0036
    geometry = modality("dfxm").geometry_class().from_scan(open_scan(path))
    found = {name: value for name, value in geometry.to_mapping().items() if name != "goniometer"}
    assert found == {"pixel_um": 6.5, "energy_kev": pytest.approx(17.0, abs=0.01), "two_theta_deg": 18.0036}


def test_an_aborted_scan_is_shorter_than_its_grid_and_says_so(bliss):
    positions = {k: v[:7] for k, v in zigzag_positions().items()}
    scan = open_scan(bliss(TITLE, marked(7), positions, parameters=ZIGZAG, end="USER_ABORT"))
    assert scan.shape == (3, 4) and len(scan.order) == 7
    assert scan.missing == ("5 of 12 frames (the scan ended after 7: USER_ABORT)",)
    assert scan.metadata["end_reason"] == "USER_ABORT"
    assert sorted(np.concatenate([b.index for b in scan.batches(2)])) == [0, 1, 2, 3, 5, 6, 7]


def test_a_detector_that_lags_behind_the_motors_gives_the_frames_there_are(bliss):
    scan = open_scan(bliss(TITLE, marked(10), zigzag_positions(), parameters=ZIGZAG))
    assert scan.order.tolist() == [0, 1, 2, 3, 7, 6, 5, 4, 8, 9]


@pytest.mark.parametrize(
    ("title", "motors", "axes"),
    [
        ("ascan phi 0 1 3 0.1", {"phi": [0, 0.33, 0.67, 1]}, [("phi", 4)]),
        ("dscan phi -1 1 3 0.1", {"phi": [9, 9.67, 10.33, 11]}, [("phi", 4)]),
        ("a2scan phi 0 1 chi 5 6 3 0.1", {"phi": [0, 0.33, 0.67, 1], "chi": [5, 5.33, 5.67, 6]}, [("phi", 4)]),
        ("d2scan phi -1 1 chi -1 1 3 0.1", {"phi": [9, 9.67, 10.33, 11], "chi": [4, 4.67, 5.33, 6]}, [("phi", 4)]),
        ("amesh phi 0 1 1 chi 5 6 1 0.1", {"phi": [0, 1, 0, 1], "chi": [5, 5, 6, 6]}, [("chi", 2), ("phi", 2)]),
        ("dmesh phi 0 1 1 chi 5 6 1 0.1", {"phi": [0, 1, 0, 1], "chi": [5, 5, 6, 6]}, [("chi", 2), ("phi", 2)]),
        ("loopscan 4 0.1", {"elapsed_time": [0, 0.2, 0.4, 0.6]}, [("elapsed_time", 4)]),
        ("loopscan 4 0.1", {}, [("point", 4)]),
        ("my own macro", {"phi": [0, 1, 0, 1], "chi": [5, 5, 6, 6]}, [("chi", 2), ("phi", 2)]),
        ("my own macro", {}, [("point", 4)]),
    ],
)
def test_every_kind_of_scan_has_its_axes(bliss, stack, title, motors, axes):
    scan = open_scan(bliss(title, stack(4), motors))
    assert [(a.name, len(a)) for a in scan.axes] == axes
    assert scan.order.tolist() == [0, 1, 2, 3]
    for axis in scan.axes:
        reached = np.asarray(motors.get(axis.name, np.arange(4)), float)
        assert axis.values == pytest.approx(np.unique(reached) if len(axis) == 2 else reached)


def test_scans_of_a_file_are_listed_in_order(bliss, stack):
    for scan in ("10.1", "2.1", "1.1"):
        path = bliss("ascan mu 0 1 3 0.1", stack(4), scan=scan)
    bliss("ct 1", None, scan="3.1")
    scans = open_scans(path)
    assert [one.name for one in scans] == ["1.1", "2.1", "3.1", "10.1"]
    assert scans[2].frames is None and scans[2].missing == ("an image stack",)
    assert open_scan(path, "10.1").name == "10.1"
    with pytest.raises(InputError, match=r"several scans, choose one with --scan: 1\.1, 2\.1, 10\.1"):
        open_scan(path)
    with pytest.raises(InputError, match=r"scan '3\.1' .* cannot be mapped: an image stack"):
        open_scan(path, "3.1")


def test_a_top_group_may_have_any_name_that_ends_in_a_scan_number(bliss, stack):
    assert open_scan(bliss("ascan mu 0 1 3 0.1", stack(4), scan="layer_0_strain_1.1")).name == "layer_0_strain_1.1"


def test_slow_counters_are_folded_into_their_scan(bliss, stack):
    path = bliss("ascan mu 0 1 3 0.1", stack(4))
    with h5py.File(path, "a") as file:
        file["1.2/measurement/current"] = [194.0, 196, 195]
        file["1.2/measurement/epoch"] = [1.0, 2, 3]
        file["1.2/instrument/pico4/signal"] = [1.0, 3.0]
    (scan,) = open_scans(path)
    assert scan.metadata["slow_counters"] == {"current": 195, "pico4": 2}


def test_one_of_several_detectors_is_chosen_by_name(bliss, stack):
    frames = stack(4)
    path = bliss("ascan mu 0 1 3 0.1", frames)
    with h5py.File(path, "a") as file:
        file["1.1/instrument/eiger/data"] = frames[:, ::-1]
    with pytest.raises(InputError, match="there are several, choose one with --detector: eiger, pco_ff"):
        open_scan(path)
    assert np.array_equal(open_scan(path, detector="eiger").frame(1), frames[1, ::-1])
    with pytest.raises(InputError, match=r"detector 'pilatus' \(there are: eiger, pco_ff\)"):
        open_scan(path, detector="pilatus")


def detector_files(folder, frames, files):
    """A BLISS file whose images lie two to a file in scan0001/; only `files` are written."""
    layout = h5py.VirtualLayout(frames.shape, frames.dtype)
    (folder / "scan0001").mkdir()
    for number in range(len(frames) // 2):
        name = f"scan0001/pco_ff_{number:04}.h5"
        layout[2 * number : 2 * number + 2] = h5py.VirtualSource(name, "data", (2, *frames.shape[1:]))
        if number in files:
            with h5py.File(folder / name, "w") as file:
                file["data"] = frames[2 * number : 2 * number + 2]
    with h5py.File(folder / "scan.h5", "w") as file:
        file["1.1/title"] = f"ascan mu 0 1 {len(frames) - 1} 0.1"
        file["1.1/instrument/name"] = "ESRF-ID03"
        file["1.1/instrument"].create_virtual_dataset("pco_ff/image", layout)
    return folder / "scan.h5"


def test_images_in_other_files_are_read(tmp_path, stack):
    frames = stack(6)
    scan = open_scan(detector_files(tmp_path, frames, {0, 1, 2}))
    assert np.array_equal(np.concatenate([b.frames for b in scan.batches(4)]), frames)


def test_frames_of_missing_detector_files_are_left_out_and_named(tmp_path, stack):
    frames = stack(6)
    scan = open_scan(detector_files(tmp_path, frames, {0, 2}))
    assert scan.order.tolist() == [0, 1, 4, 5]
    assert np.array_equal(np.concatenate([b.frames for b in scan.batches(3)]), frames[[0, 1, 4, 5]])
    assert "file scan0001/pco_ff_0001.h5 with 2 frames of instrument/pco_ff/image" in scan.missing


def test_a_scan_without_any_of_its_detector_files_names_them(tmp_path, stack):
    path = detector_files(tmp_path, stack(4), set())
    with pytest.raises(InputError, match=r"files that are not there: scan0001/pco_ff_0000\.h5, scan0001/pco_ff_0001\.h5"):
        open_scan(path)


def test_a_broken_link_to_a_detector_file_is_named(bliss, tmp_path):
    path = bliss("ascan mu 0 1 3 0.1", None)
    with h5py.File(path, "a") as file:
        file["1.1/instrument/pco_ff/image"] = h5py.ExternalLink("scan0001/pco_ff_0000.h5", "entry/data")
    (scan,) = open_scans(path)
    assert scan.frames is None
    assert "file scan0001/pco_ff_0000.h5 (of instrument/pco_ff)" in scan.missing


def test_an_external_link_to_images_is_followed(bliss, tmp_path, stack):
    frames = stack(4)
    path = bliss("ascan mu 0 1 3 0.1", None)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["deep/data"] = frames
    with h5py.File(path, "a") as file:
        file["1.1/instrument/pco_ff/image"] = h5py.ExternalLink("images.h5", "deep/data")
    assert np.array_equal(open_scan(path).frame(2), frames[2])


def test_nan_positions_are_replaced_by_the_planned_ones_and_said(bliss, stack):
    scan = open_scan(bliss("ascan mu 0 3 3 0.1", stack(4), {"mu": [0.0, np.nan, 2, 3]}))
    assert scan.grid["mu"].values.tolist() == [0, 1, 2, 3]
    assert scan.missing == ("measured position of mu at 1 frames (planned is used)",)


def test_nan_positions_without_a_plan_cannot_be_mapped(bliss, stack):
    path = bliss("my own macro", stack(4), {"mu": [0.0, np.nan, 2, 3]})
    with pytest.raises(InputError, match="positions of 'mu' must be finite numbers, got 1 that are not among 4"):
        open_scan(path)
