"""Tables and calibrations of other programs: an input that may be a scan or a map takes them, and info says what they hold."""

import json

import numpy as np
import pytest
import xarray as xr

import braggscope
from braggscope.core.errors import InputError


@pytest.fixture
def levels(tmp_path):
    path = tmp_path / "levels.lst"
    path.write_text("LEVELS\n3\n8.5\n1\n")
    return path


def test_the_file_says_whether_it_is_a_scan_a_map_or_a_table(cli, scan_file, levels, tmp_path):
    scan, made = scan_file(), tmp_path / "m.h5"
    assert cli("map", scan, "-o", made)[0] == 0
    top = float(braggscope.load(made)["level"].max())
    for path, took, level in ((scan, "scan", top), (made, "dataset", top), (levels, "dataset", 8.5)):
        code, said, wrong = cli("tiny", "highest", path, "--json")
        assert (code, wrong) == (0, "")
        found = braggscope.analyse("tiny", "highest", path)
        assert (found.attrs["took"], float(found["level"][0])) == (took, pytest.approx(level))
        assert found.attrs["input_file"] == path.name and json.loads(said)["analysis"] == "highest"


def test_open_scans_and_maps_and_tables_in_memory_do_as_well(tiny, scan_file, levels):
    scan = braggscope.open(scan_file())
    assert braggscope.analyse("tiny", "highest", scan).attrs["took"] == "scan"
    table = tiny.table_formats().read(levels)
    assert braggscope.analyse("tiny", "highest", table).attrs["took"] == "dataset"
    found = braggscope.analyse("tiny", "highest", scan, other=levels)  # an option of maps takes a table
    assert found.attrs["others"] == 3
    with pytest.raises(InputError, match="source must be a scan or map, got int"):
        braggscope.analyse("tiny", "highest", 3)
    with pytest.raises(InputError, match="takes a scan or map, got 0 inputs"):
        braggscope.analyse("tiny", "highest")


def test_flags_of_scans_are_refused_for_a_table_and_broken_ones_say_what_is_wrong(cli, levels, tmp_path):
    code, _, wrong = cli("tiny", "highest", levels, "--binning", "2")
    assert code == 2 and wrong.endswith("is not a scan; leave out --binning\n")
    levels.write_text("LEVELS\nmuch\n")
    code, _, wrong = cli("tiny", "highest", levels)
    assert code == 2 and "must hold numbers" in wrong and wrong.count("\n") == 1
    code, _, wrong = cli("tiny", "highest", tmp_path / "none.lst")
    assert code == 2 and "none.lst" in wrong and wrong.count("\n") == 1


def test_info_says_what_a_table_holds(cli, levels):
    code, said, _ = cli("info", levels)
    assert code == 0 and f"{levels}: a table of tiny, 3 peaks" in said
    assert "level, 1 to 8.5 count" in said and "gain 2" in said
    document = json.loads(cli("info", levels, "--json")[1])
    assert document["shape"] == {"peak": 3} and document["geometry"] == {"gain": 2.0}
    assert document["quantities"]["level"]["range"] == [1.0, 8.5]


def test_a_calibration_of_another_program_is_a_geometry(cli, scan_file, levels, tmp_path):
    calibration = tmp_path / "a.gain"
    calibration.write_text("3.5")
    found = braggscope.analyse("tiny", "highest", levels, geometry=calibration)
    assert found.attrs["gain"] == 3.5 and json.loads(found.attrs["geometry"])["gain"] == 3.5
    made = tmp_path / "m.h5"
    scan = scan_file(modality="")  # its modality is that whose calibration it is
    code, _, wrong = cli("map", scan, "-o", made, "--geometry", calibration)
    assert (code, wrong) == (0, "")
    assert json.loads(braggscope.load(made).attrs["geometry"])["gain"] == 3.5
    assert braggscope.load(made).attrs["modality"] == "tiny"


def test_a_table_is_a_map_in_memory(tiny, levels):
    table = tiny.table_formats().read(levels)
    assert isinstance(table, xr.Dataset)
    np.testing.assert_array_equal(table["level"], [3, 8.5, 1])
