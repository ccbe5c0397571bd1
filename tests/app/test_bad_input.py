"""Bad input at the command line: exit code 2, one sentence that says what came and what would do, nothing written."""

from __future__ import annotations

import re

import h5py
import numpy as np
import pytest

import braggscope
from braggscope.core.errors import InputError


def test_missing_file(refused, tmp_path):
    for command in (["info"], ["map", "-o", tmp_path / "m.h5"], ["calibrate", "-o", tmp_path / "g.toml"]):
        assert f"{tmp_path / 'no.h5'} does not exist" in refused(*command, tmp_path / "no.h5")
    for command in ("view", "report"):
        assert "no.h5 does not exist" in refused(command, tmp_path / "no.h5", "-o", tmp_path / "x.png")


def test_not_hdf5(refused, tmp_path):
    (tmp_path / "notes.h5").write_text("no frames here")
    assert "notes.h5" in refused("map", tmp_path / "notes.h5", "-o", tmp_path / "m.h5")
    assert "notes.h5 is not a map file" in refused("view", tmp_path / "notes.h5", "-o", tmp_path / "x.png")
    assert "is not a map file" in refused("view", tmp_path, "-o", tmp_path / "x.png")


def test_truncated_hdf5(refused, scan_file, tmp_path):
    whole = scan_file().read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    assert "cut.h5" in refused("map", tmp_path / "cut.h5", "-o", tmp_path / "m.h5")


def test_no_image_stack(refused, tmp_path):
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["entry/data/current"] = np.arange(5.0)
    assert "image stack" in refused("map", tmp_path / "empty.h5", "-o", tmp_path / "m.h5")


def test_several_image_stacks(refused, scan_file, tmp_path):
    scan = scan_file()
    with h5py.File(scan, "r+") as file:
        del file["entry/data"].attrs["signal"]
        file["entry/data/second"] = file["entry/data/data"][()]
        file.move("entry/data/data", "entry/data/first")
    sentence = refused("map", scan, "-o", tmp_path / "m.h5")
    assert "second" in sentence
    assert "first" in sentence


def test_unknown_names_list_those_there_are(refused, scan_file, tmp_path):
    scan, out = scan_file(), ("-o", tmp_path / "m.h5")
    assert "unknown tiny method 'men'; there are: curve, mean, network" in refused("map", scan, *out, "--method", "men")
    assert "unknown modality 'tin'; there are:" in refused("map", scan, *out, "--modality", "tin")
    assert "has no option 'least'; it has: pause, fails_at" in refused("map", scan, *out, "--option", "least=3")
    assert "has no scan '3.1'; it has: " in refused("map", scan, *out, "--scan", "3.1")
    assert "unknown tiny phantom 'rampe'; there are: ramp" in refused("simulate", "tiny", *out, "--phantom", "rampe")
    assert "has no option 'bump'; it has: shape" in refused("simulate", "tiny", *out, "--shape", 3, "--option", "bump=1")
    assert "unknown method 'men'; there are: " in refused("info", "--method", "men")
    assert "unknown modality 'tin'; there are: " in refused("info", "--modality", "tin")


def test_output_exists(cli, refused, scan_file, tmp_path):
    scan = scan_file()
    cli("map", scan, "-o", tmp_path / "m.h5")
    made = ("there.h5", "there.png", "there.html", "there.toml")
    for name in made:
        (tmp_path / name).write_text("dear data")
    words = [
        ("map", scan), ("simulate", "tiny", "--shape", 4), ("view", tmp_path / "m.h5"), ("report", tmp_path / "m.h5"),
        ("calibrate", scan),
    ]  # fmt: skip
    for command, name in zip(words, ("there.h5", "there.h5", "there.png", "there.html", "there.toml"), strict=True):
        assert f"output {tmp_path / name} exists; give another name" in refused(*command, "-o", tmp_path / name)
    assert {(tmp_path / name).read_text() for name in made} == {"dear data"}


def test_output_that_would_destroy_its_input(refused, scan_file):
    scan = scan_file()
    assert "is also an input" in refused("map", scan, "-o", scan, "--overwrite")


def test_output_in_a_folder_that_is_not_there(refused, scan_file, tmp_path):
    assert "does not exist" in refused("map", scan_file(), "-o", tmp_path / "no" / "m.h5")
    assert "is a folder" in refused("map", scan_file(), "-o", tmp_path)


