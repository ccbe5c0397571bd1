"""`braggscope train`: a model file with where it comes from, the log beside it, and going on after an interruption."""

from __future__ import annotations

import csv
import itertools
import json
import signal

import numpy as np
import pytest

import braggscope
from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.model import load_model


@pytest.fixture
def toml(tmp_path):
    (tmp_path / "g.toml").write_text("[tiny]\ngain = 1.0\n")
    return tmp_path / "g.toml"


def weights(path):
    return {name: float(value) for name, value in load_model(path).weights.items()}


def test_a_scan_becomes_a_model_that_maps_it(cli, scan_file, tmp_path):
    scan, out = scan_file(), tmp_path / "m.safetensors"
    code, said, wrong = cli("train", scan, "--method", "network", "-o", out, "--option", "epochs=60")
    assert (code, wrong) == (0, "")
    assert "tiny model by network, frames of 5 x 4 pixels, 2 numbers" in said
    assert "trained on  42 frames of scan.h5, seed 0" in said
    assert "60 of 60" in said
    assert f"written to {out}; the log is in {tmp_path / 'm.training'}" in said
    assert cli("map", scan, "--method", out, "-o", tmp_path / "a.h5")[0] == 0
    cli("map", scan, "--method", "mean", "-o", tmp_path / "b.h5")
    a, b = (braggscope.load(tmp_path / name)["level"].values for name in ("a.h5", "b.h5"))
    # a line through noisy means: 0.1 counts of 6 is what 60 epochs of this rate reach
    np.testing.assert_allclose(a, b, atol=0.1)


def test_the_model_says_where_it_comes_from(cli, scan_file, tmp_path):
    scan, out = scan_file(), tmp_path / "m.safetensors"
    words = ("--seed", 3, "--roi", "0:5,0:3", "--option", "epochs=2")
    assert cli("train", scan, scan_file("second.h5"), "--method", "network", "-o", out, *words, "--quiet") == (0, "", "")
    model = load_model(out)
    said = model.provenance
    assert (model.modality, model.method, model.frame_shape, model.geometry) == ("tiny", "network", (5, 3), {"gain": 1.0})
    assert model.options == {"epochs": 2, "pause": 0.0, "breaks": -1, "simulated": False}
    assert (said["version"], said["seed"], said["device"], said["frames"]) == (braggscope.__version__, 3, "cpu", 84)
    assert (said["epochs"], said["epochs_planned"], said["best_epoch"]) == (2, 2, 2)
    assert [one["input_file"] for one in said["data"]] == ["scan.h5", "second.h5"]
    cli("map", scan, "-o", tmp_path / "map.h5")
    assert said["data"][0]["input_hash"] == braggscope.load(tmp_path / "map.h5").attrs["input_hash"]
    assert said["data"][0]["roi"] == [0, 5, 0, 3]
    assert said["validation_loss"]["loss"] > 0


def test_json_is_one_document_with_the_history(cli, scan_file, tmp_path):
    code, said, wrong = cli("train", scan_file(), "--method", "network", "-o", tmp_path / "m.safetensors", "--json")
    document = json.loads(said)
    assert (code, wrong) == (0, "")
    assert [row["epoch"] for row in document["history"]] == [1, 2, 3, 4]
    losses = [row["validation"]["loss"] for row in document["history"]]
    assert losses == sorted(losses, reverse=True)
    assert document["validation_loss"]["loss"] == losses[-1]
    assert document["output"] == str(tmp_path / "m.safetensors")


def test_the_log_lies_beside_the_model(cli, scan_file, tmp_path):
    cli("train", scan_file(), "--method", "network", "-o", tmp_path / "m.safetensors")
    with (tmp_path / "m.training" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]


def test_a_method_that_simulates_takes_no_scan(cli, tmp_path, toml):
    words = ("train", "--method", "network", "--option", "simulated=yes", "-o", tmp_path / "m.safetensors")
    code, said, _ = cli(*words, "--geometry", toml)
    assert (code, "simulated by the method" in said) == (0, True)
    assert load_model(tmp_path / "m.safetensors").provenance["data"] == "simulated by the method"


def test_python_gives_the_same_model_without_a_file(cli, scan_file, tmp_path):
    scan = scan_file()
    cli("train", scan, "--method", "network", "-o", tmp_path / "m.safetensors")
    trained = braggscope.train(scan, method="network", progress=False)
    assert trained.model.weights_hash() == load_model(tmp_path / "m.safetensors").weights_hash()
    assert ([report.epoch for report in trained.history], trained.log, trained.failed) == ([1, 2, 3, 4], None, "")
    direct = braggscope.map(scan, trained.model, progress=False)
    filed = braggscope.map(scan, tmp_path / "m.safetensors", progress=False)
    np.testing.assert_array_equal(direct["level"], filed["level"])


