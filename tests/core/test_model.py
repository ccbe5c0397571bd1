"""Model files: what is written is read, and nothing else is taken for a model."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors import SafetensorError

from braggscope.core.errors import InputError
from braggscope.core.model import Model, is_model_file, load_model, save_model, sealed

WEIGHTS = {
    "layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "count": np.array(7, np.int64),  # no axes, as the counters of batch normalisation
    "shift": np.array([0.5, -2.0]),
}
MODEL = Model(
    modality="tiny", method="network", geometry={"gain": 2.0}, frame_shape=(5, 4), options={"epochs": 3},
    facts={"range": np.array([0.0, 12.5])}, provenance={"seed": 1}, weights=WEIGHTS,
)  # fmt: skip


@pytest.fixture
def path(tmp_path):
    save_model(MODEL, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def rewritten(path, change):
    """The model file with another document; its weights stay as they are."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    document = json.loads(header["__metadata__"]["braggscope"])
    header["__metadata__"]["braggscope"] = change(document) or json.dumps(document)
    new = json.dumps(header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + size :])
    return path


def test_a_model_survives_its_file(path):
    read = load_model(path)
    assert (read.modality, read.method, read.frame_shape) == ("tiny", "network", (5, 4))
    assert (read.geometry, read.options, read.provenance) == ({"gain": 2.0}, {"epochs": 3}, {"seed": 1})
    assert read.facts == {"range": [0.0, 12.5]}
    assert read.graph is None
    assert sorted(read.weights) == sorted(WEIGHTS)
    for name, value in WEIGHTS.items():
        assert read.weights[name].dtype == value.dtype
        assert read.weights[name].shape == value.shape
        np.testing.assert_array_equal(read.weights[name], value)


def test_the_hash_of_a_model_is_that_of_its_file(path):
    read = {"model_file": str(path), "model_hash": MODEL.digest(), "model_weights": MODEL.weights_hash()}
    assert load_model(path).file == read
    other = dataclasses.replace(MODEL, weights={**WEIGHTS, "shift": np.array([0.5, -2.1])})
    assert (other.digest() != MODEL.digest(), other.weights_hash() != MODEL.weights_hash()) == (True, True)
    assert dataclasses.replace(MODEL, provenance={"seed": 2}).weights_hash() == MODEL.weights_hash()


def test_a_file_that_cannot_be_written_leaves_what_was_there(path):
    before = path.read_bytes()
    with pytest.raises(OSError):
        save_model(MODEL, path.parent / "no" / "m.safetensors")
    with pytest.raises(SafetensorError):
        save_model(dataclasses.replace(MODEL, weights={"odd": np.array(["word"])}), path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("kept", [0, 5, 60, -9, -1])
def test_a_file_cut_short_is_corrupt(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"m\.safetensors is corrupt or cut short"):
        load_model(path)


def test_a_changed_byte_of_the_weights_is_noticed(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is corrupt: its weights are not those that were written"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d.update(format=2), "has format 2, this version of braggscope reads format 1"),
        (lambda d: d.pop("format"), "what it says about itself cannot be read"),
        (lambda d: "[1, 2]", "what it says about itself cannot be read"),
        (lambda d: "{", "what it says about itself cannot be read"),
        (lambda d: d.pop("method") and None, "it should say modality, method, geometry"),
        (lambda d: d.update(frame_shape=[5, "4"]), r"its frame_shape is \[5, '4'\]"),
        (lambda d: d.update(frame_shape=[5]), r"its frame_shape is \[5\]"),
        (lambda d: d.update(geometry=None), "its geometry is None"),
    ],
)
def test_a_document_that_will_not_do_is_refused(path, change, sentence):
    def without_result(document):
        result = change(document)
        return result if isinstance(result, str) else None

    with pytest.raises(InputError, match=sentence):
        load_model(rewritten(path, without_result))


def test_weights_of_another_program_do_not_say_what_they_are(tmp_path):
    from safetensors.numpy import save_file

    save_file({"shift": np.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="holds weights but does not say what they are; `braggscope convert-model`"):
        load_model(tmp_path / "other.safetensors")


def test_the_seal_of_a_graph_is_the_hash_of_all_its_other_bytes():
    import hashlib

    key = b"\x0a\x11braggscope_sha256\x12\x40"
    blank = b"weights" + key + b"0" * 64 + b"more"
    graph = sealed(blank)
    assert graph == blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode())
    assert sealed(graph) == graph
    for place in range(len(graph)):
        changed = bytearray(graph)
        changed[place] ^= 1
        assert sealed(bytes(changed)) != changed
    assert sealed(b"a graph of somebody else") == b""


def test_other_files_are_no_models(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    with pytest.raises(InputError, match=r"w\.npz is not a model file; if it holds plain arrays, `braggscope convert-model`"):
        load_model(tmp_path / "w.npz")
    (tmp_path / "notes.txt").write_text("no weights here")
    with pytest.raises(InputError, match=r"notes\.txt is not a model file; `braggscope train`"):
        load_model(tmp_path / "notes.txt")
    (tmp_path / "g.onnx").write_bytes(b"\x08\x07garbage")
    with pytest.raises(InputError, match=r"g\.onnx is corrupt or no ONNX graph"):
        load_model(tmp_path / "g.onnx")
    with pytest.raises(InputError, match="does not exist"):
        load_model(tmp_path / "no.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        load_model(tmp_path)


def test_what_is_taken_for_the_name_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_text("")
    assert all(is_model_file(word) for word in ("a.safetensors", "a.onnx", "folder/a", "model"))
    assert not is_model_file("likelihood")