def test_modality_or_geometry_that_nobody_says(refused, scan_file, tmp_path):
    scan = scan_file(modality=None)
    assert "does not say its modality; give one with --modality: " in refused("map", scan, "-o", tmp_path / "m.h5")
    assert "does not say the nanobeam geometry; give a TOML file with --geometry" in refused(
        "map", scan, "-o", tmp_path / "m.h5", "--modality", "nanobeam"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[tiny]\ngain = -1", "gain must be between 0.1 and 10 count, got -1"),
        ("[tiny]\ngain = 'big'", "gain must be a number"),
        ("[tiny]\ngian = 1", "unknown key 'gian' in [tiny]; known are: gain, image_file"),
        ("[other]\ngain = 1", "has no table [tiny]; it has: other"),
        ("gain 1", "is not TOML"),
    ],
)
def test_bad_geometry(refused, scan_file, tmp_path, text, sentence):
    (tmp_path / "g.toml").write_text(text)
    said = refused("map", scan_file(), "-o", tmp_path / "m.h5", "--geometry", tmp_path / "g.toml")
    assert "g.toml" in said
    assert sentence in said


def test_geometry_file_that_is_not_there(refused, scan_file, tmp_path):
    words = ("map", "-o", tmp_path / "m.h5", "--geometry", tmp_path / "g.toml")
    assert "g.toml does not exist" in refused(*words, scan_file())
    assert "g.toml does not exist" in refused(*words, scan_file("silent.h5", modality=None))


def test_geometry_file_that_does_not_help_a_scan_without_modality(refused, scan_file, tmp_path):
    words = ("map", scan_file(modality=None), "-o", tmp_path / "m.h5", "--geometry")
    (tmp_path / "g.toml").write_text("gain 1")
    assert "g.toml is not TOML" in refused(*words, tmp_path / "g.toml")
    (tmp_path / "g.toml").write_text("[other]\ngain = 1")
    assert "scan.h5 does not say its modality, nor does the geometry file" in refused(*words, tmp_path / "g.toml")
    assert "cannot be read" in refused(*words, tmp_path)


def test_a_damaged_picture_is_told_in_one_sentence(program, tmp_path):
    (tmp_path / "frames.tif").write_bytes(b"II*\0garbage")
    process = program("info", tmp_path / "frames.tif")
    said, wrong = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, "")
    assert re.fullmatch(r"error: .*frames\.tif is not a TIFF file or is damaged[^\n]*\n", wrong), wrong


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--roi", "0:3"], "--roi must be rows and columns as START:STOP,START:STOP, got '0:3'"),
        (["--roi", "0:9,0:4"], "roi must lie inside the frame of 5 rows x 4 columns"),
        (["--binning", "9"], "binning must be between 1 and the frame's 4 pixels, got 9"),
        (["--option", "pause"], "--option must be NAME=VALUE, got 'pause'"),
        (["--option", "pause=long"], "option pause must be a number, like 0.0, got 'long'"),
        (["--option", "pause=1", "--option", "pause=2"], "--option pause is given twice"),
        (["--saturation", "-4"], "--saturation must be a positive count, got -4"),
        (["--device", "cuda"], "method 'mean' runs on cpu, got device 'cuda'"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
        (["--overwrite", "--resume"], "--overwrite and --resume contradict each other"),
        (["--speed", "9"], "--speed"),
    ],
)
def test_bad_flags(refused, scan_file, tmp_path, words, sentence):
    assert sentence in refused("map", scan_file(), "-o", tmp_path / "m.h5", *words)


def test_bad_usage(refused, scan_file, tmp_path):
    assert "'-o'" in refused("map", scan_file())
    assert "mop" in refused("mop", scan_file())
    assert "needs --shape" in refused("simulate", "tiny", "-o", tmp_path / "s.h5")
    assert "--shape must be one length per scan axis" in refused("simulate", "tiny", "--shape", "large", "-o", tmp_path / "s.h5")
    assert "--noise must be default or none" in refused("simulate", "tiny", "--noise", "much", "-o", tmp_path / "s.h5")
    assert "number like 9.0" in refused("simulate", "tiny", "--shape", 4, "--option", "peak=high", "-o", tmp_path / "s.h5")
    assert "info takes a file, or --method" in refused("info", scan_file(), "--method", "mean")
    assert "must end in one of .png" in refused("view", scan_file(), "-o", tmp_path / "x.bmp")