def test_a_loss_that_is_no_number_keeps_the_best_weights_and_says_so(cli, scan_file, tmp_path):
    scan, out = scan_file(), tmp_path / "m.safetensors"
    code, said, wrong = cli("train", scan, "--method", "network", "-o", out, "--option", "breaks=3")
    assert code == 1
    assert wrong.startswith("error: the loss is not finite in epoch 3, step 1")
    assert wrong.endswith(f"{out} holds the best weights before that\n")
    assert "stopped" in said
    cli("train", scan, "--method", "network", "-o", tmp_path / "two.safetensors", "--option", "epochs=2")
    assert weights(out) == weights(tmp_path / "two.safetensors")
    assert load_model(out).provenance["stopped"].startswith("the loss is not finite")
    document = json.loads(
        cli("train", scan, "--method", "network", "-o", out, "--option", "breaks=3", "--overwrite", "--json")[1]
    )
    assert document["history"][-1]["validation"] == {"loss": None}


def test_a_loss_that_is_no_number_from_the_start_gives_no_model(cli, scan_file, tmp_path):
    code, _, wrong = cli("train", scan_file(), "--method", "network", "-o", tmp_path / "m.safetensors", "--option", "breaks=1")
    assert (code, "is not finite in epoch 1" in wrong) == (1, True)
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_goes_on_to_the_very_same_weights(tiny, cli, scan_file, tmp_path, monkeypatch, number):
    scan, out, batches = scan_file(), tmp_path / "m.safetensors", itertools.count(1)
    words = ("train", scan, "--method", "network", "--option", "epochs=6", "-o")
    with monkeypatch.context() as during:  # the signal comes in the last of the four batches of epoch 3
        during.setattr("tinyscope.estimators.network.time.sleep", lambda _: next(batches) == 12 and signal.raise_signal(number))
        code, said, wrong = cli(*words, out)
    assert (code, said) == (1, "")
    folder = tmp_path / "m.training"
    assert wrong == (
        f"error: interrupted; {folder} holds the checkpoint of epoch 2; repeat the command with --resume to go on from it\n"
    )
    assert not out.exists()
    code, said, wrong = cli(*words, out)
    assert (code, "holds an earlier training; --resume goes on with it, --overwrite begins anew" in wrong) == (2, True)
    document = json.loads(cli(*words, out, "--resume", "--json")[1])
    assert [row["epoch"] for row in document["history"]] == [1, 2, 3, 4, 5, 6]
    assert cli(*words, tmp_path / "whole.safetensors", "--quiet")[0] == 0
    assert weights(out) == weights(tmp_path / "whole.safetensors")


def test_a_training_that_is_replaced_can_be_interrupted_and_gone_on_with(tiny, cli, scan_file, tmp_path, monkeypatch):
    scan, out, batches = scan_file(), tmp_path / "m.safetensors", itertools.count(1)
    assert cli("train", scan, "--method", "network", "--option", "epochs=3", "-o", out, "--quiet")[0] == 0
    before = out.read_bytes()
    words = ("train", scan, "--method", "network", "--option", "epochs=5", "-o", out)
    with monkeypatch.context() as during:
        during.setattr("tinyscope.estimators.network.time.sleep", lambda _: next(batches) == 6 and signal.raise_signal(2))
        code, _, wrong = cli(*words, "--overwrite")
    advice = "holds the checkpoint of epoch 1; repeat the command with --resume instead of --overwrite to go on from it"
    assert (code, advice in wrong, out.read_bytes() == before) == (1, True, True)
    assert "--overwrite to replace it or --resume to finish" in cli(*words)[2]
    document = json.loads(cli(*words, "--resume", "--json")[1])
    assert [row["epoch"] for row in document["history"]] == [1, 2, 3, 4, 5]
    assert cli(*words[:-1], tmp_path / "whole.safetensors", "--quiet")[0] == 0
    assert weights(out) == weights(tmp_path / "whole.safetensors")


