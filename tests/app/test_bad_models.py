"""Bad models, bad weights and bad words for a training: one sentence, exit code 2, nothing written."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

import braggscope
from braggscope.core.errors import InputError
from braggscope.core.model import load_model, save_model

TRAIN = ("--method", "network")


@pytest.fixture
def model(cli, scan_file, tmp_path):
    out = tmp_path / "m.safetensors"
    assert cli("train", scan_file(), *TRAIN, "-o", out, "--option", "epochs=1", "--quiet") == (0, "", "")
    return out


@pytest.fixture
def changed(model):
    """The model with another document."""
    import dataclasses

    def make(**values):
        save_model(dataclasses.replace(load_model(model), **values), model)
        return model

    return make


@pytest.fixture
def toml(tmp_path):
    (tmp_path / "g.toml").write_text("[tiny]\ngain = 1.0\n")
    return tmp_path / "g.toml"


def test_a_model_of_another_modality(refused, scan_file, changed, tmp_path):
    model = changed(modality="dfxm")
    sentence = refused("map", scan_file(), "--method", model, "-o", tmp_path / "x.h5")
    assert f"model {model} is of the modality dfxm, but {tmp_path / 'scan.h5'} is mapped as tiny" in sentence
    model = changed(modality="sonar")
    silent = scan_file("silent.h5", modality=None)
    assert "unknown modality 'sonar'; there are: " in refused("map", silent, "--method", model, "-o", tmp_path / "x.h5")
    assert "unknown modality 'sonar'" in refused("export", model, "-o", tmp_path / "x.onnx")


@pytest.mark.parametrize("method", ["guess", "mean"])
def test_a_model_of_a_method_that_is_not_there(refused, scan_file, changed, tmp_path, method):
    sentence = refused("map", scan_file(), "--method", changed(method=method), "-o", tmp_path / "x.h5")
    assert f"is of the tiny method '{method}', which this version of braggscope cannot use; there are: network" in sentence


def test_a_model_of_a_later_version(refused, scan_file, model, tmp_path):
    data = model.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    document = json.loads(header["__metadata__"]["braggscope"])
    header["__metadata__"]["braggscope"] = json.dumps({**document, "format": 2})
    new = json.dumps(header).encode()
    model.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + size :])
    for words in (("map", scan_file(), "--method", model, "-o", tmp_path / "x.h5"), ("info", model)):
        assert f"{model} has format 2, this version of braggscope reads format 1" in refused(*words)


def test_a_damaged_model(refused, scan_file, model, tmp_path):
    scan, whole = scan_file(), model.read_bytes()
    words = ("map", scan, "-o", tmp_path / "x.h5", "--method")
    for part in (whole[:-2], whole[:40], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        model.write_bytes(part)
        assert f"model file {model} is corrupt" in refused(*words, model)
        assert f"model file {model} is corrupt" in refused("info", model)
        assert f"model file {model} is corrupt" in refused("export", model, "-o", tmp_path / "x.onnx")


def test_a_damaged_graph(cli, refused, scan_file, model, tmp_path):
    graph, scan = tmp_path / "m.onnx", scan_file()
    assert cli("export", model, "-o", graph, "--quiet")[0] == 0
    whole = graph.read_bytes()
    for part in (whole[: len(whole) // 2], b"", b"no graph"):
        graph.write_bytes(part)
        sentence = refused("map", scan, "--method", graph, "-o", tmp_path / "x.h5")
        assert f"model file {graph} is corrupt or no ONNX graph" in sentence or "does not say what they are" in sentence


def test_a_changed_number_of_a_graph_is_noticed(cli, refused, scan_file, model, tmp_path):
    graph, scan = tmp_path / "m.onnx", scan_file()
    cli("export", model, "-o", graph, "--quiet")
    whole, slope = graph.read_bytes(), load_model(model).weights["slope"].tobytes()
    assert whole.count(slope) == 1
    graph.write_bytes(whole.replace(slope, np.float32(7.0).tobytes()))  # still a graph, which ONNX Runtime runs
    for words in (("map", scan, "-o", tmp_path / "x.h5", "--method", graph), ("info", graph)):
        assert f"model file {graph} is corrupt: its graph is not the one that was written" in refused(*words)


def test_files_that_are_no_models(cli, refused, scan_file, tmp_path):
    scan, words = scan_file(), ("-o", tmp_path / "x.h5", "--method")
    np.savez(tmp_path / "w.npz", slope=1.0)
    cli("map", scan, "-o", tmp_path / "map.h5")
    assert "w.npz is not a model file; if it holds plain arrays" in refused("map", scan, *words, tmp_path / "w.npz")
    assert "map.h5 is not a model file" in refused("map", scan, *words, tmp_path / "map.h5")
    assert "no.safetensors does not exist" in refused("map", scan, *words, tmp_path / "no.safetensors")
    assert "no.onnx does not exist" in refused("info", tmp_path / "no.onnx")
    assert "map.h5 is not a model file" in refused("export", tmp_path / "map.h5", "-o", tmp_path / "x.onnx")


def test_a_model_is_no_map(refused, model, tmp_path):
    for words in (("report", model, "-o", tmp_path / "x.html"), ("view", model, "-o", tmp_path / "x.png")):
        assert f"{model} is a model, not a map; `braggscope map --method {model}` makes maps with it" in refused(*words)


def test_a_checkpoint_is_no_model(refused, scan_file, model, tmp_path):
    checkpoint = model.with_suffix(".training") / "checkpoint.safetensors"
    sentence = f"{checkpoint} is the checkpoint of a training, not a model; `braggscope train ... --resume` ends it"
    assert sentence in refused("map", scan_file(), "-o", tmp_path / "x.h5", "--method", checkpoint)
    assert sentence in refused("info", checkpoint)
    assert sentence in refused("export", checkpoint, "-o", tmp_path / "x.onnx")


def test_a_scan_that_is_not_what_the_model_knows(refused, scan_file, model, tmp_path):
    words = ("--method", model, "-o", tmp_path / "x.h5")
    assert "knows frames of 5 x 4 pixels, those of the scan have 5 x 3" in refused("map", scan_file(), *words, "--roi", "0:5,0:3")
    bright = scan_file("bright.h5")
    with h5py.File(bright, "r+") as file:
        file["entry/instrument/braggscope/gain"][...] = 2.0
    assert "another geometry: gain is 1 in the model and 2 here" in refused("map", bright, *words)
    (tmp_path / "g.toml").write_text("[tiny]\ngain = 3.0\n")
    assert "gain is 1 in the model and 3 here" in refused("map", scan_file(), *words, "--geometry", tmp_path / "g.toml")


def test_options_at_the_wrong_time(refused, scan_file, model, tmp_path):
    scan = scan_file()
    sentence = refused("map", scan, "--method", model, "-o", tmp_path / "x.h5", "--option", "epochs=3")
    assert "option epochs was decided when the model was trained (it is 1)" in sentence
    sentence = refused("train", scan, *TRAIN, "-o", tmp_path / "x.safetensors", "--option", "add=3")
    assert "option add is one of mapping, not of training; give it to `braggscope map`" in sentence


@pytest.mark.parametrize(
    ("words", "there"),
    [
        (("train", "-o", "x.safetensors", *TRAIN), "for training it has: epochs, pause, breaks, simulated\n"),
        (("map", "-o", "x.h5", "--method", "m.safetensors"), "for mapping it has: add\n"),
        (("map", "-o", "x.h5", *TRAIN), "it has: epochs, pause, breaks, simulated, add\n"),  # which trains before it maps
    ],
)
def test_options_that_are_not_there(refused, scan_file, model, tmp_path, monkeypatch, words, there):
    monkeypatch.chdir(tmp_path)
    assert refused(*words, scan_file(), "--option", "epoch=3").endswith(f"method 'network' has no option 'epoch'; {there}")


def test_outputs_that_will_not_do(refused, scan_file, model, tmp_path):
    scan, train = scan_file(), ("train", *TRAIN, "-o")
    assert f"output {model} exists; give another name, --overwrite to replace it or --resume" in refused(*train, model, scan)
    assert "must end in .safetensors" in refused(*train, tmp_path / "x.h5", scan)
    assert "does not exist" in refused(*train, tmp_path / "no" / "x.safetensors", scan)
    assert "is also an input" in refused("map", scan, "--method", model, "-o", model, "--overwrite")
    assert "must end in .onnx" in refused("export", model, "-o", tmp_path / "x.safetensors")
    (tmp_path / "x.training").write_text("dear data")
    assert "x.training is in the way" in refused(*train, tmp_path / "x.safetensors", scan)


def test_an_output_that_is_also_an_input(refused, scan_file, tmp_path):
    odd = scan_file().rename(tmp_path / "scan.safetensors")
    assert "is also an input" in refused("train", odd, *TRAIN, "-o", odd, "--overwrite")
    arrays = tmp_path / "w.safetensors"
    arrays.write_bytes(b"PK")
    words = ("convert-model", "network", arrays, "-o", arrays, "--overwrite", "--geometry", tmp_path / "g.toml")
    assert "is also an input" in refused(*words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "mean"], "method 'mean' needs no training; those that do: network"),
        (["--method", "moments", "--modality", "dfxm"], "method 'moments' needs no training; no dfxm method does"),
        (["--method", "men"], "unknown tiny method 'men'; there are: curve, mean, network"),
        ([*TRAIN, "--resume"], "x.training to resume from; leave --resume out to begin anew"),
        ([*TRAIN, "--resume", "--overwrite"], "--overwrite and --resume contradict each other"),
        ([*TRAIN, "--precision", "16"], "precision must be 32 or bf16, got '16'"),
        ([*TRAIN, "--log", "xml"], "log must be csv or tensorboard, got 'xml'"),
        ([*TRAIN, "--seed", "-1"], "seed must be a whole number from 0 on, got -1"),
        ([*TRAIN, "--devices", "0"], "devices must be a whole number from 1 on, got 0"),
        ([*TRAIN, "--devices", "2"], "torchrun"),
        ([*TRAIN, "--device", "cuda"], "runs on cpu, got device 'cuda'"),
        ([*TRAIN, "--option", "epochs=0"], "epochs must be at least 1, got 0"),
        ([*TRAIN, "--modality", "dfxm"], "unknown dfxm method 'network'"),
        ([], "'--method'"),
    ],
)
def test_bad_words_for_a_training(refused, scan_file, tmp_path, words, sentence):
    assert sentence in refused("train", scan_file(), "-o", tmp_path / "x.safetensors", *words)


def test_a_training_set_of_one_frame(refused, scan_file, tmp_path):
    scan = scan_file(shape=(1, 1))
    assert "a training set needs at least 2 frames, got 1" in refused("train", scan, *TRAIN, "-o", tmp_path / "x.safetensors")


def test_a_training_without_scans(refused, tmp_path, toml):
    words = ("train", *TRAIN, "-o", tmp_path / "x.safetensors")
    assert "nothing to learn from; give scans or, where the method simulates its frames, the tiny geometry" in refused(*words)
    assert "network learns from scans; give one" in refused(*words, "--geometry", toml)
    assert "unknown method 'men'; there are: " in refused("train", "--method", "men", "-o", tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("arrays", "words", "sentence"),
    [
        ({"trained/slope": 1.0}, [], "the arrays 'trained/'"),
        ({"trained/slope": np.zeros(3), "trained/offset": 0.0}, [], "slope is 3, this network has"),
        ({"trained/slope": 1.0}, ["--prefix", "seed/"], "the weights in the arrays 'seed/' do not fit"),
        ({"slope": np.array([{}])}, [], "holds Python objects, which are not read"),
        ({}, [], "w.npz has no arrays"),
    ],
)
def test_weights_that_are_not_those_of_the_method(refused, tmp_path, toml, arrays, words, sentence):
    np.savez(tmp_path / "w.npz", **arrays)
    weights = ("convert-model", "network", tmp_path / "w.npz", "-o", tmp_path / "x.safetensors", "--geometry", toml)
    assert sentence in refused(*weights, *words)


def test_weights_that_cannot_be_read(refused, tmp_path, toml):
    def said(name):
        return refused("convert-model", "network", tmp_path / name, "-o", tmp_path / "x.safetensors", "--geometry", toml)

    np.savez(tmp_path / "whole.npz", slope=np.zeros(500))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:300])
    flipped = bytearray(whole)
    flipped[700] ^= 255
    (tmp_path / "flipped.npz").write_bytes(flipped)
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("cut.npz", "flipped.npz", "text.npz", "empty.npz"):
        sentence = said(name)
        assert name in sentence
        assert ".npz file of" in sentence
    assert "text.npz is not an .npz file of arrays" in said("text.npz")
    assert "one.npy holds one array without a name" in said("one.npy")
    assert "no.npz does not exist" in said("no.npz")
    assert "cannot be read" in refused("convert-model", "network", tmp_path, "-o", tmp_path / "x.safetensors", "--geometry", toml)


def test_weights_of_a_method_that_takes_none(refused, tmp_path, toml):
    np.savez(tmp_path / "w.npz", slope=1.0)
    words = (tmp_path / "w.npz", "-o", tmp_path / "x.safetensors")
    assert "method 'mean' needs no training; those that do: network" in refused(
        "convert-model", "mean", *words, "--geometry", toml
    )
    assert "give a TOML file with --geometry" in refused("convert-model", "network", *words)


def test_an_export_without_its_package(refused, model, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'braggscope[edge]'" in refused("export", model, "-o", tmp_path / "x.onnx")


def test_weights_without_an_array(tiny):
    with pytest.raises(InputError, match=r"^the weights have no arrays$"):
        braggscope.convert_model("network", {}, geometry={"gain": 1.0})