def test_frames_that_cannot_be_decoded(refused, scan_file, tmp_path):
    scan = scan_file()
    unknown = 32099  # a filter number that nobody has registered
    with h5py.File(scan, "r+") as file:
        shape = file["entry/data/data"].shape
        del file["entry/data/data"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 1, *shape[2:]))
        plist.set_filter(unknown, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(shape)
        identity = h5py.h5d.create(file["entry/data"].id, b"data", h5py.h5t.NATIVE_UINT16, space, plist)
        identity.write_direct_chunk((0, 0, 0, 0), b"xxxx")
    assert str(unknown) in refused("map", scan, "-o", tmp_path / "m.h5")


def test_a_defect_is_told_in_a_sentence_and_debug_shows_where(cli, scan_file, tmp_path, monkeypatch):
    monkeypatch.setattr("braggscope.app.describing.describe_file", lambda *a, **k: 1 / 0)
    code, _, wrong = cli("info", scan_file())
    assert code == 1
    assert wrong.startswith("error: ZeroDivisionError: division by zero")
    assert "Traceback" not in wrong
    monkeypatch.setenv("BRAGGSCOPE_DEBUG", "1")
    assert "Traceback" in cli("info", scan_file())[2]


PUBLISHED = {
    "energy_kev": 11.3, "lattice_a": 4.013, "order": 2, "thickness_a": 117.0, "distance_m": 0.85, "pixel_um": 110.0,
    "zone_plate_um": 149.0, "outer_zone_nm": 16.0, "stop_um": 77.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distance_m": -0.85}, ["distance_m", "-0.85"]),
        ({"energy_kev": None}, ["lacks 'energy_kev'", "keV"]),
        ({"detector": 3}, ["unknown key 'detector'", "known are: energy_kev"]),
        ({"stop_um": 160.0}, ["stop_um", "zone_plate_um", "160"]),
        ({"energy_kev": 1.5}, ["lattice_a", "8.266", "4.013", "no Bragg angle"]),
        ({}, ["20", "frame"]),
    ],
    ids=["negative", "missing", "unknown", "inconsistent", "no Bragg angle", "frame too small for the ring"],
)
def test_bad_nanobeam_geometry(refused, scan_file, tmp_path, change, words):
    values = {name: value for name, value in {**PUBLISHED, **change}.items() if value is not None}
    toml = tmp_path / "film.toml"
    toml.write_text("[nanobeam]\n" + "".join(f"{name} = {value}\n" for name, value in values.items()))
    scan = scan_file(frame_shape=(20, 22), modality=None)
    sentence = refused("map", scan, "-o", tmp_path / "m.h5", "--geometry", toml)
    assert all(word in sentence for word in words), sentence


def test_a_calibration_that_is_to_find_nothing(refused, scan_file, tmp_path):
    assert "--free must name what to find" in refused("calibrate", scan_file(), "-o", tmp_path / "g.toml", "--free", " ,")


def test_a_simulation_with_the_geometry_of_another_modality(tiny):
    with pytest.raises(InputError, match="the geometry is one of tiny, but the modality is dfxm"):
        braggscope.simulate("dfxm", geometry=tiny.geometry_class()(), progress=False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seed", "-1"], "seed must be a whole number from 0 on, got -1"),
        (["--frame-shape", "0", "5"], "frame_shape must be positive lengths, got 0 x 5"),
        (["--frame-shape", "-5", "5"], "frame_shape must be positive lengths, got -5 x 5"),
        (["--shape", "0x5"], "shape must be positive lengths, got 0 x 5"),
        (["--option", "shape=()"], "shape must be positive lengths"),
    ],
)
@pytest.mark.parametrize("modality", ["nanobeam", "dfxm"])
def test_a_simulation_of_nothing(refused, tmp_path, modality, words, sentence):
    assert sentence in refused("simulate", modality, "-o", tmp_path / "s.h5", *words)


@pytest.mark.parametrize("command", ["map", "train"])
def test_a_folder_that_takes_no_file_is_found_before_the_work(refused, scan_file, tmp_path, command, monkeypatch):
    from braggscope.core.scan import Scan

    # 255 bytes are the most for a name, and the file is written under a name that is 9 bytes longer
    scan, name = scan_file(), {"map": f"{'m' * 247}.h5", "train": f"{'m' * 238}.safetensors"}[command]
    monkeypatch.setattr(Scan, "batches", lambda *a, **k: pytest.fail("frames were read"))
    sentence = refused(command, scan, "--method", "network", "-o", tmp_path / name)
    assert f"cannot be written: folder {tmp_path} takes no file of this name (File name too long)" in sentence
