"""`simulate`, `calibrate`, `view` and `report`."""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest
import xarray as xr

import braggscope
from braggscope.app.cli.shared import Numbers, region, shape_of
from braggscope.app.provenance import file_hash
from braggscope.app.reopening import reopen
from braggscope.app.summary import remarks, summarise
from braggscope.core import maps
from braggscope.core.errors import InputError


def test_a_simulated_scan_reads_like_a_measured_one_and_carries_its_truth(cli, tmp_path):
    out = tmp_path / "s.h5"
    code, said, wrong = cli("simulate", "tiny", "--shape", 3, 4, "--frame-shape", 6, 5, "--peak", 20, "--seed", 5, "-o", out)
    assert (code, wrong) == (0, "")
    assert "3 x 4 frames of 6 x 5 pixels, seed 5" in said
    scan = braggscope.open(out)
    assert (scan.shape, scan.frame_shape, scan.modality) == ((3, 4), (6, 5), "tiny")
    with xr.open_dataset(out, group="entry/truth", engine="h5netcdf") as truth:
        np.testing.assert_allclose(truth["level"], np.linspace(1, 20, 12).reshape(3, 4))


def test_the_truth_of_a_simulated_scan_is_found_where_it_fits(cli, scan_file, tmp_path):
    cli("simulate", "tiny", "--shape", 3, 4, "--peak", 20, "-o", tmp_path / "s.h5")
    scan = braggscope.open(tmp_path / "s.h5")
    np.testing.assert_allclose(scan.cut(0, 3, 0, 4).truth["level"], np.linspace(1, 20, 12).reshape(3, 4))
    assert braggscope.open(scan_file()).truth is None
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file["entry/truth/row"] = np.arange(5.0)
        file["entry/truth/row"].make_scale("row")
        file["entry/truth/height"] = np.arange(5.0)
        file["entry/truth/height"].dims[0].attach_scale(file["entry/truth/row"])
    assert braggscope.open(tmp_path / "s.h5").truth is not None
    assert scan.cut(0, 3, 0, 4).bin(2).truth is None


def test_the_same_seed_gives_the_same_frames_and_another_one_others(cli, tmp_path):
    frames = []
    for name, seed in (("a.h5", 1), ("b.h5", 1), ("c.h5", 2)):
        cli("simulate", "tiny", "--shape", 12, "--seed", seed, "-o", tmp_path / name)
        frames.append(next(iter(braggscope.open(tmp_path / name).batches())).frames)
    np.testing.assert_array_equal(frames[0], frames[1])
    assert (frames[0] != frames[2]).any()


def test_a_simulation_without_noise_and_with_the_phantoms_own_option(cli, tmp_path):
    words = ("--shape", "2x3", "--noise", "none", "--option", "flat=2.5", "--peak", 7, "-o", tmp_path / "s.h5")
    assert cli("simulate", "tiny", *words, "--quiet")[0] == 0
    with h5py.File(tmp_path / "s.h5") as file:
        np.testing.assert_allclose(file["entry/data/data"][..., 0, 0].ravel(), np.linspace(1, 7, 6) + 2.5)


def test_a_simulation_in_python_is_mapped_like_a_file(tiny):
    simulation = braggscope.simulate("tiny", shape=(3, 4), seed=2, noise=None, progress=False)
    dataset = braggscope.map(simulation, progress=False)
    np.testing.assert_allclose(dataset["level"], simulation.truth["level"], rtol=1e-6)
    assert dataset.attrs["input_file"] == "simulation of ramp"
    assert dataset.attrs["seed"] == 2


def test_shapes_of_any_length_are_read_from_the_command_line():
    joined = []

    class Spy(Numbers):
        def __init__(self):
            self.params = []

    import typer.core

    def parse(self, ctx, args):
        joined.append(args)
        return args

    original = typer.core.TyperCommand.parse_args
    typer.core.TyperCommand.parse_args = parse
    try:
        Spy().parse_args(None, ["--shape", "26", "37", "-o", "12"])
        Spy().parse_args(None, ["nanobeam", "--shape", "165x165", "--peak", "7"])
    finally:
        typer.core.TyperCommand.parse_args = original
    assert joined == [["--shape", "26x37", "-o", "12"], ["nanobeam", "--shape", "165x165", "--peak", "7"]]
    assert shape_of("26x37") == shape_of("26,37") == (26, 37)
    assert region("10:74, 20:84") == (10, 74, 20, 84)


