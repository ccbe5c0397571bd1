"""Generic HDF5 and NeXus files: where the stack is, its axes, geometry, monitor; and Zarr in the same layout."""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from braggscope.core.source import open_scan, open_scans
from braggscope.io.hdf5 import boxes, runs


@pytest.fixture
def nexus(tmp_path):
    """(values, attributes) -> path of an HDF5 file with these datasets and attributes of groups or datasets."""

    def make(values, attributes=None, name="film.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            for where, value in values.items():
                file[where] = value
            for where, attrs in (attributes or {}).items():
                file[where].attrs.update(attrs)
        return tmp_path / name

    return make


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_boxes_cover_a_flat_range_once_and_in_order(shape, data):
    size = math.prod(shape)
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    flat = np.arange(size).reshape(shape)
    covered = [flat[box].ravel() for box in boxes(start, stop, tuple(shape))]
    assert np.array_equal(np.concatenate([np.empty(0, int), *covered]), np.arange(start, stop))
    assert len(covered) <= 2 * len(shape) - 1


@given(st.sets(st.integers(0, 30)))
def test_runs_cover_rising_positions(positions):
    which = np.array(sorted(positions), dtype=int)
    assert [i for a, b in runs(which, 31) for i in range(a, b)] == which.tolist()


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_axes_and_their_units_are_found(nexus, stack, compression):
    path = nexus(
        {
            "entry/data/data": stack(6).reshape(2, 3, 5, 7),
            "entry/data/y": [0.0, 0.5],
            "entry/data/x": [1.0, 2, 3],
            "entry/title": "a film",
        },
        {"entry/data": {"axes": ["y", "x", ".", "."]}, "entry/data/y": {"units": "um"}, "entry/data/x": {"units": "mm"}},
    )
    scan = open_scan(path)
    assert [(a.name, a.values.tolist(), a.unit) for a in scan.axes] == [("y", [0, 0.5], "um"), ("x", [1, 2, 3], "mm")]
    assert (scan.name, scan.title, scan.detector, scan.missing) == ("entry", "a film", "data/data", ())


@pytest.mark.parametrize(
    ("values", "attributes"),
    [
        ({"scan/eiger/frames": 3}, {"scan/eiger": {"NX_class": "NXdata", "signal": "frames"}}),
        ({"entry/instrument/eiger/data": 3}, {}),
        ({"frames": 3}, {}),
        ({"entry/data/data": 3, "entry/other": 4}, {}),
        ({"entry/detector/data": 3, "entry/other": 4}, {"entry/detector": {"signal": "data"}}),
        (
            {"entry/one/data": 4, "entry/two/data": 3},
            {"entry": {"default": "two"}, "entry/one": {"signal": "data"}, "entry/two": {"signal": "data"}},
        ),
    ],
)
def test_the_image_stack_is_found(nexus, stack, values, attributes):
    scan = open_scan(nexus({where: stack(count) for where, count in values.items()}, attributes))
    assert np.array_equal(scan.frame(2), stack(3)[2])


def test_axes_without_attributes_are_those_of_fitting_length(nexus, stack):
    path = nexus({"entry/data/data": stack(6).reshape(2, 3, 5, 7), "entry/data/slow": [0.0, 0.5], "entry/data/fast": [1.0, 2, 3]})
    assert [a.name for a in open_scan(path).axes] == ["slow", "fast"]


def test_a_square_raster_without_attributes_has_y_slow_and_x_fast(nexus, stack):
    path = nexus({"entry/data/data": stack(4).reshape(2, 2, 5, 7), "entry/data/x": [1.0, 2], "entry/data/y": [5.0, 6]})
    assert [(a.name, a.values.tolist()) for a in open_scan(path).axes] == [("y", [5, 6]), ("x", [1, 2])]


def test_netcdf_dimension_scales_name_the_axes(tmp_path, stack):
    with h5py.File(tmp_path / "film.h5", "w") as file:
        data = file.create_dataset("entry/data/data", data=stack(4).reshape(2, 2, 5, 7))
        for number, name in enumerate(("chi", "mu")):
            file[f"entry/data/{name}"] = [1.0, 2.0]
            file[f"entry/data/{name}"].make_scale(name)
            data.dims[number].attach_scale(file[f"entry/data/{name}"])
    assert [a.name for a in open_scan(tmp_path / "film.h5").axes] == ["chi", "mu"]


def test_a_stack_without_coordinates_counts_and_says_so(nexus, stack):
    scan = open_scan(nexus({"entry/data/data": stack(6).reshape(2, 3, 5, 7)}))
    assert [(a.name, a.values.tolist()) for a in scan.axes] == [("y", [0, 1]), ("x", [0, 1, 2])]
    assert scan.missing == ("coordinates of axis y (counted from 0)", "coordinates of axis x (counted from 0)")


def test_a_plain_stack_is_a_line_or_fills_the_grid_of_its_positions(nexus, stack):
    assert [a.name for a in open_scan(nexus({"frames": stack(6)})).axes] == ["point"]
    y, x = np.repeat([0.0, 1], 3), np.array([0.0, 1, 2, 2, 1, 0])
    path = nexus(
        {"entry/data/data": stack(6), "entry/data/x": x, "entry/data/y": y, "entry/data/time": np.arange(6.0)},
        name="positions.h5",
    )
    scan = open_scan(path)
    assert [(a.name, len(a)) for a in scan.axes] == [("y", 2), ("x", 3)]
    assert scan.order.tolist() == [0, 1, 2, 5, 4, 3]


def test_a_scan_with_fewer_frames_than_positions_is_an_aborted_one(nexus, stack):
    path = nexus({"entry/data/data": stack(4), "entry/data/x": np.arange(6.0)}, {"entry/data": {"axes": ["x", ".", "."]}})
    scan = open_scan(path)
    assert scan.shape == (6,) and scan.order.tolist() == [0, 1, 2, 3]
    assert scan.missing == ("2 of 6 frames (the scan ended after 4)",)


def test_geometry_is_read_with_its_units(nexus, stack):
    values = {"distance": 850.0, "x_pixel_size": 0.055, "saturation_value": 3000.0}
    units = {"distance": "mm", "x_pixel_size": "mm"}
    path = nexus(
        {"entry/data/data": stack(3), "entry/instrument/beam/incident_energy": 11300.0}
        | {f"entry/instrument/detector/{k}": v for k, v in values.items()},
        {"entry/instrument/beam/incident_energy": {"units": "eV"}}
        | {f"entry/instrument/detector/{k}": {"units": v} for k, v in units.items()},
    )
    scan = open_scan(path)
    assert scan.geometry_values == pytest.approx({"energy_kev": 11.3, "distance_m": 0.85, "pixel_um": 55.0})
    assert scan.saturation == 3000
    assert not next(scan.batches()).mask[stack(3) >= 3000].any()


def test_energy_is_found_from_the_wavelength_too(nexus, stack):
    scan = open_scan(nexus({"entry/data/data": stack(3), "entry/instrument/mono/wavelength": 1.0}))
    assert scan.geometry_values == pytest.approx({"energy_kev": 12.39842}, abs=1e-5)


def test_the_monitor_comes_with_its_frames(nexus, stack):
    path = nexus({"entry/data/data": stack(4), "entry/monitor/data": [1.0, 2, 3, 4]})
    assert [b.monitor.tolist() for b in open_scan(path).batches(3)] == [[1, 2, 3], [4]]


def test_every_entry_is_a_scan(nexus, stack):
    path = nexus({"entry_1/data/data": stack(4), "entry_2/data/data": stack(3), "notes/text": "x"})
    assert [scan.name for scan in open_scans(path)] == ["entry_1", "entry_2"]
    assert open_scan(path, "entry_2").frames.shape == (3, 5, 7)


def test_a_zarr_group_has_the_same_layout(tmp_path, stack):
    for version in (2, 3):
        root = zarr.open_group(str(tmp_path / f"{version}.zarr"), mode="w", zarr_format=version)
        data = root.create_group("entry").create_group("data")
        data.attrs["axes"] = ["y", "x", ".", "."]
        data.create_array("data", shape=(2, 3, 5, 7), dtype="u2")[:] = stack(6).reshape(2, 3, 5, 7)
        for name, values in (("y", [0.0, 0.5]), ("x", [1.0, 2, 3])):
            array = data.create_array(name, shape=(len(values),), dtype="f8")
            array[:] = values
            array.attrs["units"] = "um"
        own = root["entry"].create_group("instrument/braggscope")
        own.attrs["modality"] = "nanobeam"
        own.create_array("energy_kev", shape=(), dtype="f8")[()] = 11.3
        scan = open_scan(tmp_path / f"{version}.zarr")
        assert [(a.name, a.values.tolist(), a.unit) for a in scan.axes] == [("y", [0, 0.5], "um"), ("x", [1, 2, 3], "um")]
        assert (scan.modality, scan.geometry_values) == ("nanobeam", {"energy_kev": 11.3})


def test_zarr_dimension_names_are_axes(tmp_path, stack):
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=3)
    root.create_array("frames", shape=(4, 5, 7), dtype="u2", dimension_names=["mu", "row", "column"])[:] = stack(4)
    root.create_array("mu", shape=(4,), dtype="f8", dimension_names=["mu"])[:] = [1.0, 2, 3, 4]
    assert [(a.name, a.values.tolist()) for a in open_scan(tmp_path / "a.zarr").axes] == [("mu", [1, 2, 3, 4])]


def test_a_single_image_is_a_scan_of_one_frame(tmp_path):
    image = np.random.default_rng(0).integers(0, 4000, (40, 33)).astype(np.uint16)
    path = tmp_path / "image.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = image
    scan = open_scan(path)
    assert (scan.shape, scan.frame_shape, scan.missing) == ((1,), (40, 33), ())
    (batch,) = scan.batches()
    assert np.array_equal(batch.frames, image[None]) and batch.index.tolist() == [0]
    assert np.array_equal(next(iter(scan.cut(3, 20, 5, 9).batches())).frames[0], image[3:20, 5:9])
