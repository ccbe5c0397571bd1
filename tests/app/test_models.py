"""Models in use: `map --method MODEL`, `convert-model`, `export`, `info MODEL`."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import braggscope
from braggscope.app.mapping import map_source
from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.model import load_model
from braggscope.core.scan import Scan


@pytest.fixture
def model(cli, scan_file, tmp_path):
    """A model file, trained on a scan of another seed than the one that is mapped."""
    out = tmp_path / "m.safetensors"
    cli("simulate", "tiny", "--shape", 40, "-o", tmp_path / "t.h5")
    assert cli("train", tmp_path / "t.h5", "--method", "network", "-o", out, "--quiet") == (0, "", "")
    return out


@pytest.fixture
def toml(tmp_path):
    (tmp_path / "g.toml").write_text("[tiny]\ngain = 1.0\n")
    return tmp_path / "g.toml"


def test_the_map_names_its_model(cli, scan_file, model, tmp_path):
    code, said, wrong = cli("map", scan_file(), "--method", model, "-o", tmp_path / "map.h5")
    assert (code, wrong) == (0, "")
    assert "tiny map by network" in said
    attrs = braggscope.load(tmp_path / "map.h5").attrs
    assert attrs["method"] == "network"
    assert attrs["model_hash"] == load_model(model).file["model_hash"]
    assert (attrs["model_file"], attrs["model_epochs"], attrs["model_seed"]) == (str(model), 4, 0)
    assert json.loads(attrs["model_data"])[0]["input_file"] == "t.h5"
    assert "geometry_from" not in attrs


def test_mapping_options_remain_free(cli, scan_file, model, tmp_path):
    scan = scan_file()
    cli("map", scan, "--method", model, "-o", tmp_path / "a.h5")
    cli("map", scan, "--method", model, "-o", tmp_path / "b.h5", "--option", "add=3")
    a, b = (braggscope.load(tmp_path / name)["level"].values for name in ("a.h5", "b.h5"))
    np.testing.assert_allclose(b - a, 3, atol=1e-6)


def test_the_geometry_of_the_model_stands_for_one_that_nobody_says(cli, scan_file, tmp_path):
    (tmp_path / "g.toml").write_text("[tiny]\ngain = 2.5\n")
    scan, out = scan_file(modality=None), tmp_path / "m.safetensors"
    assert cli("train", scan, "--method", "network", "--geometry", tmp_path / "g.toml", "-o", out, "--quiet")[0] == 0
    assert cli("map", scan, "--method", out, "-o", tmp_path / "map.h5")[0] == 0
    attrs = braggscope.load(tmp_path / "map.h5").attrs
    assert (attrs["modality"], json.loads(attrs["geometry"])) == ("tiny", {"gain": 2.5})
    assert attrs["geometry_from"] == "the model"


def test_a_map_is_resumed_with_its_own_model_only(cli, scan_file, model, tmp_path, monkeypatch):
    scan, out = scan_file(shape=(60, 70)), tmp_path / "map.h5"
    whole = Scan.batches

    def broken(self, size=None, *, only=None):
        for i, batch in enumerate(whole(self, size, only=only)):
            if i == 2:
                raise OSError("gone")
            yield batch

    monkeypatch.setattr(Scan, "batches", broken)
    assert cli("map", scan, "--method", model, "-o", out)[0] == 1
    monkeypatch.setattr(Scan, "batches", whole)
    other = tmp_path / "other.safetensors"
    cli("train", tmp_path / "t.h5", "--method", "network", "-o", other, "--seed", 5)
    code, _, wrong = cli("map", scan, "--method", other, "-o", out, "--resume")
    assert (code, wrong) == (2, f"error: {out} cannot be resumed: model was {model} and is {other}\n")
    code, _, wrong = cli("map", scan, "--method", "mean", "-o", out, "--resume")
    assert wrong == f"error: {out} cannot be resumed: method was network and is mean; model was {model} and is none\n"
    kept = model.read_bytes()
    model.write_bytes(other.read_bytes())
    code, _, wrong = cli("map", scan, "--method", model, "-o", out, "--resume")
    model.write_bytes(kept)
    hashes = [load_model(one).file["model_hash"][:8] for one in (model, other)]
    assert wrong.endswith(f"model was {model} ({hashes[0]}) and is {model} ({hashes[1]})\n")
    assert cli("map", scan, "--method", model, "-o", out, "--resume", "--quiet")[0] == 0
    cli("map", scan, "--method", model, "-o", tmp_path / "whole.h5")
    np.testing.assert_array_equal(braggscope.load(out)["level"], braggscope.load(tmp_path / "whole.h5")["level"])


def test_a_method_without_a_model_is_trained_on_the_scan_first(cli, scan_file, tmp_path):
    scan, out = scan_file(), tmp_path / "map.h5"
    code, said, wrong = cli("map", scan, "--method", "network", "-o", out, "--option", "epochs=3", "--option", "add=1")
    assert (code, wrong) == (0, "")
    kept = tmp_path / "map.training" / "model.safetensors"
    assert f"trained for this scan in 3 epochs, and `--method {kept}` maps others as well" in said
    assert load_model(kept).provenance["epochs"] == braggscope.load(out).attrs["trained_epochs"] == 3
    assert load_model(kept).weights_hash() == braggscope.load(out).attrs["trained_weights"]
    code, said, _ = cli("map", scan, "--method", "network", "-o", out, "--overwrite", "--json")
    assert json.loads(said)["trained_model"] == str(kept)
    cli("map", scan, "--method", "network", "-o", out, "--overwrite", "--option", "epochs=3", "--option", "add=1")
    assert "maps others" not in cli("map", scan, "--method", kept, "-o", tmp_path / "again.h5", "--option", "add=1")[1]
    np.testing.assert_array_equal(braggscope.load(out)["level"], braggscope.load(tmp_path / "again.h5")["level"])


def test_a_map_that_trains_and_breaks_off_is_finished_without_training_again(tiny, scan_file, tmp_path, monkeypatch):
    scan = braggscope.open(scan_file(shape=(60, 70)))
    whole, breaking = Scan.batches, [True]

    def broken(self, size=None, *, only=None):
        for i, batch in enumerate(whole(self, size, only=only)):
            if breaking[0] and size == 1024 and i == 2:
                raise OSError("gone")
            yield batch

    monkeypatch.setattr(Scan, "batches", broken)
    words = {"output": tmp_path / "map.h5", "options": {"epochs": 2}, "progress": False}
    with pytest.raises(BraggscopeError, match=r"gone; .*map\.h5 holds 2048 of 4200 frames"):
        map_source(scan, "network", **words)
    breaking[0] = False
    monkeypatch.setattr(tiny.estimator("network"), "train", lambda *a: pytest.fail("trained again"))
    resumed = map_source(scan, "network", resume=True, **words)
    monkeypatch.undo()
    direct = map_source(scan, "network", options={"epochs": 2}, progress=False)
    for dataset in (resumed, direct):
        for name in ("created", "seconds"):
            del dataset.attrs[name]
    xr.testing.assert_identical(resumed, direct)


def test_a_map_that_is_replaced_is_finished_after_an_interrupted_training(tiny, cli, scan_file, tmp_path, monkeypatch):
    """Neither the earlier model nor the earlier map, which has the same attributes, is taken for the new one."""
    scan, out, kept = scan_file(), tmp_path / "map.h5", tmp_path / "map.training" / "model.safetensors"
    words = ("map", scan, "--method", "network", "-o", out, "--option", "epochs=3")
    assert cli(*words, "--quiet")[0] == 0
    before, batches = out.stat().st_mtime_ns, itertools.count(1)
    with monkeypatch.context() as during:
        during.setattr("tinyscope.estimators.network.time.sleep", lambda _: next(batches) == 6 and signal.raise_signal(2))
        code, _, wrong = cli(*words, "--overwrite")
    advice = "holds the checkpoint of epoch 1; repeat the command with --resume instead of --overwrite to go on from it"
    assert (code, advice in wrong, kept.exists(), out.stat().st_mtime_ns == before) == (1, True, False, True)
    assert cli(*words, "--resume", "--quiet") == (0, "", "")
    assert out.stat().st_mtime_ns > before and kept.exists()


def test_a_map_of_before_the_training_beside_it_is_not_resumed_but_replaced(tiny, cli, scan_file, tmp_path):
    """As a process leaves it that ends between the training and the first map."""
    words = ("map", scan_file(), "--method", "network", "-o", tmp_path / "map.h5", "--quiet", "--option")
    cli(*words, "epochs=2")
    earlier = (tmp_path / "map.h5").read_bytes()
    cli(*words, "epochs=3", "--overwrite")
    expected = braggscope.load(tmp_path / "map.h5")["level"]
    (tmp_path / "map.h5").write_bytes(earlier)
    assert cli(*words, "epochs=3", "--resume") == (0, "", "")
    found = braggscope.load(tmp_path / "map.h5")
    assert found.attrs["trained_epochs"] == 3
    np.testing.assert_array_equal(found["level"], expected)


def test_a_map_whose_training_fails_is_none(cli, scan_file, tmp_path):
    code, _, wrong = cli("map", scan_file(), "--method", "network", "-o", tmp_path / "m.h5", "--option", "breaks=2")
    assert (code, "is not finite in epoch 2" in wrong, "nothing was mapped" in wrong) == (1, True, True)
    assert not (tmp_path / "m.h5").exists()


def test_an_exported_model_maps_as_the_model(cli, scan_file, model, tmp_path):
    scan, graph = scan_file(), tmp_path / "m.onnx"
    code, said, wrong = cli("export", model, "-o", graph)
    assert (code, wrong) == (0, "")
    assert "tiny model by network, frames of 5 x 4 pixels, ONNX graph" in said
    for name, one in (("a.h5", model), ("b.h5", graph)):
        assert cli("map", scan, "--method", one, "-o", tmp_path / name)[0] == 0
    a, b = (braggscope.load(tmp_path / name)["level"].values for name in ("a.h5", "b.h5"))
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert braggscope.load(tmp_path / "b.h5").attrs["model_epochs"] == 4
    assert braggscope.export(load_model(model)).graph is not None
    code, _, wrong = cli("export", graph, "-o", tmp_path / "again.onnx")
    assert (code, "is an ONNX graph already" in wrong) == (2, True)


def test_published_weights_become_a_model(cli, scan_file, tmp_path, toml):
    np.savez(tmp_path / "w.npz", **{"trained/slope": 1.5, "trained/offset": 0.25, "seed1/slope": 2.0, "seed1/offset": 0.0})
    words = ("convert-model", "network", tmp_path / "w.npz", "--geometry", toml, "-o")
    code, said, wrong = cli(*words, tmp_path / "m.safetensors")
    assert (code, wrong) == (0, "")
    assert "tiny model by network, frames of 5 x 4 pixels, 2 numbers" in said
    assert cli("map", scan_file(), "--method", tmp_path / "m.safetensors", "-o", tmp_path / "map.h5")[0] == 0
    with h5py.File(scan_file()) as file:
        mean = file["entry/data/data"][()].mean(axis=(2, 3))
    np.testing.assert_allclose(braggscope.load(tmp_path / "map.h5")["level"], 1.5 * mean + 0.25, rtol=1e-6)
    said = load_model(tmp_path / "m.safetensors").provenance
    assert (said["by"], said["input_file"], len(said["input_hash"])) == ("somebody", "w.npz", 64)
    assert cli(*words, tmp_path / "s.safetensors", "--prefix", "seed1/", "--quiet")[0] == 0
    assert float(load_model(tmp_path / "s.safetensors").weights["slope"]) == 2.0
    arrays = {"trained/slope": np.array(3.0), "trained/offset": np.array(0.0)}
    assert braggscope.convert_model("network", arrays, geometry={"gain": 1.0}).weights["slope"] == 3.0


def test_a_method_says_which_prefixes_it_takes(cli, refused, tmp_path):
    examples = Path(__file__).parents[2] / "examples"
    words = ("convert-model", "nanobeamnn", examples / "data" / "nanobeamnn_weights.npz", "--geometry")
    words = (*words, examples / "nanobeam_sriro3.toml", "-o", tmp_path / "m.safetensors", "--prefix")
    assert "the weights have no prefix 'seed77/'; they have: trained/" in refused(*words, "seed77")
    assert cli(*words, "ensemble", "--quiet") == (0, "", "")
    assert load_model(tmp_path / "m.safetensors").options["ensemble"] == 10


def test_info_says_what_a_model_is(cli, model):
    code, said, wrong = cli("info", model)
    assert (code, wrong) == (0, "")
    for words in (
        "tiny model by network", "safetensors", "2 numbers", "5 x 4 pixels", "gain 1", "epochs 4", "largest",
        f"{load_model(model).file['model_hash']} file", f"{load_model(model).weights_hash()} weights", "input_file t.h5",
    ):  # fmt: skip
        assert words in said
    found = json.loads(cli("info", model, "--json")[1])
    assert (found["kind"], found["format"], found["known"], found["parameters"]) == ("model", "safetensors", True, 2)
    assert found["weights"] == {"slope": [], "offset": []}
    assert (found["hash"], found["weights_hash"]) == (load_model(model).file["model_hash"], load_model(model).weights_hash())
    assert found["provenance"]["epochs"] == 4


def test_the_same_weights_are_known_by_their_hash(cli, model, tmp_path):
    again, graph = tmp_path / "again.safetensors", tmp_path / "m.onnx"
    cli("train", tmp_path / "t.h5", "--method", "network", "-o", again, "--quiet")
    cli("export", model, "-o", graph, "--quiet")
    said = [json.loads(cli("info", one, "--json")[1]) for one in (model, again, graph)]
    assert len({one["weights_hash"] for one in said}) == 1
    assert said[2]["hash"] not in {one["hash"] for one in said[:2]}  # trained in one second, two files are equal
    assert f"{said[0]['weights_hash']} weights that it was made of" in cli("info", graph)[1]


def test_info_of_a_model_is_quick(model, cli, tmp_path):
    cli("export", model, "-o", tmp_path / "m.onnx")
    code = (
        "import sys; from braggscope.app.cli.main import main\n"
        f"assert main(['info', {str(model)!r}]) == 0 and main(['info', {str(tmp_path / 'm.onnx')!r}]) == 0\n"
        "print(*(m for m in ('torch', 'xarray', 'matplotlib', 'numba', 'tqdm') if m in sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == ""
    assert "which this version of braggscope does not have" in ran.stdout  # without the tiny modality on the path


def test_info_of_a_method_tells_options_of_training_from_those_of_mapping(cli):
    said = cli("info", "--method", "network")[1]
    training, mapping = said.split("options of mapping")
    assert "epochs=4" in training.split("options of training")[1]
    assert "add=0.0 count" in mapping
    assert "epochs" not in mapping
    found = json.loads(cli("info", "--method", "network", "--json")[1])["modalities"]["tiny"]
    assert {one["name"]: one["stage"] for one in found["options"]}["add"] == "mapping"
    assert "options (--option" in cli("info", "--method", "mean")[1]


def test_what_train_gives_maps_is_exported_and_saved(tiny, scan_file, tmp_path):
    scan = scan_file()
    trained = braggscope.train(scan, method="network", progress=False)
    direct = braggscope.map(scan, trained, progress=False)["level"]
    for result, name in ((trained, "a.safetensors"), (trained.model, "b.safetensors"), (braggscope.export(trained), "c.onnx")):
        braggscope.save(result, tmp_path / name)
        # the graph adds up in another order
        np.testing.assert_allclose(braggscope.map(scan, tmp_path / name, progress=False)["level"], direct, rtol=1e-6)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"d\.h5 must end in \.safetensors"):
        braggscope.save(trained, tmp_path / "d.h5")
    with pytest.raises(InputError, match="what is saved must be a map or a model, got ndarray"):
        braggscope.save(direct.values, tmp_path / "d.h5")
    assert not (tmp_path / "d.h5").exists()