def test_calibrate_writes_the_geometry_that_map_takes(cli, scan_file, tmp_path):
    scan, out = scan_file(), tmp_path / "g.toml"
    code, said, wrong = cli("calibrate", scan, "-o", out, "--reference", "gain=3.5", "--free", "gain, other")
    assert (code, wrong) == (0, "")
    assert re.search(r"gain +3.5 +0.01 +count +counts per photon", said)
    assert "free: ('gain', 'other')" in said
    assert cli("map", scan, "--geometry", out, "-o", tmp_path / "m.h5", "--quiet")[0] == 0
    assert json.loads(braggscope.load(tmp_path / "m.h5").attrs["geometry"]) == {"gain": 3.5}
    document = json.loads(cli("calibrate", scan, "-o", out, "--overwrite", "--json")[1])
    assert document["fields"][0]["field"] == "gain"
    found = braggscope.calibrate(braggscope.open(scan), progress=False)
    assert found.geometry.gain == 2.0


def test_a_picture_of_a_map(cli, scan_file, tmp_path):
    scan = scan_file()
    cli("map", scan, "-o", tmp_path / "m.h5")
    assert cli("view", tmp_path / "m.h5", "-o", tmp_path / "m.png")[0] == 0
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    assert cli("view", tmp_path / "m.h5", "--view", "frame", "--scan", scan, "-o", tmp_path / "f.png")[0] == 0
    code, _, wrong = cli("view", tmp_path / "m.h5", "--view", "frame", "-o", tmp_path / "g.png")
    assert (code, "give its scan file with --scan" in wrong) == (2, True)
    code, _, wrong = cli("view", tmp_path / "m.h5", "--view", "frames", "-o", tmp_path / "g.png")
    assert (code, "there are: frame, overview" in wrong) == (2, True)


