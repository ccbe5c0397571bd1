"""The analysis `index`: its table and document, what it says of other materials, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

import braggscope
from braggscope.core import maps
from braggscope.core.errors import InputError
from braggscope.modalities.laue.analysis.index import document, index
from braggscope.modalities.laue.files.table import peak_table

from ..indexing.patterns import GEOMETRY, deviatoric, places, turn


def table(*lists, geometry=GEOMETRY):
    at = np.vstack(lists)
    light = np.concatenate([1 / (1.0 + np.arange(len(one))) for one in lists])
    return peak_table({"row": at[:, 0], "column": at[:, 1], "intensity": light}, geometry)


def test_the_document_holds_what_was_asked_for():
    strain = deviatoric(1)
    said = document(index(table(places(turn(1), strain, count=70), places(turn(2), count=40)), material=("Ge",)))
    assert said["peaks"] == 110 and said["explained"] >= 105 and said["verdict"] == "indexed" and "LaueTools" in said["frame"]
    first = said["grains"][0]
    u = np.array(first["U"])
    assert np.allclose(u @ u.T, np.eye(3)) and np.linalg.det(u) == pytest.approx(1)
    assert first["matched"] == len(first["residuals_px"]) == len(first["hkl"]) == len(first["energies_kev"])
    assert first["matched"] <= first["predicted"] and first["mean_px"] == pytest.approx(np.mean(first["residuals_px"]))
    assert np.trace(first["strain"]) == pytest.approx(0, abs=1e-12)
    # the strain, turned to the laboratory, does not depend on which of the equivalent orientations was found
    assert np.allclose(u @ first["strain"] @ u.T, turn(1) @ strain @ turn(1).T, atol=2e-5)


def test_it_is_a_map_that_survives_its_file(tmp_path):
    result = braggscope.analyse("laue", "index", table(places(turn(1))), material=("Ge",), output=tmp_path / "grains.h5")
    again = maps.load(tmp_path / "grains.h5")
    maps.check_map(again)
    assert again.sizes["grain"] == 1 and again["matched"].values == result["matched"].values


def test_another_material_is_told():
    found = index(table(places(turn(1), count=80)), material=("GaN",))
    assert found.sizes["grain"] == 0 and found.attrs["verdict"] == "not this material: GaN"
    assert document(found)["grains"] == []


def test_several_materials_by_commas_the_substrate_first():
    found = index(table(places(turn(8), count=80), places(turn(9), name="GaN", count=40)), material=("Ge,GaN",))
    assert found["material"].values.tolist() == ["Ge", "GaN"]


def test_few_peaks_are_said_to_be_few():
    found = index(table(places(turn(1), count=3)), material=("Ge",))
    assert found.sizes["grain"] == 0 and "3 peaks" in found.attrs["caution"]


def test_bad_input_is_named():
    peaks = table(places(turn(1)))
    with pytest.raises(InputError, match="'Unobtainium' is neither a CIF file nor"):
        index(peaks, material=("Unobtainium",))
    with pytest.raises(InputError, match="band LOW:HIGH"):
        index(peaks, material=("Ge",), energy="5-22")
    with pytest.raises(InputError, match="within_px must be positive"):
        index(peaks, material=("Ge",), within_px=0.0)
    with pytest.raises(InputError, match="states no calibration"):
        index(table(places(turn(1)), geometry=None), material=("Ge",))
    with pytest.raises(InputError, match="no peaks"):
        index(peaks.isel(peak=slice(0)), material=("Ge",))
    with pytest.raises(InputError, match="on the detector of 1000 rows"):
        index(peaks, material=("Ge",), geometry=GEOMETRY.replace(rows=1000, columns=1000))
    with pytest.raises(InputError, match="material is not stated"):
        index(peaks, geometry=GEOMETRY.replace(material=""))


def test_the_command_takes_a_calibration_as_detector(capsys):
    from braggscope.app.cli.main import main

    data = Path(__file__).parents[3] / "reference" / "laue"
    peaks, detector = (str(data / name) for name in ("rerun_lt3219_GaN_Si_nw1_0000_Si.cor", "GaN_Si_calib.det"))
    main(["laue", "index", peaks, "--detector", detector, "--material", "Si", "--energy", "5:22", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["peaks"] == said["explained"] == 55 and said["grains"][0]["mean_px"] == pytest.approx(0.317, abs=0.002)


def test_a_half_masked_detector_is_said_and_the_crystal_found_on_the_other_half(tmp_path):
    import h5py

    from braggscope.core.source import open_scan

    braggscope.simulate("laue", phantom="single", shape=(1, 1), output=tmp_path / "one.h5", progress=False, seed=2)
    scan = open_scan(tmp_path / "one.h5")
    frame = scan.frame(0).astype(np.float32)
    frame[: len(frame) // 2] = np.nan
    with h5py.File(tmp_path / "half.h5", "w") as file:
        file["entry/data/data"] = frame[None]
    geometry = GEOMETRY.from_mapping(dict(scan.geometry_values))
    whole, half = (index(open_scan(tmp_path / f"{n}.h5"), geometry=geometry, material=("Au",)) for n in ("one", "half"))
    assert whole.sizes["grain"] == half.sizes["grain"] == 1
    assert "caution" not in whole.attrs and half.attrs["caution"] == "50% of the detector is masked, and spots there are missing"
    assert np.abs(whole["orientation_x"].values - half["orientation_x"].values).max() < 0.1