def test_the_checkpoint_of_a_replaced_training_is_not_taken_for_a_new_one(tiny, cli, scan_file, tmp_path, monkeypatch):
    scan, out = scan_file(), tmp_path / "m.safetensors"
    words = ("train", scan, "--method", "network", "-o", out)
    assert cli(*words, "--quiet")[0] == 0
    (tmp_path / "m.training" / "of_a_network").mkdir()
    (tmp_path / "m.training" / "checkpoint.safetensors").rename(tmp_path / "m.training/of_a_network/checkpoint.safetensors")
    monkeypatch.setattr("tinyscope.estimators.network.time.sleep", lambda _: signal.raise_signal(signal.SIGINT))
    assert cli(*words, "--overwrite")[2] == "error: interrupted; nothing was written\n"
    assert not list(tmp_path.rglob("checkpoint.safetensors"))
    monkeypatch.setattr(tiny.estimator("network"), "_task", lambda *a: 1 / 0)
    assert cli(*words, "--overwrite")[2].endswith("(ZeroDivisionError: division by zero); nothing was written\n")


def test_it_stops_when_it_gets_no_better(cli, scan_file, tmp_path):
    """The validation loss falls until the line through the noise is found, long before epoch 400."""
    scan, out = scan_file(), tmp_path / "m.safetensors"
    words = ("train", scan, "--method", "network", "-o", out, "--option", "epochs=400", "--patience", 3, "--json")
    found = json.loads(cli(*words)[1])
    assert found["stopped"] == f"no better validation loss for 3 epochs; the weights of epoch {found['best_epoch']} are kept"
    assert found["epochs"] == len(found["history"]) == found["best_epoch"] + 3 < 400
    assert load_model(out).provenance["stopped"] == found["stopped"]
    code, _, wrong = cli(*words[:-3], "--patience", -1, "--overwrite")
    assert (code, wrong) == (2, "error: patience must be a whole number from 0 on, got -1\n")


def test_an_interruption_before_the_first_checkpoint_leaves_nothing(tiny, cli, scan_file, tmp_path, monkeypatch):
    scan = scan_file()
    monkeypatch.setattr("tinyscope.estimators.network.time.sleep", lambda _: signal.raise_signal(signal.SIGINT))
    code, _, wrong = cli("train", scan, "--method", "network", "-o", tmp_path / "m.safetensors")
    assert (code, wrong) == (1, "error: interrupted; nothing was written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.h5"]


def test_another_training_is_not_resumed(cli, scan_file, tmp_path):
    scan, out = scan_file(), tmp_path / "m.safetensors"
    cli("train", scan, "--method", "network", "-o", out)
    out.unlink()
    code, _, wrong = cli("train", scan, "--method", "network", "-o", out, "--resume", "--option", "epochs=9")
    assert (code, "epochs" in wrong) == (2, True)
    other = scan_file("other.h5", change=lambda counts: counts + 1)
    code, _, wrong = cli("train", other, "--method", "network", "-o", out, "--resume")
    assert (code, "data" in wrong) == (2, True)
    assert not out.exists()
    assert cli("train", scan, "--method", "network", "-o", out, "--resume", "--quiet")[0] == 0


def test_a_finished_training_can_be_replaced(cli, scan_file, tmp_path):
    scan, out = scan_file(), tmp_path / "m.safetensors"
    cli("train", scan, "--method", "network", "-o", out)
    cli("train", scan, "--method", "network", "-o", out, "--overwrite", "--option", "epochs=2")
    assert load_model(out).provenance["epochs"] == 2
    with (tmp_path / "m.training" / "log.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2


def test_a_failing_method_is_told_in_a_sentence(tiny, scan_file, monkeypatch):
    monkeypatch.setattr(tiny.estimator("network"), "_task", lambda *a: 1 / 0)
    with pytest.raises(BraggscopeError, match=r"training of 'network' failed \(ZeroDivisionError: division by zero\)"):
        braggscope.train(scan_file(), method="network", progress=False)


def test_only_the_first_of_several_processes_writes_and_speaks(cli, scan_file, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert cli("train", scan_file(), "--method", "network", "-o", tmp_path / "m.safetensors")[:2] == (0, "")
    assert not (tmp_path / "m.safetensors").exists()


def test_scans_that_do_not_fit_each_other(tiny, scan_file, toml):
    a, b = scan_file(), scan_file("narrow.h5", frame_shape=(5, 3))
    with pytest.raises(InputError, match=r"different shapes: 5 x 4 pixels in .*scan\.h5 and 5 x 3 pixels in .*narrow\.h5"):
        braggscope.train(a, b, method="network", progress=False)
    import h5py

    c = scan_file("bright.h5")
    with h5py.File(c, "r+") as file:
        file["entry/instrument/braggscope/gain"][...] = 2.0
    with pytest.raises(InputError, match=r"scan\.h5 and .*bright\.h5 state different geometries: gain is 1\.0 and 2\.0"):
        braggscope.train(a, c, method="network", progress=False)
    assert braggscope.train(a, c, method="network", geometry=toml, progress=False).model.geometry == {"gain": 1.0}