def test_the_report_is_complete_in_itself(cli, scan_file, tmp_path):
    scan, second = scan_file(), scan_file("second.h5", change=lambda counts: counts // 2)
    cli("map", scan, "-o", tmp_path / "a.h5")
    cli("map", second, "-o", tmp_path / "b.h5", "--method", "curve")
    out = tmp_path / "r.html"
    code, _, wrong = cli("report", tmp_path / "a.h5", tmp_path / "b.h5", "--scan", scan, "-o", out, "--title", "Tea & <cake>")
    assert (code, wrong) == (0, "")
    page = out.read_text()
    assert "Tea &amp; &lt;cake&gt;" in page
    assert not re.search(r"""(src|href|url|@import)\s*[=(]?\s*["']?(https?:)?//""", page)
    assert page.count("<img ") == 3  # two overviews, and the frame of the map whose scan is there
    assert page.count("data:image/png;base64,") == 3
    assert len(re.findall(r'alt="[^"]{20,}"', page)) == 3
    for word in (
        "mean count per pixel",
        "reduced deviance",
        "How to read",
        braggscope.load(tmp_path / "a.h5").attrs["input_hash"],
    ):
        assert word in page
    assert "no standard deviations: a maximum has no simple error" in page


def test_a_report_refuses_a_scan_of_none_of_its_maps(cli, scan_file, tmp_path):
    cli("map", scan_file(), "-o", tmp_path / "a.h5")
    other = scan_file("other.h5", change=lambda counts: counts + 1)
    code, _, wrong = cli("report", tmp_path / "a.h5", "--scan", other, "-o", tmp_path / "r.html")
    assert code == 2
    assert "other.h5 is not the scan that any of these maps was made from: scan.h5" in wrong
    assert not (tmp_path / "r.html").exists()


def test_a_scan_is_reopened_as_it_was_mapped(cli, scan_file, tmp_path):
    scan = scan_file()
    cli("map", scan, "-o", tmp_path / "m.h5", "--roi", "1:5,0:4", "--binning", 2, "--saturation", 30)
    again = reopen(braggscope.load(tmp_path / "m.h5"), scan)
    assert (again.roi, again.binning, again.saturation, again.frame_shape) == ((1, 5, 0, 4), 2, 30.0, (2, 2))
    assert again.geometry.gain == 1.0
    with pytest.raises(InputError, match="is not the scan that the map was made from"):
        reopen(braggscope.load(tmp_path / "m.h5"), scan_file("other.h5", change=lambda counts: counts + 1))


def test_large_files_are_hashed_by_blocks_that_reach_both_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("braggscope.app.provenance.WHOLE_BYTES", 1000)
    monkeypatch.setattr("braggscope.app.provenance.BLOCK_BYTES", 10)
    path = tmp_path / "large.bin"
    content = bytearray(range(256)) * 20
    path.write_bytes(content)
    first = file_hash(path)
    assert first["input_hash_method"] == "sha256 of names, sizes and 64 blocks of 1 MiB"
    assert file_hash(path) == first
    for place, seen in ((0, True), (len(content) - 1, True), (40, False)):  # blocks of 10 begin every 81 bytes
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert (file_hash(path) != first) is seen


def test_folders_are_hashed_with_their_names(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "a.edf").write_bytes(b"one")
    (tmp_path / "frames" / "b.edf").write_bytes(b"two")
    first = file_hash(tmp_path / "frames")
    (tmp_path / "frames" / "b.edf").rename(tmp_path / "frames" / "c.edf")
    assert file_hash(tmp_path / "frames") != first


def test_the_summary_is_of_the_good_points_unless_most_are_flagged():
    dataset = maps.empty_map([maps.Quantity("level", "count", "level")], ("x",), (5,), {}, {1: "no_frame", 2: "dark"})
    dataset["level"].values[...] = [1, 2, 3, 100, np.nan]
    dataset["flag"].values[...] = [0, 0, 0, 2, 1]
    numbers = summarise(dataset)
    assert (numbers["over"], numbers["quantities"]["level"]["median"]) == ("good points", 2)
    assert numbers["flags"] == {"no_frame": 1, "dark": 1}
    dataset["flag"].values[...] = [0, 2, 2, 2, 1]
    numbers = summarise(dataset)
    assert numbers["over"].startswith("all points with a value")
    assert numbers["quantities"]["level"]["median"] == 2.5


def test_a_misfit_of_the_whole_scan_is_said():
    dataset = maps.empty_map([maps.Quantity("level", "count", "level")], ("x",), (5,), {}, {1: "no_frame"})
    dataset["level"].values[...] = 2.0
    dataset.attrs = {"reduced_deviance": 1.02, "reduced_deviance_std": 0.001}
    assert any("20 standard deviations above 1" in remark for remark in remarks(summarise(dataset)))
    for modality, hint in [("dfxm", "(the curves are not of the shape fitted"), ("nanobeam", "(is the geometry calibrated")]:
        said = " ".join(remarks(summarise(dataset.assign_attrs(modality=modality))))
        assert hint in said and said.count("(") == 1
    dataset.attrs["reduced_deviance"] = 1.003
    assert remarks(summarise(dataset)) == []


def test_the_group_of_a_modality_simulates(tmp_path):
    """`laue simulate` is `simulate laue`, with as many lengths as there are axes."""
    from braggscope.app.cli.main import main

    given = ["--phantom", "single", "--shape", "1", "2", "--frame-shape", "61", "51", "--seed", "3", "--quiet"]
    assert main(["laue", "simulate", *given, "-o", str(tmp_path / "a.h5")]) == 0
    assert main(["simulate", "laue", *given, "-o", str(tmp_path / "b.h5")]) == 0
    a, b = (braggscope.open(tmp_path / name) for name in ("a.h5", "b.h5"))
    assert a.shape == (1, 2) and (a.frame(1) == b.frame(1)).all()


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    from braggscope.app.cli import main as program

    stated = ["numpy>=2.2", 'gemmi>=0.7; extra == "crystal"', 'scikit-learn>=1.6; extra == "analysis"']
    monkeypatch.setattr(program, "requires", lambda name: stated)
    for module, package, extra in (("gemmi", "gemmi", "crystal"), ("sklearn.metrics", "scikit-learn", "analysis")):
        sentence = program._missing(ModuleNotFoundError(f"No module named '{module}'", name=module))
        assert sentence == f"this needs the package {package}, which is not installed: pip install 'braggscope[{extra}]'"
    assert "this is a defect" in program._missing(ModuleNotFoundError("No module named 'nought'", name="nought"))
