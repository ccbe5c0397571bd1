"""The map file: one HDF5 file that xarray, silx and NeXus readers open, whole or not there."""

import os

import h5py
import numpy as np
import pytest
import xarray as xr

from braggscope.core import maps
from braggscope.core.errors import InputError


@pytest.fixture
def strain_map():
    q = maps.Quantity("strain", "1", "out-of-plane strain")
    coords = {"y": ("y", [0.0, 0.5], {"units": "um"}), "x": ("x", [1.0, 2.0, 4.0], {"units": "um"})}
    dataset = maps.empty_map([q, q.std()], ("y", "x"), (2, 3), coords, {1: "no_frame", 4: "misfit"})
    dataset["strain"].values[...] = np.arange(6).reshape(2, 3)
    dataset["flag"].values[...] = [[0, 1, 5], [0, 0, 4]]
    dataset.attrs.update(method="moments", seed=3, options={"gain": 1.0}, nothing=None)
    return dataset


def test_a_map_survives_the_file(strain_map, tmp_path):
    maps.save(strain_map, tmp_path / "m.h5")
    back = maps.load(tmp_path / "m.h5")
    xr.testing.assert_equal(back, strain_map)
    assert back["strain"].attrs == strain_map["strain"].attrs
    assert back.attrs["options"] == '{"gain": 1.0}'
    assert maps.flag_counts(back) == {"good": 3, "no_frame": 2, "misfit": 2}


def test_xarray_and_silx_open_it(strain_map, tmp_path):
    import silx.io
    from silx.io import nxdata

    maps.save(strain_map, tmp_path / "m.h5")
    with xr.open_dataset(tmp_path / "m.h5", group="entry/data", engine="h5netcdf") as file:
        assert file["strain"].attrs["units"] == "1"
    with silx.io.open(str(tmp_path / "m.h5")) as file:
        plot = nxdata.get_default(file)
        assert plot is not None and plot.is_valid
        assert plot.signal_dataset_name == "strain" and plot.signal.shape == (2, 3)
        assert [a[()].tolist() for a in plot.axes] == [[0.0, 0.5], [1.0, 2.0, 4.0]]


def test_a_state_travels_in_an_unfinished_map(strain_map, tmp_path):
    maps.save(strain_map, tmp_path / "m.h5", state={"seen": np.array([True, False]), "strain": np.arange(2.0)})
    state = maps.load_state(tmp_path / "m.h5")
    assert state is not None and state["seen"].tolist() == [True, False]
    maps.save(strain_map, tmp_path / "m.h5")
    assert maps.load_state(tmp_path / "m.h5") is None


def test_a_failed_write_leaves_the_old_map(strain_map, tmp_path, monkeypatch):
    maps.save(strain_map, tmp_path / "m.h5")
    before = (tmp_path / "m.h5").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        maps.save(strain_map, tmp_path / "m.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["m.h5"]
    assert (tmp_path / "m.h5").read_bytes() == before


def test_what_is_no_map_is_said(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    for name, words in [("none.h5", "does not exist"), ("text.h5", "is not a map file")]:
        with pytest.raises(InputError, match=words):
            maps.load(tmp_path / name)


def test_a_scan_given_as_a_map_is_to_be_mapped_first(tmp_path):
    for name, where in [("own.h5", "entry/data/data"), ("other.h5", "1.1/measurement/pco_ff")]:
        with h5py.File(tmp_path / name, "w") as file:
            file[where] = np.ones((3, 4, 5), np.uint16)
        with pytest.raises(InputError, match=rf"{name} is not a map file but a scan; map it first: `braggscope map "):
            maps.load(tmp_path / name)


def test_what_a_file_is_instead_of_a_map_is_said_without_words_of_the_library(strain_map, tmp_path):
    maps.save(strain_map, tmp_path / "cut.h5")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "cut.h5").read_bytes()[:2000])
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["strain"] = np.ones((3, 4))
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["entry/data/strain"] = np.ones((3, 4))
    for name, words in [
        ("cut.h5", "is not a map file; it is a truncated HDF5 file: it ends after 2000 bytes, before its data do"),
        ("flat.h5", "is not a map file; it holds no image stack (numbers of 3 or more dimensions); it has: strain (3, 4)"),
        ("plain.h5", "is not a map file (a map needs an integer variable 'flag')"),
    ]:
        with pytest.raises(InputError) as refusal:
            maps.load(tmp_path / name)
        assert str(refusal.value) == f"{tmp_path / name} {words}"


@pytest.mark.parametrize(("name", "attribute"), [("strain", "units"), ("strain_std", "long_name"), ("flag", "flag_masks")])
def test_the_convention_is_checked(strain_map, name, attribute):
    del strain_map[name].attrs[attribute]
    with pytest.raises(ValueError, match=attribute):
        maps.check_map(strain_map)
